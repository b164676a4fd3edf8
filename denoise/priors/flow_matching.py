"""A prior by flow matching: one velocity that carries noise to signals along lines that are nearly straight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from denoise.config import config
from denoise.nn.embeddings import Label
from denoise.priors.guided import Guided, GuidedConfig
from denoise.probability_path import convert, like, linear
from denoise.sampling.solvers import Callback, ode, ode_log_prob, standard_normal


@config
class FlowMatchingConfig(GuidedConfig):
    """With ``coupling`` "optimal-transport" the noise of a training batch is dealt to its signals so that lines
    cross as little as possible; "independent" deals it blindly.
    """

    coupling: Literal["independent", "optimal-transport"] = "independent"


class FlowMatching(Guided):
    """A velocity field on the straight path from signals (t = 0) to standard normal noise (t = 1).

    Shape:
        x, returns: (batch, *shape); t: (batch,), 0 to 1.
    Reference:
        Flow Matching for Generative Modeling, 2022, arXiv:2210.02747; Improving and Generalizing Flow-Based
        Generative Models with Minibatch Optimal Transport, 2023, arXiv:2302.00482.
    """

    def __init__(self, config: FlowMatchingConfig) -> None:
        super().__init__(config)
        self.config = config

    def velocity(self, z: Tensor, t: Tensor, labels: Sequence[Label] | None = None, guidance: float = 1.0) -> Tensor:
        """dz/dt of signals in units of ``sigma_data`` around ``mean``. Shape: as z."""
        return self.predict(z, t, labels, guidance)

    def forward(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None, guidance: float = 1.0) -> Tensor:
        """The denoiser ``D(x, sigma)`` that a velocity is, too: x has noise of sigma (batch,) in signal units."""
        c = self.config
        ratio = sigma / c.sigma_data  # on the straight path sigma / alpha is t / (1 - t)
        t = ratio / (1 + ratio)
        z = (x - c.mean) / c.sigma_data * like(1 - t, x)
        x0 = convert(self.velocity(z, t, labels, guidance), z, linear(t), "velocity", "x0")
        return c.mean + c.sigma_data * x0

    @torch.no_grad()
    def decode_noise(
        self,
        noise: Tensor,
        *,
        label: Label = None,
        guidance: float = 1.0,
        steps: int = 12,
        generator: Generator | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """The signals that standard normal noise flows to, two calls a step; nothing more is drawn.

        Shape:
            noise, returns: (n, *shape).
        """
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
