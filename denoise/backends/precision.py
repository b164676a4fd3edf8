"""Number format that an image network is computed in: float32, bfloat16 or 8-bit integers.

``auto`` selects by a measurement on this machine. Flags of the processor only show which formats it has instructions
for: whether these are faster than float32 differs between processors with the same flags.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from functools import cache
from typing import Literal, cast

import torch
from torch import Tensor, nn

from denoise.backends.device import inference
from denoise.errors import ConfigError
from denoise.nn.blocks import ResidualBlock
from denoise.nn.int8 import find_int8_blocks, has_exact_int8, quantise_network

Precision = Literal["float32", "bfloat16", "int8"]
FloatPrecision = Literal["float32", "bfloat16"]
PRECISIONS = ("auto", "float32", "bfloat16", "int8")

MIN_SPEEDUP = 1.3
"""Factor by which a less exact format must be faster, so that noise of the measurement does not decide."""

BLOCK_SHAPE = (1, 128, 48, 48)
"""Input of the residual block that is measured; the middle stage of the bundled networks has as many channels."""

MIN_RUNS, MAX_RUNS, MAX_SECONDS = 4, 8, 0.05
"""Fewest and most runs in each format, and the time after which no more than the fewest are made.

The first run compiles kernels."""

MIN_PIXELS = 2_000_000
"""Size from which ``auto`` uses int8; below, it saves less than a second or two."""


def check_precision(requested: str, device: torch.device) -> None:
    """Refuse an unknown precision, and one that a device does not have.

    Args:
        requested: one of `PRECISIONS`.
        device: where the network runs.

    Raises:
        ConfigError: either is the case.
    """
    if requested not in PRECISIONS:
        raise ConfigError(f"precision is {requested!r}; expected {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}.")
    if requested == "int8" and device.type != "cpu":
        raise ConfigError(f"precision is 'int8', which needs device cpu, but the device is {device.type}. Use auto.")


def float_precision(requested: str, device: torch.device) -> FloatPrecision:
    """Return the floating-point format to compute in.

    Args:
        requested: one of `PRECISIONS`; ``int8`` gives float32, which stands in where int8 would do harm.
        device: where the network runs. On a CPU ``auto`` selects by a measurement.

    Returns:
        ``"float32"`` or ``"bfloat16"``.
    """
    if requested != "auto":
        return "bfloat16" if requested == "bfloat16" else "float32"
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type == "cpu":
        return cast(FloatPrecision, _fastest("float32", "bfloat16"))
    return "float32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Return the context in which a network is computed in a precision.

    Args:
        device: where the network runs.
        precision: one of the formats.

    Returns:
        An autocast context, disabled but for bfloat16.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def should_use_int8(requested: str, network: nn.Module, device: torch.device, n_pixels: int) -> bool:
    """Return whether int8 is worth the calibration for an image.

    Args:
        requested: one of `PRECISIONS`. With ``int8`` size and speed do not matter.
        network: denoiser.
        device: where it runs.
        n_pixels: size of the image.
    """
    if requested not in ("auto", "int8") or device.type != "cpu" or not any(find_int8_blocks(network)):
        return False
    return requested == "int8" or (n_pixels >= MIN_PIXELS and _fastest("float32", "bfloat16", "int8") == "int8")


@cache
@inference()
def measure_seconds() -> dict[Precision, float]:
    """Measure a residual block in each precision that this CPU has instructions for.

    This takes some tens of milliseconds, once per process. One thread runs it: several would wait for each other where
    other processes keep the cores busy.

    Returns:
        Seconds per precision, the shortest of some runs; ``float32`` is always among them.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        networks, x = _benchmark_networks()
        seconds = dict.fromkeys(networks, float("inf"))
        deadline = time.perf_counter() + MAX_SECONDS
        for run in range(MAX_RUNS):
            if run >= MIN_RUNS and time.perf_counter() > deadline:
                break
            for precision, network in networks.items():  # in turn, so that other work on the machine slows all
                with autocast(x.device, precision):
                    start = time.perf_counter()
                    network(x)
                    seconds[precision] = min(seconds[precision], time.perf_counter() - start)
    finally:
        torch.set_num_threads(n_threads)
    return seconds


def _benchmark_networks() -> tuple[dict[Precision, nn.Module], Tensor]:
    """A residual block in each precision that this CPU has instructions for, and an input."""
    with torch.random.fork_rng(devices=[]):
        channels = BLOCK_SHAPE[1]
        block = ResidualBlock(
            2, channels, dilation=1, bias=False, activation="relu", norm=False, pointwise=True
        ).float()
        x = torch.randn(BLOCK_SHAPE, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    networks: dict[Precision, nn.Module] = {"float32": nn.Sequential(block)}
    if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        networks["bfloat16"] = networks["float32"]
    if has_exact_int8():
        networks["int8"] = quantise_network(networks["float32"], x)
    return networks, x


def _fastest(*precisions: Precision) -> Precision:
    """The fastest of some formats, from the most exact on, each `MIN_SPEEDUP` times as fast as the one before."""
    seconds = measure_seconds()
    best = precisions[0]
    for precision in precisions[1:]:
        if precision in seconds and seconds[precision] * MIN_SPEEDUP <= seconds[best]:
            best = precision
    return best
