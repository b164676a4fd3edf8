"""Devices that networks run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from denoise.errors import ConfigError
from denoise.protocols import Device


def pick_device(name: Device) -> torch.device:
    """Return an available device.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"``, the first available of cuda, mps and cpu; or a device.

    Returns:
        The device.

    Raises:
        ConfigError: the name is unknown or the device is not available.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if isinstance(name, torch.device) and available.get(name.type, False):
        return name
    name = str(name)
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if not available.get(name, False):
        usable = ", ".join(kind for kind, is_available in available.items() if is_available)
        raise ConfigError(f"device {name!r} is not available here; expected auto, {usable}.")
    return torch.device(name)


@contextmanager
def cpu_by_default() -> Iterator[None]:
    """Create tensors on the CPU where the code names no device, in this thread, whatever the default of torch is."""
    with nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu"):
        yield


@contextmanager
def inference() -> Iterator[None]:
    """Compute in inference mode and with `cpu_by_default`."""
    with torch.inference_mode(), cpu_by_default():
        yield


def as_numpy(x: Tensor) -> NDArray[Any]:
    """Return a tensor of any device as an array; NumPy has no bfloat16, whose values float32 holds exactly.

    Args:
        x: any tensor.

    Returns:
        An array of the same shape.
    """
    x = x.detach().cpu().resolve_conj().resolve_neg()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
