"""Networks that map noise to signals and are trained against a discriminator: what GANs and DDGANs share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from denoise.errors import ConfigError
from denoise.priors.noise import NoiseDecoding
from denoise.protocols import Label

OUTPUTS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "linear": nn.Identity}


class GeneratorNetwork(NoiseDecoding):
    """A network that maps standard normal noise to signals and has been trained against a discriminator.

    Subclasses define ``event_shape``, ``noise_shape``, ``classes`` and the map from noise to signals.
    """

    event_shape: torch.Size
    classes: int
    text = False

    @abstractmethod
    def forward(self, noise: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        """Return the signals of noise, differentiably.

        Args:
            noise: noise, (n, *noise_shape).
            labels: condition of each signal; None is unconditional.

        Returns:
            Signals, (n, *event_shape).

        Raises:
            ValueError: there is no such class.
        """

    def from_noise(self, noise: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the signals of noise; see `NoiseDecoding.from_noise`."""
        return self(noise, labels)


def check_sizes(shape: tuple[int, ...], latent: int, classes: int) -> None:
    """Refuse sizes of a generator that are out of range with a `ConfigError`."""
    if not shape or min(shape) < 1 or max(shape) > 1 << 24:
        raise ConfigError(f"shape is {shape}; expected sizes of at least 1.")
    if not 1 <= latent <= 1 << 14 or not 0 <= classes < 1 << 14:
        raise ConfigError(
            f"latent is {latent}, classes {classes}; expected latent of 1 to {1 << 14}, classes of at least 0 and "
            f"below {1 << 14}."
        )
