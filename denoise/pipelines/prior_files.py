"""Files of what priors make, and files as the signals that a prior knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from denoise.dsp import resample, stft
from denoise.errors import ConfigError, InputError
from denoise.files.audio import read_audio, write_audio
from denoise.files.image import read_image, write_image
from denoise.signals import Audio, AudioFormat, Image, ImageFormat
from denoise.weights import Card

PAUSE_S = 0.25  # between the sounds of one file
FADE_S = 0.005
GIF_MS = 60
WINDOW_S = 0.032  # of spectrograms
FLOOR_DB = -60.0  # below the loudest place; what is weaker is black


def read_signal(path: str | Path, card: Card) -> Tensor:
    """A file as one of the signals that a model knows, whatever its size.

    Pictures are cut to the middle in the model's proportions, reduced or enlarged, and made grey or coloured, on
    black where they are transparent; sounds are made mono and brought to the model's rate, and its length is cut from
    their start or filled with silence.

    Shape:
        returns: (1, *card.shape).
    """
    shape = _shape(card)
    return _read_sound(path, card, shape[-1]) if card.modality == "audio" else _read_picture(path, shape)


def _read_sound(path: str | Path, card: Card, time: int) -> Tensor:
    audio = read_audio(Path(path))
    x = torch.from_numpy(audio.samples.mean(axis=0, keepdims=True).astype(np.float32))
    x = resample(x, audio.format.sample_rate, card.sample_rate or audio.format.sample_rate)[:, :time]
    return F.pad(x, (0, time - x.shape[1]))[None]


def _read_picture(path: str | Path, shape: Sequence[int]) -> Tensor:
    frame = read_image(Path(path)).as_float()
    x = torch.from_numpy(frame.pixels).permute(2, 0, 1)[:3]
    x = x if frame.alpha is None else x * torch.from_numpy(frame.alpha)
    channels, height, width = shape
    if len(x) != channels:
        x = x.mean(dim=0, keepdim=True).expand(channels, -1, -1)
    scale = min(x.shape[1] / height, x.shape[2] / width)
    cut = [max(1, min(n, round(side * scale))) for n, side in zip(x.shape[1:], (height, width), strict=True)]
    top, left = ((n - side) // 2 for n, side in zip(x.shape[1:], cut, strict=True))
    x = x[None, :, top : top + cut[0], left : left + cut[1]]
    if tuple(x.shape[2:]) != (height, width):
        x = F.interpolate(x, (height, width), mode="bicubic", antialias=True)
    return x.clamp(0, 1)


def write_signals(
    out: str | Path, made: Tensor, card: Card, *, columns: int | None = None, overwrite: bool = False
) -> list[Path]:
    """Write signals: one picture of all (.png), one that moves (.gif), one file of all sounds (.wav), or a folder.

    A picture of sounds shows their spectrograms.

    Shape:
        made: (n, *card.shape).
    Raises:
        ConfigError: the extension does not fit what is made.
        InputError: a file exists or cannot be written.
    """
    path, paths = Path(out), places(out, len(made), card, overwrite=overwrite)
    suffix = path.suffix.lower()
    if not suffix:
        for one, target in zip(made, paths, strict=True):
            write_signals(target, one[None], card, columns=1, overwrite=overwrite)
        return paths
    if suffix == ".wav":
        _write_sounds(path, made, card, overwrite)
    elif suffix == ".gif":
        frames = [_frame(one) for one in made]
        format = ImageFormat("GIF", _mode(made), info={"frames": [{"duration": GIF_MS}] * len(frames), "loop": 0})
        write_image(path, frames, format, overwrite=overwrite)
    else:
        shown = as_pictures(made, card)
        write_image(path, [_frame(grid(shown, columns))], ImageFormat("PNG", _mode(shown)), overwrite=overwrite)
    return paths


def places(out: str | Path, n: int, card: Card, *, overwrite: bool = False) -> list[Path]:
    """Where ``n`` signals will be written; to be asked before they are made.

    Raises:
        ConfigError: the extension does not fit what is made.
        InputError: a file exists.
    """
    path = Path(out)
    fitting = {"audio": (".wav", ".png"), "image": (".png", ".gif")}[card.modality]
    if path.suffix and path.suffix.lower() not in fitting:
        kind = {"audio": "sounds", "image": "pictures"}[card.modality]
        raise ConfigError(f"{out}: this prior makes {kind}; expected {' or '.join(fitting)}, or a folder.")
    digits = len(str(n - 1))
    paths = [path] if path.suffix else [path / f"{i:0{digits}d}{fitting[0]}" for i in range(n)]
    for target in paths:
        if target.exists() and not overwrite:
            raise InputError(f"{target}: exists already. Give --overwrite to replace it.")
    return paths


def read_mask(path: str | Path, beside: str | Path, card: Card) -> Tensor:
    """What is known (1) and what is missing (0, white in the file) of a picture, whose size the mask must have.

    Shape:
        returns: (1, *card.shape).
    """
    sizes = [read_image(Path(file)).pixels.shape[:2] for file in (path, beside)]
    if sizes[0] != sizes[1]:
        (h, w), (height, width) = sizes
        raise InputError(f"{path}: is {w} x {h} pixels, {beside} {width} x {height}. Give a mask of the same size.")
    known = (read_signal(path, card).mean(dim=1, keepdim=True) < 0.5).float()
    return known.expand(1, *_shape(card)).contiguous()


def half_known(card: Card) -> Tensor:
    """A mask of which the upper half of a picture, or the first half of a sound, is known. Shape: (1, *card.shape)."""
    known = torch.ones(1, *_shape(card))
    axis = -1 if card.modality == "audio" else -2
    half = known.shape[axis] // 2
    known.narrow(axis, known.shape[axis] - half, half).zero_()
    return known


def as_pictures(made: Tensor, card: Card) -> Tensor:
    """Pictures as they are; of sounds the spectrograms, in decibels: time to the right, frequencies upwards, each
    white at its loudest place.

    Shape:
        made: (n, *card.shape); returns (n, channels, height, width).
    """
    if card.modality == "image":
        return made
    size = 1 << round(math.log2(WINDOW_S * (card.sample_rate or 16_000)))
    x = F.pad(made.mean(dim=1), (0, -made.shape[2] % (size // 4)))
    power = stft(x, size, size // 4).abs().square().flip(1)[:, None]
    level = 10 * (power / power.amax(dim=(2, 3), keepdim=True).clamp_min(1e-12)).clamp_min(1e-12).log10()
    return (1 - level / FLOOR_DB).clamp(0, 1)


def grid(made: Tensor, columns: int | None = None, gap: int = 2) -> Tensor:
    """Pictures side by side, in rows; about as wide as high. Shape: (n, channels, h, w) to (channels, H, W)."""
    n, channels, height, width = made.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = -(-n // columns)
    if n == 1:
        return made[0]
    sheet = made.new_full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 0.5)
    for i, one in enumerate(made):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = one
    return sheet


def map_of(pictures: Tensor, places: Tensor, size: int) -> Image:
    """Pictures as thumbnails where they belong, on white; where they meet, the last one is seen.

    Shape:
        pictures: (n, channels, height, width); places: (n, 2), across and up, 0 to 1; returns (size, size, 3).
    """
    longest = max(pictures.shape[2:])
    side = max(8, min(longest, size // 12))  # of the longer edge
    small = [max(1, round(n * side / longest)) for n in pictures.shape[2:]]
    thumbs = F.interpolate(pictures, small, mode="bicubic", antialias=True) if side != longest else pictures
    sheet = pictures.new_ones(3, size, size)
    room = [size - n for n in small]
    for thumb, (across, up) in zip(thumbs, places.tolist(), strict=True):
        top, left = round((1 - up) * room[0]), round(across * room[1])
        sheet[:, top : top + small[0], left : left + small[1]] = thumb
    return _frame(sheet)


def _write_sounds(path: Path, made: Tensor, card: Card, overwrite: bool) -> None:
    rate = card.sample_rate or 16_000
    pause = made.new_zeros(made.shape[1], round(PAUSE_S * rate))
    n = max(1, min(round(FADE_S * rate), made.shape[2] // 2))
    ramp = torch.linspace(0, 1, n)
    faded = made.clone()
    faded[..., :n] *= ramp
    faded[..., -n:] *= ramp.flip(0)
    pieces = [part for one in faded for part in (one, pause)][:-1]
    joined = torch.cat(pieces, dim=1)
    joined = joined / joined.abs().max().clamp_min(1.0)  # never clipped
    write_audio(path, Audio(joined.numpy(), AudioFormat(rate, len(joined), "WAV", "PCM_16")), overwrite=overwrite)


def _frame(x: Tensor) -> Image:
    """Shape: (channels, height, width)."""
    pixels = np.rint(x.float().clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    return Image(np.ascontiguousarray(pixels))


def _mode(made: Tensor) -> str:
    return "L" if made.shape[1] == 1 else "RGB"


def _shape(card: Card) -> tuple[int, ...]:
    if card.shape is None:
        raise ConfigError(f"model {card.name} has no shape of its own; expected a codec or a prior.")
    return card.shape
