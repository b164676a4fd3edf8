"""Conditioning of denoisers on the noise level."""

from __future__ import annotations

from torch import Tensor

from denoise.errors import ConfigError


def check_sigma(sigma: Tensor | None, *, blind: bool) -> None:
    """Refuse a sigma that would be ignored, and a missing one.

    Args:
        sigma: noise level, or None.
        blind: whether the network estimates the noise level itself.

    Raises:
        ConfigError: a blind network is given a sigma, or another one none.
    """
    if blind and sigma is not None:
        raise ConfigError("this model is blind and takes no sigma; leave sigma out.")
    if not blind and sigma is None:
        raise ConfigError("this model needs the noise level; give a sigma.")


def sigma_map(x: Tensor, sigma: Tensor) -> Tensor:
    """Return one channel that holds sigma at every position.

    Args:
        x: signals, (batch, channels, *space).
        sigma: noise level in signal units, (batch,).

    Returns:
        Map, (batch, 1, *space).

    Reference:
        FFDNet, 2017, arXiv:1710.04026.
    """
    return sigma.to(x).view(-1, *[1] * (x.ndim - 1)).expand(x.shape[0], 1, *x.shape[2:])
