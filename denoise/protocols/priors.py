"""Protocols of priors."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from denoise.errors import ConfigError, shorten
from denoise.protocols.codecs import Support
from denoise.protocols.denoisers import Progress

if TYPE_CHECKING:
    from torch import Generator, Size, Tensor

Label = int | str | None
"""Condition of a sample: a class by its index, a text, or None for unconditional."""


@dataclass(frozen=True)
class SamplingOptions:
    """Settings of a sampler. None is the default of the prior.

    Args:
        steps: steps of the solver.
        guidance: scale of classifier-free guidance: 0 is unconditional, 1 conditional, more extrapolates.
        temperature: factor of the noise that `Prior.sample` draws. Of autoregressive priors, which draw no noise, it
            divides the logits. In both, samples are more typical and vary less below 1.
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
            if value is None:
                continue
            is_number = isinstance(value, Integral if name == "steps" else Real)
            if not is_number or not low <= value <= high:
                what = "a whole number from " if name == "steps" and not is_number else ""
                raise ConfigError(f"{name} is {shorten(value)}; expected {what}{low} to {high}.")
        if self.solver is not None and not isinstance(self.solver, str):
            raise ConfigError(f"solver is {shorten(self.solver)}; expected a name.")

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

        The default guidance is 1, which makes it the inverse of `NoiseEncoder.encode_noise`. What would make the
        result depend on more than the noise is refused by a `ConfigError`: a temperature, and stochastic solvers.
        """


@runtime_checkable
class NoiseEncoder(NoiseDecoder, Protocol):
    """A prior that can be inverted."""

    def encode_noise(self, x: Tensor, *, label: Label = None) -> Tensor:
        """Return the noise of signals, (n, *event_shape) to (n, *noise_shape), in float32.

        No gradients flow through it, so that its Jacobian by autograd is 0; `HasLogProb.log_prob` has gradients.
        """


@runtime_checkable
class LatentVariablePrior(Prior, Protocol):
    """A prior of signals x = D(z) + white noise, with a density of the latents z and a differentiable decoder D.

    The latents of a measurement are found by optimisation: GAN, VAE with a prior over its latents, flow.
    """

    @property
    def latent_shape(self) -> Size:
        """Shape of the latents of one signal."""

    @property
    def residual_std(self) -> float:
        """Standard deviation of the difference between a signal and what its latents are decoded to."""

    def sample_latents(self, n: int, generator: Generator | None = None) -> Tensor:
        """Sample latents of shape (n, *latent_shape)."""

    def latent_log_prob(self, z: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return log-densities in nats, differentiably, (batch, *latent_shape) to (batch,)."""

    def decode_latents(self, z: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the signals of latents, differentiably, (batch, *latent_shape) to (batch, *event_shape)."""


@runtime_checkable
class LatentEncoder(LatentVariablePrior, Protocol):
    """A prior with latents whose encoder tells roughly which ones a signal has: a VAE, a flow."""

    def encode_latents(self, x: Tensor) -> Tensor:
        """Return the latents of signals, (batch, *event_shape) to (batch, *latent_shape)."""


@runtime_checkable
class HasLogProb(Prior, Protocol):
    """A prior with exact likelihoods: a flow, a mixture, an autoregressive model."""

    @property
    def support(self) -> Support:
        """The space on which the likelihood is defined."""

    def log_prob(self, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return log-likelihoods in nats, differentiable in signals and parameters, (batch, *event_shape) to (batch,).

        Priors compute in float32: signals are of that type.
        """


@runtime_checkable
class HasEstimatedLogProb(Prior, Protocol):
    """A prior whose likelihoods are estimated with random probes, such as an integral along the probability flow."""

    @property
    def support(self) -> Support:
        """The space on which the likelihood is defined."""

    @property
    def estimate_kind(self) -> str:
        """Name of the estimate, with the number of its probes."""

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
    def bound_kind(self) -> str:
        """Name of the bound."""

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
class PatchPrior(DenoisingPrior, Protocol):
    """A prior of small square patches, with the density of noisy ones: images of any size are made of them."""

    def noisy_log_prob(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return log-densities in nats of patches with white noise of sigma, (batch, *event_shape) to (batch,)."""


@runtime_checkable
class HasTrajectory(Prior, Protocol):
    """A prior that samples by removing noise step by step: diffusion, DDGAN, flow matching."""

    def trajectory(
        self,
        n: int,
        *,
        frames: int = 17,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        """Return samples on the way to noise and back, (frames, n, *event_shape), each scaled to be shown.

        The first and the last are those of `sample`, noise is in the middle. ``frames`` is the largest number of
        points, an odd number up to ``2 * steps + 1`` is returned.
        """


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
