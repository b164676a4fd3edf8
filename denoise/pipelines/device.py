"""Where a network runs and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

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


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Bfloat16 where the machine multiplies it fast, else nothing."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return torch.autocast(device.type, torch.bfloat16) if fast else nullcontext()
