"""Estimate of a slowly varying noise floor from the power of a stream."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

SMOOTHING_S = 0.1  # time constant; the minimum of smoother powers lies closer to their mean
MAX_POWER = 1e20  # before the first frame
PARTS = ((0, 3), (3, 6))  # eighths of the last frames that are compared; those after them may belong to a fade-out
STEADY = 2.0  # power by that of later frames, up to which a position holds noise that stayed the same


class NoiseFloorState(NamedTuple):
    """State of `track_noise_floor`, and the noise profile that replaces the estimate.

    Attributes:
        total: exponentially weighted sum of the powers, (batch, positions).
        weight: sum of the weights, ().
        recent: smoothed powers of the last frames, (batch, frames, positions).
        profile: power of the noise, (batch, positions); 0 where the floor is estimated. None estimates everywhere.
    """

    total: Tensor
    weight: Tensor
    recent: Tensor
    profile: Tensor | None = None


def initial_noise_floor(powers: Tensor, frames: int, profile: Tensor | None = None) -> NoiseFloorState:
    """Return the state of `track_noise_floor` before the first frame.

    Args:
        powers: zeros, (batch, positions).
        frames: length of the sliding minimum, a power of two.
        profile: as in `NoiseFloorState`.
    """
    recent = powers[:, None].expand(-1, frames - 1, -1) + MAX_POWER
    return NoiseFloorState(powers, powers.new_zeros(()), recent, profile)


def track_noise_floor(powers: Tensor, state: NoiseFloorState, hop_s: float) -> tuple[Tensor, NoiseFloorState]:
    """Estimate the power of the noise: the minimum of the smoothed power over the last frames, or a given profile.

    The minimum lies some decibels below the mean of stationary noise. It is not corrected: the networks that take it
    learn its bias.

    Args:
        powers: power of the next frames, (batch, frames, positions).
        state: state after the previous frames.
        hop_s: distance of two frames in seconds.

    Returns:
        Power of the noise, as `powers`, and the new state.

    Reference:
        Noise Power Spectral Density Estimation Based on Optimal Smoothing and Minimum Statistics, Martin, 2001.
    """
    n = torch.arange(powers.shape[1], device=powers.device, dtype=torch.float32)
    ages = n[:, None] - n
    weights = torch.exp(-ages.clamp_min(0) * hop_s / SMOOTHING_S) * (ages >= 0)
    decay = torch.exp(-(n + 1) * hop_s / SMOOTHING_S)[:, None]
    total = torch.einsum("ts,bsp->btp", weights, powers) + state.total[:, None] * decay
    weight = weights.sum(dim=1)[:, None] + state.weight * decay
    full_weight = 1 / (1 - math.exp(-hop_s / SMOOTHING_S))
    mean = total / weight * (full_weight / weight)  # raised where few frames have been averaged, or the first ones
    smoothed = torch.cat([state.recent, mean], dim=1)  # would stay the minimum
    length = state.recent.shape[1] + 1
    floor, width = smoothed, 1
    while width < length:  # the minimum of two windows is that of a window twice as long
        floor = torch.minimum(floor[:, width:], floor[:, :-width])
        width *= 2
    if state.profile is not None:
        profile = state.profile[:, None]
        floor = torch.where(profile > 0, profile, floor)
    return floor, NoiseFloorState(total[:, -1], weight[-1, 0], smoothed[:, 1 - length :], state.profile)


def listen(powers: Tensor, state: NoiseFloorState, hop_s: float) -> NoiseFloorState:
    """Track the noise floor of frames that `foresee` needs, those with any sound; others say nothing about the noise.

    Args:
        powers: as of `track_noise_floor`.
        state: state after the previous frames.
        hop_s: as of `track_noise_floor`.

    Returns:
        The new state.
    """
    _, state = track_noise_floor(powers, state, hop_s)
    is_silent = (powers == 0).all(dim=2, keepdim=True)[:, -state.recent.shape[1] :]
    known, new = state.recent.split([state.recent.shape[1] - is_silent.shape[1], is_silent.shape[1]], dim=1)
    return state._replace(recent=torch.cat([known, torch.where(is_silent, MAX_POWER, new)], dim=1))


def foresee(state: NoiseFloorState, ahead: NoiseFloorState) -> NoiseFloorState:
    """Lower the noise floor of a stream to what it falls to later: what dies away is not noise.

    Where the floor stayed the same until a second ago (at 256 frames of 16 ms), it is left: a gap or a fade-out that
    follows does not change what noise there is before it.

    Args:
        state: state of the stream.
        ahead: state of `listen` some frames later.

    Returns:
        The state, as if the last frame had been the weakest of the last ones of ``ahead`` at each position.
    """
    n = state.recent.shape[1]
    early, late = (
        state.recent[:, start * n // 8 : end * n // 8 or 1].amin(dim=1, keepdim=True) for start, end in PARTS
    )
    is_steady = (early < MAX_POWER / 2) & (early <= STEADY * late)
    least = torch.where(is_steady, MAX_POWER, ahead.recent.amin(dim=1, keepdim=True))
    last = torch.minimum(state.recent[:, -1:], least)
    return state._replace(recent=torch.cat([state.recent[:, :-1], last], dim=1))
