"""The bound of the noise by its theorem: no peak of a histogram of noisy values is narrower than the noise."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from denoise.noise_bound import N_BINS, look_up, noise_bound

N = 40_000  # values: the standard deviation of a bound is then below 3 %
LEVEL = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(levels: list[float], weights: list[float], sigma: float, seed: int = 0) -> NDArray[Any]:
    """Draw clean values from a discrete distribution, and add noise."""
    generator = seeded(seed)
    clean = torch.tensor(levels)[torch.multinomial(torch.tensor(weights), N, replacement=True, generator=generator)]
    return (clean + sigma * torch.randn(N, generator=generator)).numpy()


@settings(derandomize=True)  # of 40,000 random values the law holds in all but one of ten thousand draws
@given(
    st.lists(st.tuples(LEVEL, st.floats(0.02, 1)), min_size=1, max_size=6),
    st.sampled_from([2, 3, 5, 10, 20, 40]),
    st.sampled_from(["float", "clipped", "8 bits"]),
    st.integers(0, 100),
)
def test_noise_is_never_above_the_bound(
    clean: list[tuple[float, float]], sigma: float, storage: str, seed: int
) -> None:
    levels, weights = ([pair[i] for pair in clean] for i in (0, 1))
    noisy = mixture(levels, weights, sigma / 255, seed)
    if storage != "float":
        noisy = noisy.clip(0, 1)
    if storage == "8 bits":
        noisy = np.rint(255 * noisy) / np.float32(255)
    bound = look_up(noise_bound(noisy), noisy)
    assert 255 * float(bound.min()) >= 0.8 * sigma


@pytest.mark.parametrize("sigma", [2, 5, 10, 20])
@pytest.mark.parametrize("levels", [(0.3, 0.7), (0.2, 0.9), (0.25, 0.8)])
def test_bound_of_two_separate_levels_is_tight(levels: tuple[float, float], sigma: float) -> None:
    noisy = mixture(list(levels), [0.8, 0.2], sigma / 255)
    bound = noise_bound(noisy)
    for level in levels:
        assert 255 * float(bound[round(255 * level)]) == pytest.approx(sigma, rel=0.3)


def test_bound_of_clean_drawings_is_about_a_rounding_error() -> None:
    for levels in ([40.0], [128.0, 128.0], [40.0, 235.0], [20.0, 90.0, 170.0, 250.0]):
        values = (torch.tensor(levels)[torch.randint(len(levels), (N,), generator=seeded())] / 255).numpy()
        assert 255 * float(look_up(noise_bound(values), values).max()) <= 0.4


def test_black_and_white_alone_have_no_noise() -> None:
    values = (torch.rand(N, generator=seeded()) < 0.3).float().numpy()
    assert 255 * float(look_up(noise_bound(values), values).max()) <= 0.4


def smooth_values(kind: str) -> NDArray[Any]:
    if kind == "ramp":
        return np.linspace(0, 1, N, dtype=np.float32)
    if kind == "uniform":
        return torch.rand(N, generator=seeded()).numpy()
    return (0.5 + 0.25 * torch.randn(N, generator=seeded())).numpy()


@pytest.mark.parametrize("kind", ["ramp", "uniform", "broad"])
def test_smooth_histograms_have_no_bound(kind: str) -> None:
    """That of a normal distribution is its own standard deviation."""
    bound = noise_bound(smooth_values(kind))
    assert (bound >= 0.8 * 0.25).all() if kind == "broad" else np.isinf(bound).all()


@pytest.mark.parametrize("low", [-0.3, 0.0])
@pytest.mark.parametrize("high", [1.0, 1.3])
def test_clipping_is_not_mistaken_for_a_peak(low: float, high: float) -> None:
    """Up to a third of the pixels are black or white."""
    values = (low + (high - low) * torch.rand(N, generator=seeded())).clamp(0, 1).numpy()
    assert np.isinf(noise_bound(values)[1:-1]).all()


@pytest.mark.parametrize("sigma", [5.0, 20.0])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_noise_on_black_or_white_paper_is_not_underestimated(level: float, sigma: float) -> None:
    noisy = (level + sigma / 255 * torch.randn(N, generator=seeded())).clamp(0, 1).numpy()
    assert 255 * float(look_up(noise_bound(noisy), noisy).min()) >= 0.9 * sigma


@pytest.mark.parametrize("is_white", [False, True])
@pytest.mark.parametrize("is_demosaicked", [False, True])
@pytest.mark.parametrize("sigma", [0.02, 0.05])
def test_noise_in_black_that_the_curve_of_srgb_spreads_is_no_flat_black(
    sigma: float, is_demosaicked: bool, is_white: bool
) -> None:
    """Half of the pixels are black, and hardly any beside."""
    light = sigma * torch.randn(12, 96, 96, generator=seeded())
    if is_demosaicked:  # bilinear, of one pixel in two by two
        light = torch.nn.functional.interpolate(light[None, :, ::2, ::2], size=(96, 96), mode="bilinear")[0]
    light = light.clamp(0, 1)
    srgb = torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=1e-9) ** (1 / 2.4) - 0.055)
    noisy = ((255 * (1 - srgb if is_white else srgb)).round() / 255).numpy()
    assert (noisy == int(is_white)).mean() > 0.4
    assert float(noise_bound(noisy)[-1 if is_white else 0]) >= 0.9 * float(srgb.std())


@pytest.mark.parametrize("black", [0.0, 1.0])
@pytest.mark.parametrize("module", [1, 2, 3, 5])
def test_random_codes_on_grey_paper_have_no_noise(module: int, black: float) -> None:
    modules = torch.rand(12, 96 // module, 96 // module, generator=seeded()) < 0.5
    values = np.kron(np.where(modules, black, 0.6), np.ones((module, module)))
    assert 255 * float(look_up(noise_bound(values), values).max()) <= 0.4


def test_black_cells_among_shaded_ones_have_no_noise() -> None:
    """No neighbours are of one level but the black ones."""
    rows, columns = np.mgrid[:96, :96]
    is_black = np.kron(torch.rand(12, 24, 24, generator=seeded()).numpy() < 0.5, np.ones((4, 4), bool))
    values = np.where(is_black, 0, 60 + (3 * rows + 5 * columns) % 150) / 255
    assert 255 * float(noise_bound(values)[0]) <= 0.4


def test_values_beyond_black_and_white_have_no_bound() -> None:
    bound = np.arange(N_BINS, dtype=np.float32)
    values = np.array([[-3.0, 0.0], [100.4 / 255, 7.0]])
    assert look_up(bound, values).tolist() == [[float("inf"), 0], [100, float("inf")]]


@pytest.mark.parametrize("shape", [(1,), (1, 1), (3, 1, 1)])
def test_a_few_values_have_no_bound_or_a_high_one(shape: tuple[int, ...]) -> None:
    bound = noise_bound(torch.rand(shape, generator=seeded()).numpy())
    assert bound.shape == (N_BINS,)
    assert not np.isnan(bound).any()


@settings(derandomize=True)
@given(
    st.floats(0.6, 3.0),
    st.sampled_from([3, 5, 10, 20]),
    st.lists(st.floats(0.05, 0.95), min_size=1, max_size=4),
    st.integers(0, 100),
)
def test_gaps_and_doubled_levels_of_more_or_less_contrast_are_no_peaks(
    contrast: float, sigma: float, levels: list[float], seed: int
) -> None:
    """Before and after, the clean levels are 2 sigma or more inside."""
    reach = min(0.5, 0.5 / contrast) - 2 * sigma / 255
    before = [0.5 + reach * (2 * level - 1) for level in levels]
    noisy = np.rint(255 * mixture(before, [1.0] * len(levels), sigma / 255, seed).clip(0, 1))
    edited = np.rint((contrast * (noisy - 127.5) + 127.5).clip(0, 255)) / np.float32(255)
    bound = 255 * look_up(noise_bound(edited), edited)
    assert float(np.quantile(bound, 0.05)) >= 0.7 * contrast * sigma


@pytest.mark.parametrize("spacing", [2, 3, 8])
def test_levels_at_equal_distances_are_those_of_integers_in_other_units(spacing: int) -> None:
    noisy = np.rint(mixture([16.0, 20.0], [0.5, 0.5], 3.0)) * spacing / 255
    bound = 255 * look_up(noise_bound(noisy), noisy)
    assert float(np.quantile(bound, 0.05)) >= 0.8 * 3 * spacing


@pytest.mark.parametrize("n_levels", [8, 16, 24])
@pytest.mark.parametrize("sigma", [1.0, 1.5])
def test_noise_of_few_levels_is_no_dither(n_levels: int, sigma: float) -> None:
    """A ramp in noise of 1 to 1.5 levels, which is then rounded: dark photographs of 8 bits that are brightened."""
    ramp = np.linspace(2, n_levels - 3, 192)
    noise = torch.randn(192, 192, generator=seeded()).numpy()
    noisy = np.rint((ramp + sigma * noise).clip(0, n_levels - 1)) / (n_levels - 1)
    bound = look_up(noise_bound(noisy[None]), noisy)
    assert float((bound >= 0.8 * sigma / (n_levels - 1)).mean()) >= 0.75


@pytest.mark.parametrize("n_levels", [8, 16, 24])
@pytest.mark.parametrize("kind", ["ordered", "random"])
def test_dither_of_few_levels_is_no_noise(n_levels: int, kind: str) -> None:
    ramp = np.linspace(2, n_levels - 3, 192) * np.ones((192, 1))
    threshold = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16
    tiled = np.tile(threshold, (48, 48))
    dithered = np.floor(ramp + (tiled if kind == "ordered" else torch.rand(192, 192, generator=seeded()).numpy()))
    x = dithered / (n_levels - 1)
    assert float(look_up(noise_bound(x[None]), x).max()) <= 0.4 / 255


def test_a_flat_drawing_keeps_its_bound_whatever_its_levels() -> None:
    """Cells of random levels, each of 16 neighbours: all levels at equal distances are used."""
    cells = 2 * torch.randint(10, 120, (N // 16,), generator=seeded()).numpy()
    values = cells.repeat(16) / 255
    assert 255 * float(np.median(look_up(noise_bound(values), values))) <= 1


@pytest.mark.parametrize(("is_flat", "has_bound"), [(False, False), (True, True)])
def test_colours_of_a_palette_bound_flat_areas_alone(is_flat: bool, has_bound: bool) -> None:
    levels = torch.arange(10, 245, 9)[torch.randint(26, (N // 16,) if is_flat else (N,), generator=seeded())].numpy()
    values = (levels.repeat(16) if is_flat else levels) / 255
    assert np.isfinite(noise_bound(values)).any()
    assert np.isfinite(noise_bound(values, has_palette=True)).any() == has_bound
