"""The perceptual distance against PESQ, and its gradients."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from denoise.dsp import resample, stft
from denoise.files.audio import read_audio
from denoise.metrics import pesq
from denoise.noise import colour, scale_to_snr
from denoise.training.losses.pesq import disturbance

SAMPLES = Path(__file__).parents[3] / "samples"


@pytest.fixture(scope="module")
def speech() -> Tensor:
    """Two seconds at 48 kHz, (1, time)."""
    return torch.from_numpy(read_audio(SAMPLES / "speech.clean.wav").samples)[:, 24_000:120_000].float()


def distances(estimate: Tensor, clean: Tensor, rate: int) -> Tensor:
    """Symmetric and asymmetric disturbance of signals, (batch, time) to (2, batch)."""
    hop = rate * 16 // 1000
    return torch.stack(
        disturbance(*(stft(x[..., : x.shape[-1] // hop * hop], 2 * hop, hop) for x in (estimate, clean)))
    )


def test_the_score_agrees_with_pesq(speech: Tensor) -> None:
    clean = resample(speech, 48_000, 16_000)
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for exponent, snr, gate in product((0.0, 1.0, 2.0), (0.0, 5.0, 10.0, 20.0, 30.0), (False, True)):
        noise = colour(torch.randn(clean.shape, generator=generator), exponent, 16_000)
        x = clean + scale_to_snr(clean, noise, snr)
        if gate:  # spectral holes, as denoisers cause them
            spectrum = stft(x[:, : x.shape[1] // 256 * 256], 512, 256)
            spectrum = torch.where(spectrum.abs() > spectrum.abs().median(), spectrum, 0.1 * spectrum)
            x = torch.istft(spectrum, 512, 256, window=torch.hann_window(512).sqrt(), length=x.shape[1])
        symmetric, asymmetric = distances(x, clean, 16_000)[:, 0]
        raw = 4.5 - 0.1 * float(symmetric) - 0.0309 * float(asymmetric)
        pairs.append((pesq(x[0], clean[0], 16_000), 0.999 + 4 / (1 + np.exp(3.8224 - 1.3669 * raw))))
    true, ours = np.array(pairs).T
    assert np.corrcoef(true, ours)[0, 1] > 0.97
    assert np.abs(true - ours).mean() < 0.25


def test_disturbance_depends_on_noise_not_on_level_and_sample_rate(speech: Tensor) -> None:
    noise = torch.randn(speech.shape, generator=torch.Generator().manual_seed(1))
    noisy = [speech + scale_to_snr(speech, noise, snr) for snr in (30.0, 10.0)]
    batch = distances(torch.cat([speech, *noisy]), speech.expand(3, -1), 48_000)
    assert (batch[:, 0] < 1e-2).all()
    assert (batch.diff(dim=1) > 0.5).all()
    torch.testing.assert_close(distances(1e-3 * noisy[1], 1e-3 * speech, 48_000)[:, 0], batch[:, 2], rtol=1e-3, atol=0)
    low = (resample(x, 48_000, 16_000) for x in (noisy[1], speech))
    torch.testing.assert_close(distances(*low, 16_000)[:, 0], batch[:, 2], rtol=0.05, atol=0)


@pytest.mark.parametrize("kind", ["equal", "zero-estimate", "zero-clean", "short"])
def test_gradients_are_finite(speech: Tensor, kind: str) -> None:
    clean = speech[:, :4800].clone() if kind == "short" else speech.clone()
    x = clean.clone()
    if kind == "zero-estimate":
        x *= 0
    if kind == "zero-clean":
        clean *= 0
    x.requires_grad_()
    distances(x, clean, 48_000).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
