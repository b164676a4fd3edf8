import numpy as np
import pytest
import torch
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from denoise import metrics


def test_psnr_of_a_known_error() -> None:
    x = torch.rand(2, 3, 16, 16)
    error = torch.full_like(x, 0.1)
    error[1] = 0.01
    np.testing.assert_allclose(metrics.psnr(x + error, x), [20.0, 40.0], atol=1e-3)
    np.testing.assert_allclose(metrics.psnr(255 * (x + error), 255 * x, 255.0), [20.0, 40.0], atol=1e-3)


def test_si_sdr_is_torchmetrics() -> None:
    reference, estimate = torch.randn(4, 1000), torch.randn(4, 1000)
    estimate = 3 * (reference + 0.1 * estimate)
    expected = scale_invariant_signal_distortion_ratio(estimate, reference)
    torch.testing.assert_close(metrics.si_sdr(estimate, reference), expected, atol=1e-3, rtol=0)


def test_si_sdr_of_orthogonal_noise() -> None:
    reference, added = torch.zeros(100), torch.zeros(100)
    reference[:50], added[50:] = 1.0, 0.1
    assert float(metrics.si_sdr(reference + added, reference)) == pytest.approx(20.0, abs=1e-3)


def test_ssim_of_the_same_and_of_another_picture() -> None:
    x = torch.rand(2, 3, 32, 32)
    np.testing.assert_allclose(metrics.ssim(x, x), [1.0, 1.0], atol=1e-5)
    assert float(metrics.ssim(torch.rand(2, 3, 32, 32), x).max()) < 0.3


def test_r2_of_the_mean_and_of_the_truth() -> None:
    x = torch.rand(100)
    assert float(metrics.r2(x, x)) == 1.0
    assert float(metrics.r2(x.mean().expand(100), x)) == pytest.approx(0.0, abs=1e-5)


def test_speech_measures_fall_with_noise() -> None:
    t = torch.arange(32_000) / 16_000
    voice = sum(torch.sin(2 * torch.pi * 120 * k * t) / k for k in range(1, 20))
    clean = 0.1 * voice * (torch.sin(2 * torch.pi * 3 * t) > 0)
    noisy = clean + 0.05 * torch.randn(32_000, generator=torch.Generator().manual_seed(0))
    assert metrics.pesq(clean, clean, 16_000) == pytest.approx(4.644, abs=1e-2)
    assert metrics.stoi(clean, clean, 16_000) == pytest.approx(1.0, abs=1e-6)
    assert metrics.pesq(noisy, clean, 16_000) < 3
    assert metrics.stoi(noisy, clean, 16_000) < 0.95
