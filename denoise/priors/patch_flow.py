"""A normalizing flow of small patches of photographs, of the clean ones and of those with white noise of any level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zuko.flows.autoregressive import MaskedAutoregressiveTransform
from zuko.lazy import LazyComposedTransform
from zuko.nn import MaskedLinear

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.embeddings import SinusoidalEmbedding, embed_labels
from denoise.priors.noise import NoiseDecoding
from denoise.probability_path import expand_like
from denoise.protocols import Label, Support

MEAN, STD = 0.44, 0.29  # of the pixels of photographs
POWER, CORNER = 0.005, 0.019  # variance of a coefficient at frequency f of photographs: POWER / (f^2 + CORNER^2)
COLOUR_POWER = (1.0, 1 / 16, 1 / 64)  # of the axes of colour


@config
class PatchFlowConfig:
    """Settings of a flow of patches.

    Args:
        side: height and width of a patch, pixels.
        channels: 3 for RGB, 1 for grey.
        transforms: number of autoregressive transforms; every second has the reverse order.
        hidden: hidden units of each network.
        embedding: features of the noise level.
        sigma: smallest and largest standard deviation of the noise, full scale 1.0. A clean patch is one with the
            smallest: it makes the levels of 8 bits continuous.
    """

    side: int = 8
    channels: int = 3
    transforms: int = 3
    hidden: tuple[int, ...] = (256, 256)
    embedding: int = 8
    sigma: tuple[float, float] = (1 / 255, 0.5)

    def __post_init__(self) -> None:
        if not 2 <= self.side <= 16 or self.channels not in (1, 3):
            raise ConfigError(f"side is {self.side}, channels {self.channels}; expected 2 to 16 pixels, 1 or 3.")
        if not 0 <= self.transforms <= 32 or not all(1 <= n <= 1 << 12 for n in self.hidden) or not self.hidden:
            raise ConfigError(f"transforms is {self.transforms}, hidden {self.hidden}; expected 0 to 32, 1 to 4096.")
        if not 2 <= self.embedding <= 256 or self.embedding % 2:
            raise ConfigError(f"embedding is {self.embedding}; expected an even number of 2 to 256.")
        if not 0 < self.sigma[0] < self.sigma[1] <= 10:
            raise ConfigError(f"sigma is {self.sigma}; expected two numbers above 0, at most 10, the smaller first.")


class PatchFlow(NoiseDecoding):
    """A masked autoregressive flow of the coefficients of patches, conditioned on the level of noise in the patches.

    The coefficients are those of an orthonormal cosine transform over space and of luminance and two differences of
    colour, from the strongest to the weakest, so that white noise of sigma adds sigma^2 to the variance of each. They
    are divided by their standard deviation with noise; without transforms, the flow is a normal distribution.

    The gradient of the density of noisy patches denoises: E[clean | x] = x + sigma^2 grad log p(x; sigma).

    Args:
        config: settings.

    Reference:
        Masked Autoregressive Flow for Density Estimation, 2017, arXiv:1705.07057; An empirical Bayes estimator of the
        mean of a normal population, Miyasawa, 1961 (the denoiser); PatchNR: Learning from Very Few Images by Patch
        Normalizing Flow Regularization, 2022, arXiv:2205.12021.
    """

    text, classes, family = False, 0, "a flow"
    basis: Tensor

    def __init__(self, config: PatchFlowConfig) -> None:
        super().__init__()
        self.config = config
        self.event_shape = self.noise_shape = torch.Size([config.channels, config.side, config.side])
        self.support = Support(tuple(self.event_shape))
        basis, variance = _coefficients(config.channels, config.side)
        self.register_buffer("basis", basis, persistent=False)
        mean = torch.zeros(len(basis), dtype=torch.float32)
        mean[0] = MEAN * len(basis) ** 0.5
        self.mean, self.log_variance = nn.Parameter(mean), nn.Parameter(variance.log())
        self.embedding = SinusoidalEmbedding(config.embedding)
        with torch.device("cpu"):  # zuko computes its masks in the constructor
            order = torch.arange(len(basis))
            orders = [order.flip(0) if i % 2 else order for i in range(config.transforms)]
            transforms = [_transform(config, order) for order in orders]
        self.flow = LazyComposedTransform(*transforms) if transforms else None

    @property
    def data_mean(self) -> float:
        """Mean of the pixels of photographs."""
        return MEAN

    @property
    def data_std(self) -> float:
        """Standard deviation of the pixels of photographs."""
        return STD

    def log_prob(self, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the log-density of patches with the smallest noise, in nats.

        Args:
            x: patches, (batch, *event_shape).
            labels: none are supported.

        Returns:
            Log-densities, (batch,).
        """
        embed_labels(None, labels or ())  # which refuses them
        return self.noisy_log_prob(x, x.new_full((len(x),), self.config.sigma[0]))

    def noisy_log_prob(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the log-density of patches with white noise, in nats.

        Args:
            x: patches, (batch, *event_shape).
            sigma: standard deviation of their noise, (batch,).

        Returns:
            Log-densities, (batch,).
        """
        y = self._standardise(x, sigma)
        log_det = -self._scale(sigma).log().sum(dim=1)
        if self.flow is not None:
            y, flow_log_det = self.flow(self._condition(sigma)).call_and_ladj(y)
            log_det = log_det + flow_log_det
        return log_det - 0.5 * y.square().sum(dim=1) - 0.5 * y.shape[1] * math.log(2 * math.pi)

    def score(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the gradient of `noisy_log_prob` with respect to the patches, (batch, *event_shape).

        Args:
            x: patches, (batch, *event_shape).
            sigma: standard deviation of their noise, (batch,).
            labels: none are supported.
        """
        embed_labels(None, labels or ())
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone().requires_grad_()
            return torch.autograd.grad(self.noisy_log_prob(x, sigma.clone()).sum(), x)[0]

    def forward(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return E[clean | x], see `denoise.protocols.DenoisingPrior`."""
        return x + expand_like(sigma, x) ** 2 * self.score(x, sigma, labels)

    def from_noise(self, noise: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the patches of noise; see `NoiseDecoding.from_noise`."""
        embed_labels(None, labels)
        y, sigma = noise.flatten(1), noise.new_full((len(noise),), self.config.sigma[0])
        if self.flow is not None:
            y = self.flow(self._condition(sigma)).inv(y)
        return ((self.mean + self._scale(sigma) * y) @ self.basis).reshape(noise.shape)

    @torch.no_grad()
    def encode_noise(self, x: Tensor, *, label: Label = None) -> Tensor:
        """Return the noise of patches, the inverse of `decode_noise`.

        Args:
            x: patches, (n, *event_shape).
            label: none is supported.

        Returns:
            Noise, (n, *noise_shape).
        """
        embed_labels(None, [label])
        sigma = x.new_full((len(x),), self.config.sigma[0])
        y = self._standardise(x, sigma)
        if self.flow is not None:
            y = self.flow(self._condition(sigma))(y)
        return y.reshape(x.shape)

    def _standardise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the coefficients of noisy patches, (batch, coefficients), of about mean 0 and variance 1."""
        with torch.autocast(x.device.type, enabled=False):  # the noise may be below the precision of bfloat16
            return (F.linear(x.to(self.basis).flatten(1), self.basis) - self.mean) / self._scale(sigma)

    def _scale(self, sigma: Tensor) -> Tensor:
        """Return the standard deviation of each coefficient of noisy patches, (batch, coefficients)."""
        return (self.log_variance.exp() + sigma[:, None] ** 2).sqrt()

    def _condition(self, sigma: Tensor) -> Tensor:
        """Return the embedding of noise levels, which are limited to those of the training, (batch, embedding)."""
        low, high = (math.log(value) for value in self.config.sigma)
        return self.embedding((sigma.log().clamp(low, high) - low) / (high - low) / 100)


def _transform(c: PatchFlowConfig, order: Tensor) -> MaskedAutoregressiveTransform:
    """Return an autoregressive transform that is the identity at first."""
    transform = MaskedAutoregressiveTransform(
        len(order),
        c.embedding,
        order=order,
        hidden_features=c.hidden,
        activation=nn.SiLU,  # smooth, as the score shall be
    )
    for layer in transform.hyper:
        if isinstance(layer, MaskedLinear):
            layer.register_buffer("mask", layer.mask, persistent=False)  # the constructor computes it
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return transform


def _coefficients(channels: int, side: int) -> tuple[Tensor, Tensor]:
    """Return the orthonormal basis of the coefficients, (n, n), strongest first, and their variances in photographs."""
    k = torch.arange(side, dtype=torch.float64)
    cosines = torch.cos(math.pi * (2 * k + 1) * k[:, None] / (2 * side))
    axes = (
        torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64) if channels == 3 else torch.ones(1, 1)
    )
    cosines, axes = (rows / rows.norm(dim=1, keepdim=True) for rows in (cosines, axes.double()))
    basis = torch.einsum("cd,ui,vj->cuvdij", axes, cosines, cosines).reshape(channels * side**2, -1)
    frequency2 = (k[:, None] ** 2 + k**2) / side**2
    power = POWER / (frequency2 + CORNER**2) * (side / 8) ** 2
    variance = torch.stack([power * factor for factor in COLOUR_POWER[:channels]]).flatten()
    order = variance.argsort(descending=True, stable=True)
    return basis[order].float(), variance[order].float()
