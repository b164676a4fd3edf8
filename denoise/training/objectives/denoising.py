"""Denoisers: networks that estimate the clean signal of a noisy one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from denoise.metrics import mse, r2, si_sdr
from denoise.nn.streaming import DEFAULT_RATE
from denoise.noise import generator_for
from denoise.protocols import Denoiser, FlowNetwork, LatentSampler, Network, NoiseProfileNetwork, StreamingNetwork
from denoise.training.data import Batch, ImagePatches, Source
from denoise.training.image_recipe import Degradations
from denoise.training.losses.denoising import DENOISING_LOSSES, NATS, Estimate
from denoise.training.losses.generative import KLSampler
from denoise.training.mixes import AudioMixes
from denoise.training.objectives.base import LossObjective, Metrics
from denoise.training.recipe import Recipe
from denoise.training.samples import write_denoised


class Denoising(LossObjective):
    """Train a `denoise.protocols.Network` by the loss that ``loss.name`` names, on photographs or speech.

    Variational networks are trained with sampled latents, and their loss includes ``loss.beta`` times the
    Kullback-Leibler divergence. Flows are trained at random points of their paths.

    Args:
        recipe: recipe with ``[image]`` or ``[audio]`` data.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        losses = DENOISING_LOSSES[recipe.modality]
        name = recipe.loss.name or next(iter(losses))
        self.require(
            name in losses, f"loss.name is {name!r}; expected {' or '.join(map(repr, losses))} for {recipe.modality}."
        )
        self.denoising_loss = losses[name]

    def validate(self, module: Any) -> None:
        """Check data, channels and sigma conditioning.

        Args:
            module: network.

        Raises:
            ConfigError: they do not fit.
        """
        recipe = self.recipe
        self.require(
            isinstance(module, Network), f"{recipe.architecture} is no denoiser; fix objective or architecture."
        )
        if recipe.modality == "audio":
            self.require(recipe.audio is not None, "no [audio] section; add it.")
            assert recipe.audio is not None
            self.require(bool(recipe.audio.noise), "audio.noise names no folder; denoisers need speech and noise.")
            self.require(
                module.channels == recipe.audio.channels,
                f"the network takes {module.channels} channels, audio.channels is {recipe.audio.channels}; make them "
                "equal.",
            )
        else:
            self.require(recipe.image is not None, "no [image] section; add it.")
            assert recipe.image is not None
            self.require(
                module.blind or module.sigma_maps > 1 or recipe.image.degrade == Degradations(),
                "the network takes sigma, which the noise of image.degrade does not have; leave one out, or set "
                "model.sigma_maps.",
            )

    def open_data(self, root: Path, module: Any) -> Source:
        """Load speech and noise, or photographs with the channels of the network.

        Args:
            root: folder that the paths of the recipe are relative to.
            module: network.

        Raises:
            ConfigError: there are none, or photographs do not have such channels.
        """
        if self.recipe.audio and self.recipe.modality == "audio":
            return AudioMixes(self.recipe.audio, root)
        assert self.recipe.image is not None
        return ImagePatches(self.recipe.image, root, module.channels, module.sigma_maps > 1)

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return the loss of a batch; metrics are MSE, R^2, and PSNR or the gain in SI-SDR.

        Args:
            module: network.
            batch: noisy and clean signals.
        """
        settings = self.recipe.loss
        sampler = KLSampler(settings.free_bits)
        estimate = estimate_batch(module, batch, sampler)
        with torch.autocast(estimate.denoised.device.type, enabled=False):  # losses need more than 8 bits
            loss = self.denoising_loss(estimate, settings)
        measure = image_metrics if self.recipe.modality == "image" else audio_metrics
        if not sampler.nats.requires_grad:
            return loss, partial(measure, estimate)
        nats = sampler.nats / batch.clean[0].numel()
        return loss + settings.beta * nats / NATS, lambda: measure(estimate) | {"kl": nats.detach()}

    def write_samples(self, out: Path, step: int, shipped: Any, source: Source) -> None:
        """Write noisy, denoised and clean examples.

        Args:
            out: folder of the training.
            step: number of the step.
            shipped: network.
            source: training data.
        """
        batch = source.batch(4, generator_for(self.recipe.schedule.seed, -1 % (1 << 31)))
        device = next(shipped.parameters()).device
        moved = batch.map(lambda x: x.to(device))
        write_denoised(out, step, batch, as_denoiser(shipped, moved)(moved.noisy).cpu())


def as_denoiser(network: Any, batch: Batch, sample_latent: LatentSampler | None = None) -> Denoiser:
    """Return a network as a function of the signal alone.

    Args:
        network: network, to which the sample rate and sigma of the batch are passed if it takes them.
        batch: batch that the function is for.
        sample_latent: sampler of the latents of variational networks.
    """
    denoiser = network
    if isinstance(network, StreamingNetwork):
        denoiser = partial(denoiser, sample_rate=batch.sample_rate)
    if isinstance(network, NoiseProfileNetwork) and batch.noise is not None:
        profile = network.measure_noise(batch.noise, sample_rate=batch.sample_rate or DEFAULT_RATE)
        denoiser = partial(denoiser, noise_profile=profile)
    if sample_latent is not None and network.variational:
        denoiser = partial(denoiser, sample_latent=sample_latent)
    return denoiser if network.blind else partial(denoiser, sigma=batch.sigma)


def estimate_batch(network: Any, batch: Batch, sample_latent: LatentSampler | None = None) -> Estimate:
    """Return the estimates that a network is trained by.

    Args:
        network: network; of a flow, the estimates at random points of its paths.
        batch: noisy and clean signals.
        sample_latent: sampler of the latents of variational networks.
    """
    path_noise = batch.noisy.new_zeros(len(batch.noisy))
    if isinstance(network, FlowNetwork):
        sample_rate = batch.sample_rate or 16_000
        denoised, path_noise = network.training_pair(batch.noisy, batch.clean, sample_rate=sample_rate)
    else:
        denoised = as_denoiser(network, batch, sample_latent)(batch.noisy)
    return Estimate(denoised.float(), batch.noisy, batch.clean, batch.sample_rate, path_noise)


@torch.no_grad()
def image_metrics(estimate: Estimate) -> dict[str, Tensor]:
    """Return MSE, PSNR (dB) and R^2 of a batch.

    Args:
        estimate: estimates of images, (B, C, H, W).
    """
    denoised, clean = estimate.denoised, estimate.clean
    error = (denoised - clean).square().mean(dim=(1, 2, 3)).mean()
    return {"mse": error, "psnr": -10 * torch.log10(error), "r2": r2(denoised, clean)}


@torch.no_grad()
def audio_metrics(estimate: Estimate) -> dict[str, Tensor]:
    """Return MSE, R^2 and the gain in SI-SDR (dB) of a batch, the latter without examples that have no noise.

    Args:
        estimate: estimates of audio, (B, C, time).
    """
    denoised, noisy, clean = estimate.denoised, estimate.noisy, estimate.clean
    gain = si_sdr(denoised, clean) - si_sdr(noisy, clean)
    measured = torch.isfinite(gain) & (noisy != clean).flatten(1).any(dim=1, keepdim=True)
    return {
        "mse": mse(denoised, clean),
        "r2": r2(denoised, clean),
        "si_sdr_gain": gain[measured].clamp(-30, 30).sum() / measured.sum().clamp_min(1),
    }
