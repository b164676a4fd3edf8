"""Priors with a density: normalizing flows and simple distributions, all of them from zuko."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.embeddings import Condition, Label

MAX_WEIGHTS = 1 << 27
Kind = Literal["normal", "mixture", "realnvp", "nice", "maf", "nsf", "nsf-coupling", "sospf", "naf", "unaf", "cnf"]


@config
class FlowConfig:
    """Events of ``shape``, seen as flat vectors of about the mean ``mean`` and standard deviation ``scale``.

    ``transforms`` steps of networks with ``hidden`` units; ``components`` of a mixture. ``classes`` says what
    it can be asked for.
    """

    shape: tuple[int, ...]
    kind: Kind = "nsf"
    transforms: int = 3
    hidden: tuple[int, ...] = (128, 128)
    components: int = 10
    mean: float = 0.0
    scale: float = 1.0
    classes: int = 0
    embedding: int = 16

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1 or math.prod(self.shape) > 1 << 20:
            raise ConfigError(f"shape is {self.shape}; expected sizes of at least 1, a million entries at most.")
        if not all(1 <= n <= 1 << 14 for n in (self.transforms, self.components, self.embedding, *self.hidden)):
            raise ConfigError("transforms, components, embedding and hidden must be at least 1.")
        sizes = [math.prod(self.shape) + self.embedding, *self.hidden, 32 * math.prod(self.shape)]
        if self.transforms * sum(a * b for a, b in pairwise(sizes)) > MAX_WEIGHTS:
            raise ConfigError(
                f"a flow of {self.shape} with hidden {self.hidden} would be too large; take smaller ones."
            )
        if not self.scale > 0 or self.classes < 0:
            raise ConfigError("scale must be above 0, classes at least 0.")
        if self.kind == "normal" and self.classes:
            raise ConfigError("a normal distribution has no classes; take a mixture or a flow.")


class Flow(nn.Module):
    """A density over events of one shape, with draws and exact log-likelihoods.

    Shape:
        x: (batch, *shape).
    Reference:
        Density estimation using Real NVP, 2016, arXiv:1605.08803; NICE, 2014, arXiv:1410.8516; Masked
        Autoregressive Flow, 2017, arXiv:1705.07057; Neural Spline Flows, 2019, arXiv:1906.04032;
        Sum-of-Squares Polynomial Flow, 2019, arXiv:1905.02325; Neural Autoregressive Flows, 2018,
        arXiv:1804.00779; Unconstrained Monotonic Neural Networks, 2019, arXiv:1908.05164; FFJORD, 2018,
        arXiv:1810.01367.
    """

    text = False

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = c = config
        self.event_shape = torch.Size(c.shape)
        self.classes = c.classes
        self.condition = Condition(c.embedding, c.classes) if c.classes else None
        with torch.device("cpu"):  # zuko draws its masks as it is made, which needs memory; hence MAX_WEIGHTS
            self.flow = _made(c, math.prod(c.shape), c.embedding if c.classes else 0)

    def distribution(self, labels: Sequence[Label]) -> Any:
        """zuko's distribution of flat, standardised events, one for each label."""
        return self.flow(None if self.condition is None else self.condition(labels))

    def log_prob(self, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """The log-density in nats, exact; of a ``cnf`` as exact as its ODE is solved. Shape: returns (batch,)."""
        c = self.config
        flat = (x.flatten(1) - c.mean) / c.scale
        return self.distribution(labels or [None] * len(x)).log_prob(flat) - flat.shape[1] * math.log(c.scale)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draw events; ``temperature`` scales the noise that they are made of. Shape: (n, *shape)."""
        c = self.config
        if c.kind == "mixture":
            return self._of_a_mixture(n, label, temperature, generator)
        noise = torch.randn(n, *self.event_shape, generator=generator)
        return self.decode_noise(temperature * noise, label=label)

    @torch.no_grad()
    def decode_noise(self, noise: Tensor, *, label: Label = None) -> Tensor:
        """The events that standard normal noise flows to. Shape: (n, *shape), kept.

        Raises:
            ConfigError: a mixture makes its events of no such noise.
        """
        c = self.config
        if c.kind == "mixture":
            raise ConfigError("a mixture is no flow: its samples come of no noise that could be interpolated.")
        flat = noise.flatten(1).to(next(self.parameters(), noise).device)
        if c.kind != "normal":
            flat = self.distribution([label] * len(noise)).transform.inv(flat)
        return c.mean + c.scale * flat.reshape(noise.shape)

    @torch.no_grad()
    def encode_noise(self, x: Tensor, *, label: Label = None) -> Tensor:
        """The inverse of `decode_noise`. Shape: (n, *shape), kept."""
        flat = (x.flatten(1) - self.config.mean) / self.config.scale
        if self.config.kind != "normal":
            flat = self.distribution([label] * len(x)).transform(flat)
        return flat.reshape(x.shape)

    def _of_a_mixture(self, n: int, label: Label, temperature: float, generator: Generator | None) -> Tensor:
        mixture = self.distribution([label] * n)
        shape = (n, *mixture.logits.shape[-1:])
        which = torch.multinomial(mixture.logits.expand(shape).softmax(-1), 1, generator=generator)[:, 0]
        rows = torch.arange(n)
        means = mixture.base.loc.expand(n, *mixture.base.loc.shape[-2:])[rows, which]
        factors = mixture.base.scale_tril.expand(n, *mixture.base.scale_tril.shape[-3:])[rows, which]
        noise = torch.randn(means.shape, generator=generator).to(means)
        drawn = means + temperature * torch.einsum("nij,nj->ni", factors, noise)
        return self.config.mean + self.config.scale * drawn.reshape(n, *self.event_shape)


def _made(c: FlowConfig, features: int, context: int) -> nn.Module:
    import zuko

    flows, network = zuko.flows, {"hidden_features": c.hidden}
    steps = {"transforms": c.transforms}
    makers: dict[str, Callable[[], nn.Module]] = {
        "normal": lambda: zuko.flows.UnconditionalDistribution(
            zuko.distributions.DiagNormal, torch.zeros(features), torch.ones(features), buffer=True
        ),
        "mixture": lambda: flows.GMM(features, context, components=c.components, **(network if context else {})),
        "realnvp": lambda: flows.RealNVP(features, context, **steps, **network),
        "nice": lambda: flows.NICE(features, context, **steps, **network),
        "maf": lambda: flows.MAF(features, context, **steps, **network),
        "nsf": lambda: flows.NSF(features, context, **steps, **network),
        "nsf-coupling": lambda: flows.NSF(features, context, passes=2, **steps, **network),
        "sospf": lambda: flows.SOSPF(features, context, **steps, **network),
        "naf": lambda: flows.NAF(features, context, **steps, **network),
        "unaf": lambda: flows.UNAF(features, context, network=network, **steps, **network),
        "cnf": lambda: flows.CNF(features, context, **network),
    }
    if features < 2 and c.kind in ("realnvp", "nice", "nsf-coupling"):
        raise ConfigError(f"{c.kind} couples entries with others; the shape {c.shape} has one only.")
    return makers[c.kind]()
