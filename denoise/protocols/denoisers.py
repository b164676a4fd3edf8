"""Protocols of denoisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Normal

Progress = Callable[[float], None]
"""Called with the fraction done, 0 to 1; library code writes nothing to the terminal."""


Device: TypeAlias = "str | torch.device"
"""What a network is computed on: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``, or a device of torch."""


@runtime_checkable
class Denoiser(Protocol):
    """A denoiser as a function ``D(x, sigma)``."""

    def __call__(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Denoise signals.

        Args:
            x: noisy signals, (batch, channels, *space), full scale 1.0.
            sigma: standard deviation of the noise in signal units: (batch,), or maps of it, (batch, maps, *space), for
                networks that are conditioned on maps; None for a blind network.

        Returns:
            Denoised signals of the shape of ``x``.
        """


@runtime_checkable
class Network(Denoiser, Protocol):
    """A denoiser with the facts that a pipeline needs to apply it to windows or tiles."""

    @property
    def config(self) -> Any:
        """Its `denoise.config.config`, which is stored with the weights."""

    @property
    def ndim(self) -> int:
        """Dimensions of space: 1 for audio, 2 for images."""

    @property
    def channels(self) -> int:
        """Channels of input and output."""

    @property
    def blind(self) -> bool:
        """Whether it estimates the noise level itself; sigma is then refused, else required."""

    @property
    def sigma_maps(self) -> int:
        """Channels of sigma: 1 for one number, ``2 * channels`` for the maps of a `denoise.noise_profile`."""

    @property
    def variational(self) -> bool:
        """Whether some of its features are latent variables; it is then a `VariationalNetwork`."""

    @property
    def size_multiple(self) -> int:
        """Total stride: windows must start at multiples of it to give the same output as the whole signal."""

    @property
    def context(self) -> int | None:
        """Receptive field to each side in samples or pixels; None for all of the past."""

    @property
    def window(self) -> int | None:
        """Only size that it accepts, None for any size."""


LatentSampler: TypeAlias = "Callable[[int, Normal, int], Tensor]"
"""Returns a sample for one latent level.

Its arguments are the index of the level, the posterior of the latents, (batch, channels, *space), and the stride of the
level: samples or pixels of the signal for each of its positions.
"""


class VariationalNetwork(Network, Protocol):
    """A network with latent variables: it returns the output of their means, or of samples."""

    def __call__(self, x: Tensor, sigma: Tensor | None = None, sample_latent: LatentSampler | None = None) -> Tensor:
        """Denoise signals as every `Denoiser`, with latents from ``sample_latent``; None takes their means."""


@runtime_checkable
class StreamingNetwork(Network, Protocol):
    """A network for any sample rate that carries its state from block to block.

    The outputs of `step` for the blocks of a signal, concatenated, are the output of the network for the whole signal,
    ``delay`` hops later.
    """

    delay: int
    """Hops by which the output of `step` lags behind the input."""

    latency_s: float
    """Seconds between the arrival of a sample and its output, without the time of computation."""

    def hop(self, sample_rate: int) -> int:
        """Return the number of samples of one hop at ``sample_rate`` Hz."""

    def initial_state(self, batch: int, channels: int, sample_rate: int) -> Any:
        """Return the state before the first sample.

        Args:
            batch: number of signals.
            channels: channels of each signal.
            sample_rate: rate of the signals in Hz.
        """

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Denoise the next hops of a stream.

        Args:
            x: next samples, (batch, channels, n * hop).
            state: state after the previous samples; it is not modified.

        Returns:
            Denoised samples of the shape of ``x``, ``delay`` hops late, and the new state.
        """


@runtime_checkable
class NoiseProfileNetwork(StreamingNetwork, Protocol):
    """A streaming network with a noise floor, which is estimated, with a look-ahead if there is one, or given."""

    def measure_noise(self, noise: Tensor, *, sample_rate: int) -> Tensor:
        """Return the noise profile of recordings of noise alone.

        Args:
            noise: (batch, channels, time), full scale 1.0.
            sample_rate: rate of the recordings in Hz.

        Returns:
            Profile, (batch, positions).
        """

    def initial_state(self, batch: int, channels: int, sample_rate: int, noise_profile: Tensor | None = None) -> Any:
        """Return the state before the first sample.

        Args:
            batch: number of signals.
            channels: channels of each signal.
            sample_rate: rate of the signals in Hz.
            noise_profile: as of `measure_noise`, (batch or 1, positions), 0 where it is unknown; None estimates the
                noise.
        """

    @property
    def lookahead_hops(self) -> int:
        """Hops whose noise floor the state holds."""

    def renew(self, state: Any, recent: Tensor | None) -> Any:
        """Return a state whose recurrences begin anew: noise of minutes, or digital silence, makes them drift.

        Args:
            state: state of a stream; it is not modified.
            recent: the samples before it, (batch, channels, n * hop), from which the recurrences begin. None after
                digital silence: they begin as in a new stream, and so does all but the noise floor.
        """

    def update_noise_floor(self, x: Tensor, state: Any) -> Any:
        """Return the state after the next hops of a stream, for `apply_lookahead` alone.

        Args:
            x: next samples, (batch, channels, n * hop).
            state: state after the previous samples, of `initial_state` or of this method; it is not modified.
        """

    def apply_lookahead(self, state: Any, ahead: Any) -> Any:
        """Return a state whose noise floor is lowered where the signal decays in the hops that follow.

        Args:
            state: state of a stream; it is not modified.
            ahead: state of `update_noise_floor`, at most ``lookahead_hops`` later.
        """


class Consistency(NamedTuple):
    """Statistics of a residual.

    Attributes:
        relative_rms: rms of the residual by that of the noise; 1 for noise.
        correlation: 0 for noise; of images between neighbouring pixels, of audio with the denoised signal.
    """

    relative_rms: float
    correlation: float


class PosteriorDiagnostics(NamedTuple):
    """Statistics that show whether a posterior sample removed noise and nothing else.

    Attributes:
        residual_by_sigma: rms of the removed part, relative to the estimated noise; 1 if exactly the noise was removed.
        residual_correlation: correlation of the removed part and the output; 0 if exactly the noise was removed.
        rejected_fraction: fraction of the difference to the posterior mean, in power, that was rejected.
    """

    residual_by_sigma: float
    residual_correlation: float
    rejected_fraction: float


@runtime_checkable
class PosteriorSampler(StreamingNetwork, Protocol):
    """A streaming network that returns one posterior sample and compares it with the posterior mean."""

    def diagnostics(self, state: Any) -> PosteriorDiagnostics:
        """Return the diagnostics of all output up to a state."""


@runtime_checkable
class FlowNetwork(StreamingNetwork, Protocol):
    """A streaming network trained by flow matching, whose posterior samples start as noise and are refined in steps."""

    def posterior_sampler(self, seed: int, steps: int, perception: float = 1.0) -> PosteriorSampler:
        """Return a network that mixes posterior mean and posterior sample.

        Args:
            seed: seed of the noise.
            steps: steps from noise to the sample, at least 1.
            perception: weight of the sample, from 0 (mean) to 1 (sample).
        """

    def training_pair(self, noisy: Tensor, clean: Tensor, *, sample_rate: int) -> tuple[Tensor, Tensor]:
        """Estimate the clean signals from a random point on each path between them and the noisy ones.

        Args:
            noisy: noisy signals, (batch, channels, time).
            clean: clean signals of the same shape.
            sample_rate: their rate in Hz.

        Returns:
            Estimates of the shape of ``clean``, and the fraction of the noise at each point, (batch,), from 0 to 1: 0
            for the examples that train the posterior mean.
        """
