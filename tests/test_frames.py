"""The law of frames: what is cut and joined again is what it was, and local operations do not see the cuts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from denoise.errors import ConfigError
from denoise.frames import Grid, overlap_add, split


def chunked(x: torch.Tensor, size: int, dim: int) -> list[torch.Tensor]:
    return list(x.split(size, dim))


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    context, fade = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    overlap = 2 * context + fade
    return Grid(overlap + max(1, overlap) + draw(st.integers(0, 40)), context, fade)


@settings(deadline=None, max_examples=200)
@given(grids(), st.integers(1, 400), st.integers(1, 70), st.sampled_from([0, 1, -1]))
def test_join_inverts_split(grid: Grid, length: int, chunk: int, dim: int) -> None:
    shape = [3, 3]
    shape[dim] = length
    x = torch.randn(shape, dtype=torch.float64)
    joined = torch.cat([*overlap_add(split(chunked(x, chunk, dim), grid, dim), grid, dim)], dim)
    torch.testing.assert_close(joined, x, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5), st.integers(0, 7), st.integers(1, 300), st.integers(0, 60))
def test_a_local_filter_does_not_see_the_cuts(radius: int, fade: int, length: int, extra: int) -> None:
    kernel = torch.randn(1, 1, 2 * radius + 1, dtype=torch.float64)

    def blur(x: torch.Tensor) -> torch.Tensor:
        return F.conv1d(x[:, None], kernel, padding=radius)[:, 0]

    grid = Grid.fit(extra + 1, radius, fade)
    x = torch.randn(2, length, dtype=torch.float64)
    pieces = overlap_add((w.map(blur(w.data)) for w in split([x], grid)), grid)
    torch.testing.assert_close(torch.cat([*pieces], 1), blur(x), rtol=0, atol=1e-10)


def test_output_comes_before_the_input_ends() -> None:
    grid = Grid(100, 10, 10)
    seen = []

    def source():
        for i in range(50):
            seen.append(i)
            yield torch.zeros(1, 40)

    first = next(overlap_add(split(source(), grid), grid))
    assert first.shape == (1, 70)
    assert len(seen) == 3


@given(st.integers(1, 5000), st.integers(0, 300), st.integers(0, 50), st.integers(1, 64))
def test_fitted_windows_start_at_multiples(window: int, context: int, fade: int, multiple: int) -> None:
    grid = Grid.fit(window, context, fade, multiple)
    assert grid.hop % multiple == 0
    assert grid.window >= min(window, grid.window)
    assert grid.hop >= grid.overlap


@pytest.mark.parametrize(("window", "context", "fade"), [(10, 3, 0), (0, 0, 0), (5, -1, 0), (5, 0, -1), (7, 0, 4)])
def test_impossible_windows_are_refused(window: int, context: int, fade: int) -> None:
    with pytest.raises(ConfigError):
        Grid(window, context, fade)


def test_nothing_in_nothing_out() -> None:
    grid = Grid(4, 0, 0)
    assert [*overlap_add(split([], grid), grid)] == []
    assert [*overlap_add(split([torch.zeros(1, 0)], grid), grid)] == []
