"""The pipelines, `AudioPipeline`, `ImagePipeline` and `PriorPipeline`, and `load` for any by a model's name."""

from pathlib import Path

from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.image import ImagePipeline
from denoise.pipelines.prior import PriorPipeline
from denoise.registry import locate
from denoise.weights import read_header

__all__ = ["AudioPipeline", "ImagePipeline", "PriorPipeline", "load"]


def load(name_or_file: str | Path, *, device: str = "auto") -> AudioPipeline | ImagePipeline | PriorPipeline:
    """Load a ready pipeline by a bundled model's name or a weights file.

    Raises:
        ConfigError: the name is unknown.
        WeightsError: the file is missing, damaged or of another make.
    """
    card = read_header(locate(name_or_file))["card"]
    if card.kind == "prior":
        return PriorPipeline(name_or_file, device=device)
    return (AudioPipeline if card.modality == "audio" else ImagePipeline)(name_or_file, device=device)
