"""Image jobs of the page: one file, denoised into its own format with its metadata, and what the page shows."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

from denoise.backends.malloc import keep_freed_memory, return_freed_memory
from denoise.config import config
from denoise.options import IMAGE_STEPS, DenoiseOptions, parse_sigma
from denoise.pipelines.choice import AUTO
from denoise.pipelines.compare import write_visible
from denoise.pipelines.image import ImagePipeline
from denoise.protocols import Progress
from denoise.registry import bundled
from denoise.web.files import denoise_upload, require_bundled
from denoise.web.jobs import Outcome, Work


@config
class ImageRequest:
    """Query of an image job; the options are those of `denoise.options.DenoiseOptions`.

    Args:
        model: name of a bundled denoiser, or ``"auto"``.
        strength: 0 to 1.
        sigma: ``"auto"``, or a number from 0 to 255.
        luminance: 0 to 1.
        colour: 0 to 1.
        detail: 0 to 1.
        preview: whether PNG files of the input and the output are made for a page to show.
    """

    model: str = AUTO
    strength: float = 1.0
    sigma: str | None = None
    luminance: float = 1.0
    colour: float = 1.0
    detail: float = 0.0
    preview: bool = False

    def options(self) -> DenoiseOptions:
        """Return the options of the run.

        Raises:
            ConfigError: a value is out of range.
        """
        return DenoiseOptions(
            steps=IMAGE_STEPS,
            strength=self.strength,
            sigma=parse_sigma(self.sigma),
            luminance=self.luminance,
            colour=self.colour,
            detail=self.detail,
        )


def plan_image(source: Path, request: ImageRequest) -> Work:
    """Return the work of an image job, after a check of the request.

    Args:
        source: path of the file, alone in its folder.
        request: query of the job.

    Raises:
        ConfigError: an option is out of range, or there is no such bundled model.
    """
    options = request.options()
    require_bundled(request.model, [AUTO, *bundled("denoiser", "image")])
    return partial(_denoise, source, request.model, options, request.preview)


def _denoise(source: Path, model: str, options: DenoiseOptions, preview: bool, progress: Progress) -> Outcome:
    preview_writer = write_visible if preview else None
    pipeline = load_image(model)
    keep_freed_memory()  # as in `denoise image`; the server returns it after each job
    try:
        return denoise_upload(pipeline, source, options, progress, preview_suffix=".png", write_preview=preview_writer)
    finally:
        return_freed_memory()


@lru_cache(maxsize=4)
def load_image(model: str) -> ImagePipeline:
    """Return the pipeline of a model, loaded once. Only the worker calls this."""
    return ImagePipeline(model)
