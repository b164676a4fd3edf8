"""The command line. Only this package knows typer and rich; torch is imported when a command runs."""

from __future__ import annotations

import io
import os
import signal
import sys

import typer

from denoise.cli import audio, evaluate, image, interpolate, models, sample, score, train
from denoise.cli.shared import reason
from denoise.errors import DenoiseError

app = typer.Typer(
    name="denoise",
    help="Remove noise from recordings and pictures, offline; sample priors; train the models of both.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("audio")(audio.audio)
app.command("image")(image.image)
app.command("sample")(sample.sample)
app.command("interpolate")(interpolate.interpolate)
app.command("complete")(sample.complete)
app.command("decode")(sample.decode)
app.command("embed")(score.embed)
app.command("score")(score.score)
app.command("models")(models.models)
app.command("info")(models.info)
app.command("evaluate")(evaluate.evaluate)
app.command("train")(train.train)


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if show:
        from denoise import __version__

        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; an error is one line on standard error, never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text that a terminal can show
        sys.stdout.reconfigure(errors="backslashreplace")
    # a scheduler's kind way of stopping: unfinished files are removed, as after Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where it can be told that it fails
    except DenoiseError as error:
        print(f"denoise: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is not None:  # a place that a path names
            print(f"denoise: {error.filename}: {error.strerror}. Check the path.", file=sys.stderr)
            sys.exit(1)
        if error.errno is None:  # of a library that could not be loaded
            print(f"denoise: {error}", file=sys.stderr)
            sys.exit(1)
        # Python flushes standard output once more when it exits, and would complain once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"denoise: standard output: {error.strerror}. Free space.", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        print(f"denoise: {reason(error)}", file=sys.stderr)
        sys.exit(1)
