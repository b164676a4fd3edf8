"""What `denoise audio` and `denoise image` share: the loop over files, the bar, the lines, the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from os.path import exists
from typing import TYPE_CHECKING, Any

import typer

from denoise.cli.malloc import return_freed_memory
from denoise.cli.shared import reason
from denoise.errors import ConfigError, DenoiseError
from denoise.protocols import Progress

if TYPE_CHECKING:
    from denoise.pipelines.result import Result

One = Callable[[Any, Any, Progress, str | None], "Result"]


def run(
    inputs: list[str],
    out: str | None,
    extensions: Iterable[str],
    one: One,
    *,
    overwrite: bool,
    skip_existing: bool,
    as_json: bool,
    memory: Callable[[], None] = return_freed_memory,
) -> None:
    """Denoise every planned pair; a file that fails is told and the others go on.

    ``skip_existing`` takes an output that is there for done: a run that was broken off goes on.

    ``one(source, target, progress, name)`` does the work, and ``memory`` says how the C library treats what is freed
    (see `denoise.cli.malloc`). Exit code 1 if any file failed.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from denoise.pipelines.batch import STREAM, passed_over, plan

    memory()
    if skip_existing and overwrite:
        raise ConfigError("--skip-existing and --overwrite exclude each other.")
    pairs = plan(inputs, out, extensions, overwrite=overwrite)
    if others := passed_over(inputs, extensions):
        kinds = ", ".join(f"{kind} {n}" for kind, n in others.most_common(8))
        print(f"denoise: files of other kinds are passed over: {kinds}", file=sys.stderr)
    failed = skipped = 0
    to_stdout = any(target == STREAM for _, target in pairs)
    lines = sys.stderr if to_stdout else sys.stdout
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    console = Console(stderr=True)
    with Bar(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(pairs))
        for i, (source, target) in enumerate(pairs):
            bar.update(task, description=source, completed=i)
            stream_in, stream_out = source == STREAM, target == STREAM
            if skip_existing and not stream_out and exists(target):
                skipped += 1
                if as_json:
                    print(json.dumps({"input": source, "output": target, "skipped": True}), file=lines, flush=True)
                continue
            name = "standard input" if stream_in else None
            try:
                result = one(
                    sys.stdin.buffer if stream_in else source,
                    sys.stdout.buffer if stream_out else target,
                    lambda done, i=i: bar.update(task, completed=i + done),  # type: ignore[misc]
                    name,
                )
            except BrokenPipeError:
                raise  # the reader of our output has left: nobody waits for the other files
            except Exception as error:
                failed += 1
                told = str(error) if isinstance(error, DenoiseError) else f"{name or source}: {reason(error)}"
                print(f"denoise: {told}", file=sys.stderr)
                if as_json:
                    print(json.dumps({"input": name or source, "output": None, "error": told}), file=lines, flush=True)
                continue
            for warning in result.warnings:
                print(f"denoise: warning: {warning}", file=sys.stderr)
            row = result.asdict() | ({"output": "-"} if stream_out else {})
            if as_json:
                print(json.dumps(row), file=lines, flush=True)
            elif not to_stdout:
                print(_line(result), flush=True)
    if skipped and not as_json:
        print(f"denoise: {skipped} of {len(pairs)} done already", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _line(result: Result) -> str:
    unit = {"times_real_time": "x real time", "megapixels_per_s": "MP/s"}[result.speed_unit]
    return f"{result.output}  {result.seconds:.1f} s, {result.speed:.3g} {unit}"
