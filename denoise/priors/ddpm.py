"""DDPM: diffusion in a fixed number of timesteps, by a network that predicts the noise, the signal or v."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from denoise.config import config
from denoise.errors import ConfigError
from denoise.priors.diffusion import DiffusionProcess
from denoise.priors.guided import GuidedConfig
from denoise.probability_path import (
    convert,
    cosine_betas,
    expand_like,
    karras_sigmas,
    linear_betas,
    noise_ratios,
    preserving,
)
from denoise.protocols import Label, Support
from denoise.sampling.solvers import LINEAR_IN_SIGMA
from denoise.sampling.variational_bound import variational_bound

BETAS = {"linear": linear_betas, "cosine": cosine_betas}
LEVELS = 256  # of the signals, for the variational bound


@config
class DDPMConfig(GuidedConfig):
    """Settings of a DDPM; see `GuidedConfig` for the others.

    Args:
        timesteps: number of timesteps.
        schedule: how much noise each timestep adds: ``"linear"``, or ``"cosine"``, which adds less at first.
        prediction: what the network predicts: the noise ``"eps"``, the signal ``"x0"``, or ``"v"``.
        interval: lowest and highest of the 256 levels of the signals, which their likelihood is of. Estimates from
            ``"eps"`` are clipped to it, see `DDPM.forward`.
    """

    timesteps: int = 1000
    schedule: Literal["linear", "cosine"] = "cosine"
    prediction: Literal["eps", "x0", "v"] = "v"
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.timesteps <= 100_000:
            raise ConfigError(f"timesteps is {self.timesteps}; expected 2 to 100000.")
        if not self.interval[0] < self.interval[1]:
            raise ConfigError(f"interval is {self.interval}; expected the lower end first.")


class DDPM(DiffusionProcess):
    """A denoiser trained at discrete timesteps on the variance-preserving path.

    The network sees signals of unit variance, ``z = alpha * x0 + sigma * eps``, with x0 in units of ``sigma_data``
    around ``mean``. Outside, the same path is ``x = signal + sigma * noise`` in signal units, as of every denoising
    prior: both differ by a factor. The solver ``"ancestral"`` with all timesteps is the sampler of the paper,
    ``"euler"`` with some of them is DDIM.

    Args:
        config: settings.

    Reference:
        Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239; Improved Denoising Diffusion Probabilistic
        Models, 2021, arXiv:2102.09672; Denoising Diffusion Implicit Models, 2020, arXiv:2010.02502; Progressive
        Distillation for Fast Sampling of Diffusion Models, 2022, arXiv:2202.00512 (v).
    """

    config: DDPMConfig
    default_solver = "euler"
    bound_kind, bound_samples, bound_batch = "variational bound", 100, 64
    ratios: Tensor

    def __init__(self, config: DDPMConfig) -> None:
        super().__init__(config)
        self.default_steps = min(50, config.timesteps)
        self.support = Support(config.shape, "discrete")
        ratios = noise_ratios(BETAS[config.schedule](config.timesteps))
        self.register_buffer("ratios", ratios.float(), persistent=False)  # sigma / alpha of timesteps 1, 2, ...

    @property
    def sigmas(self) -> Tensor:
        """Noise levels of the timesteps in signal units, (timesteps,), increasing."""
        return self.config.sigma_data * self.ratios

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Noise levels of the first and the last timestep in signal units."""
        return float(self.sigmas[0]), float(self.sigmas[-1])

    @property
    def initial_std(self) -> float:
        """Standard deviation of signals at the last timestep, that of signal and noise together."""
        return float((self.sigmas[-1].square() + self.config.sigma_data**2).sqrt())

    def sampling_sigmas(self, steps: int, solver: str) -> Tensor:
        """Return the noise levels of evenly spaced timesteps; see `DiffusionProcess.sampling_sigmas`.

        Solvers that need levels of moderate ratios take them in between.
        """
        if solver in LINEAR_IN_SIGMA:
            return karras_sigmas(steps, *self.sigma_range)
        timesteps = self.config.timesteps
        if steps > timesteps:
            raise ConfigError(f"steps is {steps}; expected at most {timesteps}, the timesteps of this DDPM.")
        indices = torch.linspace(timesteps - 1, 0, steps, dtype=torch.float32).round().long()
        return torch.cat([self.sigmas.cpu()[indices], torch.zeros(1, dtype=torch.float32)])

    def timestep(self, ratio: Tensor) -> Tensor:
        """Return the timesteps of noise levels; between them log-levels are interpolated.

        Args:
            ratio: noise levels relative to ``sigma_data``, (batch,).

        Returns:
            Timesteps, (batch,), 1 to the number of timesteps.
        """
        levels, level = self.ratios.log(), ratio.clamp_min(1e-20).log()
        above = torch.searchsorted(levels, level).clamp(1, len(levels) - 1)
        fraction = (level - levels[above - 1]) / (levels[above] - levels[above - 1])
        return above + fraction.clamp(0, 1)

    def forward(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None, guidance: float = 1.0) -> Tensor:
        """Return E[clean | x], which the prediction determines; see `GuidedPrior.forward`.

        An error of eps is multiplied by sigma / alpha, which is 157 at the end of the linear schedule and 20 000 at
        that of the cosine schedule. So signals that eps determines are clipped to ``interval``, as in both papers'
        samplers; the expectation of signals in an interval is never outside.
        """
        c = self.config
        ratio = (sigma / c.sigma_data).to(self.ratios)
        point = preserving(ratio)
        z = (x - c.mean) / c.sigma_data * expand_like(point.alpha, x)
        value = self.predict_at(z, self.timestep(ratio), labels, guidance)
        x0 = c.mean + c.sigma_data * convert(value, z, point, c.prediction, "x0")
        return x0.clamp(*c.interval) if c.prediction == "eps" else x0

    def predict_at(
        self, z: Tensor, timestep: Tensor, labels: Sequence[Label] | None = None, guidance: float = 1.0
    ) -> Tensor:
        """Return the prediction of the network, of the kind ``prediction``.

        Args:
            z: signals of unit variance with noise, (batch, *event_shape).
            timestep: (batch,), 1 to the number of timesteps.
            labels: condition of each signal; None is unconditional.
            guidance: scale of classifier-free guidance.

        Returns:
            Prediction, (batch, *event_shape).
        """
        return self.predict(z, timestep / self.config.timesteps, labels, guidance)

    @torch.no_grad()
    def log_prob_bound(
        self, x: Tensor, samples: int, *, label: Label = None, generator: Generator | None = None
    ) -> Tensor:
        """Return lower bounds of the log-probabilities of signals, which are rounded to their nearest levels.

        Args:
            x: signals, (batch, *event_shape).
            samples: timesteps that are evaluated for each signal, at random; all of them if there are no more.
            label: condition of all signals.
            generator: source of the noise and of the timesteps.

        Returns:
            Unbiased estimates of the variational bound in nats, (batch,).

        Raises:
            ConfigError: signals are more than half a step outside ``interval``.
        """
        c, labels = self.config, [label] * len(x)
        low, high = c.interval
        step = (high - low) / (LEVELS - 1)
        least, most = float(x.min()), float(x.max())
        if not low - step / 2 <= least <= most <= high + step / 2:
            raise ConfigError(
                f"signals are {least:.3g} to {most:.3g}; expected {low:g} to {high:g}, the interval of this DDPM."
            )
        return variational_bound(
            lambda x, sigma: self(x, sigma, labels),
            low + step * ((x.clamp(low, high) - low) / step).round(),
            self.sigmas,
            mean=c.mean,
            std=c.sigma_data,
            samples=samples,
            interval=c.interval,
            levels=LEVELS,
            generator=generator,
        )
