"""The adversary of a generator, which only its training needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.bodies import BodyConfig, build_encoder
from denoise.protocols import Label


@config
class DiscriminatorConfig:
    """Settings of a discriminator.

    Args:
        body: layers.
        features: features of a signal, on which the logit depends linearly.
        spectral_norm: whether the spectral norm of each layer is kept at 1.
    """

    body: BodyConfig = field(default_factory=BodyConfig)
    features: int = 64
    spectral_norm: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.features <= 1 << 14 or self.body.spatial:
            raise ConfigError(f"features is {self.features}; expected 1 to {1 << 14}, and body.spatial left out.")


class Discriminator(nn.Module):
    """The adversary of a generator: logits of a signal being real rather than generated, given its class.

    The logit is linear in features of the signal; each condition, a class or none at each timestep, adds a vector to
    its coefficients.

    Args:
        config: see `DiscriminatorConfig`.
        shape: shape of one signal.
        classes: number of classes of the generator.
        timesteps: number of timesteps, of which signals are told apart; 1 for a GAN.

    Reference:
        cGANs with Projection Discriminator, 2018, arXiv:1802.05637; Spectral Normalization for Generative
        Adversarial Networks, 2018, arXiv:1802.05957.
    """

    def __init__(
        self, config: DiscriminatorConfig, shape: tuple[int, ...], classes: int = 0, timesteps: int = 1
    ) -> None:
        super().__init__()
        self.classes, conditions = classes, timesteps * (classes + 1)
        self.encoder = build_encoder(config.body, shape, config.features)
        self.head = nn.Linear(config.features, 1)
        self.projection = nn.Embedding(conditions, config.features) if conditions > 1 else None
        if self.projection is not None:
            nn.init.normal_(self.projection.weight, std=config.features**-0.5)  # products of the order of 1
        if config.spectral_norm:
            layers = [m for m in self.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding)]
            for layer in layers:
                spectral_norm(layer)

    def forward(self, x: Tensor, labels: Sequence[Label] | None = None, index: Tensor | None = None) -> Tensor:
        """Return logits, (batch, *event_shape) to (batch,); the optimum is the log-ratio of real and generated density.

        Args:
            x: signals, (batch, *event_shape).
            labels: class of each signal; None is unconditional.
            index: timestep of each signal from 0 on, (batch,); None is 0.

        Raises:
            ValueError: there is no such class.
        """
        features = F.leaky_relu(self.encoder(x), 0.2)
        logits = self.head(features)[:, 0]
        rows = self._rows(labels or [None] * len(x)).to(x.device)
        if self.projection is None:
            return logits
        rows = rows if index is None else rows + index * (self.classes + 1)
        return logits + (self.projection(rows) * features).sum(dim=1)

    def _rows(self, labels: Sequence[Label]) -> Tensor:
        """Rows of the projection at timestep 0, (batch,): the class, and the last one without a class."""
        if not all(label is None or (isinstance(label, int) and 0 <= label < self.classes) for label in labels):
            raise ValueError(f"labels are {[*labels]}; expected classes from 0 to {self.classes - 1}, or None.")
        return torch.tensor([self.classes if label is None else label for label in labels])
