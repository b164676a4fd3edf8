"""What computes the networks of pipelines, behind `denoise.protocols.ArrayNetwork`: arrays in, arrays out.

A backend is imported when a model is loaded, so that files, frames and pipelines need none of their libraries.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from denoise.protocols import ArrayClassifier, ArrayNetwork, StreamingNetwork

if TYPE_CHECKING:
    from denoise.cards import Card
    from denoise.registry import Modality


def load_network(
    name_or_file: str | Path, *, modality: Modality, device: str = "auto", precision: str = "float32"
) -> tuple[ArrayNetwork, Card]:
    """Load a denoiser, or a prior of images that is applied as one.

    Args:
        name_or_file: bundled name, or path of a weights file.
        modality: modality that it must be for.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        precision: number format of images, as of `denoise.pipelines.image.ImagePipeline`.

    Returns:
        The network and its card.

    Raises:
        ConfigError: the model is unknown, no denoiser or for the other modality, or the device is not available.
        WeightsError: the weights file is missing or damaged.
    """
    from denoise.backends import torch

    return torch.load_network(name_or_file, modality=modality, device=device, precision=precision)


def load_classifier(name_or_file: str | Path) -> ArrayClassifier:
    """Load a classifier of audio, on the CPU.

    Args:
        name_or_file: bundled name, or path of a weights file.

    Raises:
        ConfigError: the model is unknown or no classifier of audio.
        WeightsError: the weights file is missing or damaged.
    """
    from denoise.backends import torch

    return torch.load_classifier(name_or_file)


def adapt(network: StreamingNetwork) -> ArrayNetwork:
    """Return a network of torch as one of arrays, on the device of its parameters."""
    from denoise.backends import torch

    return torch.adapt(network)
