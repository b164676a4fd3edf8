"""Files of the jobs of the page: what a job writes, and which models it may name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from denoise.errors import ConfigError
from denoise.files.names import output_suffix
from denoise.options import DenoiseOptions
from denoise.pipelines.result import Result
from denoise.protocols import Progress
from denoise.web.jobs import OUT, Outcome


class FilePipeline(Protocol):
    """A pipeline that denoises files."""

    def denoise_file(self, source: Path, target: Path, options: DenoiseOptions, *, progress: Progress | None) -> Result:
        """Denoise a file."""


def denoise_upload(
    pipeline: FilePipeline,
    source: Path,
    options: DenoiseOptions,
    progress: Progress,
    *,
    preview_suffix: str,
    write_preview: Callable[[Path, Path], None] | None,
) -> Outcome:
    """Denoise the file of a job, and write files of the input and the output that a page can show.

    Args:
        pipeline: of the model.
        source: path of the file, alone in its folder.
        options: options of the run.
        progress: called with the finished fraction, 0 to 1.
        preview_suffix: suffix of what ``write_preview`` writes.
        write_preview: writes the preview of a path to another; None writes none.
    """
    target = output_path(source)
    result = pipeline.denoise_file(source, target, options, progress=progress)
    files = {"output": target}
    if write_preview is not None:
        for word, path in (("before", source), ("after", target)):
            files[word] = target.parent / f"{word}{preview_suffix}"
            write_preview(path, files[word])
    return Outcome(files, result.asdict())


def output_path(source: Path) -> Path:
    """Return the path of the output of a job: the name that the command line gives, in a folder of its own."""
    return source.parent / OUT / f"{source.stem}.denoised{output_suffix(source)}"


def require_bundled(model: str, names: list[str]) -> None:
    """Refuse any model but bundled ones, as a path could be any file of the server.

    Args:
        model: name that was requested.
        names: names that are allowed.

    Raises:
        ConfigError: the model is none of them.
    """
    if model not in names:
        raise ConfigError(f"model {model!r} is unknown; expected one of {', '.join(names)}.")
