"""Distributions that `torch.distributions` does not have."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F

from denoise.probability_path import standard_uniform


class DiscretizedLogistic(Distribution):
    """Logistic distribution over the 256 levels of 8 bits from 0 to 1; the end levels have the mass beyond them.

    Args:
        loc: mean of the logistic, any shape, full scale 1.0.
        log_scale: logarithm of its scale, the same shape.

    Reference:
        PixelCNN++, 2017, arXiv:1701.05517, section 2.1.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = torch.distributions.constraints.unit_interval

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        dtype = torch.promote_types(loc.dtype, torch.float32)  # a level is as wide as the rounding of bfloat16
        self.loc, self.log_scale = loc.to(dtype), log_scale.to(dtype).clamp(-7.0, 20.0)  # wider, the levels underflow
        super().__init__(loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Mean of the continuous logistic, clipped to [0, 1]."""
        return self.loc.clamp(0, 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability in nats of the levels nearest to ``value``."""
        level = (value * 255).round()
        inverse_scale = torch.exp(-self.log_scale)
        upper = inverse_scale * ((level + 0.5) / 255 - self.loc)
        lower = inverse_scale * ((level - 0.5) / 255 - self.loc)
        # log(sigmoid(upper) - sigmoid(lower)); the difference itself is 0 far from the mean, with its gradient
        log_width = torch.log(-torch.expm1(-inverse_scale / 255))
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + log_width
        return torch.where(level <= 0, F.logsigmoid(upper), torch.where(level >= 255, F.logsigmoid(-lower), inside))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Sample levels from 0 to 1.

        Args:
            sample_shape: shape of independent samples.

        Returns:
            Levels, (*sample_shape, *loc.shape).
        """
        u = standard_uniform(torch.Size(sample_shape) + self.loc.shape, None).clamp(1e-6, 1 - 1e-6).to(self.loc)
        continuous = self.loc + self.log_scale.exp() * torch.logit(u)
        return (continuous.clamp(0, 1) * 255).round() / 255
