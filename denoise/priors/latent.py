"""Priors over the latents of a codec, combined with the codec into priors over signals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Generator, Tensor, nn

from denoise.config import config
from denoise.priors.completion import COMPLETION_OPTIONS, inpaint_with_prior
from denoise.priors.flows import Flow, FlowConfig
from denoise.probability_path import expand_like
from denoise.protocols import (
    DEFAULT_OPTIONS,
    Codec,
    DenoisingPrior,
    HasEstimatedLogProb,
    HasLogProb,
    HasTrajectory,
    Label,
    LikelihoodCodec,
    NoiseDecoder,
    NoiseEncoder,
    OrthonormalCodec,
    Prior,
    Progress,
    SamplingOptions,
    StochasticCodec,
    Support,
    VariationalCodec,
)
from denoise.sampling.posterior import coarse_mask, elliptical_slice, gibbs_inpaint

CANDIDATES = 200  # initial noise of a completion is resampled from so many


@config
class LatentPriorConfig:
    """Settings of the submodules.

    Args:
        codec: ``architecture`` of the codec and its settings.
        prior: ``architecture`` of the prior over its latents and its settings.
    """

    codec: dict[str, Any]
    prior: dict[str, Any]


class LatentPrior(nn.Module):
    """A codec and a prior over its latents, as a prior over signals.

    `build_latent_prior` builds a subclass with the capabilities that follow from those of codec and prior.

    Args:
        codec: codec of the signals.
        prior: prior over latents of shape ``codec.latent_shape``.
        config: settings that describe both, for saving.
    """

    codec: Any  # a `denoise.protocols.Codec`; subclasses state which
    prior: Any  # a `denoise.protocols.Prior`; subclasses state which

    def __init__(self, codec: Codec, prior: Prior, config: LatentPriorConfig | None = None) -> None:
        super().__init__()
        self.codec, self.prior, self.config = codec, prior, config
        self.event_shape = codec.event_shape
        self.classes, self.text = prior.classes, prior.text
        self.sampling_options = prior.sampling_options

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        """Sample latents and decode them.

        Args:
            n: number of signals.
            label: condition of all signals.
            options: options of the prior over latents.
            generator: source of the noise.

        Returns:
            Signals, (n, *event_shape).
        """
        return self.codec.decode(self.prior.sample(n, label=label, options=options, generator=generator))


def build_latent_prior(codec: Codec, prior: Prior, config: LatentPriorConfig | None = None) -> LatentPrior:
    """Build a prior over signals that implements the protocols which codec and prior allow.

    Args:
        codec: codec of the signals.
        prior: prior over latents of shape ``codec.latent_shape``.
        config: settings that describe both, for saving.

    Returns:
        A `LatentPrior` that is, where possible, a `NoiseDecoder`, `NoiseEncoder`, `HasLogProb`,
        `HasEstimatedLogProb`, `HasLogProbBound`, `HasTrajectory`, `DenoisingPrior` and `Completer`, too.
    """
    mixins: list[type[LatentPrior]] = []
    if isinstance(prior, NoiseEncoder):
        mixins.append(_EncodesNoise)
    elif isinstance(prior, NoiseDecoder):
        mixins.append(_DecodesNoise)
    if isinstance(prior, HasTrajectory):
        mixins.append(_DecodesTrajectory)
    if isinstance(codec, OrthonormalCodec):
        if isinstance(prior, HasLogProb):
            mixins.append(_ExactLogProb)
        if isinstance(prior, HasEstimatedLogProb):
            mixins.append(_EstimatedLogProb)
        if isinstance(prior, DenoisingPrior):
            mixins.append(_Denoising)
    elif isinstance(codec, VariationalCodec) and isinstance(prior, HasLogProb | HasEstimatedLogProb):
        mixins.append(_Bounded)
    if not isinstance(codec, OrthonormalCodec) and isinstance(prior, DenoisingPrior) and len(codec.latent_shape) > 1:
        mixins.append(_InpaintsLatents)
    elif _has_posterior_of_noise(codec, prior):
        mixins.append(_InpaintsNoise)
    elif isinstance(codec, StochasticCodec):
        mixins.append(_GibbsInpaints)
    return _compose(tuple(mixins))(codec, prior, config)


def add_normal_prior(codec: Codec) -> LatentPrior:
    """Return a codec with a standard normal prior over its latents: the prior of a VAE, and a guess for other codecs.

    Args:
        codec: codec of the signals.
    """
    return build_latent_prior(codec, Flow(FlowConfig(tuple(codec.latent_shape), "normal")))


def _has_posterior_of_noise(codec: Codec, prior: Prior) -> bool:
    """Whether signals are likely or not given noise, and the codec's encoder is no approximation of its posterior."""
    is_likelihood_of_signals = isinstance(codec, LikelihoodCodec) and not codec.support.description
    return is_likelihood_of_signals and isinstance(prior, NoiseDecoder) and not isinstance(codec, VariationalCodec)


