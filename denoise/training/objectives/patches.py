"""Priors of small patches of photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from denoise.protocols import PatchPrior
from denoise.sampling.patches import cut_patches
from denoise.training.data import Batch, ImagePatches, Source
from denoise.training.losses.generative import patch_likelihood
from denoise.training.objectives.base import LossObjective, Metrics
from denoise.training.samples import write_signals


class PatchLikelihood(LossObjective):
    """Train a prior of patches by the likelihood of noisy patches, and by the error of its denoiser.

    The photographs of a batch are larger than a patch and cut into patches that do not overlap.
    """

    def validate(self, module: Any) -> None:
        """Check that the prior is one of patches that fit into the photographs.

        Args:
            module: prior.

        Raises:
            ConfigError: they do not fit.
        """
        recipe = self.recipe
        self.require(
            isinstance(module, PatchPrior),
            f"objective {recipe.objective!r} needs a prior of patches, the recipe builds a {type(module).__name__}. "
            "Fix objective or architecture.",
        )
        self.require(recipe.image is not None, "no [image] section; add it.")
        assert recipe.image is not None
        side = module.event_shape[-1]
        self.require(
            recipe.image.patch % side == 0,
            f"image.patch is {recipe.image.patch} pixels; expected a multiple of the side of the prior's patches, "
            f"{side}.",
        )
        self.require(recipe.image.sigma[0] > 0, "image.sigma starts at 0, where 8 bits have no density; start above 0.")

    def open_data(self, root: Path, module: Any) -> Source:
        """Load photographs with the channels of the prior.

        Args:
            root: folder that the paths of the recipe are relative to.
            module: prior.

        Raises:
            ConfigError: there are none.
        """
        assert self.recipe.image is not None
        return ImagePatches(self.recipe.image, root, module.event_shape[0])

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return the loss of a batch; metrics are nats for each entry and the error relative to the noise.

        Args:
            module: prior.
            batch: noisy and clean photographs.
        """
        assert batch.sigma is not None
        side = module.event_shape[-1]
        noisy, clean = (cut_patches(x, side, side).flatten(0, 2) for x in (batch.noisy, batch.clean))
        sigma = batch.sigma.repeat_interleave(len(noisy) // len(batch.noisy))
        return patch_likelihood(module, noisy, clean, sigma, self.recipe.loss.denoising)

    def write_samples(self, out: Path, step: int, shipped: Any, source: Source) -> None:
        """Write sampled patches.

        Args:
            out: folder of the training.
            step: number of the step.
            shipped: prior.
            source: training data.
        """
        write_signals(out, step, shipped.sample(64, generator=torch.Generator().manual_seed(0)).float().cpu(), None)
