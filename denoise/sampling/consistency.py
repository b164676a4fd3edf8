"""Whether an answer agrees with what was measured: what it leaves over must be noise, and no more than there is."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

SIDE = 17  # of the windows that are judged, odd
LIMITS = (5.0, 10.0)  # standard deviations of chance: from the first on an answer is doubted, from the second refused


class Consistency(NamedTuple):
    """The residual's rms by that of the noise, 1 for noise; and a correlation that is 0 for it: of pictures between
    neighbours, of recordings with the answer.
    """

    level: float
    correlation: float


def consistency(residual: Tensor, sigma: float) -> Consistency:
    """Judge what is left over.

    Shape:
        residual: (..., height, width), or (..., 1, time).
    """
    power = residual.square().mean()
    pairs = [
        residual.narrow(d, 0, n - 1) * residual.narrow(d, 1, n - 1) for d in (-2, -1) if (n := residual.shape[d]) > 1
    ]
    shared = max((float(p.mean()) for p in pairs), key=abs, default=0.0)
    return Consistency(float(power.sqrt()) / max(sigma, 1e-9), shared / max(float(power), 1e-20))


def doubts(noisy: Tensor, drawn: Tensor, sigma: float) -> Tensor:
    """How far to go from a drawn answer back to the mean of all: where it leaves more over than noise of ``sigma`` is.

    There it would have put something in place of what was seen.

    Shape:
        noisy, drawn: (batch, channels, *space) with one or two axes of space; returns (batch, 1, *space), 0 to 1.
    """
    space = noisy.ndim - 2
    power = (noisy - drawn).square().mean(dim=1, keepdim=True) / max(sigma, 1e-9) ** 2
    pool = (F.avg_pool1d, F.avg_pool2d)[space - 1]
    level = pool(power, SIDE, stride=1, padding=SIDE // 2, count_include_pad=False)
    chance = (2 / (noisy.shape[1] * SIDE**space)) ** 0.5
    return (((level - 1) / chance - LIMITS[0]) / (LIMITS[1] - LIMITS[0])).clamp(0, 1)
