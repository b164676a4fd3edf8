"""Salt-and-pepper noise: impulses that are put into an image are found and replaced, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageDraw
from scipy.ndimage import gaussian_filter

import denoise
from denoise.impulses import find_impulses, replace_impulses
from denoise.options import DenoiseOptions
from denoise.pipelines.image import ImagePipeline
from denoise.pipelines.samples import write_image_samples
from denoise.signals import Image

Pixels = NDArray[Any]
SIDE = 192


def scene(seed: int = 0, channels: int = 3) -> Pixels:
    """Smooth areas with sharp borders, 8 bits."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(SIDE, SIDE, channels)), (12, 12, 0))
    shade = smooth / np.abs(smooth).max()
    steps = np.sign(gaussian_filter(rng.normal(size=(SIDE, SIDE, 1)), (20, 20, 0)))
    return np.rint(255 * (0.5 + 0.3 * shade + 0.15 * steps).clip(0, 1)).astype(np.uint8)


def add_impulses(x: Pixels, density: float, seed: int = 0, *, by_channel: bool = False) -> tuple[Pixels, Pixels]:
    """Replace pixels by black or white, with equal probabilities; return the image, and where it changed much."""
    rng = np.random.default_rng(seed)
    black, white = (0.0, 1.0) if x.dtype == np.float32 else (0, np.iinfo(x.dtype).max)
    chance = rng.random(x.shape if by_channel else (*x.shape[:2], 1))
    noisy = np.where(chance < density / 2, black, np.where(chance > 1 - density / 2, white, x)).astype(x.dtype)
    return noisy, np.abs(noisy.astype(np.float64) - x) > 0.1 * white


def psnr(x: Pixels, y: Pixels) -> float:
    scale = 1.0 if x.dtype == np.float32 else float(np.iinfo(x.dtype).max)
    return float(-10 * np.log10(np.square((x.astype(np.float64) - y) / scale).mean() + 1e-12))


@given(
    st.sampled_from([0.01, 0.05, 0.2, 0.5]),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.integers(0, 100),
)
def test_impulses_are_found_and_replaced(
    density: float, dtype: type[np.generic], channels: int, by_channel: bool, seed: int
) -> None:
    clean = scene(seed, channels)
    if dtype == np.uint16:
        clean = clean.astype(np.uint16) * 257
    elif dtype == np.float32:
        clean = clean.astype(np.float32) / 255
    noisy, is_impulse = add_impulses(clean, density, seed, by_channel=by_channel)
    found = find_impulses(noisy)
    assert found is not None
    assert found[is_impulse].mean() > 0.9
    assert found[noisy == clean].mean() < 0.01
    replaced = replace_impulses(noisy, found)
    assert replaced.dtype == clean.dtype
    assert np.array_equal(replaced[~found], noisy[~found])
    assert psnr(replaced, clean) > psnr(noisy, clean) + 12


@given(
    st.sampled_from([0.01, 0.05, 0.2]),
    st.sampled_from([0.5, 1.0, 3.0, 5.0, 8.0]),
    st.sampled_from([np.uint8, np.float32]),
    st.integers(0, 100),
)
def test_they_are_found_before_noise(density: float, sigma: float, dtype: type[np.generic], seed: int) -> None:
    """Clipped noise behind impulses keeps half of them at black and white, and moves the others."""
    clean = scene(seed, 1)
    with_impulses, is_impulse = add_impulses(clean, density, seed)
    noise = sigma * np.random.default_rng(seed).normal(size=clean.shape)
    noisy, without = ((x + noise).clip(0, 255) for x in (with_impulses, clean))
    noisy = np.rint(noisy).astype(dtype) if dtype == np.uint8 else (noisy / 255).astype(dtype)
    without = np.rint(without).astype(dtype) if dtype == np.uint8 else (without / 255).astype(dtype)
    found = find_impulses(noisy)
    assert found is not None
    is_visible = is_impulse & (np.abs(with_impulses.astype(np.float64) - clean) > 60)
    assert found[is_visible].mean() > 0.95
    assert found[~is_impulse].mean() < 0.02
    assert psnr(replace_impulses(noisy, found), without) > psnr(noisy, without) + 12


def test_borders_of_white_and_black_areas_do_not_hide_them() -> None:
    clean = scene()
    clean[:50], clean[:, :30] = 255, 0
    noisy, is_impulse = add_impulses(clean, 0.05)
    found = find_impulses(noisy)
    assert found is not None
    assert found[is_impulse].mean() > 0.9
    assert psnr(replace_impulses(noisy, found), clean) > psnr(noisy, clean) + 12


def test_bands_of_rows_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy, _ = add_impulses(scene(), 0.5)
    found = find_impulses(noisy)
    assert found is not None
    replaced = replace_impulses(noisy, found)
    monkeypatch.setattr("denoise.impulses.BAND", 23)
    assert np.array_equal(find_impulses(noisy), found)
    assert np.array_equal(replace_impulses(noisy, found), replaced)


