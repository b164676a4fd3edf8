"""Laws of the image pipeline with any model: size, bit depth, alpha, level, and independence of the tiles."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow

from denoise.errors import ConfigError, InputError
from denoise.files.image import read_image, write_image
from denoise.files.image.registry import container_named
from denoise.options import DenoiseOptions
from denoise.pipelines import ImagePipeline
from denoise.pipelines.arrays import denoise_image
from denoise.pipelines.choice import AUTO
from denoise.pipelines.float_range import find_float_range
from denoise.pipelines.image import default_model, sigma_255
from denoise.pipelines.transparency import fill_hidden
from denoise.protocols import NetworkFacts
from denoise.registry import DEFAULTS, SIGMA_MODEL
from denoise.signals import Image, ImageFormat

Models = dict[str, Path]
Scene = Callable[[int, float], NDArray[np.float32]]
IMAGE_MODELS = [DEFAULTS["image"], SIGMA_MODEL]
DTYPES = [np.uint8, np.uint16, np.float16, np.float32, np.float64]


def pixels(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    rng = np.random.default_rng(sum(shape))
    if np.dtype(dtype).kind == "f":
        return rng.uniform(-0.2, 1.2, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def png(x: NDArray[Any], mode: str | None = None) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(x, mode).save(out, "PNG")
    return out.getvalue()


def noise_of(image: Image) -> float:
    """Estimate of the noise, of 255."""
    return sigma_255(ImagePipeline(precision="float32").estimate_noise(image))


class TestTiles:
    @pytest.mark.parametrize("model", ["blur-image", "sigma-image", "grey-image", "photo"])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_in_batches_change_nothing_but_the_number_of_calls(
        self, models: Models, model: str, channels: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        x = pixels(70, 800, channels, dtype=np.float32)
        sizes: dict[int, list[int]] = {}
        denoised = {}
        for batch in (1, 3):
            pipeline = ImagePipeline(models.get(model, model), tile=64, precision="float32", batch=batch)
            original, calls = pipeline.network.denoise, sizes.setdefault(batch, [])

            def denoise(x: Any, sigma: Any = None, *, original: Any = original, calls: list[int] = calls) -> Any:
                calls.append(len(x))
                return original(x, sigma)

            monkeypatch.setattr(pipeline.network, "denoise", denoise)
            options = DenoiseOptions(steps=1, sigma=None if pipeline.card.blind else 0.1)
            denoised[batch] = pipeline.denoise_frame(Image(x), options)[0].pixels
        np.testing.assert_allclose(denoised[3], denoised[1], rtol=0, atol=1e-5)  # float32
        assert np.abs(denoised[1] - x).max() > 0.01
        assert sum(sizes[3]) == sum(sizes[1])
        assert max(sizes[3]) == 3 * max(sizes[1])
        assert len(sizes[3]) < 0.7 * len(sizes[1])

    @pytest.mark.parametrize("batch", [1, 4])
    def test_latents_do_not_depend_on_the_batch(self, models: Models, batch: int) -> None:
        x = Image(pixels(130, 300, 3))
        sample = ImagePipeline(models["vary-image"], tile=64, batch=batch).frame(x, seed=1)
        np.testing.assert_array_equal(
            sample.pixels, ImagePipeline(models["vary-image"], tile=64).frame(x, seed=1).pixels
        )

    def test_an_empty_batch_is_refused(self, models: Models) -> None:
        with pytest.raises(ConfigError, match="batch is 0 tiles; expected at least 1"):
            ImagePipeline(models["keep-image"], batch=0)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (15, 17), (47, 33)])
    @pytest.mark.parametrize("model", ["keep-image", "blur-image", "dense-image", "grey-image"])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_any_size_and_channels(self, models: Models, model: str, shape: tuple[int, int], channels: int) -> None:
        x = pixels(*shape, channels)
        y = ImagePipeline(models[model], tile=None if model == "dense-image" else 64).frame(Image(x)).pixels
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        if model == "keep-image":
            assert (y == x).all()

    def test_model_of_one_size_leaves_no_seam(self, models: Models) -> None:
        """All tiles of a uniform image have the same output, so that any pattern is one of the tiling."""
        pipeline = ImagePipeline(models["dense-image"], precision="float32")
        flat = pipeline.frame(Image(np.full((16, 16, 3), 0.5, np.float32))).pixels
        y = pipeline.frame(Image(np.full((16, 40, 3), 0.5, np.float32))).pixels
        np.testing.assert_allclose(y[:, :4], flat[:, :4], rtol=0, atol=1e-5)
        assert flat.min() - 1e-5 <= y.min() <= y.max() <= flat.max() + 1e-5

    def test_progress(self, models: Models) -> None:
        fractions: list[float] = []
        ImagePipeline(models["keep-image"], tile=64).frame(Image(pixels(300, 20, 3)), progress=fractions.append)
        assert len(fractions) > 2
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1


class TestDtypesAndChannels:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_identity_model_returns_its_input(self, models: Models, dtype: Any, channels: int) -> None:
        x = pixels(50, 61, channels, dtype=dtype)
        alpha = pixels(50, 61, dtype=dtype)
        out = ImagePipeline(models["keep-image"], tile=40).frame(Image(x, alpha))
        assert out.pixels.dtype == dtype
        np.testing.assert_allclose(out.pixels, x, rtol=0, atol=1e-6 if dtype == np.float32 else 0)
        assert out.alpha is alpha

    def test_black_ink_is_denoised_as_a_grey_image(self, models: Models) -> None:
        pipeline = ImagePipeline(models["blur-image"], precision="float32")
        x = pixels(40, 30, 4)
        y = pipeline.frame(Image(x)).pixels
        assert (y[..., :3] == pipeline.frame(Image(x[..., :3])).pixels).all()
        assert (y[..., 3:] == pipeline.frame(Image(x[..., 3:])).pixels).all()

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_further_channel_is_denoised_as_a_grey_image(self, models: Models, dtype: Any) -> None:
        pipeline = ImagePipeline(models["blur-image"], precision="float32")
        x, further = pixels(40, 30, 3, dtype=dtype), pixels(40, 30, dtype=dtype)
        further[:20] = 0  # not transparent
        fractions: list[float] = []
        y = pipeline.frame(Image(x, further, is_alpha_opacity=False), progress=fractions.append)
        assert not y.is_alpha_opacity
        assert (y.pixels == pipeline.frame(Image(x)).pixels).all()
        assert (y.alpha[..., None] == pipeline.frame(Image(further[..., None])).pixels).all()
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1

    def test_noise_of_a_further_channel_is_its_own(self, tmp_path: Path) -> None:
        """Near infrared beside colours without noise loses its own noise."""
        rng = np.random.default_rng(0)
        x = np.full((96, 96, 4), 128.0)
        x[..., 3] += rng.normal(0, 20, (96, 96))
        x = x.round().astype(np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", x, photometric="rgb", extrasamples=["unspecified"])
        ImagePipeline().file(tmp_path / "a.tif", tmp_path / "b.tif")
        y = tifffile.imread(tmp_path / "b.tif")
        assert y.shape == x.shape
        assert np.abs(y[..., :3].astype(float) - 128).max() <= 1
        assert y[..., 3].std() < 4

    def test_grey_model_takes_colours_one_by_one(self, models: Models) -> None:
        pipeline = ImagePipeline(models["grey-image"], precision="float32")
        x = pixels(40, 30, 3, dtype=np.float32)
        y = pipeline.frame(Image(x)).pixels
        for c in range(3):
            channel = pipeline.frame(Image(x[..., c : c + 1])).pixels
            np.testing.assert_allclose(y[..., c : c + 1], channel, rtol=0, atol=1e-6)

    def test_depth_of_16_bits_is_used(self, models: Models) -> None:
        """Half of a ramp in 16 bits has far more values than 8 bits have."""
        x = np.linspace(0, 65535, 3000).astype(np.uint16).reshape(1, 3000, 1)
        y = ImagePipeline(models["mute-image"], precision="float32").frame(Image(x), strength=0.5).pixels
        assert len(np.unique(y)) > 2900
        np.testing.assert_allclose(2.0 * y, x, rtol=0, atol=1)

    def test_integers_are_clipped_and_floats_are_not(self, models: Models) -> None:
        for dtype in (np.uint8, np.uint16):
            maximum = np.iinfo(dtype).max
            x = np.tile(np.array([0, maximum], dtype), 50).reshape(10, 10, 1).repeat(3, axis=2)
            y = ImagePipeline(models["blur-image"]).frame(Image(x)).pixels.astype(int)
            assert np.abs(y - x).max() < maximum  # no value wraps from black to white
        bright = np.full((9, 9, 3), 5.0, np.float32)
        assert (ImagePipeline(models["keep-image"]).frame(Image(bright)).pixels == bright).all()


class TestTransparency:
    """Hidden pixels are unchanged, and visible ones do not depend on them."""

    @staticmethod
    def visible(kind: str) -> NDArray[np.bool_]:
        rows, columns = np.indices((70, 90))
        if kind == "half":
            return columns < 45
        if kind == "hole":
            return (rows - 30) ** 2 + (columns - 40) ** 2 > 150
        return np.random.default_rng(0).random((70, 90)) < (1e-3 if kind == "specks" else 0.0)

    @pytest.mark.parametrize("kind", ["half", "hole", "specks", "nothing"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_hidden_pixels_are_unchanged_and_have_no_effect(self, models: Models, kind: str, dtype: Any) -> None:
        visible, x = self.visible(kind), pixels(70, 90, 3, dtype=dtype)
        alpha = np.where(visible, pixels(70, 90, dtype=np.uint8).clip(1), 0).astype(dtype)
        out = []
        for hidden in (0, 1):
            filled = np.where(visible[..., None], x, np.asarray(hidden, dtype))
            for tile in (64, 1000):
                pipeline = ImagePipeline(models["blur-image"], tile=tile, precision="float32")
                y = pipeline.frame(Image(filled, alpha)).pixels
                assert (y[~visible] == hidden).all()
                out.append(y)
        np.testing.assert_array_equal(out[0][visible], out[2][visible])
        np.testing.assert_array_equal(out[1][visible], out[3][visible])
        assert (out[0][visible] != x[visible]).any() or not visible.any()

    def test_hidden_pixels_are_mirrored_at_the_edge(self) -> None:
        x = np.broadcast_to(np.arange(8.0), (1, 3, 8))
        visible = np.broadcast_to([False, False, True, True, True, True, True, True], (3, 8))
        assert fill_hidden(x, visible)[0, 0].tolist() == [4, 3, 2, 3, 4, 5, 6, 7]
        np.testing.assert_array_equal(fill_hidden(x, ~visible)[..., :4], [[[0, 1, 0, 1]] * 3])  # periodic
        np.testing.assert_array_equal(fill_hidden(x, np.zeros((3, 8), bool)), x)

    def test_noise_of_visible_pixels_is_estimated(self) -> None:
        x = np.random.default_rng(0).normal(128, 20, (200, 200, 3)).clip(0, 255).astype(np.uint8)
        alpha = np.full((200, 200), 255, np.uint8)
        alpha[:, 60:] = 0
        x[:, 60:] = 7
        assert noise_of(Image(x, alpha)) == pytest.approx(20, abs=1)
        assert noise_of(Image(x)) < 1


class TestStrength:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_zero_keeps_the_image(self, models: Models, dtype: Any) -> None:
        x = pixels(20, 30, 3, dtype=dtype)
        y = denoise_image(x, model=models["mute-image"], strength=0)
        assert y.dtype == dtype
        assert (y == x).all()

    def test_half_is_the_mean_of_input_and_output(self, models: Models) -> None:
        x = pixels(40, 40, 3, dtype=np.float32)
        y = ImagePipeline(models["mute-image"]).frame(Image(x), strength=0.5).pixels
        np.testing.assert_allclose(2 * y, x, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("strength", [-1, 2, float("nan")])
    def test_out_of_range_is_refused(self, models: Models, strength: float) -> None:
        with pytest.raises(ConfigError, match="strength is"):
            denoise_image(pixels(4, 4), model=models["keep-image"], strength=strength)


class TestFiles:
    def test_alpha_mode_and_result(self, models: Models, tmp_path: Path) -> None:
        x = pixels(60, 70, 4)
        (tmp_path / "a.png").write_bytes(png(x))
        fractions: list[float] = []
        result = ImagePipeline(models["blur-image"]).file(
            tmp_path / "a.png", tmp_path / "b.png", progress=fractions.append
        )
        with Pillow.open(tmp_path / "b.png") as output:
            assert output.mode == "RGBA"
            y = np.asarray(output)
        assert (y[..., 3] == x[..., 3]).all()
        assert (y[..., :3] != x[..., :3]).any()
        assert fractions[-1] == 1
        row = result.asdict()
        assert row["output"] == str(tmp_path / "b.png")
        assert row["noise_before_sigma_255"] > 20
        assert row["megapixels_per_s"] > 0

    @pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
    def test_zero_strength_keeps_the_pixels(self, models: Models, mode: str) -> None:
        x = pixels(33, 21, *((3,) if mode == "RGB" else ()), dtype=np.uint16 if mode == "I;16" else np.uint8)
        out = ImagePipeline(models["mute-image"]).bytes(png(x), strength=0)
        assert out == png(x)

    def test_cmyk_jpeg(self, models: Models, tmp_path: Path) -> None:
        Pillow.fromarray(pixels(40, 50, 4), "CMYK").save(tmp_path / "a.jpg", quality=95)
        ImagePipeline(models["mute-image"]).file(tmp_path / "a.jpg", tmp_path / "b.jpg", strength=0.5)
        with Pillow.open(tmp_path / "b.jpg") as output:
            assert (output.mode, output.size) == ("CMYK", (50, 40))

    @pytest.mark.parametrize(
        ("extension", "options"),
        [
            (".png", {}),
            (".jpg", {"quality": 60, "subsampling": 2, "comment": b"mine"}),
            (".webp", {"quality": 40}),
            (".avif", {"quality": 40}),
            (".tiff", {"compression": "tiff_lzw"}),
            (".bmp", {}),
            (".gif", {"save_all": True, "append_images": [Pillow.new("P", (30, 20), 9)]}),
        ],
    )
    def test_unchanged_images_are_copied(
        self, models: Models, tmp_path: Path, extension: str, options: dict[str, Any]
    ) -> None:
        """Encoding them again would lose something, be it the order of a colour table."""
        image = Pillow.fromarray(pixels(20, 30, 3))
        source, target = tmp_path / f"a{extension}", tmp_path / f"b{extension}"
        (image.quantize(16) if extension == ".gif" else image).save(source, **options)
        pipeline = ImagePipeline(models["mute-image"])
        pipeline.file(source, target, strength=0)
        assert target.read_bytes() == source.read_bytes()
        assert pipeline.bytes(source.read_bytes(), strength=0) == source.read_bytes()
        pipeline.file(source, target, strength=0.5, overwrite=True)
        assert target.read_bytes() != source.read_bytes()

    def test_an_unchanged_image_is_not_encoded(self, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(container_named("PNG"), "write", None)
        x = png(pixels(20, 30, 3))
        assert ImagePipeline(models["mute-image"]).bytes(x, strength=0) == x

    def test_unchanged_images_are_not_copied_into_other_containers(self, models: Models, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(png(pixels(20, 30, 3)))
        ImagePipeline(models["mute-image"]).file(tmp_path / "a.png", tmp_path / "b.jpg", strength=0)
        with Pillow.open(tmp_path / "b.jpg") as output:
            assert output.format == "JPEG"

    def test_what_is_not_read_of_an_unchanged_image_is_copied_too(self, models: Models, tmp_path: Path) -> None:
        """The second image of a stereo camera."""
        first, second = (Pillow.fromarray(pixels(20, 30, 3) // divisor) for divisor in (1, 2))
        first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
        pipeline = ImagePipeline(models["mute-image"])
        result = pipeline.file(tmp_path / "a.jpg", tmp_path / "b.jpg", strength=0)
        assert result.warnings == ()
        assert (tmp_path / "b.jpg").read_bytes() == (tmp_path / "a.jpg").read_bytes()
        result = pipeline.file(tmp_path / "a.jpg", tmp_path / "c.jpg", strength=0.5)
        assert any("the first one is read" in warning for warning in result.warnings)

    def test_every_frame_is_denoised(self, models: Models, tmp_path: Path) -> None:
        frames = [Pillow.fromarray(np.full((20, 20, 3), v, np.uint8)) for v in (50, 150)]
        frames[0].save(tmp_path / "a.tiff", save_all=True, append_images=frames[1:])
        ImagePipeline(models["mute-image"]).file(tmp_path / "a.tiff", tmp_path / "b.tiff", strength=0.5)
        with Pillow.open(tmp_path / "b.tiff") as output:
            assert output.n_frames == 2
            for i, value in enumerate((25, 75)):
                output.seek(i)
                assert (np.asarray(output) == value).all()

    def test_bytes_that_are_no_image_are_refused(self, models: Models) -> None:
        with pytest.raises(InputError, match=r"^image bytes: "):
            ImagePipeline(models["keep-image"]).bytes(b"not an image")

    def test_existing_target_is_replaced_only_with_overwrite(self, models: Models, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(png(pixels(4, 4)))
        (tmp_path / "b.png").write_text("mine")
        pipeline = ImagePipeline(models["keep-image"])
        with pytest.raises(InputError, match="exists already"):
            pipeline.file(tmp_path / "a.png", tmp_path / "b.png")
        assert (tmp_path / "b.png").read_text() == "mine"
        pipeline.file(tmp_path / "a.png", tmp_path / "b.png", overwrite=True)
        assert (read_image(tmp_path / "b.png").pixels == read_image(tmp_path / "a.png").pixels).all()


class TestArrays:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(12, 17), (12, 17, 1), (12, 17, 3), (1, 1), (3, 3, 3)])
    def test_numpy(self, models: Models, dtype: Any, shape: tuple[int, ...]) -> None:
        x = pixels(*shape, dtype=dtype)
        y = denoise_image(x, model=models["keep-image"])
        assert (type(y), y.dtype, y.shape) == (np.ndarray, dtype, shape)
        np.testing.assert_allclose(y, x, rtol=0, atol=1e-6 if np.dtype(dtype).kind == "f" else 0)

    @pytest.mark.parametrize("dtype", [np.uint16, np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("strength", [0, 1])
    def test_big_endian_numpy(self, models: Models, dtype: Any, strength: float) -> None:
        x = pixels(12, 17, 3, dtype=dtype)
        big_endian = x.astype(x.dtype.newbyteorder(">"))
        y = denoise_image(big_endian, model=models["blur-image"], strength=strength)
        assert y.dtype == big_endian.dtype
        np.testing.assert_array_equal(y, denoise_image(x, model=models["blur-image"], strength=strength))

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("shape", [(3, 9, 14), (1, 9, 14), (4, 3, 9, 14), (2, 1, 9, 14), (0, 3, 9, 14)])
    def test_tensors(self, models: Models, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        torch.manual_seed(0)
        x = (torch.rand(shape) * 255).to(torch.uint8) if dtype == torch.uint8 else torch.rand(shape).to(dtype)
        y = denoise_image(x, model=models["keep-image"])
        assert (y.dtype, y.shape) == (dtype, x.shape)
        torch.testing.assert_close(y, x, rtol=0, atol=1e-2 if dtype == torch.bfloat16 else 1e-6)

    def test_items_of_a_batch_are_independent(self, models: Models) -> None:
        torch.manual_seed(0)
        x = torch.rand(3, 3, 20, 22)
        y = denoise_image(x, model=models["blur-image"])
        for denoised, item in zip(y, x, strict=True):
            torch.testing.assert_close(denoised, denoise_image(item, model=models["blur-image"]))
        as_array = denoise_image(x[0].permute(1, 2, 0).numpy(), model=models["blur-image"])
        assert (as_array == y[0].permute(1, 2, 0).numpy()).all()

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (np.zeros((3, 20, 20), np.uint8), r"array has shape \(3, 20, 20\); expected \(height, width\)"),
            (np.zeros((20, 20, 4), np.uint8), "expected"),
            (np.zeros(20, np.uint8), "expected"),
            (np.zeros((1, 20, 20, 3), np.uint8), "expected"),
            (np.zeros((0, 20, 3), np.uint8), "none of them 0"),
            (np.zeros((20, 0), np.uint8), "none of them 0"),
            (np.zeros((20, 20), np.int64), "int64; expected uint8"),
            (np.zeros((20, 20), bool), "bool; expected uint8"),
            (np.full((20, 20), np.nan), "must be finite"),
            (torch.zeros(20, 20, 3), r"tensor has shape .*; expected \(1 or 3, height, width\)"),
            (torch.zeros(20, 20), "expected"),
            (torch.zeros(3, 0, 20), "none of them 0"),
        ],
    )
    def test_invalid_arrays_are_refused(self, models: Models, x: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            denoise_image(x, model=models["keep-image"])

    @pytest.mark.parametrize("tile", [16, 1000])
    def test_sigma_conditioned_model_gets_sigma_in_signal_units(self, models: Models, tile: int) -> None:
        """With a network that returns sigma itself: in signal units, whatever the units of the pixels."""

        class Echo:
            facts, device, precision = NetworkFacts(ndim=2, channels=3, blind=False), "cpu", "float32"

            def denoise(self, x: NDArray[Any], sigma: NDArray[Any] | None = None) -> NDArray[Any]:
                assert sigma is not None
                assert sigma.shape == x.shape[:1]
                return np.broadcast_to(sigma[:, None, None, None], x.shape)

        pipeline = ImagePipeline(models["keep-image"], tile=tile, precision="float32")
        pipeline.card, pipeline.network = replace(pipeline.card, blind=False), Echo()
        for x, value in ((pixels(40, 30, 3), 51), (pixels(40, 30, 3, dtype=np.uint16), 13107)):
            assert (pipeline.frame(Image(x), sigma=0.2).pixels == value).all()
        noisy = np.clip(128 + np.random.default_rng(0).normal(0, 20, (60, 70, 3)), 0, 255).astype(np.uint8)
        assert np.ptp(pipeline.frame(Image(noisy)).pixels) == 0
        assert pipeline.frame(Image(noisy)).pixels[0, 0, 0] == pytest.approx(20, abs=1)  # estimated
        with pytest.raises(ConfigError, match="expected 0 to 1"):
            pipeline.frame(Image(pixels(4, 4, 3)), sigma=1.5)
        pipeline.card = replace(pipeline.card, sigma=(0.0, 0.2))
        assert pipeline.frame(Image(pixels(4, 4, 3)), sigma=0.2).pixels.max() == 51
        pipeline.card = replace(pipeline.card, sigma=(0.0, 0.04))
        assert (pipeline.frame(Image(noisy)).pixels == 10).all()  # an estimate is limited to the range of the model
        pipeline.file(io.BytesIO(png(noisy)), out := io.BytesIO())
        assert (np.asarray(Pillow.open(out)) == 10).all()
        pipeline.card = replace(pipeline.card, sigma=(0.0, 0.2))
        with pytest.raises(ConfigError, match=r"expected 0 to 0.2 \(51 of 255\)"):
            pipeline.frame(Image(pixels(4, 4, 3)), sigma=0.25)

    def test_noise_of_floats_may_exceed_full_scale(self) -> None:
        x = np.random.default_rng(0).normal(0, 2, (60, 70, 3)).astype(np.float32)
        for sigma in (2.0, "auto"):
            assert denoise_image(x, sigma, model=SIGMA_MODEL).std() < 0.5  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="expected 0 to 255"):
            denoise_image(pixels(20, 20, 3), 300)

    @pytest.mark.parametrize("kind", [np.float32, np.int64, torch.tensor])
    def test_sigma_may_be_a_scalar_of_any_type(self, models: Models, kind: Any) -> None:
        x = pixels(20, 20, 3)
        expected = denoise_image(x, 25, model=models["sigma-image"])
        np.testing.assert_array_equal(denoise_image(x, kind(25), model=models["sigma-image"]), expected)
        with pytest.raises(ConfigError, match="expected 0 to 255"):
            denoise_image(x, kind(300), model=models["sigma-image"])

    @pytest.mark.parametrize("kind", ["numpy", "torch"])
    def test_output_has_its_own_memory(self, models: Models, kind: str) -> None:
        x = pixels(12, 13, 3, dtype=np.float32)
        noisy: Any = x if kind == "numpy" else torch.from_numpy(x).permute(2, 0, 1)
        for strength in (0.0, 1.0):
            before = x.copy()
            denoise_image(noisy, model=models["keep-image"], strength=strength)[:] = 7
            np.testing.assert_array_equal(x, before)

    def test_blind_model_refuses_a_sigma(self, models: Models) -> None:
        with pytest.raises(ConfigError, match="keep-image is blind"):
            denoise_image(pixels(4, 4), 25, model=models["keep-image"])
        with pytest.raises(ConfigError, match="is blind"):
            ImagePipeline(models["keep-image"]).bytes(png(pixels(4, 4)), sigma=0.1)


class TestFloatRange:
    """Lights far above white, fill values, and floats in units of their own."""

    @staticmethod
    def noisy(
        scale: float = 1.0, side: int = 96, sigma: float = 0.05
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return a smooth scene without and with noise."""
        rows, columns = np.indices((side, side))
        clean = 0.4 + 0.2 * np.sin(columns / 9) * np.cos(rows / 13)
        clean = clean[..., None] * np.array([1, 0.9, 0.7])
        noise = np.random.default_rng(0).normal(0, sigma, clean.shape)
        return clean * scale, ((clean + noise) * scale).astype(np.float32)

    @staticmethod
    def rms(x: NDArray[Any]) -> float:
        return float(np.sqrt(np.square(x.astype(np.float64)).mean()))

    @pytest.mark.parametrize("sigma", [0.02, 0.1, 0.3])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_ordinary_pixels_have_no_range(self, sigma: float, dtype: Any) -> None:
        """Unclipped noise is no outlier, and integers and floats from 0 to 1 keep every bit."""
        x = self.noisy(sigma=sigma)[1]
        if dtype != np.float32:
            x = (x.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)
        assert find_float_range(Image(x)) is None
        x[40, 40] = x[7, 7] = 1  # floats that are 0 almost everywhere
        assert find_float_range(Image(np.where(x == 1, x, 0).astype(dtype))) is None

    @pytest.mark.parametrize("name", IMAGE_MODELS)
    @pytest.mark.parametrize("peak", [10.0, 1e4, 1e19, 3.4e38, -1e30, -3.4e38])
    def test_outlier_does_not_change_its_surroundings(self, name: str, peak: float) -> None:
        clean, x = self.noisy()
        pipeline = ImagePipeline(name, precision="float32")
        expected = pipeline.frame(Image(x)).pixels
        x[50:52, 40:42] = peak
        y = pipeline.frame(Image(x)).pixels
        light = np.zeros(x.shape[:2], np.bool_)
        light[50:52, 40:42] = True
        assert (y[light] == x[light]).all()
        assert self.rms((y - clean)[~light]) < 1.1 * self.rms((expected - clean)[~light])
        np.testing.assert_allclose(y[~light], expected[~light], atol=0.05)
        np.testing.assert_allclose(noise_of(Image(x)), noise_of(Image(self.noisy()[1])), rtol=0.05)

    @pytest.mark.parametrize("size", [0.3, 0.6])
    def test_bright_area_is_denoised_apart(self, size: float) -> None:
        """A window at 50 times white: neither it nor the room has a rim, and both lose their noise."""
        clean, x = self.noisy()
        bright = np.zeros(x.shape[:2], np.bool_)
        bright[10 : 10 + round(size * 96), 30:60] = True
        clean[bright] += 50
        x[bright] += 50
        y = ImagePipeline(precision="float32").frame(Image(x)).pixels
        for area in (bright, ~bright):
            assert self.rms((y - clean)[area]) < 0.35 * self.rms((x - clean)[area])

    def test_tiles_agree_beside_outliers(self) -> None:
        _, x = self.noisy(side=300)
        x[100:130, 150:190] += 40
        x[3, 3] = 1e30
        whole, tiled = (ImagePipeline(tile=t, precision="float32").frame(Image(x)).pixels for t in (1000, 180))
        inside = x < 1e3
        np.testing.assert_allclose(tiled[inside], whole[inside], atol=1 / 255)

    @pytest.mark.parametrize("fill", [-3.4e38, 3.4e38, -9999.0])
    def test_fill_value_of_half_of_the_pixels_is_kept(self, fill: float) -> None:
        clean, x = self.noisy(300.0)
        filled = np.indices(x.shape[:2])[1] > 50
        x[filled] = fill
        y = denoise_image(x, "auto")
        assert (y[filled] == np.float32(fill)).all()
        assert self.rms((y - clean)[~filled]) < 0.35 * self.rms((x - clean)[~filled])

    @pytest.mark.parametrize("white", [255.0, 4095.0, 65535.0, 1e30])
    @pytest.mark.parametrize("sigma", [None, "auto", 0.05])
    def test_units_do_not_matter(self, white: float, sigma: Any) -> None:
        """Noise is removed as in the same image with a white of 1, with a sigma in the units of the pixels, too."""
        clean, x = self.noisy()
        expected = self.rms(denoise_image(x, sigma) - clean)
        y = denoise_image(x * np.float32(white), sigma if sigma in (None, "auto") else sigma * white)
        assert self.rms(y / white - clean) == pytest.approx(expected, rel=0.1)
        assert noise_of(Image(x * np.float32(white))) == pytest.approx(noise_of(Image(x)) * white, rel=0.1)

    def test_stars_in_units_of_their_own_have_no_rings(self) -> None:
        rows, columns = np.indices((128, 128))
        distance = np.hypot(rows - 64, columns - 64)
        clean = 600 + 60_000 * np.exp(-(distance**2) / 5)
        x = (clean + np.random.default_rng(0).normal(0, 30, clean.shape)).astype(np.float32)
        for sigma in (None, "auto"):
            y = denoise_image(x, sigma)  # type: ignore[arg-type]
            assert self.rms((y - clean)[(distance > 8) & (distance < 40)]) < 6
            assert self.rms((y - clean)[distance < 4]) < 60

    def test_values_that_rounding_would_lose_are_refused(self, models: Models) -> None:
        x = self.noisy()[1]
        x[:, ::2] = np.random.default_rng(1).normal(0, 1e30, x[:, ::2].shape)
        with pytest.raises(InputError, match=r"^float pixels range from -.*e\+30 to .*e\+30; expected"):
            denoise_image(x, model=models["keep-image"])
        file = io.BytesIO()
        frames = [Image(x)]
        write_image(file, frames, ImageFormat("TIFF", "F", 32, {"frames": [{}]}))
        with pytest.raises(InputError, match=r"^image bytes: float pixels range from"):
            ImagePipeline(models["keep-image"]).bytes(file.getvalue())

    def test_values_beyond_float32_are_refused(self, models: Models) -> None:
        x = np.full((8, 8), 1e300)
        with pytest.raises(InputError, match=r"pixels range from 1e\+300 to 1e\+300; expected at most 3.4e\+38"):
            denoise_image(x, model=models["keep-image"])

    @pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 3), (40, 1, 1), (2, 2, 3), (5, 9, 1)])
    @pytest.mark.parametrize("value", [3.4028235e38, -1e30, 5.0, 1e-40])
    def test_any_size_and_value(self, models: Models, shape: tuple[int, ...], value: float) -> None:
        uniform = np.full(shape, value, np.float32)
        spot = np.full(shape, 0.5, np.float32)
        spot[-1, -1] = value
        for x in (uniform, spot):
            for model in ("keep-image", "blur-image"):
                y = denoise_image(x, model=models[model])
                assert np.isfinite(y).all()
                if model == "keep-image":
                    np.testing.assert_allclose(y, x, rtol=1e-6, atol=1e-6)

    def test_infinite_output_is_not_blamed_on_the_file(self, models: Models) -> None:
        class Overflow:
            facts, device, precision = NetworkFacts(ndim=2, channels=3), "cpu", "float32"

            def denoise(self, x: NDArray[Any], sigma: NDArray[Any] | None = None) -> NDArray[Any]:
                return np.full_like(x, np.inf)

        pipeline = ImagePipeline(models["keep-image"], precision="float32")
        pipeline.network = Overflow()
        with pytest.raises(InputError, match=r"the output of the network is not finite"):
            pipeline.frame(Image(self.noisy()[1]))

    def test_number_as_sigma_of_a_file_in_other_units_is_reported(self, tmp_path: Path) -> None:
        for white in (1.0, 4095.0):
            x = self.noisy(white)[1][..., 0]
            Pillow.fromarray(x).save(tmp_path / "a.tif")
            for sigma in (0.05, "auto"):
                result = ImagePipeline(SIGMA_MODEL).file(
                    tmp_path / "a.tif",
                    tmp_path / "b.tif",
                    sigma=sigma,  # type: ignore[arg-type]
                    overwrite=True,
                )
                expected = white > 1 and sigma != "auto"
                assert any("a sigma of 255 is 1.0" in warning for warning in result.warnings) == expected


