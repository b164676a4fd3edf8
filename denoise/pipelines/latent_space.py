"""Points of a latent space: interpolation between them, directions of attributes, and a map in two dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from denoise.errors import ConfigError


def interpolate_path(ends: Tensor, n: int, *, spherical: bool = True) -> Tensor:
    """Interpolate between two points.

    Spherical interpolation preserves the norm of noise: in many dimensions, a straight line passes through points that
    are unlike any sample. Between points in the same or in opposite directions, where the great circle is undefined,
    the line is straight.

    Args:
        ends: the two points, (2, *event).
        n: number of points, including both ends.
        spherical: whether to interpolate spherically instead of linearly.

    Returns:
        Points, (n, *event).

    Raises:
        ConfigError: n is below 2.
    """
    if n < 2:
        raise ConfigError(f"n is {n}; expected at least 2 points, the ends.")
    t = torch.linspace(0, 1, n, dtype=ends.dtype, device=ends.device).reshape(-1, *[1] * (ends.ndim - 1))
    a, b = ends[:1], ends[1:2]
    if not spherical:
        return a + t * (b - a)
    flat = ends.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(flat[0], flat[1], dim=0).clamp(-1, 1)
    angle = cosine.arccos()
    sine = angle.sin()
    if sine < 1e-3:
        return a + t * (b - a)
    return ((1 - t) * angle).sin() / sine * a + (t * angle).sin() / sine * b


def interpolate_grid(corners: Tensor, n: int, *, spherical: bool = True) -> Tensor:
    """Interpolate between four corners.

    Args:
        corners: top left, top right, bottom left and bottom right, (4, *event).
        n: number of points on each side.
        spherical: whether to interpolate spherically instead of linearly.

    Returns:
        Points row by row, (n * n, *event).
    """
    left, right = (interpolate_path(corners[[i, i + 2]], n, spherical=spherical) for i in (0, 1))
    rows = [interpolate_path(torch.stack([a, b]), n, spherical=spherical) for a, b in zip(left, right, strict=True)]
    return torch.cat(rows)


def attribute_direction(examples: Tensor, others: Tensor) -> Tensor:
    """Return the direction of an attribute: the mean of points that have it minus the mean of points that have not.

    Args:
        examples: points with the attribute, (n, *event).
        others: points without it, alike in everything else, (m, *event).

    Returns:
        Direction, (1, *event).

    Raises:
        ConfigError: there are no points of one kind.

    Reference:
        Autoencoding beyond pixels using a learned similarity metric, 2015, arXiv:1512.09300, section 4.2.
    """
    if not (len(examples) and len(others)):
        raise ConfigError(f"{len(examples)} examples and {len(others)} others; expected at least one of each.")
    return examples.mean(dim=0, keepdim=True) - others.mean(dim=0, keepdim=True)


def principal_map(latents: Tensor) -> Tensor:
    """Project latents on their first two principal components, each scaled to [0, 1].

    Args:
        latents: latents, (n, features).

    Returns:
        Coordinates, (n, 2).
    """
    centred = latents - latents.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    coordinates = centred @ directions[:2].T
    if coordinates.shape[1] < 2:
        zeros = coordinates.new_zeros(len(coordinates), 2 - coordinates.shape[1])
        coordinates = torch.cat([coordinates, zeros], dim=1)
    low, high = coordinates.amin(dim=0), coordinates.amax(dim=0)
    return (coordinates - low) / (high - low).clamp_min(1e-12)
