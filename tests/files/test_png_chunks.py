"""Chunks of PNG files that hold for changed pixels come back, wherever they stand and whatever Pillow writes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image as Pillow

from denoise.files.image import ImageReader, read_image, write_image
from denoise.signals import Image, ImageFormat

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HDR = [(b"cICP", bytes([9, 16, 0, 1])), (b"mDCV", bytes(range(24))), (b"cLLI", bytes(range(8)))]
SCALE = [
    (b"pHYs", struct.pack(">IIB", 2, 1, 0)), (b"sCAL", b"\x010.65\x000.65"), (b"oFFs", struct.pack(">iiB", 3, -4, 0)),
    (b"pCAL", b"depth\0" + struct.pack(">iiBB", 0, 255, 0, 2) + b"mm\x000\x001"), (b"sTER", b"\1"),
]  # fmt: skip
DRAFTS = [(b"mDCv", bytes(24)), (b"cLLi", bytes(8))]
EXIF = Pillow.Exif()
EXIF[274], EXIF[271] = 6, "Maker"
XMP = b"XML:com.adobe.xmp\0\0\0\0\0<x/>"
rng = np.random.default_rng(0)


def encode_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def encode_png(
    colour_type: int,
    bits: int,
    before: list[tuple[bytes, bytes]],
    behind: list[tuple[bytes, bytes]] | None = None,
) -> bytes:
    """Return a PNG of 8 x 4 pixels, each sample the largest or 0, with chunks before and behind the image data."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    row_bytes = (8 * channels * bits + 7) // 8
    rows = (rng.integers(0, 3, (4, row_bytes)) if colour_type == 3 else rng.integers(0, 256, (4, row_bytes))).astype(
        "u1"
    )
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 4, bits, colour_type, 0, 0, 0)), *before]
    chunks += [(b"IDAT", zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())), *(behind or []), (b"IEND", b"")]
    return SIGNATURE + b"".join(encode_chunk(*chunk) for chunk in chunks)


def parse_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(SIGNATURE)
    assert data.startswith(SIGNATURE)
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        assert struct.unpack_from(">I", data, position + 8 + length)[0] == zlib.crc32(kind + content)
        yield kind, content
        position += length + 12


def rewrite(data: bytes, change: int = 0) -> bytes:
    file = io.BytesIO()
    with ImageReader(io.BytesIO(data)) as reader:
        frames = (Image(np.maximum(frame.pixels, change).astype(frame.pixels.dtype), frame.alpha) for frame in reader)
        write_image(file, frames, reader.format)
    return file.getvalue()


@pytest.mark.parametrize(
    ("colour_type", "bits"), [(0, 1), (0, 8), (0, 16), (2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)]
)
@pytest.mark.parametrize("chunks", [HDR, SCALE, DRAFTS], ids=["hdr", "scale", "drafts"])
def test_chunks_about_the_scene_are_kept(colour_type: int, bits: int, chunks: list[tuple[bytes, bytes]]) -> None:
    data = encode_png(colour_type, bits, chunks)
    written = list(parse_chunks(rewrite(data)))
    kinds = [kind for kind, _ in written]
    for chunk in chunks:
        assert written.count(chunk) == 1
        assert kinds.index(chunk[0]) < kinds.index(b"IDAT")
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    np.testing.assert_array_equal(read_image(io.BytesIO(rewrite(data))).pixels, read_image(io.BytesIO(data)).pixels)


def test_chunks_of_a_palette_stand_before_it() -> None:
    data = encode_png(3, 8, [*HDR, (b"PLTE", bytes(range(9)))])
    kinds = [kind for kind, _ in parse_chunks(rewrite(data))]
    assert max(kinds.index(kind) for kind, _ in HDR) < kinds.index(b"PLTE")


def test_resolution_is_written_once() -> None:
    resolution = (b"pHYs", struct.pack(">IIB", 11811, 11811, 1))
    for bits in (8, 16):
        written = list(parse_chunks(rewrite(encode_png(2, bits, [resolution]))))
        assert [chunk for chunk in written if chunk[0] == b"pHYs"] == [resolution]


@pytest.mark.parametrize("bits", [8, 16])
def test_chunks_bound_to_the_old_data_are_dropped(bits: int) -> None:
    chunks = [(b"iDOT", bytes(28)), (b"dSIG", b"x"), (b"caBX", b"signed"), (b"hIST", bytes(2))]
    kinds = {kind for kind, _ in parse_chunks(rewrite(encode_png(2, bits, chunks)))}
    assert kinds == {b"IHDR", b"IDAT", b"IEND"}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("is_behind", [False, True])
def test_metadata_before_and_behind_the_image_data(bits: int, is_behind: bool) -> None:
    chunks = [
        (b"eXIf", EXIF.tobytes()[6:]), (b"tEXt", b"Comment\0behind"), (b"zTXt", b"Long\0\0" + zlib.compress(b"z" * 99)),
        (b"iTXt", XMP), (b"tIME", bytes([7, 232, 1, 2, 3, 4, 5])), (b"prVt", b"private"),
    ]  # fmt: skip
    data = encode_png(2, bits, [] if is_behind else chunks, chunks if is_behind else [])
    written = list(parse_chunks(rewrite(data)))
    for chunk in chunks:
        assert written.count(chunk) == 1
    with ImageReader(io.BytesIO(data)) as reader:
        assert reader.format.info["exif"] == EXIF.tobytes()
        assert reader.format.info["xmp"] == b"<x/>"


