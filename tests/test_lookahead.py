"""Noise floors with a look-ahead: lowered where a signal decays, kept where noise is stationary or nothing is heard."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from denoise.lookahead import MAX_POWER, MAX_STATIONARY_RATIO, lower_to_following

Array = NDArray[Any]
N = 64  # frames


def powers(n_known: int, seed: int = 0) -> Array:
    """Powers of the last frames of a stream of which the first ones are not yet known, (2, N, 3)."""
    x = np.random.default_rng(seed).exponential(size=(2, N, 3)).astype(np.float32)
    x[:, : N - n_known] = MAX_POWER
    return x


@given(st.integers(1, N // 2), st.integers(0, N))
def test_the_floor_of_a_beginning_stream_is_the_minimum_of_what_follows(n_known: int, n_following: int) -> None:
    recent, following = powers(n_known), powers(n_following, seed=1)
    lowered = lower_to_following(recent, following)
    np.testing.assert_array_equal(lowered.min(axis=1), np.minimum(recent.min(axis=1), following.min(axis=1)))
    np.testing.assert_array_equal(lowered[:, :-1], recent[:, :-1])


@given(st.floats(1e-12, 1e6), st.floats(0.0, 1.0))
def test_the_floor_of_stationary_noise_is_kept_before_a_gap(level: float, gap: float) -> None:
    recent = np.full((1, N, 2), level, np.float32)
    recent[0, :, 1] *= 0.9 ** np.arange(N, dtype=np.float32)  # of a note that decays
    following = (gap * recent[:, -1:]).repeat(N, axis=1)
    lowered = lower_to_following(recent, following)
    np.testing.assert_array_equal(lowered[..., 0], recent[..., 0])
    np.testing.assert_array_equal(lowered[..., -1, 1], following[..., -1, 1])


def test_a_fade_out_of_the_last_second_does_not_end_stationary_noise() -> None:
    recent = np.ones((1, N, 1), np.float32)
    recent[:, 3 * N // 4 :] = 1e-9
    np.testing.assert_array_equal(lower_to_following(recent, 0 * recent), recent)
    recent[:, 3 * N // 8 :] = 0.9 / MAX_STATIONARY_RATIO
    assert lower_to_following(recent, 0 * recent)[0, -1, 0] == 0
