"""JPEG: sampling, colour transforms, lossless files, extended XMP, and what follows the image."""

from __future__ import annotations

import hashlib
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from denoise.errors import InputError
from denoise.files.image import ImageReader, read_image, write_image
from denoise.files.image.registry import IMAGE_EXTENSIONS
from denoise.pipelines.batch import plan
from denoise.signals import Image

FINE, COARSE = [[low + i // step for i in range(64)] for low, step in ((2, 6), (8, 1))]
HDR = b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"'
CONTAINER = (
    b'xmlns:Container="http://ns.google.com/photos/1.0/container/" '
    b'xmlns:Item="http://ns.google.com/photos/1.0/container/item/"'
)
CAMERA = b'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/"'
VIDEO = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 9


def smooth(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    planes = [128 + 90 * np.sin(x / (7 + i) + i) * np.cos(y / (9 + 2 * i)) for i in range(channels)]
    return np.stack(planes, -1).astype(np.uint8)


def encode(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    file = io.BytesIO()
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[pixels.shape[2]]
    Pillow.fromarray(pixels.squeeze(2) if mode == "L" else pixels, mode).save(file, "JPEG", **options)
    return file.getvalue()


def segments(data: bytes) -> list[tuple[int, bytes, int]]:
    """Marker, data and position of each segment before the first scan."""
    result, position = [], 2
    while not result or result[-1][0] != 0xDA:
        marker, length = struct.unpack_from(">xBH", data, position)
        result.append((marker, data[position + 4 : position + 2 + length], position + 4))
        position += 2 + length
    return result


def round_trip(data: bytes) -> tuple[bytes, list[str]]:
    file = io.BytesIO()
    with ImageReader(io.BytesIO(data)) as reader:
        write_image(file, reader, reader.format)
        return file.getvalue(), reader.warnings


def layers(data: bytes) -> list[Any]:
    return [layer[1:3] for layer in Pillow.open(io.BytesIO(data)).layer]


def decode(data: bytes) -> NDArray[Any]:
    return np.asarray(Pillow.open(io.BytesIO(data))).astype(float)


def with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    """Insert a segment before the first quantisation table."""
    position = next(position - 4 for kind, _, position in segments(data) if kind == 0xDB)
    return data[:position] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[position:]


# ---------------------------------------------------------------- sampling and colours


def encode_ycck(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    """Encode YCCK from CMYK in which Pillow writes the values of Y, Cb, Cr and K unchanged."""
    inverted = 255 - pixels
    data = bytearray(encode(inverted, qtables=[FINE, COARSE, COARSE, FINE], subsampling=0, **options))
    for marker, content, position in segments(bytes(data)):
        if marker == 0xEE and content.startswith(b"Adobe"):
            data[position + 11] = 2
    return bytes(data)


def ycck_pixels(height: int, width: int) -> NDArray[np.uint8]:
    pixels = smooth(height, width, 4)
    pixels[..., 1:3] = 128 + (pixels[..., 1:3].astype(int) - 128) // 6  # in the gamut
    pixels[..., 0] = 80 + pixels[..., 0] // 3
    pixels[..., 3] = np.where(np.indices((height, width)).sum(0) % 5 < 2, 250, 10)
    return pixels


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 19), (37, 1), (50, 43)])
def test_ycck_keeps_the_quantisation_of_each_component(size: tuple[int, int], progressive: bool) -> None:
    data = encode_ycck(ycck_pixels(*size), progressive=progressive)
    rewritten, warnings = round_trip(data)
    before, after = Pillow.open(io.BytesIO(data)), Pillow.open(io.BytesIO(rewritten))
    assert (after.mode, after.size, after.info["adobe_transform"]) == ("CMYK", before.size, 2)
    tables = [after.quantization[layer[3]] for layer in after.layer]
    assert tables == [before.quantization[layer[3]] for layer in before.layer]
    assert bool(after.info.get("progressive")) == progressive
    error = decode(data) - decode(rewritten)
    assert np.sqrt((error**2).mean((0, 1))).max() < 0.8
    assert not warnings
    assert len(rewritten) < 1.3 * len(data) + 400


def test_ycck_with_reduced_chrominance() -> None:
    data = bytearray(encode_ycck(np.full((32, 32, 4), (90, 120, 140, 30), np.uint8)))
    data, _ = round_trip(bytes(data))
    with ImageReader(io.BytesIO(data)) as reader:
        image = next(iter(reader))
        layout = reader.format.info["jpeg_layout"]
        reader.format.info["jpeg_layout"] = type(layout)(((2, 2), (1, 1), (1, 1), (2, 2)), has_luminance=True)
        file = io.BytesIO()
        write_image(file, [image], reader.format)
    reduced = file.getvalue()
    assert layers(reduced) == layers(round_trip(reduced)[0]) == [(2, 2), (1, 1), (1, 1), (2, 2)]
    assert np.abs(decode(reduced) - image.pixels).max() <= 3


def encode_440(height: int, width: int, **options: Any) -> bytes:
    """Encode 4:4:0 by turning the MCUs of a 4:2:2 image: two blocks of luminance side by side, then one over the other.

    The content is that of an image of the doubled width and half the height, its blocks of luminance moved.
    """
    data = bytearray(encode(smooth(-(-height // 16) * 8, -(-width // 8) * 16), subsampling=1, **options))
    for marker, _, position in segments(bytes(data)):
        if marker in (0xC0, 0xC2):
            data[position + 1 : position + 5] = struct.pack(">HH", height, width)
            data[position + 7] = 0x12
    return bytes(data)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (33, 1), (64, 48), (61, 43)])
def test_440_sampling_is_kept(size: tuple[int, int]) -> None:
    data = encode_440(*size, quality=90)
    assert layers(data) == [(1, 2), (1, 1), (1, 1)]
    rewritten, _ = round_trip(data)
    assert layers(rewritten) == layers(data)
    before, after = Pillow.open(io.BytesIO(data)), Pillow.open(io.BytesIO(rewritten))
    assert after.quantization == before.quantization
    assert "jfif" in after.info
    assert np.sqrt(((decode(data) - decode(rewritten)) ** 2).mean()) < 4


def test_440_keeps_metadata_and_smooth_content() -> None:
    exif = Pillow.Exif()
    exif[0x010F] = "Maker"
    data = encode_440(160, 120, quality=92, exif=exif, comment=b"hello", dpi=(300, 300), icc_profile=b"profile")
    with ImageReader(io.BytesIO(data)) as reader:
        next(iter(reader))
        file, pixels = io.BytesIO(), smooth(160, 120)
        write_image(file, [Image(pixels)], reader.format)
    after = Pillow.open(io.BytesIO(file.getvalue()))
    assert after.getexif()[0x010F] == "Maker"
    assert (after.info["comment"], after.info["dpi"], after.info["icc_profile"]) == (b"hello", (300, 300), b"profile")
    error = np.sqrt(((np.asarray(after).astype(float) - pixels) ** 2).mean())
    full = np.sqrt(((decode(encode(pixels, quality=92, subsampling=1)) - pixels) ** 2).mean())
    assert error < 1.3 * full


def test_rgb_with_reduced_components() -> None:
    data = bytearray(encode_440(64, 48, quality=90))
    for marker, _, position in segments(bytes(data)):
        if marker == 0xE0:
            data[position - 3 : position - 2] = b"\xe3"  # no JFIF, which would declare luminance
        if marker == 0xC0:
            data[position + 6], data[position + 9], data[position + 12] = b"RGB"
        if marker == 0xDA:
            data[position + 1], data[position + 3], data[position + 5] = b"RGB"
    rewritten, _ = round_trip(bytes(data))
    assert layers(rewritten) == [(1, 2), (1, 1), (1, 1)]
    assert Pillow.open(io.BytesIO(rewritten)).info["adobe_transform"] == 0
    assert np.sqrt(((decode(bytes(data)) - decode(rewritten)) ** 2).mean()) < 4


@pytest.mark.parametrize("ids", [(0, 2), (2, 3), (1, 1)])
def test_quantisation_tables_of_any_number(ids: tuple[int, int]) -> None:
    data = bytearray(encode(smooth(24, 24), qtables=[FINE, COARSE], subsampling=0))
    tables = [position for marker, _, position in segments(bytes(data)) if marker == 0xDB]
    for position, number in zip(tables, ids, strict=True):
        data[position] = number
    (frame,) = (position for marker, _, position in segments(bytes(data)) if marker == 0xC0)
    for i, number in enumerate((ids[0], ids[1], ids[1])):
        data[frame + 8 + 3 * i] = number
    after = Pillow.open(io.BytesIO(round_trip(bytes(data))[0]))
    expected = [COARSE if ids[0] == ids[1] else FINE, COARSE, COARSE]
    assert [after.quantization[layer[3]] for layer in after.layer] == expected


# ---------------------------------------------------------------- lossless


def encode_lossless(pixels: NDArray[np.uint8]) -> bytes:
    """Encode a lossless JPEG (ITU-T T.81, annex H) with the predictor of the left neighbour."""
    height, width, channels = pixels.shape
    counts, values = bytes([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]), list(range(12))
    codes, code, k = {}, 0, 0
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            codes[values[k]] = f"{code:0{length}b}"
            code, k = code + 1, k + 1
        code <<= 1
    bits = ""
    for y, x, c in np.ndindex(height, width, channels):
        predicted = pixels[y, x - 1, c] if x else pixels[y - 1, 0, c] if y else 128
        difference = int(pixels[y, x, c]) - int(predicted)
        size = abs(difference).bit_length()
        bits += codes[size]
        bits += f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}" if size else ""
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    ids = b"RGB"[:channels] if channels == 3 else b"\1"
    parts = [
        (0xC3, struct.pack(">BHHB", 8, height, width, channels) + b"".join(bytes([i, 0x11, 0]) for i in ids)),
        (0xC4, b"\0" + counts + bytes(values)),
        (0xDA, bytes([channels]) + b"".join(bytes([i, 0]) for i in ids) + bytes([1, 0, 0])),
    ]
    head = b"".join(struct.pack(">BBH", 0xFF, marker, len(part) + 2) + part for marker, part in parts)
    return b"\xff\xd8" + head + data + b"\xff\xd9"


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (20, 30)])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_files_are_read_exactly_and_written_well(tmp_path: Path, size: tuple[int, int], channels: int) -> None:
    pixels = smooth(*size, channels)
    data = encode_lossless(pixels)
    with ImageReader(io.BytesIO(data)) as reader:
        write_image(tmp_path / "out.png", reader, reader.format)
        assert not reader.warnings
    np.testing.assert_array_equal(read_image(tmp_path / "out.png").pixels, pixels)
    rewritten, warnings = round_trip(data)
    assert np.abs(decode(rewritten).reshape(pixels.shape) - pixels).max() <= 2
    assert warnings == ["is a lossless JPEG; quality 100 is written. Write PNG to lose nothing."]


def test_lossless_components_without_names() -> None:
    pixels = smooth(20, 30)
    data = encode_lossless(pixels).replace(b"R\x11\0G\x11\0B\x11", b"\1\x11\0\2\x11\0\3\x11")
    data = data.replace(b"R\0G\0B", b"\1\0\2\0\3", 1)
    np.testing.assert_array_equal(read_image(io.BytesIO(data)).pixels, pixels)
    assert np.abs(decode(round_trip(data)[0]) - pixels).max() <= 3


@pytest.mark.parametrize("bits", [2, 12, 16])
def test_depths_other_than_8_bits_are_refused(bits: int) -> None:
    data = bytearray(encode_lossless(smooth(8, 8, 1)))
    data[6] = bits
    with pytest.raises(InputError, match=rf"{bits}-bit"):
        read_image(io.BytesIO(bytes(data)))


# ---------------------------------------------------------------- extended XMP


def encode_extended_xmp(length: int = 150_000, part: int = 60_000) -> tuple[bytes, bytes, list[bytes]]:
    extended = b"<x:xmpmeta>" + b"history " * (length // 8) + b"</x:xmpmeta>"
    guid = hashlib.md5(extended).hexdigest().upper().encode()
    main = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:xmpNote="http://ns.adobe.com/xmp/note/">'
        b'<rdf title="t" xmpNote:HasExtendedXMP="' + guid + b'"/></x:xmpmeta>'
    )
    parts = [
        b"http://ns.adobe.com/xmp/extension/\0" + guid + struct.pack(">II", len(extended), i) + extended[i : i + part]
        for i in range(0, len(extended), part)
    ]
    return encode(smooth(24, 40), xmp=main), main, parts


@pytest.mark.parametrize("order", [1, -1])
def test_extended_xmp_is_kept(order: int) -> None:
    data, main, parts = encode_extended_xmp()
    for part in parts[::order]:
        data = with_segment(data, 0xE1, part)
    rewritten, warnings = round_trip(data)
    app1 = [content for marker, content, _ in segments(rewritten) if marker == 0xE1]
    assert app1 == [b"http://ns.adobe.com/xap/1.0/\0" + main, *parts]
    assert not warnings


@pytest.mark.parametrize("defect", ["missing first", "missing last", "shortened", "none", "stale"])
def test_incomplete_extended_xmp_is_dropped_with_its_announcement(defect: str) -> None:
    data, _, parts = encode_extended_xmp()
    if defect == "stale":
        data = encode(smooth(24, 40), xmp=b"<x/>")
    elif defect == "shortened":
        parts[1] = parts[1][:-7]
    else:
        parts = {"missing first": parts[1:], "missing last": parts[:-1], "none": []}[defect]
    for part in parts:
        data = with_segment(data, 0xE1, part)
    rewritten, warnings = round_trip(data)
    assert warnings == ["the extended XMP is incomplete; it is dropped, the main packet is kept."]
    assert b"xmp/extension" not in rewritten
    assert b"HasExtendedXMP" not in rewritten
    assert defect == "stale" or b'<rdf title="t"/>' in rewritten


# ---------------------------------------------------------------- gain maps, videos


def xmp_packet(attributes: bytes, content: bytes = b"") -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="image/jpeg" '
        + attributes + b">" + content + b"</rdf:Description></rdf:RDF></x:xmpmeta>"
    )  # fmt: skip


