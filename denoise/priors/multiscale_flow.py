"""Normalizing flows of images and sounds: RealNVP, Glow, Flow++, spline couplings, residual flows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from zuko.lazy import LazyComposedTransform, LazyTransform
from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.dequantisation import VariationalDequantiser, normal_log_prob
from denoise.nn.embeddings import Condition, embed_labels
from denoise.nn.invertible import ActNorm, Coupling, InvertibleConv, MaskKind, Multiscale, Shape, Squeeze
from denoise.nn.monotonic import UNIVARIATES
from denoise.nn.residual_flow import InvertibleResidual
from denoise.priors.noise import NoiseDecoding
from denoise.probability_path import standard_normal, standard_uniform
from denoise.protocols import Label, Support

LEVELS = 256  # of 8 bits, from 0 to 1
DEFAULT_MARGIN = 0.05
CouplingKind = Literal["affine", "mixture-logistic", "quadratic", "cubic", "rational-quadratic", "residual"]
Dequantisation = Literal["none", "uniform", "variational"]


@config
class MultiscaleFlowConfig:
    """Settings of a flow of images or sounds.

    RealNVP has ``kind = "affine"``, ``masks = "checkerboard"`` and no ``mixing``; Glow ``masks = "channels"``; Flow++
    ``kind = "mixture-logistic"``, ``masks = "checkerboard"`` and ``dequantisation = "variational"``.

    Args:
        shape: shape of one signal, (channels, height, width) or (channels, time); sizes are multiples of 2^levels.
        levels: number of levels; each halves the size, and half of its channels are noise already.
        steps: transforms of each level.
        kind: functions of the couplings, or ``"residual"`` for invertible residual layers.
        masks: whether the couplings before the squeeze of a level have checkerboard masks, or all come behind it.
        mixing: whether an invertible convolution mixes the channels before each coupling behind the squeeze.
        bins: bins of splines, or components of mixtures.
        min_slope: affine couplings scale entries by this to its inverse; the narrower, the more exact is the inverse.
        width: features of the networks.
        blocks: residual blocks of the networks.
        classes: number of classes for conditioning.
        embedding: features of the embedding of a class.
        dequantisation: noise that makes the 256 levels from 0 to 1 continuous, ``"uniform"`` or of a learned
            distribution; ``"none"`` for densities of continuous signals.
        dither: standard deviation of the noise that training adds to continuous signals; without it, those with
            stretches of exact zeros have densities without bound.
        margin: the signals, 0 to 1, are moved this far from both ends, and their logit is taken; 0 for no logit. None
            is 0.05 for discrete signals, 0 for continuous ones.
        mean: approximate mean of the signals, used without a logit.
        scale: approximate standard deviation of the signals, used without a logit.
        log_det: estimate of the determinant of residual layers in training.
    """

    shape: tuple[int, ...]
    levels: int = 2
    steps: int = 8
    kind: CouplingKind = "affine"
    masks: MaskKind = "channels"
    mixing: bool = True
    bins: int = 8
    min_slope: float = 1e-3
    width: int = 64
    blocks: int = 2
    classes: int = 0
    embedding: int = 32
    dequantisation: Dequantisation = "uniform"
    dither: float = 0.0
    margin: float | None = None
    mean: float = 0.0
    scale: float = 1.0
    log_det: Literal["series", "roulette"] = "roulette"

    def __post_init__(self) -> None:
        if len(self.shape) not in (2, 3) or min(self.shape) < 1 or math.prod(self.shape) > 1 << 20:
            raise ConfigError(f"shape is {self.shape}; expected (channels, height, width) or (channels, time).")
        if not 1 <= self.levels <= 10 or any(n % 2**self.levels for n in self.shape[1:]):
            raise ConfigError(
                f"levels is {self.levels}, shape {self.shape}; expected sizes that are multiples of 2^levels."
            )
        if not 1 <= self.steps <= 1000 or not 1 <= self.width <= 4096 or not 0 <= self.blocks <= 100:
            raise ConfigError("expected steps of 1 to 1000, width of 1 to 4096, blocks of 0 to 100.")
        if not 2 <= self.bins <= 256 or self.classes < 0 or not 1 <= self.embedding <= 4096:
            raise ConfigError("expected bins of 2 to 256, classes of at least 0, embedding of 1 to 4096.")
        if self.margin and not 1e-4 <= self.margin < 0.5:
            raise ConfigError(f"margin is {self.margin:g}; expected 0, or 0.0001 to below 0.5.")
        if not 0 < self.min_slope < 1:
            raise ConfigError(f"min_slope is {self.min_slope:g}; expected more than 0 and less than 1.")
        if not 0 <= self.dither < math.inf or (self.dither and self.dequantisation != "none"):
            raise ConfigError(f"dither is {self.dither:g}; expected at least 0, and 0 of signals that are dequantised.")
        if not 0 < self.scale < math.inf or not math.isfinite(self.mean):
            raise ConfigError(f"mean is {self.mean:g}, scale {self.scale:g}; expected finite numbers, scale above 0.")
        if self.classes and self.kind == "residual":
            raise ConfigError("residual layers take no condition; leave classes out.")

    @property
    def logit_margin(self) -> float:
        """The margin, by default that for the kind of the signals."""
        if self.margin is None:
            return 0.0 if self.dequantisation == "none" else DEFAULT_MARGIN
        return self.margin


class _Univariate(NamedTuple):
    build: Callable[..., Any]
    shapes: list[Shape]


def _univariate(c: MultiscaleFlowConfig) -> _Univariate:
    if c.kind == "affine":
        return _Univariate(partial(MonotonicAffineTransform, slope=c.min_slope), [(), ()])
    if c.kind == "rational-quadratic":
        return _Univariate(MonotonicRQSTransform, [(c.bins,), (c.bins,), (c.bins - 1,)])
    build, shapes = UNIVARIATES[c.kind]
    return _Univariate(build, shapes(c.bins))


def _build_level(c: MultiscaleFlowConfig, channels: int, space: tuple[int, ...]) -> LazyTransform:
    """Return the layers of a level for signals of (channels, *space), which it squeezes."""
    ndim, squeezed = len(space), channels * 2 ** len(space)
    layers: list[LazyTransform] = []
    if c.kind == "residual":
        layers.append(Squeeze(ndim))
        half = tuple(n // 2 for n in space)
        for _ in range(c.steps):
            layers += [ActNorm(ndim, squeezed), InvertibleResidual(ndim, squeezed, half, c.width, c.log_det)]
        return LazyComposedTransform(*layers)
    univariate, embedding = _univariate(c), c.embedding if c.classes else 0
    n_before = c.steps // 2 if c.masks == "checkerboard" else 0
    for i in range(c.steps):
        mask: MaskKind = "checkerboard" if i < n_before else "channels"
        n = channels if i < n_before else squeezed
        if i == n_before:
            layers.append(Squeeze(ndim))
        layers.append(ActNorm(ndim, n))
        if c.mixing and i >= n_before:
            layers.append(InvertibleConv(ndim, n))
        settings = {"width": c.width, "blocks": c.blocks, "embedding": embedding}
        layers.append(Coupling(ndim, n, mask, i % 2 == 1, univariate.build, univariate.shapes, **settings))
    return LazyComposedTransform(*layers)


def build_flow(c: MultiscaleFlowConfig) -> Multiscale:
    """Return the transform of signals to noise."""
    (channels, *space), levels, shapes = c.shape, [], []
    for _ in range(c.levels):
        levels.append(_build_level(c, channels, tuple(space)))
        channels, space = channels * 2 ** len(space), [n // 2 for n in space]
        shapes.append((channels, *space))
        channels //= 2
    return Multiscale(levels, shapes)


class MultiscaleFlow(NoiseDecoding):
    """A normalizing flow of images or sounds in several levels.

    Build it with `build_multiscale_flow`, which chooses the class by what likelihood it has.

    Args:
        config: settings.

    Reference:
        Density estimation using Real NVP, 2016, arXiv:1605.08803; Glow, 2018, arXiv:1807.03039; Flow++, 2019,
        arXiv:1902.00275; Neural Spline Flows, 2019, arXiv:1906.04032; Residual Flows, 2019, arXiv:1906.02735.
    """

    text = False
    family = "a flow"

    def __init__(self, config: MultiscaleFlowConfig) -> None:
        super().__init__()
        self.config = config
        self.event_shape, self.noise_shape = torch.Size(config.shape), torch.Size([math.prod(config.shape)])
        self.classes = config.classes
        is_discrete = config.dequantisation != "none"
        self.support = Support(config.shape, "discrete" if is_discrete else "continuous")
        self.condition = Condition(config.embedding, config.classes) if config.classes else None
        is_variational = config.dequantisation == "variational"
        width = max(8, config.width // 2)
        self.dequantiser = VariationalDequantiser(config.shape, width) if is_variational else None
        self.flow = build_flow(config)

    def from_noise(self, noise: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the signals of noise; see `NoiseDecoding.from_noise`."""
        return self._from_reals(self._transform(labels).inv(noise))

    @torch.no_grad()
    def encode_noise(self, x: Tensor, *, label: Label = None) -> Tensor:
        """Return the noise of signals, the inverse of `decode_noise`.

        Args:
            x: signals, (n, *event_shape).
            label: condition of all signals.

        Returns:
            Noise, (n, *noise_shape).
        """
        return self._transform([label] * len(x))(self._to_reals(self._middle(x))[0])

    def density(self, v: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the log-density of continuous signals, for residual layers an estimate.

        Args:
            v: signals, (batch, *event_shape); of discrete ones, level + noise in [0, 1), divided by 256.
            labels: condition of each signal.

        Returns:
            Log-densities in nats, (batch,).
        """
        y, ladj = self._to_reals(v)
        noise, flow_ladj = self._transform(labels or [None] * len(v)).call_and_ladj(y)
        return normal_log_prob(noise) + ladj + flow_ladj

    def draw_log_prob(
        self, x: Tensor, labels: Sequence[Label] | None = None, *, generator: Generator | None = None
    ) -> Tensor:
        """Return what training maximises: the log-density, or that of one draw of dither or dequantisation noise.

        Args:
            x: signals, (batch, *event_shape).
            labels: condition of each signal.
            generator: source of the noise.

        Returns:
            Nats, (batch,); of discrete signals, their mean over draws is a lower bound of the log-probability.
        """
        if self.config.dequantisation == "none":
            return self.density(x + self.config.dither * standard_normal(x.shape, generator).to(x), labels)
        levels = (x * (LEVELS - 1)).round()
        if self.dequantiser is None:
            u, log_q = standard_uniform(x.shape, generator).to(x), 0.0
        else:
            noise = standard_normal(x.shape, generator).to(x)
            u, log_q = self.dequantiser(levels / (LEVELS - 1), noise)
        return self.density((levels + u) / LEVELS, labels) - x[0].numel() * math.log(LEVELS) - log_q

    def _transform(self, labels: Sequence[Label]) -> Any:
        return self.flow(embed_labels(self.condition, labels))

    def _middle(self, x: Tensor) -> Tensor:
        """Return signals with the mean of uniform dequantisation noise, levels without rounding."""
        return x if self.config.dequantisation == "none" else ((LEVELS - 1) * x + 0.5) / LEVELS

    def _to_reals(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the flow takes, and the logarithm of the determinant."""
        c = self.config
        margin = c.logit_margin
        if not margin:
            return (v - c.mean) / c.scale, v.new_full((len(v),), -v[0].numel() * math.log(c.scale))
        inside = margin + (1 - 2 * margin) * v
        y = torch.logit(inside, eps=1e-6)
        log_slope = math.log(1 - 2 * margin) - F.logsigmoid(y) - F.logsigmoid(-y)
        return y, log_slope.flatten(1).sum(dim=1)

    def _from_reals(self, y: Tensor) -> Tensor:
        """Return the signals of `_to_reals` without dequantisation noise."""
        c, margin = self.config, self.config.logit_margin
        v = (torch.sigmoid(y) - margin) / (1 - 2 * margin) if margin else c.mean + c.scale * y
        return v if c.dequantisation == "none" else (LEVELS * v - 0.5) / (LEVELS - 1)


class ExactMultiscaleFlow(MultiscaleFlow):
    """A flow of continuous signals, of which the density is exact."""

    def log_prob(self, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return log-densities in nats, (batch, *event_shape) to (batch,)."""
        return self.density(x, labels)


class EstimatedMultiscaleFlow(MultiscaleFlow):
    """A flow of residual layers, of which the density of continuous signals is estimated."""

    estimate_kind = "estimate of the log-determinants, 1 probe"

    def estimate_log_prob(
        self, x: Tensor, labels: Sequence[Label] | None = None, *, generator: Generator | None = None
    ) -> Tensor:
        """Return estimates of log-densities in nats, (batch, *event_shape) to (batch,)."""
        with seeded_probes(generator):
            return self.density(x, labels)


class DiscreteMultiscaleFlow(MultiscaleFlow):
    """A flow of signals of 256 levels, of which the log-probability has a lower bound, by dequantisation."""

    bound_samples, bound_batch = 16, 64

    @property
    def bound_kind(self) -> str:
        """Name of the bound."""
        kind = "estimated bound" if self.config.kind == "residual" else "importance-weighted bound"
        return f"{kind}, {self.config.dequantisation} dequantisation"

    @torch.no_grad()
    def log_prob_bound(
        self, x: Tensor, samples: int, *, label: Label = None, generator: Generator | None = None
    ) -> Tensor:
        """Return the logarithm of the mean of importance weights of the dequantisation noise.

        Of residual layers it is the mean of the logarithms: an exponential of their noisy estimates would be too large.

        Args:
            x: signals, 0 to 1, (batch, *event_shape).
            samples: draws of the noise for each signal.
            label: condition of all signals.
            generator: source of the noise.

        Returns:
            Nats, (batch,).
        """
        with seeded_probes(generator):
            draws = [self.draw_log_prob(x, [label] * len(x), generator=generator) for _ in range(samples)]
        if self.config.kind == "residual":
            return torch.stack(draws).mean(dim=0)
        return torch.stack(draws).logsumexp(dim=0) - math.log(samples)


class HasLatents(MultiscaleFlow):
    """A `LatentEncoder`: the latents of a signal are its noise, where the density has no steep walls."""

    residual_std = 1 / (LEVELS * math.sqrt(12))  # of the rounding to levels; a signal is exactly that of its noise

    @property
    def latent_shape(self) -> torch.Size:
        """Shape of the noise of one signal."""
        return self.noise_shape

    def sample_latents(self, n: int, generator: Generator | None = None) -> Tensor:
        """Sample noise, (n, *noise_shape)."""
        return standard_normal((n, *self.noise_shape), generator).to(self.device)

    def latent_log_prob(self, z: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return standard normal log-densities of noise in nats, (batch, *noise_shape) to (batch,)."""
        return normal_log_prob(z)

    def decode_latents(self, z: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the signals of noise, differentiably; see `from_noise`."""
        return self.from_noise(z, labels or [None] * len(z))

    def encode_latents(self, x: Tensor) -> Tensor:
        """Return the noise of signals, (batch, *event_shape) to (batch, *noise_shape)."""
        return self.encode_noise(x)


class LatentExactMultiscaleFlow(HasLatents, ExactMultiscaleFlow):
    """A flow of continuous signals whose inverse is a formula."""


class LatentDiscreteMultiscaleFlow(HasLatents, DiscreteMultiscaleFlow):
    """A flow of signals of 256 levels whose inverse is a formula."""


def build_multiscale_flow(config: MultiscaleFlowConfig) -> MultiscaleFlow:
    """Build the flow that a configuration describes."""
    is_discrete = config.dequantisation != "none"
    if config.kind not in ("residual", "mixture-logistic"):  # which are inverted by iteration, without gradients
        return (LatentDiscreteMultiscaleFlow if is_discrete else LatentExactMultiscaleFlow)(config)
    if is_discrete:
        return DiscreteMultiscaleFlow(config)
    return (EstimatedMultiscaleFlow if config.kind == "residual" else ExactMultiscaleFlow)(config)


@contextmanager
def seeded_probes(generator: Generator | None) -> Iterator[None]:
    """Let the probes of residual layers depend on a generator, without a change of PyTorch's global one."""
    seed = int(torch.randint(1 << 62, (), generator=generator))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
