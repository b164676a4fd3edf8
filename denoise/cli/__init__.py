"""The command line. Only this package imports typer and rich; torch is imported when a command runs."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from denoise.cli import audio, batch, evaluate, export, image, interpolate, models, points, sample, score, train, web
from denoise.cli.completion import Command, Group
from denoise.cli.interrupt import stop_on_signals
from denoise.cli.output import print_error
from denoise.errors import DenoiseError, TrainingError, describe_unexpected

app = typer.Typer(
    name="denoise",
    cls=Group,
    no_args_is_help=True,
    add_completion=True,
    context_settings={"max_content_width": 100},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help and errors are plain text: markup would remove words in [brackets]
)
COMMANDS: dict[str, Callable[..., None]] = {
    "audio": audio.audio,
    "image": image.image,
    "points": points.points,
    "batch": batch.batch,
    "sample": sample.sample,
    "interpolate": interpolate.interpolate,
    "complete": sample.complete,
    "decode": sample.decode,
    "embed": score.embed,
    "score": score.score,
    "models": models.models,
    "info": models.info,
    "evaluate": evaluate.evaluate,
    "export": export.export,
    "train": train.train,
    "web": web.web,
}
for name, function in COMMANDS.items():
    summary = (function.__doc__ or "").partition("\n")[0]
    app.command(name, cls=Command, short_help=summary)(function)


@app.callback(invoke_without_command=True)
def print_version(
    is_requested: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Remove noise from audio, images and point clouds, sample generative priors, and train the models."""
    if is_requested:
        from denoise import __version__

        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; report an error as one line on standard error, without a traceback."""
    _open_closed_descriptors()
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    stop_on_signals()
    try:
        try:
            app(prog_name="denoise")
        finally:
            if sys.stdout is not None:  # None if it is closed
                sys.stdout.flush()  # so that an error of standard output is reported below
    except DenoiseError as error:
        print_error(str(error))
        sys.exit(1 if isinstance(error, TrainingError) else 2)
    except OSError as error:
        _report_os_error(error)
        sys.exit(1)
    except Exception as error:
        print_error(describe_unexpected(error))
        sys.exit(1)


def _open_closed_descriptors() -> None:
    """Open closed standard descriptors on the null device, so that no file takes their numbers and receives prints.

    `sys.stdin` and `sys.stdout` stay None if they are closed; `print` would send errors to standard output if
    `sys.stderr` did.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")


def _report_os_error(error: OSError) -> None:
    if error.filename is not None:
        print_error(f"{error.filename}: {error.strerror}. Check the path.")
        return
    if error.errno is None:  # a shared library could not be loaded
        print_error(str(error))
        return
    if sys.stdout is not None:  # Python flushes it again at exit and would print the error again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not isinstance(error, BrokenPipeError):
        print_error(f"standard output: {error.strerror}. Free space.")
