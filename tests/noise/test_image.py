"""Image noise against its specification: variances, correlations, and the identity without noise."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from denoise import noise
from denoise.noise.camera import _inverse_tone_curve, _linear_to_srgb, _srgb_to_linear, _tone_curve


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(value: float, batch: int = 2, side: int = 256) -> Tensor:
    return torch.full((batch, 3, side, side), value)


def neighbour_correlation(x: Tensor) -> float:
    """Return the correlation of each pixel with the next in its row."""
    a, b = x[..., :-1].flatten(), x[..., 1:].flatten()
    return float(np.corrcoef(a.numpy(), b.numpy())[0, 1])


@pytest.mark.parametrize("intensity", [0.0, 0.1, 0.8])
def test_sensor_noise_variance_is_linear_in_intensity(intensity: float) -> None:
    shot, read = torch.tensor([0.01, 0.0]), torch.tensor([0.02, 0.05])
    added = noise.shot_and_read(flat(intensity), shot, read, seeded()) - intensity
    expected = shot * intensity + read**2
    assert torch.allclose(added.square().mean(dim=(1, 2, 3)), expected, rtol=0.02)
    assert abs(neighbour_correlation(added)) < 0.01


def test_correlated_channels_keep_the_variance() -> None:
    sigma = torch.tensor([0.05, 0.2])
    added = noise.correlated_channels(flat(0.5), sigma, seeded()) - 0.5
    assert torch.allclose(added.square().mean(dim=(1, 2, 3)).sqrt(), sigma, rtol=0.02)
    correlation = np.corrcoef(added[0].flatten(1).numpy())
    assert np.abs(correlation - np.eye(3)).max() > 0.1
    assert abs(neighbour_correlation(added)) < 0.01


@pytest.mark.parametrize("size", [1.0, 1.5, 3.0])
def test_grains_have_the_given_size(size: float) -> None:
    sigma = torch.tensor([0.05, 0.2])
    added = noise.coarse(flat(0.5), sigma, size, seeded()) - 0.5
    assert torch.allclose(added.std(dim=(1, 2, 3)), sigma, rtol=1e-3)
    expected = {1.0: (-0.01, 0.01), 1.5: (0.2, 0.6), 3.0: (0.75, 0.95)}[size]
    assert expected[0] < neighbour_correlation(added) < expected[1]


def test_film_grain_is_strongest_in_mid_tones_and_correlated() -> None:
    sigma = torch.tensor([0.1, 0.1])
    for value in (0.0, 1.0):
        assert torch.equal(noise.film_grain(flat(value), sigma, 1.5, seeded()), flat(value))
    added = noise.film_grain(flat(0.5), sigma, 1.5, seeded()) - 0.5
    assert float(added.std()) == pytest.approx(0.1, rel=0.03)
    assert np.corrcoef(added[0].flatten(1).numpy())[0, 1] == pytest.approx(0.81, abs=0.03)


@given(st.floats(0, 0.5))
def test_the_fraction_of_defective_pixels(fraction: float) -> None:
    out = noise.salt_and_pepper(flat(0.5, 1, 64), torch.tensor([fraction]), seeded())
    assert set(out.unique().tolist()) <= {0.0, 0.5, 1.0}
    for value in (0.0, 1.0):
        assert float((out == value).float().mean()) == pytest.approx(fraction / 2, abs=0.02)


@given(st.integers(2, 20), st.integers(2, 20), st.integers(0, 9))
def test_demosaicking_keeps_samples_and_constant_colours(height: int, width: int, seed: int) -> None:
    x = torch.rand(1, 3, height, width, generator=seeded(seed))
    out = noise.demosaic(x)
    torch.testing.assert_close(out[:, 0, ::2, ::2], x[:, 0, ::2, ::2])
    torch.testing.assert_close(out[:, 2, 1::2, 1::2], x[:, 2, 1::2, 1::2])
    torch.testing.assert_close(out[:, 1, ::2, 1::2], x[:, 1, ::2, 1::2])
    colour = torch.rand(1, 3, 1, 1, generator=seeded(seed)).expand_as(x)
    torch.testing.assert_close(noise.demosaic(colour), colour)


def test_demosaicking_is_linear_interpolation() -> None:
    ramp = (torch.arange(12.0)[:, None] + 3 * torch.arange(14.0)).expand(1, 3, 12, 14)
    torch.testing.assert_close(noise.demosaic(ramp)[..., 1:-1, 1:-1], ramp[..., 1:-1, 1:-1])


@pytest.mark.parametrize(
    ("forward", "inverse"), [(_srgb_to_linear, _linear_to_srgb), (_inverse_tone_curve, _tone_curve)]
)
def test_tone_curves_are_inverted(forward, inverse) -> None:
    x = torch.linspace(0, 1, 1001)
    assert torch.allclose(inverse(forward(x)), x, atol=2e-5)
    assert (forward(x).diff() >= 0).all()


def test_colour_matrices_keep_white() -> None:
    matrix = noise.colour_matrices(50, seeded())
    assert torch.allclose(matrix.sum(dim=2), torch.ones(50, 3), atol=1e-5)
    assert float(torch.linalg.cond(matrix).max()) < 20


@pytest.mark.parametrize("seed", range(4))
def test_sensor_noise_of_zero_is_the_identity(seed: int) -> None:
    x = torch.rand(3, 3, 20, 30, generator=seeded(seed))
    out = noise.sensor(x, torch.zeros(3), torch.zeros(3), seeded(seed))
    assert float((out - x).abs().max()) < 2e-3
    levels = torch.full((3,), 0.01)
    first, second = (noise.sensor(x, levels, levels, seeded(1)) for _ in range(2))
    assert torch.equal(first, second)


def test_sensor_noise_is_correlated_and_depends_on_intensity() -> None:
    shot, read = torch.full((4,), 0.01), torch.full((4,), 0.002)
    deviations = []
    for value in (0.2, 0.5, 0.8):
        added = noise.sensor(flat(value, 4), shot, read, seeded(3)) - value
        assert neighbour_correlation(added) > 0.2
        deviations.append(float(added.std()))
    assert max(deviations) > 1.1 * min(deviations)
    twice = noise.sensor(flat(0.5, 4), 4 * shot, 2 * read, seeded(3)) - 0.5
    assert float(twice.std()) == pytest.approx(2 * deviations[1], rel=0.1)


def test_intensity_dependent_noise_has_its_variance() -> None:
    black, white = torch.tensor([0.02, 0.1]), torch.tensor([0.1, 0.05])
    for value, gamma in ((0.0, 1.0), (0.3, 0.5), (0.3, 2.0), (1.0, 0.5)):
        added = noise.intensity_dependent(flat(value), black, white, gamma, seeded()) - value
        expected = (1 - value**gamma) * black**2 + value**gamma * white**2
        torch.testing.assert_close(added.square().mean(dim=(1, 2, 3)), expected, rtol=0.02, atol=0)
        assert abs(neighbour_correlation(added)) < 0.01


def test_position_dependent_noise_has_its_variance_everywhere() -> None:
    sigma = noise.smooth_field(torch.tensor([0.01]), torch.tensor([0.2]), (64, 96), seeded(2))
    assert sigma.shape == (1, 1, 64, 96)
    assert 0.01 <= float(sigma.min()) < 0.08 < float(sigma.max()) <= 0.2
    assert float(torch.stack([sigma.diff(dim=2).abs().max(), sigma.diff(dim=3).abs().max()]).max()) < 0.02
    added = noise.position_dependent(torch.full((400, 3, 64, 96), 0.5), sigma, seeded()) - 0.5
    measured = torch.nn.functional.avg_pool2d(added.square().mean(dim=(0, 1))[None, None], 8)
    torch.testing.assert_close(
        measured, torch.nn.functional.avg_pool2d(sigma.square(), 8), rtol=0.03, atol=0
    )  # 77 000 samples each


def test_noise_of_an_enlarged_image_has_the_variance_of_interpolation() -> None:
    """Between two pixels, linear interpolation by 2 weights them by 3/4 and 1/4; the variance is 5/8 on each axis."""
    x = torch.rand(1, 3, 256, 256, generator=seeded())
    add_noise = partial(noise.gaussian, sigma=0.1, generator=seeded(1))
    added = noise.resized(x, 0.5, add_noise, "bilinear") - x
    assert float(added.var()) == pytest.approx(0.01 * (5 / 8) ** 2, rel=0.02)
    assert abs(float(added.mean())) < 1e-3
    # (3/4 p + 1/4 q) and (1/4 p + 3/4 q) have the covariance 3/8, (1/4 p + 3/4 q) and (3/4 q + 1/4 r) have 9/16
    assert neighbour_correlation(added) == pytest.approx((3 / 8 + 9 / 16) / 2 / (5 / 8), abs=0.02)


def test_noise_of_a_reduced_image_is_weaker_and_the_scene_is_kept() -> None:
    x = torch.rand(2, 3, 60, 80, generator=seeded())
    assert torch.equal(noise.resized(x, 1.7, lambda before: before), x)
    sizes = []

    def add_noise(before: Tensor) -> Tensor:
        sizes.append(before.shape[2:])
        return noise.gaussian(before, 0.1, seeded(1))

    added = noise.resized(x, 2.0, add_noise) - x
    assert sizes == [(120, 160)]
    assert 0.03 < float(added.std()) < 0.07  # half as strong as before if means of 2 x 2 pixels were taken
