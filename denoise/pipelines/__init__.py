"""Pipelines of audio, of images and of priors, and `load` for any of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, overload

from denoise.cards import read_header
from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.image import ImagePipeline
from denoise.protocols import Device
from denoise.registry import locate

if TYPE_CHECKING:
    from denoise.pipelines.prior import PriorPipeline

__all__ = ["AudioPipeline", "ImagePipeline", "load"]


AudioModel = Literal["general", "speech", "speech-best", "speech-flow", "vae-audio"]
ImageModel = Literal["gaussian", "photo", "vae-image"]
PriorModel = Literal[
    "digits-audio", "digits-audio-flow", "flowers", "mnist-aae", "mnist-diffusion", "mnist-flow", "mnist-gan",
    "mnist-matching", "mnist-pixelcnn", "mnist-vae", "patch-flow", "shapes", "speech-prior",
]  # fmt: skip
ClassifierModel = Literal["audio-kind"]


@overload
def load(name_or_file: AudioModel, *, device: Device = "auto") -> AudioPipeline: ...
@overload
def load(name_or_file: ImageModel, *, device: Device = "auto") -> ImagePipeline: ...
@overload
def load(name_or_file: PriorModel, *, device: Device = "auto") -> PriorPipeline: ...
@overload
def load(name_or_file: ClassifierModel, *, device: Device = "auto") -> NoReturn: ...
@overload
def load(name_or_file: str | Path, *, device: Device = "auto") -> AudioPipeline | ImagePipeline | PriorPipeline: ...
def load(name_or_file: str | Path, *, device: Device = "auto") -> AudioPipeline | ImagePipeline | PriorPipeline:
    """Load the pipeline of a model.

    Args:
        name_or_file: name of a bundled model or path of a weights file.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``, or a device of torch.

    Returns:
        The pipeline for the modality and the kind of the model.

    Raises:
        ConfigError: the name is unknown, or that of a classifier.
        WeightsError: the file is missing, damaged or of another make.
    """
    card = read_header(locate(name_or_file))["card"]
    if card.kind == "prior":
        from denoise.pipelines.prior import PriorPipeline  # not imported for denoising

        return PriorPipeline(name_or_file, device=device)
    return (AudioPipeline if card.modality == "audio" else ImagePipeline)(name_or_file, device=device)
