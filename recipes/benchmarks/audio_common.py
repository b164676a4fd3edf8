"""What the audio benchmarks and their systems share: sample rates, the form of a system, resampling.

No system but the models of `denoise` imports torch, so that the measured peak memory of a peer does not include it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import soxr
from numpy.typing import NDArray

FULL_BAND = 48_000  # Hz, what RNNoise and DeepFilterNet take
WIDE_BAND = 16_000  # Hz, what most networks take, and PESQ, STOI and DNSMOS

Samples = NDArray[np.float32]
Denoise = Callable[[Samples, int], Samples]  # samples (time,) and sample rate to samples (time,), without delay
System = Callable[[], Denoise]  # returns a denoiser in its initial state


@runtime_checkable
class LearnsNoise(Protocol):
    """A denoiser that is given a recording of the noise alone."""

    def learn_noise(self, noise: Samples, rate: int) -> None:
        """Take the noise alone, (time,), before the recording that contains it."""


def process_at(rate_inside: int, process: Callable[[Samples], Samples], samples: Samples, rate: int) -> Samples:
    """Apply ``process``, which keeps the length, at another sample rate."""
    denoised = process(soxr.resample(samples, rate, rate_inside))
    y = soxr.resample(denoised, rate_inside, rate)[: len(samples)]
    return np.pad(y, (0, len(samples) - len(y))).astype(np.float32)
