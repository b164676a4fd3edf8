"""Noise of cameras against closed forms and reference filters."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from denoise import noise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [0.5, 1.0, 2.7])
def test_gaussian_blur_equals_that_of_scipy(size: float) -> None:
    x = torch.rand(1, 2, 24, 31, generator=seeded())
    expected = gaussian_filter(x.numpy(), (0, 0, size, size), mode="mirror", radius=max(1, round(3 * size)))
    np.testing.assert_allclose(noise.gaussian_blur(x, size).numpy(), expected, atol=1e-6)


def test_gaussian_blur_of_small_images() -> None:
    assert torch.equal(noise.gaussian_blur(torch.ones(1, 1, 4, 5), 0.0), torch.ones(1, 1, 4, 5))
    for shape in ((1, 3, 2, 5), (1, 1, 1, 1)):
        torch.testing.assert_close(noise.gaussian_blur(torch.ones(shape), 6.0), torch.ones(shape))


@pytest.mark.parametrize("size", [0.0, 1.5, 4.0])
def test_row_noise_is_constant_in_rows_and_has_its_variance_and_correlation(size: float) -> None:
    sigma = torch.tensor([0.05, 0.2])
    x = torch.rand(2, 3, 20_000, 4, generator=seeded(1))
    offsets = noise.add_row_noise(x, sigma, size, seeded()) - x
    torch.testing.assert_close(offsets, offsets[:, :1, :, :1].expand_as(offsets), atol=1e-6, rtol=0)
    torch.testing.assert_close(offsets.std(dim=(1, 2, 3)), sigma, rtol=0.05, atol=0)
    rows = offsets[0, 0, :, 0]
    correlation = float(np.corrcoef(rows[:-1].numpy(), rows[1:].numpy())[0, 1])
    # a Gaussian of standard deviation s, convolved with itself, is one of s * sqrt(2)
    assert correlation == pytest.approx(math.exp(-1 / (4 * size**2)) if size else 0.0, abs=0.03)


def test_noise_reduction_damps_chroma_and_luma_by_their_transfer_functions() -> None:
    """A sinusoid passes a Gaussian blur by exp(-(2 pi f s)^2 / 2), and is kept in part beside it."""
    frequency = 1 / 8
    wave = torch.cos(2 * torch.pi * frequency * torch.arange(64)).expand(1, 1, 64, 64)
    y = wave.expand(-1, 3, -1, -1)
    chroma = wave * (torch.tensor([1.0, 0.0, -0.299 / 0.114]))[:, None, None]  # without luma
    settings = {"chroma_size": 2.0, "chroma_kept": 0.2, "luma_size": 0.8, "luma_kept": 0.6}

    def gain(size: float, kept: float) -> float:
        return kept + (1 - kept) * math.exp(-((2 * math.pi * frequency * size) ** 2) / 2)

    inner = (..., slice(16, 48), slice(16, 48))
    expected = gain(0.8, 0.6) * y + gain(2.0, 0.2) * chroma
    torch.testing.assert_close(noise.reduce_noise(y + chroma, **settings)[inner], expected[inner], atol=0.02, rtol=0)
    unchanged = noise.reduce_noise(y + chroma, chroma_size=2.0, chroma_kept=1.0)
    torch.testing.assert_close(unchanged, y + chroma, atol=1e-5, rtol=0)


def test_sharpening_keeps_constants_and_amplifies_detail_by_its_transfer_function() -> None:
    torch.testing.assert_close(noise.sharpen(torch.full((1, 3, 9, 9), 0.3), 1.0, 1.0), torch.full((1, 3, 9, 9), 0.3))
    wave = torch.cos(2 * torch.pi / 6 * torch.arange(60)).expand(1, 1, 40, 60)
    gain = 1 + 0.7 * (1 - math.exp(-((2 * math.pi / 6 * 1.2) ** 2) / 2))
    out = noise.sharpen(wave, 0.7, 1.2)
    torch.testing.assert_close(out[..., 12:48], gain * wave[..., 12:48], atol=0.01, rtol=0)


@pytest.mark.parametrize("is_linear", [False, True])
@pytest.mark.parametrize("has_tone_curve", [False, True])
def test_rendering_inverts_to_raw(is_linear: bool, has_tone_curve: bool) -> None:
    x = 0.02 + 0.96 * torch.rand(4, 3, 16, 16, generator=seeded())
    rendering = noise.Rendering(
        noise.colour_matrices(4, seeded(1)), noise.white_balances(4, seeded(2)), has_tone_curve, is_linear
    )
    torch.testing.assert_close(rendering.render(rendering.to_raw(x)), x, atol=2e-4, rtol=0)
    plain = noise.Rendering(torch.eye(3)[None], torch.ones(1, 3), is_linear=True)
    assert torch.equal(plain.to_raw(x), x)
