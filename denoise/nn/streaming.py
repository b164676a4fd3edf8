"""What networks of short-time spectra that are fed hop by hop have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from denoise.nn.conditioning import check_sigma

DEFAULT_RATE = 48_000


class Streaming(ABC):
    """Facts and whole signals of a `denoise.protocols.StreamingNetwork` whose configuration has ``hop_s``.

    It is mixed in before a module that says ``delay``, `start` and `stream`.

    Shape:
        x, returns: (batch, channels, time) at ``sample_rate`` Hz, full scale 1.0; sigma is refused.
    """

    channels = 1  # or any number: they share what is decided
    ndim = 1
    blind = True
    size_multiple = 1
    window: int | None = None
    context: int | None = None  # all that went before: carried by `stream`

    config: Any
    delay: int
    """Hops that what comes out lags behind what went in."""

    @property
    def latency_s(self) -> float:
        """Seconds from a sample's arrival in a stream to its leaving it, computing aside."""
        return float((1 + self.delay) * self.config.hop_s)

    def hop(self, sample_rate: int) -> int:
        """Samples that a stream takes at a time."""
        return max(1, round(self.config.hop_s * sample_rate))

    def forward(self, x: Tensor, sigma: Tensor | None = None, *, sample_rate: int = DEFAULT_RATE) -> Tensor:
        check_sigma(sigma, blind=self.blind)
        hop, time = self.hop(sample_rate), x.shape[-1]
        late = self.delay * hop
        y, _ = self.stream(F.pad(x, (0, late + -time % hop)), self.start(x.shape[0], x.shape[1], sample_rate))
        return y[..., late : late + time]

    @abstractmethod
    def start(self, batch: int, channels: int, sample_rate: int) -> Any:
        """The state before the first sample."""

    @abstractmethod
    def stream(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The next hops; what comes out is ``delay`` hops late. Shape: (batch, channels, n * hop)."""
