"""Codecs of signals of one shape: plain, variational and adversarial autoencoder."""

from __future__ import annotations

import math
from dataclasses import field
from itertools import pairwise
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.bodies import BodyConfig, build_decoder, build_encoder, size_multiple
from denoise.nn.distributions import DiscretizedLogistic
from denoise.probability_path import standard_normal
from denoise.protocols import Support

Likelihood = Literal["gaussian", "bernoulli", "logistic"]
RESIDUAL_STD = 0.1  # of grey levels about the mean of a distribution of black and white, or of 256 levels
VALUES: dict[Likelihood, Literal["continuous", "discrete", "binary"]] = {
    "gaussian": "continuous",
    "bernoulli": "binary",
    "logistic": "discrete",
}


@config
class AEConfig:
    """Configuration of `AE`.

    Args:
        shape: shape of one signal, (channels, *space). Values are in [0, 1], or any numbers if ``gaussian``.
        latent: numbers per latent vector.
        body: layers of encoder and decoder.
        likelihood: family of p(x|z): normal, Bernoulli, or logistic over 256 levels with a learnt scale.
        scale: standard deviation of the normal distribution.
    """

    shape: tuple[int, ...]
    latent: int
    body: BodyConfig = field(default_factory=BodyConfig)
    likelihood: Likelihood = "gaussian"
    scale: float = 0.1

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1 or max(self.shape) > 1 << 24 or not 1 <= self.latent <= 1 << 16:
            raise ConfigError(f"shape is {self.shape}, latent {self.latent}; expected sizes of at least 1.")
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"scale is {self.scale}; expected more than 0, finite.")


