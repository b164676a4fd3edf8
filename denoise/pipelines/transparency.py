"""Hidden pixels must not affect visible ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def fill_hidden(x: NDArray[Any], visible: NDArray[np.bool_]) -> NDArray[Any]:
    """Replace hidden pixels by their mirror images beyond the nearest visible edge.

    Files hold arbitrary values in pixels of zero alpha, mostly black, and a denoiser would blur them into the visible
    ones. A mirror image continues scene and noise alike.

    Args:
        x: (channels, height, width).
        visible: mask of the pixels that are not fully transparent, (height, width).

    Returns:
        The shape of ``x``.
    """
    if visible.all() or not visible.any():
        return x
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~visible, return_distances=False, return_indices=True)
    mirrored = 2 * nearest - np.indices(visible.shape)
    is_inside = ((mirrored >= 0) & (mirrored < np.reshape(visible.shape, (2, 1, 1)))).all(axis=0)
    mirrored = np.where(is_inside, mirrored, nearest)
    rows, columns = np.where(visible[mirrored[0], mirrored[1]], mirrored, nearest)
    return x[:, rows, columns]
