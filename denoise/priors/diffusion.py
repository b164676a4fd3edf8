"""A prior by denoising: one network that denoises at every level, and the samplers over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field

import torch
from torch import Generator, Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.embeddings import Condition, Label
from denoise.nn.unet import BackboneConfig, backbone
from denoise.priors.solvers import SOLVERS, Callback, ode, ode_log_prob, standard_normal
from denoise.probability_path import convert, exploding, karras_sigmas, like, precondition


@config
class DiffusionConfig:
    """Events of ``shape`` with about the mean ``mean`` and standard deviation ``sigma_data``, in signal units.

    ``classes`` and ``text`` say what it can be asked for. Training draws the logarithm of sigma from a normal
    distribution of ``log_sigma`` (mean, deviation); sampling goes from ``sigma_max`` to ``sigma_min``.
    """

    shape: tuple[int, ...]
    net: BackboneConfig = field(default_factory=BackboneConfig)
    mean: float = 0.0
    sigma_data: float = 1.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    log_sigma: tuple[float, float] = (-1.2, 1.2)
    classes: int = 0
    text: bool = False

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1 or max(self.shape) > 1 << 24:
            raise ConfigError(f"shape is {self.shape}; expected sizes of at least 1.")
        if not (self.sigma_data > 0 and 0 < self.sigma_min < self.sigma_max and self.classes >= 0):
            raise ConfigError("sigma_data, sigma_min < sigma_max must be above 0, classes at least 0.")


class Diffusion(nn.Module):
    """A denoiser ``D(x, sigma)`` of signals of one shape, which by being one at all levels is a prior.

    Shape:
        x: (batch, *shape), with noise of sigma (batch,) in signal units; returns the same.
    Reference:
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364;
        Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598.
    """

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = c = config
        self.event_shape = torch.Size(c.shape)
        self.classes, self.text = c.classes, c.text
        self.net = backbone(c.net, c.shape)
        self.condition = Condition(c.net.embedding, c.classes, c.text)

    def forward(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None, guidance: float = 1.0) -> Tensor:
        """The mean of all clean signals that ``x`` may come from; beyond 1, ``guidance`` exaggerates the label."""
        c = self.config
        factors = precondition(sigma, c.sigma_data)
        skip, out, into = (like(factor, x) for factor in factors[:3])
        centred = x - c.mean

        def denoised(wanted: Sequence[Label]) -> Tensor:
            seen = self.net(into * centred, factors.noise, self.condition(wanted))
            return c.mean + skip * centred + out * seen.to(x.dtype)

        nothing = [None] * len(x)
        if labels is None or guidance == 0:
            return denoised(nothing)
        asked = denoised(labels)
        return asked if guidance == 1 else torch.lerp(denoised(nothing), asked, guidance)

    def score(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """The gradient of the log-density of noisy signals. Shape: as x."""
        return convert(self(x, sigma, labels), x, exploding(sigma), "x0", "score")

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        guidance: float = 1.0,
        steps: int = 18,
        solver: str = "heun",
        temperature: float = 1.0,
        generator: Generator | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Draw signals; ``temperature`` scales the noise that they begin as. Shape: (n, *shape)."""
        start = torch.randn(n, *self.event_shape, generator=generator)
        return self.decode_noise(
            temperature * start,
            label=label,
            guidance=guidance,
            steps=steps,
            solver=solver,
            generator=generator,
            callback=callback,
        )

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
        scale = (c.sigma_max**2 + c.sigma_data**2) ** 0.5
        return standard_normal((noise - c.mean) / scale) + gained - x[0].numel() * math.log(scale)

    def slope(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """dx/dsigma on the way to noise. Shape: as x."""
        return convert(self(x, sigma, labels), x, exploding(sigma), "x0", "velocity")

    def _rising(self, steps: int) -> Tensor:
        return karras_sigmas(steps, self.config.sigma_min, self.config.sigma_max)[:-1].flip(0)
