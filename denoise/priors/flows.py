"""Normalizing flows and simple distributions, all of them from zuko."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.embeddings import Condition, embed_labels
from denoise.priors.noise import NoiseDecoding, draw_noise
from denoise.probability_path import standard_normal, standard_uniform
from denoise.protocols import DEFAULT_OPTIONS, Label, SamplingOptions, Support

MAX_WEIGHTS = 1 << 27
BINS = 8
Kind = Literal[
    "normal", "mixture", "realnvp", "additive", "maf", "nsf", "nsf-coupling", "quadratic", "quadratic-coupling",
    "cubic", "cubic-coupling", "mixture-logistic-coupling", "sospf", "naf", "unaf", "cnf", "residual", "rad",
]  # fmt: skip


@config
class FlowConfig:
    """Settings of a distribution over events, which are flattened to vectors.

    Args:
        shape: shape of one event.
        kind: family of the distribution; ``"additive"`` is NICE, whose couplings preserve volumes; ``"nsf"`` has
            rational-quadratic splines; splines are autoregressive or couplings; ``"rad"`` is piecewise invertible.
        transforms: number of transforms of a flow.
        hidden: hidden units of each network.
        components: number of components of a mixture.
        mean: approximate mean of the events.
        scale: approximate standard deviation of the events.
        classes: number of classes for conditioning.
        embedding: features of the embedding of a class.
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
                f"a flow of shape {self.shape} with hidden {self.hidden} would be too large; use smaller ones."
            )
        if not self.scale > 0 or self.classes < 0:
            raise ConfigError("scale must be above 0, classes at least 0.")
        if self.kind == "normal" and self.classes:
            raise ConfigError("a normal distribution has no classes; use a mixture or a flow.")
        if self.kind == "residual":
            self._check_residual()

    def _check_residual(self) -> None:
        from denoise.nn.residual_flow import EXACT_ENTRIES

        if self.classes or math.prod(self.shape) > EXACT_ENTRIES:
            raise ConfigError(
                f"a residual flow of vectors takes no classes and at most {EXACT_ENTRIES} entries; use the "
                "architecture 'multiscale-flow' for larger signals."
            )
        if len({*self.hidden}) != 1:
            raise ConfigError(f"hidden is {self.hidden}; expected equal widths: a residual layer has one.")


