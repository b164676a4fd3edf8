"""How a network is told the noise level."""

from __future__ import annotations

from torch import Tensor

from denoise.errors import ConfigError


def check_sigma(sigma: Tensor | None, *, blind: bool) -> None:
    """Refuse a sigma that would be ignored, and a missing one.

    Raises:
        ConfigError: either is the case.
    """
    if blind and sigma is not None:
        raise ConfigError("this model is blind and takes no sigma; leave sigma out.")
    if not blind and sigma is None:
        raise ConfigError("this model needs the noise level; give a sigma.")


def sigma_map(x: Tensor, sigma: Tensor) -> Tensor:
    """One channel that holds sigma everywhere. Shape: x (batch, channels, *space), returns (batch, 1, *space)."""
    return sigma.to(x).view(-1, *[1] * (x.ndim - 1)).expand(x.shape[0], 1, *x.shape[2:])
