"""Protocols of networks as pipelines see them: NumPy arrays in, arrays out, whatever library computes them.

Device, precision and the library's own arrays stay behind them; see `denoise.backends`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from denoise.protocols.denoisers import PosteriorDiagnostics

Array = NDArray[Any]
Inputs = tuple[Array, Array | None]
"""Noisy signals and sigma, as of `ArrayNetwork.denoise`."""


@dataclass(frozen=True)
class NetworkFacts:
    """What a pipeline needs to know of a network to apply it to windows or tiles.

    Args:
        ndim: dimensions of space: 1 for audio, 2 for images.
        channels: channels of input and output.
        blind: whether it estimates the noise level itself; sigma is then refused, else required.
        sigma_maps: channels of sigma: 1 for one number, ``2 * channels`` for the maps of a `denoise.noise_profile`.
        size_multiple: total stride: windows must start at multiples of it to give the same output as the whole signal.
        context: receptive field to each side in samples or pixels; None for all of the past, or with ``window``.
        window: only size that it accepts, None for any size.
        has_mean: whether its output is a posterior mean; not that of a prior with latents, whose windows are restored
            together.
        has_samples: whether it has posterior samples.
        can_mix: whether posterior samples can be mixed with their mean.
    """

    ndim: int
    channels: int
    blind: bool = True
    sigma_maps: int = 1
    size_multiple: int = 1
    context: int | None = None
    window: int | None = None
    has_mean: bool = True
    has_samples: bool = False
    can_mix: bool = False


@runtime_checkable
class ArrayNetwork(Protocol):
    """A denoiser of windows or tiles."""

    facts: NetworkFacts

    device: str
    """What it is computed on, for reports."""

    @property
    def precision(self) -> str:
        """Number format that it is computed in, such as ``"float32"``."""

    def denoise(self, x: Array, sigma: Array | None = None) -> Array:
        """Denoise signals.

        Args:
            x: noisy signals, (batch, channels, *space), float32, full scale 1.0; it is not modified.
            sigma: standard deviation of the noise in signal units, float32: (batch,), or maps of it, (batch, maps,
                *space); None for a blind network.

        Returns:
            Denoised signals of the shape of ``x``, float32, which the caller may modify.
        """


@runtime_checkable
class ArrayVariationalNetwork(ArrayNetwork, Protocol):
    """A network with latent variables, whose `denoise` takes their means."""

    def sample(self, x: Array, sigma: Array | None = None, *, seed: int, start: tuple[int, ...]) -> Array:
        """Denoise signals with samples of the latents, which are the same in overlapping windows.

        Args:
            x: as in `denoise`.
            sigma: as in `denoise`.
            seed: seed of the samples.
            start: position of the window in the signal, in samples or pixels, for each axis of space.

        Returns:
            As `denoise`.
        """


@runtime_checkable
class ArrayQuantisableNetwork(ArrayNetwork, Protocol):
    """A network that can be computed in 8-bit integers, which have to be calibrated for one image."""

    def should_quantise(self, n_pixels: int) -> bool:
        """Return whether that is requested, or saves time for an image of so many pixels."""

    def quantise(self, calibration: Inputs, check: Inputs) -> tuple[ArrayNetwork, float]:
        """Return the network in 8-bit integers.

        Args:
            calibration: inputs of typical range.
            check: inputs on which it is compared with float32.

        Returns:
            The network, and the greatest rms of its difference in an image of ``check``.
        """


@runtime_checkable
class ArrayStreamingNetwork(ArrayNetwork, Protocol):
    """A network for any sample rate that carries its state from block to block.

    The outputs of `step` for the blocks of a signal, concatenated, are the output of the network for the whole signal,
    ``delay`` hops later.
    """

    delay: int
    """Hops by which the output of `step` lags behind the input."""

    def hop(self, sample_rate: int) -> int:
        """Return the number of samples of one hop at ``sample_rate`` Hz."""

    def initial_state(self, batch: int, channels: int, sample_rate: int) -> Any:
        """Return the state before the first sample, which only `step` looks into.

        Args:
            batch: number of signals.
            channels: channels of each signal, which share one mask.
            sample_rate: rate of the signals in Hz.
        """

    def step(self, x: Array, state: Any) -> tuple[Array, Any]:
        """Denoise the next hops of a stream.

        Args:
            x: next samples, (batch, channels, n * hop), float32, n at least 1.
            state: state after the previous samples; it is not modified.

        Returns:
            Denoised samples of the shape of ``x``, ``delay`` hops late, and the new state.
        """


@runtime_checkable
class ArrayNoiseProfileNetwork(ArrayStreamingNetwork, Protocol):
    """A streaming network with a noise floor, which is estimated, with a look-ahead if there is one, or given."""

    def measure_noise(self, noise: Array, *, sample_rate: int) -> Array:
        """Return the noise profile of recordings of noise alone.

        Args:
            noise: (batch, channels, time), float32, full scale 1.0.
            sample_rate: rate of the recordings in Hz.

        Returns:
            Profile, (batch, positions).
        """

    def initial_state(self, batch: int, channels: int, sample_rate: int, noise_profile: Array | None = None) -> Any:
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

    def renew(self, state: Any, recent: Array | None) -> Any:
        """Return a state whose recurrences begin anew: noise of minutes, or digital silence, makes them drift.

        Args:
            state: state of a stream; it is not modified.
            recent: the samples before it, (batch, channels, n * hop), from which the recurrences begin. None after
                digital silence: they begin as in a new stream, and so does all but the noise floor.
        """

    def update_noise_floor(self, x: Array, state: Any) -> Any:
        """Return the state after the next hops of a stream, for `apply_lookahead` alone.

        Args:
            x: next samples, (batch, channels, n * hop), float32.
            state: state after the previous samples, of `initial_state` or of this method; it is not modified.
        """

    def apply_lookahead(self, state: Any, ahead: Any) -> Any:
        """Return a state whose noise floor is lowered where the signal decays in the hops that follow.

        Args:
            state: state of a stream; it is not modified.
            ahead: state of `update_noise_floor`, at most ``lookahead_hops`` later.
        """


@runtime_checkable
class ArrayPosteriorSampler(ArrayStreamingNetwork, Protocol):
    """A streaming network that returns one posterior sample and compares it with the posterior mean."""

    def diagnostics(self, state: Any) -> PosteriorDiagnostics:
        """Return the diagnostics of all output up to a state."""


@runtime_checkable
class ArrayFlowNetwork(ArrayStreamingNetwork, Protocol):
    """A streaming network whose posterior samples start as noise and are refined in steps."""

    def posterior_sampler(self, seed: int, steps: int, perception: float = 1.0) -> ArrayPosteriorSampler:
        """Return a network that mixes posterior mean and posterior sample.

        Args:
            seed: seed of the noise.
            steps: steps from noise to the sample, at least 1.
            perception: weight of the sample, from 0 (mean) to 1 (sample).
        """


@runtime_checkable
class ArrayClassifier(Protocol):
    """A classifier of short recordings."""

    class_names: tuple[str, ...]

    def probabilities(self, x: Array, *, sample_rate: int) -> Array:
        """Classify recordings.

        Args:
            x: recordings, (batch, channels, time), float32, full scale 1.0.
            sample_rate: their rate in Hz.

        Returns:
            Probabilities, (batch, classes).
        """
