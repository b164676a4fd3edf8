"""The few types that the layers share; see each for who fulfils it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Denoiser(Protocol):
    """A function from noisy to clean: ``D(x, sigma)``.

    Shape:
        x: (batch, channels, *space); full scale is 1.0.
        sigma: (batch,) standard deviation of the noise in signal units, or None for a blind model.
        returns: as x.
    """

    def __call__(self, x: Tensor, sigma: Tensor | None = None) -> Tensor: ...


@runtime_checkable
class Network(Denoiser, Protocol):
    """A denoiser with the facts that a pipeline needs to feed it window by window."""

    @property
    def channels(self) -> int:
        """Channels that it takes and gives."""

    @property
    def size_multiple(self) -> int:
        """Windows that start at multiples of this see the same strides as the whole signal."""

    @property
    def context(self) -> int:
        """Samples (or pixels) to each side that one output sample can depend on."""

    @property
    def window(self) -> int | None:
        """The only size that it takes, or None for any."""


@runtime_checkable
class Codec(Protocol):
    """An autoencoder: signals to latents and back."""

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...


Progress = Callable[[float], None]
"""Called with the fraction done, 0 to 1; library code knows nothing of terminals."""