class TestSettings:
    def test_settings_out_of_range_are_refused(self, models: Models) -> None:
        with pytest.raises(ConfigError, match="tile is 0"):
            ImagePipeline(models["keep-image"], tile=0)
        with pytest.raises(ConfigError, match="is a denoiser for audio; expected a denoiser for image"):
            ImagePipeline(models["keep-audio"])


class TestBundled:
    """Laws of the bundled weights."""

    @pytest.mark.parametrize("name", IMAGE_MODELS)
    @pytest.mark.parametrize("level", [10, 40])
    def test_brightness_and_colour_are_kept(self, name: str, level: float, noisy_scene: Scene) -> None:
        x = noisy_scene(500, level / 255)
        y = ImagePipeline(name).frame(Image(x), sigma=level / 255).pixels
        assert np.abs((y - x).mean(axis=(0, 1))).max() <= 0.2 / 255
        assert (y - x).std() > 0.8 * level / 255

    @pytest.mark.parametrize("name", IMAGE_MODELS)
    @pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (12, 200, 90)])
    def test_uniform_images_are_kept(self, name: str, colour: tuple[int, int, int]) -> None:
        x = np.full((75, 130, 3), colour, np.uint8)
        assert (ImagePipeline(name).frame(Image(x)).pixels == x).all()

    @pytest.mark.parametrize("name", IMAGE_MODELS)
    def test_sigma_replaces_the_estimate(self, name: str, noisy_scene: Scene) -> None:
        x = (255 * noisy_scene(100, 0.1)).clip(0, 255).astype(np.uint8)
        given, low, estimated = (denoise_image(x, sigma, model=name) for sigma in (25.5, 2.0, "auto"))
        assert np.abs(given.astype(float) - estimated).mean() < 3
        assert (denoise_image(x, model=name) == estimated).all()
        assert np.abs(low.astype(float) - x).mean() < 0.5 * np.abs(given.astype(float) - x).mean()

    def test_posterior_samples_select_the_prior(self) -> None:
        options = (DenoiseOptions(steps=1, sigma=0.1), DenoiseOptions(steps=1, seed=0))
        assert [default_model(o) for o in options] == [AUTO, SIGMA_MODEL]

    def test_sigma_that_is_no_number_is_refused(self) -> None:
        x = pixels(8, 8, 3)
        with pytest.raises(ConfigError, match="sigma is 'loud'; expected auto or a number"):
            denoise_image(x, "loud")  # type: ignore[arg-type]


