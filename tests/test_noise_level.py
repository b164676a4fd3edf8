"""The estimate of sigma against known noise, and the variance of clipped noise against samples."""

from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from denoise.noise import gaussian
from denoise.noise_level import clipped_variance, estimate_sigma


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(channels: int, side: int = 300) -> Tensor:
    """Return texture with a 1 / f amplitude spectrum that fades into smooth sky, an edge, correlated channels."""
    frequency = torch.fft.fftfreq(side).square()[:, None] + torch.fft.rfftfreq(side).square()
    amplitude = 1 / frequency.sqrt().clamp_min(1 / side)
    texture = torch.fft.irfft2(torch.fft.rfft2(torch.randn(1 + channels, side, side, generator=seeded())) * amplitude)
    texture = texture / texture.std()
    image = 0.5 + 0.12 * (texture[:1] + 0.2 * texture[1:]) * torch.linspace(-0.4, 1, side).clamp_min(0)[:, None]
    image[:, side // 2 :, : side // 3] *= 0.5
    return image.clamp(0.02, 0.98)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [5.0, 15.0, 25.0, 50.0, 75.0])
def test_white_noise_of_a_textured_scene(channels: int, sigma: float) -> None:
    noisy = gaussian(scene(channels), sigma / 255, seeded(1))
    assert estimate_sigma(noisy.numpy()) * 255 == pytest.approx(sigma, rel=0.04, abs=0.5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sigma", [5.0, 25.0, 50.0, 75.0])
def test_noise_before_clipping(channels: int, sigma: float) -> None:
    noisy = gaussian(scene(channels), sigma / 255, seeded(2))
    stored = (noisy * 255).round().clamp(0, 255).to(torch.uint8)
    assert estimate_sigma(stored.numpy(), 255) == pytest.approx(sigma, rel=0.07, abs=0.5)


@pytest.mark.parametrize("sigma", [5.0, 25.0, 50.0])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_chroma_subsampling_does_not_hide_noise(sigma: float, subsampling: int) -> None:
    """JPEG keeps the noise of the luma and less of that of the chroma."""
    noisy = gaussian(scene(3), sigma / 255, seeded(2))
    stored = Image.fromarray((noisy * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
    stored.save(file := BytesIO(), "JPEG", quality=95, subsampling=subsampling)
    pixels = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    assert estimate_sigma(pixels.numpy(), 255) == pytest.approx(sigma, rel=0.2)


def test_grey_in_three_channels_is_treated_as_grey() -> None:
    noisy = gaussian(scene(1), 0.1, seeded(1))
    stamped = noisy.expand(3, -1, -1).clone()
    assert estimate_sigma(stamped.numpy()) == pytest.approx(estimate_sigma(noisy.numpy()), rel=1e-4)
    stamped[0, :20, :20] = 1
    assert estimate_sigma(stamped.numpy()) == pytest.approx(estimate_sigma(noisy.numpy()), rel=0.05)


def test_hidden_pixels_are_ignored() -> None:
    noisy, visible = gaussian(scene(3), 0.1, seeded(1)), torch.zeros(300, 300, dtype=torch.bool)
    assert estimate_sigma(noisy.numpy(), visible=visible.numpy()) == 0
    visible[::7] = True  # lines of one pixel
    assert estimate_sigma(noisy.numpy(), visible=visible.numpy()) == 0


@pytest.mark.parametrize("offset", [-1.5, 0.6, 1.5])
def test_floats_beyond_full_scale_are_not_taken_for_clipped(offset: float) -> None:
    noisy = gaussian(scene(3), 0.1, seeded())
    assert estimate_sigma(noisy.numpy() + np.float32(offset)) == pytest.approx(0.1, rel=0.05)


def test_the_estimate_has_the_units_of_the_image() -> None:
    noisy = gaussian(scene(3), 0.1, seeded())
    assert estimate_sigma(noisy.numpy() * 65535, 65535) == pytest.approx(
        65535 * estimate_sigma(noisy.numpy()), rel=1e-3
    )


def test_images_without_noise() -> None:
    ramp = torch.linspace(0.1, 0.9, 400).expand(3, 300, 400)
    assert estimate_sigma(ramp.numpy()) == pytest.approx(0, abs=1e-4)
    assert estimate_sigma(np.ones((3, 64, 64), np.float32)) == 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_areas_are_ignored(value: float) -> None:
    """Letterbox bars and an overexposed sky."""
    noisy = gaussian(0.7 * torch.ones(3, 200, 200), 0.06, seeded()).clamp(0, 1)
    noisy[:, :80] = value
    assert estimate_sigma(noisy.numpy()) == pytest.approx(0.06, rel=0.05)
    noisy[2] = value  # one channel everywhere
    assert estimate_sigma(noisy.numpy()) > 0.02


@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
def test_images_of_any_size(channels: int, height: int, width: int) -> None:
    noisy = 0.5 + 0.1 * torch.randn(channels, height, width, generator=seeded())
    estimate = estimate_sigma(noisy.numpy())
    assert 0 <= estimate < 0.2
    if min(height, width) == 1:
        assert estimate == 0


@pytest.mark.parametrize("mean", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("sigma", [0.02, 0.2, 0.5])
def test_clipped_variance_matches_samples(mean: float, sigma: float) -> None:
    samples = (mean + sigma * torch.randn(400_000, generator=seeded(), dtype=torch.float64)).clamp(0, 1)
    expected = float(samples.var()) / sigma**2
    assert float(clipped_variance(np.array(mean), sigma)) == pytest.approx(expected, abs=0.01)
