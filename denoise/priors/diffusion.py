"""Diffusion: one denoising network for all noise levels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.config import config
from denoise.errors import ConfigError
from denoise.priors.guided import GuidedConfig, GuidedPrior, PathCallback
from denoise.probability_path import convert, expand_like, exploding, karras_sigmas, precondition, preserving
from denoise.protocols import DEFAULT_OPTIONS, Label, SamplingOptions
from denoise.sampling.solvers import SOLVERS, STOCHASTIC, ode, ode_log_prob, standard_normal_log_prob

STEPS, ENCODING_STEPS, LOG_PROB_STEPS = 18, 35, 59


@config
class DiffusionConfig(GuidedConfig):
    """Settings of a diffusion prior; see `GuidedConfig` for the others.

    Args:
        sigma_min: lowest noise level of sampling, in signal units.
        sigma_max: highest noise level of sampling.
        log_sigma: mean and standard deviation of the normal distribution of log sigma in training.
        profile: factors of ``sigma_data`` at equal distances along the first axis of space, for signals whose entries
            differ much in variance, such as spectra. The logarithm is interpolated linearly.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    log_sigma: tuple[float, float] = (-1.2, 1.2)
    profile: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.profile and (len(self.profile) < 2 or min(self.profile) <= 0 or len(self.shape) < 2):
            raise ConfigError("profile must be two factors or more, above 0, of signals with space.")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ConfigError("sigma_min must be above 0 and below sigma_max.")


