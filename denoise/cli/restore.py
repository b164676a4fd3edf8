"""Restoration of files by priors, for ``--prior`` and ``--task`` of ``denoise image`` and ``denoise audio``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from denoise.backends.malloc import keep_freed_memory, return_freed_memory
from denoise.cli.files import BatchOptions, denoise_files
from denoise.cli.interrupt import until_interrupted
from denoise.options import AudioRestoreOptions, RestoreOptions

if TYPE_CHECKING:
    from denoise.pipelines.result import Result
    from denoise.protocols import Progress


def restore_images(
    inputs: list[str],
    out: str | None,
    prior: str,
    options: RestoreOptions,
    batch: BatchOptions,
    *,
    device: str,
    tile: int | None,
) -> None:
    """Restore images one after another, with a progress bar and a line each.

    Args:
        inputs: inputs of the command line.
        out: output of the command line.
        prior: name of a prior, or a weights file.
        options: task and settings.
        batch: options of the batch.
        device: as of `RestorePipeline`.
        tile: as of `RestorePipeline`.
    """
    from denoise.files.image import IMAGE_EXTENSIONS
    from denoise.pipelines.restore import RestorePipeline

    pipeline = RestorePipeline(prior, device=device, tile=tile)
    pipeline.check(options)

    def restore_file(source: Any, target: Any, progress: Progress, name: str | None) -> Result:
        return pipeline.file(source, target, options, progress=progress, name=name)

    keep_freed_memory()
    denoise_files(inputs, out, IMAGE_EXTENSIONS, restore_file, batch)


def restore_recordings(
    inputs: list[str],
    out: str | None,
    prior: str | None,
    options: AudioRestoreOptions,
    batch: BatchOptions,
    *,
    device: str,
) -> None:
    """Restore recordings one after another, with a progress bar and a line each.

    Args:
        inputs: inputs of the command line.
        out: output of the command line.
        prior: name of a prior, or a weights file; None for the methods without one.
        options: task and settings.
        batch: options of the batch.
        device: as of `AudioRestorePipeline`.
    """
    from denoise.files.audio import AUDIO_EXTENSIONS
    from denoise.pipelines.restore_audio import AudioRestorePipeline

    pipeline = AudioRestorePipeline(prior, device=device)
    pipeline.check(options)

    def restore_file(source: Any, target: Any, progress: Progress, name: str | None) -> Result:
        with until_interrupted(source) as interruptible:
            return pipeline.file(interruptible, target, options, progress=progress, name=name)

    return_freed_memory()
    denoise_files(inputs, out, AUDIO_EXTENSIONS, restore_file, batch)
