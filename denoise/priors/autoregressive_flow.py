"""Autoregressive flows of discrete signals: every entry goes through its conditional distribution function."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from denoise.config import config
from denoise.errors import ConfigError
from denoise.priors.autoregressive import Autoregressive
from denoise.priors.noise import NoiseDecoding
from denoise.protocols import Label, Support

MIN_PROBABILITY = 1e-6  # of a level: a narrower interval of the noise would be lost in float32
MAX_QUANTILE = 1 - 1e-12  # whose noise is finite


@config
class AutoregressiveFlowConfig:
    """Settings of an autoregressive flow.

    Args:
        network: ``architecture`` of the network that computes the conditional distributions, and its settings.
    """

    network: dict[str, Any]


class AutoregressiveFlow(NoiseDecoding):
    """The flow whose Jacobian is triangular: z_i = G^-1(F(v_i | v_1, ..., v_(i-1))), G that of the standard normal.

    The levels 0, 1, ... of signals are made continuous by v = (level + u) / levels with u uniform on [0, 1). Each F is
    piecewise linear with a bin for each level, so that it is a spline whose slopes are the probabilities of a softmax.
    A network with masked convolutions or recurrent layers reads the levels before an entry and computes all slopes at
    once. As F is linear within a level, the dequantisation loses nothing: log-probabilities of the levels are exact,
    and those of the network up to `MIN_PROBABILITY`.

    Likelihoods take one call of the network. Both directions of the flow go through the entries in order and compute
    each the same numbers, so that one undoes the other.

    Args:
        config: settings.
        network: prior of images or audio with a softmax over levels from 0 to 1.

    Reference:
        Normalizing Flows for Probabilistic Modeling and Inference, 2019, arXiv:1912.02762, section 2.2 (this map);
        Neural Importance Sampling, 2018, arXiv:1808.03856, section 3.1 (piecewise linear distribution functions).
    """

    text = False
    family = "a flow"

    def __init__(self, config: AutoregressiveFlowConfig, network: Autoregressive) -> None:
        super().__init__()
        if not isinstance(network, Autoregressive) or network.config.likelihood != "categorical":
            raise ConfigError("the network of an autoregressive flow is no pixelcnn or pixelrnn with 256 levels.")
        self.config, self.network = config, network
        self.event_shape = self.noise_shape = network.event_shape
        self.classes, self.levels = network.classes, network.levels
        self.support = Support(network.config.shape, "discrete")

    def log_prob(self, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the log-probability of the levels that are nearest to signals, exact.

        Args:
            x: signals, 0 to 1, (batch, *event_shape).
            labels: condition of each signal.

        Returns:
            Log-probabilities in nats, (batch,); plus D log(levels), they are the log-density of v in D dimensions.
        """
        levels = self.network.to_levels(x)
        logits = self.network(self.network.to_inputs(levels), labels or [None] * len(x))
        log_p = self.network.log_probabilities(logits).gather(-1, levels[..., None])[..., 0]
        log_floor = torch.full_like(log_p, math.log(MIN_PROBABILITY))
        return torch.logaddexp(log_p + math.log1p(-self.levels * MIN_PROBABILITY), log_floor).flatten(1).sum(dim=1)

    def from_noise(self, noise: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the signals of noise; see `NoiseDecoding.from_noise`."""
        quantiles = torch.special.ndtr(noise.double()).clamp(1 - MAX_QUANTILE, MAX_QUANTILE)
        v, inputs = torch.zeros_like(quantiles), next(self.parameters()).new_zeros(noise.shape)
        for at, below, p in self._bins(inputs, labels):
            level = (below <= quantiles[at][:, None]).sum(dim=-1, keepdim=True) - 1
            u = (quantiles[at] - below.gather(-1, level)[:, 0]) / p.gather(-1, level)[:, 0]
            v[at] = (level[:, 0] + u.clamp(0, 1)) / self.levels
            inputs[at] = self.network.to_inputs(level[:, 0])
        return ((self.levels * v - 0.5) / (self.levels - 1)).to(noise)

    @torch.no_grad()
    def encode_noise(self, x: Tensor, *, label: Label = None) -> Tensor:
        """Return the noise of signals, the inverse of `decode_noise`; signals of exact levels have u = 0.5.

        Args:
            x: signals, 0 to 1, (n, *event_shape).
            label: condition of all signals.

        Returns:
            Noise, (n, *noise_shape).
        """
        position = ((self.levels - 1) * x.double() + 0.5).clamp(0, self.levels)  # level + u
        levels = position.long().clamp_max(self.levels - 1)
        u, inputs, quantiles = position - levels, self.network.to_inputs(levels), torch.zeros_like(position)
        for at, below, p in self._bins(inputs, [label] * len(x)):
            level = levels[at][:, None]
            quantiles[at] = below.gather(-1, level)[:, 0] + u[at] * p.gather(-1, level)[:, 0]
        return torch.special.ndtri(quantiles.clamp(1 - MAX_QUANTILE, MAX_QUANTILE)).to(x)

    def _bins(self, inputs: Tensor, labels: Sequence[Label]) -> Iterator[tuple[tuple[Any, ...], Tensor, Tensor]]:
        """Yield for each entry its index, and F at the lower end and the probability of each level, (batch, levels)."""
        for entry, logits in self.network.scan(inputs, labels):
            p = (1 - self.levels * MIN_PROBABILITY) * logits.double().softmax(dim=-1) + MIN_PROBABILITY
            yield (slice(None), *entry), p.cumsum(dim=-1) - p, p
