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


def write_sample(out: Path, step: int, batch: Batch, denoised: Tensor) -> None:
    """Write noisy, denoised and clean examples: rows of a PNG, or one after another in a WAV.

    Shape:
        denoised: (batch, channels, *space), as those of the batch.
    """
    noisy, clean = batch.noisy, batch.clean
    folder = out / "samples"
    folder.mkdir(exist_ok=True)
    if batch.sample_rate is not None:
        joined = torch.cat([noisy[0], denoised[0], clean[0]], dim=-1).float()
        audio_format = AudioFormat(batch.sample_rate, joined.shape[0], "WAV", "PCM_16")
        level = joined.abs().max().clamp_min(1e-3)
        audio = Audio((0.7 / level * joined).numpy(), audio_format)
        write_audio(folder / f"step-{step:06d}.wav", audio, overwrite=True)
        return
    rows = torch.cat([torch.cat(list(x), dim=2) for x in (noisy, denoised, clean)], dim=1)
    pixels = np.rint(rows.clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    write_image(folder / f"step-{step:06d}.png", [Image(np.ascontiguousarray(pixels))], ImageFormat(), overwrite=True)
