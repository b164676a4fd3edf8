"""Flow matching: a velocity field that transports noise to signals along nearly straight lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from denoise.config import config
from denoise.priors.guided import GuidedConfig, GuidedPrior, PathCallback
from denoise.probability_path import convert, expand_like, linear
from denoise.protocols import DEFAULT_OPTIONS, Label, SamplingOptions
from denoise.sampling.solvers import ode, ode_log_prob, standard_normal_log_prob

STEPS, ENCODING_STEPS, LOG_PROB_STEPS = 12, 24, 40


@config
class FlowMatchingConfig(GuidedConfig):
    """Settings of a flow-matching prior; see `GuidedConfig` for the others.

    Args:
        coupling: how the noise of a training batch is paired with its signals: ``"independent"``, or
            ``"optimal-transport"`` for the shortest lines in total.
    """

    coupling: Literal["independent", "optimal-transport"] = "independent"


class FlowMatching(GuidedPrior):
    """A velocity field on the straight path from signals (t = 0) to standard normal noise (t = 1).

    Args:
        config: settings.

    Reference:
        Flow Matching for Generative Modeling, 2022, arXiv:2210.02747; Improving and Generalizing Flow-Based
        Generative Models with Minibatch Optimal Transport, 2023, arXiv:2302.00482.
    """

    config: FlowMatchingConfig
    default_steps = STEPS
    estimate_kind = "estimate along the probability flow, 1 probe"

    @property
    def sigma_range(self) -> tuple[float, float]:
        """All noise levels: times from 0 to 1 are levels from 0 to infinity."""
        return 0.0, math.inf

    def velocity(self, z: Tensor, t: Tensor, labels: Sequence[Label] | None = None, guidance: float = 1.0) -> Tensor:
        """Return dz/dt.

        Args:
            z: standardised signals, in units of ``sigma_data`` around ``mean``, (batch, *event_shape).
            t: time, (batch,), 0 to 1.
            labels: condition of each signal; None is unconditional.
            guidance: scale of classifier-free guidance.

        Returns:
            Velocity, (batch, *event_shape).
        """
        return self.predict(z, t, labels, guidance)

    def forward(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None, guidance: float = 1.0) -> Tensor:
        """Return E[clean | x], which the velocity determines; see `GuidedPrior.forward`."""
        c = self.config
        ratio = sigma / c.sigma_data  # on the straight path sigma / alpha is t / (1 - t)
        t = ratio / (1 + ratio)
        z = (x - c.mean) / c.sigma_data * expand_like(1 - t, x)
        x0 = convert(self.velocity(z, t, labels, guidance), z, linear(t), "velocity", "x0")
        return c.mean + c.sigma_data * x0

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
        """Return the signals of standard normal noise, with two network calls for each step.

        Args:
            noise: noise, (n, *noise_shape).
            label: condition of all signals.
            options: steps (`default_steps`) and guidance (1).
            generator: unused, since the solver is deterministic.
            callback: called after each step.

        Returns:
            Signals, (n, *event_shape).

        Raises:
            ConfigError: another option is set.
        """
        options.check_supported(
            self.sampling_options - {"temperature"}, "the decoding of noise by a flow-matching prior"
        )
        labels = [label] * len(noise)
        guidance = 1.0 if options.guidance is None else options.guidance
        times = torch.linspace(1, 0, (options.steps or self.default_steps) + 1, dtype=torch.float32)
        z = noise.to(next(self.parameters()).device)

        def report(step: int, z: Tensor) -> None:
            if callback:
                callback(step, z, linear(times[step + 1]))

        z = ode(lambda z, t: self.velocity(z, t, labels, guidance), z, times, callback=report)
        return self.config.mean + self.config.sigma_data * z

    @torch.no_grad()
    def encode_noise(self, x: Tensor, *, label: Label = None, steps: int = ENCODING_STEPS) -> Tensor:
        """Return the noise of signals, the inverse of `decode_noise` up to the error of the solver.

        Args:
            x: signals, (n, *event_shape).
            label: condition of all signals.
            steps: steps of the solver.

        Returns:
            Noise, (n, *noise_shape).
        """
        labels = [label] * len(x)
        z = (x - self.config.mean) / self.config.sigma_data
        return ode(lambda z, t: self.velocity(z, t, labels), z, torch.linspace(0, 1, steps + 1, dtype=torch.float32))

    def estimate_log_prob(
        self,
        x: Tensor,
        labels: Sequence[Label] | None = None,
        *,
        steps: int = LOG_PROB_STEPS,
        probes: int | None = 1,
        generator: Generator | None = None,
    ) -> Tensor:
        """Estimate the log-density of signals.

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
        z = (x - c.mean) / c.sigma_data
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float32)
        noise, delta_log_prob = ode_log_prob(
            lambda z, t: self.velocity(z, t, labels), z, times, probes=probes, generator=generator
        )
        return standard_normal_log_prob(noise) + delta_log_prob - z[0].numel() * math.log(c.sigma_data)
