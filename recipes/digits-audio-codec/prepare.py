"""Make digits.npz of the spoken digits: cut, of one length, with a rest that is not trained on.

python recipes/digits-audio-codec/prepare.py DIR/audio/digits DIR/audio/digits.npz
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from denoise.files.audio import read_audio

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEST = 5  # of the recordings of a digit by a speaker, the first five are for tests, as the source says


def main(
    folder: Annotated[Path, typer.Argument(help="Holds digits.csv and a recording for each speaker.")],
    out: Annotated[Path, typer.Argument(help="The archive to write.")],
    time: Annotated[int, typer.Option(help="Samples of each, at 8 kHz.")] = 6144,
) -> None:
    """Cut the words out, level them, and fill them with silence on both sides."""
    with (folder / "digits.csv").open() as file:
        rows = list(csv.DictReader(file))
    sounds = {row["speaker"]: read_audio(folder / f"{row['speaker']}.flac").samples[0] for row in rows}
    speakers = sorted(sounds)
    parts: dict[str, list[np.ndarray]] = {f"{part}_{kind}": [] for part in ("train", "test") for kind in "xys"}
    for row in rows:
        start, n = int(row["start_sample"]), int(row["num_samples"])
        x = sounds[row["speaker"]][start : start + n][:time]
        x = 0.5 * x / max(1e-3, float(np.abs(x).max()))
        ramp = np.minimum(1, np.arange(len(x)) / 80)
        x = x * ramp * ramp[::-1]
        left = (time - len(x)) // 4  # a word begins soon
        part = "test" if int(row["index"]) < TEST else "train"
        parts[f"{part}_x"].append(np.rint(np.pad(x, (left, time - len(x) - left)) * 32767).astype(np.int16))
        parts[f"{part}_y"].append(np.int64(row["digit"]))
        parts[f"{part}_s"].append(np.int64(speakers.index(row["speaker"])))
    arrays = {name: np.stack(values) for name, values in parts.items()}
    named = {
        f"{part}_{name}": arrays[f"{part}_{kind}"]
        for part in ("train", "test")
        for kind, name in zip("xys", ("signals", "labels", "speakers"), strict=True)
    }
    np.savez_compressed(out, **named, names=np.array(NAMES), speaker_names=np.array(speakers))
    print(f"{out}: {len(named['train_labels'])} to train on, {len(named['test_labels'])} not")


if __name__ == "__main__":
    typer.run(main)
