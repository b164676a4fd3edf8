"""Reading and writing keeps pixels, mode, depth and metadata of images."""

from __future__ import annotations

import io
import itertools
import random
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms, PngImagePlugin

from denoise.errors import InputError
from denoise.files.image import ImageReader, read_image, write_image
from denoise.files.image.registry import WRITTEN_EXTENSIONS
from denoise.signals import Image, ImageFormat

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
rng = np.random.default_rng(0)


def encode_exif(orientation: int = 6) -> bytes:
    exif = Pillow.Exif()
    exif[0x010F], exif[0x0112] = "Maker", orientation
    exif.get_ifd(0x8769)[0x9003] = "2024:01:02 03:04:05"
    return exif.tobytes()


def noise(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    if dtype == np.float32:
        return rng.normal(0.5, 0.3, shape).astype(np.float32)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def random_picture(mode: str, width: int = 13, height: int = 7) -> Pillow.Image:
    if mode == "1":
        return Pillow.fromarray(noise(height, width) > 127)
    if mode == "P":
        picture = Pillow.fromarray(noise(height, width) % 9)
        picture.putpalette(bytes(range(27)))
        return picture
    if mode == "I;16":
        return Pillow.fromarray(noise(height, width, dtype=np.uint16))
    if mode == "F":
        return Pillow.fromarray(noise(height, width, dtype=np.float32))
    channels = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "YCbCr": (3,)}[mode]
    return Pillow.fromarray(noise(height, width, *channels), mode)


def encode(picture: Pillow.Image, container: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, container, **options)
    return file.getvalue()


def round_trip(data: bytes) -> bytes:
    file = io.BytesIO()
    with ImageReader(io.BytesIO(data)) as reader:
        write_image(file, reader, reader.format)
    return file.getvalue()


def decode_frames(data: bytes) -> list[Image]:
    with ImageReader(io.BytesIO(data)) as reader:
        return list(reader)


def assert_same_image(one: Image, other: Image) -> None:
    assert one.pixels.dtype == other.pixels.dtype
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert (one.alpha is None) == (other.alpha is None)
    if one.alpha is not None and other.alpha is not None:
        np.testing.assert_array_equal(one.alpha, other.alpha)


# ---------------------------------------------------------------- round trips

