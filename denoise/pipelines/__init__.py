"""The two domain pipelines: `AudioPipeline` and `ImagePipeline`, and `load` for either by a model's name."""

from pathlib import Path

from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.image import ImagePipeline
from denoise.registry import locate
from denoise.weights import read_header

__all__ = ["AudioPipeline", "ImagePipeline", "load"]


def load(name_or_file: str | Path, *, device: str = "auto") -> AudioPipeline | ImagePipeline:
    """Load a ready pipeline by a bundled model's name or a weights file.

    Raises:
        ConfigError: the name is unknown.
        WeightsError: the file is missing, damaged or of another make.
    """
    modality = read_header(locate(name_or_file))["card"].modality
    return (AudioPipeline if modality == "audio" else ImagePipeline)(name_or_file, device=device)
