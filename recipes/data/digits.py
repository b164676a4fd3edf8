"""Convert recordings of spoken digits to the archive that the recipes digits-* read.

python recipes/data/digits.py RECORDINGS -o DIR/audio/digits.npz

RECORDINGS is the folder of Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0) with 8 kHz files such as
``7_jackson_32.wav``; or a folder with one file per speaker and ``digits.csv`` with the position of each recording
(speaker, digit, index, start_sample, num_samples).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer
from numpy.typing import NDArray

TIME = 6144  # samples, 0.77 s; nearly all words are shorter
TEST_RECORDINGS = 5  # recordings per digit and speaker, the first ones, as the data set defines its test split
RATE = 8000
FADE = 80  # samples, at the ends of a word that is cut

Recording = tuple[str, int, int, NDArray[np.float32]]


def read_recordings(folder: Path) -> Iterator[Recording]:
    """Yield speaker, digit, index and samples (time,) of each recording."""
    table = folder / "digits.csv"
    if table.is_file():
        with table.open() as file:
            rows = list(csv.DictReader(file))
        files = {name: _read(folder / f"{name}.flac") for name in {row["speaker"] for row in rows}}
        for row in rows:
            start = int(row["start_sample"])
            word = files[row["speaker"]][start : start + int(row["num_samples"])]
            yield row["speaker"], int(row["digit"]), int(row["index"]), word
    else:
        for path in sorted(folder.glob("*_*_*.wav")):
            digit, speaker, index = path.stem.split("_")
            yield speaker, int(digit), int(index), _read(path)


def _read(path: Path) -> NDArray[np.float32]:
    samples, rate = soundfile.read(path, dtype="float32")
    if rate != RATE or samples.ndim != 1:
        raise SystemExit(f"{path}: {rate} Hz, shape {samples.shape}; expected {RATE} Hz, mono.")
    return samples


def fit_length(word: NDArray[np.float32]) -> NDArray[np.int16]:
    """Normalise a word and pad it to TIME samples; a longer one is cut to its loudest part and faded."""
    word = word * (0.9 / max(float(np.abs(word).max()), 1e-4))
    if len(word) > TIME:
        energy = np.concatenate([[0.0], np.cumsum(word.astype(np.float64) ** 2)])
        start = int(np.argmax(energy[TIME:] - energy[:-TIME]))
        word = word[start : start + TIME].copy()
        ramp = np.linspace(0, 1, FADE, dtype=np.float32)
        word[:FADE] *= ramp
        word[-FADE:] *= ramp[::-1]
    padding = (TIME - len(word)) // 2
    return np.round(np.pad(word, (padding, TIME - len(word) - padding)) * 32767).astype(np.int16)


def main(
    folder: Annotated[Path, typer.Argument(metavar="RECORDINGS")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="NPZ")],
) -> None:
    """Write train_ and test_ signals (n, time), labels and speakers, and the names of labels and speakers."""
    all_recordings = sorted(read_recordings(folder), key=lambda r: r[:3])
    if not all_recordings:
        raise SystemExit(f"{folder}: holds neither digits.csv nor files such as 7_jackson_32.wav.")
    speakers = sorted({r[0] for r in all_recordings})
    arrays: dict[str, NDArray[np.generic]] = {
        "names": np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]),
        "speakers": np.array(speakers),
    }
    for split, is_in_split in (("train", lambda i: i >= TEST_RECORDINGS), ("test", lambda i: i < TEST_RECORDINGS)):
        rows = [r for r in all_recordings if is_in_split(r[2])]
        arrays[f"{split}_signals"] = np.stack([fit_length(r[3]) for r in rows])
        arrays[f"{split}_labels"] = np.array([r[1] for r in rows])
        arrays[f"{split}_speakers"] = np.array([speakers.index(r[0]) for r in rows])
        print(f"{split}: {len(rows)} recordings")
    output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(output, **arrays)


if __name__ == "__main__":
    typer.run(main)
