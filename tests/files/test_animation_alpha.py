"""Alpha of every frame of an animation comes back, with every method of disposal."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import GifImagePlugin
from PIL import Image as Pillow

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