@cache
def _compose(mixins: tuple[type[LatentPrior], ...]) -> type[LatentPrior]:
    return type("LatentPrior", (*mixins, LatentPrior), {"__module__": __name__, "__doc__": LatentPrior.__doc__})


class _DecodesNoise(LatentPrior):
    """`NoiseDecoder`: the noise of the latents is the noise of the signals."""

    prior: NoiseDecoder

    @property
    def noise_shape(self) -> torch.Size:
        return self.prior.noise_shape

    @torch.no_grad()
    def decode_noise(self, noise: Tensor, *, label: Label = None, options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        return self.codec.decode(self.prior.decode_noise(noise, label=label, options=options))


class _EncodesNoise(_DecodesNoise):
    """`NoiseEncoder`: up to the error of the codec's reconstruction."""

    prior: NoiseEncoder

    @torch.no_grad()
    def encode_noise(self, x: Tensor, *, label: Label = None) -> Tensor:
        return self.prior.encode_noise(self.codec.encode(x), label=label)


class _DecodesTrajectory(LatentPrior):
    """`HasTrajectory`: noisy latents are decoded as clean ones."""

    prior: HasTrajectory

    @torch.no_grad()
    def trajectory(
        self,
        n: int,
        *,
        frames: int = 17,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        latents = self.prior.trajectory(n, frames=frames, label=label, options=options, generator=generator)
        return torch.stack([self.codec.decode(z) for z in latents])


class _SignalSupport(LatentPrior):
    """Densities of signals: an orthonormal codec does not change them."""

    codec: OrthonormalCodec

    @property
    def support(self) -> Support:
        return Support(tuple(self.event_shape))


class _ExactLogProb(_SignalSupport):
    """`HasLogProb`."""

    prior: HasLogProb

    def log_prob(self, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        return self.prior.log_prob(self.codec.encode(x), labels)


class _EstimatedLogProb(_SignalSupport):
    """`HasEstimatedLogProb`."""

    prior: HasEstimatedLogProb

    def estimate_log_prob(
        self, x: Tensor, labels: Sequence[Label] | None = None, *, generator: Generator | None = None
    ) -> Tensor:
        return self.prior.estimate_log_prob(self.codec.encode(x), labels, generator=generator)


class _Denoising(LatentPrior):
    """`DenoisingPrior` and `Completer`: an orthonormal codec preserves white noise."""

    codec: OrthonormalCodec
    prior: DenoisingPrior
    completion_options = COMPLETION_OPTIONS

    @property
    def data_mean(self) -> float:
        return self.prior.data_mean

    @property
    def data_std(self) -> float:
        return self.prior.data_std

    def forward(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        return self.codec.decode(self.prior(self.codec.encode(x), sigma, labels))

    def score(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
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


class _Bounded(LatentPrior):
    """`HasLogProbBound`: the importance-weighted bound of a variational autoencoder."""

    codec: VariationalCodec
    prior: HasLogProb | HasEstimatedLogProb
    bound_kind = "importance-weighted bound"

    @property
    def support(self) -> Support:
        return self.codec.support

    @property
    def bound_samples(self) -> int:
        return 500 if isinstance(self.prior, HasLogProb) else 5  # each estimate is the solution of an ODE

    @property
    def bound_batch(self) -> int:
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
        noise = torch.randn(samples, *q.loc.shape, generator=generator).to(q.loc)
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
        """Return a lower bound of log p(x), tighter with more samples.

        Args:
            x: signals, (batch, *event_shape).
            samples: number of posterior samples for each signal.
            label: condition of all signals.
            generator: source of the noise.
            batch: number of samples for each signal that are computed at a time.

        Returns:
            Lower bounds in nats, (batch,).

        Reference:
            Importance Weighted Autoencoders, 2015, arXiv:1509.00519, eq. 8.
        """
        sizes = [min(batch, samples - start) for start in range(0, samples, batch)]
        log_weights = [self.log_weights(x, size, label=label, generator=generator) for size in sizes]
        return torch.cat(log_weights).logsumexp(dim=0) - math.log(samples)


class _InpaintsLatents(LatentPrior):
    """`Completer` by RePaint of spatial latents, observed where all of their entries are."""

    prior: DenoisingPrior
    completion_options = COMPLETION_OPTIONS

    @torch.no_grad()
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
        z = self.codec.encode(torch.where(mask > 0, x, 0))  # missing entries have any value, NaN too
        z_mask = coarse_mask(mask[:, :1], tuple(z.shape[2:])).expand_as(z)
        z = inpaint_with_prior(
            self.prior, z, z_mask, label=label, options=options, generator=generator, progress=progress
        )
        return torch.where(mask > 0, x, self.codec.decode(z))


class _InpaintsNoise(LatentPrior):
    """`Completer` by the posterior of the prior's noise, given the observed entries.

    The encoder of an adversarial or plain autoencoder is trained to reconstruct, not to be a posterior: repeated
    encoding and decoding would end in one signal that it reproduces well. So it is left out: each completion starts at
    noise that is resampled from candidates by their likelihoods, and moves by elliptical slice sampling.
    """

    codec: LikelihoodCodec
    prior: NoiseDecoder
    completion_options: frozenset[str] = frozenset()

    @torch.no_grad()
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
        options.check_supported(self.completion_options, "inpainting of noise")
        is_observed = mask > 0
        known = torch.where(is_observed, x, 0)  # missing entries have any value, NaN too

        def log_likelihood(noise: Tensor) -> Tensor:
            pixels: Any = self.codec.likelihood(self.prior.decode_noise(noise, label=label))
            nats = torch.where(is_observed, pixels.base_dist.log_prob(known), 0)
            return nats.flatten(1).sum(dim=1)  # entries are independent given latents

        def sample_noise() -> Tensor:
            return torch.randn(len(x), *self.prior.noise_shape, generator=generator).to(x)

        start, best = sample_noise(), torch.full((len(x),), -torch.inf, device=x.device)
        for _ in range(CANDIDATES):  # the largest of log-likelihoods with Gumbel noise: resampling by likelihood
            noise = sample_noise()
            u = torch.rand(len(x), generator=generator).clamp(1e-12, 1 - 1e-7).to(x)
            keys = log_likelihood(noise) - torch.log(-torch.log(u))
            start = torch.where(expand_like(keys > best, noise) > 0, noise, start)
            best = torch.maximum(keys, best)
        noise = elliptical_slice(log_likelihood, start, generator=generator)
        return torch.where(is_observed, x, self.codec.decode(self.prior.decode_noise(noise, label=label)))


class _GibbsInpaints(LatentPrior):
    """`Completer` by pseudo-Gibbs sampling with the codec."""

    codec: StochasticCodec
    completion_options: frozenset[str] = frozenset()

    @torch.no_grad()
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
        options.check_supported(self.completion_options, "Gibbs inpainting")
        start = self.sample(len(x), label=label, generator=generator)
        return gibbs_inpaint(self.codec, x, mask, start=start, generator=generator)
