"""Palettes: what did not change keeps its index, and what did gets the palette that loses least."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from denoise.files.image import ImageReader, write_image
from denoise.signals import Image

HEIGHT, WIDTH = 20, 30
CONTAINERS = ["PNG", "GIF", "BMP", "TIFF"]


def table(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Colours in no order; none is the neighbour of another."""
    return (3 * np.random.default_rng(seed).permutation(60)[:n, None] + np.array([0, 20, 55])).astype(np.uint8)


def encode(indices: NDArray[np.uint8], colours: NDArray[np.uint8], container: str, **options: Any) -> bytes:
    picture = Pillow.fromarray(indices)
    picture.putpalette(colours.tobytes())
    file = io.BytesIO()
    picture.save(file, container, **options | ({"optimize": False} if container == "GIF" else {}))
    return file.getvalue()


def rewrite(data: bytes, change: Any = lambda pixels: pixels) -> Pillow.Image:
    """Read, change the pixels of each frame, write, and open with Pillow."""
    file = io.BytesIO()
    with ImageReader(io.BytesIO(data)) as reader:
        write_image(file, (replace(frame, pixels=change(frame.pixels)) for frame in reader), reader.format)
    return Pillow.open(file)


def random_indices(used: list[int]) -> NDArray[np.uint8]:
    return np.random.default_rng(1).choice(np.array(used, np.uint8), (HEIGHT, WIDTH))


def mean_square(x: NDArray[Any], y: NDArray[Any]) -> float:
    return float(np.square(x.astype(float) - y.astype(float)).mean())


@pytest.mark.parametrize("container", CONTAINERS)
def test_an_unchanged_image_keeps_its_palette_and_indices(container: str) -> None:
    colours = table(16)
    colours[3] = colours[7]  # of equal colours, the used one
    indices = random_indices([1, 4, 7, 9, 15])
    data = encode(indices, colours, container)
    result = rewrite(data)
    assert (result.mode, result.getpalette()) == ("P", Pillow.open(io.BytesIO(data)).getpalette())
    np.testing.assert_array_equal(np.asarray(result), indices)


@pytest.mark.parametrize("container", ["PNG", "GIF"])
@pytest.mark.parametrize("transparency", [4, 5])
def test_an_unchanged_image_keeps_its_transparent_colour(container: str, transparency: int) -> None:
    """Used or not; another entry has the same colour."""
    colours = table(8)
    colours[2] = colours[transparency]
    indices = random_indices([0, 2, 4, 7])
    result = rewrite(encode(indices, colours, container, transparency=transparency))
    np.testing.assert_array_equal(np.asarray(result), indices)
    rgba = np.asarray(result.convert("RGBA"))
    np.testing.assert_array_equal(rgba[..., 3] == 0, indices == transparency)


@pytest.mark.parametrize("container", CONTAINERS)
def test_changes_below_rounding_are_undone(container: str) -> None:
    indices, colours = random_indices([*range(16)]), table(16)

    def change(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        changed = pixels.copy()
        changed[::8, ::5] += 1
        return changed

    np.testing.assert_array_equal(np.asarray(rewrite(encode(indices, colours, container), change)), indices)


@pytest.mark.parametrize("container", CONTAINERS)
def test_new_colours_take_the_place_of_unused_ones(container: str) -> None:
    """Those of a GIF are appended first, so that unused colours stay, too."""
    indices, colours = random_indices([2, 3, 5, 11]), table(16)
    new = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)

    def change(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        changed = pixels.copy()
        changed[:9, 4] = new.repeat(3, axis=0)
        return changed

    result = rewrite(encode(indices, colours, container), change)
    np.testing.assert_array_equal(np.asarray(result.convert("RGB")), change(colours[indices]))
    np.testing.assert_array_equal(np.asarray(result)[:, 5:], indices[:, 5:])
    if container == "GIF":
        np.testing.assert_array_equal(np.reshape(result.getpalette(), (-1, 3))[:16], colours)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(("kind", "is_source_better"), [("near the palette", True), ("elsewhere", False)])
def test_the_palette_with_the_smaller_error_is_taken(container: str, kind: str, is_source_better: bool) -> None:
    """The oracle is brute force, and Pillow's own median cut."""
    rng = np.random.default_rng(2)
    indices, colours = rng.integers(0, 256, (64, 64), np.uint8), rng.integers(0, 256, (256, 3), np.uint8)
    if kind == "near the palette":
        pixels = (colours[indices] + rng.normal(0, 4, (64, 64, 3))).clip(0, 255).astype(np.uint8)
    else:
        pixels = rng.integers(90, 130, (64, 64, 3), np.uint8)
    result = rewrite(encode(indices, colours, container), lambda _: pixels)
    distances = np.square(pixels[:, :, None].astype(int) - colours).sum(axis=-1)
    nearest = colours[distances.argmin(axis=-1)]
    cut = np.asarray(Pillow.fromarray(pixels).quantize(256, dither=Pillow.Dither.NONE).convert("RGB"))
    by_source, by_cut = mean_square(nearest, pixels), mean_square(cut, pixels)
    assert (by_source < by_cut) == is_source_better
    error = mean_square(np.asarray(result.convert("RGB")), pixels)
    assert error == pytest.approx(by_source) if is_source_better else error <= by_cut


def test_frames_of_a_gif_keep_their_local_and_global_palettes() -> None:
    tables = [table(16, seed) for seed in range(3)]
    pictures = []
    for i, colours in enumerate(tables):
        picture = Pillow.fromarray(np.roll(random_indices([*range(16)]), i, axis=0))
        picture.putpalette(colours.tobytes())
        pictures.append(picture)
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], optimize=False)
    result = rewrite(file.getvalue())
    blocks = result.fp.getvalue()  # type: ignore[union-attr]
    for i, (picture, colours) in enumerate(zip(pictures, tables, strict=True)):
        result.seek(i)
        np.testing.assert_array_equal(np.asarray(result.convert("RGB")), np.asarray(picture.convert("RGB")))
        assert colours.tobytes() in blocks


@pytest.mark.parametrize("n_used", [250, 256])
def test_an_opaque_frame_of_256_colours_before_a_transparent_one(n_used: int) -> None:
    """An unused colour becomes the transparent one, so that nothing is lost; without, the error is small."""
    colours = np.random.default_rng(3).integers(0, 256, (256, 3), np.uint8)
    colours[:, 0] = np.arange(256)
    indices = (np.arange(1024) % n_used).astype(np.uint8).reshape(32, 32)
    with ImageReader(io.BytesIO(encode(indices, colours, "GIF"))) as reader:
        opaque = next(iter(reader))
        hole = Image(opaque.pixels, np.full((32, 32), 255, np.uint8))
        assert hole.alpha is not None
        hole.alpha[4:9] = 0
        file = io.BytesIO()
        write_image(file, [opaque, hole], reader.format)
    result = Pillow.open(file)
    first = np.asarray(result.convert("RGBA"))
    assert (first[..., 3] == 255).all()
    assert (mean_square(first[..., :3], colours[indices]) == 0) == (n_used < 256)
    assert mean_square(first[..., :3], colours[indices]) < 300
    result.seek(1)
    np.testing.assert_array_equal(np.asarray(result.convert("RGBA"))[..., 3], hole.alpha)
