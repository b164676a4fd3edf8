"""Completion by latent priors whose codec changes densities: of latents, of noise, or by the codec alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from denoise.priors.completion import COMPLETION_OPTIONS, inpaint_with_prior
from denoise.priors.latent_base import LatentPrior
from denoise.probability_path import expand_like, standard_normal, standard_uniform
from denoise.protocols import (
    DEFAULT_OPTIONS,
    DenoisingPrior,
    Label,
    LikelihoodCodec,
    NoiseDecoder,
    Progress,
    SamplingOptions,
    StochasticCodec,
)
from denoise.sampling.inpainting import coarse_mask, elliptical_slice, gibbs_inpaint

CANDIDATES = 200  # initial noise of a completion is resampled from so many


class InpaintsLatents(LatentPrior):
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
        """Fill in missing entries; see `denoise.protocols.Completer.complete`."""
        z = self.codec.encode(torch.where(mask > 0, x, 0))  # missing entries have any value, NaN too
        z_mask = coarse_mask(mask.amin(dim=1, keepdim=True), tuple(z.shape[2:])).expand_as(z)
        z = inpaint_with_prior(
            self.prior, z, z_mask, label=label, options=options, generator=generator, progress=progress
        )
        return torch.where(mask > 0, x, self.codec.decode(z))


class InpaintsNoise(LatentPrior):
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
        """Fill in missing entries; see `denoise.protocols.Completer.complete`."""
        options.check_supported(self.completion_options, "inpainting of noise")
        is_observed = mask > 0
        known = torch.where(is_observed, x, 0)  # missing entries have any value, NaN too

        def log_likelihood(noise: Tensor) -> Tensor:
            pixels: Any = self.codec.likelihood(self.prior.decode_noise(noise, label=label))
            nats = torch.where(is_observed, pixels.base_dist.log_prob(known), 0)
            return nats.flatten(1).sum(dim=1)  # entries are independent given latents

        def sample_noise() -> Tensor:
            return standard_normal((len(x), *self.prior.noise_shape), generator).to(x)

        start, best = sample_noise(), torch.full((len(x),), -torch.inf, device=x.device, dtype=torch.float32)
        for i in range(CANDIDATES):  # the largest of log-likelihoods with Gumbel noise: resampling by likelihood
            noise = sample_noise()
            u = standard_uniform((len(x),), generator).clamp(1e-12, 1 - 1e-7).to(x)
            keys = log_likelihood(noise) - torch.log(-torch.log(u))
            start = torch.where(expand_like(keys > best, noise) > 0, noise, start)
            best = torch.maximum(keys, best)
            if progress:
                progress(0.5 * (i + 1) / CANDIDATES)
        second_half = (lambda fraction: progress(0.5 + 0.5 * fraction)) if progress else None
        noise = elliptical_slice(log_likelihood, start, generator=generator, progress=second_half)
        return torch.where(is_observed, x, self.codec.decode(self.prior.decode_noise(noise, label=label)))


class GibbsInpaints(LatentPrior):
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
        """Fill in missing entries; see `denoise.protocols.Completer.complete`."""
        options.check_supported(self.completion_options, "Gibbs inpainting")
        start = self.sample(len(x), label=label, generator=generator)
        return gibbs_inpaint(self.codec, x, mask, start=start, generator=generator, progress=progress)
