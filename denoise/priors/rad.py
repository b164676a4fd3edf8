"""Piecewise invertible flows: several pieces of the space of signals are mapped to the same noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import zuko
from torch import Tensor, nn
from torch.nn import functional as F

PIECES = 3


class Zigzag(nn.Module):
    """Up, down and up again, in three straight pieces of each entry: three signals may have one value.

    It goes through (centre, 0) with its middle piece, which falls from ``height`` to -``height``.

    Args:
        features: entries of a signal.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(features))
        self.raw_half_width = nn.Parameter(torch.zeros(features))
        self.raw_height = nn.Parameter(torch.zeros(features))
        self.raw_slopes = nn.Parameter(torch.full((2, features), math.log(math.e - 1)))  # 1 of both outer pieces

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return values, numbers of the pieces from 0, and logarithms of the slopes, all (batch, features)."""
        half_width, height, slopes = self._shape()
        offset = x - self.centre
        piece = (offset > -half_width).long() + (offset > half_width).long()
        values = torch.stack(
            [
                height + slopes[0] * (offset + half_width),
                -height / half_width * offset,
                slopes[1] * (offset - half_width) - height,
            ]
        )
        log_slopes = torch.stack([slopes[0].log(), (height / half_width).log(), slopes[1].log()])
        log_slope = log_slopes[:, None].expand(PIECES, *x.shape).gather(0, piece[None])[0]
        z = values.gather(0, piece[None])[0]
        z = torch.where(piece == 1, z.clamp(-height, height), z)  # rounding must not lead beyond the ends of a piece
        z = torch.where(piece == 0, z.minimum(height), torch.where(piece == 2, z.maximum(-height), z))
        return z, piece, log_slope

    def inverse(self, z: Tensor, piece: Tensor) -> Tensor:
        """Return the signals of values on given pieces."""
        half_width, height, slopes = self._shape()
        offsets = torch.stack(
            [
                (z - height) / slopes[0] - half_width,
                -z * half_width / height,
                (z + height) / slopes[1] + half_width,
            ]
        )
        return self.centre + offsets.gather(0, piece[None])[0]

    def reaches(self, z: Tensor) -> Tensor:
        """Return which pieces have a value, (batch, features, pieces)."""
        height = self._shape()[1]
        return torch.stack([z <= height, z.abs() <= height, z >= -height], dim=-1)

    def _shape(self) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(F.softplus(raw) + 1e-3 for raw in (self.raw_half_width, self.raw_height, self.raw_slopes))  # type: ignore[return-value]


class PiecewiseFlow(nn.Module):
    """p(x) = p(z) p(k|z) |dz/dx|: noise z by couplings and a zigzag, and a gate that chooses the piece k it came from.

    Args:
        features: entries of a signal.
        context: features of a condition.
        transforms: couplings on either side of the zigzag.
        hidden: hidden units of each network.

    Reference:
        A RAD approach to deep mixture models, 2019, arXiv:1903.07714.
    """

    def __init__(self, features: int, context: int, transforms: int, hidden: Sequence[int]) -> None:
        super().__init__()
        settings = {"transforms": transforms, "hidden_features": tuple(hidden)}
        self.outer, self.inner = (zuko.flows.RealNVP(features, context, **settings) for _ in range(2))
        self.zigzag = Zigzag(features)
        self.gate = zuko.nn.MLP(features + context, PIECES * features, hidden_features=tuple(hidden))

    def forward(self, c: Tensor | None = None) -> PiecewiseDistribution:
        """Return the distribution for a condition, (batch, context)."""
        return PiecewiseDistribution(self, c)

    def log_gate(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Return the logarithms of the probabilities of the pieces, (batch, features) to (batch, features, pieces)."""
        inputs = z if context is None else torch.cat([z, context], dim=-1)
        logits = self.gate(inputs).unflatten(-1, (-1, PIECES))
        return logits.masked_fill(~self.zigzag.reaches(z), -math.inf).log_softmax(dim=-1)


class PiecewiseDistribution(NamedTuple):
    """The distribution of a piecewise flow for a condition.

    Args:
        flow: the flow.
        context: condition, (batch, context), or None.
    """

    flow: PiecewiseFlow
    context: Tensor | None

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log-densities, (batch, features) to (batch,)."""
        flow, context = self
        y, ladj = flow.outer(context).transform.call_and_ladj(x)
        z, piece, log_slope = flow.zigzag(y)
        log_gate = flow.log_gate(z, context).gather(-1, piece[..., None])[..., 0]
        return flow.inner(context).log_prob(z) + (log_gate + log_slope).sum(dim=-1) + ladj

    def decode(self, noise: Tensor, thresholds: Tensor) -> Tensor:
        """Return signals of normal noise, with pieces by uniform thresholds; all (batch, features)."""
        flow, context = self
        z = flow.inner(context).transform.inv(noise)
        cumulative = flow.log_gate(z, context).exp().cumsum(dim=-1)
        piece = (cumulative <= thresholds[..., None]).sum(dim=-1).clamp_max(PIECES - 1)
        return flow.outer(context).transform.inv(flow.zigzag.inverse(z, piece))
