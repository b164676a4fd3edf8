"""HEIC and AVIF keep pixels, depth, alpha, orientation, colour space and metadata."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageCms

from denoise.errors import InputError
from denoise.files.image import ImageReader, apply_orientation, read_image, write_image
from denoise.files.image.boxes import read_items
from denoise.files.image.heif import expand_bits, reduce_bits
from denoise.signals import Image, ImageFormat

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
BT2020_PQ = (9, 16, 9, 1)
P3 = (12, 13, 6, 1)
AVIF_10_BIT = base64.b64decode(  # 4 x 4 pixels by libavif, 0 to 1023 in equal steps
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcGl0"
    "bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAALAAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAABqaXBy"
    "cAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAABAAAAAQAAAAQcGl4aQAAAAADCgoKAAAADGF2MUOBAEwAAAAAE2NvbHJuY2x4AAIAAgAGgAAAABdpcG1h"
    "AAAAAAAAAAEAAQQBAoMEAAAANG1kYXQSAAoIGAR9ugQEDQgyHhIH9/apAAHkAAAgxbRcGc/GEVD44E05H795TGWrkA=="
)


def smooth(height: int, width: int, mode: str, bits: int = 8) -> NDArray[Any]:
    """A picture that lossy codecs change little: gradients, different in each channel, and a hard-edged alpha."""
    y, x, c = np.ogrid[:height, :width, : CHANNELS[mode]]
    values = 0.5 + 0.3 * np.sin(x / 9 + c) + 0.2 * np.cos(y / 7 - c)
    if mode.endswith("A"):
        values[..., -1] = (x[..., 0] + 0 * y[..., 0] >= max(1, width // 2)) * 1.0  # AVIF drops an opaque one
    return np.round(values * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def encode(container: str, x: NDArray[Any], bits: int = 8, **options: Any) -> bytes:
    file = io.BytesIO()
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[x.shape[2]]
    if container == "AVIF":
        options = {"quality": 90, "subsampling": "4:0:0" if mode == "L" else "4:4:4"} | options
        Pillow.fromarray(x[..., 0] if mode == "L" else x, mode).save(file, "AVIF", **options)
    else:
        options = {"quality": 90, "chroma": "444"} | options
        mode = mode if bits == 8 else f"{mode};{bits}"
        pillow_heif.from_bytes(mode, x.shape[1::-1], np.ascontiguousarray(x).tobytes()).save(file, **options)
    return file.getvalue()


def exif(orientation: int = 1) -> bytes:
    result = Pillow.Exif()
    result[0x010F], result[0x0112] = "Maker", orientation
    result.get_ifd(0x8769)[0x9003] = "2024:01:02 03:04:05"
    return result.tobytes()


def round_trip(data: bytes, container: str | None = None) -> bytes:
    file = io.BytesIO()
    with ImageReader(io.BytesIO(data)) as reader:
        format = reader.format
        write_image(file, reader, ImageFormat(container or format.container, format.mode, format.bits, format.info))
    return file.getvalue()


def decode(data: bytes) -> Image:
    return read_image(io.BytesIO(data))


def open_heif(data: bytes) -> pillow_heif.HeifImage:
    images = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    return images[images.primary_index]


def warnings_of(data: bytes) -> list[str]:
    with ImageReader(io.BytesIO(data)) as reader:
        assert len(list(reader)) == reader.n_frames
        return reader.warnings


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (13, 7), (64, 48), (65, 129)], ids=str)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_round_trip(container: str, mode: str, size: tuple[int, int]) -> None:
    x = smooth(*size, mode)
    data = encode(container, x)
    before, after = decode(data), decode(round_trip(data))
    n_channels = 1 if mode == "L" else 3
    assert before.pixels.shape == after.pixels.shape == (*size, n_channels)
    assert np.abs(before.pixels.astype(int) - x[..., :n_channels]).max() <= 16
    assert np.abs(before.pixels.astype(int) - after.pixels).max() <= 10
    assert (before.alpha is not None) == (after.alpha is not None) == (mode == "RGBA")
    if before.alpha is not None and after.alpha is not None:
        assert np.abs(after.alpha.astype(int) - x[..., 3]).max() <= 4


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_depth_of_heif(mode: str, bits: int) -> None:
    x = smooth(33, 21, mode, bits)
    data = encode("HEIF", x, bits)
    with ImageReader(io.BytesIO(data)) as reader:
        assert (reader.format.bits, reader.format.mode) == (bits, mode)
    frame = decode(data)
    samples = np.dstack([frame.pixels, *([] if frame.alpha is None else [frame.alpha])])
    peak = 2**bits - 1
    assert samples.dtype == np.uint16
    # The codec loses about as much as with 8 bits, the scale nothing.
    assert np.abs(samples * (peak / 65535) - x).max() <= 16 * 2 ** (bits - 8)
    stored = np.asarray(open_heif(data)).reshape(samples.shape)
    np.testing.assert_array_equal(samples, expand_bits(stored, bits))
    rewritten = open_heif(round_trip(data))
    assert rewritten.info["bit_depth"] == bits
    assert np.abs(np.asarray(rewritten).reshape(samples.shape).astype(int) - stored).max() <= 10 * 2 ** (bits - 8)


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14])
def test_scale_of_bits(bits: int) -> None:
    x = np.arange(2**bits, dtype=np.uint16)
    np.testing.assert_array_equal(reduce_bits(expand_bits(x, bits), bits), x)
    assert np.abs(expand_bits(x, bits) - x * (65535 / x[-1])).max() < 1
    y = np.arange(2**16, dtype=np.uint16)
    np.testing.assert_array_equal(reduce_bits(y, bits), np.rint(y * (int(x[-1]) / 65535)))


def test_16_bits_become_12(tmp_path: Path) -> None:
    write_image(tmp_path / "a.heic", [Image(smooth(9, 9, "RGB", 16))], ImageFormat("PNG", "RGB", 16))
    assert open_heif((tmp_path / "a.heic").read_bytes()).info["bit_depth"] == 12


def test_deep_avif_is_read_as_8_bits_with_a_warning() -> None:
    assert any("10 bits per channel; 8 are read" in line for line in warnings_of(AVIF_10_BIT))
    frame = decode(AVIF_10_BIT)
    assert frame.pixels.dtype == np.uint8
    expected = np.linspace(0, 255, 48).reshape(4, 4, 3)
    assert np.abs(frame.pixels.mean(axis=2) - expected.mean(axis=2)).max() < 8
    with pytest.raises(InputError, match="AVIF cannot hold 16 bits"):
        write_image(io.BytesIO(), [Image(smooth(4, 4, "RGB", 16))], ImageFormat("AVIF"))


@pytest.mark.parametrize("quality", [60, 90])
@pytest.mark.parametrize("chroma", ["420", "444"])
@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_coding_again_loses_less_than_the_file_did(container: str, chroma: str, quality: int) -> None:
    generator = np.random.default_rng(0)
    x = np.clip(smooth(96, 128, "RGB") + generator.normal(0, 6, (96, 128, 3)), 0, 255).astype(np.uint8)
    key = {"HEIF": {"chroma": chroma}, "AVIF": {"subsampling": ":".join(chroma)}}[container]
    data = encode(container, x, quality=quality, **key)
    before, after = decode(data).pixels.astype(float), decode(round_trip(data)).pixels
    assert np.square(after - before).mean() < np.square(before - x).mean()


@pytest.mark.parametrize("chroma", [420, 422, 444])
@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_chroma_subsampling_is_kept(container: str, chroma: int) -> None:
    name = str(chroma)
    options = {"chroma": name} if container == "HEIF" else {"subsampling": ":".join(name)}
    rewritten = round_trip(encode(container, smooth(40, 40, "RGB"), **options))
    if container == "HEIF":
        assert open_heif(rewritten).info["chroma"] == chroma
    else:
        flags = rewritten[rewritten.index(b"av1C") + 6]
        assert flags & 0x0C == {420: 0x0C, 422: 0x08, 444: 0}[chroma]


@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_chroma_subsampling_of_a_jpeg(container: str) -> None:
    file = io.BytesIO()
    Pillow.fromarray(smooth(40, 40, "RGB")).save(file, "JPEG", subsampling=2)
    with ImageReader(io.BytesIO(round_trip(file.getvalue(), container))) as reader:
        assert reader.format.info["chroma"] == 420


def test_premultiplied_alpha_is_divided() -> None:
    x = np.empty((32, 32, 4), np.uint8)
    x[...] = 100, 50, 25, 128
    file = io.BytesIO()
    pillow_heif.from_bytes("RGBa", (32, 32), x.tobytes()).save(file, quality=95, chroma="444")
    frame = decode(file.getvalue())
    assert frame.alpha is not None
    np.testing.assert_allclose(frame.pixels[5, 5], [199, 100, 50], atol=4)
    np.testing.assert_allclose(decode(round_trip(file.getvalue())).pixels[5, 5], [199, 100, 50], atol=4)


@pytest.mark.parametrize("mode", ["L", "LA"])
@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_grey_with_and_without_alpha(container: str, mode: str) -> None:
    x = smooth(20, 30, mode)
    file = io.BytesIO()
    write_image(file, [Image(x[..., :1], x[..., 1] if mode == "LA" else None)], ImageFormat(container))
    result = decode(file.getvalue())
    assert np.abs(result.pixels.astype(int) - x[..., :1]).max() <= 4
    assert (result.alpha is not None) == (mode == "LA")


# ---------------------------------------------------------------- orientation and metadata


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_orientation_looks_the_same(container: str, orientation: int) -> None:
    """What a viewer shows stays, whether the container turns pixels or names the orientation."""
    x = np.zeros((16, 32, 3), np.uint8)
    x[:8, :16], x[8:, 16:], x[:8, 16:] = (220, 30, 30), (30, 220, 30), (30, 30, 220)
    shown = apply_orientation(Image(x), ImageFormat(info={"exif": exif(orientation)})).pixels.astype(int)
    data = encode(container, x, exif=exif(orientation))
    for step in (data, round_trip(data), round_trip(data, "PNG"), round_trip(data, "HEIF"), round_trip(data, "AVIF")):
        with ImageReader(io.BytesIO(step)) as reader:
            frame = next(iter(reader))
            assert reader.size == frame.pixels.shape[1::-1]
            view = apply_orientation(frame, reader.format).pixels.astype(int)
        assert view.shape == shown.shape
        assert np.abs(view - shown).mean() < 4
    if container == "HEIF":  # an independent reader
        pixels = np.asarray(open_heif(round_trip(data))).astype(int)
        assert np.abs(pixels - shown).mean() < 4


@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_exif_orientation_of_a_jpeg(container: str) -> None:
    x = np.zeros((16, 32, 3), np.uint8)
    x[:, :16] = 220
    file = io.BytesIO()
    Pillow.fromarray(x).save(file, "JPEG", exif=exif(6))
    data = round_trip(file.getvalue(), container)
    with ImageReader(io.BytesIO(data)) as reader:
        view = apply_orientation(next(iter(reader)), reader.format).pixels
    assert view.shape == (32, 16, 3)
    assert view[4].min() > 200
    assert view[28].max() < 20


@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_metadata(container: str) -> None:
    data = encode(container, smooth(20, 30, "RGB"), exif=exif(), xmp=XMP, icc_profile=ICC)
    for step in (data, round_trip(data), round_trip(round_trip(data, "HEIF"), "AVIF")):
        with ImageReader(io.BytesIO(step)) as reader:
            assert not reader.warnings
            info = reader.format.info
        assert (info["xmp"], info["icc_profile"]) == (XMP, ICC)
        tags = Pillow.Exif()
        tags.load(info["exif"])
        assert (tags[0x010F], tags.get_ifd(0x8769)[0x9003]) == ("Maker", "2024:01:02 03:04:05")
    png = Pillow.open(io.BytesIO(round_trip(data, "PNG")))
    assert (png.info["icc_profile"], png.getexif()[0x010F]) == (ICC, "Maker")


def test_hdr_of_heif() -> None:
    nclx = dict(zip(("color_primaries", "transfer_characteristics", "matrix_coefficients", "full_range_flag"),
                    BT2020_PQ, strict=True))  # fmt: skip
    light = {"max_content_light_level": 1000, "max_pic_average_light_level": 400}
    data = encode("HEIF", smooth(20, 30, "RGB", 10), 10, nclx_profile=nclx, content_light_level=light, thumbnails=[16])
    rewritten = open_heif(round_trip(data)).info
    assert {key: rewritten["nclx_profile"][key] for key in nclx} == nclx
    assert rewritten["content_light_level"] == light
    assert rewritten["thumbnails"] == [16]
    assert b"cICP" + bytes([9, 16, 0, 1]) in round_trip(data, "PNG")
    assert b"nclx" + struct.pack(">HH", 9, 16) in encode_like(data, "AVIF")


def encode_like(data: bytes, container: str) -> bytes:
    file = io.BytesIO()
    with ImageReader(io.BytesIO(data)) as reader:
        frames = [Image((frame.pixels >> 8).astype(np.uint8)) for frame in reader]
        write_image(file, frames, ImageFormat(container, "RGB", 8, reader.format.info))
    return file.getvalue()


def test_colour_space_of_avif() -> None:
    data = encode("AVIF", smooth(20, 30, "RGB"))
    wide = data.replace(b"nclx" + struct.pack(">HH", 1, 13), b"nclx" + struct.pack(">HH", *P3[:2]))
    assert wide != data
    rewritten = round_trip(wide)
    with ImageReader(io.BytesIO(rewritten)) as reader:
        assert reader.format.info["nclx"] == P3
    assert np.abs(decode(rewritten).pixels.astype(int) - decode(wide).pixels).max() <= 10
    nclx = open_heif(round_trip(wide, "HEIF")).info["nclx_profile"]
    assert (nclx["color_primaries"], nclx["transfer_characteristics"]) == P3[:2]


# ---------------------------------------------------------------- several images


def test_primary_image_of_several_is_read() -> None:
    images = pillow_heif.HeifFile()
    for value in (10, 200):
        images.add_frombytes("RGB", (32, 16), bytes([value]) * (32 * 16 * 3))
    file = io.BytesIO()
    images.save(file, primary_index=1, quality=90)
    assert any("holds 2 images; the primary one is read" in line for line in warnings_of(file.getvalue()))
    assert abs(int(decode(file.getvalue()).pixels[4, 4, 0]) - 200) <= 2
    items = read_items(file.getvalue())
    assert items is not None
    assert items.count_images() == 2


@pytest.mark.parametrize("options", [{"tile_size": 64}, {"thumbnails": [32]}, {"exif": exif(), "xmp": XMP}], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_parts_of_an_image_are_not_counted(mode: str, options: dict[str, Any]) -> None:
    items = read_items(encode("HEIF", smooth(100, 140, mode), **options))
    assert items is not None
    assert items.count_images() == 1
    assert items.auxiliary_kinds() == []


def test_animation_of_avif() -> None:
    pictures = [Pillow.fromarray(np.roll(smooth(40, 40, "RGBA"), 9 * i, axis=1)) for i in range(3)]
    file = io.BytesIO()
    pictures[0].save(file, "AVIF", save_all=True, append_images=pictures[1:], duration=[40, 50, 60], quality=90)
    rewritten = Pillow.open(io.BytesIO(round_trip(file.getvalue())))
    assert rewritten.n_frames == 3
    for i, picture in enumerate(pictures):
        rewritten.seek(i)
        rewritten.load()
        assert rewritten.info["duration"] == (40, 50, 60)[i]
        difference = np.asarray(rewritten).astype(int) - np.asarray(picture)
        assert np.abs(difference).mean() < 3


def test_auxiliary_images_are_named_in_a_warning() -> None:
    """An alpha channel that calls itself a depth map or a gain map is none."""
    data = encode("AVIF", smooth(20, 30, "RGBA"))
    alpha = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
    other = b"urn:com:apple:photo:2020:aux:hdrgainmap".ljust(len(alpha), b"\0")
    assert any("(hdrgainmap)" in line for line in warnings_of(data.replace(alpha, other)))
    assert not warnings_of(data)


# ---------------------------------------------------------------- invalid files


def assert_one_line(data: bytes, match: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=match) as caught, ImageReader(io.BytesIO(data), name="x") as reader:
        list(reader)
    assert str(caught.value).startswith("x: ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_truncated_files(container: str, mode: str, fraction: float, capfd: pytest.CaptureFixture[str]) -> None:
    data = encode(container, smooth(64, 64, mode), exif=exif(), xmp=XMP)
    assert_one_line(data[: int(len(data) * fraction)], "cut off|damaged|looks like a video", capfd)


@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_encrypted_files(container: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(encode(container, smooth(20, 30, "RGB")))
    offset = data.index(b"infe")
    data[offset + 10 : offset + 12] = b"\0\1"  # index of the protection of the first item
    assert_one_line(bytes(data), "encrypted", capfd)


@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_damaged_files(container: str, capfd: pytest.CaptureFixture[str]) -> None:
    original, generator = encode(container, smooth(40, 40, "RGBA"), exif=exif()), np.random.default_rng(0)
    for _ in range(80):
        data = bytearray(original)
        for _ in range(3):
            data[generator.integers(8, min(len(data), 900))] = generator.integers(256)
        with suppress(InputError), ImageReader(io.BytesIO(bytes(data)), max_megapixels=1) as reader:
            list(reader)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_limits(container: str) -> None:
    data = encode(container, smooth(100, 100, "RGB"))
    with pytest.raises(InputError, match="--max-megapixels"):
        ImageReader(io.BytesIO(data), max_megapixels=0.009)
    with pytest.raises(InputError, match="a side"):
        write_image(io.BytesIO(), [Image(np.zeros((1, 40_000, 3), np.uint8))], ImageFormat(container))


@pytest.mark.parametrize("brand", [b"mif1", b"msf1"])
@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_general_brands(container: str, brand: bytes) -> None:
    """The codec is told by the compatible brands where the major brand is that of every HEIF."""
    data = encode(container, smooth(20, 30, "RGB"))
    with ImageReader(io.BytesIO(data[:8] + brand + data[12:])) as reader:
        assert reader.format.container == container
        assert len(list(reader)) == 1


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode("HEIF", smooth(8, 8, "RGB"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"pip install \"\.\[heic\]"):
        decode(data)
    with pytest.raises(InputError, match=r"<stdout>: HEIC needs .* pip install \"\.\[heic\]"):
        write_image(io.BytesIO(), [Image(smooth(8, 8, "RGB"))], ImageFormat("HEIF"))


def test_libraries_are_imported_only_when_needed(tmp_path: Path) -> None:
    Pillow.fromarray(smooth(8, 8, "RGB")).save(tmp_path / "a.png")
    code = (
        "import sys, denoise; from denoise.files.image import read_image; read_image(sys.argv[1]);"
        "assert not {'pillow_heif', '_pillow_heif', 'PIL._avif', 'PIL.AvifImagePlugin', 'rawpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True)


def test_tiles_of_heif_are_kept() -> None:
    x = smooth(131, 201, "RGB")
    data = encode("HEIF", x, chroma="420", tile_size=64)
    rewritten = round_trip(data)
    assert open_heif(rewritten).info["tiling"]["tile_width"] == 64
    assert np.abs(decode(data).pixels.astype(int) - decode(rewritten).pixels).max() <= 10
    assert not warnings_of(data)


@pytest.mark.parametrize("codes", [(1, 13, 2, 1), (2, 2, 6, 0), (1, 1, 1, 0), (12, 13, 0, 1)])
@pytest.mark.parametrize("container", ["HEIF", "AVIF"])
def test_other_matrices_and_ranges_look_the_same(container: str, codes: tuple[int, ...]) -> None:
    """Matrix and range say how RGB is coded: another file may choose its own, its pixels stay."""
    keys = ("color_primaries", "transfer_characteristics", "matrix_coefficients", "full_range_flag")
    nclx = dict(zip(keys, codes, strict=True))
    data = encode("HEIF", smooth(40, 60, "RGB"), nclx_profile=nclx, **nclx)
    rewritten = round_trip(data, container)
    assert np.abs(decode(data).pixels.astype(int) - decode(rewritten).pixels).max() <= 10
    with ImageReader(io.BytesIO(rewritten)) as reader:
        expected = (1, 13) if 2 in codes[:2] else codes[:2]
        assert reader.format.info["nclx"][:2] == expected
