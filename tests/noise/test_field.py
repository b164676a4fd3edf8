"""White noise as a function of position."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from denoise.noise import noise_field


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 150), st.integers(1, 90)), min_size=1, max_size=2), st.data())
def test_a_window_equals_the_crop_of_a_larger_window(axes: list[tuple[int, int]], data: st.DataObject) -> None:
    start, size = zip(*axes, strict=True)
    whole = noise_field(3, 1, 2, start, size)
    assert whole.shape == (2, *size)
    offset = [data.draw(st.integers(0, n - 1)) for n in size]
    crop = [data.draw(st.integers(1, n - o)) for n, o in zip(size, offset, strict=True)]
    window = noise_field(3, 1, 2, [a + o for a, o in zip(start, offset, strict=True)], crop)
    for axis, (o, n) in enumerate(zip(offset, crop, strict=True)):
        whole = whole.narrow(axis + 1, o, n)
    torch.testing.assert_close(window, whole, rtol=0, atol=0)


@pytest.mark.parametrize("space", [(40_000,), (200, 200)])
def test_the_field_is_standard_normal_and_white(space: tuple[int, ...]) -> None:
    x = noise_field(0, 0, 2, (0,) * len(space), space)
    n = x.numel()
    assert abs(x.mean()) < 4 / n**0.5
    assert abs(x.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((x[0] * x[1]).mean()) < 4 / (n / 2) ** 0.5
    for shift in (1, 64):  # neighbouring blocks are independent
        assert abs((x[..., shift:] * x[..., :-shift]).mean()) < 5 / n**0.5


def test_fields_of_seeds_and_levels_are_independent() -> None:
    fields = [noise_field(seed, level, 1, (0,), (5000,)) for seed, level in ((0, 0), (0, 1), (1, 0))]
    for a in range(3):
        for b in range(a):
            assert abs((fields[a] * fields[b]).mean()) < 0.06
