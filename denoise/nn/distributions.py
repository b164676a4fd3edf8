"""Distributions that torch lacks."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F


class DiscretizedLogistic(Distribution):
    """A logistic distribution over the 256 levels of 8 bits, full scale 1; the ends take what lies beyond them.

    Shape:
        loc, log_scale: any, the same; in units of full scale.
    Reference:
        PixelCNN++, 2017, arXiv:1701.05517, section 2.1.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = torch.distributions.constraints.unit_interval

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        self.loc, self.log_scale = loc, log_scale.clamp_min(-7.0)
        super().__init__(loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """That of the undisturbed logistic, clipped to [0, 1]."""
        return self.loc.clamp(0, 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Of the level that is nearest to a value, in nats."""
        level = (value * 255).round()
        inverse = torch.exp(-self.log_scale)
        upper = inverse * ((level + 0.5) / 255 - self.loc)
        lower = inverse * ((level - 0.5) / 255 - self.loc)
        inside = torch.log((torch.sigmoid(upper) - torch.sigmoid(lower)).clamp_min(1e-12))
        return torch.where(level <= 0, F.logsigmoid(upper), torch.where(level >= 255, F.logsigmoid(-lower), inside))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Levels between 0 and 1."""
        u = torch.rand(torch.Size(sample_shape) + self.loc.shape).clamp(1e-6, 1 - 1e-6).to(self.loc)
        drawn = self.loc + self.log_scale.exp() * torch.logit(u)
        return (drawn.clamp(0, 1) * 255).round() / 255
