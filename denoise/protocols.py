"""Protocols of denoisers, codecs and priors: the capabilities that callers test for with ``isinstance``."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from torch import Generator, Size, Tensor
from torch.distributions import Distribution, Normal

from denoise.errors import ConfigError


@runtime_checkable
class Denoiser(Protocol):
    """A denoiser as a function ``D(x, sigma)``."""

    def __call__(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Denoise signals.

        Args:
            x: noisy signals, (batch, channels, *space), full scale 1.0.
            sigma: standard deviation of the noise in signal units, (batch,), or None for a blind network.

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


LatentSampler = Callable[[int, Normal, int], Tensor]
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


class PosteriorDiagnostics(NamedTuple):
    """Statistics that show whether a posterior sample removed noise and nothing else.

    Args:
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


Label = int | str | None
"""Condition of a sample: a class by its index, a text, or None for unconditional."""


@dataclass(frozen=True)
class SamplingOptions:
    """Settings of a sampler. None is the default of the prior.

    Args:
        steps: steps of the solver.
        guidance: scale of classifier-free guidance: 0 is unconditional, 1 conditional, more extrapolates.
        temperature: factor of the noise that `Prior.sample` draws.
        solver: name in `denoise.sampling.solvers.SOLVERS`.

    Raises:
        ConfigError: a number is out of range.
    """

    steps: int | None = None
    guidance: float | None = None
    temperature: float | None = None
    solver: str | None = None

    def __post_init__(self) -> None:
        for name, low, high in (("steps", 1, 10_000), ("guidance", 0, 100), ("temperature", 0, 100)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} is {value}; expected {low} to {high}.")

    def check_supported(self, supported: Set[str], name: str) -> None:
        """Refuse options that a prior does not support.

        Args:
            supported: names of fields, as in `Prior.sampling_options`.
            name: name of the prior, for the message.

        Raises:
            ConfigError: another option is set.
        """
        unsupported = sorted(key for key, value in vars(self).items() if value is not None and key not in supported)
        if unsupported:
            raise ConfigError(f"{name} takes no {', '.join(unsupported)}; leave it out.")


DEFAULT_OPTIONS = SamplingOptions()


@runtime_checkable
class Prior(Protocol):
    """A generative model of signals, or latents, of one shape.

    What a prior can do beyond sampling is declared by the protocols below; callers test for them with ``isinstance``.
    """

    @property
    def event_shape(self) -> Size:
        """Shape of one signal."""

    @property
    def classes(self) -> int:
        """Number of classes that it can be conditioned on; 0 for none."""

    @property
    def text(self) -> bool:
        """Whether it can be conditioned on text."""

    @property
    def sampling_options(self) -> frozenset[str]:
        """Names of the fields of `SamplingOptions` that it supports."""

    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        """Sample signals of shape (n, *event_shape)."""


@runtime_checkable
class NoiseDecoder(Prior, Protocol):
    """A prior that maps standard normal noise to signals deterministically: a flow, a probability-flow ODE, a GAN."""

    @property
    def noise_shape(self) -> Size:
        """Shape of the noise of one signal, which may differ from `event_shape`."""

    def decode_noise(self, noise: Tensor, *, label: Label = None, options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """Return the signals of noise, (n, *noise_shape) to (n, *event_shape).

        The default guidance is 1, which makes it the inverse of `NoiseEncoder.encode_noise`. `options.temperature` is
        ignored: the noise is given.
        """


@runtime_checkable
class NoiseEncoder(NoiseDecoder, Protocol):
    """A prior that can be inverted."""

    def encode_noise(self, x: Tensor, *, label: Label = None) -> Tensor:
        """Return the noise of signals, (n, *event_shape) to (n, *noise_shape)."""


@runtime_checkable
class HasLogProb(Prior, Protocol):
    """A prior with exact likelihoods: a flow, a mixture, an autoregressive model."""

    @property
    def support(self) -> Support:
        """The space on which the likelihood is defined."""

    def log_prob(self, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return log-likelihoods in nats, (batch, *event_shape) to (batch,)."""


@runtime_checkable
class HasEstimatedLogProb(Prior, Protocol):
    """A prior whose likelihoods are estimated by integration along the probability flow, with random probes."""

    @property
    def support(self) -> Support:
        """The space on which the likelihood is defined."""

    def estimate_log_prob(
        self, x: Tensor, labels: Sequence[Label] | None = None, *, generator: Generator | None = None
    ) -> Tensor:
        """Return estimated log-likelihoods in nats, (batch, *event_shape) to (batch,)."""


@runtime_checkable
class HasLogProbBound(Prior, Protocol):
    """A prior with latent variables, whose likelihoods have a lower bound."""

    @property
    def support(self) -> Support:
        """The space on which the likelihood is defined."""

    @property
    def bound_samples(self) -> int:
        """Number of posterior samples for each signal that takes reasonable time."""

    @property
    def bound_batch(self) -> int:
        """Number of signals at a time that takes reasonable time and memory."""

    def log_prob_bound(
        self, x: Tensor, samples: int, *, label: Label = None, generator: Generator | None = None
    ) -> Tensor:
        """Return lower bounds of log-likelihoods in nats, (batch, *event_shape) to (batch,)."""


@runtime_checkable
class DenoisingPrior(Prior, Protocol):
    """A denoiser ``D(x, sigma)`` at all noise levels, which makes it a prior: diffusion, flow matching."""

    @property
    def data_mean(self) -> float:
        """Mean of the signals."""

    @property
    def data_std(self) -> float:
        """Standard deviation of the signals."""

    def __call__(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return E[clean | x] for signals with white noise of sigma, (batch,), in signal units."""

    def score(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the gradient of the log-density of signals with white noise of sigma, (batch,)."""


@runtime_checkable
class Completer(Prior, Protocol):
    """A prior that fills in missing entries of signals."""

    @property
    def completion_options(self) -> frozenset[str]:
        """Names of the fields of `SamplingOptions` that `complete` supports."""

    def complete(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Sample the entries of signals where the mask is 0; x, mask and the result have shape (n, *event_shape)."""


Progress = Callable[[float], None]
"""Called with the fraction done, 0 to 1; library code writes nothing to the terminal."""
