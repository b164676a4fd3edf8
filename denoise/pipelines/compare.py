"""What was done to a file: the part that was taken away, and pictures of before and after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise.errors import ConfigError, InputError
from denoise.files.atomic import atomic_file
from denoise.files.audio import AudioReader, AudioWriter
from denoise.signals import AudioFormat

SHOWN_S = 60.0  # a longer recording would be a smear
FLOOR_DB = -90.0


def write_removed(before: str | Path, after: str | Path, target: str | Path, *, overwrite: bool = False) -> None:
    """Write the difference of two recordings of one length, block by block; a lossy format's own changes are in it.

    Raises:
        InputError: a file cannot be read or written, or ``target`` exists.
    """
    with AudioReader(before) as reader:
        format = reader.format
    kind = "DOUBLE" if format.subtype == "DOUBLE" else "FLOAT" if Path(target).suffix.lower() == ".wav" else "PCM_24"
    with AudioWriter(target, AudioFormat(format.sample_rate, format.channels, "WAV", kind), overwrite=overwrite) as out:
        for x, y in _pairs(before, after):
            out.write(x - y)


def compare_audio(before: str | Path, after: str | Path, target: str | Path, *, overwrite: bool = False) -> None:
    """Draw the spectrograms of the first minute before, after and of what was removed, on one scale.

    Channels are averaged in power. Needs librosa and matplotlib.

    Raises:
        ConfigError: the extra is not installed, or the target is no PNG.
        InputError: a file cannot be read or written, or ``target`` exists.
    """
    try:
        import librosa.display
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f'{error.name} is missing: pip install "denoise-toolkit[compare]".') from None
    if Path(target).suffix.lower() != ".png":
        raise ConfigError(f"{target}: a comparison is drawn as .png; choose such a name.")
    with AudioReader(before) as reader:
        rate = reader.format.sample_rate
    x, y = (np.concatenate(parts, axis=1) for parts in zip(*_pairs(before, after, SHOWN_S), strict=True))
    n_fft = 2 ** round(np.log2(0.04 * rate))
    powers = [np.mean(np.abs(librosa.stft(z, n_fft=n_fft)) ** 2, axis=0) for z in (x, y, x - y)]
    top = 10 * np.log10(max(powers[0].max(), 1e-12))
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    for axis, power, title in zip(axes, powers, ("before", "after", "removed"), strict=True):
        decibels = np.maximum(10 * np.log10(np.maximum(power, 1e-20)) - top, FLOOR_DB)
        drawn = librosa.display.specshow(
            decibels, sr=rate, hop_length=n_fft // 4, x_axis="time", y_axis="linear", ax=axis, vmin=FLOOR_DB, vmax=0
        )
        axis.set(title=title, xlabel="seconds" if title == "removed" else "", ylabel="Hz")
    figure.colorbar(drawn, ax=axes, format="%+.0f dB")
    with atomic_file(Path(target), overwrite=overwrite) as place:
        figure.savefig(place, dpi=110, format="png")


def _pairs(
    before: str | Path, after: str | Path, seconds: float | None = None
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The same samples of two recordings, second by second. Shape: (channels, time) each."""
    with AudioReader(before) as a, AudioReader(after) as b:
        if (a.format.sample_rate, a.format.channels) != (b.format.sample_rate, b.format.channels):
            raise InputError(f"{after}: differs from {before} in sample rate or channels; nothing to compare.")
        rate = a.format.sample_rate
        while seconds is None or seconds > 0:
            x, y = a.read(rate), b.read(rate)
            n = min(x.shape[1], y.shape[1])
            if not n:
                return
            yield x[:, :n], y[:, :n]
            seconds = None if seconds is None else seconds - 1
