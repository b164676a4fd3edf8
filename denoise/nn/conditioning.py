"""Conditioning of networks on the noise level and on embeddings."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from denoise.errors import ConfigError


class FiLM(nn.Module):
    """Scale and shift of features that are computed from an embedding; the identity at initialisation.

    Args:
        embedding: length of the embedding.
        channels: channels of the features.

    Reference:
        FiLM: Visual Reasoning with a General Conditioning Layer, 2017, arXiv:1709.07871.
    """

    def __init__(self, embedding: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embedding, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Modulate features.

        Args:
            x: features, (batch, channels, *space).
            embedding: (batch, embedding).

        Returns:
            Features of the shape of ``x``.
        """
        scale, shift = self.linear(F.silu(embedding)).reshape(len(x), -1, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        return x * (1 + scale) + shift


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


def sigma_map(x: Tensor, sigma: Tensor, channels: int = 1) -> Tensor:
    """Return channels that hold sigma at every position.

    Args:
        x: signals, (batch, channels, *space).
        sigma: noise level in signal units, (batch,), or maps of it, (batch, 1 or ``channels``, *space).
        channels: channels of the result.

    Returns:
        Maps, (batch, ``channels``, *space); each axis of space has size 1 where sigma is (batch,).

    Raises:
        ConfigError: the shape of sigma is another one.

    Reference:
        FFDNet, 2017, arXiv:1710.04026.
    """
    maps = sigma.to(x)
    maps = maps.view(-1, *[1] * (x.ndim - 1)) if sigma.ndim == 1 else maps
    spaces = (x.shape[2:], (1,) * (x.ndim - 2))
    if maps.ndim != x.ndim or maps.shape[1] not in (1, channels) or maps.shape[2:] not in spaces:
        raise ConfigError(
            f"sigma has shape {tuple(sigma.shape)}; expected (batch,) or (batch, {channels}, *{tuple(x.shape[2:])})."
        )
    return maps.expand(x.shape[0], channels, *maps.shape[2:])
