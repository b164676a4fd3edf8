"""Priors of images, or of patches of them, as denoisers that a pipeline applies to windows or tiles."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Generator, Tensor, nn

from denoise.errors import ConfigError
from denoise.protocols import DenoisingPrior, LatentVariablePrior, PatchPrior
from denoise.sampling.patches import denoise_at_scales, denoise_patches

STRIDE, SCALES = 2, 4  # for the removal of noise
LIMIT = 1.1  # rms of what is removed from a patch, relative to sigma: 192 values have no more noise


class PriorNetwork(nn.Module):
    """A `denoise.protocols.Network` whose windows have the size of the signals of a prior.

    Windows of a prior with latents are not denoised one by one: `denoise.sampling.inversion` fits all together.

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
                "diffusion or flow matching of pixels, a VAE, a GAN or a flow."
            )
        channels, *space = prior.event_shape
        if len(space) != 2 or space[0] != space[1] or channels not in (1, 3):
            raise ConfigError(
                f"prior {name} is of signals of shape {tuple(prior.event_shape)}; expected square images."
            )
        self.prior, self.config = prior, getattr(prior, "config", None)
        self.channels, self.window = channels, space[0]

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Return E[clean | x] for images with white noise of sigma, (batch,), by a prior that denoises."""
        denoised: Tensor = self.prior(x, sigma)
        return denoised


class PatchNetwork(nn.Module):
    """A `denoise.protocols.Network` for images of any size, made of a prior of patches.

    Args:
        prior: prior of patches.
        stride: pixels between patches.
        scales: scales of the image, each half of the one before.
    """

    generator: Generator | None = None
    """Source of noise that the patches get, see `denoise_patches`; None for images that have the noise."""

    ndim, blind, sigma_maps, variational, window = 2, False, 1, False, None

    def __init__(self, prior: PatchPrior, stride: int = STRIDE, scales: int = SCALES) -> None:
        super().__init__()
        self.prior, self.config, self.stride, self.scales = prior, getattr(prior, "config", None), stride, scales
        self.channels, side = prior.event_shape[:2]
        self.context = (side - 1) * 2 ** (scales - 1)
        self.size_multiple = stride * 2 ** (scales - 1)  # tiles that start there have the same patches

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Return an estimate of the clean images for images with white noise of sigma, (batch,)."""
        assert sigma is not None
        denoise = partial(denoise_patches, self.prior, stride=self.stride, limit=LIMIT, generator=self.generator)
        return denoise_at_scales(denoise, x, sigma, self.scales)


def as_network(prior: Any, name: str) -> PatchNetwork | PriorNetwork:
    """Return a denoising prior as a network of a pipeline.

    Args:
        prior: denoising prior of square images, or of patches.
        name: its name in messages.

    Raises:
        ConfigError: the prior is no denoiser, or its signals are no square images.
    """
    return PatchNetwork(prior) if isinstance(prior, PatchPrior) else PriorNetwork(prior, name)
