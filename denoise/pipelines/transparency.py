"""Pixels that nobody sees must not be seen after denoising."""

from __future__ import annotations

import torch
from torch import Tensor


def cover(x: Tensor, seen: Tensor) -> Tensor:
    """Put into hidden pixels what lies as far on the other side of the nearest edge that is seen.

    Files leave anything in pixels of zero alpha, black mostly, and a denoiser would spread it over the edge. A mirror
    goes on with scene and noise alike.

    Shape:
        x: (channels, height, width); seen: (height, width), bool.
    """
    if bool(seen.all()) or not bool(seen.any()):
        return x
    from scipy.ndimage import distance_transform_edt

    places = torch.from_numpy(distance_transform_edt(~seen.numpy(), return_distances=False, return_indices=True)).long()
    here = torch.stack(torch.meshgrid(*(torch.arange(n) for n in seen.shape), indexing="ij"))
    mirrored = 2 * places - here
    limits = torch.tensor(seen.shape)[:, None, None]
    inside = ((mirrored >= 0) & (mirrored < limits)).all(dim=0)
    mirrored = torch.where(inside, mirrored, places)
    rows, columns = torch.where(seen[mirrored[0], mirrored[1]], mirrored, places)
    return x[:, rows, columns]
