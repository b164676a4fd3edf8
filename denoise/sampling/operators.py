"""Measurement operators of inverse problems: nearly all linear, with adjoint, spectrum and regularised inverse.

Signals have shape (batch, channels, *space); measurements as each class states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from denoise.errors import ConfigError
from denoise.protocols import OrthonormalCodec
from denoise.sampling.consistent_set import ConsistentSet


class Operator(Protocol):
    """A measurement y = A x + noise. In the orthonormal coordinates of `to_spectral`, A^T A is diagonal."""

    def forward(self, x: Tensor) -> Tensor:
        """Return A x."""

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y."""

    def solve(self, r: Tensor, damping: float | Tensor) -> Tensor:
        """Return (A A^T + damping)^-1 r, for r of the shape of measurements."""

    def to_spectral(self, x: Tensor) -> Tensor:
        """Return orthonormal coordinates of a signal, perhaps complex."""

    def from_spectral(self, z: Tensor) -> Tensor:
        """Return the signal of coordinates, the inverse of `to_spectral`."""

    def singular_values(self, z: Tensor) -> Tensor:
        """Return the singular values of A for coordinates of the shape of z, 0 where nothing is observed."""

    def pseudoinverse(self, y: Tensor) -> Tensor:
        """Return the coordinates of A^+ y."""


@dataclass(frozen=True)
class Mask:
    """Observe some entries; measurements are 0 at the others.

    Args:
        mask: 1 where entries are observed, else 0; it broadcasts against signals.
    """

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return A x.

        Raises:
            ConfigError: the mask does not broadcast against x.
        """
        _check_broadcast(self.mask, x)
        return x * self.mask

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y."""
        return y * self.mask

    def solve(self, r: Tensor, damping: float | Tensor) -> Tensor:
        """Return (A A^T + damping)^-1 r."""
        return r / (self.mask + damping)

    def to_spectral(self, x: Tensor) -> Tensor:
        """Return the signal itself, since A is diagonal."""
        return x

    def from_spectral(self, z: Tensor) -> Tensor:
        """Return the coordinates themselves."""
        return z

    def singular_values(self, z: Tensor) -> Tensor:
        """Return the mask, expanded to the shape of z."""
        return self.mask.to(z).expand_as(z)

    def pseudoinverse(self, y: Tensor) -> Tensor:
        """Return the coordinates of A^+ y."""
        return y * self.mask


