"""Noise that makes discrete signals continuous, of a learned distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zuko.lazy import LazyComposedTransform
from zuko.transforms import MonotonicAffineTransform

from denoise.nn.invertible import Coupling, CouplingNet, Shape

COUPLINGS = 4


class VariationalDequantiser(nn.Module):
    """A conditional flow q(u|x) of the noise that makes levels continuous.

    Args:
        shape: shape of one signal, (channels, *space).
        width: features of the networks.

    Reference:
        Flow++, 2019, arXiv:1902.00275, section 3.1.
    """

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        channels, ndim = shape[0], len(shape) - 1
        self.features = CouplingNet(ndim, channels, width, width, 1, 0, 0)
        nn.init.kaiming_uniform_(self.features.last.weight, a=5**0.5)
        self.flow = LazyComposedTransform(
            *(
                Coupling(
                    ndim,
                    channels,
                    "checkerboard",
                    i % 2 == 1,
                    MonotonicAffineTransform,
                    [(), ()],
                    width=width,
                    blocks=1,
                    maps=width,
                )
                for i in range(COUPLINGS)
            )
        )

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return u, between 0 and 1, and log q(u|x).

        Args:
            x: signals, 0 to 1, (batch, channels, *space).
            noise: standard normal noise of the same shape.

        Returns:
            (batch, channels, *space) and (batch,).
        """
        logits, ladj = self.flow(self.features(2 * x - 1, None)).call_and_ladj(noise)
        log_slope = F.logsigmoid(logits) + F.logsigmoid(-logits)
        return torch.sigmoid(logits), normal_log_prob(noise) - ladj - log_slope.flatten(1).sum(dim=1)


def normal_log_prob(noise: Tensor) -> Tensor:
    """Return the log-density of standard normal noise, (batch, ...) to (batch,)."""
    return -0.5 * (noise.square() + math.log(2 * math.pi)).flatten(1).sum(dim=1)
