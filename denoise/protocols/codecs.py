"""Protocols of codecs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Generator, Size, Tensor
    from torch.distributions import Distribution, Normal


@dataclass(frozen=True)
class Support:
    """The space on which a likelihood is defined.

    Args:
        shape: shape of one event.
        values: ``"continuous"`` for densities, ``"discrete"`` for probabilities of 256 levels, ``"binary"`` for
            probabilities of 0 and 1.
        description: what the events are, if they are not the signals themselves.
    """

    shape: tuple[int, ...]
    values: Literal["continuous", "discrete", "binary"] = "continuous"
    description: str = ""


@runtime_checkable
class Codec(Protocol):
    """An autoencoder: signals to latents and back."""

    @property
    def event_shape(self) -> Size:
        """Shape of one signal."""

    @property
    def latent_shape(self) -> Size:
        """Shape of the latents of one signal."""

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of signals, (batch, *event_shape) to (batch, *latent_shape)."""

    def decode(self, z: Tensor) -> Tensor:
        """Return the signals of latents, (batch, *latent_shape) to (batch, *event_shape)."""


@runtime_checkable
class StochasticCodec(Codec, Protocol):
    """A codec whose latents are random variables, given the signal."""

    def sample_posterior(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Sample latents from q(z|x), one for each signal; gradients flow through them."""


@runtime_checkable
class LikelihoodCodec(Codec, Protocol):
    """A codec whose decoder is a distribution p(x|z), of which `decode` returns the mean."""

    @property
    def support(self) -> Support:
        """The space on which p(x|z) is defined."""

    def likelihood(self, z: Tensor) -> Distribution:
        """Return p(x|z), a distribution of whole events: its log_prob takes signals and has shape (batch,)."""


@runtime_checkable
class ResidualCodec(LikelihoodCodec, Protocol):
    """A codec of signals that differ from what `decode` returns by about white noise."""

    @property
    def residual_std(self) -> float:
        """Standard deviation of the noise."""


@runtime_checkable
class VariationalCodec(StochasticCodec, LikelihoodCodec, Protocol):
    """A codec with densities of both encoder and decoder: it has an evidence lower bound."""

    def posterior(self, x: Tensor) -> Normal:
        """Return q(z|x), with independent entries, of shape (batch, *latent_shape)."""


@runtime_checkable
class OrthonormalCodec(Codec, Protocol):
    """A codec whose `encode` is an orthonormal linear map and `decode` its inverse.

    It preserves distances and densities: white noise of standard deviation sigma is the same for signals and latents.
    """

    orthonormal: Literal[True]
