"""The few types that the layers share; see each for who fulfils it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Generator, Size, Tensor
from torch.distributions import Normal


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
    def config(self) -> Any:
        """The `denoise.config.config` that it was made from; it is stored with the weights."""

    @property
    def ndim(self) -> int:
        """1 for sound, 2 for pictures."""

    @property
    def channels(self) -> int:
        """Channels that it takes and gives."""

    @property
    def blind(self) -> bool:
        """Whether it judges the noise itself; then a sigma is refused, else it is needed."""

    @property
    def size_multiple(self) -> int:
        """Windows that start at multiples of this see the same strides as the whole signal."""

    @property
    def context(self) -> int | None:
        """Samples (or pixels) to each side that one output sample can depend on; None: all that went before."""

    @property
    def window(self) -> int | None:
        """The only size that it takes, or None for any."""


Draw = Callable[[int, Normal, int], Tensor]
"""Says a value for the latents of a level, given their distribution (batch, channels, *space) and the samples
of the signal that one position of it stands for."""


@runtime_checkable
class VariationalNetwork(Network, Protocol):
    """A network some of whose features are latent variables: it gives one answer, or draws as many as wanted."""

    variational: bool

    def __call__(self, x: Tensor, sigma: Tensor | None = None, draw: Draw | None = None) -> Tensor: ...


@runtime_checkable
class StreamingNetwork(Network, Protocol):
    """A network for any sample rate that carries its state from block to block.

    The law: the outputs of `stream` over the blocks of a signal, joined, are the network's output for
    the whole signal ``delay`` hops later.
    """

    delay: int

    latency_s: float

    def hop(self, sample_rate: int) -> int:
        """Samples that it takes at a time."""

    def start(self, batch: int, channels: int, sample_rate: int) -> Any:
        """The state before the first sample."""

    def stream(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Denoise the next hops; the state given stays as it was. Shape: (batch, channels, n * hop)."""


@runtime_checkable
class DrawnNetwork(StreamingNetwork, Protocol):
    """A streaming network of one draw, which is judged beside the mean of all."""

    def judged(self, state: Any) -> tuple[float, float, float]:
        """What was taken away by the noise (rms), its correlation with what is left, and the share doubted."""


@runtime_checkable
class FlowNetwork(StreamingNetwork, Protocol):
    """A streaming network whose draws begin with noise and go to clean signals in steps, on paths learnt from pairs."""

    def drawn(self, seed: int, steps: int, perception: float = 1.0) -> DrawnNetwork:
        """The network that goes by ``perception`` from the mean (0) to one draw (1)."""

    def on_the_way(self, noisy: Tensor, clean: Tensor, *, sample_rate: int) -> tuple[Tensor, Tensor]:
        """Its answer at a drawn point between the two of each pair, and how much of the noise that draws begin with is
        added there, 0 to 1, 0 if it is to be the mean of all answers. Shape: as both, (batch,).
        """


@runtime_checkable
class Codec(Protocol):
    """An autoencoder: signals to latents and back."""

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...


@runtime_checkable
class Prior(Protocol):
    """Anything that makes new signals, or latents, of one shape."""

    event_shape: Size

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Draw n of them. Shape: (n, *event_shape)."""


Progress = Callable[[float], None]
"""Called with the fraction done, 0 to 1; library code knows nothing of terminals."""