class TestPerception:
    """The sigma-conditioned model as a prior; the distribution of samples is tested with the samplers."""

    def pipeline(self, models: Models, **settings: Any) -> ImagePipeline:
        return ImagePipeline(models["sigma-image"], precision="float32", **settings)

    def test_sample_depends_on_the_seed_and_not_on_the_tiles(self, models: Models) -> None:
        x = Image(np.random.default_rng(0).uniform(0, 1, (150, 131, 3)).astype(np.float32))
        options: dict[str, Any] = {"sigma": 0.4, "perception": 1.0, "steps": 4}
        whole, *others = (self.pipeline(models, tile=t).frame(x, seed=3, **options).pixels for t in (1000, 64, 96))
        for other in others:
            np.testing.assert_allclose(other, whole, atol=1e-4)
        pipeline = self.pipeline(models)
        np.testing.assert_array_equal(pipeline.frame(x, seed=3, **options).pixels, whole)
        assert np.abs(pipeline.frame(x, seed=4, **options).pixels - whole).std() > 1e-3

    def test_perception_mixes_mean_and_sample(self, models: Models) -> None:
        x = Image(np.random.default_rng(0).uniform(0, 1, (40, 50, 1)).astype(np.float32))
        pipeline = self.pipeline(models)
        mean = pipeline.frame(x, sigma=0.1).pixels
        outputs = {p: pipeline.frame(x, sigma=0.1, perception=p).pixels for p in (0.0, 0.25, 1.0)}
        np.testing.assert_array_equal(outputs[0.0], mean)
        np.testing.assert_allclose(outputs[0.25], 0.75 * mean + 0.25 * outputs[1.0], atol=1e-6)
        np.testing.assert_array_equal(pipeline.frame(x, sigma=0.1, perception=1.0, steps=1).pixels, mean)
        np.testing.assert_array_equal(
            pipeline.frame(x, sigma=0.0, perception=1.0).pixels, pipeline.frame(x, sigma=0.0).pixels
        )

    def test_result_has_the_residual_of_a_sample(self, models: Models, tmp_path: Path) -> None:
        Pillow.fromarray(pixels(40, 50)).save(tmp_path / "a.png")
        pipeline = self.pipeline(models)
        sample = pipeline.file(tmp_path / "a.png", tmp_path / "b.png", sigma=0.1, perception=1.0, seed=0).asdict()
        assert 0 < sample["residual_by_sigma"] < 20
        assert -1 <= sample["residual_correlation"] <= 1
        mean = pipeline.file(tmp_path / "a.png", tmp_path / "c.png", sigma=0.1).asdict()
        assert "residual_by_sigma" not in mean

    def test_rejected_sample_is_reported(self, models: Models, tmp_path: Path) -> None:
        """With a sigma far below the noise, the network removes more than noise of that sigma."""
        Pillow.fromarray(pixels(60, 50)).save(tmp_path / "a.png")
        result = self.pipeline(models).file(tmp_path / "a.png", tmp_path / "b.png", sigma=0.02, perception=1.0)
        assert "was replaced by the posterior mean" in result.warnings[0]

    def test_hidden_pixels_do_not_affect_a_sample(self, models: Models) -> None:
        """Colours of fully transparent pixels have no effect on visible ones."""
        x = np.random.default_rng(0).uniform(0, 1, (60, 64, 3)).astype(np.float32)
        alpha = np.ones((60, 64), np.float32)
        alpha[:, 32:] = 0
        other = np.where(alpha[..., None] > 0, x, x + 50).astype(np.float32)
        options: dict[str, Any] = {"sigma": 0.4, "perception": 1.0, "steps": 3}
        a, b = (self.pipeline(models).frame(Image(z, alpha), **options).pixels for z in (x, other))
        np.testing.assert_allclose(a[:, :32], b[:, :32], atol=1e-5)
        assert (b[:, 32:] == other[:, 32:]).all()

    def test_perception_selects_the_sigma_conditioned_model(self) -> None:
        x = pixels(24, 20)
        first, same, other = (denoise_image(x, sigma=25, perception=1, steps=3, seed=s) for s in (0, 0, 1))
        np.testing.assert_array_equal(first, same)
        assert (first != other).any()

    def test_unsupported_options_are_refused(self, models: Models) -> None:
        x = Image(pixels(8, 8, 3))
        with pytest.raises(ConfigError, match="no posterior samples"):
            ImagePipeline(models["keep-image"]).frame(x, perception=0.5)
        with pytest.raises(ConfigError, match="leave perception out"):
            ImagePipeline(models["vary-image"]).frame(x, perception=0.5)
        for wrong in ({"perception": 1.5}, {"perception": float("nan")}, {"perception": 1, "steps": 0}):
            with pytest.raises(ConfigError, match="expected"):
                self.pipeline(models).frame(x, **wrong)  # type: ignore[arg-type]
