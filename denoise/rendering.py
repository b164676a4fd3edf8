"""Pictures of point clouds."""

from __future__ import annotations

import torch
from torch import Tensor

AZIMUTH, ELEVATION = 0.6, 0.45  # of the viewer, radians
HALF_WIDTH = 0.8  # of the square that is seen, in units of the coordinates
FARTHEST = 0.25  # grey level of the points at a distance of HALF_WIDTH behind the centre


def render_points(points: Tensor, side: int = 192) -> Tensor:
    """Draw point clouds as small discs, nearer ones brighter and in front, in a parallel projection with z upwards.

    Args:
        points: coordinates, (batch, 3, n); those farther than `HALF_WIDTH` from the centre of the view are not drawn.
        side: side of the picture in pixels.

    Returns:
        Pictures, (batch, 1, side, side), white on black, full scale 1.0.
    """
    azimuth, elevation = points.new_tensor(AZIMUTH), points.new_tensor(ELEVATION)
    right = torch.stack([azimuth.cos(), azimuth.sin(), points.new_tensor(0.0)])
    towards = torch.stack([azimuth.sin() * elevation.cos(), -azimuth.cos() * elevation.cos(), elevation.sin()])
    view = torch.stack([right, torch.linalg.cross(towards, right), towards])
    horizontal, vertical, nearness = (view @ points / HALF_WIDTH).unbind(dim=1)
    grey = (FARTHEST + (1 - FARTHEST) * (nearness + 1) / 2).clamp(0.05, 1)
    radius = max(1, side // 96)
    pictures = points.new_zeros(len(points), side * side)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dx**2 + dy**2 > radius**2:
                continue
            column, row = ((c + 1) / 2 * side for c in (horizontal, -vertical))
            column, row = column.floor() + dx, row.floor() + dy
            is_seen = (column >= 0) & (column < side) & (row >= 0) & (row < side)
            index = (row * side + column).where(is_seen, 0).long()
            pictures.scatter_reduce_(1, index, grey * is_seen, "amax")
    return pictures.reshape(-1, 1, side, side)
