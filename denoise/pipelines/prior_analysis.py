"""What codecs and likelihoods of priors say about signals: latents, reconstructions and log-likelihoods."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from denoise.errors import ConfigError
from denoise.metrics import bits_per_dim, r2
from denoise.models.spectral_codec import SpectralCodec
from denoise.pipelines.latent_space import attribute_direction
from denoise.pipelines.prior_base import LoadedPrior, check_count
from denoise.pipelines.typicality import anomaly_scores, typical_statistics
from denoise.priors.latent import LatentPrior
from denoise.protocols import (
    HasEstimatedLogProb,
    HasLogProb,
    HasLogProbBound,
    Label,
    Progress,
    StochasticCodec,
    Support,
)
from denoise.weights import TypicalStatistics

BINARISED = ", of stochastically binarised pixels"


class AnalysisPipeline(LoadedPrior):
    """The part of `denoise.pipelines.prior.PriorPipeline` that describes signals: its codec and its likelihoods."""

    @property
    def samples_latents(self) -> bool:
        """Whether the prior has a codec whose latents are random variables."""
        return isinstance(self.model, LatentPrior) and isinstance(self.model.codec, StochasticCodec)

    def decodings(self, x: Tensor, n: int, *, seed: int = 0) -> Tensor:
        """Decode several samples of the latents of one signal, or its only latents once.

        Args:
            x: signal, (1, *shape).
            n: number of samples; 1 if the latents are no random variables.
            seed: seed of the latents' noise.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no codec, or one whose latents are no random variables and n is more than 1.
        """
        codec, generator = self._latent_prior().codec, Generator().manual_seed(seed)
        check_count(n, "decodings")
        if isinstance(codec, StochasticCodec):
            return self._map(
                lambda batch: codec.decode(codec.sample_posterior(batch, generator)), x.expand(n, *x.shape[1:])
            )
        if n > 1:
            raise ConfigError(
                f"number of decodings is {n}; expected 1, as the latents of {self.card.name} are not random. "
                "Leave it out, or use a VAE or an AAE."
            )
        return self.reconstruct(x)

    def latents(self, x: Tensor, *, progress: Progress | None = None) -> Tensor:
        """Return the latents of signals.

        Args:
            x: signals, (n, *shape).
            progress: called with the fraction done.

        Returns:
            Latents, (n, *latent_shape).

        Raises:
            ConfigError: the prior has no codec.
        """
        return self._map(self._latent_prior().codec.encode, x, progress)

    def decode_latents(self, z: Tensor, *, progress: Progress | None = None) -> Tensor:
        """Return the signals of latents.

        Args:
            z: latents, (n, *latent_shape).
            progress: called with the fraction done.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no codec.
        """
        return self._map(self._latent_prior().codec.decode, z, progress)

    def attribute(self, examples: Tensor, others: Tensor) -> Tensor:
        """Return the direction of an attribute in the latents: their mean with it minus their mean without it.

        Args:
            examples: signals with the attribute, (n, *shape).
            others: signals without it, alike in everything else, (m, *shape).

        Returns:
            Direction, (1, *latent_shape).

        Raises:
            ConfigError: the prior has no codec.
        """
        return attribute_direction(self.latents(examples), self.latents(others))

    def edit(self, x: Tensor, direction: Tensor, strength: float = 1.0, *, progress: Progress | None = None) -> Tensor:
        """Add an attribute to signals, or remove it: encode them, move their latents along a direction, decode.

        Args:
            x: signals, (n, *shape).
            direction: direction of `attribute`, (1, *latent_shape).
            strength: multiple of the direction; 0 reconstructs, negative values remove the attribute.
            progress: called with the fraction done.

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no codec.
        """
        return self.decode_latents(self.latents(x) + strength * direction, progress=progress)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Encode and decode signals with the codec.

        Args:
            x: signals, (n, *shape).

        Returns:
            Signals, (n, *shape).

        Raises:
            ConfigError: the prior has no codec.
        """
        return self.decode_latents(self.latents(x))

    def reconstruction_r2(self, x: Tensor) -> tuple[float, str]:
        """Return the coefficient of determination of the codec's reconstructions.

        Spectra are compared for spectral codecs, whose phases differ from those of the signal.

        Args:
            x: signals, (n, *shape).

        Returns:
            R^2, 1 for perfect reconstructions, and what was compared: ``"signals"`` or ``"compressed spectra"``.

        Raises:
            ConfigError: the prior has no codec.
        """
        codec = self._latent_prior().codec
        if not isinstance(codec, SpectralCodec):
            return float(r2(self.reconstruct(x), x)), "signals"
        inner, spectra = codec.codec, self._map(codec.to_spectrum, x)
        return float(r2(self._map(lambda batch: inner.decode(inner.encode(batch)), spectra), spectra)), (
            "compressed spectra"
        )

    @torch.no_grad()
    def log_prob(
        self, x: Tensor, *, label: Label = None, seed: int = 0, progress: Progress | None = None
    ) -> tuple[Tensor, str]:
        """Return log-likelihoods, and whether they are exact, estimates or bounds.

        Args:
            x: signals, (n, *shape).
            label: class by its name or number, or a text; None is unconditional.
            seed: seed of estimates and bounds.
            progress: called with the fraction done.

        Returns:
            Log-likelihoods in nats, (n,), and a description of their kind.

        Raises:
            ConfigError: the prior has no likelihood.
        """
        model, label, generator = self.model, self._resolve(label), Generator().manual_seed(seed)

        def labels(batch: Tensor) -> list[Label] | None:
            return None if label is None else [label] * len(batch)

        if isinstance(model, HasLogProb):
            x, suffix = _prepare(x, model.support, generator)
            return self._map(lambda batch: model.log_prob(batch, labels(batch)), x, progress), f"exact{suffix}"
        if isinstance(model, HasEstimatedLogProb):
            nats = self._map(
                lambda batch: model.estimate_log_prob(batch, labels(batch), generator=generator), x, progress
            )
            return nats, "estimate along the probability flow, 1 probe"
        if not isinstance(model, HasLogProbBound):
            self._refuse("compute likelihoods")
        samples, (x, suffix) = model.bound_samples, _prepare(x, model.support, generator)
        nats = self._map(
            lambda batch: model.log_prob_bound(batch, samples, label=label, generator=generator),
            x,
            progress,
            batch_size=model.bound_batch,
        )
        return nats, f"{model.bound_kind}, {samples} samples{suffix}"

    def typical_statistics(
        self, x: Tensor, *, label: Label = None, seed: int = 0, progress: Progress | None = None
    ) -> TypicalStatistics:
        """Return the statistics of typical examples that `anomaly_scores` compares with.

        Args:
            x: examples such as training data, better 100 or more, (n, *shape).
            label: class by its name or number, or a text; None is unconditional.
            seed: seed of estimates and bounds.
            progress: called with the fraction done.

        Returns:
            Mean and covariance of log-likelihood and complexity.

        Raises:
            ConfigError: the prior has no likelihood, or there are too few examples.
        """
        nats, kind = self.log_prob(x, label=label, seed=seed, progress=progress)
        return typical_statistics(nats, x, f"{len(x)} examples; {kind}")

    def anomaly_scores(self, x: Tensor, nats: Tensor, typical: TypicalStatistics | None = None) -> Tensor:
        """Return how atypical signals are, by their likelihoods and their complexity; see `typicality.anomaly_scores`.

        Args:
            x: signals, (n, *shape).
            nats: their log-likelihoods of `log_prob`, (n,).
            typical: statistics of typical examples; None takes those of the weights.

        Returns:
            Distances in standard deviations, (n,).

        Raises:
            ConfigError: there are no statistics.
        """
        typical = typical or self.card.typical
        if typical is None:
            raise ConfigError(
                f"weights of {self.card.name} hold no statistics of typical examples; give some, such as training data."
            )
        return anomaly_scores(nats, x, typical)

    def bits_per_dim(self, nats: Tensor) -> Tensor:
        """Convert likelihoods of `log_prob` to bits for each entry of the space on which they are defined.

        Densities are taken for 256 levels; discrete and binary distributions have levels of their own.

        Args:
            nats: log-likelihoods in nats, any shape.

        Returns:
            Bits per dimension, of the same shape.

        Raises:
            ConfigError: the prior has no likelihood.
        """
        if not isinstance(self.model, HasLogProb | HasEstimatedLogProb | HasLogProbBound):
            self._refuse("compute likelihoods")
        support = self.model.support
        return bits_per_dim(nats, math.prod(support.shape), 256 if support.values == "continuous" else 1)

    def _latent_prior(self) -> LatentPrior:
        if not isinstance(self.model, LatentPrior):
            raise ConfigError(f"prior {self.card.name} ({self.card.architecture}) has no codec; use another.")
        return self.model


def _prepare(x: Tensor, support: Support, generator: Generator) -> tuple[Tensor, str]:
    """Return signals as a likelihood takes them, and what was done to them and what it is of, for its description.

    Grey pixels are drawn as 0 or 1, with their level as probability, if the likelihood is of binary ones.
    """
    description = f", of {support.description}" if support.description else ""
    if support.values != "binary" or not bool(((x > 0) & (x < 1)).any()):
        return x, description
    return (torch.rand(x.shape, generator=generator) < x.cpu()).to(x), BINARISED + description
