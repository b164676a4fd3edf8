"""A normal distribution of three entries and its optimal denoiser."""

from __future__ import annotations

import torch
from torch import Tensor

MEAN = torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.8, 0.3], [0.8, 1.0, 0.5], [0.3, 0.5, 0.7]], dtype=torch.float64)


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """The optimal denoiser of signals from N(MEAN, COVARIANCE)."""
    gain = COVARIANCE @ torch.linalg.inv(COVARIANCE + sigma[0] ** 2 * torch.eye(3, dtype=torch.float64))
    return MEAN + (x - MEAN) @ gain.T
