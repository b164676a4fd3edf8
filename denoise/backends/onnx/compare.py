"""Comparison of exported models with torch, over many lengths, sample rates and sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from denoise.backends.onnx.runtime import Model, OnnxClassifier, OnnxNetwork, OnnxStreamingNetwork
from denoise.backends.onnx.traced import example_windows

SIZES = {1: ((1,), (7,), (1000,), (20_000,)), 2: ((1, 1), (7, 3), (64, 48), (97, 130), (512, 384))}
STREAMS = ((48_000, 1, 1, 10.0), (44_100, 2, 1, 1.0), (16_000, 1, 2, 1.0), (8000, 1, 1, 1.0), (96_000, 1, 1, 0.5))
"""Sample rate in Hz, channels, batch and seconds of recordings."""
HOPS = (1, 1, 1, 7, 64)  # of the steps, in turn


@torch.inference_mode()
def measure_difference(exported: Model, module: Any) -> float:
    """Return the greatest difference of an exported model from torch in any sample, pixel or probability.

    Args:
        exported: the model in onnxruntime.
        module: the model in torch, on the CPU.
    """
    if isinstance(exported, OnnxClassifier):
        pairs = _classify(exported, module)
    elif isinstance(exported, OnnxStreamingNetwork):
        pairs = _denoise_streams(exported, module)
    else:
        pairs = _denoise_windows(exported, module)
    return float(np.max([np.abs(a - b).max() for a, b in pairs]))  # NaN if any is


def _denoise_windows(network: OnnxNetwork, module: Any) -> Iterator[tuple[Any, Any]]:
    for i, size in enumerate(SIZES[module.ndim]):
        x, sigma = example_windows(module, 2 - i % 2, size)
        denoised = network.denoise(x.numpy(), None if sigma is None else sigma.numpy())
        yield denoised, module(x, sigma).numpy()


def _denoise_streams(network: OnnxStreamingNetwork, module: Any) -> Iterator[tuple[Any, Any]]:
    for rate, channels, batch, seconds in STREAMS:
        hop = module.hop(rate)
        x = _recording(rate, channels, batch, round(seconds * rate / hop) * hop)
        state, torch_state = network.initial_state(batch, channels, rate), module.initial_state(batch, channels, rate)
        start, n = 0, 0
        while start < x.shape[-1]:
            block = x[..., start : start + HOPS[n % len(HOPS)] * hop]
            denoised, state = network.step(block.numpy(), state)
            expected, torch_state = module.step(block, torch_state)
            yield denoised, expected.numpy()
            start, n = start + block.shape[-1], n + 1


def _classify(classifier: OnnxClassifier, module: Any) -> Iterator[tuple[Any, Any]]:
    for rate, channels, batch, _ in STREAMS:
        for x in (_recording(rate, channels, batch, n) for n in (2 * rate, rate // 3, 10)):
            probabilities = classifier.probabilities(x.numpy(), sample_rate=rate)
            yield probabilities, module(x, sample_rate=rate).softmax(dim=1).numpy()


def _recording(rate: int, channels: int, batch: int, n: int) -> Tensor:
    """Tones that come and go, in noise, (batch, channels, n)."""
    time = torch.arange(n) / rate
    tones = torch.sin(2 * math.pi * 150 * torch.arange(1, 16)[:, None] * time) / torch.arange(1, 16)[:, None]
    noise = torch.randn(batch, channels, n, generator=torch.Generator().manual_seed(rate))
    return 0.1 * tones.sum(dim=0) * (3 * time).frac() + 0.02 * noise
