"""Raw files of cameras: DNG files written here, against their light and against LibRaw's own rendering."""

from __future__ import annotations

import io
import os
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms
from typer.testing import CliRunner

import denoise
from denoise.cli import app
from denoise.errors import InputError
from denoise.files.image import IMAGE_EXTENSIONS, ImageReader, raw, read_image, write_image
from denoise.files.image.raw import SHARP, Raw, develop
from denoise.files.image.registry import detect_container
from denoise.files.image.tiff_directory import decode_exif
from denoise.files.image.tones import KNEE, MAX_EXPOSURE, find_exposure, map_tones

rawpy = pytest.importorskip("rawpy")

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL = 1, 2, 3, 4, 5, 7, 10
FORMATS = {BYTE: "B", SHORT: "H", LONG: "I", RATIONAL: "I", SRATIONAL: "i"}
SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1, SRATIONAL: 8}
MOSAIC, LINEAR_SENSOR = 32803, 34892
XYZ_TO_SRGB = (3.2404542, -1.5371385, -0.4985314, -0.9692660, 1.8760108, 0.0415560, 0.0556434, -0.2040259, 1.0572252)
NEUTRAL = (0.5, 1.0, 0.6)  # the camera's response to grey
HEIGHT, WIDTH = 96, 128
EXIF = {33434: (RATIONAL, (1, 50)), 34855: (SHORT, (6400,)), 36867: (ASCII, b"2024:01:02 03:04:05\0"),
        37500: (UNDEFINED, b"Maker\0\0\0note"), 40962: (LONG, (160,)), 40961: (SHORT, (65535,))}  # fmt: skip
GPS = {0: (BYTE, (2, 3, 0, 0)), 1: (ASCII, b"N\0"), 2: (RATIONAL, (47, 1, 22, 1, 0, 1))}


def directory(order: str, position: int, fields: dict[int, Any]) -> bytes:
    """A directory at a position, with its values and sub-directories behind it."""
    start = position + 6 + 12 * len(fields)
    entries, values = b"", b""
    for tag, field in sorted(fields.items()):
        values += bytes(len(values) % 2)
        if isinstance(field, dict):
            kind, count, data = LONG, 1, struct.pack(order + "I", start + len(values))
            values += directory(order, start + len(values), field)
        else:
            kind, value = field
            data = value if isinstance(value, bytes) else struct.pack(f"{order}{len(value)}{FORMATS[kind]}", *value)
            count = len(data) // SIZES[kind]
        if len(data) > 4:
            data, values = struct.pack(order + "I", start + len(values)), values + data
        entries += struct.pack(order + "HHI", tag, kind, count) + data.ljust(4, b"\0")
    return struct.pack(order + "H", len(fields)) + entries + bytes(4) + values


def rationals(*values: float) -> tuple[int, ...]:
    return tuple(n for value in values for n in (round(value * 10_000), 10_000))


