"""What computes the networks of pipelines, behind `denoise.protocols.ArrayNetwork`: arrays in, arrays out.

A backend is imported when a model is loaded, so that files, frames and pipelines need none of their libraries.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from os.path import exists
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from denoise.errors import ConfigError
from denoise.options import BACKENDS, Backend
from denoise.protocols import ArrayClassifier, ArrayNetwork, Device, StreamingNetwork
from denoise.registry import check_name

if TYPE_CHECKING:
    from denoise.cards import Card
    from denoise.registry import Modality


GPU_DRIVERS = ("/proc/driver/nvidia/version", "/dev/nvhost-gpu", "/dev/kfd", "/dev/dxg")
"""Files of the drivers of NVIDIA on servers and on Jetson, of AMD, and of Windows under Linux."""


def load_network(
    name_or_file: str | Path,
    *,
    modality: Modality,
    device: Device = "auto",
    precision: str = "float32",
    backend: str = "auto",
) -> tuple[ArrayNetwork, Card]:
    """Load a denoiser, or a prior of images that is applied as one.

    Args:
        name_or_file: bundled name, or path of a weights file or of one of `denoise export`.
        modality: modality that it must be for.
        device: see `denoise.protocols.Device`.
        precision: number format of images, as of `denoise.pipelines.image.ImagePipeline`.
        backend: one of `BACKENDS`.

    Returns:
        The network and its card.

    Raises:
        ConfigError: the model is unknown, no denoiser or for the other modality, the backend does not support it or
            the precision, or the device is not available.
        WeightsError: the weights file is missing or damaged.
    """
    if pick_backend(name_or_file, device, backend) == "onnx":
        if precision not in ("auto", "float32"):
            raise ConfigError(f"precision is {precision!r}; backend onnx computes in float32. Use backend torch.")
        from denoise.backends.onnx import load

        return load.load_network(name_or_file, modality=modality)
    with _reporting_that_torch_is_missing():
        from denoise.backends import torch

    return torch.load_network(name_or_file, modality=modality, device=device, precision=precision)


def pick_backend(name_or_file: str | Path, device: Device, backend: str) -> Literal["torch", "onnx"]:
    """Return the backend of a model.

    Args:
        name_or_file: as in `load_network`.
        device: as in `load_network`.
        backend: as in `load_network`.

    Raises:
        ConfigError: the backend is unknown, or does not run the model or on the device.
    """
    check_name(name_or_file)
    if backend not in BACKENDS:
        raise ConfigError(f"backend is {backend!r}; expected {', '.join(BACKENDS)}.")
    is_exported = Path(name_or_file).suffix == ".onnx"
    if is_exported and backend == "torch":
        raise ConfigError(f"{name_or_file}: is an exported model, which torch does not run; use backend onnx.")
    if not is_exported and backend != "onnx":
        return "torch"
    if str(device) not in ("auto", "cpu"):
        raise ConfigError(f"device is {str(device)!r}; backend onnx runs on the cpu. Use backend torch.")
    return "onnx"


def prefer_exported(models: Iterable[str | Path], device: Device) -> Backend:
    """Return ``"onnx"`` if onnxruntime can take the place of torch on the CPU at once, and else ``"auto"``.

    For audio it needs a fifth of the time and memory of a whole process, as torch is not even imported.

    Args:
        models: bundled names or files of all models of a run.
        device: as in `load_network`.
    """
    from denoise.backends.onnx.load import is_cached

    if is_certain_cpu(device) and find_spec("onnxruntime") is not None and all(map(is_cached, models)):
        return "onnx"
    return "auto"


def is_certain_cpu(device: Device) -> bool:
    """Return whether a run is on the CPU for certain, without torch, which alone knows the others.

    Whether there is a GPU is told by its driver, which is known for Linux.

    Args:
        device: as in `load_network`.
    """
    may_have_gpu = sys.platform != "linux" or any(map(exists, GPU_DRIVERS))
    return str(device) == "cpu" or (device == "auto" and not may_have_gpu)


def load_classifier(name_or_file: str | Path, *, backend: str = "auto") -> ArrayClassifier:
    """Load a classifier of audio, on the CPU.

    Args:
        name_or_file: bundled name, or path of a weights file or of one of `denoise export`.
        backend: one of `BACKENDS`.

    Raises:
        ConfigError: the model is unknown or no classifier of audio.
        WeightsError: the weights file is missing or damaged.
    """
    if pick_backend(name_or_file, "cpu", backend) == "onnx":
        from denoise.backends.onnx import load

        return load.load_classifier(name_or_file)
    with _reporting_that_torch_is_missing():
        from denoise.backends import torch

    return torch.load_classifier(name_or_file)


@contextmanager
def _reporting_that_torch_is_missing() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is missing. Install it, or take a model that has been exported, with backend onnx."
        ) from None


def adapt(network: StreamingNetwork) -> ArrayNetwork:
    """Return a network of torch as one of arrays, on the device of its parameters."""
    from denoise.backends import torch

    return torch.adapt(network)
