"""Pictures that are likely, given a noisy one: drawn with the sigma-aware denoiser as the prior, and judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from denoise.protocols import Progress
from denoise.sampling.consistency import Consistency, consistency, doubts
from denoise.sampling.posterior import drawn_clean
from denoise.signals import Image

STEPS = 12  # calls of the network for a draw: the variance is then right within a tenth

Mean = Callable[[Image, float, Progress | None], Tensor]
"""The denoised picture (channels, height, width), given a sigma of full scale 1.0."""


def draw_image(
    mean_of: Mean, image: Image, sigma: float, perception: float, steps: int, seed: int, progress: Progress | None
) -> tuple[Tensor, float]:
    """Go by ``perception`` from the mean of all likely pictures to one of them; also the share that was doubted.

    The squared error is 1 + perception^2 times the mean's. Where a draw takes away more than noise of ``sigma`` it
    gives way to the mean. Each step needs the whole picture of the one before.

    Shape:
        returns (channels, height, width), full scale 1.0.
    Reference:
        A Theory of the Distortion-Perception Tradeoff in Wasserstein Space, 2021, arXiv:2107.02555 (mixing).
    """
    light, done = image.as_float(), 0

    def denoiser(x: Tensor, level: Tensor) -> Tensor:
        nonlocal done
        part = None if progress is None else lambda now, before=done: progress((before + now) / steps)
        done += 1
        return mean_of(Image(np.ascontiguousarray(x[0].permute(1, 2, 0).numpy()), light.alpha), float(level), part)[
            None
        ]

    noisy = as_tensor(light)[None]
    drawn, mean = drawn_clean(denoiser, noisy, sigma, steps, generator=torch.Generator().manual_seed(seed))
    judged = noisy if light.seen is None else torch.where(torch.from_numpy(light.seen), noisy, drawn)
    doubt = doubts(judged, drawn, sigma)
    return torch.lerp(mean, torch.lerp(drawn, mean, doubt), perception)[0], float(doubt.mean())


def left_over(noisy: Image, denoised: Image, sigma: float) -> Consistency:
    """How much that was taken away, where something is seen, looks like white noise of ``sigma``, full scale 1.0."""
    residual = (noisy.pixels.astype(np.float32) - denoised.pixels) / noisy.full_scale
    share = 1.0 if noisy.seen is None else max(1e-9, float(noisy.seen.mean()))  # the others are as they were
    return consistency(torch.from_numpy(residual).permute(2, 0, 1), sigma * share**0.5)


def mean_of(residuals: Sequence[Consistency]) -> Consistency | None:
    """What is told of several answers; None of none."""
    return Consistency(*np.mean(residuals, axis=0).round(3).tolist()) if residuals else None


def as_tensor(image: Image) -> Tensor:
    """The pixels of a float picture. Shape: (channels, height, width)."""
    return torch.from_numpy(image.pixels).permute(2, 0, 1)
