"""TIFF files: fields kept byte by byte, BigTIFF, camera raw files and extra channels, against tifffile and Pillow."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from denoise.errors import InputError
from denoise.files.image import ImageReader, read_image, write_image
from denoise.files.image.raw import Raw
from denoise.files.image.registry import detect_container
from denoise.files.image.tiff import Tiff

ASCII, SHORT, LONG, RATIONAL, DOUBLE = 2, 3, 4, 5, 12
RNG = np.random.default_rng(0)
DTYPES = [np.uint8, np.uint16, np.float32]


def noise(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return RNG.uniform(0, 1, shape).astype(dtype) if dtype == np.float32 else RNG.integers(0, 255, shape).astype(dtype)


def encode(x: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    defaults = {"photometric": "minisblack" if x.ndim == 2 else "rgb", "metadata": None, "software": False}
    tifffile.imwrite(file, x, **(defaults | options))
    return file.getvalue()


def round_trip(data: bytes, path: Path | None = None) -> tuple[bytes, list[str]]:
    file = io.BytesIO()
    with ImageReader(io.BytesIO(data)) as reader:
        write_image(path or file, reader, reader.format)
    return path.read_bytes() if path else file.getvalue(), reader.warnings


def stored_value(data: bytes, code: int, page: int = 0) -> tuple[int, bytes]:
    """Type and bytes of a tag, in the byte order of the file."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = file.pages[page].tags[code]
        size = tag.count * struct.calcsize(tag.dataformat) if tag.dtype != 5 else tag.count * 8
        return int(tag.dtype), data[tag.valueoffset : tag.valueoffset + size]


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le") + b"\0\0"


