"""Estimate of a slowly varying noise floor from the power of a stream."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from denoise.lookahead import MAX_POWER

SMOOTHING_S = 0.1  # time constant; the minimum of smoother powers lies closer to their mean
SILENCE = 3e-16  # least power of a frame that tells something: digital silence, or dither of 24 bits, has less
MIN_WEIGHT = 1e-9  # of frames long before a silence


class NoiseFloorState(NamedTuple):
    """State of `track_noise_floor`, and the noise profile that replaces the estimate.

    Attributes:
        total: exponentially weighted sum of the powers, (batch, positions).
        weight: sum of the weights, (batch,).
        recent: smoothed powers of the last frames, (batch, frames, positions), `MAX_POWER` of those that tell nothing.
        silent: 1 if the last frame was silent, else 0, (batch,).
        profile: power of the noise, (batch, positions); 0 where the floor is estimated. None estimates everywhere.
    """

    total: Tensor
    weight: Tensor
    recent: Tensor
    silent: Tensor
    profile: Tensor | None = None


def initial_noise_floor(powers: Tensor, frames: int, profile: Tensor | None = None) -> NoiseFloorState:
    """Return the state of `track_noise_floor` before the first frame.

    Args:
        powers: zeros, (batch, positions).
        frames: length of the sliding minimum, a power of two.
        profile: as in `NoiseFloorState`.
    """
    recent = powers[:, None].expand(-1, frames - 1, -1) + MAX_POWER
    return NoiseFloorState(powers, powers[:, 0], recent, powers[:, 0], profile)


def track_noise_floor(powers: Tensor, state: NoiseFloorState, hop_s: float) -> tuple[Tensor, NoiseFloorState]:
    """Estimate the power of the noise: the minimum of the smoothed power over the last frames, or a given profile.

    The minimum lies some decibels below the mean of stationary noise. It is not corrected: the networks that take it
    learn its bias. Digital silence tells nothing about the noise of what follows, nor does the frame after it, part of
    which is silent: both are left out.

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
    silent = (powers.amax(dim=2) < SILENCE).to(powers)  # (batch, frames)
    observed = (1 - silent) * (1 - torch.cat([state.silent[:, None], silent[:, :-1]], dim=1))
    weights = weights * observed[:, None]
    total = torch.einsum("bts,bsp->btp", weights, powers) + state.total[:, None] * decay
    weight = weights.sum(dim=2, keepdim=True) + state.weight[:, None, None] * decay
    full_weight = 1 / (1 - math.exp(-hop_s / SMOOTHING_S))
    divisor = weight.clamp_min(MIN_WEIGHT)
    mean = total / divisor * (full_weight / divisor)  # raised where few frames have been averaged, or the first ones
    mean = torch.where(observed[..., None] > 0, mean, MAX_POWER)  # would stay the minimum
    smoothed = torch.cat([state.recent, mean], dim=1)
    length = state.recent.shape[1] + 1
    floor, width = smoothed, 1
    while width < length:  # the minimum of two windows is that of a window twice as long
        floor = torch.minimum(floor[:, width:], floor[:, :-width])
        width *= 2
    floor = torch.where(floor < MAX_POWER / 2, floor, powers)  # no frame counts yet
    if state.profile is not None:
        profile = state.profile[:, None]
        floor = torch.where(profile > 0, profile, floor)
    recent = smoothed[:, 1 - length :]
    return floor, NoiseFloorState(total[:, -1], weight[:, -1, 0], recent, silent[:, -1], state.profile)
