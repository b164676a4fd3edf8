"""The noise that priors decode into samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from denoise.probability_path import standard_normal
from denoise.protocols import DEFAULT_OPTIONS, Label, SamplingOptions


def draw_noise(
    n: int, shape: Sequence[int], options: SamplingOptions, generator: Generator | None
) -> tuple[Tensor, SamplingOptions]:
    """Draw the noise of samples, on the CPU so that seeds agree across devices.

    Args:
        n: number of samples.
        shape: shape of the noise of one sample.
        options: options of the sampler; the noise is multiplied by the temperature.
        generator: source of the noise.

    Returns:
        Noise, (n, *shape), and the remaining options, for the decoding of noise.
    """
    noise = standard_normal((n, *shape), generator)
    if options.temperature is not None:
        noise = options.temperature * noise
    return noise, replace(options, temperature=None)


class NoiseDecoding(nn.Module, ABC):
    """A prior that maps noise to signals by one function, without other options than the temperature of the noise.

    Subclasses define ``noise_shape``, ``family`` and `from_noise`.
    """

    noise_shape: torch.Size
    family: ClassVar[str]
    """Its name in messages, with an article."""
    sampling_options = frozenset({"temperature"})

    @abstractmethod
    def from_noise(self, noise: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the signals of noise on the device of the prior, (n, *noise_shape) to (n, *event_shape)."""

    @torch.no_grad()
    def decode_noise(self, noise: Tensor, *, label: Label = None, options: SamplingOptions = DEFAULT_OPTIONS) -> Tensor:
        """Return the signals of standard normal noise.

        Args:
            noise: noise, (n, *noise_shape).
            label: condition of all signals.
            options: none is supported.

        Returns:
            Signals, (n, *event_shape).

        Raises:
            ConfigError: an option is set.
            ValueError: there is no such class.
        """
        options.check_supported(self.sampling_options - {"temperature"}, f"the decoding of noise by {self.family}")
        return self.from_noise(noise.to(self.device), [label] * len(noise))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        """Sample signals.

        Args:
            n: number of signals.
            label: condition of all signals.
            options: temperature, a factor of the noise.
            generator: source of the noise.

        Returns:
            Signals, (n, *event_shape).

        Raises:
            ConfigError: another option is set.
            ValueError: there is no such class.
        """
        noise, options = draw_noise(n, self.noise_shape, options, generator)
        return self.decode_noise(noise, label=label, options=options)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(chain(self.parameters(), self.buffers())).device
