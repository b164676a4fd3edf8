"""Priors over the latents of a codec, combined with the codec into priors over signals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Generator, Tensor

from denoise.priors.flows import Flow, FlowConfig
from denoise.priors.latent_base import LatentPrior, LatentPriorConfig
from denoise.priors.latent_completion import GibbsInpaints, InpaintsLatents, InpaintsNoise
from denoise.priors.latent_densities import Bounded, Denoising, EstimatedLogProb, ExactLogProb
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
    ResidualCodec,
    SamplingOptions,
    StochasticCodec,
    VariationalCodec,
)

__all__ = ["LatentPrior", "LatentPriorConfig", "add_normal_prior", "build_latent_prior"]


def build_latent_prior(codec: Codec, prior: Prior, config: LatentPriorConfig | None = None) -> LatentPrior:
    """Build a prior over signals that implements the protocols which codec and prior allow.

    Args:
        codec: codec of the signals.
        prior: prior over latents of shape ``codec.latent_shape``.
        config: settings that describe both, for saving.

    Returns:
        A `LatentPrior` that is, where possible, a `NoiseDecoder`, `NoiseEncoder`, `HasLogProb`,
        `HasEstimatedLogProb`, `HasLogProbBound`, `HasTrajectory`, `DenoisingPrior`, `LatentEncoder` and `Completer`,
        too.
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
            mixins.append(ExactLogProb)
        if isinstance(prior, HasEstimatedLogProb):
            mixins.append(EstimatedLogProb)
        if isinstance(prior, DenoisingPrior):
            mixins.append(Denoising)
    elif isinstance(codec, VariationalCodec) and isinstance(prior, HasLogProb | HasEstimatedLogProb):
        mixins.append(Bounded)
    if isinstance(codec, ResidualCodec) and isinstance(prior, HasLogProb) and prior.support.values == "continuous":
        mixins.append(_HasLatents)
    if not isinstance(codec, OrthonormalCodec) and isinstance(prior, DenoisingPrior) and len(codec.latent_shape) > 1:
        mixins.append(InpaintsLatents)
    elif _has_posterior_of_noise(codec, prior):
        mixins.append(InpaintsNoise)
    elif isinstance(codec, StochasticCodec):
        mixins.append(GibbsInpaints)
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


class _HasLatents(LatentPrior):
    """`LatentEncoder`: the latents are those of the codec, and the signals are distributed about the decoded ones."""

    codec: ResidualCodec
    prior: HasLogProb

    @property
    def residual_std(self) -> float:
        return self.codec.residual_std

    @property
    def latent_shape(self) -> torch.Size:
        return self.codec.latent_shape

    @torch.no_grad()
    def sample_latents(self, n: int, generator: Generator | None = None) -> Tensor:
        return self.prior.sample(n, generator=generator)

    def latent_log_prob(self, z: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        return self.prior.log_prob(z, labels)

    def decode_latents(self, z: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        return self.codec.decode(z)

    def encode_latents(self, x: Tensor) -> Tensor:
        return self.codec.encode(x)


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
