"""Codecs: plain, variational and adversarial autoencoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from denoise.metrics import mse, r2
from denoise.models.autoencoder import AAE
from denoise.models.spectral_codec import SpectralCodec
from denoise.noise import generator_for
from denoise.priors.flows import Flow
from denoise.priors.latent import LatentPrior
from denoise.protocols import HasLogProb, LikelihoodCodec, VariationalCodec
from denoise.training.data import Batch, Source
from denoise.training.examples import LabelledExamples
from denoise.training.losses import generative
from denoise.training.objectives.base import LossObjective, Metrics
from denoise.training.objectives.signals import SignalObjective, conditions
from denoise.training.recipe import Recipe
from denoise.training.samples import write_signals


class Reconstruction(SignalObjective, LossObjective):
    """Train a plain autoencoder by the likelihood of its reconstructions."""

    def validate(self, module: Any) -> None:
        """Check that the module is a codec with a likelihood and the data have the shape of its signals.

        Args:
            module: codec.

        Raises:
            ConfigError: they do not fit.
        """
        self.require(
            isinstance(module, LikelihoodCodec),
            f"{self.recipe.architecture} is no autoencoder; fix objective or architecture.",
        )
        super().validate(module)

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return the negative log-likelihood for each entry; metrics are MSE and R^2.

        Args:
            module: codec.
            batch: signals.
        """
        return generative.reconstruction(module, batch.clean), lambda: reconstruction_metrics(module, batch.clean)

    def write_samples(self, out: Path, step: int, shipped: Any, source: Source) -> None:
        """Write signals and their reconstructions.

        Args:
            out: folder of the training.
            step: number of the step.
            shipped: codec.
            source: training data.
        """
        clean = source.batch(32, generator_for(self.recipe.schedule.seed, -1 % (1 << 31))).clean
        device = next(shipped.parameters()).device
        reconstructed = shipped.decode(shipped.encode(clean.to(device))).float().cpu()
        write_signals(out, step, torch.cat([clean[:16], reconstructed[:16]]), self.recipe.sample_rate)


class Elbo(SignalObjective, LossObjective):
    """Train a variational codec and a prior over its latents together, by the evidence lower bound.

    Args:
        recipe: recipe of the training.

    Reference:
        Auto-Encoding Variational Bayes, 2013, arXiv:1312.6114, eq. 8 (the reduction ``"dataset"``).
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.dataset_size = 0  # N, of `open_data`

    def validate(self, module: Any) -> None:
        """Check that codec and prior have densities that fit the loss, and the data have the shape of their signals.

        Args:
            module: latent prior.

        Raises:
            ConfigError: they do not fit.
        """
        self.require(
            isinstance(module, LatentPrior)
            and isinstance(module.codec, VariationalCodec)
            and isinstance(module.prior, HasLogProb),
            'objective "elbo" needs architecture "latent-prior" of a variational codec and a flow.',
        )
        loss = self.recipe.loss
        self.require(
            loss.estimator != "B" or _is_standard_normal(module.prior),
            'loss.estimator is "B", the divergence from a standard normal prior, and this prior would not be trained; '
            'use "A", or kind = "normal" with mean 0 and scale 1.',
        )
        self.require(
            loss.estimator == "B" or not loss.free_bits,
            f'loss.free_bits is {loss.free_bits:g}, which estimator "{loss.estimator}" ignores; drop it or use "B".',
        )
        self.require(
            loss.reduction == "entry" or self.recipe.examples is not None,
            'loss.reduction is "dataset", which needs [examples]; use "entry".',
        )
        super().validate(module)

    def open_data(self, root: Path, module: Any) -> Source:
        """Load the data and count them.

        Args:
            root: folder that the paths of the recipe are relative to.
            module: latent prior.

        Raises:
            ConfigError: there are none, or the labels do not fit the prior.
        """
        source = super().open_data(root, module)
        self.dataset_size = len(source.signals) if isinstance(source, LabelledExamples) else 0
        return source

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return the negative evidence lower bound of an entry or of all data; metrics are nats a signal, MSE and R^2.

        Args:
            module: latent prior.
            batch: signals and labels.
        """
        settings, x = self.recipe.loss, batch.clean
        nats = generative.negative_elbo(
            module,
            x,
            conditions(module, batch),
            estimator=settings.estimator,
            samples=settings.samples,
            beta=settings.beta,
            free_bits=settings.free_bits,
        )
        loss = nats / x[0].numel() if settings.reduction == "entry" else self.dataset_size * nats
        return loss, lambda: {"nats": nats.detach()} | reconstruction_metrics(module.codec, x)


class Adversarial(SignalObjective, LossObjective):
    """Train an adversarial autoencoder, whose critic compares its latents with samples of the prior.

    Encoder and critic share one optimizer, see `denoise.training.losses.generative.adversarial`. The critic is part of
    the codec and is shipped with it.
    """

    def validate(self, module: Any) -> None:
        """Check that the codec has a critic and the data have the shape of its signals.

        Args:
            module: latent prior.

        Raises:
            ConfigError: they do not fit.
        """
        self.require(
            isinstance(module, LatentPrior) and isinstance(module.codec, AAE),
            'objective "adversarial" needs architecture "latent-prior" with the codec "aae".',
        )
        super().validate(module)

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return the loss of autoencoder and critic; metrics are the accuracy of the critic, MSE and R^2.

        Args:
            module: latent prior.
            batch: signals.
        """
        loss, accuracy = generative.adversarial(module, batch.clean, self.recipe.loss.adversarial)
        return loss, lambda: {"critic_accuracy": accuracy.detach()} | reconstruction_metrics(module.codec, batch.clean)


def _is_standard_normal(prior: Any) -> bool:
    return isinstance(prior, Flow) and (prior.config.kind, prior.config.mean, prior.config.scale) == ("normal", 0, 1)


@torch.no_grad()
def reconstruction_metrics(codec: Any, x: Tensor) -> dict[str, Tensor]:
    """Return MSE and R^2 of the reconstructions of a codec.

    Args:
        codec: codec; of a spectral one, the spectra are compared, because finding their phase takes long.
        x: signals, (B, *event).
    """
    if isinstance(codec, SpectralCodec):
        codec, x = codec.codec, codec.to_spectrum(x)
    reconstructed = codec.decode(codec.encode(x)).float()
    return {"mse": mse(reconstructed, x), "r2": r2(reconstructed, x)}
