"""What was measured of a signal: operators, nearly all linear, with adjoints, spectra and regularised inverses.

Shape of all: signals (batch, channels, *space); measurements as each says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from denoise.errors import ConfigError


class Operator(Protocol):
    """y = A x + noise. In the orthonormal coordinates of `spectral`, A^T A is a factor for each entry."""

    def forward(self, x: Tensor) -> Tensor: ...

    def adjoint(self, y: Tensor) -> Tensor: ...

    def solve(self, r: Tensor, damping: float | Tensor) -> Tensor:
        """(A A^T + damping)^-1 r. Shape: as measurements."""

    def spectral(self, x: Tensor) -> Tensor:
        """Orthonormal coordinates of a signal, perhaps complex. Shape: any."""

    def signal(self, z: Tensor) -> Tensor:
        """The inverse of `spectral`."""

    def singular(self, like: Tensor) -> Tensor:
        """Singular values of A in these coordinates, 0 where nothing is measured. Shape: that of `spectral`."""

    def pseudoinverse(self, y: Tensor) -> Tensor:
        """The coordinates of A^+ y."""


@dataclass(frozen=True)
class Mask:
    """Some entries are seen, the others not; measurements are 0 there.

    Shape:
        mask: broadcasts against signals, 0 or 1.
    """

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        _fits(self.mask, x)
        return x * self.mask

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.mask

    def solve(self, r: Tensor, damping: float | Tensor) -> Tensor:
        return r / (self.mask + damping)

    def spectral(self, x: Tensor) -> Tensor:
        return x

    def signal(self, z: Tensor) -> Tensor:
        return z

    def singular(self, like: Tensor) -> Tensor:
        return self.mask.to(like).expand_as(like)

    def pseudoinverse(self, y: Tensor) -> Tensor:
        return y * self.mask


class Filter(ABC):
    """A factor for each frequency, which goes round at the borders."""

    @abstractmethod
    def response(self, x: Tensor) -> Tensor:
        """The factors, in the order of torch.fft. Shape: (*space) of x."""

    @abstractmethod
    def axes(self) -> tuple[int, ...]:
        """Those of space."""

    def forward(self, x: Tensor) -> Tensor:
        return self.signal(self.spectral(x) * self.response(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.signal(self.spectral(y) * self.response(y).conj())

    def solve(self, r: Tensor, damping: float | Tensor) -> Tensor:
        return self.signal(self.spectral(r) / (self.response(r).abs().square() + damping))

    def spectral(self, x: Tensor) -> Tensor:
        return torch.fft.fftn(x, dim=self.axes(), norm="ortho")

    def signal(self, z: Tensor) -> Tensor:
        return torch.fft.ifftn(z, dim=self.axes(), norm="ortho").real

    def singular(self, like: Tensor) -> Tensor:
        return self.response(like).abs().expand(like.shape)

    def pseudoinverse(self, y: Tensor) -> Tensor:
        response = self.response(y)
        seen = response.abs() > 1e-6
        return torch.where(seen, self.spectral(y) / torch.where(seen, response, torch.ones_like(response)), 0.0)


@dataclass(frozen=True)
class Blur(Filter):
    """A convolution.

    Shape:
        kernel: (*space), odd sides, its middle at the origin; sums to one for a blur. Measurements as signals.
    """

    kernel: Tensor

    def response(self, x: Tensor) -> Tensor:
        dims = self.kernel.ndim
        if any(k % 2 == 0 or k > n for k, n in zip(self.kernel.shape, x.shape[-dims:], strict=True)):
            raise ConfigError(
                f"a kernel of {tuple(self.kernel.shape)} for {tuple(x.shape)}; expected smaller, odd sides."
            )
        padded = x.real.new_zeros(x.shape[-dims:])
        padded[tuple(slice(k) for k in self.kernel.shape)] = self.kernel.to(padded)
        middle = tuple(-(k // 2) for k in self.kernel.shape)
        return torch.fft.fftn(padded.roll(middle, tuple(range(dims))))

    def axes(self) -> tuple[int, ...]:
        return tuple(range(-self.kernel.ndim, 0))


@dataclass(frozen=True)
class Band(Filter):
    """Sounds up to ``limit`` cycles per sample, and nothing above: what a narrow line leaves of them."""

    limit: float

    def response(self, x: Tensor) -> Tensor:
        return (torch.fft.fftfreq(x.shape[-1], device=x.device).abs() <= self.limit).to(x.real.dtype)

    def axes(self) -> tuple[int, ...]:
        return (-1,)


@dataclass(frozen=True)
class Clipped:
    """A clipped recording: where it reached ``limit`` the signal went at least as far, elsewhere it is as recorded.

    It is not linear and has no spectrum; `diffpir`, `dps` and `pnp_flow` do with what it has.

    Shape:
        y: the recording itself, as the signals.
    """

    y: Tensor
    limit: float

    def forward(self, x: Tensor) -> Tensor:
        """What of ``x`` is not as it was recorded stays; what may be the truth is the recording."""
        return torch.where((self.y.abs() >= self.limit) & (x * self.y.sign() >= self.limit), self.y, x)

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def solve(self, r: Tensor, damping: float | Tensor) -> Tensor:
        return r / (1 + damping)

    def spectral(self, x: Tensor) -> Tensor:
        return x

    def signal(self, z: Tensor) -> Tensor:
        return z

    def singular(self, like: Tensor) -> Tensor:
        return torch.ones_like(like)

    def pseudoinverse(self, y: Tensor) -> Tensor:
        raise ConfigError("what was clipped has no linear inverse, which ddrm wants; take diffpir.")


@dataclass(frozen=True)
class Reduce:
    """Means of squares (or of stretches of sound) of ``factor`` entries a side.

    Shape:
        measurements: (batch, channels, *space / factor).
    """

    factor: int
    ndim: int = 2

    def _share(self) -> float:
        return float(self.factor**-self.ndim)  # A A^T

    def forward(self, x: Tensor) -> Tensor:
        if any(n % self.factor for n in x.shape[-self.ndim :]):
            raise ConfigError(f"{tuple(x.shape)} cannot be reduced by {self.factor}; expected multiples of it.")
        pool = F.avg_pool2d if self.ndim == 2 else F.avg_pool1d
        return pool(x, self.factor)

    def adjoint(self, y: Tensor) -> Tensor:
        for dim in range(-self.ndim, 0):
            y = y.repeat_interleave(self.factor, dim=dim)
        return y * self._share()

    def solve(self, r: Tensor, damping: float | Tensor) -> Tensor:
        return r / (self._share() + damping)

    def spectral(self, x: Tensor) -> Tensor:
        """The mean of each square in its first place, and what differs from it elsewhere, by a reflection."""
        return self._reflect(x)

    def signal(self, z: Tensor) -> Tensor:
        return self._reflect(z)

    def singular(self, like: Tensor) -> Tensor:
        return self._first(like) * self._share() ** 0.5

    def pseudoinverse(self, y: Tensor) -> Tensor:
        return self._reflect(self.adjoint(y) / self._share())

    def _first(self, like: Tensor) -> Tensor:
        """1 at the first place of each square, 0 elsewhere."""
        first = torch.ones_like(like, dtype=like.dtype if not like.is_complex() else torch.float32)
        for dim in range(-self.ndim, 0):
            at = torch.arange(like.shape[dim], device=like.device) % self.factor == 0
            first = first * at.to(first).reshape(-1, *[1] * (-dim - 1))
        return first

    def _reflect(self, x: Tensor) -> Tensor:
        """The reflection (its own inverse) that takes the even part of each square to its first place."""
        even = self._share() ** 0.5  # each entry of the unit vector that is equal everywhere in a square
        first = self._first(x)
        normal = even - first  # of the mirror, up to its length
        length = 2 - 2 * even  # squared, within a square
        if length == 0:  # squares of one entry
            return x
        sums = self.adjoint(self.forward(x * normal)) / self._share() ** 2
        return x - 2 * normal * sums / length


def _fits(mask: Tensor, x: Tensor) -> None:
    try:
        fits = torch.broadcast_shapes(mask.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ConfigError(f"a mask of {tuple(mask.shape)} for signals of {tuple(x.shape)}; expected the same shape.")
