"""Protocol of classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Classifier(Protocol):
    """A network that tells which of several classes a recording is of."""

    @property
    def config(self) -> Any:
        """Its `denoise.config.config`, which is stored with the weights."""

    @property
    def channels(self) -> int:
        """Channels of the recordings that it was trained on; any number is accepted."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""

    @property
    def window_s(self) -> float:
        """Seconds of the recordings that it was trained on."""

    def __call__(self, x: Tensor, *, sample_rate: int) -> Tensor:
        """Classify recordings.

        Args:
            x: recordings, (batch, channels, time), full scale 1.0.
            sample_rate: their rate in Hz.

        Returns:
            Logits, (batch, classes).
        """