class AE(nn.Module):
    """Plain autoencoder, with the likelihood of signals given latents.

    Args:
        config: see `AEConfig`.

    Reference:
        Reducing the Dimensionality of Data with Neural Networks, Hinton and Salakhutdinov, 2006.
    """

    config: AEConfig
    outputs_per_latent = 1
    """Numbers that the encoder returns for each latent."""

    def __init__(self, config: AEConfig) -> None:
        super().__init__()
        self.config = config
        self.event_shape = torch.Size(config.shape)
        self.size_multiple = size_multiple(config.body)
        outputs = config.shape[0] * (2 if config.likelihood == "logistic" else 1)
        self.encoder = build_encoder(config.body, config.shape, self.outputs_per_latent * config.latent)
        self.decoder = build_decoder(config.body, config.shape, config.latent, outputs)

    @property
    def latent_shape(self) -> torch.Size:
        """Shape of the latents of one signal: (latent,), or (latent, *coarse) if the body is spatial."""
        space = [n // self.size_multiple for n in self.config.shape[1:]] if self.config.body.spatial else []
        return torch.Size([self.config.latent, *space])

    @property
    def support(self) -> Support:
        """Space on which `likelihood` is defined."""
        return Support(self.config.shape, VALUES[self.config.likelihood])

    @property
    def residual_std(self) -> float:
        """Standard deviation of signals about the mean of p(x|z)."""
        return self.config.scale if self.config.likelihood == "gaussian" else RESIDUAL_STD

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of signals, (batch, *event_shape) to (batch, *latent_shape)."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean of p(x|z), (batch, *latent_shape) to (batch, *event_shape)."""
        return self.likelihood(z).mean

    def likelihood(self, z: Tensor) -> Distribution:
        """Return p(x|z), a distribution of whole signals.

        Args:
            z: latents, (batch, *latent_shape).

        Returns:
            Distribution of batch shape (batch,) and of the event shape of the signals.
        """
        c, output = self.config, self.decoder(z)
        event_dims = len(c.shape)
        if c.likelihood == "bernoulli":
            return Independent(Bernoulli(logits=output, validate_args=False), event_dims)
        if c.likelihood == "logistic":
            loc, log_scale = output.chunk(2, dim=1)
            return Independent(DiscretizedLogistic(loc, log_scale - 3), event_dims, validate_args=False)
        return Independent(Normal(output, c.scale, validate_args=False), event_dims, validate_args=False)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct signals from their latents, (batch, *event_shape) to the same shape."""
        return self.decode(self.encode(x))


@config
class VAEConfig(AEConfig):
    """Configuration of `VAE`: that of `AE`."""


class VAE(AE):
    """Variational autoencoder; q(z|x) is normal with a diagonal covariance.

    Args:
        config: see `VAEConfig`.

    Reference:
        Auto-Encoding Variational Bayes, 2013, arXiv:1312.6114.
    """

    outputs_per_latent = 2

    def posterior(self, x: Tensor) -> Normal:
        """Return q(z|x), (batch, *event_shape) to a distribution of shape (batch, *latent_shape)."""
        return _normal(self.encoder(x))

    def sample_posterior(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Sample latents from q(z|x); gradients flow through the sample.

        Args:
            x: signals, (batch, *event_shape).
            generator: source of randomness on the CPU.

        Returns:
            Latents, (batch, *latent_shape).
        """
        q = self.posterior(x)
        return q.loc + q.scale * standard_normal(q.loc.shape, generator).to(q.loc)

    def encode(self, x: Tensor) -> Tensor:
        """Return the mean of q(z|x), (batch, *event_shape) to (batch, *latent_shape)."""
        return self.posterior(x).mean


@config
class AAEConfig(AEConfig):
    """Configuration of `AAE`: that of `AE`, the posterior and the critic.

    Args:
        posterior: family of q(z|x): deterministic, normal, or universal, f(x, eta) with standard normal eta.
        noise: dimensions of eta.
        critic: units of the hidden layers of the critic.
    """

    posterior: Literal["deterministic", "gaussian", "universal"] = "gaussian"
    noise: int = 16
    critic: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(1 <= n <= 1 << 14 for n in (self.noise, *self.critic)):
            raise ConfigError(f"noise is {self.noise}, critic {self.critic}; expected 1 to {1 << 14}.")
        if self.body.spatial:
            raise ConfigError("the critic needs one latent vector per signal; leave body.spatial out.")


class AAE(AE):
    """Adversarial autoencoder: a critic makes the aggregated posterior match the prior.

    Args:
        config: see `AAEConfig`.

    Reference:
        Adversarial Autoencoders, 2015, arXiv:1511.05644, section 2 (the three posteriors).
    """

    config: AAEConfig

    def __init__(self, config: AAEConfig) -> None:
        self.outputs_per_latent = 2 if config.posterior == "gaussian" else 1
        super().__init__(config)
        self.mixer = None
        if config.posterior == "universal":
            width = 4 * config.latent + config.noise
            self.mixer = nn.Sequential(
                nn.Linear(config.latent + config.noise, width), nn.ELU(), nn.Linear(width, config.latent)
            )
        sizes = [config.latent, *config.critic]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
        self.critic = nn.Sequential(*hidden, nn.Linear(sizes[-1], 1))

    def sample_posterior(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Sample latents from q(z|x); gradients flow through the sample.

        Args:
            x: signals, (batch, *event_shape).
            generator: source of randomness on the CPU.

        Returns:
            Latents, (batch, *latent_shape).
        """
        output, c = self.encoder(x), self.config
        if c.posterior == "deterministic":
            return output
        eta = standard_normal((len(x), c.noise if self.mixer else c.latent), generator).to(output)
        if self.mixer:
            return self.mixer(torch.cat([output, eta], dim=1))
        q = _normal(output)
        return q.loc + q.scale * eta

    def encode(self, x: Tensor) -> Tensor:
        """Return latents without randomness: the mean of q(z|x), or f(x, 0)."""
        output = self.encoder(x)
        if self.mixer:
            return self.mixer(torch.cat([output, output.new_zeros(len(x), self.config.noise)], dim=1))
        return output[:, : self.config.latent]


def _normal(output: Tensor) -> Normal:
    """The normal distribution of a mean and a log-variance, concatenated along the channels."""
    output = output.to(torch.promote_types(output.dtype, torch.float32))  # in bfloat16 its divergence would cancel
    mean, log_variance = output.chunk(2, dim=1)
    return Normal(mean, (0.5 * log_variance.clamp(-20, 10)).exp(), validate_args=False)
