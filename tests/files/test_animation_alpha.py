"""Alpha of every frame of an animation comes back, with every method of disposal."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import GifImagePlugin
from PIL import Image as Pillow

from denoise.errors import InputError
from denoise.files.image import ImageReader, write_image
from denoise.signals import Image, ImageFormat

WIDTH, HEIGHT, N_FRAMES = 9, 7, 4
Box = tuple[int, int, int, int]


def rewrite(data: bytes, container: str | None = None) -> bytes:
    file = io.BytesIO()
    with ImageReader(io.BytesIO(data)) as reader:
        source = reader.format
        write_image(file, reader, ImageFormat(container or source.container, source.mode, 8, source.info))
    return file.getvalue()


def decode_with_pillow(data: bytes) -> list[NDArray[np.uint8]]:
    picture = Pillow.open(io.BytesIO(data))
    frames = []
    for index in range(getattr(picture, "n_frames", 1)):
        picture.seek(index)
        frames.append(np.asarray(picture.convert("RGBA")))
    return frames


def assert_same_frames(expected: list[NDArray[np.uint8]], result: list[NDArray[np.uint8]]) -> None:
    """Compare alpha, and the colours of pixels that are not fully transparent."""
    assert len(result) == len(expected)
    for one, other in zip(expected, result, strict=True):
        np.testing.assert_array_equal(other[..., 3], one[..., 3])
        np.testing.assert_array_equal(other[one[..., 3] > 0], one[one[..., 3] > 0])


def random_box(rng: np.random.Generator, *, is_whole: bool) -> Box:
    if is_whole:
        return 0, 0, WIDTH, HEIGHT
    x, y = int(rng.integers(0, 4)), int(rng.integers(0, 3))
    return x, y, int(rng.integers(1, WIDTH - x + 1)), int(rng.integers(1, HEIGHT - y + 1))


# ---------------------------------------------------------------- GIF


def encode_gif(frames: list[tuple[NDArray[np.uint8], list[int], tuple[int, int], dict[str, Any]]]) -> bytes:
    """Return a GIF of frames (indices, palette, offset, options of their blocks)."""
    file = io.BytesIO()
    file.write(b"GIF89a" + struct.pack("<HHBBB", WIDTH, HEIGHT, 0x70, 0, 0) + b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")
    for indices, palette, offset, options in frames:
        picture = Pillow.fromarray(indices)
        picture.putpalette(palette)
        blocks = GifImagePlugin.getdata(picture, offset, include_color_table=True, duration=100, **options)
        file.writelines(blocks)
    return file.getvalue() + b";"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("disposals", [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3), (2, 1, 3), (1, 2, 0), (3, 2, 1)])
@pytest.mark.parametrize("are_all_transparent", [False, True])
def test_gif_disposal(disposals: tuple[int, ...], are_all_transparent: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = []
    for index, disposal in enumerate((*disposals, 0)):
        x, y, width, height = random_box(rng, is_whole=index == 0)
        options = {"disposal": disposal}
        if are_all_transparent or rng.random() < 0.5:
            options["transparency"] = int(rng.integers(0, 4))
        indices = rng.integers(0, 4, (height, width), np.uint8)
        frames.append((indices, rng.integers(0, 255, 12).tolist(), (x, y), options))
    data = encode_gif(frames)
    assert_same_frames(decode_with_pillow(data), decode_with_pillow(rewrite(data)))


def test_hidden_colours_of_a_gif_become_one() -> None:
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[2:5] = 0
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    file = io.BytesIO()
    write_image(file, [Image(pixels, alpha)], ImageFormat("GIF", "P"))
    assert_same_frames([np.dstack([pixels, alpha])], decode_with_pillow(file.getvalue()))


@pytest.mark.parametrize("n_colours", [4, 256])
def test_opaque_gif_frame_before_a_transparent_one(n_colours: int) -> None:
    opaque = (np.arange(400) % n_colours).astype(np.uint8).reshape(20, 20, 1)
    alpha = np.full((20, 20), 255, np.uint8)
    alpha[5:9] = 0
    file = io.BytesIO()
    write_image(file, [Image(opaque), Image(opaque, alpha), Image(opaque)], ImageFormat("GIF", "P"))
    result = decode_with_pillow(file.getvalue())
    for frame, expected in zip(result, (255, alpha, 255), strict=True):
        np.testing.assert_array_equal(frame[..., 3], expected)
    assert np.abs(result[0][..., :1].astype(int) - opaque).max() <= (n_colours == 256)


def test_palettes_of_greys_in_order() -> None:
    greys = [i for i in range(4) for _ in range(3)]
    indices = np.arange(WIDTH * HEIGHT, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 4
    # The same picture with the palette reversed, for Pillow takes greys in order for no palette.
    data, reversed_data = (
        encode_gif(
            [(x, palette, (0, 0), {"disposal": 2, "transparency": transparency}),
             (x[:3], palette, (0, 2), {"disposal": 1, "transparency": transparency}),
             (indices, [9, 9, 9, 70, 80, 90, 5, 5, 5, 200, 30, 30], (0, 0), {"disposal": 0})]
        )
        for x, palette, transparency in ((indices, greys, 2), (3 - indices, greys[::-1], 1))
    )  # fmt: skip
    expected = decode_with_pillow(reversed_data)
    assert (expected[0][..., 3] == 0).any()
    assert_same_frames(expected, decode_with_pillow(rewrite(data)))


@pytest.mark.parametrize("has_hole", [False, True])
def test_grey_gif_is_read_as_grey(has_hole: bool) -> None:
    greys = [i for i in range(4) for _ in range(3)]
    indices = np.arange(WIDTH * HEIGHT, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 4
    options = {"disposal": 0} | ({"transparency": 2} if has_hole else {})
    with ImageReader(io.BytesIO(encode_gif([(indices, greys, (0, 0), options)] * 2))) as reader:
        for frame in reader:
            np.testing.assert_array_equal(frame.pixels[..., 0], indices)
            assert frame.pixels.shape[2] == 1
            assert (frame.alpha is not None) == has_hole


def test_written_gif_starts_with_no_grey_palette_in_order() -> None:
    one = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    frames = [one, one // 16 * 16 + 3, one]
    file = io.BytesIO()
    write_image(file, [Image(x.astype(np.uint8)) for x in frames], ImageFormat("GIF", "P"))
    for frame, expected in zip(decode_with_pillow(file.getvalue()), frames, strict=True):
        np.testing.assert_array_equal(frame[..., :1], expected)


# ---------------------------------------------------------------- APNG


def encode_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


Frame = tuple[NDArray[np.uint8], int, int, int, int]
"""Samples (height, width, samples), x, y, disposal and blend."""


def encode_apng(
    colour_type: int, frames: list[Frame], chunks: bytes = b"", default_image: NDArray[np.uint8] | None = None
) -> bytes:
    def compress(x: NDArray[np.uint8]) -> bytes:
        return zlib.compress(np.pad(x.reshape(len(x), -1), ((0, 0), (1, 0))).tobytes())

    data = b"\x89PNG\r\n\x1a\n"
    data += encode_chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, colour_type, 0, 0, 0)) + chunks
    data += encode_chunk(b"acTL", struct.pack(">II", len(frames), 0))
    if default_image is not None:
        data += encode_chunk(b"IDAT", compress(default_image))
    number = 0
    for index, (x, left, top, disposal, blend) in enumerate(frames):
        control = struct.pack(">5I2H2B", number, x.shape[1], x.shape[0], left, top, 1, 10, disposal, blend)
        data, number = data + encode_chunk(b"fcTL", control), number + 1
        if index == 0 and default_image is None:
            data += encode_chunk(b"IDAT", compress(x))
        else:
            data, number = data + encode_chunk(b"fdAT", struct.pack(">I", number) + compress(x)), number + 1
    return data + encode_chunk(b"IEND", b"")


def compose(frames: list[tuple[NDArray[np.uint8], int, int, int, int]]) -> list[NDArray[np.uint8]]:
    """Compose frames of RGBA as the specification of APNG says, in premultiplied floats."""
    canvas = np.zeros((HEIGHT, WIDTH, 4))
    shown = []
    for x, left, top, disposal, blend in frames:
        before = canvas.copy()
        region = canvas[top : top + x.shape[0], left : left + x.shape[1]]
        front = x / 255.0
        front[..., :3] *= front[..., 3:]
        region[:] = front + (region * (1 - front[..., 3:]) if blend else 0)
        straight = canvas[..., :3] / np.maximum(canvas[..., 3:], 1e-9)
        shown.append(np.rint(np.dstack([straight, canvas[..., 3]]) * 255).astype(np.uint8))
        if disposal == 1:
            region[:] = 0
        elif disposal == 2:
            canvas = before
    return shown


def to_rgba(x: NDArray[np.uint8], colour_type: int, palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if colour_type == 3:
        return palette[x[..., 0]]
    colours = x[..., : -1 if colour_type in (4, 6) else None]
    if colour_type in (4, 6):
        alpha = x[..., -1]
    else:
        transparent = np.array([7] * colours.shape[2])
        alpha = np.where((colours == transparent).all(axis=2), 0, 255).astype(np.uint8)
    return np.dstack([np.broadcast_to(colours, (*x.shape[:2], 3)), alpha])


def read_rgba(data: bytes) -> list[NDArray[np.uint8]]:
    with ImageReader(io.BytesIO(data)) as reader:
        return [
            np.dstack([
                np.broadcast_to(frame.pixels, (HEIGHT, WIDTH, 3)),
                np.full((HEIGHT, WIDTH), 255, np.uint8) if frame.alpha is None else frame.alpha,
            ])
            for frame in reader
        ]  # fmt: skip


def assert_close_frames(expected: list[NDArray[np.uint8]], result: list[NDArray[np.uint8]]) -> None:
    """Compare alpha, and premultiplied colours, but for rounding at each of the blends."""
    assert len(result) == len(expected)
    for one, other in zip(expected, result, strict=True):
        assert np.abs(one[..., 3].astype(int) - other[..., 3]).max() <= 1
        difference = np.abs(one[..., :3].astype(float) - other[..., :3]) * one[..., 3:] / 255
        assert difference.max() <= 2


def join_equal(frames: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Drop frames that look like their predecessor, and hidden colours: writers join such frames."""
    visible = [x * (x[..., 3:] > 0) for x in frames]
    return [x for i, x in enumerate(visible) if not i or (x != visible[i - 1]).any()]


