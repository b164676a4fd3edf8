"""Hidden pixels must not affect visible ones."""

from __future__ import annotations

import torch
from torch import Tensor


def fill_hidden(x: Tensor, visible: Tensor) -> Tensor:
    """Replace hidden pixels by their mirror images beyond the nearest visible edge.

    Files hold arbitrary values in pixels of zero alpha, mostly black, and a denoiser would blur them into the visible
    ones. A mirror image continues scene and noise alike.

    Args:
        x: (channels, height, width).
        visible: mask of the pixels that are not fully transparent, (height, width), bool.

    Returns:
        The shape of ``x``.
    """
    if bool(visible.all()) or not bool(visible.any()):
        return x
    from scipy.ndimage import distance_transform_edt

    indices = distance_transform_edt(~visible.numpy(), return_distances=False, return_indices=True)
    nearest = torch.from_numpy(indices).long()
    pixel = torch.stack(torch.meshgrid(*(torch.arange(n) for n in visible.shape), indexing="ij"))
    mirrored = 2 * nearest - pixel
    limits = torch.tensor(visible.shape)[:, None, None]
    is_inside = ((mirrored >= 0) & (mirrored < limits)).all(dim=0)
    mirrored = torch.where(is_inside, mirrored, nearest)
    rows, columns = torch.where(visible[mirrored[0], mirrored[1]], mirrored, nearest)
    return x[:, rows, columns]
