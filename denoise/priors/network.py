"""A denoising prior of images as a denoiser that a pipeline applies to windows."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from denoise.errors import ConfigError
from denoise.protocols import DenoisingPrior


class PriorNetwork(nn.Module):
    """A `denoise.protocols.Network` whose windows have the size of the signals of a prior.

    Args:
        prior: denoising prior of square images.
        name: its name in messages.

    Raises:
        ConfigError: the prior is no denoiser, or its signals are no square images.
    """

    ndim, blind, sigma_maps, variational, size_multiple, context = 2, False, 1, False, 1, None

    def __init__(self, prior: Any, name: str) -> None:
        super().__init__()
        if not isinstance(prior, DenoisingPrior):
            raise ConfigError(f"prior {name} is no denoiser: it has no D(x, sigma). Use a diffusion or flow matching.")
        channels, *space = prior.event_shape
        if len(space) != 2 or space[0] != space[1] or channels not in (1, 3):
            raise ConfigError(
                f"prior {name} is of signals of shape {tuple(prior.event_shape)}; expected square images."
            )
        self.prior, self.config = prior, getattr(prior, "config", None)
        self.channels, self.window = channels, space[0]

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Return E[clean | x] for images with white noise of sigma, (batch,)."""
        assert sigma is not None
        return self.prior(x, sigma)
