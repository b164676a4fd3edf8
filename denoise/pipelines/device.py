"""Where a network runs and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from denoise.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``mps`` into a device that is there.

    Raises:
        ConfigError: the name is unknown or the device is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    if not there.get(name, False):
        usable = ", ".join(kind for kind, usable in there.items() if usable)
        raise ConfigError(f"device {name!r} is not available here; expected auto, {usable}.")
    return torch.device(name)


def precision_of(device: torch.device) -> str:
    """What `autocast` computes in."""
    with autocast(device):
        return "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Bfloat16 where the machine multiplies it fast, else nothing.

    On a CPU that takes AMX; AVX-512's own instructions for bfloat16 were measured to be slower than float32.
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, torch.bfloat16) if fast else nullcontext()


def as_numpy(x: Tensor) -> NDArray[Any]:
    """A tensor of any device as an array; NumPy has no bfloat16, which float32 holds exactly."""
    x = x.detach().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
