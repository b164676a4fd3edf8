"""Whole processes with torch and with onnxruntime, in turn: seconds, seconds of the CPU and peak memory.

    python recipes/benchmarks/backends.py --runs 5 --threads 1 2

10 s of speech in noise (48 kHz, mono, WAV of 16 bits) and an image of one megapixel (PNG of 8 bits, white noise of
sigma 15 of 255). Models are exported before; every figure is the median of the runs, and a ratio that of the pairs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from PIL import Image

SAMPLES = Path(__file__).parents[2] / "samples"
BACKENDS = ("torch", "onnx")


class Figures(NamedTuple):
    """What one process took.

    Args:
        seconds: from its start to its end.
        cpu_seconds: of all its threads.
        mebibytes: peak memory.
    """

    seconds: float
    cpu_seconds: float
    mebibytes: float


def measure(arguments: list[str], threads: int) -> Figures:
    """Run ``denoise ARGUMENTS`` and return what it took."""
    started = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        [sys.executable, "-m", "denoise", *arguments], env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"denoise {' '.join(arguments)} failed")
    return Figures(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def write_inputs(folder: Path) -> dict[str, list[str]]:
    """Write the recording and the image; return the arguments for each."""
    speech, rate = soundfile.read(SAMPLES / "speech.wav", dtype="float32")
    soundfile.write(folder / "speech.wav", np.resize(speech, 10 * rate), rate)
    rows, columns = np.indices((1000, 1000)) / 64
    clean = 0.5 + 0.2 * np.sin(columns**2 / 2) * np.cos(rows) + 0.25 * ((rows + 2 * columns) % 5 < 1)
    noisy = clean[..., None] * [1.0, 0.8, 0.6] + np.random.default_rng(0).normal(0, 15 / 255, (1000, 1000, 3))
    Image.fromarray((255 * noisy.clip(0, 1)).round().astype(np.uint8)).save(folder / "image.png")
    audio, image = ["audio", str(folder / "speech.wav")], ["image", str(folder / "image.png")]
    return {
        "10 s, speech": [*audio, "--model", "speech"],
        "10 s, model chosen": audio,
        "1 megapixel, photo": [*image, "--model", "photo"],
        "1 megapixel, gaussian": [*image, "--model", "gaussian", "--sigma", "15"],
    }


def main() -> None:
    """Print a table of all tasks and numbers of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", default="", help="tasks whose name holds this")
    options = parser.parse_args()
    print("| task | threads | torch | onnx | ratio | CPU torch | CPU onnx | ratio | MiB torch | MiB onnx |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for task, arguments in write_inputs(Path(name)).items():
            if options.only not in task:
                continue
            for threads in options.threads:
                commands = {backend: [*arguments, "--overwrite", "--backend", backend] for backend in BACKENDS}
                for command in commands.values():
                    measure(command, threads)  # exports, and warms the disk cache
                runs = [
                    {key: measure(command, threads) for key, command in commands.items()} for _ in range(options.runs)
                ]
                cells = [task, str(threads)]
                for field, digits in (("seconds", 2), ("cpu_seconds", 2), ("mebibytes", 0)):
                    values = [[getattr(run[backend], field) for run in runs] for backend in BACKENDS]
                    cells += [f"{statistics.median(each):.{digits}f}" for each in values]
                    if field != "mebibytes":
                        ratio = statistics.median(onnx / torch for torch, onnx in zip(*values, strict=True))
                        cells.append(f"{ratio:.2f}")
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
