"""Measurements that say in which set a signal lies, and are not linear."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from denoise.errors import ConfigError


class ConsistentSet(ABC):
    """A measurement y of which all signals of a set are possible causes; its linear part is the identity.

    The misfit ``y - forward(x)`` leads from x to the set. `diffpir`, `dps` and `pnp_flow` work with it.
    """

    y: Tensor
    measurement: ClassVar[str]

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return y less the way from x to the set, of the shape of x."""

    def adjoint(self, y: Tensor) -> Tensor:
        """Return y, since the linear part is the identity."""
        return y

    def solve(self, r: Tensor, damping: float | Tensor) -> Tensor:
        """Return (1 + damping)^-1 r."""
        return r / (1 + damping)

    def to_spectral(self, x: Tensor) -> Tensor:
        """Return the signal itself."""
        return x

    def from_spectral(self, z: Tensor) -> Tensor:
        """Return the coordinates themselves."""
        return z

    def singular_values(self, z: Tensor) -> Tensor:
        """Return ones of the shape of z."""
        return torch.ones_like(z)

    def pseudoinverse(self, y: Tensor) -> Tensor:
        """Refuse, since there is no linear inverse.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self.measurement} has no linear inverse, which ddrm needs; use diffpir.")
