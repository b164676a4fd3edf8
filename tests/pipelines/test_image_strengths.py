"""Strengths of an image: of luminance and colour apart, and the detail that is kept."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from denoise.colour import CHROMA_601, LUMA_601
from denoise.errors import ConfigError
from denoise.pipelines import ImagePipeline
from denoise.pipelines.arrays import denoise_image
from denoise.registry import DEFAULTS
from denoise.signals import Image

Models = dict[str, Path]
Pixels = NDArray[Any]


def noisy(channels: int, side: int = 64, sigma: float = 0.1) -> Pixels:
    rows, columns = np.indices((side, side))
    clean = 0.5 + 0.2 * np.sin(rows / 9) * np.cos(columns / 13)
    return (clean[..., None] + np.random.default_rng(0).normal(0, sigma, (side, side, channels))).astype(np.float32)


@cache
def photo() -> ImagePipeline:
    return ImagePipeline(precision="float32")


def luma(x: Pixels) -> Pixels:
    return x.astype(np.float64) @ np.array(LUMA_601)


def chroma(x: Pixels) -> Pixels:
    return x.astype(np.float64) @ np.array(CHROMA_601).T


class TestLuminanceAndColour:
    """They are strengths of the luma and of the chroma of BT.601."""

    @pytest.mark.parametrize("model", ["blur-image", None])
    def test_luminance_0_keeps_the_luma(self, models: Models, model: str | None) -> None:
        x = noisy(3)
        pipeline = ImagePipeline(models[model], precision="float32") if model else photo()
        sigma = None if model else 0.1
        whole, y = (pipeline.frame(Image(x), sigma=sigma, luminance=v).pixels for v in (1, 0))
        np.testing.assert_allclose(luma(y), luma(x), rtol=0, atol=1e-6)
        np.testing.assert_allclose(y - luma(y)[..., None], whole - luma(whole)[..., None], atol=1e-6)
        assert np.abs(chroma(y) - chroma(x)).max() > 0.01

    @pytest.mark.parametrize("model", ["blur-image", None])
    def test_colour_0_keeps_the_chroma(self, models: Models, model: str | None) -> None:
        x = noisy(3)
        pipeline = ImagePipeline(models[model], precision="float32") if model else photo()
        sigma = None if model else 0.1
        whole, y = (pipeline.frame(Image(x), sigma=sigma, colour=v).pixels for v in (1, 0))
        np.testing.assert_allclose(np.ptp(y - x, axis=2), 0, atol=1e-6)  # all channels change alike
        np.testing.assert_allclose(chroma(y), chroma(x), rtol=0, atol=1e-6)
        np.testing.assert_allclose(luma(y), luma(whole), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_both_0_keep_the_image(self, models: Models, channels: int, dtype: Any) -> None:
        x = noisy(channels, side=20).clip(0, 1)
        x = x if dtype == np.float32 else (x * np.iinfo(dtype).max).astype(dtype)
        y = ImagePipeline(models["mute-image"]).frame(Image(x), luminance=0, colour=0).pixels
        np.testing.assert_array_equal(y, x)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_both_together_are_the_strength(self, models: Models, channels: int) -> None:
        x = Image(noisy(channels))
        pipeline = ImagePipeline(models["blur-image"], precision="float32")
        expected = pipeline.frame(x, strength=0.3).pixels
        y = pipeline.frame(x, luminance=0.3, colour=0.3).pixels
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)
        y = pipeline.frame(x, strength=0.6, luminance=0.5, colour=0.5).pixels
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)

    def test_parts_add_up(self, models: Models) -> None:
        x = noisy(3)
        pipeline = ImagePipeline(models["blur-image"], precision="float32")
        changes = [
            pipeline.frame(Image(x), luminance=luminance, colour=colour).pixels - x
            for luminance, colour in ((1, 0), (0, 1), (1, 1), (0.25, 0.75))
        ]
        np.testing.assert_allclose(changes[0] + changes[1], changes[2], rtol=0, atol=1e-6)
        np.testing.assert_allclose(0.25 * changes[0] + 0.75 * changes[1], changes[3], rtol=0, atol=1e-6)

    def test_grey_follows_the_luminance(self, models: Models) -> None:
        x = Image(noisy(1))
        pipeline = ImagePipeline(models["blur-image"], precision="float32")
        for luminance in (0.0, 0.4, 1.0):
            y = pipeline.frame(x, luminance=luminance, colour=0.9).pixels
            np.testing.assert_array_equal(y, pipeline.frame(x, strength=luminance).pixels)

    def test_black_ink_follows_the_luminance(self, models: Models) -> None:
        x = noisy(4)
        pipeline = ImagePipeline(models["blur-image"], precision="float32")
        y = pipeline.frame(Image(x), luminance=0, colour=1).pixels
        np.testing.assert_array_equal(y[..., 3], x[..., 3])
        assert (y[..., :3] != x[..., :3]).any()

    def test_tiles_and_hidden_pixels(self, models: Models) -> None:
        x = noisy(3, side=100)
        alpha = np.ones((100, 100), np.float32)
        alpha[:, 70:] = 0
        whole, tiled = (
            ImagePipeline(models["blur-image"], tile=tile, precision="float32")
            .frame(Image(x, alpha), luminance=0.2)
            .pixels
            for tile in (1000, 48)
        )
        np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(whole[:, 70:], x[:, 70:])

    def test_posterior_samples(self, models: Models) -> None:
        """A sample is weighed as its mean is."""
        x = noisy(3, side=40)
        pipeline = ImagePipeline(models["sigma-image"], precision="float32")
        y = pipeline.frame(Image(x), sigma=0.1, perception=1.0, steps=3, luminance=0).pixels
        np.testing.assert_allclose(luma(y), luma(x), rtol=0, atol=1e-5)

    def test_arrays_and_bytes_take_them(self, models: Models) -> None:
        x = noisy(3)
        y = denoise_image(x, model=models["blur-image"], luminance=0)
        np.testing.assert_allclose(luma(y), luma(x), rtol=0, atol=1e-6)
        y = denoise_image(x, model=models["blur-image"], colour=0)
        np.testing.assert_allclose(chroma(y), chroma(x), rtol=0, atol=1e-6)


class TestDetail:
    """The network is told less noise than there is."""

    def test_more_detail_removes_less(self) -> None:
        x = noisy(3, sigma=0.08)
        outputs = [photo().frame(Image(x), sigma=0.08, detail=detail).pixels for detail in (0, 0.25, 0.5, 0.75, 1)]
        removed = [float((x - y).std()) for y in outputs]
        assert removed == sorted(removed, reverse=True)
        assert 0.03 < removed[-1] < 0.99 * removed[0]

    @pytest.mark.parametrize("detail", [0.0, 0.5, 1.0])
    def test_it_is_the_network_at_a_smaller_sigma(self, detail: float) -> None:
        x = Image(noisy(3, side=40))
        y = photo().frame(x, sigma=0.1, detail=detail).pixels
        np.testing.assert_allclose(y, photo().frame(x, sigma=0.1 * (1 - detail / 2)).pixels, rtol=0, atol=1e-5)

    def test_estimated_noise_is_lowered(self) -> None:
        x = Image(noisy(1, side=96))
        outputs = [photo().frame(x, detail=detail).pixels for detail in (0, 1)]
        removed = [float((x.pixels - y).std()) for y in outputs]
        assert removed[1] < 0.99 * removed[0]

    def test_blind_models_refuse_it(self, models: Models) -> None:
        with pytest.raises(ConfigError, match="keep-image is blind: it takes no detail"):
            denoise_image(noisy(3, side=8), model=models["keep-image"], detail=0.5)
        with pytest.raises(ConfigError, match="takes no detail"):
            ImagePipeline(models["keep-image"]).frame(Image(noisy(3, side=8)), detail=0.5)


def test_the_default_model_takes_sigma() -> None:
    x = noisy(3, side=40)
    y = denoise_image(x, 0.1)
    np.testing.assert_array_equal(y, denoise_image(x, 0.1, model=DEFAULTS["image"]))
    assert float((denoise_image(x, 0.02) - x).std()) < 0.8 * float((y - x).std())
