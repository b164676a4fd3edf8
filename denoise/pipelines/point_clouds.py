"""Point clouds as the priors take them: centred, of unit variance."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.points import require_finite_points

MAX_COORDINATE = 1e150  # so that sums are finite


class NormalisedCloud(NamedTuple):
    """A cloud whose coordinates have mean 0 on each axis and variance 1 over all: ``centre + scale * points``.

    Args:
        points: coordinates, (n, 3).
        centre: mean of the points of the cloud, (3,).
        scale: standard deviation of its coordinates.
    """

    points: NDArray[np.float64]
    centre: NDArray[np.float64]
    scale: float


def normalise_points(points: NDArray[np.float64]) -> NormalisedCloud:
    """Centre and scale a point cloud.

    Args:
        points: coordinates in any unit, (n, 3).

    Raises:
        InputError: the shape is another one, coordinates are not finite or too large, or all points coincide.
    """
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise InputError(f"points have shape {points.shape}; expected (n, 3).")
    require_finite_points(points)
    if (largest := float(np.abs(points).max())) > MAX_COORDINATE:
        raise InputError(
            f"coordinates are up to {largest:g}; expected {MAX_COORDINATE:g} at most. Use another unit of length."
        )
    if not np.ptp(points, axis=0).any():
        raise InputError("all points coincide; expected a surface. Give another cloud.")
    centre = points.mean(axis=0)
    deviations = points - centre
    exponent = int(np.frexp(np.abs(deviations).max())[1])  # squares of deviations of any size would overflow or vanish
    deviations = np.ldexp(deviations, -exponent)
    std = math.sqrt(np.square(deviations).mean())
    return NormalisedCloud(deviations / std, centre, math.ldexp(std, exponent))