@pytest.mark.parametrize("colour_type", [0, 2, 3, 4, 6])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("has_transparency", [False, True])
@pytest.mark.parametrize("has_default_image", [False, True])
def test_apng_disposal(colour_type: int, seed: int, has_transparency: bool, has_default_image: bool) -> None:
    rng = np.random.default_rng(seed)
    samples, limit = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type], 4 if colour_type == 3 else 256
    palette = np.column_stack([rng.integers(0, 256, (4, 3)), [0, 255, 255, 128]]).astype(np.uint8)
    if not has_transparency:
        palette[:, 3] = 255
    chunks = encode_chunk(b"PLTE", palette[:, :3].tobytes()) if colour_type == 3 else b""
    if has_transparency and colour_type in (0, 2, 3):
        chunks += encode_chunk(b"tRNS", palette[:, 3].tobytes() if colour_type == 3 else b"\0\7" * samples)
    frames: list[Frame] = []
    for index in range(N_FRAMES):
        x, y, width, height = random_box(rng, is_whole=index == 0)
        pixels = rng.integers(0, limit, (height, width, samples), np.uint8)
        if colour_type in (0, 2):
            pixels[rng.random((height, width)) < 0.4] = 7
        elif colour_type != 3:
            pixels[rng.random((height, width)) < 0.4, -1] = 0
        frames.append((pixels, x, y, int(rng.integers(0, 3)), int(rng.integers(0, 2))))
    default_image = rng.integers(0, limit, (HEIGHT, WIDTH, samples), np.uint8) if has_default_image else None
    data = encode_apng(colour_type, frames, chunks, default_image)

    def opaque_or_not(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
        rgba = to_rgba(x, colour_type, palette)
        if not has_transparency and colour_type in (0, 2):
            rgba[..., 3] = 255
        return rgba

    expected = compose([(opaque_or_not(x), *rest) for x, *rest in frames])
    if default_image is not None:
        expected.insert(0, opaque_or_not(default_image))
    assert_close_frames(expected, read_rgba(data))
    rewritten = rewrite(data)
    read = join_equal(read_rgba(data))
    assert_same_frames(read, join_equal(read_rgba(rewritten)))
    assert_same_frames(read, join_equal(decode_with_pillow(rewritten)))
    assert_same_frames(read, join_equal(read_rgba(rewrite(data, "WEBP"))))


def test_apng_of_one_palette_keeps_it() -> None:
    palette = bytes([0, 0, 0, 200, 30, 30, 30, 30, 200, 30, 200, 30])
    chunks = encode_chunk(b"PLTE", palette) + encode_chunk(b"tRNS", bytes([0, 255, 255, 128]))
    x = np.random.default_rng(0).integers(0, 4, (HEIGHT, WIDTH, 1), np.uint8)
    data = encode_apng(3, [(x, 0, 0, 0, 0), (x[::-1], 0, 0, 0, 0)], chunks)
    rewritten = rewrite(data)
    assert Pillow.open(io.BytesIO(rewritten)).mode == "P"
    assert_same_frames(decode_with_pillow(data), read_rgba(rewritten))


@pytest.mark.parametrize("cut", [20, 60, 100])
def test_damaged_apng(cut: int) -> None:
    x = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    data = encode_apng(6, [(x, 0, 0, 0, 0), (x[::-1], 0, 0, 0, 0)])
    with pytest.raises(InputError), ImageReader(io.BytesIO(data[:-cut])) as reader:
        list(reader)


def test_apng_with_frames_out_of_order() -> None:
    x = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    data = bytearray(encode_apng(6, [(x, 0, 0, 0, 0), (x[::-1], 0, 0, 0, 0)]))
    data[data.rindex(b"fdAT") + 7] = 9
    with pytest.raises(InputError, match="out of order"), ImageReader(io.BytesIO(data)) as reader:
        list(reader)


# ---------------------------------------------------------------- WebP


def encode_webp(frames: list[Image], **options: Any) -> bytes:
    pictures = [Pillow.fromarray(x.pixels if x.alpha is None else np.dstack([x.pixels, x.alpha])) for x in frames]
    file = io.BytesIO()
    options = {"lossless": True, "duration": 50} | options
    pictures[0].save(file, "WEBP", save_all=True, append_images=pictures[1:], **options)
    return file.getvalue()


def random_webp_frames(n_opaque: int) -> list[Image]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    alphas = rng.choice(np.array([0, 90, 255], np.uint8), (N_FRAMES, HEIGHT, WIDTH))
    return [Image(x, None if i < n_opaque else alpha) for i, (x, alpha) in enumerate(zip(pixels, alphas, strict=True))]


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("n_opaque", [0, 1, 3])
def test_webp_alpha(n_opaque: int, lossless: bool) -> None:
    data = encode_webp(random_webp_frames(n_opaque), lossless=lossless)
    expected, result = decode_with_pillow(data), decode_with_pillow(rewrite(data))
    for one, other in zip(expected, result, strict=True):
        np.testing.assert_array_equal(other[..., 3], one[..., 3])


def test_opaque_webp_stays_opaque() -> None:
    data = encode_webp(random_webp_frames(N_FRAMES))
    with ImageReader(io.BytesIO(data)) as reader:
        assert reader.format.mode == "RGB"
        assert all(frame.alpha is None for frame in reader)
        assert {info["mode"] for info in reader.format.info["frames"]} == {"RGB"}
    assert Pillow.open(io.BytesIO(rewrite(data))).mode == "RGB"


def encode_webp_with_gap() -> bytes:
    """Return an animation without the flag of alpha whose second frame leaves a part of the canvas uncovered."""

    def encode_riff_chunk(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)

    def encode_frame(x: int, picture: Pillow.Image) -> bytes:
        file = io.BytesIO()
        picture.save(file, "WEBP", lossless=True)
        places = [x // 2, 0, picture.width - 1, picture.height - 1, 50]
        control = b"".join(struct.pack("<I", place)[:3] for place in places) + b"\3"  # no blending, dispose
        return encode_riff_chunk(b"ANMF", control + file.getvalue()[12:])

    body = encode_riff_chunk(b"VP8X", b"\2\0\0\0" + struct.pack("<I", 7)[:3] + struct.pack("<I", 3)[:3])
    body += encode_riff_chunk(b"ANIM", bytes(6))
    body += encode_frame(0, Pillow.new("RGB", (8, 4), "red")) + encode_frame(2, Pillow.new("RGB", (4, 4), "blue"))
    return encode_riff_chunk(b"RIFF", b"WEBP" + body)


def test_webp_with_alpha_that_it_does_not_state() -> None:
    data = encode_webp_with_gap()
    with ImageReader(io.BytesIO(data)) as reader:
        first, second = reader
    assert first.alpha is None
    expected = np.repeat(np.array([0, 255, 0], np.uint8), (2, 4, 2))
    assert second.alpha is not None
    np.testing.assert_array_equal(second.alpha, np.broadcast_to(expected, (4, 8)))
    result = decode_with_pillow(rewrite(data))
    np.testing.assert_array_equal(result[0][..., 3], 255)
    np.testing.assert_array_equal(result[1][..., 3], second.alpha)


@pytest.mark.parametrize("is_animated", [False, True])
@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_metadata(is_animated: bool, lossless: bool, mode: str) -> None:
    exif = Pillow.Exif()
    exif[274], exif[271] = 6, "Maker"
    metadata = {"exif": exif.tobytes()[6:], "xmp": b"<x/>", "icc_profile": b"profile" * 9}
    frames = random_webp_frames(0 if mode == "RGBA" else N_FRAMES)[: 3 if is_animated else 1]
    data = encode_webp(frames, lossless=lossless, **metadata)
    result = Pillow.open(io.BytesIO(rewrite(data)))
    assert {key: result.info[key] for key in metadata} == metadata
    assert result.n_frames == len(frames)


@pytest.mark.parametrize("is_animated", [False, True])
def test_png_metadata_reach_webp_without_a_prefix(is_animated: bool) -> None:
    exif = Pillow.Exif()
    exif[274] = 6
    chunks = encode_chunk(b"eXIf", exif.tobytes()[6:]) + encode_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")
    x = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    data = encode_apng(6, [(x, 0, 0, 0, 0), (x[::-1], 0, 0, 0, 0)][: 1 + is_animated], chunks)
    result = Pillow.open(io.BytesIO(rewrite(data, "WEBP")))
    assert (result.info["exif"], result.info["xmp"]) == (exif.tobytes()[6:], b"<x/>")


def test_webp_exif_reaches_other_containers() -> None:
    exif = Pillow.Exif()
    exif[274] = 6
    data = encode_webp(random_webp_frames(N_FRAMES)[:1], exif=exif.tobytes()[6:])
    for container in ("PNG", "JPEG", "TIFF", "WEBP"):
        assert Pillow.open(io.BytesIO(rewrite(data, container))).getexif()[274] == 6
