"""Priors over signals, or over the latents of a codec that is no longer trained."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from denoise.priors.ddpm import DDPM
from denoise.priors.diffusion import Diffusion
from denoise.priors.flow_matching import FlowMatching
from denoise.priors.latent import LatentPrior
from denoise.priors.multiscale_flow import MultiscaleFlow
from denoise.protocols import HasLogProb
from denoise.training.data import Batch, Source
from denoise.training.examples import LabelledExamples
from denoise.training.losses import generative
from denoise.training.objectives.base import LossObjective, Metrics
from denoise.training.objectives.signals import SignalObjective, conditions


class PriorObjective(SignalObjective, LossObjective):
    """An objective of priors of one type, alone or over the latents of a codec."""

    prior_types: ClassVar[tuple[type, ...]]

    @staticmethod
    @abstractmethod
    def prior_loss(prior: Any, x: Tensor, labels: Any) -> Tensor:
        """Return the loss of a prior on signals or latents, a scalar.

        Args:
            prior: prior.
            x: signals or latents, (B, *event).
            labels: B labels, or None.
        """

    def validate(self, module: Any) -> None:
        """Check the type of the prior and that the data have the shape of its signals.

        Args:
            module: prior, or latent prior.

        Raises:
            ConfigError: they do not fit.
        """
        prior = module.prior if isinstance(module, LatentPrior) else module
        self.require(
            isinstance(prior, self.prior_types),
            f"objective {self.recipe.objective!r} needs a prior of type "
            f"{' or '.join(each.__name__ for each in self.prior_types)}, the recipe builds a {type(prior).__name__}. "
            "Fix objective or architecture.",
        )
        super().validate(module)

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return the loss of a batch; for latents, a metric is their standard deviation.

        Args:
            module: prior, or latent prior.
            batch: signals and labels.
        """
        if not isinstance(module, LatentPrior):
            return self.prior_loss(module, batch.clean, conditions(module, batch)), dict
        with torch.no_grad():
            z = module.codec.encode(batch.clean).float()  # in bfloat16, rounding would exceed noise of small sigmas
        return self.prior_loss(module.prior, z, conditions(module.prior, batch)), lambda: {"latent_std": z.std()}


class DenoisingScoreMatching(PriorObjective):
    """Train a diffusion prior to denoise at all noise levels."""

    prior_types = (Diffusion,)
    prior_loss = staticmethod(generative.denoising_score_matching)


class DDPMObjective(PriorObjective):
    """Train a DDPM by the error of what it predicts."""

    prior_types = (DDPM,)
    prior_loss = staticmethod(generative.ddpm)

    def validate(self, module: Any) -> None:
        """Check that the data can be in the interval of the prior, too.

        Args:
            module: prior, or latent prior.

        Raises:
            ConfigError: they do not fit.
        """
        super().validate(module)
        if isinstance(module, LatentPrior):
            self.require(
                module.prior.config.prediction != "eps",
                'prediction "eps" of latents, which have no interval to clip estimates to; predict v or x0.',
            )
            return
        low, high = module.config.interval
        self.require(
            self.recipe.modality == "image" or low < 0,
            f"model.interval is {low:g} to {high:g}, signals of {self.recipe.modality} have both signs; set it, e.g. "
            "model.interval = [-1.0, 1.0].",
        )


class FlowMatchingObjective(PriorObjective):
    """Train a flow matching prior by the error of its velocity."""

    prior_types = (FlowMatching,)
    prior_loss = staticmethod(generative.flow_matching)


class MaximumLikelihood(PriorObjective):
    """Train a normalizing flow, a mixture or an autoregressive prior by its log-likelihood, or a bound of it."""

    prior_types = (HasLogProb, MultiscaleFlow)
    prior_loss = staticmethod(generative.negative_log_likelihood)

    def open_data(self, root: Path, module: Any) -> Source:
        """Load the data, with a warning where they have levels and the prior has a density.

        Args:
            root: folder that the paths of the recipe are relative to.
            module: prior, or latent prior.

        Raises:
            ConfigError: there are none, or the labels do not fit the prior.
        """
        source = super().open_data(root, module)
        has_levels = isinstance(source, LabelledExamples) and source.has_levels
        is_dithered = isinstance(module, MultiscaleFlow) and module.config.dither > 0
        if has_levels and not (isinstance(module, LatentPrior) or is_dithered or module.support.values != "continuous"):
            warnings.warn(
                f"recipe {self.recipe.name}: signals of 256 levels have no density, and the likelihood no bound; use "
                'architecture = "multiscale-flow" with dequantisation, or "autoregressive-flow".',
                stacklevel=2,
            )
        return source
