"""Densities of latent priors: those of the latents of an orthonormal codec, and bounds of variational ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from denoise.priors.completion import COMPLETION_OPTIONS, inpaint_with_prior
from denoise.priors.latent_base import LatentPrior
from denoise.probability_path import standard_normal
from denoise.protocols import (
    DEFAULT_OPTIONS,
    DenoisingPrior,
    HasEstimatedLogProb,
    HasLogProb,
    Label,
    OrthonormalCodec,
    Progress,
    SamplingOptions,
    Support,
    VariationalCodec,
)


class _SignalSupport(LatentPrior):
    """Densities of signals: an orthonormal codec does not change them."""

    codec: OrthonormalCodec

    @property
    def support(self) -> Support:
        return Support(tuple(self.event_shape))


class ExactLogProb(_SignalSupport):
    """`HasLogProb`."""

    prior: HasLogProb

    def log_prob(self, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return log-likelihoods in nats, (batch, *event_shape) to (batch,)."""
        return self.prior.log_prob(self.codec.encode(x), labels)


class EstimatedLogProb(_SignalSupport):
    """`HasEstimatedLogProb`."""

    prior: HasEstimatedLogProb

    @property
    def estimate_kind(self) -> str:
        """Name of the estimate."""
        return self.prior.estimate_kind

    def estimate_log_prob(
        self, x: Tensor, labels: Sequence[Label] | None = None, *, generator: Generator | None = None
    ) -> Tensor:
        """Return estimated log-likelihoods in nats, (batch, *event_shape) to (batch,)."""
        return self.prior.estimate_log_prob(self.codec.encode(x), labels, generator=generator)


class Denoising(LatentPrior):
    """`DenoisingPrior` and `Completer`: an orthonormal codec preserves white noise."""

    codec: OrthonormalCodec
    prior: DenoisingPrior
    completion_options = COMPLETION_OPTIONS

    @property
    def data_mean(self) -> float:
        """Mean of the signals."""
        return self.prior.data_mean

    @property
    def data_std(self) -> float:
        """Standard deviation of the signals."""
        return self.prior.data_std

    def forward(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return E[clean | x], see `denoise.protocols.DenoisingPrior`."""
        return self.codec.decode(self.prior(self.codec.encode(x), sigma, labels))

    def score(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the gradient of the log-density of noisy signals."""
        return self.codec.decode(self.prior.score(self.codec.encode(x), sigma, labels))

    def complete(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Fill in missing entries by RePaint; see `denoise.priors.completion.inpaint_with_prior`."""
        return inpaint_with_prior(
            self,
            x,
            mask,
            label=label,
            options=options,
            resamplings=2,
            order=2,
            generator=generator,
            progress=progress,
        )


class Bounded(LatentPrior):
    """`HasLogProbBound`: the importance-weighted bound of a variational autoencoder.

    With a prior whose density is estimated it is the evidence lower bound: exponentials of noisy estimates are too
    large on average, so that the importance-weighted one would be no bound.
    """

    codec: VariationalCodec
    prior: HasLogProb | HasEstimatedLogProb

    @property
    def bound_kind(self) -> str:
        """Name of the bound."""
        return "importance-weighted bound" if isinstance(self.prior, HasLogProb) else "estimated bound"

    @property
    def support(self) -> Support:
        """Space of the signals, or of the spectra of a spectral codec."""
        return self.codec.support

    @property
    def bound_samples(self) -> int:
        """Number of posterior samples for each signal."""
        return 500 if isinstance(self.prior, HasLogProb) else 5  # each estimate is the solution of an ODE

    @property
    def bound_batch(self) -> int:
        """Number of signals at a time."""
        return 64 if isinstance(self.prior, HasLogProb) else 4

    def log_weights(
        self, x: Tensor, samples: int = 1, *, label: Label = None, generator: Generator | None = None
    ) -> Tensor:
        """Return log p(x|z) + log p(z) - log q(z|x) of samples z of q(z|x); the mean is the evidence lower bound.

        Args:
            x: signals, (batch, *event_shape).
            samples: number of samples z for each signal.
            label: condition of all signals.
            generator: source of the noise.

        Returns:
            Log-weights in nats, (samples, batch).

        Reference:
            Auto-Encoding Variational Bayes, 2013, arXiv:1312.6114, eq. 6.
        """
        q = self.codec.posterior(x)
        noise = standard_normal((samples, *q.loc.shape), generator).to(q.loc)
        z = q.loc + q.scale * noise
        log_q = (-0.5 * noise.square() - q.scale.log() - 0.5 * math.log(2 * math.pi)).flatten(2).sum(dim=2)
        z = z.flatten(0, 1)
        log_likelihood = self.codec.likelihood(z).log_prob(x.expand(samples, *x.shape).flatten(0, 1))
        labels = None if label is None else [label] * len(z)
        if isinstance(self.prior, HasLogProb):
            log_prior = self.prior.log_prob(z, labels)
        else:
            log_prior = self.prior.estimate_log_prob(z, labels, generator=generator)
        return (log_likelihood + log_prior).unflatten(0, (samples, -1)) - log_q

    @torch.no_grad()
    def log_prob_bound(
        self,
        x: Tensor,
        samples: int,
        *,
        label: Label = None,
        generator: Generator | None = None,
        batch: int = 100,
    ) -> Tensor:
        """Return a lower bound of log p(x), tighter with more samples, or an unbiased estimate of one.

        Args:
            x: signals, (batch, *event_shape).
            samples: number of posterior samples for each signal.
            label: condition of all signals.
            generator: source of the noise.
            batch: number of samples for each signal that are computed at a time.

        Returns:
            Lower bounds in nats, (batch,).

        Reference:
            Importance Weighted Autoencoders, 2015, arXiv:1509.00519, eq. 8; Auto-Encoding Variational Bayes, 2013,
            arXiv:1312.6114, eq. 6 (the estimated bound).
        """
        sizes = [min(batch, samples - start) for start in range(0, samples, batch)]
        log_weights = torch.cat([self.log_weights(x, size, label=label, generator=generator) for size in sizes])
        if isinstance(self.prior, HasLogProb):
            return log_weights.logsumexp(dim=0) - math.log(samples)
        return log_weights.mean(dim=0)