def test_metadata_behind_the_image_data_reach_other_containers() -> None:
    data = encode_png(2, 8, [], [(b"eXIf", EXIF.tobytes()[6:]), (b"iTXt", XMP)])
    for extension in ("WEBP", "JPEG", "TIFF"):
        file = io.BytesIO()
        with ImageReader(io.BytesIO(data)) as reader:
            format = reader.format
            write_image(file, reader, ImageFormat(extension, format.mode, 8, format.info))
        assert Pillow.open(file).getexif()[274] == 6


@pytest.mark.parametrize(
    ("colour_type", "bits", "background"),
    [(0, 1, b"\0\1"), (0, 8, b"\0\x07"), (0, 16, b"\x12\x34"), (2, 8, b"\0\1\0\2\0\3"), (2, 16, b"abcdef"),
     (4, 8, b"\0\x07"), (4, 16, b"\x12\x34"), (6, 8, b"\0\1\0\2\0\3"), (6, 16, b"abcdef")],
)  # fmt: skip
def test_background_and_significant_bits(colour_type: int, bits: int, background: bytes) -> None:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    chunks = [(b"sBIT", bytes([max(1, bits - 4)] * channels)), (b"bKGD", background)]
    written = list(parse_chunks(rewrite(encode_png(colour_type, bits, chunks))))
    for chunk in chunks:
        assert written.count(chunk) == 1


def test_background_of_small_depths_is_scaled() -> None:
    written = dict(parse_chunks(rewrite(encode_png(0, 4, [(b"sBIT", b"\4"), (b"bKGD", b"\0\5")]))))
    assert (written[b"IHDR"][8], written[b"bKGD"], written[b"sBIT"]) == (8, struct.pack(">H", 5 * 17), b"\4")


@pytest.mark.parametrize("change", [0, 9])
def test_background_of_a_palette_is_the_nearest_colour(change: int) -> None:
    palette = bytes([0, 0, 0, 100, 150, 200, 9, 9, 9])
    data = encode_png(3, 8, [(b"sBIT", b"\5\6\5"), (b"PLTE", palette), (b"hIST", bytes(6)), (b"bKGD", b"\1")])
    chunks = list(parse_chunks(rewrite(data, change)))
    kinds, written = [kind for kind, _ in chunks], dict(chunks)
    assert kinds.index(b"sBIT") < kinds.index(b"PLTE") < kinds.index(b"bKGD") < kinds.index(b"IDAT")
    assert b"hIST" not in written
    index = written[b"bKGD"][0]
    assert written[b"PLTE"][3 * index :][:3] == bytes([100, 150, 200])
    assert written[b"sBIT"] == b"\5\6\5"


@pytest.mark.parametrize("bits", [8, 16])
def test_significant_bits_of_a_transparent_colour_gain_alpha(bits: int) -> None:
    data = encode_png(2, bits, [(b"sBIT", b"\5\6\5"), (b"tRNS", bytes(6))])
    written = dict(parse_chunks(rewrite(data)))
    assert (written[b"IHDR"][9], written[b"sBIT"]) == (6, bytes([5, 6, 5, bits]))


@pytest.mark.parametrize(
    "chunk", [(b"sBIT", b""), (b"sBIT", bytes(3)), (b"bKGD", b"\1"), (b"bKGD", b""), (b"mDCV", b"")]
)
@pytest.mark.parametrize(("colour_type", "bits"), [(2, 8), (2, 16), (3, 8)])
def test_damaged_chunks_do_no_harm(colour_type: int, bits: int, chunk: tuple[bytes, bytes]) -> None:
    data = encode_png(colour_type, bits, [(b"PLTE", bytes(range(9))), chunk])
    np.testing.assert_array_equal(read_image(io.BytesIO(rewrite(data))).pixels, read_image(io.BytesIO(data)).pixels)


@pytest.mark.parametrize(
    "keyword", ["comment", "dpi", "exif", "loop", "transparency", "duration", "xmp", "icc_profile", "disposal"]
)
@pytest.mark.parametrize("container", ["PNG", "JPEG", "TIFF", "WEBP", "GIF"])
def test_keywords_that_are_keys_of_pillow(keyword: str, container: str) -> None:
    text = (b"tEXt", keyword.encode() + b"\0some text")
    compressed = (b"zTXt", keyword.encode() + b"\0\0" + zlib.compress(b"some text"))
    resolution = (b"pHYs", struct.pack(">IIB", 11811, 11811, 1))
    data = encode_png(2, 8, [resolution, text, compressed, (b"eXIf", EXIF.tobytes()[6:])])
    file = io.BytesIO()
    with ImageReader(io.BytesIO(data)) as reader:
        write_image(file, reader, ImageFormat(container, "RGB", 8, reader.format.info))
    if container == "PNG":
        written = list(parse_chunks(file.getvalue()))
        assert text in written
        assert compressed in written
        assert resolution in written
    if container != "GIF":
        assert Pillow.open(file).getexif()[274] == 6
