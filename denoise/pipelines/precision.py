"""Number format that an image network is computed in: float32, bfloat16 or 8-bit integers.

``auto`` selects by a measurement on this machine. Flags of the processor only show which formats it has instructions
for: whether these are faster than float32 differs between processors with the same flags.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from denoise.errors import ConfigError
from denoise.nn.blocks import ResidualBlock
from denoise.nn.int8 import find_int8_blocks, has_exact_int8, quantise_network
from denoise.signals import Image

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

MAX_SIGMA = 12.0
"""Noise up to which int8 is used, of 255. Above, its rounding would differ between tiles by more than 1 of 255."""

MAX_RMS_CHANGE = 0.25
"""Greatest difference of int8 from float32 in any square, of 255. Rounding to an 8-bit file causes 0.29 by itself."""

RMS_CHANGE_BASE, RMS_CHANGE_BY_NOISE = 0.06, 0.018
"""Greatest such difference without noise, of 255, and its growth with the noise: clean areas show the steps first."""

SQUARE_SIDE = 128
CALIBRATION_SQUARES, CHECK_SQUARES = 16, 6

ToInputs = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Turn 8-bit pixels, (batch, channels, height, width), into the inputs of a network."""


class PreparedNetwork(NamedTuple):
    """A network and the number format to compute it in."""

    network: nn.Module
    precision: Precision


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
        precision: as `PreparedNetwork` holds it.

    Returns:
        An autocast context, disabled but for bfloat16.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def should_use_int8(requested: str, network: nn.Module, device: torch.device, image: Image) -> bool:
    """Return whether int8 is worth the calibration for an image, as far as is known without computing anything.

    Args:
        requested: one of `PRECISIONS`. With ``int8`` size and speed do not matter.
        network: denoiser.
        device: where it runs.
        image: noisy image. It must have 8 bits and no hidden pixels.

    Returns:
        Whether `quantise_for` should be tried, if sigma is at most `MAX_SIGMA`.
    """
    x = image.pixels
    if requested not in ("auto", "int8") or device.type != "cpu":
        return False
    if x.dtype != np.uint8 or image.visible is not None or min(x.shape[:2]) < SQUARE_SIDE:
        return False
    if not any(find_int8_blocks(network)):
        return False
    return requested == "int8" or (x[..., 0].size >= MIN_PIXELS and _fastest("float32", "bfloat16", "int8") == "int8")


@torch.inference_mode()
def quantise_for(network: nn.Module, image: Image, to_inputs: ToInputs, noise_255: float) -> nn.Module | None:
    """Quantise a network to int8 for one image.

    It is calibrated with the squares of most contrast, and compared with float32 on squares of all kinds: beside text
    or dithering, which need a wide range, the steps of the integers are coarse for smooth areas.

    Args:
        network: denoiser.
        image: noisy 8-bit image.
        to_inputs: see `ToInputs`.
        noise_255: standard deviation of the noise of the image, of 255.

    Returns:
        The quantised network, or None if it differs from ``network`` by more than `MAX_RMS_CHANGE`, or by too much for
        noise so weak.
    """
    squares = _squares_by_contrast(image.pixels)
    quantised = quantise_network(network, *to_inputs(_stack(squares[-CALIBRATION_SQUARES:])))
    x, sigma = to_inputs(_stack(squares[:: max(1, len(squares) // CHECK_SQUARES)]))
    rms_change = (quantised(x, sigma) - network(x, sigma)).square().mean(dim=(1, 2, 3)).sqrt()
    max_change = min(MAX_RMS_CHANGE, RMS_CHANGE_BASE + RMS_CHANGE_BY_NOISE * noise_255)
    return quantised if 255 * float(rms_change.max()) <= max_change else None


@cache
@torch.inference_mode()
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
        block = ResidualBlock(2, channels, dilation=1, bias=False, activation="relu", norm=False, pointwise=True)
        x = torch.randn(BLOCK_SHAPE).contiguous(memory_format=torch.channels_last)
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


def _squares_by_contrast(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """Squares that cover an image, (height, width, channels), in ascending order of their greatest deviation."""
    rows, columns = ([*range(0, size - SQUARE_SIDE, SQUARE_SIDE), size - SQUARE_SIDE] for size in pixels.shape[:2])
    squares = [pixels[i : i + SQUARE_SIDE, j : j + SQUARE_SIDE] for i in rows for j in columns]
    # every fourth row and column suffice, in a tenth of the time
    return sorted(squares, key=lambda x: float(x[::4, ::4].std(axis=(0, 1), dtype=np.float32).max()))


def _stack(squares: list[NDArray[Any]]) -> Tensor:
    """A batch (n, channels, height, width) of squares (height, width, channels)."""
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
