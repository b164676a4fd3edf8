"""Every precision of images on every machine: tiles, fidelity to float32, and how ``auto`` selects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow

from denoise.backends import precision
from denoise.backends.precision import check_precision, float_precision, measure_seconds
from denoise.errors import ConfigError
from denoise.nn import int8
from denoise.nn.int8 import has_exact_int8
from denoise.options import DenoiseOptions
from denoise.pipelines import ImagePipeline, image, noise_estimate
from denoise.registry import DEFAULTS, SIGMA_MODEL
from denoise.signals import Image

Models = dict[str, Path]
Scene = Callable[[int, float], NDArray[np.float32]]
IMAGE_MODELS = [DEFAULTS["image"], SIGMA_MODEL]
CPU = torch.device("cpu")
SMALLEST_TILE = 240  # pixels, of the bundled models: twice the overlap of two tiles


def to_8_bits(x: NDArray[Any]) -> NDArray[np.uint8]:
    return (255 * x).clip(0, 255).astype(np.uint8)


def denoise(
    name: str | Path, x: NDArray[Any], requested: str, *, sigma: float | None = None, tile: int | None = None
) -> tuple[NDArray[np.float64], str | None]:
    """Denoised pixels and the precision that was used."""
    pipeline = ImagePipeline(name, tile=tile, precision=requested)
    denoised, diagnostics = pipeline.denoise_frame(Image(x), DenoiseOptions(steps=1, sigma=sigma))
    return denoised.pixels.astype(np.float64), diagnostics.precision


def compare_int8(name: str, x: NDArray[Any], sigma: float | None) -> tuple[NDArray[Any], NDArray[Any], str | None]:
    """Output if int8 is requested, output in float32, and the precision of the first."""
    y, used = denoise(name, x, "int8", sigma=sigma)
    return y, denoise(name, x, "float32", sigma=sigma)[0], used


def fake_measurement(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    monkeypatch.setattr(precision, "measure_seconds", lambda: seconds)
    uncached = noise_estimate.load_noise_network.__wrapped__  # no other test may find the networks of this one
    monkeypatch.setattr(image, "load_noise_network", uncached)


@pytest.fixture(params=["vnni", "reference"])
def int8_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the instructions of this processor, and slowly, as processors without them compute it."""
    if request.param == "vnni" and not has_exact_int8():
        pytest.skip("needs VNNI")
    monkeypatch.setattr(int8, "has_exact_int8", lambda: request.param == "vnni")
    return str(request.param)


class TestFloats:
    @pytest.mark.parametrize("name", IMAGE_MODELS)
    @pytest.mark.parametrize(
        ("requested", "tolerance_255"),
        [("float32", 0.1), ("bfloat16", 0.7)],
    )
    def test_tiles_do_not_change_the_output(
        self, name: str, requested: str, tolerance_255: float, noisy_scene: Scene
    ) -> None:
        """At sigma 75; the promise of `ImagePipeline` is 1 of 255."""
        x, sigma = noisy_scene(300, 75 / 255), 75 / 255
        whole, used = denoise(name, x, requested, sigma=sigma)
        assert used == requested
        for tile in (SMALLEST_TILE, 288):
            y, _ = denoise(name, x, requested, sigma=sigma, tile=tile)
            assert 255 * np.abs(y - whole).max() <= tolerance_255

    @pytest.mark.parametrize("name", IMAGE_MODELS)
    @pytest.mark.parametrize("sigma_255", [5, 75])
    def test_bfloat16_is_as_good_as_float32(self, name: str, sigma_255: float, noisy_scene: Scene) -> None:
        clean, x, sigma = noisy_scene(200, 0), noisy_scene(200, sigma_255 / 255), sigma_255 / 255
        exact, rounded = (denoise(name, x, p, sigma=sigma)[0] for p in ("float32", "bfloat16"))
        assert (exact != rounded).any()
        assert 255 * np.sqrt(np.square(rounded - exact).mean()) < 0.15  # 0.33 if all layers are in bfloat16
        psnr = [-10 * np.log10(np.square(y - clean).mean()) for y in (exact, rounded)]
        assert abs(psnr[0] - psnr[1]) < 0.02

    def test_tiny_networks_in_any_tiles(self, models: Models) -> None:
        x = np.random.default_rng(0).uniform(-0.2, 1.2, (301, 277, 3)).astype(np.float32)
        for requested, tolerance in (("float32", 1e-4), ("bfloat16", 1 / 255)):
            whole, _ = denoise(models["blur-image"], x, requested)
            assert np.abs(whole - x).max() > 0.1
            for tile in (1, 64, 128):
                y, _ = denoise(models["blur-image"], x, requested, tile=tile)
                np.testing.assert_allclose(y, whole, rtol=0, atol=tolerance)


