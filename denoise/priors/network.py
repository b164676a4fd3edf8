"""A prior of images as a denoiser that a pipeline applies to windows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from denoise.errors import ConfigError
from denoise.protocols import DenoisingPrior, LatentVariablePrior
from denoise.sampling.inversion import restore_by_inversion
from denoise.sampling.operators import Mask


class PriorNetwork(nn.Module):
    """A `denoise.protocols.Network` whose windows have the size of the signals of a prior.

    Args:
        prior: prior of square images, which denoises or has latents.
        name: its name in messages.

    Raises:
        ConfigError: the prior is neither, or its signals are no square images.
    """

    ndim, blind, sigma_maps, variational, size_multiple, context = 2, False, 1, False, 1, None

    prior: Any  # a `DenoisingPrior` or `LatentVariablePrior`

    def __init__(self, prior: Any, name: str) -> None:
        super().__init__()
        if not isinstance(prior, DenoisingPrior | LatentVariablePrior):
            raise ConfigError(
                f"prior {name} is no denoiser: it has no D(x, sigma), nor latents of a known density to invert. Use a "
                "diffusion, flow matching, a VAE, a GAN or a flow."
            )
        channels, *space = prior.event_shape
        if len(space) != 2 or space[0] != space[1] or channels not in (1, 3):
            raise ConfigError(
                f"prior {name} is of signals of shape {tuple(prior.event_shape)}; expected square images."
            )
        self.prior, self.config = prior, getattr(prior, "config", None)
        self.channels, self.window = channels, space[0]

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Return E[clean | x] for images with white noise of sigma, (batch,), or E[clean | x, their latents]."""
        assert sigma is not None
        if isinstance(self.prior, DenoisingPrior):
            return self.prior(x, sigma)
        with torch.inference_mode(False), torch.enable_grad():  # the latents are found by gradient descent
            return torch.cat([self._invert(image, float(level)) for image, level in zip(x.clone(), sigma, strict=True)])

    def _invert(self, image: Tensor, sigma: float) -> Tensor:
        operator = Mask(image.new_ones(1))
        start = Generator().manual_seed(0)
        return restore_by_inversion(self.prior, image[None], operator, sigma, image.shape, generator=start)
