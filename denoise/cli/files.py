"""The loop over files that `denoise audio`, `image` and `points` share: progress, messages and the exit code."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from os.path import exists
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TextIO

import typer

from denoise.cli.output import make_progress_bar, print_error, print_line
from denoise.errors import ConfigError, DenoiseError, InputError, describe_unexpected

if TYPE_CHECKING:
    from denoise.pipelines.result import Result
    from denoise.protocols import Progress

Source = str | Path | BinaryIO


class DenoiseFile(Protocol):
    """A function that denoises one file."""

    def __call__(self, source: Source, target: Source, progress: Progress, name: str | None) -> Result:
        """Denoise a file.

        Args:
            source: path or stream to read.
            target: path or stream to write.
            progress: callback for the fraction done.
            name: name of the source in messages, None for its path.
        """


@dataclass(frozen=True)
class BatchOptions:
    """Options of a run over several files.

    Args:
        overwrite: whether existing outputs are replaced.
        skip_existing: whether inputs with an existing output are skipped, to resume an interrupted run.
        as_json: whether one line of JSON is printed per file.

    Raises:
        ConfigError: ``overwrite`` and ``skip_existing`` are both set.
    """

    overwrite: bool = False
    skip_existing: bool = False
    as_json: bool = False

    def __post_init__(self) -> None:
        if self.skip_existing and self.overwrite:
            raise ConfigError("--skip-existing and --overwrite exclude each other. Give one of them.")


def denoise_files(
    inputs: list[str], out: str | None, extensions: Iterable[str], denoise_file: DenoiseFile, options: BatchOptions
) -> None:
    """Denoise every planned pair of files; report a file that fails and continue with the next.

    Args:
        inputs: files, folders, or ``-`` for standard input.
        out: file, folder, ``-`` for standard output, or None for files beside the inputs.
        extensions: extensions of the files that are read from folders.
        denoise_file: the function that denoises one file.
        options: options of the run.

    Raises:
        typer.Exit: with code 1 if a file failed.
    """
    from denoise.pipelines.batch import STREAM, count_skipped, plan

    pairs = plan(inputs, out, extensions, overwrite=options.overwrite)
    report_skipped(count_skipped(inputs, out, extensions))
    failed = skipped = 0
    writes_to_stdout = any(target == STREAM for _, target in pairs)
    report = sys.stderr if writes_to_stdout else sys.stdout

    def print_row(row: dict[str, object]) -> None:
        if options.as_json:
            print(json.dumps(row), file=report, flush=True)

    with make_progress_bar() as bar:
        task = bar.add_task("", total=len(pairs))
        for index, (source, target) in enumerate(pairs):
            bar.update(task, description=source, completed=index)
            if options.skip_existing and target != STREAM and exists(target):
                skipped += 1
                print_row({"input": source, "output": target, "skipped": True})
                continue
            name = "standard input" if source == STREAM else None
            try:
                result = denoise_file(
                    _binary_stream(sys.stdin, "standard input") if source == STREAM else source,
                    _binary_stream(sys.stdout, "standard output") if target == STREAM else target,
                    lambda fraction, index=index: bar.update(task, completed=index + fraction),  # type: ignore[misc]
                    name,
                )
            except BrokenPipeError:
                raise  # the reader of standard output has left; the other files are of no use
            except Exception as error:
                failed += 1
                is_foreseen = isinstance(error, DenoiseError)
                message = str(error) if is_foreseen else f"{name or source}: {describe_unexpected(error)}"
                print_error(message)
                print_row({"input": name or source, "output": None, "error": message})
                continue
            for warning in result.warnings:
                print_error(f"warning: {warning}")
            print_row(result.asdict() | ({"output": "-"} if target == STREAM else {}))
            if not options.as_json and not writes_to_stdout:
                print_line(_format_result(result))
    if skipped and not options.as_json:
        print_error(f"{skipped} of {len(pairs)} files skipped: their outputs exist")
    if failed:
        raise typer.Exit(1)


def report_skipped(kinds: Counter[str]) -> None:
    """Print how many files in folders are skipped, if any.

    Args:
        kinds: number of files by kind.
    """
    from denoise.pipelines.batch import list_kinds

    if kinds:
        print_error(f"files are skipped: {list_kinds(kinds)}")


def describe_model(model: str, reason: str, *, is_image: bool) -> str:
    """Return the model of a file and why it was taken, behind a comma; nothing if that goes without saying.

    Args:
        model: name of the model.
        reason: reason of the choice.
        is_image: whether the file is an image, of which the default model is not worth a word.
    """
    from denoise.pipelines.choice import BY_DEFAULT, GIVEN

    return "" if reason == GIVEN or (is_image and reason == BY_DEFAULT) else f", {model} ({reason})"


def _binary_stream(stream: TextIO | None, name: str) -> BinaryIO:
    if stream is None:
        raise InputError(f"{name} is closed. Open it, or give a file in place of -.")
    return stream.buffer


def _format_result(result: Result) -> str:
    from denoise.pipelines.noise_floor import MIN_DB

    unit = {"times_real_time": "x real time", "megapixels_per_s": "MP/s", "points_per_s": "points/s"}[result.speed_unit]
    remarks = []
    if result.noise_unit == "dbfs" and result.noise_before == result.noise_after == MIN_DB:
        remarks.append(", digital silence in the pauses")
    elif result.noise_before is not None:
        noise_unit = {"dbfs": "dBFS", "sigma_255": "of 255", "sigma_percent": "% of the diagonal"}[result.noise_unit]
        after = "" if result.noise_after is None else f" -> {result.noise_after:.1f}"
        remarks.append(f", noise {result.noise_before:.1f}{after} {noise_unit}")
    if result.model is not None:
        remarks.append(
            describe_model(result.model.model, result.model.reason, is_image=result.noise_unit == "sigma_255")
        )
    if result.stereo is not None and not result.stereo.is_linked and result.stereo.correlation is not None:
        remarks.append(f", channels separate (correlation {result.stereo.correlation:.2f})")
    return f"{result.output}  {result.seconds:.1f} s, {result.speed:.3g} {unit}{''.join(remarks)}"
