"""Measure `denoise batch`: its throughput beside `denoise audio`, and its memory with large files."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import typer
from common import JsonFile, Row, describe_environment, report

app = typer.Typer(pretty_exceptions_enable=False)
AUDIO = "denoise audio, 1 thread"
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
DENOISE = [sys.executable, "-m", "denoise"]


def make_sounds(folder: Path, n: int, seconds: float) -> None:
    """Write noise bursts in white noise at 48 kHz, 16 bits; all differ."""
    folder.mkdir(parents=True)
    times = np.arange(round(48_000 * seconds)) / 48_000
    for i in range(n):
        rng = np.random.default_rng(i)
        tone = 0.2 * np.sin(2 * np.pi * (200 + 10 * i) * times) * (times % 1 < 0.5)
        soundfile.write(folder / f"{i:03}.wav", tone + 0.01 * rng.standard_normal(len(times)), 48_000)


def batch_line(folder: Path, words: Sequence[str] = ()) -> list[str]:
    """Return the command for the batch of a folder's `in`."""
    return [*DENOISE, "batch", str(folder / "in"), str(folder / "out"), "--model", "speech", "--audio", *words]


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the journal that are complete."""
    path, rows = folder / "out.journal.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # cut by a kill
    return rows


# Throughput


@app.command()
def throughput(
    files: Annotated[int, typer.Option(help="Number of files.")] = 200,
    seconds: Annotated[float, typer.Option(help="Length of each.")] = 10.0,
    workers: Annotated[str, typer.Option(help="Numbers of workers, comma separated.")] = "1,2",
    rounds: Annotated[int, typer.Option(help="Rounds, of which the fastest counts.")] = 2,
    json_file: JsonFile = None,
) -> None:
    """Compare the throughput of `denoise batch` with that of `denoise audio`, whole processes, in turn."""

    def audio_line(folder: Path) -> list[str]:
        return [*DENOISE, "audio", str(folder / "in"), "-o", str(folder / "out"), "--model", "speech"]

    lines: dict[str, Callable[[Path], list[str]]] = {AUDIO: audio_line}
    for n in workers.split(","):
        words = ["--workers", n, "--threads", "1"]
        lines[f"denoise batch {' '.join(words)}"] = partial(batch_line, words=words)
    walls: dict[str, list[float]] = {name: [] for name in lines}
    cpu: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(rounds):
        for name, line in lines.items():
            with tempfile.TemporaryDirectory() as folder:
                make_sounds(Path(folder) / "in", files, seconds)
                started, cpu_before = time.perf_counter(), cpu_seconds()
                subprocess.run(
                    line(Path(folder)), check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
                )
                walls[name].append(time.perf_counter() - started)
                cpu[name].append(cpu_seconds() - cpu_before)
    table: list[Row] = [
        {
            "command": name,
            "seconds": min(walls[name]),
            "throughput ratio": min(walls[AUDIO]) / min(walls[name]),
            "CPU time ratio": min(cpu[name]) / min(cpu[AUDIO]),
        }
        for name in lines
    ]
    protocol = (
        f"{files} files of {seconds:g} s at 48 kHz, model speech, whole processes, wall-clock time, fastest of "
        f"{rounds} rounds in turn; {describe_environment(['torch'])}"
    )
    report(table, protocol, {}, json_file, {"seconds": walls, "CPU seconds": cpu})


def cpu_seconds() -> float:
    """Return the CPU time of all processes that have ended, which other work on the machine changes little."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# Large files


@app.command()
def big(
    minutes: Annotated[str, typer.Option(help="Lengths of recordings, comma separated.")] = "10,180",
    megapixels: Annotated[str, typer.Option(help="Sizes of images, comma separated.")] = "12,200",
    model: Annotated[str, typer.Option(help="Model of the recordings.")] = "speech",
    json_file: JsonFile = None,
) -> None:
    """Measure the memory of a batch of one large file and four small ones, in two workers."""
    large = [(make_recording, f"{length} min", float(length)) for length in minutes.split(",") if length]
    large += [(make_scan, f"{size} megapixels", float(size)) for size in megapixels.split(",") if size]
    table = []
    for make, name, size in large:
        with tempfile.TemporaryDirectory() as folder:
            make_sounds(Path(folder) / "in", 4, 10)
            table.append({"large file": name} | measure_large(Path(folder), make(Path(folder) / "in", size), model))
    protocol = (
        f"48 kHz stereo, 16 bits, model {model}; TIFF, RGB, 8 bits, model photo; four WAV of 10 s in the other worker; "
        f"one thread each; peaks of resident memory, sampled; {describe_environment(['torch'])}"
    )
    report(table, protocol, {}, json_file, {})


