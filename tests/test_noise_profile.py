"""Noise profiles: maps against interpolation, and estimates with exact posterior means."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from denoise.noise_profile import (
    Denoise,
    NoiseProfile,
    _correlated_noise,
    coarse_part,
    estimate_noise_profile,
    local_mean,
)
from denoise.random_numbers import TorchRandom

Array = NDArray[Any]
N_PATCHES, SIDE = 9, 64
PROFILE = NoiseProfile(
    np.array([[0.1, 0.3, 0.8], [0.2, 0.5, 0.6]], np.float32),
    np.array([[0.01, 0.03, 0.02], [0.05, 0.01, 0.04], [0.02, 0.05, 0.02], [0.06, 0.01, 0.08]], np.float32),
)


def normal(shape: tuple[int, ...], seed: int = 0) -> Array:
    return TorchRandom(seed).normal(shape)


def uniform(*shape: int) -> Array:
    return np.random.default_rng(0).random(shape, np.float32)


class TestFilters:
    def test_coarse_part_of_white_noise_is_as_strong(self) -> None:
        noise = normal((4, 3, 200, 200))
        assert float(coarse_part(noise).std()) == pytest.approx(1, rel=0.01)

    def test_coarse_part_doubles_constants(self) -> None:
        assert (coarse_part(np.full((1, 2, 5, 6), 0.25)) == 0.5).all()

    def test_coarse_part_is_the_sum_of_four_pixels_by_two(self) -> None:
        x = uniform(1, 1, 4, 5)
        assert float(coarse_part(x)[0, 0, 1, 2]) == pytest.approx(float(x[0, 0, 1:3, 2:4].sum()) / 2)
        assert coarse_part(x).shape == x.shape

    @pytest.mark.parametrize("side", [1, 3, 7])
    @pytest.mark.parametrize("shape", [(9, 8), (1, 1), (1, 20), (3, 2)])
    def test_local_mean_has_fewer_pixels_at_borders(self, side: int, shape: tuple[int, int]) -> None:
        x = uniform(1, 1, *shape).astype(np.float64)
        y = local_mean(x, side)
        for i, j in ((0, 0), (shape[0] // 2, shape[1] // 2), (shape[0] - 1, shape[1] - 1)):
            rows, columns = (slice(max(0, k - side // 2), k + side // 2 + 1) for k in (i, j))
            assert float(y[0, 0, i, j]) == pytest.approx(float(x[0, 0, rows, columns].mean()))

    @pytest.mark.parametrize("ratios", [(1.0, 1.0, 1.0), (1.1, 1.3, 1.6), (1.9, 1.0, 1.5)])
    def test_correlated_noise_has_the_ratio_of_each_channel(self, ratios: tuple[float, ...]) -> None:
        noise = _correlated_noise((12, 3, 128, 128), np.array(ratios), TorchRandom(0))
        assert noise.shape == (12, 3, 128, 128)
        fine, coarse = noise.std(axis=(0, 2, 3)), coarse_part(noise).std(axis=(0, 2, 3))
        np.testing.assert_allclose(fine, 1, rtol=0.03)
        np.testing.assert_allclose(coarse / fine, ratios, rtol=0.02)
        correlation = np.corrcoef(np.swapaxes(noise, 0, 1).reshape(3, -1))
        assert np.abs(correlation - np.eye(3)).max() < 0.05  # channels are independent

    @pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 3)])
    def test_correlated_noise_of_any_size(self, shape: tuple[int, int]) -> None:
        assert _correlated_noise((2, 3, *shape), np.full(3, 1.5), TorchRandom(0)).shape == (2, 3, *shape)


class TestProfile:
    def test_maps_of_constant_images_interpolate_sigma(self) -> None:
        for values in ((0.0, 0.0), (0.1, 0.5), (0.2, 0.3), (0.6, 0.55), (1.2, 0.7)):
            x = np.broadcast_to(np.array(values, np.float32)[:, None, None], (2, 2, 12, 15))
            maps = PROFILE.maps(x)
            assert maps.shape == (2, 4, 12, 15)
            for i, sigma in enumerate(PROFILE.sigma):
                level = PROFILE.levels[i % 2]
                expected = np.interp(values[i % 2], level, sigma)
                np.testing.assert_allclose(maps[:, i], expected, atol=5e-4)

    def test_the_first_of_equal_levels_counts(self) -> None:
        """Quantiles of intensities are equal where areas are black or white."""
        sigma = np.array([[0.01, 0.02, 0.03, 0.05], [0.02, 0.04, 0.06, 0.08]], np.float32)
        profile = NoiseProfile(np.array([[0, 0, 0, 1]], np.float32), sigma)
        maps = profile.maps(np.zeros((1, 1, 4, 5), np.float32))
        assert [float(maps[0, i, 2, 2]) for i in (0, 1)] == pytest.approx([0.01, 0.02], rel=1e-3)

    def test_maps_follow_the_intensity_of_the_surroundings(self) -> None:
        """A single pixel, as noise is, changes them little."""
        x = np.full((1, 2, 40, 80), 0.1, np.float32)
        x[..., 40:] = 0.8
        maps = PROFILE.maps(x)
        assert np.unique(maps[0, 0, :, :30]) == pytest.approx(0.01, rel=1e-3)
        assert np.unique(maps[0, 0, :, 50:]) == pytest.approx(0.02, rel=1e-3)
        spot = x.copy()
        spot[..., 20, 20] = 0.3
        assert np.abs(PROFILE.maps(spot) - maps)[0, 0].max() < 0.002

    def test_uniform_profile(self) -> None:
        profile = NoiseProfile.uniform(0.1, 3)
        assert profile.channels == 3
        assert profile.mean_sigma == pytest.approx(0.1)
        maps = profile.maps(uniform(2, 3, 4, 5))
        assert maps.shape == (2, 6, 4, 5)
        assert (maps == np.float32(0.1)).all()

    def test_mean_sigma_is_that_of_single_pixels(self) -> None:
        assert PROFILE.mean_sigma == pytest.approx(float(np.sqrt(np.square(PROFILE.sigma[:2]).mean())))

    @pytest.mark.parametrize("unit", [0.01, 0.5, 255.0, 1e5])
    def test_laws_of_units_and_scale(self, unit: float) -> None:
        x = uniform(1, 2, 9, 11)
        maps = PROFILE.maps(x)
        np.testing.assert_allclose(PROFILE.in_units(unit).maps(x / unit), maps / unit, rtol=1e-3, atol=5e-4 / unit)
        np.testing.assert_allclose(PROFILE.scale(unit).maps(x), unit * maps, rtol=1e-4, atol=1e-9 * unit)
        assert PROFILE.in_units(unit).in_units(1 / unit).mean_sigma == pytest.approx(PROFILE.mean_sigma)

    def test_clamp(self) -> None:
        clamped = PROFILE.clamp(0.03)
        assert float(clamped.sigma.max()) == pytest.approx(0.03)
        assert (clamped.sigma == PROFILE.sigma.clip(max=0.03)).all()
        assert (clamped.levels == PROFILE.levels).all()


def scene(channels: int = 3, texture: float = 0.1) -> tuple[Array, Array]:
    """Return the mean of a Gaussian prior, a ramp, and its deviation: none above, ``texture`` below."""
    shape = (N_PATCHES, channels, SIDE, SIDE)
    deviation = np.zeros(shape, np.float32)
    deviation[:, :, SIDE // 2 :] = texture
    return np.broadcast_to(np.linspace(0.2, 0.8, SIDE, dtype=np.float32), shape), deviation


def sample_scene(mean: Array, deviation: Array) -> Array:
    return mean + deviation * normal(mean.shape, 1)


def posterior_mean(mean: Array, deviation: Array) -> Denoise:
    """Return the denoiser of pixels that are independent Gaussians, for white noise."""

    def denoise(x: Array, maps: Array) -> Array:
        mean_of_batch, variance = mean[: len(x)], np.square(deviation[: len(x)])
        noise_variance = np.square(maps[:, : x.shape[1]])
        return mean_of_batch + variance / (variance + noise_variance + 1e-20) * (x - mean_of_batch)

    return denoise


class TestEstimates:
    """The denoiser is an exact posterior mean, given the noise that it is told."""

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("sigma", [2.0, 10.0, 50.0])
    @pytest.mark.parametrize("first", [(1.1, 1.1), (3.0, 1.5), (1.2, 2.0)])
    def test_white_noise(self, channels: int, sigma: float, first: tuple[float, float]) -> None:
        """From first estimates that structure makes too high."""
        prior = scene(channels)
        noisy = sample_scene(*prior) + sigma / 255 * normal(prior[0].shape, 2)
        profile = estimate_noise_profile(noisy, posterior_mean(*prior), *(f * sigma / 255 for f in first))
        assert 255 * profile.mean_sigma == pytest.approx(sigma, rel=0.03)
        assert 255 * profile.sigma == pytest.approx(sigma, rel=0.15)
        assert (np.diff(profile.levels) > 0).all()

    def test_first_estimates_that_agree_count(self) -> None:
        """Of white noise they are the same at both scales, so that the result is between them and the residual."""
        prior = scene()
        noisy = sample_scene(*prior) + 10 / 255 * normal(prior[0].shape, 2)
        agree, differ = (
            estimate_noise_profile(noisy, posterior_mean(*prior), 16 / 255, coarse / 255) for coarse in (16, 20)
        )
        assert 255 * differ.mean_sigma == pytest.approx(10, rel=0.03)
        assert 11 < 255 * agree.mean_sigma < 15
        np.testing.assert_allclose(agree.sigma / agree.mean_sigma, differ.sigma / differ.mean_sigma, rtol=0.1)

    def test_noise_of_each_channel(self) -> None:
        prior = scene()
        sigma = np.array([8, 10, 12], np.float32)[:, None, None] / 255
        noisy = sample_scene(*prior) + sigma * normal(prior[0].shape, 2)
        profile = estimate_noise_profile(noisy, posterior_mean(*prior), 11 / 255, 11 / 255)
        means = 255 * np.sqrt(np.square(profile.sigma).mean(axis=1))
        np.testing.assert_allclose(means, [8, 10, 12, 8, 10, 12], rtol=0.08)

    @pytest.mark.parametrize("texture", [0.0, 0.1])
    def test_noise_that_depends_on_the_intensity(self, texture: float) -> None:
        prior = scene(texture=texture)
        power = (4 / 255) ** 2 + (16 / 255) ** 2 * prior[0]
        noisy = sample_scene(*prior) + np.sqrt(power) * normal(prior[0].shape, 2)
        first = float(np.sqrt(power.mean()))
        profile = estimate_noise_profile(noisy, posterior_mean(*prior), first, first)
        expected = np.sqrt((4 / 255) ** 2 + (16 / 255) ** 2 * profile.levels)
        np.testing.assert_allclose(profile.sigma[:3], expected, rtol=0.08)
        np.testing.assert_allclose(profile.sigma[3:], expected, rtol=0.2)

    @pytest.mark.parametrize("ratio", [1.3, 1.6, 1.8])
    def test_correlated_noise(self, ratio: float) -> None:
        prior = scene(texture=0)
        noisy = prior[0] + 10 / 255 * _correlated_noise(prior[0].shape, np.full(3, ratio), TorchRandom(2))
        profile = estimate_noise_profile(noisy, posterior_mean(*prior), 5 / 255, ratio * 10 / 255)
        fine, coarse = 255 * np.sqrt(np.square(profile.sigma).reshape(2, -1).mean(axis=1))
        assert float(fine) == pytest.approx(10, rel=0.05)
        assert float(coarse / fine) == pytest.approx(ratio, rel=0.05)

    def test_probes_are_correlated_as_the_noise_of_their_channel(self) -> None:
        """As after demosaicking, where green is finer than red and blue."""
        prior, ratios = scene(texture=0), np.array([1.7, 1.2, 1.5])
        noisy = prior[0] + 10 / 255 * _correlated_noise(prior[0].shape, ratios, TorchRandom(2))
        exact, seen = posterior_mean(*prior), []

        def denoise(x: Array, maps: Array) -> Array:
            seen.append(x)
            return exact(x, maps)

        estimate_noise_profile(noisy, denoise, 5 / 255, 15 / 255)
        probe = seen[-1] - seen[-2]
        measured = coarse_part(probe).std(axis=(0, 2, 3)) / probe.std(axis=(0, 2, 3))
        np.testing.assert_allclose(measured, ratios, rtol=0.05)

    def test_structure_that_the_denoiser_explains_is_no_noise(self) -> None:
        prior = scene()
        clean = sample_scene(*prior)
        known = posterior_mean(clean, np.zeros_like(clean))
        for first in (5.0, 30.0):
            assert 255 * estimate_noise_profile(clean, known, first / 255, first / 255).mean_sigma < 0.01
        keep = posterior_mean(clean, np.full_like(clean, 1e3))
        assert 255 * estimate_noise_profile(clean, keep, 10 / 255, 14 / 255).mean_sigma < 0.5

    def test_structure_beside_noise_is_not_added_to_it(self) -> None:
        """Bars of black and white, whose first estimate is many times the noise."""
        line = (0.2 + 0.6 * (np.arange(SIDE) // 4 % 2)).astype(np.float32)
        bars = np.broadcast_to(line, (N_PATCHES, 3, SIDE, SIDE))
        noisy = bars + 5 / 255 * normal(bars.shape, 2)
        profile = estimate_noise_profile(noisy, posterior_mean(bars, np.zeros_like(bars)), 40 / 255, 90 / 255)
        assert 255 * profile.mean_sigma == pytest.approx(5, rel=0.05)

    def test_peaks_of_the_histogram_bound_the_estimate(self) -> None:
        """A denoiser that takes all structure for noise finds no more than the peaks allow."""
        checkers = np.where(uniform(N_PATCHES, 1, SIDE, SIDE) > 0.5, np.float32(0.75), np.float32(0.25))
        noisy = checkers + 5 / 255 * normal(checkers.shape, 2)
        blind = posterior_mean(np.full_like(noisy, 0.5), np.zeros_like(noisy))
        assert 255 * estimate_noise_profile(noisy, blind, 60 / 255, 60 / 255).mean_sigma == pytest.approx(5, rel=0.3)

    def test_estimates_are_repeatable(self) -> None:
        prior = scene(1)
        noisy = sample_scene(*prior) + 0.04 * normal(prior[0].shape, 2)
        a, b = (estimate_noise_profile(noisy, posterior_mean(*prior), 0.05, 0.06) for _ in range(2))
        np.testing.assert_array_equal(a.sigma, b.sigma)
        np.testing.assert_array_equal(a.levels, b.levels)

    @pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 1, 40), (2, 1, 40, 1), (1, 3, 2, 2), (3, 1, 17, 33)])
    def test_patches_of_any_size(self, shape: tuple[int, ...]) -> None:
        x = 0.5 + 0.05 * normal(shape)
        mean = np.full(shape, 0.5, np.float32)
        profile = estimate_noise_profile(x, posterior_mean(mean, np.zeros(shape, np.float32)), 0.05, 0.05)
        assert profile.sigma.shape[0] == 2 * shape[1]
        assert np.isfinite(profile.sigma).all()
        assert profile.mean_sigma < 0.2
