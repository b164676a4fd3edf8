"""A prior by flow matching: one velocity that carries noise to signals along lines that are nearly straight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.embeddings import Condition, Label
from denoise.nn.unet import BackboneConfig, backbone
from denoise.priors.solvers import Callback, ode, ode_log_prob, standard_normal
from denoise.probability_path import convert, exploding, like, linear


@config
class MatchingConfig:
    """Events of ``shape`` with about the mean ``mean`` and standard deviation ``sigma_data``, in signal units.

    With ``coupling`` "optimal-transport" the noise of a training batch is dealt to its signals so that lines
    cross as little as possible; "independent" deals it blindly.
    """

    shape: tuple[int, ...]
    net: BackboneConfig = field(default_factory=BackboneConfig)
    mean: float = 0.0
    sigma_data: float = 1.0
    coupling: Literal["independent", "optimal-transport"] = "independent"
    classes: int = 0
    text: bool = False

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1 or max(self.shape) > 1 << 24:
            raise ConfigError(f"shape is {self.shape}; expected sizes of at least 1.")
        if not (self.sigma_data > 0 and self.classes >= 0):
            raise ConfigError("sigma_data must be above 0, classes at least 0.")


class Matching(nn.Module):
    """A velocity field on the straight path from signals (t = 0) to standard normal noise (t = 1).

    Shape:
        x, returns: (batch, *shape); t: (batch,), 0 to 1.
    Reference:
        Flow Matching for Generative Modeling, 2022, arXiv:2210.02747; Improving and Generalizing Flow-Based
        Generative Models with Minibatch Optimal Transport, 2023, arXiv:2302.00482.
    """

    def __init__(self, config: MatchingConfig) -> None:
        super().__init__()
        self.config = c = config
        self.event_shape = torch.Size(c.shape)
        self.classes, self.text = c.classes, c.text
        self.net = backbone(c.net, c.shape)
        self.condition = Condition(c.net.embedding, c.classes, c.text)

    def velocity(self, z: Tensor, t: Tensor, labels: Sequence[Label] | None = None, guidance: float = 1.0) -> Tensor:
        """dz/dt of signals in units of ``sigma_data`` around ``mean``. Shape: as z."""

        def asked(wanted: Sequence[Label]) -> Tensor:
            return self.net(z, t, self.condition(wanted)).to(z.dtype)

        nothing = [None] * len(z)
        if labels is None or guidance == 0:
            return asked(nothing)
        return asked(labels) if guidance == 1 else torch.lerp(asked(nothing), asked(labels), guidance)

    def forward(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None, guidance: float = 1.0) -> Tensor:
        """The denoiser ``D(x, sigma)`` that a velocity is, too: x has noise of sigma (batch,) in signal units."""
        c = self.config
        ratio = sigma / c.sigma_data  # on the straight path sigma / alpha is t / (1 - t)
        t = ratio / (1 + ratio)
        z = (x - c.mean) / c.sigma_data * like(1 - t, x)
        x0 = convert(self.velocity(z, t, labels, guidance), z, linear(t), "velocity", "x0")
        return c.mean + c.sigma_data * x0

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
        steps: int = 12,
        temperature: float = 1.0,
        generator: Generator | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Draw signals; ``temperature`` scales the noise that they begin as. Shape: (n, *shape)."""
        start = torch.randn(n, *self.event_shape, generator=generator)
        return self.decode_noise(temperature * start, label=label, guidance=guidance, steps=steps, callback=callback)

    @torch.no_grad()
    def decode_noise(
        self,
        noise: Tensor,
        *,
        label: Label = None,
        guidance: float = 1.0,
        steps: int = 12,
        callback: Callback | None = None,
    ) -> Tensor:
        """The signals that standard normal noise flows to, two calls a step. Shape: (n, *shape), kept."""
        labels = [label] * len(noise)
        times = torch.linspace(1, 0, steps + 1)
        z = noise.to(next(self.parameters()).device)
        z = ode(lambda z, t: self.velocity(z, t, labels, guidance), z, times, callback=callback)
        return self.config.mean + self.config.sigma_data * z

    @torch.no_grad()
    def encode_noise(self, x: Tensor, *, label: Label = None, steps: int = 24) -> Tensor:
        """The inverse of `decode_noise`, as far as the steps are fine. Shape: (n, *shape), kept."""
        labels = [label] * len(x)
        z = (x - self.config.mean) / self.config.sigma_data
        return ode(lambda z, t: self.velocity(z, t, labels), z, torch.linspace(0, 1, steps + 1))

    def log_prob(
        self,
        x: Tensor,
        labels: Sequence[Label] | None = None,
        *,
        steps: int = 40,
        probes: int | None = 1,
        generator: Generator | None = None,
    ) -> Tensor:
        """The log-density in nats, as exact as steps and probes are many. Shape: x (batch, *shape), to (batch,)."""
        c = self.config
        z = (x - c.mean) / c.sigma_data
        times = torch.linspace(0, 1, steps + 1)
        noise, gained = ode_log_prob(
            lambda z, t: self.velocity(z, t, labels), z, times, probes=probes, generator=generator
        )
        return standard_normal(noise) + gained - z[0].numel() * math.log(c.sigma_data)
