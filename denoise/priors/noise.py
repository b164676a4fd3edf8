"""The noise that priors decode into samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from denoise.protocols import SamplingOptions


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
    noise = torch.randn(n, *shape, generator=generator)
    if options.temperature is not None:
        noise = options.temperature * noise
    return noise, replace(options, temperature=None)
