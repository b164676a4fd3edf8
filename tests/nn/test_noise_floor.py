"""The noise floor: a sliding minimum of smoothed powers, independent of the block lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import lfilter
from torch import Tensor

from denoise.nn.noise_floor import SMOOTHING_S, initial_noise_floor, track_noise_floor

HOP_S = 0.016


def powers(frames: int, seed: int = 0) -> Tensor:
    return torch.rand(2, frames, 3, generator=torch.Generator().manual_seed(seed)).square() + 1e-6


def track(x: Tensor, lengths: list[int], window: int, profile: Tensor | None = None) -> Tensor:
    state, floors = initial_noise_floor(torch.zeros(2, 3), window, profile), []
    for block in x.split(lengths, dim=1):
        floor, state = track_noise_floor(block, state, HOP_S)
        floors.append(floor)
    return torch.cat(floors, dim=1)


@pytest.mark.parametrize("window", [2, 8, 64])
def test_it_is_the_sliding_minimum_of_the_exponential_mean(window: int) -> None:
    x = powers(200)
    decay = np.exp(-HOP_S / SMOOTHING_S)
    total, weight = (lfilter([1], [1, -decay], y, axis=0) for y in (x[0].double().numpy(), np.ones((200, 1))))
    smoothed = total / weight / (weight * (1 - decay))
    padded = np.concatenate([np.full((window - 1, 3), np.inf), smoothed])
    expected = sliding_window_view(padded, window, axis=0).min(axis=-1)
    np.testing.assert_allclose(track(x, [200], window)[0].numpy(), expected, rtol=1e-5)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=10), st.sets(st.integers(0, 300)))
def test_blocks_of_any_length_give_the_same_floor(lengths: list[int], silent: set[int]) -> None:
    x = powers(sum(lengths))
    x[1, [i for i in silent if i < sum(lengths)]] = 0
    torch.testing.assert_close(track(x, lengths, 16), track(x, [sum(lengths)], 16), rtol=1e-4, atol=0)


@given(st.integers(0, 80), st.integers(1, 80), st.floats(0.01, 1))
def test_noise_after_digital_silence_has_its_own_floor(before: int, silence: int, heard: float) -> None:
    """The frame that is silent in part tells nothing, however weak it is; the others are as without the silence."""
    x = powers(before + 60)
    gap = 1e-16 * powers(silence, seed=1)
    partial = heard * x[:, before : before + 1]
    with_gap = torch.cat([x[:, :before], gap, partial, x[:, before:]], dim=1)
    floor = track(with_gap, [with_gap.shape[1]], 64)[:, before + silence + 1 :]
    least = x.amin(dim=1)  # no mean of frames is below the least of them
    assert bool((floor >= least[:, None] * (1 - 1e-5)).all())
    if before == 0:
        torch.testing.assert_close(floor, track(x, [60], 64), rtol=1e-4, atol=0)


def test_a_note_above_stationary_noise_does_not_raise_the_floor() -> None:
    x = -torch.rand(2, 250, 3, generator=torch.Generator().manual_seed(0)).log()  # powers of Gaussian noise
    x[:, 100:200] += 1000.0
    floor = track(x, [250], 256)
    assert bool((floor[:, 100:200] <= floor[:, 99:100]).all())
    assert bool((floor[:, 30:] < 1.5).all())
    assert bool((floor[:, 30:] > 0.1).all())


def test_a_profile_replaces_the_floor_where_it_is_known() -> None:
    profile = torch.tensor([[0.5, 0.0, 2.0], [0.0, 0.0, 0.0]])
    x = powers(20)
    floor, estimate = track(x, [20], 16, profile), track(x, [20], 16)
    assert bool((floor[0, :, 0] == 0.5).all() and (floor[0, :, 2] == 2.0).all())
    torch.testing.assert_close(floor[0, :, 1], estimate[0, :, 1])
    torch.testing.assert_close(floor[1], estimate[1])
