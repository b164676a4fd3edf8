"""What differs between trainings: the loss of one batch, and the numbers reported beside it.

Every objective takes the module, not what wraps it for a device or for several processes: the loop wraps both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from denoise.dsp import stft
from denoise.metrics import mse, r2, si_sdr
from denoise.protocols import Denoiser, Draw, FlowNetwork, StreamingNetwork, VariationalNetwork
from denoise.training import generative
from denoise.training.data import Batch
from denoise.training.generative import Latents
from denoise.training.perceptual import HEARING_S, disturbance
from denoise.training.recipe import Loss, Recipe

NATS = 5 * math.log(10)  # in the unit of the losses of denoisers
USUAL = 0.0075  # the MSE of denoised photographs, by the rms of their noise: 34, 31 and 28 dB at 15, 25 and 50
PHASE = 0.4  # weight of complex spectra beside their magnitudes
LEAST = 0.04  # keeps 1 / t^2 below 25
Metrics = Callable[[], dict[str, Tensor]]  # worked out for the rows of a log only
Objective = Callable[[Any, Batch, Loss], tuple[Tensor, Metrics]]


def as_denoiser(module: Any, batch: Batch, draw: Draw | None = None) -> Denoiser:
    """The network as a function of the signal alone: told the batch's sample rate and sigma if it needs them."""
    known: dict[str, Any] = {"sample_rate": batch.sample_rate} if isinstance(module, StreamingNetwork) else {}
    known |= {"draw": draw} if draw and isinstance(module, VariationalNetwork) and module.variational else {}
    return partial(module, **known | ({} if module.blind else {"sigma": batch.sigma}))


def image_denoising(module: Any, batch: Batch, settings: Loss) -> tuple[Tensor, Metrics]:
    """Mean over the examples of a tenth of the logarithm of their MSE: their PSNR, but for sign and unit.

    Reports MSE, PSNR and R^2.

    So examples count the same, whatever their noise, but for those with far less error than is usual with so much:
    a patch of plain sky is no picture but part of one, whose PSNR hangs on its other parts. It is the likelihood of
    a normal distribution about the answer, as wide as fits the example and not much narrower than usual, per entry
    and in units of ``NATS``; in these a variational network pays ``settings.beta`` times for what its latents tell.

    Shape:
        batch: noisy and clean are (batch, channels, height, width).
    Reference:
        HINet: Half Instance Normalization Network for Image Restoration, 2021, arXiv:2105.06086 (PSNR loss);
        Simple and Effective VAE Training with Calibrated Decoders, 2020, arXiv:2006.13202 (the width).
    """
    latents = Latents(settings.free_bits)
    out, clean = as_denoiser(module, batch, latents)(batch.noisy).float(), batch.clean
    errors = (out - clean).square().mean(dim=(1, 2, 3))
    error = errors.mean().detach()

    def metrics() -> dict[str, Tensor]:
        return {"mse": error, "psnr": -10 * torch.log10(error), "r2": r2(out.detach(), clean)}

    noise = (batch.noisy - clean).square().mean(dim=(1, 2, 3)).sqrt()
    usual = 1e-5 + USUAL * noise
    return _paid(0.1 * torch.log10(errors + usual).mean(), metrics, latents, batch, settings)


def _paid(loss: Tensor, metrics: Metrics, latents: Latents, batch: Batch, settings: Loss) -> tuple[Tensor, Metrics]:
    """With what the latents of a variational network cost."""
    if not latents.nats.requires_grad:
        return loss, metrics
    told = latents.nats / batch.clean[0].numel()
    return loss + settings.beta * told / NATS, lambda: metrics() | {"kl": told.detach()}


