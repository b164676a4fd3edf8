"""Pipelines of audio, of images and of priors, and `load` for any of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from denoise.cards import read_header
from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.image import ImagePipeline
from denoise.registry import locate

if TYPE_CHECKING:
    from denoise.pipelines.prior import PriorPipeline

__all__ = ["AudioPipeline", "ImagePipeline", "load"]


def load(name_or_file: str | Path, *, device: str = "auto") -> AudioPipeline | ImagePipeline | PriorPipeline:
    """Load the pipeline of a model.

    Args:
        name_or_file: name of a bundled model or path of a weights file.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.

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
