"""The estimate of sigma with the optimal denoiser of known signals, whose noise is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from denoise.sampling.stein import sigma_from_residual

SPREAD = torch.tensor([1.0, 0.5, 0.0])[:, None]  # of the clean signals: a plane of two dimensions in three


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    variance = SPREAD**2
    return variance / (variance + sigma[:, None, None] ** 2) * x


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.4])
def test_sigma_of_gaussian_signals_on_a_plane(sigma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 2, 3, 5000, generator=generator)
    estimate = sigma_from_residual(denoiser, SPREAD * clean + sigma * noise, 0.005, 0.9, generator=generator)
    assert estimate == pytest.approx(sigma, rel=0.04)


def test_the_range_bounds_the_estimate() -> None:
    x = SPREAD * torch.randn(1, 3, 100)
    assert sigma_from_residual(denoiser, x, 0.1, 0.5) == pytest.approx(0.1, rel=0.01)
    assert sigma_from_residual(denoiser, 3 * torch.randn(1, 3, 100), 0.1, 0.5) == pytest.approx(0.5, rel=0.01)
