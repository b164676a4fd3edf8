"""Noise floors of recordings, of which the following seconds are known: array functions that all backends share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_POWER = 1e20  # of frames that tell nothing about the noise: before the first one, and of digital silence
EARLY, LATE = (0, 3), (3, 6)  # eighths of the last frames that are compared; the rest may belong to a fade-out
MAX_STATIONARY_RATIO = 2.0  # of the least power of early by that of late frames, where the noise is stationary

Array = NDArray[Any]


def lower_to_following(recent: Array, following: Array) -> Array:
    """Lower a noise floor to the minimum of the following frames: what decays is not noise.

    Where the floor has been stationary until about a second ago (256 frames of 16 ms), it is kept: a gap or a fade-out
    that follows does not change the noise before it.

    Args:
        recent: smoothed powers of the last frames, (batch, frames, positions); the floor is their minimum.
        following: those of the frames that follow, of the same shape.

    Returns:
        ``recent``, with the last frame at most as strong as the weakest of those that follow, at each position.
    """
    n = recent.shape[1]
    early, late = (recent[:, start * n // 8 : end * n // 8 or 1].min(axis=1) for start, end in (EARLY, LATE))
    is_stationary = (early < MAX_POWER / 2) & (early <= MAX_STATIONARY_RATIO * late)
    recent = recent.copy()
    recent[:, -1] = np.minimum(recent[:, -1], np.where(is_stationary, MAX_POWER, following.min(axis=1)))
    return recent
