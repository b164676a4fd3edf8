"""Laws of frames: overlap_add inverts split, and local operations do not depend on the windows."""

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from denoise.errors import ConfigError
from denoise.frames import Grid, Window, cat_preallocated, overlap_add, split

Array = NDArray[Any]
RNG = np.random.default_rng(0)


def chunked(x: Array, size: int, axis: int) -> list[Array]:
    return np.split(x, range(size, x.shape[axis], size), axis)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    context, fade = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    overlap = 2 * context + fade
    return Grid(overlap + max(1, overlap) + draw(st.integers(0, 40)), context, fade)


@settings(max_examples=200)
@given(grids(), st.integers(1, 400), st.integers(1, 70), st.sampled_from([0, 1, -1]))
def test_overlap_add_inverts_split(grid: Grid, length: int, chunk: int, dim: int) -> None:
    shape = [3, 3]
    shape[dim] = length
    x = RNG.normal(size=shape)
    joined = np.concatenate([*overlap_add(split(chunked(x, chunk, dim), grid, dim), grid, dim)], dim)
    np.testing.assert_allclose(joined, x, rtol=0, atol=1e-12)
    pieces = overlap_add(split(chunked(x, chunk, dim), grid, dim), grid, dim)
    np.testing.assert_array_equal(cat_preallocated(pieces, tuple(shape), dim), joined.astype(np.float32))


@settings(max_examples=60)
@given(st.integers(1, 5), st.integers(0, 7), st.integers(1, 300), st.integers(0, 60))
def test_local_filter_does_not_depend_on_the_windows(radius: int, fade: int, length: int, extra: int) -> None:
    kernel = RNG.normal(size=2 * radius + 1)

    def blur(x: Array) -> Array:
        return scipy.ndimage.convolve1d(x, kernel, mode="constant")

    grid = Grid.fit(extra + 1, radius, fade)
    x = RNG.normal(size=(2, length))
    pieces = overlap_add((w.map(blur(w.data)) for w in split([x], grid)), grid)
    np.testing.assert_allclose(np.concatenate([*pieces], 1), blur(x), rtol=0, atol=1e-10)


def test_output_starts_before_the_input_ends() -> None:
    grid = Grid(100, 10, 10)
    n_read = 0

    def source():
        nonlocal n_read
        for _ in range(50):
            n_read += 1
            yield np.zeros((1, 40))

    first = next(overlap_add(split(source(), grid), grid))
    assert first.shape == (1, 70)
    assert n_read == 3


@given(st.integers(1, 5000), st.integers(0, 300), st.integers(0, 50), st.integers(1, 64))
def test_fitted_windows_start_at_multiples(window: int, context: int, fade: int, multiple: int) -> None:
    grid = Grid.fit(window, context, fade, multiple)
    assert grid.hop % multiple == 0
    assert grid.window >= min(window, grid.window)
    assert grid.hop >= grid.overlap


@pytest.mark.parametrize(("window", "context", "fade"), [(10, 3, 0), (0, 0, 0), (5, -1, 0), (5, 0, -1), (7, 0, 4)])
def test_too_short_windows_are_refused(window: int, context: int, fade: int) -> None:
    with pytest.raises(ConfigError):
        Grid(window, context, fade)


def test_empty_signal() -> None:
    grid = Grid(4, 0, 0)
    assert [*overlap_add(split([], grid), grid)] == []
    assert [*overlap_add(split([np.zeros((1, 0))], grid), grid)] == []


@settings(max_examples=100)
@given(grids(), st.integers(1, 200), st.lists(st.integers(0, 200), max_size=6), st.sampled_from([-4, -1, 1, 2]))
def test_windows_start_at_multiples_of_the_hop(grid: Grid, length: int, cuts: list[int], dim: int) -> None:
    shape = [2] * 4
    shape[dim] = length
    x = RNG.normal(size=shape)
    ends = sorted(min(cut, length) for cut in cuts)
    chunks = np.split(x, ends, dim)  # some empty
    windows = [*split(chunks, grid, dim)]
    assert [window.start for window in windows] == [i * grid.hop for i in range(len(windows))]
    assert [window.last for window in windows] == [*[False] * (len(windows) - 1), True]
    for i, window in enumerate(windows):
        expected = np.take(x, range(i * grid.hop, min(i * grid.hop + grid.window, length)), dim)
        np.testing.assert_array_equal(window.data, expected)
    joined = np.concatenate([*overlap_add(windows, grid, dim)], dim)
    np.testing.assert_allclose(joined, x, rtol=0, atol=1e-12)


def test_tiles_of_bands_filter_an_image_as_a_whole() -> None:
    rng = np.random.default_rng(3)
    kernel, x = rng.normal(size=(5, 7)), rng.normal(size=(2, 61, 47))
    rows, columns = Grid(14, 2, 3), Grid(20, 3, 1)

    def smear(data: Array) -> Array:
        return scipy.ndimage.convolve(data, kernel[None], mode="constant")

    def band(data: Array) -> Array:
        tiles = (tile.map(smear(tile.data)) for tile in split([data], columns))
        return np.concatenate([*overlap_add(tiles, columns)], -1)

    bands = overlap_add((b.map(band(b.data)) for b in split([x], rows, -2)), rows, -2)
    np.testing.assert_allclose(np.concatenate([*bands], -2), smear(x), rtol=0, atol=1e-10)


def test_filter_without_context_depends_on_the_windows() -> None:
    x, grid = RNG.normal(size=(1, 100)), Grid(20, 0, 4)

    def smear(data: Array) -> Array:
        return scipy.ndimage.uniform_filter1d(data, 5, mode="constant")

    pieces = overlap_add((w.map(smear(w.data)) for w in split([x], grid)), grid)
    assert not np.allclose(np.concatenate([*pieces], -1), smear(x), atol=1e-3)


def test_windows_fade_linearly_into_each_other() -> None:
    windows = [Window(np.zeros(40), True, False), Window(np.ones(40), False, True)]
    joined = np.concatenate([*overlap_add(windows, Grid(window=40, context=5, fade=10))])
    expected = np.concatenate([np.zeros(25), np.linspace(0.05, 0.95, 10), np.ones(25)])
    np.testing.assert_allclose(joined, expected, atol=1e-6)


def test_buffer_does_not_grow() -> None:
    grid, n_read, n_written = Grid(50, 4, 2), 0, 0

    def source():
        nonlocal n_read
        for _ in range(1000):
            n_read += 10
            yield np.zeros(10)

    for piece in overlap_add(split(source(), grid), grid):
        n_written += len(piece)
        assert n_read - n_written <= 2 * grid.window
    assert n_written == 10_000


@given(st.integers(-5, 500), st.integers(0, 60), st.integers(0, 60), st.integers(1, 64))
def test_fitted_windows_are_the_shortest_possible(window: int, context: int, fade: int, multiple: int) -> None:
    overlap = 2 * context + fade
    minimum = max(window, 2 * overlap, overlap + 1)
    assert minimum <= Grid.fit(window, context, fade, multiple).window < minimum + multiple


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype_is_kept(dtype: type) -> None:
    x, grid = np.linspace(-1, 1, 50, dtype=dtype), Grid(20, 2, 4)
    joined = np.concatenate([*overlap_add(split([x], grid), grid)])
    assert joined.dtype == dtype
    np.testing.assert_allclose(joined, x, atol=2 * np.finfo(dtype).eps)