def encode_dng(
    sensor: NDArray[Any], *, black: int = 1024, white: int = 16_383, order: str = "<", orientation: int = 1,
    photometric: int = MOSAIC, fields: dict[int, Any] | None = None, data_last: bool = False,
) -> bytes:  # fmt: skip
    """A DNG with a red JPEG as a preview in its first directory, as cameras write it."""
    height, width = sensor.shape
    file = io.BytesIO()
    Pillow.new("RGB", (160, 120), (255, 0, 0)).save(file, "JPEG")
    preview, data = file.getvalue(), sensor.astype(order + "u2").tobytes()

    def directories(first: int, data_at: int) -> bytes:
        strips = {273: (LONG, (data_at,)), 277: (SHORT, (1,)), 278: (LONG, (height,)), 279: (LONG, (len(data),))}
        samples = strips | {
            254: (LONG, (0,)), 256: (LONG, (width,)), 257: (LONG, (height,)), 258: (SHORT, (16,)), 259: (SHORT, (1,)),
            262: (SHORT, (photometric,)), 50714: (LONG, (black,)), 50717: (LONG, (white,)),
        }  # fmt: skip
        if photometric == MOSAIC:
            samples |= {33421: (SHORT, (2, 2)), 33422: (BYTE, (0, 1, 1, 2))}
        main = {
            254: (LONG, (1,)), 256: (LONG, (160,)), 257: (LONG, (120,)), 258: (SHORT, (8, 8, 8)), 259: (SHORT, (7,)),
            262: (SHORT, (6,)), 271: (ASCII, b"Maker\0"), 272: (ASCII, b"Camera X\0"), 273: (LONG, (8,)),
            274: (SHORT, (orientation,)), 277: (SHORT, (3,)), 278: (LONG, (120,)), 279: (LONG, (len(preview),)),
            330: samples, 34665: EXIF, 34853: GPS, 50706: (BYTE, (1, 4, 0, 0)), 50708: (ASCII, b"Maker Camera X\0"),
            50721: (SRATIONAL, rationals(*XYZ_TO_SRGB)), 50728: (RATIONAL, rationals(*NEUTRAL)), 50778: (SHORT, (21,)),
        }  # fmt: skip
        return directory(order, first, main | (fields or {}))

    first = 8 + len(preview) + len(preview) % 2
    data_at = first + len(directories(0, 0))
    if not data_last:
        first, data_at = first + len(data), first
    start = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, first) + preview
    parts = {first: directories(first, data_at), data_at: data}
    return b"".join([start.ljust(min(parts), b"\0"), *(parts[at] for at in sorted(parts))])