def page(noise: float = 0.0) -> Pixels:
    """Text, black on white, in antialiased letters."""
    image = PILImage.new("L", (SIDE, SIDE), 255)
    draw = ImageDraw.Draw(image)
    for row in range(0, SIDE, 12):
        draw.text((4, row), "The quick brown fox, 1234567890: i.e. text;", fill=0)
    rng = np.random.default_rng(0)
    return (
        np.rint(np.asarray(image)[..., None] + noise * rng.normal(size=(SIDE, SIDE, 1))).clip(0, 255).astype(np.uint8)
    )


def clipped(sigma: float, mean: float = 0.5) -> Pixels:
    rng = np.random.default_rng(0)
    return np.rint(255 * mean + sigma * rng.normal(size=(SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)


def stars(blur: float) -> Pixels:
    """Stars on a grey sky, the brightest white, beside as many black points."""
    rng = np.random.default_rng(0)
    points = rng.choice([0, 1, -1], (SIDE, SIDE, 1), p=[0.99, 0.005, 0.005]).astype(np.float64)
    if blur:
        points = gaussian_filter(points, (blur, blur, 0)) * 2 * np.pi * blur**2 * 2
    return np.rint(255 * (0.5 + points).clip(0, 1)).astype(np.uint8)


def screen() -> Pixels:
    """Points of a regular screen, black and white in turn."""
    x = np.full((SIDE, SIDE, 1), 128, np.uint8)
    x[::8, ::8], x[4::8, 4::8] = 0, 255
    return x


def one_colour(value: int) -> Pixels:
    """White points alone, as a drawn sky has."""
    x = scene()
    x[np.random.default_rng(0).random(x.shape[:2]) < 0.01] = value
    return x


def dashes() -> Pixels:
    """Black and white dashes of three pixels at random places."""
    x = np.full((SIDE, SIDE, 1), 128, np.uint8)
    rng = np.random.default_rng(0)
    for value in (0, 255):
        for i, j in rng.integers(0, SIDE - 3, (200, 2)):
            x[i, j : j + 3] = value
    return x


def heavy_tailed(degrees_of_freedom: float, scale: float) -> Pixels:
    """Noise of Student's distribution; that with one degree is Cauchy's. Its outliers reach far, and are clipped."""
    noise = scale * np.random.default_rng(0).standard_t(degrees_of_freedom, (SIDE, SIDE, 1))
    return np.rint(100 + 0.3 * scene(channels=1) + noise).clip(0, 255).astype(np.uint8)


def mixture(fraction: float) -> Pixels:
    """Gaussian noise, stronger in pixels here and there."""
    rng = np.random.default_rng(0)
    sigma = np.where(rng.random((SIDE, SIDE, 1)) < fraction, 80, 4)
    return np.rint(128 + sigma * rng.normal(size=sigma.shape)).clip(0, 255).astype(np.uint8)


def dither() -> Pixels:
    """A shade in black, grey and white at random, with the mean of the shade."""
    levels = scene(channels=1) / 127.5 + np.random.default_rng(0).random((SIDE, SIDE, 1))
    return (127.5 * np.floor(levels)).clip(0, 255).astype(np.uint8)


def speckle() -> Pixels:
    return (scene() * np.random.default_rng(0).exponential(1, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)


def photons() -> Pixels:
    return (25 * np.random.default_rng(0).poisson(scene() / 25)).clip(0, 255).astype(np.uint8)


def dots() -> Pixels:
    """A shade in black dots on white."""
    rows, columns = np.mgrid[:SIDE, :SIDE, :1][:2]
    return np.where(scene(channels=1) > 128 + 60 * (np.cos(rows) + np.cos(columns)), 255, 0).astype(np.uint8)


@pytest.mark.parametrize("sigma", [0.0, 1.0, 5.0])
@pytest.mark.parametrize(
    "clean",
    [
        heavy_tailed(1.0, 3.0),
        heavy_tailed(1.5, 5.0),
        heavy_tailed(2.0, 8.0),
        mixture(0.03),
        dither(),
        dots(),
        speckle(),
        photons(),
        page(),
        stars(0.6),
        screen(),
        dashes(),
        one_colour(255),
        clipped(100.0),
    ],
)
def test_other_noise_is_not_taken_for_them(clean: Pixels, sigma: float) -> None:
    noise = sigma * np.random.default_rng(1).normal(size=clean.shape)
    assert find_impulses(np.rint(clean + noise).clip(0, 255).astype(np.uint8)) is None


@pytest.mark.parametrize(
    "clean",
    [
        scene(),
        page(),
        page(20.0),
        clipped(50.0),
        clipped(100.0),
        clipped(20.0, 0.1),
        stars(0.6),
        stars(1.0),
        screen(),
        one_colour(255),
        one_colour(0),
        dashes(),
        np.full((SIDE, SIDE, 3), 7, np.uint8),
        np.zeros((1, 1, 1), np.uint8),
        np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (SIDE, SIDE, 3)),
        np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
    ],
)
def test_nothing_is_found_without_them(clean: Pixels) -> None:
    assert find_impulses(clean) is None


def test_unblurred_points_of_both_kinds_are_impulses() -> None:
    """The stars of the test above, without optics: what their refusal rests on."""
    assert find_impulses(stars(0.0)) is not None


@given(st.integers(0, 100), st.floats(0.01, 0.9))
def test_replacement_keeps_one_colour_and_does_not_see_impulses(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    impulses = rng.random((32, 40, 2)) < density
    flat = np.full(impulses.shape, 77, np.uint8)
    assert (
        replace_impulses(np.where(impulses, rng.integers(0, 256, impulses.shape), flat).astype(np.uint8), impulses)
        == 77
    ).all()


def test_frames_lose_them_unless_sigma_is_a_number() -> None:
    pipeline = ImagePipeline("photo")
    clean = scene()
    noisy, _ = add_impulses(clean, 0.05)
    denoised, diagnostics = pipeline.denoise_frame(Image(noisy), DenoiseOptions(steps=1))
    assert 0.04 < diagnostics.impulse_fraction < 0.06
    assert psnr(denoised.pixels, clean) > psnr(noisy, clean) + 12
    kept, diagnostics = pipeline.denoise_frame(Image(noisy), DenoiseOptions(steps=1, sigma=0.0))
    assert diagnostics.impulse_fraction == 0
    assert np.array_equal(kept.pixels, noisy)
    half, _ = pipeline.denoise_frame(Image(noisy), DenoiseOptions(steps=1, strength=0.5))
    assert psnr(half.pixels, clean) == pytest.approx(psnr(noisy, clean) + 6, abs=0.3)  # half of the error
    assert psnr(denoise.denoise_image(noisy), clean) > psnr(noisy, clean) + 12


def test_hidden_pixels_are_no_impulses() -> None:
    noisy, _ = add_impulses(scene(), 0.05)
    alpha = np.full(noisy.shape[:2], 255, np.uint8)
    alpha[:40] = 0
    assert ImagePipeline().denoise_frame(Image(noisy, alpha), DenoiseOptions(steps=1))[1].impulse_fraction == 0


def test_a_further_channel_loses_its_own(tmp_path: Path) -> None:
    clean = scene(channels=1)
    noisy, _ = add_impulses(clean, 0.05)
    frame = Image(noisy, noisy[..., 0], is_alpha_opacity=False)
    tifffile.imwrite(tmp_path / "a.tif", np.concatenate([noisy, noisy], axis=-1), extrasamples=["unspecified"])
    ImagePipeline().file(tmp_path / "a.tif", tmp_path / "b.tif")
    for pixels in (ImagePipeline().frame(frame).alpha, tifffile.imread(tmp_path / "b.tif")[..., 1]):
        assert pixels is not None
        assert psnr(pixels, clean[..., 0]) > psnr(noisy, clean) + 12


def test_samples_have_none(tmp_path: Path) -> None:
    noisy, _ = add_impulses(scene(), 0.05)
    noisy = np.clip(noisy + np.random.default_rng(0).normal(0, 10, noisy.shape), 0, 255).astype(np.uint8)
    noisy, _ = add_impulses(noisy, 0.05)
    PILImage.fromarray(noisy).save(tmp_path / "a.png")
    pipeline = ImagePipeline("gaussian")
    result = write_image_samples(pipeline, tmp_path / "a.png", tmp_path / "b.png", 2, DenoiseOptions(steps=2, seed=0))
    assert any("salt-and-pepper" in warning for warning in result.warnings)


@pytest.mark.parametrize("shape", [(4000, 1, 1), (1, 4000, 1), (2000, 2, 1)])
def test_narrow_images(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(128, 3, shape)
    noisy, is_impulse = add_impulses(np.rint(x).astype(np.uint8), 0.05)
    found = find_impulses(noisy)
    assert found is None or found[is_impulse].mean() > 0.5


def test_a_file_says_so(tmp_path: Path) -> None:
    noisy, _ = add_impulses(scene(), 0.02)
    PILImage.fromarray(noisy).save(tmp_path / "in.png")
    result = ImagePipeline().file(tmp_path / "in.png", tmp_path / "out.png")
    assert any("% of the pixels are salt-and-pepper noise" in warning for warning in result.warnings)
    assert result.asdict()["impulse_fraction"] == pytest.approx(0.02, rel=0.2)
    assert not any("no noise was found" in warning for warning in result.warnings)
