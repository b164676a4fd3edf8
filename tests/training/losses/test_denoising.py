"""Losses of denoisers against formulas, and by their minima."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from denoise.training.losses.denoising import (
    DENOISING_LOSSES,
    Estimate,
    compressed_distance,
    compressed_spectral,
    log_mse,
    psnr,
)
from denoise.training.recipe import Loss


def estimate(denoised: Tensor, noisy: Tensor, clean: Tensor, path_noise: float = 0.0) -> Estimate:
    return Estimate(denoised, noisy, clean, 16_000, torch.full((len(clean),), path_noise))


def test_compressed_distance_equals_that_of_complex_numbers() -> None:
    a, b = torch.randn(2, 5, 6, 7, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    p, q = (torch.polar(x.abs() ** 0.3, x.angle()) for x in (a, b))
    expected = (p.abs() - q.abs()).square() + 0.4 * (p - q).abs().square()
    torch.testing.assert_close(compressed_distance(a, b, phase=0.4), expected, rtol=1e-4, atol=1e-6)


def test_over_attenuation_counts_small_magnitudes_alone() -> None:
    b = torch.randn(5, 6, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    for factor, is_small in ((0.5, True), (2.0, False)):
        without, weighted = (compressed_distance(factor * b, b, phase=0.4, over_attenuation=w) for w in (0.0, 3.0))
        deficit = ((b.abs() ** 0.3) * (1 - factor**0.3)).square() if is_small else torch.zeros(5, 6)
        torch.testing.assert_close(weighted - without, 3 * deficit, rtol=1e-3, atol=1e-5)


def test_the_floor_of_the_waveform_term_decides_how_small_errors_count() -> None:
    clean = 0.1 * torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0))

    def gain_of_20_db(floor_db: float) -> float:
        """Decrease of the loss from an error of -40 dB to one of -60 dB, by the waveform alone."""
        settings = [Loss(waveform=w, waveform_floor_db=floor_db) for w in (1.0, 0.0)]
        large, small = (
            [float(compressed_spectral(estimate((1 + error) * clean, clean, clean), s)) for s in settings]
            for error in (1e-2, 1e-3)
        )
        return (large[0] - large[1]) - (small[0] - small[1])

    assert gain_of_20_db(-80.0) == pytest.approx(2.0, abs=0.1)
    assert gain_of_20_db(-30.0) < 0.1


def test_estimates_with_path_noise_have_a_squared_error_alone() -> None:
    """For a signal and its negative, the best constant estimate under a squared error is their mean, zero."""
    generator = torch.Generator().manual_seed(0)
    signal = 0.1 * torch.randn(1, 1, 8000, generator=generator)
    clean = torch.cat([signal, -signal])

    def loss(amplitude: float, path_noise: float) -> float:
        denoised = amplitude * signal.expand(2, -1, -1)
        return float(compressed_spectral(estimate(denoised, clean, clean, path_noise), Loss(waveform=0.1)))

    for path_noise in (0.1, 0.5, 1.0):
        others = (loss(0.05, path_noise), loss(0.5, path_noise), loss(1.0, path_noise))
        assert loss(0.0, path_noise) < min(others)
    assert loss(0.5, 0.0) < loss(0.0, 0.0)  # the loss of the posterior mean includes magnitudes
    assert loss(1.0, 0.5) == pytest.approx(loss(1.0, 1.0) * (1 + 0.04) / (0.25 + 0.04), rel=1e-3)


@pytest.mark.parametrize(
    ("modality", "shape", "perceptual"),
    [("image", (2, 3, 16, 16), 0.0), ("audio", (2, 1, 8000), 0.0), ("audio", (2, 2, 8000), 0.1)],
)
def test_the_clean_signal_has_the_least_loss(modality: str, shape: tuple[int, ...], perceptual: float) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(shape, generator=generator) - 0.5
    noisy = clean + 0.1 * torch.randn(shape, generator=generator)
    for function in DENOISING_LOSSES[modality].values():
        exact, half, none = (
            float(function(estimate(x, noisy, clean), Loss(perceptual=perceptual)))
            for x in (clean, 0.5 * (clean + noisy), noisy)
        )
        assert exact < half < none


def test_psnr_weights_examples_equally_at_any_noise_and_easy_ones_less() -> None:
    """One decibel has the same loss at sigma 10 and 50; in patches that are easy for their noise it has less."""

    def loss_of_a_decibel(decibels: float, sigma: float) -> float:
        """Increase of the loss by 1 dB, from an error in decibels above that of photographs with such noise."""
        clean, typical = torch.zeros(1, 3, 8, 8), 0.0075 * sigma / 255
        noisy = clean + sigma / 255
        estimates = [torch.full_like(clean, (typical * 10 ** (d / 10)) ** 0.5) for d in (decibels, decibels + 1)]
        better, worse = (float(psnr(estimate(x, noisy, clean), Loss())) for x in estimates)
        return worse - better

    assert loss_of_a_decibel(0, 10) == pytest.approx(loss_of_a_decibel(0, 50), rel=0.1)
    assert loss_of_a_decibel(-12, 25) < 0.2 * loss_of_a_decibel(6, 25)


def test_log_mse_is_its_closed_form() -> None:
    """Errors of a constant: MSE 1e-4 at an rms of the noise of 0.1, and 0 without noise."""
    clean = torch.zeros(2, 3, 8, 8)
    noisy, denoised = clean.clone(), clean.clone()
    noisy[0], denoised[0] = 0.1, 0.01
    expected = 0.1 * (math.log10(1e-4 + 0.002 * 0.1 + 2e-6) + math.log10(2e-6)) / 2
    assert float(log_mse(estimate(denoised, noisy, clean), Loss())) == pytest.approx(expected, rel=1e-5)


def test_log_mse_counts_errors_of_weak_noise_more_than_psnr() -> None:
    clean = torch.zeros(1, 3, 8, 8)
    noisy = clean + 2 / 255
    halved = [estimate(torch.full_like(clean, error), noisy, clean) for error in (0.002, 0.001)]
    gain, gain_of_psnr = (float(f(halved[0], Loss()) - f(halved[1], Loss())) for f in (log_mse, psnr))
    assert gain > 2 * gain_of_psnr > 0
