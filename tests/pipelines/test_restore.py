"""Restoration by a prior: each task undoes what was done, and everything else stays."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps
from PIL.ExifTags import IFD
from PIL.ExifTags import Base as Tag
from scipy.ndimage import gaussian_filter

from denoise.errors import ConfigError, InputError
from denoise.files.image import ImageReader, read_image
from denoise.files.image.exif import with_size
from denoise.options import RestoreOptions
from denoise.pipelines.image import ImagePipeline
from denoise.pipelines.image_tasks import MISSING_THRESHOLD, prepare_task
from denoise.pipelines.restore import RestorePipeline
from denoise.registry import load
from denoise.signals import Image, ImageFormat
from denoise.weights import save_weights

SIDE = 64


@pytest.fixture(scope="module")
def pipeline() -> RestorePipeline:
    return RestorePipeline("gaussian")


def scene(height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    """Smooth shades with edges, as in photographs."""
    y, x = np.mgrid[:height, :width] / SIDE
    shades = np.stack([0.3 + 0.4 * x, 0.5 + 0.2 * np.sin(6 * y), 0.7 - 0.3 * x * y], axis=-1)
    shades[(x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06] = (0.9, 0.8, 0.3)
    return np.rint(255 * shades).astype(np.uint8)


def save(path: Path, pixels: NDArray[Any], **settings: Any) -> Path:
    PillowImage.fromarray(pixels).save(path, **settings)
    return path


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def holes() -> NDArray[np.uint8]:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:24, 5:50] = mask[8:40, 40:43] = 255
    mask[24, 5:50] = 20  # below the limit: observed
    return mask


def test_inpainting_fills_holes_and_keeps_every_other_pixel(pipeline: RestorePipeline, tmp_path: Path) -> None:
    clean, mask = scene(), holes()
    damaged = np.where(mask[..., None] > 255 * MISSING_THRESHOLD, np.uint8(255), clean)
    source = save(tmp_path / "damaged.png", damaged)
    options = RestoreOptions(task="inpaint", mask=save(tmp_path / "mask.png", mask), steps=20)
    result = pipeline.file(source, tmp_path / "out.png", options)
    restored = read_image(tmp_path / "out.png").pixels
    hole = mask > 255 * MISSING_THRESHOLD
    assert np.array_equal(restored[~hole], clean[~hole])
    assert psnr(restored[hole], clean[hole]) > 25 > psnr(damaged[hole], clean[hole])
    assert result.output == str(tmp_path / "out.png")
    other = pipeline.frame(Image(damaged), RestoreOptions(task="inpaint", mask=options.mask, steps=20, seed=1))
    assert not np.array_equal(other.pixels, restored)


def save_turned(path: Path, upright: NDArray[Any], orientation: int) -> Path:
    """Save an image that viewers show upright; Pillow is the oracle."""
    exif = PillowImage.Exif()
    exif[Tag.Orientation] = orientation
    turns = dict(zip(range(2, 9), (0, 3, 1, 5, 2, 6, 4), strict=True))  # Pillow's transpositions of pixels for storage
    picture = PillowImage.fromarray(upright)
    if orientation > 1:
        picture = picture.transpose(PillowImage.Transpose(turns[orientation]))
    picture.save(path, exif=exif)
    assert np.array_equal(displayed(path), upright)
    return path


def displayed(path: Path) -> NDArray[Any]:
    with PillowImage.open(path) as picture:
        return np.asarray(ImageOps.exif_transpose(picture))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["upright", "as the image", "other"])
def test_the_mask_lies_where_viewers_show_it(
    pipeline: RestorePipeline, kind: str, orientation: int, tmp_path: Path
) -> None:
    clean, mask = scene(48, 64), np.zeros((48, 64), np.uint8)
    mask[4:8, 10:40] = 255
    damaged = np.where(mask[..., None] > 0, np.uint8(255), clean)
    source = save_turned(tmp_path / "a.png", damaged, orientation)
    mask_orientation = {"upright": 1, "as the image": orientation, "other": 9 - orientation}[kind]
    options = RestoreOptions(task="inpaint", mask=save_turned(tmp_path / "mask.png", mask, mask_orientation), steps=8)
    pipeline.file(source, tmp_path / "out.png", options)
    restored = displayed(tmp_path / "out.png")
    assert np.array_equal(restored[mask == 0], clean[mask == 0])
    assert psnr(restored[mask > 0], clean[mask > 0]) > 25 > psnr(damaged[mask > 0], clean[mask > 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_kernel_is_the_one_that_viewers_show(pipeline: RestorePipeline, orientation: int, tmp_path: Path) -> None:
    track = np.zeros((4, 7), np.uint8)  # of an even side, whose middle must not move
    track[0, :5], track[2, 3] = 200, 55
    expected = np.pad(track, ((0, 1), (0, 0))) / track.sum()
    source = save_turned(tmp_path / "a.png", scene(16, 24), orientation)
    for kernel in (save(tmp_path / "k.png", track), save_turned(tmp_path / "turned.png", track, 6)):
        options = RestoreOptions(task="deblur", kernel=kernel, sigma=0.01)
        with ImageReader(source) as reader:
            task = prepare_task(next(iter(reader)), options, pipeline.pipeline, reader.format)
        stored = task.operator.operator.kernel.float().numpy()  # type: ignore[attr-defined]
        save_turned(tmp_path / "kernel.tif", expected.astype(np.float32), orientation)
        np.testing.assert_allclose(stored, read_image(tmp_path / "kernel.tif").pixels[..., 0], atol=1e-6)


def test_a_mask_of_the_stored_shape_is_refused(pipeline: RestorePipeline, tmp_path: Path) -> None:
    source = save_turned(tmp_path / "a.png", scene(48, 64), 6)
    options = RestoreOptions(task="inpaint", mask=save(tmp_path / "mask.png", holes()[:, :48]), steps=2)
    with pytest.raises(
        ConfigError, match=r"48 x 64 pixels, the image as displayed of 64 x 48\. Resize or turn the mask"
    ):
        pipeline.file(source, tmp_path / "out.png", options)


def test_what_lies_under_the_mask_does_not_matter(pipeline: RestorePipeline, tmp_path: Path) -> None:
    options = RestoreOptions(task="inpaint", mask=save(tmp_path / "mask.png", holes()), steps=3)
    hole = holes()[..., None] > 255 * MISSING_THRESHOLD
    black, white = (pipeline.frame(Image(np.where(hole, np.uint8(v), scene())), options).pixels for v in (0, 255))
    assert np.array_equal(black, white)


@pytest.mark.parametrize("by", ["blur", "kernel"])
def test_deblurring_is_sharper_up_to_the_edges(pipeline: RestorePipeline, by: str, tmp_path: Path) -> None:
    large = scene(SIDE + 16, SIDE + 16).astype(float)
    blurred = np.stack([gaussian_filter(large[..., i], 1.5, mode="nearest") for i in range(3)], axis=-1)
    clean, y = (np.rint(x[8:-8, 8:-8]).astype(np.uint8) for x in (large, blurred))
    kernel = np.zeros((13, 13))
    kernel[6, 6] = 1
    kernel = gaussian_filter(kernel, 1.5)
    given: Any = {"blur": 1.5}
    if by == "kernel":
        given = {"kernel": save(tmp_path / "kernel.png", np.rint(255 * kernel / kernel.max()).astype(np.uint8))}
    restored = pipeline.frame(Image(y), RestoreOptions(task="deblur", sigma=1 / 255, steps=20, **given)).pixels
    assert psnr(restored, clean) > psnr(y, clean) + 3
    edge = np.ones((SIDE, SIDE), bool)
    edge[4:-4, 4:-4] = False
    assert psnr(restored[edge], clean[edge]) > psnr(y[edge], clean[edge])


@pytest.mark.parametrize("factor", [2, 4])
def test_upscaling_agrees_with_the_small_image(pipeline: RestorePipeline, factor: int, tmp_path: Path) -> None:
    clean = scene()
    n = SIDE // factor
    small = np.rint(clean.reshape(n, factor, n, factor, 3).mean(axis=(1, 3))).astype(np.uint8)
    source = save(tmp_path / "small.png", small, dpi=(72, 72))
    pipeline.file(source, tmp_path / "large.png", RestoreOptions(task="upscale", factor=factor, sigma=0.0, steps=20))
    large = read_image(tmp_path / "large.png").pixels
    assert large.shape == clean.shape
    with PillowImage.open(tmp_path / "large.png") as file:
        assert file.info["dpi"] == pytest.approx((72, 72), abs=0.1)
    means = large.reshape(n, factor, n, factor, 3).mean(axis=(1, 3))
    assert np.abs(means - small).mean() < 1.5
    assert psnr(large, clean) > psnr(small.repeat(factor, 0).repeat(factor, 1), clean) + 1


@pytest.mark.parametrize(("name", "order"), [("a.jpg", "<"), ("a.png", ">"), ("a.tif", "<"), ("a.webp", ">")])
def test_the_exif_of_a_larger_image_states_its_size(
    pipeline: RestorePipeline, name: str, order: str, tmp_path: Path
) -> None:
    exif = PillowImage.Exif()
    exif.endian = order
    exif[Tag.Make] = "camera"
    exif.get_ifd(IFD.Exif).update({Tag.ExifImageWidth: 20, Tag.ExifImageHeight: 16, Tag.LensModel: "a lens"})
    PillowImage.fromarray(scene(16, 20)).save(tmp_path / name, exif=exif.tobytes())
    with PillowImage.open(tmp_path / name) as file:
        assert file.getexif().get_ifd(IFD.Exif)[Tag.ExifImageWidth] == 20
    pipeline.file(tmp_path / name, tmp_path / f"large-{name}", RestoreOptions(task="upscale", factor=3, steps=2))
    with PillowImage.open(tmp_path / f"large-{name}") as file:
        exif = file.getexif()
        fields = exif.get_ifd(IFD.Exif)
        assert file.size == (fields[Tag.ExifImageWidth], fields[Tag.ExifImageHeight]) == (60, 48)
        assert (exif[Tag.Make], fields[Tag.LensModel]) == ("camera", "a lens")


def test_damaged_exif_stays_as_it_was() -> None:
    for exif in (b"", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\x09\0i\x87\x04"):
        assert with_size(ImageFormat(info={"exif": exif}), 9, 9).info["exif"] == exif


def test_alpha_and_16_bits_are_kept(pipeline: RestorePipeline) -> None:
    alpha = np.full((16, 20), 255, np.uint8)
    alpha[:4] = 0
    image = Image(scene(16, 20).astype(np.uint16) * 257, alpha)
    large = pipeline.frame(image, RestoreOptions(task="upscale", factor=2, steps=2))
    assert large.pixels.dtype == np.uint16
    assert large.alpha is not None
    assert np.array_equal(large.alpha, alpha.repeat(2, 0).repeat(2, 1))
    sharp = pipeline.frame(image, RestoreOptions(task="deblur", blur=0.5, steps=2))
    assert np.array_equal(sharp.pixels[:4], image.pixels[:4])


@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.float64])
def test_arrays_are_restored_as_frames(pipeline: RestorePipeline, dtype: Any) -> None:
    grey = scene(16, 24)[..., 0].astype(dtype) * {"u": 1, "f": 1 / 255}[np.dtype(dtype).kind]
    grey = grey.astype(dtype)
    options = RestoreOptions(task="upscale", factor=2, steps=2)
    restored = pipeline.array(grey, options)
    assert (restored.shape, restored.dtype) == ((32, 48), grey.dtype)
    native = grey.astype(np.float32 if grey.dtype.kind == "f" else grey.dtype.newbyteorder("="))
    np.testing.assert_array_equal(restored, pipeline.frame(Image(native[..., None]), options).pixels[..., 0])
    with pytest.raises(InputError, match=r"array has shape \(8, 8, 4\)"):
        pipeline.array(np.zeros((8, 8, 4), np.uint8), options)


def test_samples_are_written_with_their_mean(pipeline: RestorePipeline, tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", scene(16, 16))
    options = RestoreOptions(task="upscale", factor=2, steps=2, samples=3)
    result = pipeline.file(source, tmp_path / "b.png", options)
    names = [Path(file).name for file in result.files]
    assert names == ["b.sample-1.png", "b.sample-2.png", "b.sample-3.png", "b.mean.png", "b.std.png"]
    samples = np.stack([read_image(tmp_path / name).pixels for name in names[:3]]).astype(float)
    assert np.abs(samples.mean(axis=0) - read_image(tmp_path / "b.mean.png").pixels).max() <= 1
    with pytest.raises(InputError, match="exists already"):
        pipeline.file(source, tmp_path / "b.png", options)


def test_a_prior_of_digits_denoises_digits_of_any_size() -> None:
    digit = np.zeros((40, 61), np.uint8)
    digit[8:30, 20:24] = digit[8:12, 14:24] = 230
    noise = np.random.default_rng(0).normal(0, 50, digit.shape)
    noisy = np.clip(digit + noise, 0, 255).astype(np.uint8)[..., None]
    denoised = ImagePipeline("mnist-diffusion").frame(Image(noisy), sigma=50 / 255)
    assert psnr(denoised.pixels[..., 0], digit) > psnr(noisy[..., 0], digit) + 5
    clean = digit[:28, 7:35]
    blurred = np.rint(gaussian_filter(clean.astype(float), 1.0)).astype(np.uint8)
    restored = RestorePipeline("mnist-diffusion").frame(
        Image(blurred[..., None]), RestoreOptions(task="deblur", blur=1.0, sigma=1 / 255, steps=8)
    )
    assert restored.pixels.shape == (28, 28, 1)
    assert psnr(restored.pixels[..., 0], clean) > psnr(blurred, clean) + 3


def test_noise_is_removed_by_one_call_and_samples_by_steps() -> None:
    noisy = np.clip(scene(24, 24) + np.random.default_rng(0).normal(0, 25, (24, 24, 3)), 0, 255).astype(np.uint8)
    options = RestoreOptions(task="denoise", sigma=25 / 255)
    for prior in ("gaussian", "patch-flow"):
        restored = RestorePipeline(prior).frame(Image(noisy), options).pixels
        assert np.array_equal(restored, ImagePipeline(prior).frame(Image(noisy), sigma=25 / 255).pixels)
        assert psnr(restored, scene(24, 24)) > psnr(noisy, scene(24, 24)) + 4
        with pytest.raises(ConfigError, match=f"prior {prior} removes noise in one call, which takes no steps"):
            RestorePipeline(prior).check(replace(options, steps=5))
        with pytest.raises(ConfigError, match="samples are written to files; use file"):
            RestorePipeline(prior).frame(Image(noisy), replace(options, samples=2))


def test_hidden_pixels_are_not_missing(pipeline: RestorePipeline, tmp_path: Path) -> None:
    alpha = np.full((SIDE, SIDE), 255, np.uint8)
    alpha[holes() > 0] = 0
    options = RestoreOptions(task="inpaint", mask=save(tmp_path / "mask.png", holes()), steps=2)
    with pytest.raises(ConfigError, match="no visible pixel is white"):
        pipeline.frame(Image(scene(), alpha), options)
    partly_visible = alpha.copy()
    partly_visible[:30] = 255
    restored = pipeline.frame(Image(scene(), partly_visible), options).pixels
    changed = (restored != scene()).any(axis=-1)
    assert changed[20:24, 5:50].mean() > 0.9
    assert not changed[30:].any()


def test_a_palette_and_a_jpeg_are_written_in_their_formats(pipeline: RestorePipeline, tmp_path: Path) -> None:
    options = RestoreOptions(task="inpaint", mask=save(tmp_path / "mask.png", holes()), steps=2)
    away = np.ones((SIDE, SIDE), bool)
    away[12:48, :56] = False  # of the hole, by more than a block of JPEG
    for name, mode in (("a.gif", "P"), ("a.jpg", "RGB")):
        PillowImage.fromarray(scene()).convert(mode).save(tmp_path / name)
        before = read_image(tmp_path / name).pixels[..., :3].astype(int)
        pipeline.file(tmp_path / name, tmp_path / f"out-{name}", options)
        with PillowImage.open(tmp_path / f"out-{name}") as file:
            assert (file.format, file.size) == ({"a.gif": "GIF", "a.jpg": "JPEG"}[name], (SIDE, SIDE))
        after = read_image(tmp_path / f"out-{name}").pixels[..., :3]
        assert np.abs(after - before)[away].mean() < 4  # both lose a little


def test_the_output_may_be_a_binary_file(pipeline: RestorePipeline, tmp_path: Path) -> None:
    source, buffer = save(tmp_path / "a.png", scene(16, 16)), io.BytesIO()
    options = RestoreOptions(task="upscale", factor=2, steps=2)
    pipeline.file(io.BytesIO(source.read_bytes()), buffer, options)
    pipeline.file(source, tmp_path / "b.png", options)
    buffer.seek(0)
    assert np.array_equal(read_image(buffer).pixels, read_image(tmp_path / "b.png").pixels)


def digit() -> NDArray[np.uint8]:
    """A seven, as smooth as handwriting."""
    strokes = np.zeros((28, 28))
    strokes[7:10, 8:20] = strokes[9:14, 17:20] = strokes[13:18, 15:18] = strokes[17:23, 13:16] = 255
    return np.rint(gaussian_filter(strokes, 0.7)).astype(np.uint8)[..., None]


@pytest.mark.parametrize("prior", ["mnist-vae", "mnist-flow"])
def test_a_prior_with_latents_restores_digits(prior: str, tmp_path: Path) -> None:
    pipeline, clean = RestorePipeline(prior), digit()
    hole = np.zeros((28, 28), np.uint8)
    hole[11:15] = 255
    mask = save(tmp_path / "mask.png", hole)
    damaged = np.where(hole[..., None] > 0, np.uint8(128), clean)
    restored = pipeline.frame(Image(damaged), RestoreOptions(task="inpaint", mask=mask, steps=40)).pixels
    assert np.array_equal(restored[hole == 0], clean[hole == 0])
    assert psnr(restored, clean) > psnr(np.where(hole[..., None] > 0, np.uint8(0), clean), clean) + 3
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 50, clean.shape), 0, 255).astype(np.uint8)
    denoised = pipeline.frame(Image(noisy), RestoreOptions(task="denoise", sigma=50 / 255, steps=40)).pixels
    assert psnr(denoised, clean) > psnr(noisy, clean) + 4
    colours = Image(np.concatenate([damaged, damaged, damaged], axis=2))
    assert pipeline.frame(colours, RestoreOptions(task="inpaint", mask=mask, steps=2)).pixels.shape == (28, 28, 3)


def test_what_priors_with_latents_cannot_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="mnist-vae has latents, which are found for linear measurements alone"):
        RestorePipeline("mnist-vae").frame(Image(digit()), RestoreOptions(task="declip", limit=0.5))
    with pytest.raises(ConfigError, match="mnist-vae finds the most probable latents: it has no posterior mean"):
        ImagePipeline("mnist-vae").frame(Image(digit()), sigma=0.1, perception=0.5)
    with pytest.raises(ConfigError, match=r"no posterior mean; use RestorePipeline \(--prior"):
        ImagePipeline("mnist-vae").frame(Image(digit()), sigma=0.1)
    large, options = Image(np.zeros((900, 600, 1), np.uint8)), RestoreOptions(task="denoise", sigma=0.1)
    with pytest.raises(ConfigError, match=r"600 x 900 pixels, \d+ windows of the prior; expected at most 1024"):
        RestorePipeline("mnist-vae").frame(large, options)


@pytest.mark.parametrize("prior", ["mnist-vae", "mnist-diffusion"])
def test_tiles_of_another_size_than_that_of_a_prior_are_refused(prior: str) -> None:
    with pytest.raises(ConfigError, match=f"{prior} takes tiles of 28 x 28 pixels alone"):
        RestorePipeline(prior, tile=64)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_artefacts_are_removed(pipeline: RestorePipeline, subsampling: int, tmp_path: Path) -> None:
    clean = scene()
    source = save(tmp_path / "a.jpg", clean, quality=10, subsampling=subsampling)
    decoded = read_image(source).pixels
    pipeline.file(source, tmp_path / "b.jpg", RestoreOptions(task="dejpeg", steps=10))
    written = read_image(tmp_path / "b.jpg").pixels  # with smaller steps, which do not bring the artefacts back
    assert psnr(written, clean) > psnr(decoded, clean) + 0.5
    options = RestoreOptions(task="dejpeg", quality=10, steps=10)
    if subsampling == 2:  # which a quality stands for
        assert psnr(pipeline.frame(Image(decoded), options).pixels, clean) > psnr(decoded, clean) + 0.5


def test_files_that_are_no_jpeg_are_refused_without_a_quality(pipeline: RestorePipeline, tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", scene())
    with pytest.raises(ConfigError, match=r"the image is no JPEG file of grey or YCbCr .*; give its quality"):
        pipeline.file(source, tmp_path / "b.png", RestoreOptions(task="dejpeg"))
    cmyk = tmp_path / "c.jpg"
    PillowImage.fromarray(scene()).convert("CMYK").save(cmyk)
    with pytest.raises(ConfigError, match=r"c\.jpg: the image has 4 colours"):
        pipeline.file(cmyk, tmp_path / "d.jpg", RestoreOptions(task="dejpeg"))


def test_clipped_highlights_are_only_raised(pipeline: RestorePipeline, tmp_path: Path) -> None:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    bump = 0.2 + 0.7 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.05)
    clean = np.rint(255 * np.stack([bump, bump, bump], axis=-1)).astype(np.uint8)
    clipped = np.minimum(clean, 190)
    restored = pipeline.frame(Image(clipped), RestoreOptions(task="declip")).pixels
    is_clipped = clipped == 190
    assert np.abs(restored[~is_clipped].astype(int) - clipped[~is_clipped]).max() <= 1
    assert restored[is_clipped].min() >= 189
    assert psnr(restored[is_clipped], clean[is_clipped]) > psnr(clipped[is_clipped], clean[is_clipped]) + 2
    white = save(tmp_path / "a.png", np.minimum(2 * clean.astype(int), 255).astype(np.uint8))
    result = pipeline.file(white, tmp_path / "b.png", RestoreOptions(task="declip", steps=2))
    assert any("multiplied by 0.67" in warning for warning in result.warnings)
    floats = pipeline.frame(Image(clipped.astype(np.float32) / 255), RestoreOptions(task="declip", steps=2))
    assert floats.pixels.dtype == np.float32
    with pytest.raises(ConfigError, match="at 250 of 255, but no pixel is"):
        pipeline.frame(Image(clipped), RestoreOptions(task="declip", limit=250 / 255))
    with pytest.raises(ConfigError, match="but every pixel is"):
        pipeline.frame(Image(clipped), RestoreOptions(task="declip", limit=0.05))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_that_are_not_clipped_are_refused_without_a_limit(pipeline: RestorePipeline, dtype: Any) -> None:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    bump = np.stack([0.3 + 0.6 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.05)] * 3, axis=-1)
    scale, options = 1.0 if dtype is np.float32 else np.iinfo(dtype).max, RestoreOptions(task="declip", steps=2)
    smooth, clipped = ((scale * pixels).astype(dtype) for pixels in (bump, np.minimum(bump, 0.8)))
    with pytest.raises(ConfigError, match=r"no clipping found: .* give --limit"):
        pipeline.frame(Image(smooth), options)
    pipeline.frame(Image(smooth), replace(options, limit=0.8))
    assert pipeline.frame(Image(clipped), options).pixels.max() > clipped.max()
    alpha = np.full((SIDE, SIDE), scale, dtype)
    alpha[:8] = 0
    smooth[:8] = scale  # hidden: no sign of clipping
    with pytest.raises(ConfigError, match="no clipping found"):
        pipeline.frame(Image(smooth, alpha), options)


def test_a_kernel_is_as_strong_as_it_is_opaque(pipeline: RestorePipeline, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layer = np.full((5, 5, 4), 255, np.uint8)
    layer[..., 3] = rng.integers(0, 256, (5, 5))
    grey, painted = save(tmp_path / "grey.png", layer[..., 3]), save(tmp_path / "layer.png", layer)
    a, b = (
        pipeline.frame(Image(scene(24, 24)), RestoreOptions(task="deblur", kernel=kernel, steps=2)).pixels
        for kernel in (grey, painted)
    )
    assert np.array_equal(a, b)


def test_masks_are_painted_on_transparent_layers_too(pipeline: RestorePipeline, tmp_path: Path) -> None:
    layer = np.full((SIDE, SIDE, 4), 255, np.uint8)
    layer[..., 3] = 255 * (holes() > 255 * MISSING_THRESHOLD)
    grey, painted = save(tmp_path / "grey.png", holes()), save(tmp_path / "layer.png", layer)
    a, b = (
        pipeline.frame(Image(scene()), RestoreOptions(task="inpaint", mask=mask, steps=2)).pixels
        for mask in (grey, painted)
    )
    assert np.array_equal(a, b)


def test_targets_and_sizes_are_refused_before_any_work(
    pipeline: RestorePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_sample", lambda *_: pytest.fail("sampled"))
    source = save(tmp_path / "a.png", scene())
    with pytest.raises(InputError, match="exists already"):
        pipeline.file(source, source, RestoreOptions(task="upscale", factor=2))
    with pytest.raises(ConfigError, match="the result would have 0 megapixels"):
        pipeline.file(source, tmp_path / "b.png", RestoreOptions(task="upscale", factor=2, max_megapixels=0.01))
    with pytest.raises(ConfigError, match="give a path"):
        pipeline.file(source, io.BytesIO(), RestoreOptions(task="upscale", factor=2, samples=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "inpaint"}, "the task inpaint needs mask; give it"),
        ({"task": "deblur"}, "needs blur or kernel; give one of them"),
        ({"task": "deblur", "blur": 1.0, "kernel": "k.png"}, "give one of them"),
        ({"task": "upscale", "factor": 9}, "factor is 9; expected 2 to 8"),
        ({"task": "upscale", "factor": 2, "mask": "m.png"}, "mask is for the task inpaint, not upscale"),
        ({"task": "upscale", "factor": 2, "sigma": 3.0}, "sigma is 3; expected 0 to 1"),
        ({"task": "upscale", "factor": 2, "steps": 1}, "steps is 1; expected 2 to 1000"),
        ({"task": "declip", "quality": 9}, "quality is for the task dejpeg, not declip"),
        ({"task": "declip", "sigma": 0.1}, "sigma is not for the task declip"),
        ({"task": "dejpeg", "sigma": 0.1}, "sigma is not for the task dejpeg"),
        ({"task": "dejpeg", "quality": 0}, "quality is 0; expected 1 to 100"),
        ({"task": "sharpen"}, "task is 'sharpen'; expected denoise, inpaint, deblur, upscale"),
    ],
)
def test_options_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RestoreOptions(**settings)


def test_inputs_that_are_refused(pipeline: RestorePipeline, tmp_path: Path) -> None:
    image = Image(scene())
    for name, mask, message in (
        ("small", np.full((SIDE, SIDE - 1), 255, np.uint8), "is of 63 x 64 pixels, the image of 64 x 64"),
        ("all", np.full((SIDE, SIDE), 255, np.uint8), "every pixel is white"),
        ("none", np.zeros((SIDE, SIDE), np.uint8), "no pixel is white"),
    ):
        path = save(tmp_path / f"{name}.png", mask)
        with pytest.raises(ConfigError, match=message):
            pipeline.frame(image, RestoreOptions(task="inpaint", mask=path))
    large = save(tmp_path / "large.png", np.full((99, 99), 9, np.uint8))
    with pytest.raises(ConfigError, match=r"the kernel is of 99 x 99 pixels, the image of 64 x 64"):
        pipeline.frame(image, RestoreOptions(task="deblur", kernel=large))
    black = save(tmp_path / "black.png", np.zeros((5, 5), np.uint8))
    with pytest.raises(ConfigError, match="is black"):
        pipeline.frame(image, RestoreOptions(task="deblur", kernel=black))
    floats = Image(400 * scene().astype(np.float32))
    with pytest.raises(ConfigError, match="units of their own"):
        pipeline.frame(floats, RestoreOptions(task="upscale", factor=2))
    with pytest.raises(ConfigError, match="photo takes no single sigma"):
        RestorePipeline("photo")
    with pytest.raises(ConfigError, match=r"prior flowers is no denoiser.* Use a diffusion or flow matching of pixels"):
        RestorePipeline("flowers")


def test_a_model_of_a_narrow_range_of_noise_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    module, card = load(models["sigma-image"])
    save_weights(tmp_path / "narrow.safetensors", module, replace(card, sigma=(0.0, 0.3)), {})
    with pytest.raises(ConfigError, match=r"was trained up to sigma 76.5 of 255; the sampler needs 255"):
        RestorePipeline(tmp_path / "narrow.safetensors")


def test_conjugate_gradients_invert_a_cropped_blur() -> None:
    from denoise.sampling.operators import Blur, Cropped

    torch.manual_seed(0)
    kernel = torch.rand(3, 3, dtype=torch.float64)
    operator = Cropped(Blur(kernel / kernel.sum()), (5, 6), (8, 9), iterations=200, tolerance=1e-12)
    x, y = torch.randn(1, 1, 8, 9, dtype=torch.float64), torch.randn(1, 1, 5, 6, dtype=torch.float64)
    torch.testing.assert_close((operator.forward(x) * y).sum(), (x * operator.adjoint(y)).sum())
    columns = [operator.forward(operator.adjoint(unit.view(1, 1, 5, 6))).flatten() for unit in torch.eye(30).double()]
    matrix = torch.stack(columns, dim=1) + 0.1 * torch.eye(30)
    expected = torch.linalg.solve(matrix, y.flatten())
    torch.testing.assert_close(operator.solve(y, 0.1).flatten(), expected)
    with pytest.raises(ConfigError, match="no spectrum"):
        operator.pseudoinverse(y)