class Filter(ABC):
    """A linear filter with periodic boundaries: one factor for each frequency."""

    @abstractmethod
    def response(self, x: Tensor) -> Tensor:
        """Return the frequency response for signals like x, (*space), in the order of torch.fft."""

    @abstractmethod
    def axes(self) -> tuple[int, ...]:
        """Return the axes of space."""

    def forward(self, x: Tensor) -> Tensor:
        """Return A x."""
        return self.from_spectral(self.to_spectral(x) * self.response(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y."""
        return self.from_spectral(self.to_spectral(y) * self.response(y).conj())

    def solve(self, r: Tensor, damping: float | Tensor) -> Tensor:
        """Return (A A^T + damping)^-1 r."""
        return self.from_spectral(self.to_spectral(r) / (self.response(r).abs().square() + damping))

    def to_spectral(self, x: Tensor) -> Tensor:
        """Return the orthonormal Fourier transform."""
        return torch.fft.fftn(x, dim=self.axes(), norm="ortho")

    def from_spectral(self, z: Tensor) -> Tensor:
        """Return the inverse Fourier transform."""
        return torch.fft.ifftn(z, dim=self.axes(), norm="ortho").real

    def singular_values(self, z: Tensor) -> Tensor:
        """Return the magnitude of the frequency response, expanded to the shape of z."""
        return self.response(z).abs().expand(z.shape)

    def pseudoinverse(self, y: Tensor) -> Tensor:
        """Return the coordinates of A^+ y."""
        response = self.response(y)
        observed = response.abs() > 1e-6
        divisor = torch.where(observed, response, torch.ones_like(response))
        return torch.where(observed, self.to_spectral(y) / divisor, 0.0)


@dataclass(frozen=True)
class Blur(Filter):
    """A convolution with periodic boundaries; measurements have the shape of signals.

    Args:
        kernel: weights, (*space) with odd sides and the origin at the centre; they sum to one for a blur.
    """

    kernel: Tensor

    def response(self, x: Tensor) -> Tensor:
        """Return the frequency response for signals like x.

        Raises:
            ConfigError: the kernel has an even side or is larger than x.
        """
        ndim = self.kernel.ndim
        if any(k % 2 == 0 or k > n for k, n in zip(self.kernel.shape, x.shape[-ndim:], strict=True)):
            raise ConfigError(
                f"kernel is of shape {tuple(self.kernel.shape)}, signals of {tuple(x.shape)}; expected odd sides that "
                "are no larger than the signal's."
            )
        padded = x.real.new_zeros(x.shape[-ndim:])
        padded[tuple(slice(k) for k in self.kernel.shape)] = self.kernel.to(padded)
        shifts = tuple(-(k // 2) for k in self.kernel.shape)
        return torch.fft.fftn(padded.roll(shifts, tuple(range(ndim))))

    def axes(self) -> tuple[int, ...]:
        """Return the axes of space."""
        return tuple(range(-self.kernel.ndim, 0))


@dataclass(frozen=True)
class LowPass(Filter):
    """An ideal low-pass filter for audio, as of a narrow-band channel.

    Args:
        cutoff: highest frequency that passes, in cycles per sample.
    """

    cutoff: float

    def response(self, x: Tensor) -> Tensor:
        """Return 1 up to the cutoff frequency and 0 above."""
        return (torch.fft.fftfreq(x.shape[-1], device=x.device).abs() <= self.cutoff).to(x.real.dtype)

    def axes(self) -> tuple[int, ...]:
        """Return the axis of time."""
        return (-1,)


@dataclass(frozen=True)
class Whitened:
    """Observe the coefficients of an orthonormal transform, divided by the standard deviation of their noise.

    Coloured noise, whose variance differs between the coefficients, becomes white noise of sigma 1.

    Args:
        transform: orthonormal transform of signals.
        variance: variance of the noise of each coefficient, above 0; it broadcasts against coefficients.
    """

    transform: OrthonormalCodec
    variance: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return A x, the whitened coefficients."""
        return self.transform.encode(x) / self.variance.sqrt()

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y."""
        return self.transform.decode(y / self.variance.sqrt())

    def solve(self, r: Tensor, damping: float | Tensor) -> Tensor:
        """Return (A A^T + damping)^-1 r."""
        return r / (1 / self.variance + damping)

    def to_spectral(self, x: Tensor) -> Tensor:
        """Return the coefficients of a signal."""
        return self.transform.encode(x)

    def from_spectral(self, z: Tensor) -> Tensor:
        """Return the signal of coefficients."""
        return self.transform.decode(z)

    def singular_values(self, z: Tensor) -> Tensor:
        """Return the inverse of the standard deviations, expanded to the shape of z."""
        return (1 / self.variance.sqrt()).to(z).expand_as(z)

    def pseudoinverse(self, y: Tensor) -> Tensor:
        """Return the coefficients of A^+ y."""
        return y * self.variance.sqrt()


@dataclass(frozen=True)
class Clipping(ConsistentSet):
    """A clipped recording: samples at the limit were at least as large, all others are as recorded.

    Args:
        y: the recording, of the shape of signals.
        limit: absolute value at which it is clipped.
    """

    measurement = "clipping"

    y: Tensor
    limit: float

    def forward(self, x: Tensor) -> Tensor:
        """Return the recording where x is consistent with it, else x, so that the misfit is 0 where it should be."""
        return torch.where((self.y.abs() >= self.limit) & (x * self.y.sign() >= self.limit), self.y, x)


@dataclass(frozen=True)
class Cropped:
    """The first entries of a measurement along each axis, as of a blurred image with unknown surroundings.

    It has no spectrum; `diffpir` works with it.

    Args:
        operator: operator of the whole measurement, of the shape of signals.
        size: measured entries along each axis of space.
        space: entries of a signal along each axis of space.
        iterations: of conjugate gradients, by which it is inverted.
        tolerance: relative residual at which these end.
    """

    operator: Operator
    size: tuple[int, ...]
    space: tuple[int, ...]
    iterations: int = 20
    tolerance: float = 1e-3

    def forward(self, x: Tensor) -> Tensor:
        """Return A x."""
        y = self.operator.forward(x)
        for axis, n in zip(range(-len(self.size), 0), self.size, strict=True):
            y = y.narrow(axis, 0, n)
        return y

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y."""
        pads = [(0, n - k) for n, k in zip(self.space, self.size, strict=True)]
        return self.operator.adjoint(F.pad(y, [end for pad in reversed(pads) for end in pad]))

    def solve(self, r: Tensor, damping: float | Tensor) -> Tensor:
        """Return (A A^T + damping)^-1 r, by conjugate gradients."""
        solution, residual = torch.zeros_like(r), r
        direction, power = residual, residual.square().sum()
        goal = self.tolerance**2 * power
        for _ in range(self.iterations):
            if power <= goal:
                break
            product = self.forward(self.adjoint(direction)) + damping * direction
            step = power / (direction * product).sum()
            solution, residual = solution + step * direction, residual - step * product
            previous, power = power, residual.square().sum()
            direction = residual + power / previous * direction
        return solution

    def to_spectral(self, x: Tensor) -> Tensor:
        """Refuse, since there is no spectrum.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a cropped measurement has no spectrum; use diffpir.")

    from_spectral = singular_values = pseudoinverse = to_spectral


@dataclass(frozen=True)
class Downsample:
    """Means of blocks of entries; measurements have shape (batch, channels, *space / factor).

    Args:
        factor: side of the blocks.
        ndim: number of axes of space, 1 or 2.
    """

    factor: int
    ndim: int = 2

    def forward(self, x: Tensor) -> Tensor:
        """Return A x.

        Raises:
            ConfigError: a side of x is not a multiple of the factor.
        """
        if any(n % self.factor for n in x.shape[-self.ndim :]):
            raise ConfigError(
                f"signals are of shape {tuple(x.shape)}; expected sides that are multiples of {self.factor}."
            )
        pool = F.avg_pool2d if self.ndim == 2 else F.avg_pool1d
        return pool(x, self.factor)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y."""
        for dim in range(-self.ndim, 0):
            y = y.repeat_interleave(self.factor, dim=dim)
        return y * self._gain()

    def solve(self, r: Tensor, damping: float | Tensor) -> Tensor:
        """Return (A A^T + damping)^-1 r."""
        return r / (self._gain() + damping)

    def to_spectral(self, x: Tensor) -> Tensor:
        """Return the normalised mean of each block in its first entry and the deviations in the others."""
        return self._reflect(x)

    def from_spectral(self, z: Tensor) -> Tensor:
        """Return the signal of coordinates."""
        return self._reflect(z)

    def singular_values(self, z: Tensor) -> Tensor:
        """Return the gain at the first entry of each block and 0 elsewhere."""
        return self._is_first(z) * self._gain() ** 0.5

    def pseudoinverse(self, y: Tensor) -> Tensor:
        """Return the coordinates of A^+ y."""
        return self._reflect(self.adjoint(y) / self._gain())

    def _gain(self) -> float:
        """A A^T, a multiple of the identity."""
        return float(self.factor**-self.ndim)

    def _is_first(self, z: Tensor) -> Tensor:
        """1 at the first entry of each block, 0 elsewhere."""
        first = torch.ones_like(z, dtype=z.dtype if not z.is_complex() else torch.float32)
        for dim in range(-self.ndim, 0):
            is_start = torch.arange(z.shape[dim], device=z.device) % self.factor == 0
            first = first * is_start.to(first).reshape(-1, *[1] * (-dim - 1))
        return first

    def _reflect(self, x: Tensor) -> Tensor:
        """Householder reflection, its own inverse, that maps the constant vector of each block to its first entry."""
        constant = self._gain() ** 0.5  # each entry of the constant unit vector of a block
        normal = constant - self._is_first(x)  # of the mirror, not normalised
        squared_norm = 2 - 2 * constant  # of the normal, within a block
        if squared_norm == 0:  # blocks of one entry
            return x
        projections = self.adjoint(self.forward(x * normal)) / self._gain() ** 2
        return x - 2 * normal * projections / squared_norm


def _check_broadcast(mask: Tensor, x: Tensor) -> None:
    try:
        fits = torch.broadcast_shapes(mask.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ConfigError(
            f"mask is of shape {tuple(mask.shape)}, signals of {tuple(x.shape)}; expected shapes that broadcast."
        )
