"""Settings of the adversary of a GAN: section ``[adversary]`` of a recipe."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.bodies import BodyConfig
from denoise.nn.discriminator import DiscriminatorConfig


@config
class Coverage:
    """The classifier that measures which classes the samples of a GAN reach.

    Args:
        classes: number of classes of the labels.
        body: layers of the classifier.
    """

    classes: int
    body: BodyConfig = field(default_factory=BodyConfig)

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= 1 << 14:
            raise ConfigError(f"classes is {self.classes}; expected 2 to {1 << 14}.")


@config
class Adversary:
    """The discriminator of a GAN and how it is trained.

    Args:
        discriminator: layers of the discriminator.
        loss: ``"non-saturating"``, ``"minimax"`` or ``"hinge"``.
        steps: steps of the discriminator for each one of the generator; `Schedule.steps` counts those of the
            discriminator.
        r1: weight gamma of the gradient penalty on real examples; 0 for none.
        rate_ratio: learning rate of the discriminator, relative to that of the generator.
        betas: decays of the moments of AdamW.
        coverage: classifier that measures mode coverage; None for no measurement.
    """

    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: Literal["non-saturating", "minimax", "hinge"] = "non-saturating"
    steps: int = 1
    r1: float = 0.0
    rate_ratio: float = 1.0
    betas: tuple[float, float] = (0.0, 0.99)
    coverage: Coverage | None = None

    def __post_init__(self) -> None:
        if not (self.steps >= 1 and self.r1 >= 0 and self.rate_ratio > 0):
            raise ConfigError(
                f"steps is {self.steps}, r1 {self.r1}, rate_ratio {self.rate_ratio}; expected steps of at least 1, r1 "
                "of at least 0, rate_ratio above 0."
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas are {self.betas}; expected 0 to below 1.")
