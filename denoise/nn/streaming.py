"""Base of networks that process short-time spectra hop by hop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from denoise.nn.conditioning import check_sigma

DEFAULT_RATE = 48_000
"""Sample rate in Hz that `StreamingMixin.forward` assumes."""


class StreamingMixin(ABC):
    """Facts and offline inference of a `denoise.protocols.StreamingNetwork` whose configuration has ``hop_s``.

    List it before `torch.nn.Module`; the class then has to define ``config``, ``delay``, `initial_state` and `step`.
    """

    channels = 1  # any number is accepted: all channels share one mask
    ndim = 1
    blind = True
    variational = False
    sigma_maps = 1
    size_multiple = 1
    window: int | None = None
    context: int | None = None  # all of the past, which `step` carries in the state

    config: Any
    delay: int
    """Hops by which the output lags behind the input."""

    @property
    def latency_s(self) -> float:
        """Seconds between the arrival of a sample and its output, without the time of computation."""
        return float((1 + self.delay) * self.config.hop_s)

    def hop(self, sample_rate: int) -> int:
        """Return the number of samples of one hop at ``sample_rate`` Hz."""
        return max(1, round(self.config.hop_s * sample_rate))

    def forward(self, x: Tensor, sigma: Tensor | None = None, *, sample_rate: int = DEFAULT_RATE) -> Tensor:
        """Denoise a whole signal.

        Args:
            x: noisy signal, (batch, channels, time), full scale 1.0.
            sigma: must be None, as the network is blind.
            sample_rate: rate of ``x`` in Hz.

        Returns:
            Denoised signal of the shape of ``x``.

        Raises:
            ConfigError: sigma is given.
        """
        check_sigma(sigma, blind=self.blind)
        return self.denoise_from(self.initial_state(x.shape[0], x.shape[1], sample_rate), x, sample_rate)

    def denoise_from(self, state: Any, x: Tensor, sample_rate: int) -> Tensor:
        """Denoise a whole signal from an initial state.

        Args:
            state: state before the first sample.
            x: noisy signal, (batch, channels, time), full scale 1.0.
            sample_rate: rate of ``x`` in Hz.

        Returns:
            Denoised signal of the shape of ``x``.
        """
        hop, time = self.hop(sample_rate), x.shape[-1]
        lag = self.delay * hop
        y, _ = self.step(F.pad(x, (0, lag + -time % hop)), state)
        return y[..., lag : lag + time]

    @abstractmethod
    def initial_state(self, batch: int, channels: int, sample_rate: int) -> Any:
        """Return the state before the first sample; see `denoise.protocols.StreamingNetwork`."""

    @abstractmethod
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Denoise the next hops; see `denoise.protocols.StreamingNetwork`."""
