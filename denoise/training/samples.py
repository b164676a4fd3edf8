"""Pictures and sounds that a training leaves on its way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from denoise.files.audio import write_audio
from denoise.files.image import write_image
from denoise.signals import Audio, AudioFormat, Image, ImageFormat
from denoise.training.data import Batch


def write_denoised(out: Path, step: int, batch: Batch, denoised: Tensor) -> None:
    """Write noisy, denoised and clean examples: rows of a PNG, or one after another in a WAV.

    Shape:
        denoised: (batch, channels, *space), as those of the batch.
    """
    noisy, clean = batch.noisy, batch.clean
    if batch.sample_rate is not None:
        _sound(out, step, torch.cat([noisy[0], denoised[0], clean[0]], dim=-1), batch.sample_rate)
    else:
        _picture(out, step, torch.cat([torch.cat(list(x), dim=2) for x in (noisy, denoised, clean)], dim=1))


def write_signals(out: Path, step: int, made: Tensor, sample_rate: int | None) -> None:
    """Write signals that a prior made or a codec remembered: rows of eight in a PNG, or one after another in a WAV.

    Shape:
        made: (n, channels, *space), n a multiple of 8.
    """
    if sample_rate is not None:
        _sound(out, step, torch.cat(list(made), dim=-1), sample_rate)
    else:
        _picture(out, step, torch.cat([torch.cat(list(row), dim=2) for row in made.split(8)], dim=1))


def _sound(out: Path, step: int, x: Tensor, sample_rate: int) -> None:
    """Shape: (channels, time)."""
    (out / "samples").mkdir(exist_ok=True)
    level = x.abs().max().clamp_min(1e-3)
    audio = Audio((0.7 / level * x).float().numpy(), AudioFormat(sample_rate, x.shape[0], "WAV", "PCM_16"))
    write_audio(out / f"samples/step-{step:06d}.wav", audio, overwrite=True)


def _picture(out: Path, step: int, x: Tensor) -> None:
    """Shape: (1 or 3, height, width)."""
    (out / "samples").mkdir(exist_ok=True)
    pixels = np.rint(x.float().clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    frame = Image(np.ascontiguousarray(pixels))
    mode = ImageFormat(mode="L" if len(x) == 1 else "RGB")
    write_image(out / f"samples/step-{step:06d}.png", [frame], mode, overwrite=True)