class TestInt8:
    @pytest.mark.parametrize("name", IMAGE_MODELS)
    @pytest.mark.parametrize("sigma_255", [0.5, 10])
    def test_8_bit_images(self, name: str, sigma_255: float, int8_kernel: str, noisy_scene: Scene) -> None:
        side = 300 if int8_kernel == "vnni" else 190  # two rows of tiles, or one, as the reference is slow
        x, sigma = to_8_bits(noisy_scene(side, sigma_255 / 255)), sigma_255 / 255
        whole, exact, used = compare_int8(name, x, sigma)
        assert used == "int8"
        assert (whole != exact).any()
        assert np.sqrt(np.square(whole - exact).mean()) < 0.45  # rounding to 8 bits: 0.29 by itself
        assert np.abs((whole - exact).mean(axis=(0, 1))).max() < 0.05
        tiled, _ = denoise(name, x, "int8", sigma=sigma, tile=SMALLEST_TILE)
        assert np.abs(tiled - whole).max() <= 1

    @pytest.mark.parametrize("name", IMAGE_MODELS)
    def test_strong_noise_and_more_bits_use_float32(self, name: str, noisy_scene: Scene) -> None:
        x = 255 * noisy_scene(200, 30 / 255).clip(0, 1)
        for dtype, full_scale in ((np.uint8, 255), (np.uint16, 65535), (np.float32, 1)):
            scaled = (x * (full_scale / 255)).astype(dtype)
            y, exact, used = compare_int8(name, scaled, 30 / 255)
            assert used == "float32"
            np.testing.assert_array_equal(y, exact)

    @pytest.mark.parametrize("name", IMAGE_MODELS)
    @pytest.mark.parametrize("colour", [(0, 0, 0), (10, 200, 30)])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_uniform_images_with_content_at_the_border(
        self, name: str, colour: tuple[int, int, int], channels: int, noisy_scene: Scene
    ) -> None:
        x = np.empty((256, 356, channels), np.uint8)
        x[:] = [*colour, 77][:channels]
        x[:, -70:] = to_8_bits(noisy_scene(256, 5 / 255)[:, :70].mean(axis=2, keepdims=True))
        y, exact, _ = compare_int8(name, x, 5 / 255)
        assert np.abs(y - exact).max() <= 2

    @pytest.mark.parametrize("name", IMAGE_MODELS)
    def test_smooth_areas_beside_dithering_use_float32(self, name: str, noisy_scene: Scene) -> None:
        x = 255 * noisy_scene(512, 3 / 255).clip(0, 1)
        x[:, 256:] = 255 * np.random.default_rng(2).integers(0, 2, (512, 316, 1))
        x[:, :256] = 100 + np.arange(256)[:, None] / 4
        x[:, :256] += np.random.default_rng(1).normal(0, 3, (512, 256, 3))
        y, exact, _ = compare_int8(name, x.astype(np.uint8), 3 / 255)
        assert np.abs(y - exact)[:, :250].mean() < 0.05

    @pytest.mark.parametrize("name", IMAGE_MODELS)
    def test_hidden_colours_have_no_effect(self, name: str, noisy_scene: Scene) -> None:
        x = to_8_bits(noisy_scene(300, 5 / 255))
        alpha = np.full(x.shape[:2], 255, np.uint8)
        alpha[:, 100:200] = 0
        other = x.copy()
        other[:, 100:200] = np.random.default_rng(0).integers(0, 256, (300, 100, 3))
        pipeline = ImagePipeline(name, precision="int8")
        a, b = (pipeline.frame(Image(z, alpha), sigma=5 / 255).pixels for z in (x, other))
        np.testing.assert_array_equal(a[alpha > 0], b[alpha > 0])

    @pytest.mark.parametrize("model", ["dense-image", "keep-image"])
    def test_networks_without_int8_blocks_use_float32(self, models: Models, model: str) -> None:
        x = np.random.default_rng(0).integers(0, 256, (150, 140, 3), np.uint8)
        y, exact, used = compare_int8(models[model], x, None)
        assert used == "float32"
        np.testing.assert_array_equal(y, exact)

    def test_small_images_use_float32(self) -> None:
        x = np.full((127, 300, 3), 100, np.uint8)
        assert denoise(DEFAULTS["image"], x, "int8", sigma=0.01)[1] == "float32"