class DiffusionProcess(GuidedPrior):
    """A denoiser ``D(x, sigma)`` with the noise levels from which solvers turn noise into signals.

    Subclasses define the denoiser and the levels.

    Args:
        config: settings.
    """

    sampling_options = GuidedPrior.sampling_options | {"solver"}
    default_steps = STEPS
    default_solver = "heun"

    @property
    @abstractmethod
    def initial_std(self) -> float:
        """Standard deviation of the signals with noise of the highest level."""

    @abstractmethod
    def sampling_sigmas(self, steps: int, solver: str) -> Tensor:
        """Return the noise levels of a sampler, (steps + 1,), decreasing and ending at 0.

        Args:
            steps: number of steps.
            solver: name of the solver.

        Raises:
            ConfigError: there are fewer levels than steps.
        """

    @torch.no_grad()
    def decode_noise(
        self,
        noise: Tensor,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
        callback: PathCallback | None = None,
    ) -> Tensor:
        """Return the signals of standard normal noise; see `GuidedPrior.decode_noise`.

        Args:
            noise: noise, (n, *noise_shape).
            label: condition of all signals.
            options: steps (`default_steps`), guidance (1) and solver (`default_solver`).
            generator: source of the noise of stochastic solvers, which are refused without one.
            callback: called after each step.

        Returns:
            Signals, (n, *event_shape).

        Raises:
            ConfigError: the solver is unknown or stochastic, or there are fewer levels than steps.
        """
        options.check_supported(self.sampling_options - {"temperature"}, "the decoding of noise by a diffusion prior")
        c, solver = self.config, options.solver or self.default_solver
        if solver not in SOLVERS:
            raise ConfigError(f"solver is {solver!r}; expected one of {', '.join(SOLVERS)}.")
        if solver in STOCHASTIC and generator is None:
            deterministic = ", ".join(name for name in SOLVERS if name not in STOCHASTIC)
            raise ConfigError(
                f"solver is {solver!r}, which adds noise of its own; expected {deterministic} to decode noise."
            )
        labels = [label] * len(noise)
        guidance = 1.0 if options.guidance is None else options.guidance
        sigmas = self.sampling_sigmas(options.steps or self.default_steps, solver)
        x = c.mean + self.initial_std * noise.to(next(self.parameters()).device)

        def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
            return self(x, sigma, labels, guidance)

        def report(step: int, x: Tensor) -> None:
            if callback:
                point = preserving(sigmas[step + 1] / c.sigma_data)
                callback(step, expand_like(point.alpha, x) * (x - c.mean) / c.sigma_data, point)

        return SOLVERS[solver](denoiser, x, sigmas, generator=generator, callback=report)

    @torch.no_grad()
    def encode_noise(self, x: Tensor, *, label: Label = None, steps: int = ENCODING_STEPS) -> Tensor:
        """Return the noise of signals, the inverse of `decode_noise` up to the error of the solver.

        Args:
            x: signals, (n, *event_shape).
            label: condition of all signals.
            steps: steps of the solver, of two network calls each.

        Returns:
            Noise, (n, *noise_shape).
        """
        labels, c = [label] * len(x), self.config
        x = ode(lambda x, sigma: self.slope(x, sigma, labels), x, self.increasing_sigmas(steps))
        return (x - c.mean) / self.initial_std

    def slope(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return dx/dsigma of the probability flow, with the shape of x."""
        return convert(self(x, sigma, labels), x, exploding(sigma), "x0", "velocity")

    def increasing_sigmas(self, steps: int) -> Tensor:
        """Return levels from the lowest to the highest for steps of a solver towards noise, (steps + 1,)."""
        return karras_sigmas(steps + 1, *self.sigma_range)[:-1].flip(0)


class Diffusion(DiffusionProcess):
    """A preconditioned denoiser ``D(x, sigma)`` of signals of one shape.

    Args:
        config: settings.

    Reference:
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364.
    """

    config: DiffusionConfig
    sigma_data: Tensor
    estimate_kind = "estimate along the probability flow, 1 probe"

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__(config)
        shape = config.shape
        sigma_data = torch.full((1,) * len(shape), config.sigma_data, dtype=torch.float32)
        if config.profile:
            logs = torch.tensor(config.profile, dtype=torch.float32).log()[None, None]
            factors = F.interpolate(logs, shape[1], mode="linear", align_corners=True).exp()
            sigma_data = sigma_data * factors.reshape(-1, *[1] * (len(shape) - 2))
        self.register_buffer("sigma_data", sigma_data, persistent=False)  # broadcasts against (batch, *shape)

    def forward(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None, guidance: float = 1.0) -> Tensor:
        """Return E[clean | x]; see `GuidedPrior.forward`."""
        mean = self.config.mean
        c = precondition(expand_like(sigma, x), self.sigma_data.to(x))
        centred = x - mean
        output = self.predict(c.c_in * centred, c.c_noise.flatten().expand(len(x)), labels, guidance)
        return mean + c.c_skip * centred + c.c_out * output

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Lowest and highest noise level in signal units."""
        return self.config.sigma_min, self.config.sigma_max

    @property
    def initial_std(self) -> float:
        """Highest noise level, at which the signals are negligible."""
        return self.config.sigma_max

    def sampling_sigmas(self, steps: int, solver: str) -> Tensor:
        """Return noise levels that are denser at low noise; see `DiffusionProcess.sampling_sigmas`."""
        return karras_sigmas(steps, *self.sigma_range)

    def estimate_log_prob(
        self,
        x: Tensor,
        labels: Sequence[Label] | None = None,
        *,
        steps: int = LOG_PROB_STEPS,
        probes: int | None = 1,
        generator: Generator | None = None,
    ) -> Tensor:
        """Estimate the log-density of signals with noise of ``sigma_min``.

        Args:
            x: signals, (batch, *event_shape).
            labels: condition of each signal; None is unconditional.
            steps: steps of the solver.
            probes: random probes of the divergence; None computes it exactly.
            generator: source of the probes.

        Returns:
            Log-densities in nats, (batch,).
        """
        c = self.config
        noise, delta_log_prob = ode_log_prob(
            lambda x, sigma: self.slope(x, sigma, labels),
            x,
            self.increasing_sigmas(steps),
            probes=probes,
            generator=generator,
        )
        # at sigma_max the signals are negligible: normal, with their variance and that of the noise
        scale = (c.sigma_max**2 + self.sigma_data.to(x).square()).sqrt().expand(x.shape[1:])
        return standard_normal_log_prob((noise - c.mean) / scale) + delta_log_prob - scale.log().sum()
