"""What diffusion and flow matching share: a network that can be asked for a label, and draws that begin as noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.embeddings import Condition, Label
from denoise.nn.unet import BackboneConfig, backbone
from denoise.probability_path import convert, exploding


@config
class GuidedConfig:
    """Events of ``shape`` with about the mean ``mean`` and standard deviation ``sigma_data``, in signal units.

    ``classes`` and ``text`` say what it can be asked for; samples exaggerate it by ``guidance`` unless told otherwise.
    """

    shape: tuple[int, ...]
    net: BackboneConfig = field(default_factory=BackboneConfig)
    mean: float = 0.0
    sigma_data: float = 1.0
    classes: int = 0
    text: bool = False
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1 or max(self.shape) > 1 << 24:
            raise ConfigError(f"shape is {self.shape}; expected sizes of at least 1.")
        if not (self.sigma_data > 0 and self.classes >= 0 and 0 <= self.guidance <= 100):
            raise ConfigError("sigma_data must be above 0, classes at least 0, guidance 0 to 100.")


class Guided(nn.Module):
    """A backbone that is told a level and, if wanted, a label; subclasses say what its answer means.

    Reference:
        Classifier-Free Diffusion Guidance, 2022, arXiv:2207.12598.
    """

    decode_noise: Callable[..., Tensor]  # each subclass has its own: noise (n, *shape) to signals (n, *shape)

    def __init__(self, config: GuidedConfig) -> None:
        super().__init__()
        self.event_shape, self.guidance = torch.Size(config.shape), config.guidance
        self.classes, self.text = config.classes, config.text
        self.net = backbone(config.net, config.shape)
        self.condition = Condition(config.net.embedding, config.classes, config.text)

    def predict(self, x: Tensor, level: Tensor, labels: Sequence[Label] | None, guidance: float = 1.0) -> Tensor:
        """What the network says; beyond 1, ``guidance`` exaggerates the label. Shape: as x."""

        def asked(wanted: Sequence[Label]) -> Tensor:
            return self.net(x, level, self.condition(wanted)).to(x.dtype)

        nothing = [None] * len(x)
        if guidance == 0 or all(label is None for label in labels or ()):
            return asked(nothing)
        assert labels is not None
        return asked(labels) if guidance == 1 else torch.lerp(asked(nothing), asked(labels), guidance)

    def score(self, x: Tensor, sigma: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """The gradient of the log-density of signals with noise of sigma (batch,). Shape: as x."""
        return convert(self(x, sigma, labels), x, exploding(sigma), "x0", "score")

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        temperature: float = 1.0,
        guidance: float | None = None,
        generator: Generator | None = None,
        **asked: Any,
    ) -> Tensor:
        """Draw signals; ``temperature`` scales the noise that they begin as, the rest is as in `decode_noise`.

        Shape:
            returns: (n, *shape).
        """
        start = torch.randn(n, *self.event_shape, generator=generator)
        guidance = self.guidance if guidance is None else guidance
        return self.decode_noise(temperature * start, generator=generator, guidance=guidance, **asked)