def make_recording(folder: Path, minutes: float) -> Path:
    """Write a long recording: noise bursts in white noise, a minute again and again."""
    times = np.arange(60 * 48_000) / 48_000
    tone = 0.2 * np.sin(2 * np.pi * 220 * times) * (times % 1 < 0.5)
    minute = tone[:, None] + 0.01 * np.random.default_rng(0).standard_normal((len(times), 2))
    with soundfile.SoundFile(folder / "large.wav", "w", 48_000, 2, "PCM_16") as file:
        for _ in range(round(minutes)):
            file.write(minute)
    return folder / "large.wav"


def make_scan(folder: Path, megapixels: float) -> Path:
    """Write a large TIFF, 5 to 4: a gradient with white noise of 6 of 255."""
    import tifffile

    height = round((megapixels * 1e6 * 4 / 5) ** 0.5 / 100) * 100
    width = int(megapixels * 1e6 / height)
    pixels = tifffile.memmap(folder / "large.tif", shape=(height, width, 3), dtype=np.uint8, photometric="rgb")
    for row in range(0, height, 100):
        noise = 6 * np.random.default_rng(row).standard_normal((100, width, 3), np.float32)
        pixels[row : row + 100] = (128 + 100 * np.sin((np.arange(width)[:, None] + row) / 2000) + noise).clip(0, 255)
    pixels.flush()
    return folder / "large.tif"


def measure_large(folder: Path, large: Path, model: str) -> Row:
    """Run a batch of two workers, and return its time and the memory of its processes in MiB."""
    names = [large.name, *(path.name for path in sorted((folder / "in").iterdir()) if path != large)]
    rows = [{"input": f"in/{name}"} | ({"model": model} if name.endswith(".wav") else {}) for name in names]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["batch", "list.jsonl", "out", "--workers", "2", "--threads", "1"]
    started = time.perf_counter()
    process = subprocess.Popen([*DENOISE, *words], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, **QUIET)
    peaks, total, worker = Counter[int](), 0.0, 0
    while process.poll() is None:
        resident = {pid: memory(pid) for pid in [process.pid, *workers_of(process.pid)]}
        total = max(total, sum(now for now, _ in resident.values()))
        for pid, (_, peak) in resident.items():
            peaks[pid] = max(peaks[pid], round(peak))
            worker = pid if is_reading(pid, large) else worker
        time.sleep(0.1)
    done = sum(record["status"] == "done" for record in records(folder))
    if process.returncode or done < len(names):
        raise SystemExit(f"{done} of {len(names)} files done: {[record['error'] for record in records(folder)]}")
    return {
        "seconds": time.perf_counter() - started,
        "its worker, MiB": peaks[worker],
        "other worker, MiB": max(peak for pid, peak in peaks.items() if pid not in (worker, process.pid)),
        "first process, MiB": peaks[process.pid],
        "all at once, MiB": total,
    }


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a batch; each is the child of a thread."""
    found = []
    with suppress(FileNotFoundError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in path.read_text().split()]
        return [child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return []


def memory(pid: int) -> tuple[float, float]:
    """Return the resident memory of a process and its peak, in MiB; 0 when it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        if "VmHWM" in lines:
            return int(lines["VmRSS"].split()[0]) / 1024, int(lines["VmHWM"].split()[0]) / 1024
    return 0.0, 0.0


def is_reading(pid: int, path: Path) -> bool:
    """Return whether a process has a file open."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return any(os.path.realpath(link) == str(path) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


if __name__ == "__main__":
    app()