def directory(semantic: bytes, length: int) -> bytes:
    return (
        b'<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Primary" '
        b'Item:Mime="image/jpeg"/></rdf:li><rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="'
        + semantic + b'" Item:Length="%d"/></rdf:li></rdf:Seq></Container:Directory>' % length
    )  # fmt: skip


def encode_gain_map(order: str = "<", is_announced_by_mpf: bool = True, **options: Any) -> tuple[bytes, bytes]:
    """Return an Ultra HDR file and its gain map."""
    gain_map = encode(smooth(16, 16, 1))
    xmp = xmp_packet(HDR + b' hdrgm:Version="1.0" ' + CONTAINER, directory(b"GainMap", len(gain_map)))
    data = with_segment(encode(smooth(64, 64), xmp=xmp, **options), 0xE2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0")
    if not is_announced_by_mpf:
        return data + gain_map, gain_map
    tags = [(0xB000, 7, 4, b"0100"), (0xB001, 4, 1, struct.pack(order + "I", 2)), (0xB002, 7, 32, None)]
    index = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    for tag, kind, count, value in tags:
        value = value or struct.pack(order + "I", 8 + 2 + 12 * len(tags) + 4)
        index += struct.pack(order + "HHI", tag, kind, count) + value
    index += bytes(4)
    size = len(data) + 4 + 4 + len(index) + 32
    start = next(position for kind, _, position in segments(data) if kind == 0xDB) + 4  # of the TIFF header
    entries = struct.pack(order + "IIIHH", 0x30000, size, 0, 0, 0)
    entries += struct.pack(order + "IIIHH", 0, len(gain_map), size - start, 0, 0)
    data = with_segment(data, 0xE2, b"MPF\0" + index + entries)
    return data + gain_map, gain_map


def mpf_images(data: bytes) -> list[bytes]:
    """The images of a file by its MPF segment."""
    (position,) = (p + 4 for marker, content, p in segments(data) if marker == 0xE2 and content.startswith(b"MPF\0"))
    order = "<" if data[position : position + 2] == b"II" else ">"
    entries = [struct.unpack_from(order + "4xII", data, position + 50 + 16 * i) for i in range(2)]
    return [data[(position + start if start else 0) :][:size] for size, start in entries]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("behind", [b"", VIDEO])
def test_gain_maps_are_kept(order: str, behind: bytes) -> None:
    data, gain_map = encode_gain_map(order, quality=70)
    assert mpf_images(data)[1] == gain_map
    with ImageReader(io.BytesIO(data + behind)) as reader:
        file = io.BytesIO()
        write_image(file, [Image(smooth(64, 64) // 9)], reader.format)
        assert not reader.warnings
    rewritten = file.getvalue()
    primary, secondary = mpf_images(rewritten)
    assert secondary == gain_map
    assert primary + gain_map + behind == rewritten
    assert primary.endswith(b"\xff\xd9")
    assert decode(primary).shape == (64, 64, 3)
    assert len(primary) != len(mpf_images(data)[0])
    before, after = ([s[1] for s in segments(x) if s[0] in (0xE1, 0xE2) and s[1][:4] != b"MPF\0"]
                     for x in (data, rewritten))  # fmt: skip
    assert sorted(before) == sorted(after)


@pytest.mark.parametrize("is_announced_by_mpf", [False, True])
@pytest.mark.parametrize("cut", [1, 100, 10**6])
def test_incomplete_gain_maps_are_dropped_with_their_announcement(cut: int, is_announced_by_mpf: bool) -> None:
    data, gain_map = encode_gain_map(is_announced_by_mpf=is_announced_by_mpf)
    rewritten, warnings = round_trip(data[: -min(cut, len(gain_map))])
    assert warnings == ["what follows the image (gain map, video) is incomplete; it is dropped."]
    assert not any(name in rewritten for name in (b"hdrgm:Version", b"Directory", b"MPF\0", b"21496"))
    assert b'dc:format="image/jpeg"' in rewritten
    assert rewritten.count(b"\xff\xd8\xff") == 1
    assert not round_trip(rewritten)[1]


@pytest.mark.parametrize("field", ["size", "offset", "directory"])
def test_damaged_mpf_segments(field: str) -> None:
    data = bytearray(encode_gain_map()[0])
    start = data.index(b"MPF\0") + 4 + {"size": 70, "offset": 74, "directory": 4}[field]
    data[start : start + 4] = b"\xff\xff\xff\x0f"
    rewritten, warnings = round_trip(bytes(data))
    assert warnings == ["what follows the image (gain map, video) is incomplete; it is dropped."]
    assert b"MPF\0" not in rewritten


MOTION = [
    xmp_packet(CAMERA + b' GCamera:MotionPhoto="1" ' + CONTAINER, directory(b"MotionPhoto", len(VIDEO))),
    xmp_packet(CAMERA + b' GCamera:MicroVideo="1" GCamera:MicroVideoOffset="%d"' % len(VIDEO)),
    xmp_packet(CAMERA, b"<GCamera:MotionPhoto>1</GCamera:MotionPhoto>"),
]


@pytest.mark.parametrize("xmp", MOTION)
def test_motion_photos_are_kept(xmp: bytes) -> None:
    rewritten, warnings = round_trip(encode(smooth(40, 40), xmp=xmp) + VIDEO)
    assert not warnings
    assert rewritten.endswith(b"\xff\xd9" + VIDEO)
    assert Pillow.open(io.BytesIO(rewritten)).info["xmp"] == xmp


@pytest.mark.parametrize("xmp", MOTION)
def test_motion_photos_without_video(xmp: bytes) -> None:
    rewritten, warnings = round_trip(encode(smooth(40, 40), xmp=xmp))
    assert warnings == ["what follows the image (gain map, video) is incomplete; it is dropped."]
    xmp = Pillow.open(io.BytesIO(rewritten)).info["xmp"]
    assert not any(name in xmp for name in (b"MotionPhoto", b"MicroVideo", b"Directory"))
    assert b'dc:format="image/jpeg"' in xmp


def test_other_containers_warn_of_what_they_cannot_hold(tmp_path: Path) -> None:
    extended, _, parts = encode_extended_xmp()
    for part in parts:
        extended = with_segment(extended, 0xE1, part)
    for data, name in [(encode_gain_map()[0], "what follows the image (gain map, video)"), (extended, "extended XMP")]:
        with ImageReader(io.BytesIO(data)) as reader:
            write_image(tmp_path / "out.png", reader, reader.format, overwrite=True)
            assert reader.warnings == [f"PNG cannot hold {name}; it is dropped."]
        written = (tmp_path / "out.png").read_bytes()
        assert b"hdrgm:Version" not in written
        assert b"HasExtendedXMP" not in written
        assert b"XML:com.adobe.xmp" in written


@pytest.mark.parametrize("padding", [bytes(100), b"\0"])
def test_padding_is_no_loss(tmp_path: Path, padding: bytes) -> None:
    with ImageReader(io.BytesIO(encode(smooth(9, 9)) + padding)) as reader:
        write_image(tmp_path / "out.png", reader, reader.format)
        write_image(tmp_path / "out.jpg", reader, reader.format)
        assert not reader.warnings
    assert (tmp_path / "out.jpg").read_bytes().endswith(b"\xff\xd9" + padding)


def test_other_images_of_mpo_are_dropped_with_their_announcement() -> None:
    file = io.BytesIO()
    picture = Pillow.fromarray(smooth(32, 32))
    picture.save(file, "MPO", save_all=True, append_images=[picture])
    rewritten, warnings = round_trip(file.getvalue())
    assert warnings == ["holds several images (MPO); the first one is read."]
    assert b"MPF\0" not in rewritten
    assert rewritten.count(b"\xff\xd8\xff") == 1


def test_images_of_one_row_with_video() -> None:
    for shape in [(1, 1), (1, 50), (50, 1)]:
        data = encode(smooth(*shape), xmp=MOTION[0]) + VIDEO
        assert round_trip(data)[0].endswith(VIDEO)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.97])
def test_cut_off_first_images_are_refused(fraction: float) -> None:
    data, gain_map = encode_gain_map()
    with pytest.raises(InputError):
        read_image(io.BytesIO(data[: int((len(data) - len(gain_map)) * fraction)]))


def test_files_of_mpo_are_found_in_folders(tmp_path: Path) -> None:
    picture = Pillow.fromarray(smooth(32, 32))
    (tmp_path / "in").mkdir()
    picture.save(tmp_path / "in/stereo.mpo", "MPO", save_all=True, append_images=[picture])
    assert plan([str(tmp_path / "in")], str(tmp_path / "out"), IMAGE_EXTENSIONS) == [
        (str(tmp_path / "in/stereo.mpo"), str(tmp_path / "out/stereo.mpo"))
    ]
    with ImageReader(tmp_path / "in/stereo.mpo") as reader:
        write_image(tmp_path / "stereo.mpo", reader, reader.format)
    assert (tmp_path / "stereo.mpo").read_bytes().startswith(b"\xff\xd8")