class TestAuto:
    @pytest.mark.parametrize(
        ("seconds", "of_floats", "of_8_bits"),
        [
            ({"float32": 1.0}, "float32", "float32"),
            ({"float32": 1.0, "bfloat16": 0.7, "int8": 0.7}, "bfloat16", "bfloat16"),
            ({"float32": 1.0, "bfloat16": 0.8, "int8": 0.8}, "float32", "float32"),  # within the noise of a measurement
            ({"float32": 1.0, "bfloat16": 5.0, "int8": 0.5}, "float32", "int8"),
            ({"float32": 1.0, "bfloat16": 0.5, "int8": 0.45}, "bfloat16", "bfloat16"),
            ({"float32": 1.0, "bfloat16": 0.5, "int8": 0.3}, "bfloat16", "int8"),
            ({"float32": 1.0, "int8": 0.3}, "float32", "int8"),
        ],
    )
    def test_measured_times_select(
        self,
        seconds: dict[str, float],
        of_floats: str,
        of_8_bits: str,
        noisy_scene: Scene,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        fake_measurement(monkeypatch, **seconds)
        monkeypatch.setattr(precision, "MIN_PIXELS", 128 * 150)
        assert float_precision("auto", CPU) == of_floats
        x = noisy_scene(128, 3 / 255)[:, :150]
        assert denoise(DEFAULTS["image"], x, "auto")[1] == of_floats
        assert denoise(DEFAULTS["image"], to_8_bits(x), "auto")[1] == of_8_bits
        assert denoise(DEFAULTS["image"], to_8_bits(x)[:, :149], "auto")[1] == of_floats  # too small for int8
        Pillow.fromarray(to_8_bits(x)).save(tmp_path / "a.png")
        result = ImagePipeline(DEFAULTS["image"]).file(tmp_path / "a.png", tmp_path / "b.png")
        assert result.asdict()["precision"] == of_8_bits

    @pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, "bfloat16"), (False, "float32")])
    def test_gpus_take_half_precision_where_they_have_it(
        self, has_bfloat16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An emulated bfloat16, which older GPUs have, is slower than float32."""
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or has_bfloat16
        )
        fake_measurement(monkeypatch)  # none is made
        assert float_precision("auto", torch.device("cuda")) == expected
        assert float_precision("bfloat16", torch.device("cuda")) == "bfloat16"
        assert float_precision("auto", torch.device("mps")) == "float32"

    @pytest.mark.parametrize("requested", ["float32", "bfloat16", "int8"])
    def test_requests_need_no_measurement(self, requested: str, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_measurement(monkeypatch)
        x = np.full((200, 300, 3), 100, np.uint8)
        assert denoise(DEFAULTS["image"], x, requested, sigma=0.01)[1] == requested

    def test_measurement(self) -> None:
        random_state, n_threads = torch.random.get_rng_state(), torch.get_num_threads()
        measure_seconds.cache_clear()
        seconds = measure_seconds()
        assert {"float32"} <= {*seconds} <= {"float32", "bfloat16", "int8"}
        assert ("int8" in seconds) == has_exact_int8()
        assert all(0 < s < 60 for s in seconds.values())
        assert measure_seconds() is seconds
        assert torch.equal(torch.random.get_rng_state(), random_state)
        assert torch.get_num_threads() == n_threads

    def test_posterior_samples_report_it(self, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_measurement(monkeypatch, float32=1.0, bfloat16=0.1)
        x = Image(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
        for requested, used in (("auto", "bfloat16"), ("float32", "float32")):
            pipeline = ImagePipeline(models["sigma-image"], precision=requested)
            _, diagnostics = pipeline.denoise_frame(x, DenoiseOptions(steps=2, sigma=0.1, perception=1.0))
            assert diagnostics.precision == used


class TestRefused:
    def test_unknown_precision(self, models: Models) -> None:
        with pytest.raises(ConfigError, match="precision is 'float16'; expected auto, float32, bfloat16 or int8"):
            ImagePipeline(models["keep-image"], precision="float16")

    def test_int8_is_for_cpus(self) -> None:
        with pytest.raises(ConfigError, match="precision is 'int8', which needs device cpu, but the device is cuda"):
            check_precision("int8", torch.device("cuda"))
