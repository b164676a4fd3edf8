"""A prior by denoising: one network that denoises at every level, and the samplers over it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.embeddings import Label
from denoise.priors.guided import Guided, GuidedConfig
from denoise.probability_path import convert, exploding, karras_sigmas, like, precondition
from denoise.sampling.solvers import SOLVERS, Callback, ode, ode_log_prob, standard_normal


@config
class DiffusionConfig(GuidedConfig):
    """Training draws the logarithm of sigma from a normal distribution of ``log_sigma`` (mean, deviation).

    Sampling goes from ``sigma_max`` to ``sigma_min``. Where some entries are far larger than others, as the lows of
    sounds, ``profile`` says by how much: factors of ``sigma_data`` at equal distances along the first axis of space,
    between which the logarithm is interpolated linearly.
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


class Diffusion(Guided):
    """A denoiser ``D(x, sigma)`` of signals of one shape, which by being one at all levels is a prior.

    Shape:
        x: (batch, *shape), with noise of sigma (batch,) in signal units; returns the same.
    Reference:
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364.
    """

    sigma_data: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__(config)
        self.config = c = config
        spread = torch.full((1,) * len(c.shape), c.sigma_data, device="cpu")  # even while the weights are but shapes
        if c.profile:
            logs = torch.tensor(c.profile, device="cpu").log()[None, None]
            along = F.interpolate(logs, c.shape[1], mode="linear", align_corners=True).exp()
            spread = spread * along.reshape(-1, *[1] * (len(c.shape) - 2))
        self.register_buffer("sigma_data", spread, persistent=False)  # goes with (batch, *shape)

    def forward(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None, guidance: float = 1.0) -> Tensor:
        """The mean of all clean signals that ``x`` may come from; beyond 1, ``guidance`` exaggerates the label."""
        c = self.config
        skip, out, into, noise = precondition(like(sigma, x), self.sigma_data.to(x))
        centred = x - c.mean
        said = self.predict(into * centred, noise.flatten().expand(len(x)), labels, guidance)
        return c.mean + skip * centred + out * said

    @torch.no_grad()
    def decode_noise(
        self,
        noise: Tensor,
        *,
        label: Label = None,
        guidance: float = 1.0,
        steps: int = 18,
        solver: str = "heun",
        generator: Generator | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """The signals that standard normal noise flows to. Shape: (n, *shape), kept."""
        c = self.config
        if solver not in SOLVERS:
            raise ConfigError(f"solver is {solver!r}; expected one of {', '.join(SOLVERS)}.")
        labels = [label] * len(noise)
        sigmas = karras_sigmas(steps, c.sigma_min, c.sigma_max)
        x = c.mean + c.sigma_max * noise.to(next(self.parameters()).device)

        def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
            return self(x, sigma, labels, guidance)

        return SOLVERS[solver](denoiser, x, sigmas, generator=generator, callback=callback)

    @torch.no_grad()
    def encode_noise(self, x: Tensor, *, label: Label = None, steps: int = 36) -> Tensor:
        """The inverse of `decode_noise`, as far as the steps are fine. Shape: (n, *shape), kept."""
        labels, c = [label] * len(x), self.config
        x = ode(lambda x, sigma: self.slope(x, sigma, labels), x, self._rising(steps))
        return (x - c.mean) / c.sigma_max

    def log_prob(
        self,
        x: Tensor,
        labels: Sequence[Label] | None = None,
        *,
        steps: int = 60,
        probes: int | None = 1,
        generator: Generator | None = None,
    ) -> Tensor:
        """The log-density in nats of signals with noise of ``sigma_min``, as exact as steps and probes are many.

        Shape:
            x: (batch, *shape); returns (batch,).
        """
        c = self.config
        noise, gained = ode_log_prob(
            lambda x, sigma: self.slope(x, sigma, labels), x, self._rising(steps), probes=probes, generator=generator
        )
        # at the end, signals are as good as gone: what is left is normal, of their variance and the noise's
        scale = (c.sigma_max**2 + self.sigma_data.to(x).square()).sqrt().expand(x.shape[1:])
        return standard_normal((noise - c.mean) / scale) + gained - scale.log().sum()

    def slope(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """dx/dsigma on the way to noise. Shape: as x."""
        return convert(self(x, sigma, labels), x, exploding(sigma), "x0", "velocity")

    def _rising(self, steps: int) -> Tensor:
        return karras_sigmas(steps, self.config.sigma_min, self.config.sigma_max)[:-1].flip(0)