def smooth_light(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.float64]:
    """Linear sRGB that interpolation hardly changes, with a white patch, and different at each corner."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    light = np.stack([0.1 + 0.3 * x, 0.05 + 0.4 * y, 0.4 - 0.35 * x], axis=-1)
    light[:16, :16] = 1.0
    return light


def expose(light: NDArray[Any], *, black: int = 1024, white: int = 16_383, noise: float = 0.0) -> NDArray[np.int64]:
    """Samples of a sensor with a Bayer mosaic, red first."""
    response = light * NEUTRAL
    mosaic = response[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = response[::2, ::2, 0], response[1::2, 1::2, 2]
    mosaic += np.random.default_rng(0).standard_normal(mosaic.shape) * np.sqrt(noise * mosaic + noise**2)
    return np.clip(np.rint(black + mosaic * (white - black)), 0, white).astype(np.int64)


def linear_light(data: bytes) -> NDArray[np.float64]:
    with rawpy.imread(io.BytesIO(data)) as file:
        return develop(file, SHARP) / 65_535


def undo_tones(pixels: NDArray[np.uint16], exposure: float) -> NDArray[np.float64]:
    """The linear light of a picture whose tones were mapped."""
    codes = np.arange(65_536, dtype=np.uint16)
    return np.interp(pixels, map_tones(codes, exposure), codes / 65_535)


MONOCHROME = {50721: (SRATIONAL, rationals(0, 1, 0)), 50728: (RATIONAL, rationals(1))}


def psnr(x: NDArray[Any], reference: NDArray[Any]) -> float:
    return float(-10 * np.log10(np.mean((x - reference) ** 2)))


SMOOTH = encode_dng(expose(smooth_light()))


# ---------------------------------------------------------------- the picture


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("black", "white"), [(0, 4095), (256, 4095), (1024, 16_383), (2048, 65_535)])
def test_light_is_that_of_the_sensor_and_white_balanced(order: str, black: int, white: int) -> None:
    light = smooth_light()
    sensor = expose(light, black=black, white=white)
    developed = linear_light(encode_dng(sensor, black=black, white=white, order=order))
    inner = np.s_[20:-4, 20:-4]  # away from the edges of the patch and of the picture
    np.testing.assert_allclose(developed[inner], light[inner], atol=3e-3)
    np.testing.assert_allclose(developed[4:12, 4:12], 1.0, atol=1e-3)


def test_picture_is_not_the_preview() -> None:
    with ImageReader(io.BytesIO(SMOOTH)) as reader:
        frames = list(reader)
        assert reader.size == (WIDTH, HEIGHT)
        assert (reader.format.mode, reader.format.bits) == ("RGB", 16)
        assert not reader.warnings
    assert [frame.pixels.shape for frame in frames] == [(HEIGHT, WIDTH, 3)]
    assert frames[0].pixels.dtype == np.uint16


def test_brightness_is_that_of_libraw() -> None:
    light = smooth_light() * 0.5
    data = encode_dng(expose(light))
    with rawpy.imread(io.BytesIO(data)) as file:
        expected = file.postprocess(
            gamma=(2.4, 12.92),
            output_bps=16,
            use_camera_wb=True,
            demosaic_algorithm=rawpy.DemosaicAlgorithm.DHT,
        )
    linear = (linear_light(data) * 65_535).round().astype(np.uint16)
    assert 1.5 < find_exposure(linear) < 3
    below_knee = linear * find_exposure(linear) < KNEE * 65_535
    below_knee[:4] = below_knee[-4:] = below_knee[:, :4] = below_knee[:, -4:] = False  # edges of the mosaic
    assert below_knee.mean() > 0.5
    difference = read_image(io.BytesIO(data)).pixels.astype(int) - expected
    assert np.abs(difference[below_knee]).max() < 65_535 / 255


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_picture_is_upright(orientation: int, turns: int) -> None:
    data = encode_dng(expose(smooth_light()), orientation=orientation)
    expected = np.rot90(read_image(io.BytesIO(SMOOTH)).pixels, turns)
    with ImageReader(io.BytesIO(data)) as reader:
        (frame,) = reader
        assert reader.size == expected.shape[1::-1]
        assert decode_exif(reader.format.info["exif"])[274].integers() == (1,)
    np.testing.assert_allclose(frame.pixels, expected, atol=65)


def test_monochrome_sensor() -> None:
    light = smooth_light()[..., 1]
    sensor = 1024 + light * 15_359
    data = encode_dng(sensor, photometric=LINEAR_SENSOR, fields=MONOCHROME)
    with ImageReader(io.BytesIO(data)) as reader:
        (frame,) = reader
        assert reader.format.mode == "L"
        assert "icc_profile" not in reader.format.info  # that of sRGB is for colours
    assert frame.pixels.shape == (HEIGHT, WIDTH, 1)
    exposure = find_exposure((light[..., None] * 65_535).astype(np.uint16))
    np.testing.assert_allclose(undo_tones(frame.pixels, exposure)[..., 0], light, atol=2e-3)


# ---------------------------------------------------------------- tones


def test_full_exposure_is_srgb() -> None:
    codes = np.arange(0, 65_536, 255, dtype=np.uint16)
    encoded = map_tones(codes, 1.0) / 65_535
    decoded = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(decoded, codes / 65_535, atol=2e-5)


@pytest.mark.parametrize("exposure", [1.0, 1.3, 2.0, MAX_EXPOSURE])
def test_highlights_are_compressed_and_not_clipped(exposure: float) -> None:
    codes = np.arange(65_536, dtype=np.uint16)
    mapped = map_tones(codes, exposure).astype(int)
    assert (mapped[0], mapped[-1]) == (0, 65_535)
    assert (np.diff(mapped) >= 0).all()
    assert (mapped == 65_535).mean() < 0.001
    below = codes * exposure < KNEE * 65_535
    expected = map_tones((codes[below] * exposure).astype(np.uint16), 1.0)
    np.testing.assert_allclose(mapped[below], expected, atol=13)  # the slope of sRGB at black
    knee = np.count_nonzero(below)
    assert mapped[knee + 1] - mapped[knee - 1] <= 2 * (mapped[knee - 1] - mapped[knee - 3]) + 2  # no edge


@pytest.mark.parametrize(("brightest", "exposure"), [(65_535, 1.0), (32_767, 2.0), (13_107, 5.0), (40, MAX_EXPOSURE)])
def test_one_percent_of_the_brightest_channel_is_white(brightest: int, exposure: float) -> None:
    linear = np.zeros((100, 100, 3), np.uint16)
    linear[:2, :, 1] = brightest
    linear[:1, :50] = 65_535  # half a percent of lights
    assert find_exposure(linear) == pytest.approx(exposure, rel=1e-3)


# ---------------------------------------------------------------- denoising


def test_noise_of_the_sensor_is_reduced(tmp_path: Path) -> None:
    light = smooth_light(192, 256) * 0.5
    (tmp_path / "noisy.dng").write_bytes(encode_dng(expose(light, noise=0.004)))
    denoise.load("photo").file(tmp_path / "noisy.dng", tmp_path / "clean.tif")
    noisy = linear_light((tmp_path / "noisy.dng").read_bytes())
    exposure = find_exposure((noisy * 65_535).round().astype(np.uint16))
    denoised = undo_tones(tifffile.imread(tmp_path / "clean.tif"), exposure)
    for region in (np.s_[20:-4, 20:-4], np.s_[20:60, 20:60]):  # all, and shadows
        assert psnr(denoised[region], light[region]) > psnr(noisy[region], light[region]) + 6
        assert abs(np.mean(denoised[region] - light[region])) < 3e-3  # no change of brightness


def test_bytes_become_a_tiff() -> None:
    output = denoise.load("photo").bytes(SMOOTH)
    assert tifffile.imread(io.BytesIO(output)).dtype == np.uint16


def test_commands(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "a.DNG").write_bytes(SMOOTH)
    (tmp_path / "in" / "b.nef").write_bytes(SMOOTH)

    def run(*arguments: str | Path) -> None:
        result = CliRunner().invoke(app, ["image", *map(str, arguments)])
        assert result.exit_code == 0, result.output

    run(tmp_path / "in")
    run(tmp_path / "in", "-o", tmp_path / "out")
    run(tmp_path / "in" / "b.nef", "-o", tmp_path / "b.png", "--compare", tmp_path / "compare.png")
    run(tmp_path / "in" / "b.nef", "-o", tmp_path / "s.tif", "--samples", "2", "--steps", "2")
    for name in ("in/sub/a.denoised.tif", "in/b.denoised.tif", "out/sub/a.tif", "out/b.tif", "s.std.tif"):
        assert tifffile.imread(tmp_path / name).shape == (HEIGHT, WIDTH, 3), name
    assert read_image(tmp_path / "b.png").pixels.dtype == np.uint16
    assert (tmp_path / "compare.png").exists()


# ---------------------------------------------------------------- metadata


def write(data: bytes, path: Path) -> list[str]:
    with ImageReader(io.BytesIO(data)) as reader:
        write_image(path, reader, reader.format)
        return reader.warnings


@pytest.mark.parametrize("extension", ["tif", "png"])
@pytest.mark.parametrize("order", "<>")
def test_metadata(extension: str, order: str, tmp_path: Path) -> None:
    data = encode_dng(expose(smooth_light()), order=order, orientation=6)
    assert write(data, tmp_path / f"a.{extension}") == []
    with Pillow.open(tmp_path / f"a.{extension}") as picture:
        exif = picture.getexif()
        assert {tag: exif[tag] for tag in (271, 272, 274)} == {271: "Maker", 272: "Camera X", 274: 1}
        assert exif.get_ifd(0x8769) == {
            33434: 1 / 50, 34855: 6400, 36867: "2024:01:02 03:04:05", 40961: 1, 40962: HEIGHT, 40963: WIDTH,
        }  # fmt: skip
        assert exif.get_ifd(0x8825)[2] == (47, 22, 0)
        assert not {330, 50706, 50721, 50728, 513} & set(exif)  # sub-directories, DNG, thumbnail
        profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)
    assert read_image(tmp_path / f"a.{extension}").pixels.dtype == np.uint16


def test_output_is_reproducible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(SMOOTH, tmp_path / "a.tif")
    create_profile = raw.ImageCms.createProfile
    monkeypatch.setattr(raw.ImageCms, "ImageCmsProfile", lambda _: FutureProfile(create_profile("sRGB")))
    write(SMOOTH, tmp_path / "b.tif")
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


class FutureProfile(ImageCms.ImageCmsProfile):
    def tobytes(self) -> bytes:
        data = bytearray(super().tobytes())
        data[24:36] = struct.pack(">6H", 2050, 1, 1, 0, 0, 0)
        return bytes(data)


@pytest.mark.parametrize(("xmp", "is_kept"), [(b'<x xmp:Rating="5"/>', True), (b'<x crs:Exposure2012="1"/>', False)])
def test_xmp_without_settings_of_raw_developers_is_kept(xmp: bytes, is_kept: bool, tmp_path: Path) -> None:
    data = encode_dng(expose(smooth_light()), fields={700: (BYTE, xmp)})
    warnings = write(data, tmp_path / "a.tif")
    with Pillow.open(tmp_path / "a.tif") as picture:
        assert picture.tag_v2.get(700) == (xmp if is_kept else None)
    assert len(warnings) == (not is_kept)


def test_exif_of_the_preview() -> None:
    """That of files which are no TIFF."""
    with rawpy.imread(io.BytesIO(SMOOTH)) as file:
        fields = raw._picture_fields(decode_exif(raw._read_preview_exif(file)), (WIDTH, HEIGHT))
    assert fields[271].data.rstrip(b"\0") == b"Maker"
    assert fields[274].integers() == (1,)
    assert fields[0x8769][34855].integers() == (6400,)


# ---------------------------------------------------------------- detection, refusals and damage


@pytest.mark.parametrize(
    "head", [b"FUJIFILMCCD-RAW 0201", b"IIRO\x08", b"MMOR\0", b"IIU\0\x18", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"]
)
def test_heads_that_are_no_tiff(head: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    data = head.ljust(200, b"\0")
    assert detect_container(io.BytesIO(data)) is Raw
    with pytest.raises(InputError, match=r"raw file .*(cannot read|cut off)") as caught:
        ImageReader(io.BytesIO(data))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("data_last", [False, True])
def test_cut_off_files(data_last: bool, capfd: pytest.CaptureFixture[str]) -> None:
    data = encode_dng(expose(smooth_light()), data_last=data_last)
    np.testing.assert_array_equal(read_image(io.BytesIO(data)).pixels, read_image(io.BytesIO(SMOOTH)).pixels)
    for length in (*range(1, len(data) - 1000, 997), len(data) - 300):
        with pytest.raises(InputError) as caught:
            read_image(io.BytesIO(data[:length]), name="a.dng")
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_damaged_directories_raise_only_input_errors() -> None:
    rng, original = np.random.default_rng(0), encode_dng(expose(smooth_light(32, 32)))
    first = struct.unpack_from("<I", original, 4)[0]
    for index in range(first, len(original), 5):
        damaged = bytearray(original)
        damaged[index] = rng.integers(0, 256)
        with suppress(InputError), ImageReader(io.BytesIO(bytes(damaged)), max_megapixels=1) as reader:
            list(reader)


def test_reports_of_libraw_become_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="damaged data"), raw._open_raw(io.BytesIO(SMOOTH)):
        os.write(2, b"unknown file: data corrupted at 1234\n")
    os.write(2, b"other")
    assert capfd.readouterr() == ("", "other")


def test_size_is_checked_before_the_picture_is_developed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "develop", lambda *_: pytest.fail("developed"))
    with pytest.raises(InputError, match=r"128 x 96 pixels.*--max-megapixels"):
        read_image(io.BytesIO(SMOOTH), max_megapixels=0.01)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(InputError, match=r"camera raw .*rawpy.* pip install \"\.\[raw\]"):
        read_image(io.BytesIO(SMOOTH))


@pytest.mark.parametrize("extension", [".dng", ".CR3"])
def test_raw_files_are_not_written(extension: str, tmp_path: Path) -> None:
    assert extension.lower() in IMAGE_EXTENSIONS
    with pytest.raises(InputError, match=r"only read.*Write TIFF or PNG"):
        write(SMOOTH, tmp_path / f"a{extension}")


def test_eight_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"JPEG cannot hold 16 bits.*PNG .*or TIFF"):
        write(SMOOTH, tmp_path / "a.jpg")
