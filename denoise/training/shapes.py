"""Surfaces of random proportions and orientation as sets of points: data of priors of shapes.

A shape is a function from the unit square to space. Its points are uniform on the surface, whatever the function, since
they are chosen in proportion to the area that a piece of the square is mapped to.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.errors import ConfigError
from denoise.protocols import Label
from denoise.training.data import Batch
from denoise.training.example_recipe import PointData

Surface = Callable[[Tensor, Tensor], Tensor]
"""Map of coordinates u and v, (n,), 0 to 1, to points, (n, 3)."""

STD = 0.25  # of the coordinates of a cloud, which then fit into -1 to 1
CANDIDATES = 4  # for each point


def sphere(generator: Generator) -> Surface:
    """Return a unit sphere."""
    return lambda u, v: _around((math.pi * u).sin(), v, -(math.pi * u).cos())


def torus(generator: Generator) -> Surface:
    """Return a torus with a tube of 0.15 to 0.6 of its radius."""
    tube = _uniform(0.15, 0.6, generator)
    return lambda u, v: _around(1 + tube * (math.tau * u).cos(), v, tube * (math.tau * u).sin())


def box(generator: Generator) -> Surface:
    """Return the surface of a cube of side 2."""

    def surface(u: Tensor, v: Tensor) -> Tensor:
        face = (6 * u).detach().floor().clamp_max(5)
        side, across, up = 2 * (face % 2) - 1 + 0 * u, 2 * (6 * u - face) - 1, 2 * v - 1
        axis = face // 2
        x, y = torch.where(axis == 0, side, across), torch.where(axis == 1, side, torch.where(axis == 0, across, up))
        return torch.stack([x, y, torch.where(axis == 2, side, up)], dim=1)

    return surface


def helix(generator: Generator) -> Surface:
    """Return a tube along a helix of 1 to 3 turns."""
    turns, rise = _uniform(1, 3, generator), _uniform(0.5, 1.2, generator)
    tube = _uniform(0.12, 0.3, generator)

    def curve(u: Tensor) -> tuple[Tensor, Tensor]:
        t = math.tau * turns * u
        centre = torch.stack([t.cos(), t.sin(), rise * turns * (2 * u - 1)], dim=1)
        return centre, torch.stack([-t.sin(), t.cos(), rise / math.pi + 0 * t], dim=1)

    return _tube(curve, tube)


def superquadric(generator: Generator) -> Surface:
    """Return a superquadric, from an octahedron or cylinder to a rounded box; its horizontal sections are alike.

    Args:
        generator: source of randomness.

    Reference:
        Superquadrics and Angle-Preserving Transformations, Barr, 1981.
    """
    p, q = _uniform(1.1, 6, generator), _uniform(1.1, 6, generator)

    def surface(u: Tensor, v: Tensor) -> Tensor:
        direction = sphere(generator)(u, v)  # each point of the sphere is moved along its radius
        x, y, z = direction.abs().clamp_min(1e-6).unbind(dim=1)
        return direction * ((x**p + y**p) ** (q / p) + z**q)[:, None] ** (-1 / q)

    return surface


def knot(generator: Generator) -> Surface:
    """Return a tube along a random closed curve, whose coordinates are sums of three equally strong harmonics.

    Args:
        generator: source of randomness.

    Reference:
        Fourier Knots, 1997, arXiv:q-alg/9711013.
    """
    harmonics = torch.arange(1, 4)
    cosines, sines = torch.randn(2, 3, 3, generator=generator)  # (harmonics, coordinates)
    scale = (cosines.square() + sines.square()).sum().div(2).sqrt()  # root mean square distance of the curve from 0
    tube = _uniform(0.1, 0.3, generator)

    def curve(u: Tensor) -> tuple[Tensor, Tensor]:
        angles = math.tau * u[:, None] * harmonics
        cos, sin = angles.cos(), angles.sin()
        return (cos @ cosines + sin @ sines) / scale, (harmonics * cos) @ sines - (harmonics * sin) @ cosines

    return _tube(curve, tube)


def cone(generator: Generator) -> Surface:
    """Return a cone with its base, 1 to 3 times as high as the radius of the base."""
    height = _uniform(1, 3, generator)

    def surface(u: Tensor, v: Tensor) -> Tensor:
        is_base = u.detach() < 0.5
        radius = torch.where(is_base, 2 * u, 2 - 2 * u)
        return _around(radius, v, height * torch.where(is_base, 0 * u, 1 - radius))

    return surface


def trefoil(generator: Generator) -> Surface:
    """Return a tube along a trefoil knot."""
    tube = _uniform(0.3, 0.6, generator)

    def curve(u: Tensor) -> tuple[Tensor, Tensor]:
        t = math.tau * u
        centre = torch.stack([t.sin() + 2 * (2 * t).sin(), t.cos() - 2 * (2 * t).cos(), -(3 * t).sin()], dim=1)
        return centre, torch.stack(
            [t.cos() + 4 * (2 * t).cos(), -t.sin() + 4 * (2 * t).sin(), -3 * (3 * t).cos()], dim=1
        )

    return _tube(curve, tube)


SHAPES: dict[str, Callable[[Generator], Surface]] = {
    "torus": torus,
    "box": box,
    "helix": helix,
    "sphere": sphere,
    "superquadric": superquadric,
    "knot": knot,
    "cone": cone,
    "trefoil": trefoil,
}


def sample_shape(name: str, n: int, generator: Generator, aspect: float = PointData.aspect) -> Tensor:
    """Return random points on a shape of random proportions in a random orientation.

    Args:
        name: key of `SHAPES`.
        n: number of points.
        generator: source of randomness.
        aspect: largest logarithm of the factors of the three axes.

    Returns:
        Points, (n, 3), with mean 0 and a standard deviation of `STD` over all coordinates.
    """
    surface = SHAPES[name](generator)
    factors = torch.exp(aspect * (2 * torch.rand(3, generator=generator) - 1))
    points = sample_surface(lambda u, v: surface(u, v) * factors, n, generator)
    centred = (points - points.mean(dim=0)) @ random_rotation(generator)
    return STD * centred / centred.square().mean().sqrt()


def random_rotation(generator: Generator) -> Tensor:
    """Return a rotation or reflection, (3, 3), uniformly distributed.

    Args:
        generator: source of randomness.

    Reference:
        How to Generate Random Matrices from the Classical Compact Groups, 2006, arXiv:math-ph/0609050.
    """
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    return q * r.diagonal().sign()  # the signs of q alone follow a convention


def sample_surface(surface: Surface, n: int, generator: Generator) -> Tensor:
    """Return random points, (n, 3), that are uniform on a surface, by rejection according to the area of their square.

    The largest area is that of the candidates, so that points where the surface has more are slightly too rare.

    Args:
        surface: map from the unit square.
        n: number of points.
        generator: source of randomness.
    """
    accepted: list[Tensor] = []
    while sum(map(len, accepted)) < n:
        u, v, threshold = torch.rand(3, CANDIDATES * n, generator=generator)
        u, v = u.requires_grad_(), v.requires_grad_()
        points = surface(u, v)
        rows = [torch.autograd.grad(points[:, i].sum(), (u, v), retain_graph=True) for i in range(3)]
        along_u, along_v = (torch.stack(slopes, dim=1) for slopes in zip(*rows, strict=True))
        area = torch.linalg.cross(along_u, along_v).norm(dim=1)
        accepted.append(points.detach()[threshold * area.max() < area])
    return torch.cat(accepted)[:n]


class Shapes:
    """Random shapes of several classes, made anew for each batch.

    Args:
        settings: ``[points]`` section of the recipe.

    Raises:
        ConfigError: there is no such shape.
    """

    def __init__(self, settings: PointData) -> None:
        self.settings, self.class_names = settings, settings.shapes
        unknown = sorted({*settings.shapes} - {*SHAPES})
        if unknown or not settings.shapes:
            raise ConfigError(f"points.shapes are {list(settings.shapes)}; expected some of {', '.join(SHAPES)}.")

    def batch(self, size: int, generator: Generator) -> Batch:
        """Return sets of points, (size, 3, n), with their classes.

        Args:
            size: number of sets.
            generator: source of randomness.
        """
        s = self.settings
        n = s.counts[int(torch.randint(len(s.counts), (), generator=generator))]
        classes = torch.randint(len(s.shapes), (size,), generator=generator).tolist()
        x = torch.stack([sample_shape(s.shapes[i], n, generator, s.aspect).T for i in classes])
        is_dropped = (torch.rand(size, generator=generator) < s.label_dropout).tolist()
        labels: list[Label] = [None if drop else i for i, drop in zip(classes, is_dropped, strict=True)]
        return Batch(x, x, labels=tuple(labels))


def _around(radius: Tensor, v: Tensor, height: Tensor) -> Tensor:
    """Return points of a surface of revolution, v turns around the vertical axis."""
    angle = math.tau * v
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=1)


def _tube(curve: Callable[[Tensor], tuple[Tensor, Tensor]], radius: float) -> Surface:
    """Return a tube along a curve with its tangent, which is nowhere vertical."""

    def surface(u: Tensor, v: Tensor) -> Tensor:
        centre, tangent = curve(u)
        tangent = F.normalize(tangent, dim=1)
        side = F.normalize(torch.stack([tangent[:, 1], -tangent[:, 0], 0 * u], dim=1), dim=1)  # tangent x vertical
        angle = math.tau * v[:, None]
        return centre + radius * (angle.cos() * side + angle.sin() * torch.linalg.cross(tangent, side))

    return surface


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