def audio_denoising(module: Any, batch: Batch, settings: Loss) -> tuple[Tensor, Metrics]:
    """Compressed spectra at three resolutions plus the waveform; reports MSE, R^2 and the gain in SI-SDR.

    All examples are brought to one level first, or the loud ones would be all that is learnt. What a listener
    would hear of the rest is added with the weight ``settings.perceptual``. On the way to a draw, with noise added, a
    flow pays for the squared error of the compressed complex spectra alone: its ODE wants the posterior mean, and a
    loss of magnitudes would fill with noise what may have been speech. The weight is about that of errors in velocity.

    Shape:
        batch: noisy and clean are (batch, channels, time).
    Reference:
        A Consolidated View of Loss Functions for Supervised Deep Learning-based Speech Enhancement,
        2020, arXiv:2009.12286; Parallel WaveGAN, 2019, arXiv:1910.11480 (several resolutions);
        Flow Matching for Generative Modeling, 2022, arXiv:2210.02747 (the weight 1/t^2 of data prediction).
    """
    latents = Latents(settings.free_bits)
    added = batch.noisy.new_zeros(len(batch.noisy))
    if isinstance(module, FlowNetwork):
        out, added = module.on_the_way(batch.noisy, batch.clean, sample_rate=batch.sample_rate or 16_000)
    else:
        out = as_denoiser(module, batch, latents)(batch.noisy)
    with torch.autocast(out.device.type, enabled=False):  # what is heard is not judged in bfloat16
        return _paid(*_audio_loss(out.float(), added, batch, settings), latents, batch, settings)


def _audio_loss(out: Tensor, added: Tensor, batch: Batch, settings: Loss) -> tuple[Tensor, Metrics]:
    """``added``, (batch,), is how much noise of its own, 0 to 1, was in what a flow was shown."""
    noisy, clean, rate = batch.noisy, batch.clean, batch.sample_rate or 16_000
    # that of the speech; noise far louder, or in short bursts, does not make errors small
    rms = [x.square().mean(dim=(1, 2), keepdim=True).sqrt() for x in (noisy, clean)]
    level = torch.maximum(rms[1], rms[0] / 4).clamp_min(1e-5) * 10
    whole = (added == 0).float()  # not on the way
    weights = whole, torch.where(added > 0, 1 / (added.square() + LEAST), PHASE)
    magnitude, phase = (w[:, None, None, None] for w in weights)
    loss = torch.zeros((), device=out.device)
    for seconds in (0.016, 0.032, 0.064):
        hop = round(seconds / 2 * rate)
        a, b = (_spectrum(x / level, hop) for x in (out, clean))
        # what lies above the band of speech is heard, but there is much of it
        hz = torch.arange(a.shape[-2], device=a.device) / (2 * hop) * rate
        weight = torch.where(hz <= 8000, 1.0, 0.25)[:, None] * len(hz) / (hz <= 8000).sum()
        loss = loss + (weight * compressed_distance(a, b, phase, magnitude)).mean()
        if settings.perceptual and seconds == HEARING_S:
            symmetric, asymmetric = (d.view(len(a), -1) for d in disturbance(a.flatten(0, 1), b.flatten(0, 1)))
            loss = loss + settings.perceptual * (whole[:, None] * (0.1 * symmetric + 0.0309 * asymmetric)).mean()
    # The ratio of error to speech in decibels, soft at both ends so that no single clip rules the batch.
    energy = clean.square().sum(dim=(1, 2)) + 1e-4 * level[:, 0, 0].square() * clean[0].numel()
    ratio = (out - clean).square().sum(dim=(1, 2)) / energy
    loss = loss + settings.waveform * (whole * torch.log10(ratio + 1e-3)).mean()

    @torch.no_grad()
    def metrics() -> dict[str, Tensor]:
        gain = si_sdr(out, clean) - si_sdr(noisy, clean)
        heard = torch.isfinite(gain) & (noisy != clean).flatten(1).any(dim=1, keepdim=True)
        return {
            "mse": mse(out, clean),
            "r2": r2(out, clean),
            "si_sdr_gain": gain[heard].clamp(-30, 30).sum() / heard.sum().clamp_min(1),
        }

    return loss, metrics


