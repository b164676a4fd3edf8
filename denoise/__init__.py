"""Audio and image denoising, generative priors, and the recipes that train the models.

All names are imported on first use, so that ``import denoise`` and ``denoise --help`` stay quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from denoise.errors import ConfigError, DenoiseError, InputError, WeightsError
    from denoise.options import AudioRestoreOptions, RestoreOptions
    from denoise.pipelines import AudioPipeline, ImagePipeline, load
    from denoise.pipelines.arrays import denoise_audio, denoise_image, denoise_points
    from denoise.pipelines.batch.journal import Record
    from denoise.pipelines.batch.run import Batch, BatchSettings, open_batch
    from denoise.pipelines.prior import PriorPipeline
    from denoise.pipelines.restore import RestorePipeline
    from denoise.pipelines.restore_audio import AudioRestorePipeline
    from denoise.pipelines.result import Result
    from denoise.pipelines.stream import AudioStream
    from denoise.registry import bundled

__version__ = "0.2.0"

__all__ = [
    "AudioPipeline",
    "AudioRestoreOptions",
    "AudioRestorePipeline",
    "AudioStream",
    "Batch",
    "BatchSettings",
    "ConfigError",
    "DenoiseError",
    "ImagePipeline",
    "InputError",
    "PriorPipeline",
    "Record",
    "RestoreOptions",
    "RestorePipeline",
    "Result",
    "WeightsError",
    "__version__",
    "bundled",
    "denoise_audio",
    "denoise_image",
    "denoise_points",
    "load",
    "open_batch",
]

_MODULES = {
    "AudioPipeline": "denoise.pipelines",
    "AudioStream": "denoise.pipelines.stream",
    "Batch": "denoise.pipelines.batch.run",
    "BatchSettings": "denoise.pipelines.batch.run",
    "ImagePipeline": "denoise.pipelines",
    "PriorPipeline": "denoise.pipelines.prior",
    "AudioRestoreOptions": "denoise.options",
    "AudioRestorePipeline": "denoise.pipelines.restore_audio",
    "RestoreOptions": "denoise.options",
    "RestorePipeline": "denoise.pipelines.restore",
    "Result": "denoise.pipelines.result",
    "load": "denoise.pipelines",
    "denoise_audio": "denoise.pipelines.arrays",
    "denoise_image": "denoise.pipelines.arrays",
    "denoise_points": "denoise.pipelines.arrays",
    "bundled": "denoise.registry",
    "open_batch": "denoise.pipelines.batch.run",
    "Record": "denoise.pipelines.batch.journal",
    "DenoiseError": "denoise.errors",
    "InputError": "denoise.errors",
    "ConfigError": "denoise.errors",
    "WeightsError": "denoise.errors",
}


if not TYPE_CHECKING:  # which would take every name for one of the package

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module 'denoise' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value


def __dir__() -> list[str]:
    return __all__