LOSSLESS = [
    *[("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")],
    *[("TIFF", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F")],
    *[("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd")],
    *[("TIFF", "I;16", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd")],
    ("TIFF", "F", {"compression": "tiff_lzw"}),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "RGB", {"compression": "tiff_lzw", "tiffinfo": {317: 2}}),
    *[("WEBP", mode, {"lossless": True, "exact": True}) for mode in ("RGB", "RGBA")],
    *[("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")],
    *[("GIF", mode, {}) for mode in ("L", "P")],
]


@pytest.mark.parametrize(("container", "mode", "options"), LOSSLESS, ids=lambda x: str(x)[:24])
def test_lossless_round_trip(container: str, mode: str, options: dict[str, Any]) -> None:
    picture = random_picture(mode)
    data = encode(picture, container, **options)
    rewritten = round_trip(data)
    before, after = Pillow.open(io.BytesIO(data)), Pillow.open(io.BytesIO(rewritten))
    assert (after.format, after.mode, after.size) == (before.format, before.mode, before.size)
    assert after.info.get("compression") == before.info.get("compression")
    colour = "RGBA" if mode in ("P", "RGBA", "LA") else before.mode
    assert after.convert(colour).tobytes() == before.convert(colour).tobytes()
    assert_same_image(decode_frames(data)[0], decode_frames(rewritten)[0])
    if container == "TIFF":
        assert before.tag_v2.get(317) == after.tag_v2.get(317)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("container", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_images_of_one_row_or_column(container: str, size: tuple[int, int]) -> None:
    data = encode(random_picture("RGB", *size), container)
    assert decode_frames(round_trip(data))[0].pixels.shape == (size[1], size[0], 3)


def test_pixels_of_each_mode() -> None:
    assert set(np.unique(read_image(io.BytesIO(encode(random_picture("1"), "PNG"))).pixels)) == {0, 255}
    for mode, channels, alpha in [("L", 1, False), ("LA", 1, True), ("RGBA", 3, True), ("P", 3, False)]:
        result = read_image(io.BytesIO(encode(random_picture(mode), "PNG")))
        assert (result.pixels.shape[2], result.alpha is not None) == (channels, alpha)
    rgba = random_picture("RGBA")
    result = read_image(io.BytesIO(encode(rgba, "PNG")))
    np.testing.assert_array_equal(np.dstack([result.pixels, result.alpha]), np.asarray(rgba))


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_transparent_colour_becomes_alpha(mode: str) -> None:
    picture = random_picture(mode)
    key = picture.getpixel((3, 2))
    data = encode(picture, "PNG", transparency=key)
    result = decode_frames(data)[0]
    assert result.alpha is not None
    assert result.alpha[2, 3] == 0
    assert result.alpha.max() == result.full_scale
    assert_same_image(result, decode_frames(round_trip(data))[0])


@pytest.mark.parametrize("transparency", [3, bytes([0, 90, 255, 7])])
def test_palette_with_transparency(transparency: int | bytes) -> None:
    data = encode(random_picture("P"), "PNG", transparency=transparency)
    after = Pillow.open(io.BytesIO(round_trip(data)))
    assert after.mode == "P"
    assert after.convert("RGBA").tobytes() == Pillow.open(io.BytesIO(data)).convert("RGBA").tobytes()


@pytest.mark.parametrize("is_half_transparent", [False, True])
@pytest.mark.parametrize("container", ["PNG", "GIF"])
def test_changed_pixels_keep_the_number_of_colours(container: str, is_half_transparent: bool) -> None:
    transparency = 0 if container == "GIF" or not is_half_transparent else bytes([100])
    with ImageReader(io.BytesIO(encode(random_picture("P", 40, 40), container, transparency=transparency))) as reader:
        frame = next(iter(reader))
        file = io.BytesIO()
        write_image(file, [replace(frame, pixels=noise(40, 40, 3))], reader.format)
    result = Pillow.open(file)
    assert result.mode == "P"
    assert len(result.getcolors() or []) <= (9 if container == "PNG" else 256)
    np.testing.assert_array_equal(np.asarray(result.convert("RGBA"))[..., 3] == 255, frame.alpha == 255)


def test_bilevel_images_are_thresholded() -> None:
    file = io.BytesIO()
    write_image(file, [Image(np.array([[[127], [128]]], np.uint8))], ImageFormat("PNG", "1"))
    assert Pillow.open(file).mode == "1"
    assert read_image(rewind(file)).pixels.ravel().tolist() == [0, 255]


def test_bmp_alpha() -> None:
    file = io.BytesIO()
    image = Image(noise(3, 5, 3), noise(3, 5))
    write_image(file, [image], ImageFormat("BMP", "RGBA"))
    assert_same_image(read_image(rewind(file)), image)
    assert Pillow.open(io.BytesIO(round_trip(file.getvalue()))).mode == "RGBA"


def test_ycbcr_tiff_is_written_as_rgb() -> None:
    picture = random_picture("RGB").convert("YCbCr")
    rewritten = Pillow.open(io.BytesIO(round_trip(encode(picture, "TIFF"))))
    assert rewritten.mode == "RGB"
    assert rewritten.tobytes() == picture.convert("RGB").tobytes()


# ---------------------------------------------------------------- JPEG


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_round_trip(mode: str, progressive: bool, subsampling: int) -> None:
    options = {"quality": 61, "progressive": progressive, "subsampling": subsampling, "dpi": (300, 300)}
    picture = random_picture(mode, 37, 21)
    data = encode(picture, "JPEG", exif=encode_exif(), icc_profile=ICC, comment=b"hello", xmp=b"<x/>", **options)
    data = data[:2] + b"\xff\xed\x00\x10Photoshop 3.0\0" + data[2:]
    before, after = Pillow.open(io.BytesIO(data)), Pillow.open(io.BytesIO(round_trip(data)))
    assert (after.mode, after.size) == (before.mode, before.size)
    assert after.quantization == before.quantization
    assert mode == "L" or [layer[1:] for layer in after.layer] == [layer[1:] for layer in before.layer]
    for key in ("progressive", "icc_profile", "exif", "comment", "xmp", "dpi"):
        assert after.info.get(key) == before.info.get(key)
    assert ("APP13", b"Photoshop 3.0\0") in after.applist
    assert after.getexif()[0x0112] == 6
    assert decode_frames(data)[0].pixels.shape[:2] == (21, 37)


def test_jpeg_stored_as_rgb() -> None:
    x = np.linspace(0, 255, 64).astype(np.uint8)
    picture = Pillow.fromarray(np.dstack(np.broadcast_arrays(x[:, None], x[None], np.uint8(9))))
    data = encode(picture, "JPEG", keep_rgb=True, quality=95)
    rewritten = round_trip(data)
    assert Pillow.open(io.BytesIO(rewritten)).info["adobe_transform"] == 0
    assert np.abs(decode_frames(data)[0].pixels.astype(int) - decode_frames(rewritten)[0].pixels).max() <= 2


def test_first_image_of_mpo_is_read() -> None:
    file = io.BytesIO()
    random_picture("RGB").save(file, "MPO", save_all=True, append_images=[random_picture("RGB")])
    with ImageReader(rewind(file)) as reader:
        assert reader.format.container == "JPEG"
        assert len(list(reader)) == 1
        assert "MPO" in reader.warnings[0]


def rewind(file: io.BytesIO) -> io.BytesIO:
    file.seek(0)
    return file


# ---------------------------------------------------------------- metadata


@pytest.mark.parametrize("mode", ["RGB", "P", "I;16", "RGB16"])
def test_png_metadata(mode: str) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a")
    text.add_text("Long", "b" * 300, zip=True)
    text.add_itxt("Ünï", "ç", lang="fr")
    text.add_itxt("XML:com.adobe.xmp", "<x/>")
    text.add(b"gAMA", struct.pack(">I", 45455))
    text.add(b"cHRM", struct.pack(">8I", *range(8)))
    text.add(b"prVt", b"private")
    data = encode(
        random_picture("RGB" if mode == "RGB16" else mode),
        "PNG",
        pnginfo=text,
        icc_profile=ICC,
        dpi=(300, 200),
        exif=encode_exif(),
    )
    if mode == "RGB16":
        file = io.BytesIO()
        with ImageReader(io.BytesIO(data)) as reader:
            write_image(file, [Image(noise(7, 13, 3, dtype=np.uint16))], reader.format)
        data = file.getvalue()
    before, after = (Pillow.open(io.BytesIO(x)) for x in (data, round_trip(data)))
    for key in ("icc_profile", "dpi", "exif", "xmp", "gamma", "chromaticity"):
        assert after.info[key] == before.info[key]
    assert after.text == before.text
    assert after.text["Title"] == "a"
    assert b"prVtprivate" in round_trip(data)


def test_png_srgb_chunk() -> None:
    text = PngImagePlugin.PngInfo()
    text.add(b"sRGB", b"\1")
    assert Pillow.open(io.BytesIO(round_trip(encode(random_picture("RGB"), "PNG", pnginfo=text)))).info["srgb"] == 1


@pytest.mark.parametrize("lossless", [False, True])
def test_webp_metadata(lossless: bool) -> None:
    data = encode(
        random_picture("RGBA", 40, 30), "WEBP", lossless=lossless, exif=encode_exif(), icc_profile=ICC, xmp=b"<x/>"
    )
    rewritten = round_trip(data)
    before, after = Pillow.open(io.BytesIO(data)), Pillow.open(io.BytesIO(rewritten))
    for key in ("icc_profile", "exif", "xmp"):
        assert after.info[key] == before.info[key]
    assert (b"VP8L" in rewritten[:16000]) == lossless
    assert after.mode == "RGBA"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_tiff_metadata(orientation: int, deep: bool) -> None:
    tags = Pillow.Exif()
    tags.load(encode_exif(orientation))
    tags[270], tags[700], tags[282], tags[283], tags[296] = "words", b"<x/>", 118.5, 118.5, 3
    x = noise(5, 9, 3, dtype=np.uint16) if deep else noise(5, 9, 3)
    data = encode(Pillow.fromarray(noise(5, 9, dtype=np.uint16) if deep else x), "TIFF", tiffinfo=tags, icc_profile=ICC)
    assert decode_frames(data)[0].pixels.shape[:2] == (5, 9)
    if not deep:
        np.testing.assert_array_equal(decode_frames(data)[0].pixels, x)
    rewritten = round_trip(data)
    assert_same_image(decode_frames(data)[0], decode_frames(rewritten)[0])
    before, after = Pillow.open(io.BytesIO(data)), Pillow.open(io.BytesIO(rewritten))
    for tag in (270, 271, 274, 282, 283, 296, 700, 34675):
        assert after.tag_v2[tag] == before.tag_v2[tag]
    assert after.getexif().get_ifd(0x8769)[0x9003] == "2024:01:02 03:04:05"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"])
def test_exif_groups_of_compressed_tiff_pages(mode: str, compression: str) -> None:
    """EXIF groups are written for all compressions, though libtiff cannot."""
    picture = random_picture(mode)
    frame = read_image(io.BytesIO(encode(picture, "TIFF")))
    info = {"exif": encode_exif(), "tiff": {"compression": compression, "predictor": 2}}
    file = io.BytesIO()
    write_image(file, [frame], ImageFormat("TIFF", mode, 8, {"frames": [{"mode": mode} | info]}))
    after = Pillow.open(file)
    assert after.mode == mode
    assert after.getexif().get_ifd(0x8769)[0x9003] == "2024:01:02 03:04:05"
    if after.info["compression"] == "jpeg":
        np.testing.assert_allclose(read_image(rewind(file)).pixels, frame.pixels.astype(int), atol=16)
    else:
        assert_same_image(read_image(rewind(file)), frame)


def test_exif_groups_of_a_jpeg_in_a_tiff(tmp_path: Path) -> None:
    with ImageReader(io.BytesIO(encode(random_picture("RGB"), "JPEG", exif=encode_exif()))) as reader:
        write_image(tmp_path / "out.tif", reader, reader.format)
        assert_same_image(read_image(tmp_path / "out.tif"), next(iter(reader)))
    with Pillow.open(tmp_path / "out.tif") as after:
        assert after.info["compression"] == "tiff_adobe_deflate"
        assert after.getexif().get_ifd(0x8769)[0x9003] == "2024:01:02 03:04:05"


def test_bmp_resolution_and_gif_comment() -> None:
    bmp = Pillow.open(io.BytesIO(round_trip(encode(random_picture("RGB"), "BMP", dpi=(300, 300)))))
    assert bmp.info["dpi"][0] == pytest.approx(300, abs=0.1)
    gif = Pillow.open(io.BytesIO(round_trip(encode(random_picture("P"), "GIF", comment=b"c" * 300))))
    assert gif.info["comment"] == b"c" * 300


# ---------------------------------------------------------------- animations and pages


def encode_animation(container: str, mode: str) -> bytes:
    if mode == "P":
        pictures = [random_picture("P") for _ in range(4)]
    else:
        pictures = [random_picture(mode) for _ in range(4)]
        if container == "GIF":
            for x in pictures:
                x.putalpha(x.getchannel("A").point(lambda a: 255 * (a > 99)))
    options: dict[str, Any] = {"disposal": [0, 2, 1, 2]} if mode != "P" or container == "GIF" else {}
    options = {"lossless": True, "exact": True} if container == "WEBP" else options
    options |= {"duration": [40, 50, 60, 70], "loop": 3}
    return encode(pictures[0], container, save_all=True, append_images=pictures[1:], **options)


@pytest.mark.parametrize(
    ("container", "mode"), [("GIF", "P"), ("GIF", "RGBA"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"),
                            ("WEBP", "RGB"), ("WEBP", "RGBA")]
)  # fmt: skip
def test_animation_round_trip(container: str, mode: str) -> None:
    data = encode_animation(container, mode)
    rewritten = round_trip(data)
    before, after = decode_frames(data), decode_frames(rewritten)
    assert len(before) == len(after) == 4
    for one, other in zip(before, after, strict=True):
        is_transparent = one.alpha is not None and np.equal(one.alpha, 0)
        np.testing.assert_array_equal(np.where(np.asarray(is_transparent)[..., None], 0, one.pixels),
                                      np.where(np.asarray(is_transparent)[..., None], 0, other.pixels))  # fmt: skip
        if one.alpha is not None:
            np.testing.assert_array_equal(one.alpha, 255 if other.alpha is None else other.alpha)
    source, target = Pillow.open(io.BytesIO(data)), Pillow.open(io.BytesIO(rewritten))
    assert target.info["loop"] == source.info["loop"] == 3
    for index, duration in enumerate((40, 50, 60, 70)):
        target.seek(index)
        target.load()
        assert target.info["duration"] == duration


def test_gif_keeps_equal_neighbours_and_disposal() -> None:
    x, y = Image(np.zeros((4, 4, 3), np.uint8)), Image(np.full((4, 4, 3), 9, np.uint8))
    file = io.BytesIO()
    infos = [{"duration": 30, "disposal": d} for d in (1, 2, 1, 1)]
    write_image(file, [x, x, y, y], ImageFormat("GIF", "P", 8, {"loop": 0, "frames": infos}))
    result = Pillow.open(file)
    assert result.n_frames == 4
    for index, info in enumerate(infos):
        result.seek(index)
        assert (result.disposal_method, result.info["duration"]) == (info["disposal"], 30)


def test_tiff_pages_of_different_kinds() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        pages = [noise(4, 5, 3), noise(6, 3, 3, dtype=np.uint16), noise(2, 9), noise(3, 3, dtype=np.float32)]
        for x in pages:
            writer.write(x, photometric="rgb" if x.ndim == 3 else "minisblack")
    rewritten = round_trip(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(rewritten)) as result:
        assert len(result.pages) == 4
        for page, x in zip(result.pages, pages, strict=True):
            np.testing.assert_array_equal(page.asarray(), x)


def test_default_image_of_an_apng() -> None:
    pictures = [random_picture("RGB") for _ in range(3)]
    data = encode(pictures[0], "PNG", save_all=True, append_images=pictures[1:], duration=[30, 40], default_image=True)
    rewritten = round_trip(data)
    result = Pillow.open(io.BytesIO(rewritten))
    assert result.info["default_image"]
    for one, other in zip(decode_frames(data), decode_frames(rewritten), strict=True):
        assert_same_image(one, other)


def test_unspecified_tiff_channels_are_kept() -> None:
    for extra in (1, 2):
        x = noise(5, 6, 3 + extra)
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as writer:
            writer.write(x, photometric="rgb", extrasamples=["unspecified"] * extra)
        if extra == 1:
            np.testing.assert_array_equal(interleave(decode_frames(round_trip(file.getvalue()))[0]), x)
        else:
            with pytest.raises(InputError, match="5 samples per pixel"):
                decode_frames(file.getvalue())


def test_big_tiff() -> None:
    for x in (noise(5, 6, 3), noise(5, 6, 3, dtype=np.uint16)):
        file = io.BytesIO()
        with tifffile.TiffWriter(file, bigtiff=True) as writer:
            writer.write(x, photometric="rgb", resolution=(300, 300), resolutionunit="inch")
        np.testing.assert_array_equal(decode_frames(round_trip(file.getvalue()))[0].pixels, x)


def test_frames_are_read_lazily_and_repeatedly() -> None:
    with ImageReader(io.BytesIO(encode_animation("GIF", "P"))) as reader:
        first = next(iter(reader))
        assert len(reader.format.info["frames"]) == 1
        assert len(list(reader)) == len(reader.format.info["frames"]) == 4
        assert_same_image(first, next(iter(reader)))


# ---------------------------------------------------------------- 16 bits and floats, against independent codecs


def encode_png16(x: NDArray[np.uint16], interlaced: bool = False) -> bytes:
    """Encode a PNG with all five filters, by the specification (W3C PNG, 2003, chapters 8 and 9)."""
    height, width, samples = x.shape
    step = samples * 2

    def scanlines(pixels: NDArray[np.uint16]) -> bytes:
        lines, above = b"", bytes(pixels.shape[1] * step)
        for y, row in enumerate(pixels):
            line = row.astype(">u2").tobytes()
            filter_type, filtered = y % 5, bytearray()
            for i, value in enumerate(line):
                a, b = (line[i - step] if i >= step else 0), above[i]
                c = above[i - step] if i >= step else 0
                paeth = min((a, b, c), key=lambda n: abs(a + b - c - n))
                filtered.append((value - (0, a, b, (a + b) // 2, paeth)[filter_type]) & 255)
            lines, above = lines + bytes([filter_type]) + filtered, line
        return lines

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    subimages = [x[y::dy, z::dx] for y, z, dy, dx in passes] if interlaced else [x]
    data = zlib.compress(b"".join(scanlines(subimage) for subimage in subimages if subimage.size))
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[samples], 0, 0, interlaced)
    chunks = [(b"IHDR", header), (b"IDAT", data[:50]), (b"IDAT", data[50:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )


def decode_png16(data: bytes) -> NDArray[np.uint16]:
    """Decode a PNG that is not interlaced, by the specification."""
    offset, compressed, width, height, samples = 8, b"", 0, 0, 0
    while offset < len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        body = data[offset + 8 : offset + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack_from(">I", data, offset + 8 + length)[0]
        if kind == b"IHDR":
            width, height, _, colour = struct.unpack_from(">IIBB", body)
            samples = {0: 1, 4: 2, 2: 3, 6: 4}[colour]
        compressed += body if kind == b"IDAT" else b""
        offset += length + 12
    raw, step, stride = zlib.decompress(compressed), samples * 2, width * samples * 2
    above, result = bytearray(stride), b""
    for y in range(height):
        filter_type, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for i in range(stride):
            a, b, c = (line[i - step] if i >= step else 0), above[i], (above[i - step] if i >= step else 0)
            paeth = min((a, b, c), key=lambda n: abs(a + b - c - n))
            line[i] = (line[i] + (0, a, b, (a + b) // 2, paeth)[filter_type]) & 255
        result, above = result + line, line
    return np.frombuffer(result, ">u2").reshape(height, width, samples).astype(np.uint16)


def interleave(image: Image) -> NDArray[Any]:
    return image.pixels if image.alpha is None else np.dstack([image.pixels, image.alpha])


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("smooth", [False, True])
def test_png16(samples: int, interlaced: bool, smooth: bool) -> None:
    x = noise(70, 11, samples, dtype=np.uint16)
    x = np.sort(x, axis=0) if smooth else x
    data = encode_png16(x, interlaced)
    np.testing.assert_array_equal(interleave(decode_frames(data)[0]), x)
    rewritten = round_trip(data)
    np.testing.assert_array_equal(decode_png16(rewritten), x)
    with ImageReader(io.BytesIO(rewritten)) as reader:
        assert reader.format.bits == 16
        assert reader.format.mode == ("L", "LA", "RGB", "RGBA")[samples - 1]


def test_png16_with_a_transparent_colour() -> None:
    x = noise(5, 5, 3, dtype=np.uint16)
    data = encode_png16(x)
    key = struct.pack(">3H", *x[1, 2])
    data = data[:33] + struct.pack(">I", 6) + b"tRNS" + key + struct.pack(">I", zlib.crc32(b"tRNS" + key)) + data[33:]
    result = decode_frames(data)[0]
    assert result.alpha is not None
    assert np.argwhere(result.alpha == 0).tolist() == [[1, 2]]
    assert_same_image(decode_frames(round_trip(data))[0], result)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
def test_deep_tiff(dtype: Any, samples: int, compression: str | None) -> None:
    layouts: Iterator[tuple[Any, Any, str]] = itertools.product((None, (16, 32)), ("contig", "separate"), "<>")
    for tile, planar, order in layouts:
        x = noise(37, 41, samples, dtype=dtype)
        stored = x[..., 0] if samples == 1 else np.moveaxis(x, -1, 0).copy() if planar == "separate" else x
        file = io.BytesIO()
        with tifffile.TiffWriter(file, byteorder=order) as writer:
            writer.write(
                stored, compression=compression, tile=tile, photometric="rgb" if samples > 2 else "minisblack",
                planarconfig=planar if samples > 1 else None,
                extrasamples=["unassalpha"] if samples in (2, 4) else None,
                predictor=2 if compression == "zlib" and dtype == np.uint16 else None,
            )  # fmt: skip
        np.testing.assert_array_equal(interleave(decode_frames(file.getvalue())[0]), x)
        with tifffile.TiffFile(io.BytesIO(round_trip(file.getvalue()))) as result:
            page = result.pages[0]
            np.testing.assert_array_equal(page.asarray().reshape(x.shape), x)
            assert page.compression.name.lower() in ("none", "adobe_deflate", "lzma")
            assert (page.compression == 1) == (compression is None)


@pytest.mark.parametrize("codec", [1, 5, 8, 32773, 34925, 50000])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("predictor", [1, 2, 3])
def test_deep_tiff_against_libtiff(codec: int, dtype: Any, predictor: int) -> None:
    """Pillow reads only grey of 16 bits and floats, through libtiff."""
    x = noise(300, 211, 1, dtype=dtype)
    info = {"frames": [{"tiff": {"compression": codec, "predictor": predictor}}]}
    file = io.BytesIO()
    write_image(file, [Image(x)], ImageFormat("TIFF", "L", 16, info))
    np.testing.assert_array_equal(np.asarray(Pillow.open(file)), x[..., 0])
    assert_same_image(read_image(rewind(file)), Image(x))
    rgb = Image(noise(50, 31, 3, dtype=dtype))
    file = io.BytesIO()
    write_image(file, [rgb], ImageFormat("TIFF", "RGB", 16, info))
    assert_same_image(read_image(rewind(file)), rgb)


# ---------------------------------------------------------------- targets


def test_extension_chooses_the_container(tmp_path: Path) -> None:
    image = Image(noise(5, 6, 3))
    for extension in sorted(WRITTEN_EXTENSIONS):
        target = tmp_path / f"out{extension}"
        write_image(target, [image], ImageFormat("PNG", "RGB", 8, {"icc_profile": ICC, "dpi": (300, 300)}))
        with ImageReader(target) as reader:
            assert next(iter(reader)).pixels.shape == (5, 6, 3)
            if reader.format.container not in ("BMP", "GIF"):
                assert reader.format.info["icc_profile"] == ICC
    assert sorted(p.suffix for p in tmp_path.iterdir()) == sorted(WRITTEN_EXTENSIONS)


@pytest.mark.parametrize(
    ("target", "image", "count", "message"),
    [
        ("out.jpg", Image(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8)), 1, "alpha"),
        ("out.webp", Image(np.zeros((1, 1, 3), np.uint16)), 1, "16 bits"),
        ("out.png", Image(np.zeros((1, 1, 3), np.float32)), 1, "floats"),
        ("out.png", Image(np.zeros((1, 1, 4), np.uint8)), 1, "CMYK"),
        ("out.bmp", Image(np.zeros((1, 1, 3), np.uint8)), 2, "several frames"),
        ("out.gif", Image(np.zeros((1, 1, 3), np.uint8), np.full((1, 1), 90, np.uint8)), 1, "half-transparent"),
        ("out.webp", Image(np.zeros((16_384, 1, 3), np.uint8)), 1, "a side"),
        ("out.xyz", Image(np.zeros((1, 1, 3), np.uint8)), 1, "extension"),
        ("out", Image(np.zeros((1, 1, 3), np.uint8)), 1, "extension"),
        ("out.png", Image(np.zeros((1, 1, 3), np.uint8)), 0, "0 frames"),
    ],
)
def test_targets_that_cannot_hold_the_image(
    tmp_path: Path, target: str, image: Image, count: int, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        write_image(tmp_path / target, [image] * count, ImageFormat())
    assert str(caught.value).startswith(f"{tmp_path / target}: ")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_overwrite(tmp_path: Path) -> None:
    target, image = tmp_path / "a.png", Image(np.zeros((1, 1, 3), np.uint8))
    write_image(target, [image], ImageFormat())
    with pytest.raises(InputError, match=r"a\.png"):
        write_image(str(target), [image], ImageFormat())
    write_image(str(target), [Image(image.pixels + 1)], ImageFormat(), overwrite=True)
    assert read_image(target).pixels.max() == 1


def test_too_much_exif_for_jpeg(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bytes of exif"):
        write_image(tmp_path / "out.jpg", [Image(noise(2, 2, 3))], ImageFormat(info={"exif": bytes(70_000)}))


def test_animations_and_pages_in_other_containers(tmp_path: Path) -> None:
    with ImageReader(io.BytesIO(encode_animation("GIF", "P"))) as reader:
        for target in ("a.webp", "a.png", "a.tif"):
            write_image(tmp_path / target, reader, reader.format)
            with ImageReader(tmp_path / target) as written:
                for one, other in zip(reader, written, strict=True):
                    np.testing.assert_allclose(one.pixels, other.pixels, atol=0)
    with (
        ImageReader(tmp_path / "a.tif") as pages,
        pytest.raises(InputError, match="several frames or pages"),
    ):
        write_image(tmp_path / "b.png", pages, pages.format)


# ---------------------------------------------------------------- invalid inputs


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise OSError("not seekable")


def test_pipes() -> None:
    data = encode(random_picture("RGB"), "PNG")
    assert_same_image(read_image(Pipe(data)), read_image(io.BytesIO(data)))
    with pytest.raises(InputError, match="--max-megapixels"):
        read_image(Pipe(bytes(1 << 27)), max_megapixels=1)


INVALID_FILES: list[tuple[str, bytes, str]] = [
    ("empty.png", b"", "empty"),
    ("text.png", b"hello, I am text", "text"),
    ("page.svg", b"<svg xmlns='http://www.w3.org'/>", "SVG"),
    ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0", "cut off"),
    ("film.mp4", b"\0\0\0\x18ftypisom\0\0\0\0", "video"),
    ("unknown.jpg", b"\1\2\3\xff" * 9, "unknown"),
    ("headless.png", b"\x89PNG\r\n\x1a\n\0\0", "damaged"),
    ("nopages.tif", b"II*\0\0\0\0\0", "0 pages"),
    ("far.tif", b"II*\0\xff\xff\xff\x7f", "cut off"),
    ("int32.tif", encode(Pillow.fromarray(np.zeros((2, 2), np.int32)), "TIFF"), "32-bit signed"),
    ("lab.tif", encode(Pillow.new("LAB", (2, 2)), "TIFF"), "mode LAB"),
    ("nan.tif", encode(Pillow.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"), "nan"),
]


@pytest.mark.parametrize(("name", "data", "message"), INVALID_FILES, ids=[name for name, _, _ in INVALID_FILES])
def test_invalid_files(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_invalid_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        ImageReader(tmp_path / "none.png")
    with pytest.raises(InputError, match="directory"):
        ImageReader(str(tmp_path))


@pytest.mark.parametrize("container", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PNG16", "TIFF16"])
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.9])
def test_truncated_files_are_refused(container: str, fraction: float) -> None:
    if container == "PNG16":
        data = encode_png16(noise(40, 40, 3, dtype=np.uint16))
    elif container == "TIFF16":
        file = io.BytesIO()
        write_image(file, [Image(noise(40, 40, 3, dtype=np.uint16))], ImageFormat("TIFF"))
        data = file.getvalue()
    else:
        data = encode(random_picture("RGB", 60, 60), container)
    with pytest.raises(InputError):
        read_image(io.BytesIO(data[: int(len(data) * fraction)]), name="x")


def test_decompression_bombs_are_refused_before_decoding() -> None:
    bomb = bytearray(encode_png16(np.zeros((1, 1, 3), np.uint16)))
    bomb[16:24] = struct.pack(">II", 100_000, 100_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    with pytest.raises(InputError, match="--max-megapixels"):
        ImageReader(io.BytesIO(bomb))
    data = encode(random_picture("RGB", 100, 100), "PNG")
    with pytest.raises(InputError, match="--max-megapixels"):
        ImageReader(io.BytesIO(data), max_megapixels=0.009)
    read_image(io.BytesIO(data), max_megapixels=0.01)


def test_large_images_do_not_change_the_limit_of_pillow() -> None:
    limit = Pillow.MAX_IMAGE_PIXELS
    data = encode(Pillow.new("1", (14_000, 14_000)), "PNG")
    with ImageReader(io.BytesIO(data)) as reader:
        assert reader.size == (14_000, 14_000)
        assert not reader.warnings
    assert limit == Pillow.MAX_IMAGE_PIXELS


def test_messages_of_pillow_become_warnings(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(encode(random_picture("RGB"), "TIFF", tiffinfo={270: "some long description"}))
    offset = data.index(struct.pack("<HH", 270, 2))
    data[offset + 4 : offset + 8] = struct.pack("<I", 1 << 28)  # a tag longer than the file
    with ImageReader(io.BytesIO(bytes(data))) as reader:
        assert len(list(reader)) == 1
        assert reader.warnings
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("container", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "TIFF16"])
def test_damaged_files_raise_only_input_errors(container: str) -> None:
    picture = random_picture("I;16" if container == "TIFF16" else "RGB", 20, 20)
    original, generator = encode(picture, container.removesuffix("16")), random.Random(0)
    for _ in range(60):
        data = bytearray(original)
        for _ in range(3):
            data[generator.randrange(min(len(data), 400))] = generator.randrange(256)
        with suppress(InputError), ImageReader(io.BytesIO(bytes(data)), max_megapixels=1) as reader:
            for _ in itertools.islice(reader, 3):
                pass


# ---------------------------------------------------------------- property: reading inverts writing


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    height=st.integers(1, 40), width=st.integers(1, 40), channels=st.sampled_from([1, 3, 4]), alpha=st.booleans(),
    kind=st.sampled_from([("PNG", np.uint8), ("PNG", np.uint16), ("TIFF", np.uint8), ("TIFF", np.uint16),
                          ("TIFF", np.float32), ("WEBP", np.uint8), ("BMP", np.uint8)]),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_written_images_are_read_back(
    height: int, width: int, channels: int, alpha: bool, kind: tuple[str, Any], seed: int
) -> None:
    container, dtype = kind
    if channels == 4 and (container != "TIFF" or alpha):
        channels = 3
    if container in ("WEBP", "BMP") and (alpha or container == "WEBP"):
        channels = 3
    random = np.random.default_rng(seed)
    x = random.uniform(0, 1 if dtype == np.float32 else np.iinfo(dtype).max, (height, width, channels + 1))
    image = Image(x[..., 1:].astype(dtype), x[..., 0].astype(dtype) if alpha else None)
    file = io.BytesIO()
    write_image(file, [image], ImageFormat(container))
    result = read_image(rewind(file))
    assert_same_image(result, image)
