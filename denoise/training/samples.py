"""Images and audio that a training writes to show its progress."""

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
    """Write noisy, denoised and clean examples: rows of a PNG, or the first example in a WAV, one after another.

    Args:
        out: folder of the training.
        step: number of the step.
        batch: noisy and clean examples.
        denoised: denoised examples, (B, C, *space).
    """
    noisy, clean = batch.noisy, batch.clean
    if batch.sample_rate is not None:
        _write_wav(out, step, torch.cat([noisy[0], denoised[0], clean[0]], dim=-1), batch.sample_rate)
    else:
        rows = [torch.cat(list(x), dim=2) for x in (noisy, denoised, clean)]
        _write_png(out, step, torch.cat(rows, dim=1))


def write_signals(out: Path, step: int, signals: Tensor, sample_rate: int | None) -> None:
    """Write signals: rows of eight in a PNG, or one after another in a WAV.

    Args:
        out: folder of the training.
        step: number of the step.
        signals: signals, (n, C, *space), n a multiple of 8.
        sample_rate: sample rate of audio, Hz; None for images.
    """
    if sample_rate is not None:
        _write_wav(out, step, torch.cat(list(signals), dim=-1), sample_rate)
    else:
        rows = [torch.cat(list(row), dim=2) for row in signals.split(8)]
        _write_png(out, step, torch.cat(rows, dim=1))


def _write_wav(out: Path, step: int, x: Tensor, sample_rate: int) -> None:
    """Write audio, (channels, time), with its peak at 0.7."""
    (out / "samples").mkdir(exist_ok=True)
    peak = x.abs().max().clamp_min(1e-3)
    audio = Audio((0.7 / peak * x).float().numpy(), AudioFormat(sample_rate, x.shape[0], "WAV", "PCM_16"))
    write_audio(out / f"samples/step-{step:06d}.wav", audio, overwrite=True)


def _write_png(out: Path, step: int, x: Tensor) -> None:
    """Write an image, (1 or 3, H, W), full scale 1.0."""
    (out / "samples").mkdir(exist_ok=True)
    pixels = np.rint(x.float().clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    image = Image(np.ascontiguousarray(pixels))
    image_format = ImageFormat(mode="L" if len(x) == 1 else "RGB")
    write_image(out / f"samples/step-{step:06d}.png", [image], image_format, overwrite=True)