def compressed_distance(
    a: Tensor, b: Tensor, phase: float | Tensor, magnitude: float | Tensor = 1.0, exponent: float = 0.3
) -> Tensor:
    """magnitude * (|a|^e - |b|^e)^2 + phase * |a |a|^(e-1) - b |b|^(e-1)|^2, in real numbers: half the time.

    Shape:
        a, b: complex, any; returns the same shape, real.
    """
    logs = [(x.real.square() + x.imag.square() + 1e-8).log() for x in (a, b)]
    m, n = (torch.exp(exponent / 2 * x) for x in logs)
    aligned = (a.real * b.real + a.imag * b.imag) * torch.exp((exponent - 1) / 2 * (logs[0] + logs[1]))
    return (magnitude + phase) * (m.square() + n.square()) - 2 * magnitude * m * n - 2 * phase * aligned


def _spectrum(x: Tensor, hop: int) -> Tensor:
    """The spectrum of frames of two hops, scaled alike at any rate."""
    return stft(x[..., : x.shape[-1] // hop * hop], 2 * hop, hop) * (128 / hop) ** 0.5


def reconstruction(module: Any, batch: Batch, settings: Loss) -> tuple[Tensor, Metrics]:
    """Of a plain autoencoder; reports MSE and R^2."""
    return generative.reconstruction(module, batch.clean), lambda: _fidelity(module, batch.clean)


def elbo(module: Any, batch: Batch, settings: Loss) -> tuple[Tensor, Metrics]:
    """Of a latent prior with a variational codec, both learning; reports nats per signal, MSE and R^2."""
    s, x = settings, batch.clean
    labels = batch.labels if module.classes else None
    nats = generative.negative_elbo(
        module, x, labels, estimator=s.estimator, samples=s.samples, beta=s.beta, free_bits=s.free_bits
    )
    return nats / x[0].numel(), lambda: {"nats": nats.detach(), **_fidelity(module.codec, x)}


def adversarial(module: Any, batch: Batch, settings: Loss) -> tuple[Tensor, Metrics]:
    """Of a latent prior with an adversarial codec; reports the critic's right answers, MSE and R^2."""
    loss, accuracy = generative.adversarial(module, batch.clean, settings.adversarial)
    return loss, lambda: {"critic": accuracy.detach(), **_fidelity(module.codec, batch.clean)}


def of_a_prior(loss: Callable[..., Tensor]) -> Objective:
    """Of a prior over signals, or over the latents of a codec that learns no more."""

    def objective(module: Any, batch: Batch, settings: Loss) -> tuple[Tensor, Metrics]:
        x = batch.clean
        if not hasattr(module, "codec"):
            return loss(module, x, batch.labels), dict
        with torch.no_grad():
            z = module.codec.encode(x).float()  # rounded ones would hide noise of small sigmas
        return loss(module.prior, z, batch.labels), lambda: {"latent_std": z.std()}

    return objective


@torch.no_grad()
def _fidelity(codec: Any, x: Tensor) -> dict[str, Tensor]:
    if hasattr(codec, "spectrum"):  # of what it keeps: to find a phase takes longer than to learn
        codec, x = codec.codec, codec.spectrum(x)
    out = codec(x).float()
    return {"mse": mse(out, x), "r2": r2(out, x)}


OBJECTIVES: dict[str, Objective] = {
    "image": image_denoising,
    "audio": audio_denoising,
    "reconstruction": reconstruction,
    "elbo": elbo,
    "adversarial": adversarial,
    "diffusion": of_a_prior(generative.denoising_score_matching),
    "flow-matching": of_a_prior(generative.flow_matching),
    "likelihood": of_a_prior(generative.negative_log_likelihood),
}


def objective_of(recipe: Recipe) -> Objective:
    """The objective that a recipe names; denoising differs between images and audio."""
    return OBJECTIVES[recipe.modality if recipe.objective == "denoising" else recipe.objective]
