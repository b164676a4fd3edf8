"""Signals of which something is known: drawn from a prior so that they agree with it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.priors.solvers import Denoise


def inpaint(
    denoiser: Denoise,
    known: Tensor,
    mask: Tensor,
    sigmas: Tensor,
    *,
    start: Tensor,
    again: int = 4,
    generator: Generator | None = None,
) -> Tensor:
    """Fill what is missing: the known part is held at every level, and the rest goes down and up again to fit it.

    NFE: again * steps.

    Shape:
        known, mask, start, returns: (batch, *event); mask is 1 where ``known`` is known, and start has
            noise of ``sigmas[0]``; sigmas: (steps + 1,), decreasing, ending at 0.
    Reference:
        RePaint: Inpainting using Denoising Diffusion Probabilistic Models, 2022, arXiv:2201.09865, algorithm 1.
    """

    def noise(level: Tensor) -> Tensor:
        return level.to(known) * torch.randn(known.shape, generator=generator).to(known)

    x = torch.where(mask > 0, known + noise(sigmas[0]), start)
    for sigma, after in pairwise(sigmas):
        for turn in range(again if after > 0 else 1):
            if turn:  # up again
                x = x + noise((sigma**2 - after**2).sqrt())
            x0 = denoiser(x, sigma.to(x).expand(len(x)))
            kept = (after / sigma).square()
            x = x0 + kept * (x - x0) + noise(after * (1 - kept).clamp_min(0).sqrt())
            x = torch.where(mask > 0, known + noise(after), x)
    return x


def impute(codec: Any, known: Tensor, mask: Tensor, *, turns: int = 60, generator: Generator | None = None) -> Tensor:
    """Fill what is missing by remembering it again and again, the known part put back each time.

    Shape:
        known, mask, returns: (batch, *event), as in `inpaint`; the codec draws its latents.
    Reference:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models, 2014,
        arXiv:1401.4082, appendix F.
    """
    x = torch.where(mask > 0, known, torch.rand(known.shape, generator=generator).to(known))
    for _ in range(turns):
        x = torch.where(mask > 0, known, codec.decode(codec.draw(x, generator)))
    return x


def coarse_mask(mask: Tensor, size: tuple[int, ...]) -> Tensor:
    """A mask at the positions of spatial latents: known where all is known. Shape: (batch, 1, *space) to size."""
    missing = 1 - mask.float()
    pool = F.adaptive_max_pool2d if len(size) == 2 else F.adaptive_max_pool1d
    return 1 - pool(missing, size)