EXTRA_TAGS = [
    (40091, 1, utf16("Title")), (40092, 1, utf16("Comment")), (40094, 1, utf16("sea;boat")), (18246, SHORT, (4,)),
    (33550, DOUBLE, (10.0, 10.0, 0.0)), (33922, DOUBLE, (0.0, 0.0, 0.0, 4.4e5, 4.1e6, 0.0)),
    (34735, SHORT, (1, 1, 0, 1, 1024, 0, 1, 1)), (34737, ASCII, b"WGS 84|\0"), (42112, ASCII, b"<GDALMetadata/>\0"),
    (42113, ASCII, b"0\0"), (301, SHORT, tuple(range(0, 65536, 256)) * 3), (318, RATIONAL, (3127, 10000, 3290, 10000)),
    (65123, 7, b"private"), (65124, 11, (0.5, -2.0)), (65125, 9, (-70000,)), (254, LONG, (2,)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_all_tags_about_the_image_are_kept(dtype: Any, order: str, compression: str | None) -> None:
    tags = [(code, kind, len(v) // (1 + (kind == RATIONAL)), v, True) for code, kind, v in EXTRA_TAGS if code != 254]
    data = encode(noise(9, 7, dtype=dtype), extratags=tags, byteorder=order, compression=compression, subfiletype=2)
    rewritten, warnings = round_trip(data)
    assert not warnings
    for code, _, _ in EXTRA_TAGS:
        assert stored_value(rewritten, code) == stored_value(data, code), code
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(rewritten)), tifffile.imread(io.BytesIO(data)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_text_beyond_ascii_is_kept(dtype: Any, encoding: str) -> None:
    texts = {270: "0.65 \u00b5m", 315: "Zo\u00eb", 33432: "\u00a9 2024"}
    values = {code: text.encode(encoding) + b"\0" for code, text in texts.items()}
    data = encode(noise(5, 6, dtype=dtype), extratags=[(code, ASCII, len(v), v, True) for code, v in values.items()])
    for code, value in values.items():
        assert stored_value(round_trip(data)[0], code) == (ASCII, value)


def test_text_beyond_ascii_between_containers(tmp_path: Path) -> None:
    copyright_bytes = "\u00a9 Zo\u00eb".encode()
    tags = [(33432, ASCII, len(copyright_bytes) + 1, copyright_bytes + b"\0", True)]
    data = encode(noise(16, 16, 3), extratags=tags)
    jpeg, _ = round_trip(data, tmp_path / "a.jpg")
    assert copyright_bytes in jpeg
    assert stored_value(round_trip(jpeg, tmp_path / "b.tif")[0], 33432) == (ASCII, copyright_bytes + b"\0")


@pytest.mark.parametrize("kind", [1, LONG, 7])
@pytest.mark.parametrize("dtype", DTYPES)
def test_iptc_of_each_type_is_kept(tmp_path: Path, kind: int, dtype: Any) -> None:
    iptc = b"\x1c\x02\x78\0\x0cOslo harbour\0\0\0"
    value = struct.unpack("<5I", iptc) if kind == LONG else iptc
    data = encode(noise(5, 6, 3, dtype=dtype), extratags=[(33723, kind, len(value), value, True)])
    rewritten, warnings = round_trip(data)
    assert stored_value(rewritten, 33723) == (kind, iptc)
    assert not warnings
    if dtype == np.uint8:
        assert iptc in round_trip(data, tmp_path / "a.jpg")[0]


def test_exif_groups_are_kept_on_every_page() -> None:
    """Pillow's writer of pages leaves the offsets of the second page wrong."""
    exif = Pillow.Exif()
    exif[271] = "Maker"
    exif.get_ifd(0x8769).update({0x9003: "2024:01:02 03:04:05", 0x829A: 0.01, 0x927C: b"note" * 9})
    exif.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0)})
    tags = Pillow.Exif()
    tags.load(exif.tobytes())
    pages = [Pillow.fromarray(noise(9, 7, 3)) for _ in range(3)]
    files = [io.BytesIO() for _ in pages]
    for picture, file in zip(pages, files, strict=True):
        picture.save(file, "TIFF", tiffinfo=tags)
    frames, infos = [], []
    for file in files:
        with ImageReader(io.BytesIO(file.getvalue())) as reader:
            frames += list(reader)
            infos += reader.format.info["frames"]
    result = io.BytesIO()
    write_image(result, frames, type(reader.format)("TIFF", "RGB", 8, {"frames": infos}))
    after = Pillow.open(result)
    assert after.n_frames == 3
    for index, picture in enumerate(pages):
        after.seek(index)
        group = after.getexif().get_ifd(0x8769)
        assert (group[0x9003], float(group[0x829A]), group[0x927C]) == ("2024:01:02 03:04:05", 0.01, b"note" * 9)
        assert after.getexif().get_ifd(0x8825)[2] == (1.0, 2.0, 3.0)
        np.testing.assert_array_equal(np.asarray(after), np.asarray(picture))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", DTYPES)
def test_imagej_stack(order: str, dtype: Any) -> None:
    file = io.BytesIO()
    x = noise(3, 8, 9, dtype=dtype)
    metadata = {"Labels": ["a", "b\u00b5", "c"], "Ranges": (0.0, 5.0)}
    tifffile.imwrite(file, x, imagej=True, byteorder=order, metadata=metadata, compression="zlib")
    before = tifffile.TiffFile(io.BytesIO(file.getvalue()))
    after = tifffile.TiffFile(io.BytesIO(round_trip(file.getvalue())[0]))
    assert after.is_imagej
    assert after.imagej_metadata == before.imagej_metadata
    np.testing.assert_array_equal(after.asarray(), x)
    assert after.byteorder == order


def test_ome_tiff() -> None:
    file = io.BytesIO()
    x = noise(4, 8, 9, dtype=np.uint16)
    tifffile.imwrite(file, x, ome=True, metadata={"axes": "CYX", "PhysicalSizeX": 0.65, "PhysicalSizeXUnit": "\u00b5m"})
    with tifffile.TiffFile(io.BytesIO(round_trip(file.getvalue())[0])) as after:
        assert after.is_ome
        assert after.ome_metadata == tifffile.TiffFile(io.BytesIO(file.getvalue())).ome_metadata
        np.testing.assert_array_equal(after.series[0].asarray(), x)


def test_dropped_sub_directories_are_announced() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(noise(32, 32), photometric="minisblack", subifds=1)
        writer.write(noise(16, 16), photometric="minisblack", subfiletype=1)
    rewritten, warnings = round_trip(file.getvalue())
    assert len(warnings) == 1
    assert "sub-directories" in warnings[0]
    with tifffile.TiffFile(io.BytesIO(rewritten)) as result:
        assert 330 not in result.pages[0].tags


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"rowsperstrip": 5}])
@pytest.mark.parametrize("kind", ["L", "L16", "RGB", "RGB16", "float", "bilevel", "palette"])
def test_big_tiff_in_both_byte_orders(kind: str, order: str, options: dict[str, Any]) -> None:
    x = {
        "L": noise(21, 19), "L16": noise(21, 19, dtype=np.uint16), "RGB": noise(21, 19, 3),
        "RGB16": noise(21, 19, 3, dtype=np.uint16), "float": noise(21, 19, dtype=np.float32),
        "bilevel": noise(21, 19) > 99, "palette": noise(21, 19) % 4,
    }[kind]  # fmt: skip
    kinds: dict[str, Any] = {"palette": {"photometric": "palette", "colormap": noise(3, 256, dtype=np.uint16) * 256}}
    tags = [(270, ASCII, 6, b"words\0", True), (33550, DOUBLE, 3, (1.0, 2.0, 0.0), True)]
    data = encode(x, bigtiff=True, byteorder=order, extratags=tags, **options, **kinds.get(kind, {}))
    rewritten, warnings = round_trip(data)
    assert not warnings
    with tifffile.TiffFile(io.BytesIO(rewritten)) as result:
        page = result.pages[0]
        assert page.tags[270].value == "words"
        assert page.tags[33550].value == (1.0, 2.0, 0.0)
        y = page.asrgb() if kind == "palette" else page.asarray()
        if kind == "palette":
            x = tifffile.TiffFile(io.BytesIO(data)).pages[0].asrgb()
            x, y = x >> 8, y >> 8
        np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_grey_with_premultiplied_alpha(dtype: Any, compression: str | None, planar: str) -> None:
    x = noise(13, 11, 2, dtype=dtype)
    stored = x if planar == "contig" else np.moveaxis(x, -1, 0).copy()
    data = encode(stored, photometric="minisblack", extrasamples=["assocalpha"], planarconfig=planar,
                  compression=compression)  # fmt: skip
    frame = read_image(io.BytesIO(data))
    assert frame.alpha is not None
    with tifffile.TiffFile(io.BytesIO(round_trip(data)[0])) as result:
        page = result.pages[0]
        assert [int(kind) for kind in page.extrasamples] == [1]
        np.testing.assert_array_equal(page.asarray(), x)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_premultiplied_alpha_becomes_straight_in_other_containers(tmp_path: Path, dtype: Any) -> None:
    white = int(np.iinfo(dtype).max)
    straight, alpha = noise(13, 11, dtype=dtype) * (white // 255), noise(13, 11, dtype=dtype) * (white // 255)
    alpha[0] = 0
    premultiplied = np.rint(straight.astype(float) * alpha / white).astype(dtype)
    data = encode(np.dstack([premultiplied, alpha]), photometric="minisblack", extrasamples=["assocalpha"],
                  planarconfig="contig")  # fmt: skip
    round_trip(data, tmp_path / "a.png")
    frame = read_image(tmp_path / "a.png")
    assert frame.alpha is not None
    np.testing.assert_array_equal(frame.alpha, alpha)
    error = np.abs(frame.pixels[..., 0].astype(float) - straight) * (alpha / white)
    assert error.max() <= 1
    assert (frame.pixels[0] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("samples", [2, 4])
def test_channels_of_unspecified_kind(dtype: Any, samples: int) -> None:
    """They are further channels of the picture, unless their values are those of a mask."""
    x = noise(13, 11, samples, dtype=dtype)
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    mask = np.full((13, 11), white, dtype)
    half_mask = np.where(np.arange(11) < 6, white, 0).astype(dtype) + np.zeros_like(mask)
    channels = [(x[..., -1], False), (mask * 0, False), (mask, True), (half_mask, True)]
    for channel, is_opacity in channels:
        x[..., -1] = channel
        options = {"photometric": "minisblack" if samples == 2 else "rgb", "planarconfig": "contig"}
        data = encode(x, extrasamples=["unspecified"], **options)
        assert read_image(io.BytesIO(data)).is_alpha_opacity == is_opacity
        with tifffile.TiffFile(io.BytesIO(round_trip(data)[0])) as result:
            assert [int(kind) for kind in result.pages[0].extrasamples] == [0]
            np.testing.assert_array_equal(result.pages[0].asarray(), x)


# ---------------------------------------------------------------- camera raw files


def encode_directories(first: dict[int, Any], sub: dict[int, Any] | None, order: str, head: bytes = b"") -> bytes:
    """A TIFF of SHORT and LONG fields with a preview of 160 x 120 and, in a sub-directory, a larger picture."""

    def directory(fields: dict[int, Any]) -> bytes:
        entries = [struct.pack(order + "HHII", tag, LONG, 1, value) for tag, value in sorted(fields.items())]
        return struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)

    def picture(width: int, height: int) -> dict[int, int]:
        return {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 16, 277: 1, 278: height, 279: width * height}

    pixels = bytes(640 * 480)
    sub_bytes = directory(picture(640, 480) | sub) if sub is not None else b""
    sub_at = 16 + len(pixels)
    first = picture(160, 120) | ({330: sub_at} if sub is not None else {}) | first
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", sub_at + len(sub_bytes)) + head
    return start.ljust(16, b"\0") + pixels + sub_bytes + directory(first)


RAW_FILES = {
    "DNG": ({254: 1, 50706: 0x104}, {262: 32803}, b""),
    "linear DNG": ({254: 1, 50706: 0x104}, {262: 34892}, b""),
    "DNG of one directory": ({50706: 0x104}, None, b""),
    "mosaic": ({254: 1}, {262: 32803}, b""),
    "Nikon": ({254: 1}, {259: 34713}, b""),
    "Sony": ({}, {259: 32767}, b""),
    "larger picture": ({254: 1}, {}, b""),
    "Pentax": ({259: 65535, 262: 32803}, None, b""),
    "Canon": ({}, None, b"CR\2\0"),
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", RAW_FILES)
def test_camera_raw_is_detected(kind: str, order: str) -> None:
    data = encode_directories(*RAW_FILES[kind][:2], order, RAW_FILES[kind][2])
    assert detect_container(io.BytesIO(data)) is Raw
    with suppress(InputError):  # whatever LibRaw makes of it
        assert read_image(io.BytesIO(data)).pixels.shape[:2] == (480, 640)


def test_pyramids_are_no_camera_raw() -> None:
    data = encode_directories({256: 640, 257: 480, 278: 480, 279: 640 * 480}, {256: 320, 257: 240, 254: 1}, "<")
    assert detect_container(io.BytesIO(data)) is Tiff
    assert read_image(io.BytesIO(data)).pixels.shape == (480, 640, 1)


def test_damaged_directories_raise_only_input_errors() -> None:
    iptc = (1, 2, 3, 4)
    original = encode(noise(9, 9, 3), bigtiff=True, byteorder=">", extratags=[(33723, LONG, 4, iptc, True)])
    for data in (original, encode_directories({34665: 16}, {}, "<")):
        for index in range(16, min(len(data), 400)):
            damaged = bytearray(data)
            damaged[index] = RNG.integers(0, 256)
            with suppress(InputError), ImageReader(io.BytesIO(bytes(damaged)), max_megapixels=1) as reader:
                write_image(io.BytesIO(), reader, reader.format)
