"""Codecs: signals to latents and back. The plain, the variational and the adversarial autoencoder."""

from __future__ import annotations

from dataclasses import field
from itertools import pairwise
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.bodies import BodyConfig, decoder, encoder, size_multiple
from denoise.nn.distributions import DiscretizedLogistic

Likelihood = Literal["gaussian", "bernoulli", "logistic"]


@config
class AEConfig:
    """Signals of ``shape`` in [0, 1] (``gaussian``: any) as ``latent`` numbers; see `BodyConfig` for the networks.

    ``likelihood`` is p(x|z): Gaussian of deviation ``scale``, Bernoulli of each entry, or a logistic
    distribution over 256 levels whose width is learnt.
    """

    shape: tuple[int, ...]
    latent: int
    body: BodyConfig = field(default_factory=BodyConfig)
    likelihood: Likelihood = "gaussian"
    scale: float = 0.1

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1 or max(self.shape) > 1 << 24 or not 1 <= self.latent <= 1 << 16:
            raise ConfigError(f"shape is {self.shape}, latent {self.latent}; expected sizes of at least 1.")
        if not self.scale > 0:
            raise ConfigError(f"scale is {self.scale}; expected more than 0.")


class AE(nn.Module):
    """The plain autoencoder.

    Shape:
        x: (batch, *shape); z: (batch, latent), or (batch, latent, *coarse) of a spatial body.
    Reference:
        Reducing the Dimensionality of Data with Neural Networks, Hinton and Salakhutdinov, 2006.
    """

    heads = 1  # numbers that the encoder gives for each latent

    def __init__(self, config: AEConfig) -> None:
        super().__init__()
        self.config = c = config
        self.event_shape = torch.Size(c.shape)
        self.size_multiple = size_multiple(c.body)
        outputs = c.shape[0] * (2 if c.likelihood == "logistic" else 1)
        self.encoder = encoder(c.body, c.shape, self.heads * c.latent)
        self.decoder = decoder(c.body, c.shape, c.latent, outputs)

    @property
    def latent_shape(self) -> torch.Size:
        """Of the latents of one event."""
        c = self.config
        space = [n // self.size_multiple for n in c.shape[1:]] if c.body.spatial else []
        return torch.Size([c.latent, *space])

    def encode(self, x: Tensor) -> Tensor:
        """The latents of signals."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """The mean of the signals that latents stand for."""
        return self.likelihood(z).mean

    def likelihood(self, z: Tensor) -> Distribution:
        """p(x|z), a distribution of whole events: its log_prob has shape (batch,)."""
        c, out = self.config, self.decoder(z)
        dims = len(c.shape)
        if c.likelihood == "bernoulli":
            return Independent(Bernoulli(logits=out, validate_args=False), dims)
        if c.likelihood == "logistic":
            mean, width = out.chunk(2, dim=1)
            return Independent(DiscretizedLogistic(mean, width - 3), dims, validate_args=False)
        return Independent(Normal(out, c.scale), dims)

    def forward(self, x: Tensor) -> Tensor:
        """The signals as the latents remember them."""
        return self.decode(self.encode(x))


@config
class VAEConfig(AEConfig):
    """As that of the plain autoencoder."""


class VAE(AE):
    """The variational autoencoder: q(z|x) is normal, of a mean and a deviation for each latent.

    Reference:
        Auto-Encoding Variational Bayes, 2013, arXiv:1312.6114.
    """

    heads = 2

    def posterior(self, x: Tensor) -> Normal:
        """q(z|x); its entries are independent. Shape: (batch, *latent_shape)."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return Normal(mean, (0.5 * log_variance.clamp(-20, 10)).exp(), validate_args=False)

    def draw(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """One z of q(z|x) for each signal, through which gradients flow."""
        q = self.posterior(x)
        return q.loc + q.scale * torch.randn(q.loc.shape, generator=generator).to(q.loc)

    def encode(self, x: Tensor) -> Tensor:
        """The means of the latents of signals."""
        return self.posterior(x).mean


@config
class AAEConfig(AEConfig):
    """``posterior`` is q(z|x): no randomness, a normal distribution, or any one, f(x, eta) with ``noise`` numbers eta.

    The critic, with hidden layers of ``critic`` units, tells latents from draws of the prior.
    """

    posterior: Literal["deterministic", "gaussian", "universal"] = "gaussian"
    noise: int = 16
    critic: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(1 <= n <= 1 << 14 for n in (self.noise, *self.critic)):
            raise ConfigError("noise and critic must be at least 1.")
        if self.body.spatial:
            raise ConfigError("the critic sees one latent vector for a signal; leave spatial out.")


class AAE(AE):
    """The adversarial autoencoder: a critic teaches the latents of all signals together to be like the prior.

    Reference:
        Adversarial Autoencoders, 2015, arXiv:1511.05644, section 2.1 (the three posteriors).
    """

    config: AAEConfig

    def __init__(self, config: AAEConfig) -> None:
        self.heads = 2 if config.posterior == "gaussian" else 1
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

    def draw(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """One z of q(z|x) for each signal, through which gradients flow."""
        out, c = self.encoder(x), self.config
        if c.posterior == "deterministic":
            return out
        eta = torch.randn(len(x), c.noise if self.mixer else c.latent, generator=generator).to(out)
        if self.mixer:
            return self.mixer(torch.cat([out, eta], dim=1))
        mean, log_variance = out.chunk(2, dim=1)
        return mean + (0.5 * log_variance.clamp(-20, 10)).exp() * eta

    def encode(self, x: Tensor) -> Tensor:
        """The latents of signals without randomness: the mean, or f(x, 0)."""
        out = self.encoder(x)
        if self.mixer:
            return self.mixer(torch.cat([out, out.new_zeros(len(x), self.config.noise)], dim=1))
        return out[:, : self.config.latent]
