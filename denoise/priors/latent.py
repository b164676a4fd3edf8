"""A prior over what a codec remembers of signals is a prior over signals."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Generator, Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.embeddings import Label


@config
class LatentPriorConfig:
    """What the two parts are made of: for each its ``architecture`` and that one's settings."""

    codec: dict[str, Any]
    prior: dict[str, Any]


def estimated(prior: Any) -> bool:
    """Whether a prior's densities are estimates, which are drawn, and each of which takes long."""
    return "probes" in inspect.signature(prior.log_prob).parameters


class LatentPrior(nn.Module):
    """A codec (`denoise.protocols.Codec`) and a prior over its latents.

    Shape:
        signals: (batch, *event_shape); latents: (batch, *prior.event_shape).
    """

    def __init__(self, codec: Any, prior: Any, config: LatentPriorConfig | None = None) -> None:
        super().__init__()
        self.codec, self.prior, self.config = codec, prior, config  # the config is for saving
        self.event_shape: torch.Size = codec.event_shape
        self.classes: int = prior.classes
        self.text: bool = prior.text

    @property
    def log_prob(self) -> Callable[..., Tensor]:
        """That of signals: an orthonormal codec, which only turns them, changes no volume.

        Raises:
            AttributeError: there is none.
        """
        inner, encode = self._of_signals("log_prob"), self.codec.encode
        return wraps(inner)(lambda x, *told, **how: inner(encode(x), *told, **how))

    @property
    def score(self) -> Callable[..., Tensor]:
        """That of signals: with an orthonormal codec, the score of its latents turned back.

        Raises:
            AttributeError: there is none.
        """
        inner, codec = self._of_signals("score"), self.codec
        return wraps(inner)(lambda x, *told, **how: codec.decode(inner(codec.encode(x), *told, **how)))

    def _of_signals(self, name: str) -> Callable[..., Tensor]:
        if not getattr(self.codec, "orthonormal", False):
            raise AttributeError(f"latents of this codec have no {name} of signals.")
        return getattr(self.prior, name)

    def forward(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """The mean of all clean signals that ``x`` may come from, if the prior denoises and the codec keeps distances.

        Shape:
            x, returns: (batch, *event_shape); sigma: (batch,), in signal units.
        """
        if not hasattr(self, "score"):
            raise ConfigError("only a prior that denoises, over latents of an orthonormal codec, denoises signals.")
        return self.codec.decode(self.prior(self.codec.encode(x), sigma, labels))

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None, **asked: Any) -> Tensor:
        """Draw latents as `prior.sample` does, and decode them. Shape: (n, *event_shape)."""
        return self.codec.decode(self.prior.sample(n, generator=generator, **asked))

    @torch.no_grad()
    def decode_noise(self, noise: Tensor, **asked: Any) -> Tensor:
        """The signals that the prior's noise stands for. Shape: noise (n, *prior.event_shape)."""
        return self.codec.decode(self.prior.decode_noise(noise, **asked))

    @torch.no_grad()
    def encode_noise(self, x: Tensor, **asked: Any) -> Tensor:
        """The noise whose signal is nearly ``x``: that of its latents. Shape: returns (n, *prior.event_shape)."""
        return self.prior.encode_noise(self.codec.encode(x), **asked)

    def log_weights(
        self, x: Tensor, samples: int = 1, generator: Generator | None = None, *, label: Label = None
    ) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x) of draws from q(z|x), whose mean is the evidence lower bound.

        The codec must be variational, the prior have a density.

        Shape:
            x: (batch, *event_shape); returns (samples, batch), nats.
        Reference:
            Auto-Encoding Variational Bayes, 2013, arXiv:1312.6114, eq. 6.
        """
        q = self.codec.posterior(x)
        noise = torch.randn(samples, *q.loc.shape, generator=generator).to(q.loc)
        z = q.loc + q.scale * noise
        entropy_term = (-0.5 * noise.square() - q.scale.log() - 0.5 * math.log(2 * math.pi)).flatten(2).sum(dim=2)
        flat = z.flatten(0, 1)
        heard = self.codec.likelihood(flat).log_prob(x.expand(samples, *x.shape).flatten(0, 1))
        own = {"generator": generator} if estimated(self.prior) else {}
        believed = self.prior.log_prob(flat, None if label is None else [label] * len(flat), **own)
        return (heard + believed).unflatten(0, (samples, -1)) - entropy_term

    @torch.no_grad()
    def bound(
        self,
        x: Tensor,
        samples: int = 500,
        generator: Generator | None = None,
        *,
        label: Label = None,
        batch: int = 100,
    ) -> Tensor:
        """A lower bound of log p(x), tighter with more samples. Shape: returns (batch,), nats.

        Reference:
            Importance Weighted Autoencoders, 2015, arXiv:1509.00519, eq. 8.
        """
        turns = [min(batch, samples - done) for done in range(0, samples, batch)]
        parts = [self.log_weights(x, turn, generator, label=label) for turn in turns]
        return torch.cat(parts).logsumexp(dim=0) - math.log(samples)