class ZukoPrior(nn.Module):
    """A distribution of zuko over events of one shape, with exact log-likelihoods.

    Args:
        config: settings.
    """

    text = False
    sampling_options = frozenset({"temperature"})

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.event_shape = torch.Size(config.shape)
        self.classes = config.classes
        self.support = Support(config.shape)
        self.condition = Condition(config.embedding, config.classes) if config.classes else None
        with torch.device("cpu"):  # zuko computes its masks in the constructor, which needs memory; hence MAX_WEIGHTS
            self.flow = _build(config, math.prod(config.shape), config.embedding if config.classes else 0)

    def standardise(self, x: Tensor) -> Tensor:
        """Return flat events by the mean and the scale of the configuration."""
        return (x.flatten(1) - self.config.mean) / self.config.scale

    def distribution(self, labels: Sequence[Label]) -> Any:
        """Return zuko's distribution of flat, standardised events, one for each label."""
        return self.flow(embed_labels(self.condition, labels))

    def log_prob(self, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the log-density, exact; of a ``cnf`` up to the error of its ODE solver.

        Args:
            x: events, (batch, *event_shape).
            labels: condition of each event; None is unconditional.

        Returns:
            Log-densities in nats, (batch,).
        """
        flat = self.standardise(x)
        log_density = self.distribution(labels or [None] * len(x)).log_prob(flat)
        return log_density - flat.shape[1] * math.log(self.config.scale)


class Flow(NoiseDecoding, ZukoPrior):
    """A normalizing flow, or a normal distribution: an invertible map of standard normal noise.

    Args:
        config: settings, of any kind but ``"mixture"`` and ``"rad"``.

    Reference:
        Density estimation using Real NVP, 2016, arXiv:1605.08803; NICE, 2014, arXiv:1410.8516; Masked
        Autoregressive Flow, 2017, arXiv:1705.07057; Neural Spline Flows, 2019, arXiv:1906.04032;
        Sum-of-Squares Polynomial Flow, 2019, arXiv:1905.02325; Neural Autoregressive Flows, 2018,
        arXiv:1804.00779; Unconstrained Monotonic Neural Networks, 2019, arXiv:1908.05164; FFJORD, 2018,
        arXiv:1810.01367; Neural Importance Sampling, 2018, arXiv:1808.03856; Cubic-Spline Flows, 2019,
        arXiv:1906.02145; Flow++, 2019, arXiv:1902.00275; Invertible Residual Networks, 2018, arXiv:1811.00995.
    """

    family = "a flow"

    def __init__(self, config: FlowConfig) -> None:
        if config.kind in ("mixture", "rad"):
            raise ConfigError(f"{config.kind!r} is not invertible; build it with `build_flow`.")
        super().__init__(config)
        self.noise_shape = self.event_shape

    def from_noise(self, noise: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the events of noise; see `NoiseDecoding.from_noise`."""
        flat, distribution = noise.flatten(1), self.distribution(labels)
        if self.config.kind != "normal":
            flat = distribution.transform.inv(flat)
        return self.config.mean + self.config.scale * flat.reshape(noise.shape)

    @torch.no_grad()
    def encode_noise(self, x: Tensor, *, label: Label = None) -> Tensor:
        """Return the noise of events, the inverse of `decode_noise`.

        Args:
            x: events, (n, *event_shape).
            label: condition of all events.

        Returns:
            Noise, (n, *noise_shape).
        """
        flat, distribution = self.standardise(x), self.distribution([label] * len(x))
        if self.config.kind != "normal":
            flat = distribution.transform(flat)
        return flat.reshape(x.shape)


class Mixture(ZukoPrior):
    """A mixture of normal distributions, which no noise maps to.

    Args:
        config: settings of kind ``"mixture"``.
    """

    def __init__(self, config: FlowConfig) -> None:
        if config.kind != "mixture":
            raise ConfigError(f"kind is {config.kind!r}; expected 'mixture'. Build it with `build_flow`.")
        super().__init__(config)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        """Sample events.

        Args:
            n: number of events.
            label: condition of all events.
            options: temperature, a factor of the deviation from the mean of the component.
            generator: source of the components and of the noise.

        Returns:
            Events, (n, *event_shape).
        """
        options.check_supported(self.sampling_options, "a mixture")
        temperature = 1.0 if options.temperature is None else options.temperature
        mixture = self.distribution([label] * n)
        weights = mixture.logits.expand(n, *mixture.logits.shape[-1:]).softmax(-1)
        components = torch.multinomial(weights, 1, generator=generator)[:, 0]
        rows = torch.arange(n)
        means = mixture.base.loc.expand(n, *mixture.base.loc.shape[-2:])[rows, components]
        factors = mixture.base.scale_tril.expand(n, *mixture.base.scale_tril.shape[-3:])[rows, components]
        noise = standard_normal(means.shape, generator).to(means)
        flat = means + temperature * torch.einsum("nij,nj->ni", factors, noise)
        return self.config.mean + self.config.scale * flat.reshape(n, *self.event_shape)


class RAD(ZukoPrior):
    """A piecewise invertible flow: several signals have the same noise, and a gate chooses among them.

    Args:
        config: settings of kind ``"rad"``.

    Reference:
        A RAD approach to deep mixture models, 2019, arXiv:1903.07714.
    """

    def __init__(self, config: FlowConfig) -> None:
        if config.kind != "rad":
            raise ConfigError(f"kind is {config.kind!r}; expected 'rad'. Build it with `build_flow`.")
        super().__init__(config)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        """Sample events.

        Args:
            n: number of events.
            label: condition of all events.
            options: temperature.
            generator: source of the noise and of the pieces.

        Returns:
            Events, (n, *event_shape).
        """
        options.check_supported(self.sampling_options, "a piecewise flow")
        noise, _ = draw_noise(n, torch.Size([self.event_shape.numel()]), options, generator)
        noise = noise.to(next(self.parameters()))
        thresholds = standard_uniform(noise.shape, generator).to(noise)
        flat = self.distribution([label] * n).decode(noise, thresholds)
        return (self.config.mean + self.config.scale * flat).reshape(n, *self.event_shape)


def build_flow(config: FlowConfig) -> Flow | Mixture | RAD:
    """Build the distribution that a configuration describes."""
    if config.kind == "mixture":
        return Mixture(config)
    return RAD(config) if config.kind == "rad" else Flow(config)


def _build(c: FlowConfig, features: int, context: int) -> nn.Module:
    """Build zuko's module for flat events."""
    import zuko

    from denoise.nn.monotonic import UNIVARIATES
    from denoise.nn.residual_flow import InvertibleResidual
    from denoise.priors.rad import PiecewiseFlow

    def spline(name: str, passes: int | None) -> nn.Module:
        univariate, shapes = UNIVARIATES[name]
        settings = {"univariate": univariate, "shapes": shapes(BINS), "passes": passes}
        return flows.MAF(features, context, **settings, **transforms, **network)

    def residual() -> nn.Module:
        width = c.hidden[0]
        layers = [InvertibleResidual(0, features, (), width, "series") for _ in range(c.transforms)]
        base = zuko.distributions.DiagNormal
        return zuko.lazy.Flow(
            layers, zuko.lazy.UnconditionalDistribution(base, torch.zeros(features), torch.ones(features), buffer=True)
        )

    flows, network = zuko.flows, {"hidden_features": c.hidden}
    transforms = {"transforms": c.transforms}
    builders: dict[str, Callable[[], nn.Module]] = {
        "normal": lambda: zuko.flows.UnconditionalDistribution(
            zuko.distributions.DiagNormal, torch.zeros(features), torch.ones(features), buffer=True
        ),
        "mixture": lambda: flows.GMM(features, context, components=c.components, **(network if context else {})),
        "realnvp": lambda: flows.RealNVP(features, context, **transforms, **network),
        "additive": lambda: flows.NICE(
            features, context, univariate=zuko.transforms.AdditiveTransform, shapes=[()], **transforms, **network
        ),
        "maf": lambda: flows.MAF(features, context, **transforms, **network),
        "nsf": lambda: flows.NSF(features, context, **transforms, **network),
        "nsf-coupling": lambda: flows.NSF(features, context, passes=2, **transforms, **network),
        "quadratic": lambda: spline("quadratic", None),
        "quadratic-coupling": lambda: spline("quadratic", 2),
        "cubic": lambda: spline("cubic", None),
        "cubic-coupling": lambda: spline("cubic", 2),
        "mixture-logistic-coupling": lambda: spline("mixture-logistic", 2),
        "residual": residual,
        "rad": lambda: PiecewiseFlow(features, context, c.transforms, c.hidden),
        "sospf": lambda: flows.SOSPF(features, context, **transforms, **network),
        "naf": lambda: flows.NAF(features, context, **transforms, **network),
        "unaf": lambda: flows.UNAF(features, context, network=network, **transforms, **network),
        "cnf": lambda: flows.CNF(features, context, **network),
    }
    if features < 2 and (c.kind in ("realnvp", "additive", "rad") or c.kind.endswith("-coupling")):
        raise ConfigError(f"shape is {c.shape}; {c.kind} couples entries with others, so that it needs at least two.")
    return builders[c.kind]()
