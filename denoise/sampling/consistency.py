"""Consistency of a denoised signal with its measurement: the residual must look like the noise that there was."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from denoise.protocols import Consistency

WINDOW = 17  # side of the windows of `residual_check`, odd
DEVIATIONS = (5.0, 10.0)  # excess power in standard errors: samples are mixed with the mean from the first on


def consistency(residual: Tensor, sigma: float) -> Consistency:
    """Return the statistics of a residual.

    Args:
        residual: noisy minus denoised signal, (..., height, width) or (..., 1, time).
        sigma: standard deviation of the noise, in signal units.
    """
    power = residual.square().mean()
    products = [
        residual.narrow(d, 0, n - 1) * residual.narrow(d, 1, n - 1) for d in (-2, -1) if (n := residual.shape[d]) > 1
    ]
    covariance = max((float(p.mean()) for p in products), key=abs, default=0.0)
    return Consistency(float(power.sqrt()) / max(sigma, 1e-9), covariance / max(float(power), 1e-20))


def residual_check(noisy: Tensor, sample: Tensor, sigma: float) -> Tensor:
    """Return how far to move a posterior sample back to the posterior mean: where its residual exceeds the noise.

    There the sample has replaced something that was observed.

    Args:
        noisy: noisy signals, (batch, channels, *space) with one or two axes of space.
        sample: posterior samples, as noisy.
        sigma: standard deviation of the noise, in signal units.

    Returns:
        Weights of the mean, (batch, 1, *space), 0 to 1.
    """
    ndim = noisy.ndim - 2
    power = (noisy - sample).square().mean(dim=1, keepdim=True) / max(sigma, 1e-9) ** 2
    pool = (F.avg_pool1d, F.avg_pool2d)[ndim - 1]
    local_power = pool(power, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
    standard_error = (2 / (noisy.shape[1] * WINDOW**ndim)) ** 0.5
    low, high = DEVIATIONS
    return (((local_power - 1) / standard_error - low) / (high - low)).clamp(0, 1)
