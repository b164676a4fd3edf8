"""Measure `denoise batch`: throughput, large files, and faults such as killed processes, a full disk and S3."""

from __future__ import annotations

import http.server
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
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
    for _ in range(rounds):
        for name, line in lines.items():
            with tempfile.TemporaryDirectory() as folder:
                make_sounds(Path(folder) / "in", files, seconds)
                started = time.perf_counter()
                subprocess.run(
                    line(Path(folder)), check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
                )
                walls[name].append(time.perf_counter() - started)
    base = min(walls[AUDIO])
    table: list[Row] = [
        {"command": name, "seconds": min(times), "throughput ratio": base / min(times)} for name, times in walls.items()
    ]
    protocol = (
        f"{files} files of {seconds:g} s at 48 kHz, model speech, whole processes, wall-clock time, fastest of "
        f"{rounds} rounds in turn; {describe_environment(['torch'])}"
    )
    report(table, protocol, {}, json_file, {"seconds": walls})


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


# Faults


@app.command()
def faults(
    names: Annotated[str, typer.Option("--faults", help="Which of them.")] = "driver,workers,disk,s3",
    kills: Annotated[int, typer.Option(help="Kills of the driver, and of workers.")] = 50,
    files: Annotated[int, typer.Option(help="Number of files of each batch.")] = 100,
    seconds: Annotated[float, typer.Option(help="Length of each file.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of the moments.")] = 0,
    journals: Annotated[Path | None, typer.Option(help="Keep the journals in this folder.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Kill driver and workers at random moments, fill a disk, break an S3 server; check that nothing is lost."""
    chance, table = random.Random(seed), []
    for name in names.split(","):
        with tempfile.TemporaryDirectory() as folder:
            make_sounds(Path(folder) / "in", files, seconds)
            fault, run = FAULTS[name]
            times, redone = run(Path(folder), kills, chance)
            table.append({"fault": fault, "times": times} | check(Path(folder), files, redone))
            if journals is not None:
                journals.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path(folder) / "out.journal.jsonl", journals / f"{name}.journal.jsonl")
    protocol = (
        f"{files} files of {seconds:g} s, model speech, two workers, seed {seed}; {describe_environment(['torch'])}"
    )
    report(table, protocol, {}, json_file, {})


def versions(folder: Path) -> dict[str, int]:
    """Return the times of the outputs that are in place."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "out").glob("*.wav")}


def kill_driver(folder: Path, kills: int, chance: random.Random) -> tuple[int, int]:
    """Kill the driver again and again, four times in five just after it has finished a file.

    Returns:
        How often it was killed, and how many outputs that were in place were written again by a later run.
    """
    killed, redone, before = 0, 0, versions(folder)
    while killed < kills:
        n_done = len(records(folder))
        process = subprocess.Popen(batch_line(folder, ["--workers", "2"]), **QUIET)
        if chance.random() < 0.8:
            while len(records(folder)) <= n_done and process.poll() is None:
                time.sleep(0.005)
        else:
            time.sleep(3 * chance.random())
        time.sleep(0.5 * chance.random())
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        killed += 1
        now = versions(folder)
        redone, before = redone + sum(now.get(name) != time for name, time in before.items()), now
    subprocess.run(batch_line(folder), **QUIET, check=True)
    now = versions(folder)
    return killed, redone + sum(now.get(name) != time for name, time in before.items())


def kill_workers(folder: Path, kills: int, chance: random.Random) -> tuple[int, int]:
    """Kill a worker again and again while a batch runs; files that failed thereby are retried at the end.

    Returns:
        As `kill_driver`.
    """
    process = subprocess.Popen(batch_line(folder, ["--workers", "2"]), **QUIET)
    killed = 0
    while process.poll() is None and killed < kills:
        time.sleep(chance.random() * 2)
        if workers := workers_of(process.pid):
            os.kill(chance.choice(workers), signal.SIGKILL)
            killed += 1
    process.wait()
    before = versions(folder)
    subprocess.run(batch_line(folder, ["--retry-failed"]), **QUIET, check=True)
    now = versions(folder)
    return killed, sum(now.get(name) != time for name, time in before.items())


def check(folder: Path, n: int, redone: int) -> Row:
    """Return what became of the files of a batch that has ended."""
    outputs = [path for path in sorted((folder / "out").iterdir()) if path.suffix == ".wav"]
    complete = sum(soundfile.info(path).frames == soundfile.info(folder / "in" / path.name).frames for path in outputs)
    done = sum(record["status"] == "done" for record in records(folder))
    left = [path for path in (folder / "out").rglob("*") if path.is_file() and path not in outputs]
    counts = {"files": n, "complete": complete, "finished twice": redone}
    return counts | {"lines without output": done - len(outputs), "left over": len(left)}


def fill_disk(folder: Path, *_: object) -> tuple[int, int]:
    """Write to a disk for half of the sounds, which is then made larger; needs the right to mount."""
    sizes = [path.stat().st_size for path in (folder / "in").iterdir()]
    (folder / "out").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sum(sizes) // 2}", "tmpfs", folder / "out"], check=True)
    try:
        if subprocess.run(batch_line(folder), **QUIET).returncode != 1:
            raise SystemExit("the disk was not full")
        before = versions(folder)
        subprocess.run(["mount", "-o", "remount,size=8G", folder / "out"], check=True)
        subprocess.run(batch_line(folder, ["--retry-failed"]), **QUIET, check=True)
        now = versions(folder)
        shutil.copytree(folder / "out", folder / "copy")
    finally:
        subprocess.run(["umount", folder / "out"], check=True)
    (folder / "out").rmdir()
    (folder / "copy").rename(folder / "out")
    return 1, sum(now.get(name) != time for name, time in before.items())


class FlakyProxy(http.server.BaseHTTPRequestHandler):
    """A proxy of an S3 server that answers 503, or cuts the connection, at one request in five."""

    target: str
    chance: random.Random
    faults = 0

    def handle_request(self) -> None:
        """Forward a request, or fail."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.chance.random() < 0.2:
            type(self).faults += 1
            if self.chance.random() < 0.5:
                self.send_error(503)
            else:
                self.connection.close()
            return
        request = urllib.request.Request(self.target + self.path, body or None, dict(self.headers), method=self.command)
        try:
            with urllib.request.urlopen(request) as answer:
                status, headers, data = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, headers, data = error.code, error.headers, error.read()
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "server", "date"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_request  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def break_s3(folder: Path, _: int, chance: random.Random) -> tuple[int, int]:
    """Run a batch from and to an S3 server behind a flaky proxy; retry what failed until all is there.

    Returns:
        How many requests failed, and how many files were finished twice.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    FlakyProxy.target, FlakyProxy.chance = f"http://127.0.0.1:{port}", chance
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FlakyProxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys)
    client = boto3.client("s3", endpoint_url=FlakyProxy.target)
    client.create_bucket(Bucket="sounds")
    for path in (folder / "in").iterdir():
        client.upload_file(str(path), "sounds", f"in/{path.name}")
    line = [*DENOISE, "batch", "s3://sounds/in", "s3://sounds/out", "--model", "speech", "--audio", "--retry-failed"]
    line += ["--workers", "2", "--journal", str(folder / "out.journal.jsonl")]
    flaky = os.environ | {"FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_port}"}
    for _ in range(10):
        if subprocess.run(line, env=flaky, **QUIET).returncode == 0:
            break
    (folder / "out").mkdir()
    for item in client.list_objects_v2(Bucket="sounds", Prefix="out/").get("Contents", []):
        client.download_file("sounds", item["Key"], str(folder / item["Key"]))
    proxy.shutdown()
    server.stop()
    done = Counter(record["name"] for record in records(folder) if record["status"] == "done")
    return FlakyProxy.faults, sum(n - 1 for n in done.values())


FAULTS: dict[str, tuple[str, Callable[[Path, int, random.Random], tuple[int, int]]]] = {
    "driver": ("driver killed", kill_driver),
    "workers": ("worker killed", kill_workers),
    "disk": ("disk full, then larger", fill_disk),
    "s3": ("S3 answers 503, or cuts the connection, at one request in five", break_s3),
}


if __name__ == "__main__":
    app()
