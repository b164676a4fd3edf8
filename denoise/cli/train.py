"""``denoise train``."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from denoise.cli.malloc import keep_freed_memory
from denoise.cli.shared import Device
from denoise.errors import ConfigError


class Precision(StrEnum):
    AUTO = "auto"
    BF16 = "bf16-mixed"
    FLOAT32 = "32-true"


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe.toml.", metavar="RECIPE")],
    data: Annotated[Path, typer.Option(help="The folder that the recipe's folders are in.", metavar="DIR")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Default: runs/NAME.", metavar="DIR")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Override, e.g. schedule.steps=500.", metavar="KEY=VALUE")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Time budget; the schedule is fitted to it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    device: Device = "auto",
    precision: Annotated[
        Precision, typer.Option(help="auto is bfloat16 where the machine multiplies it fast.")
    ] = Precision.AUTO,
) -> None:
    """Train a recipe and write NAME.safetensors, metrics.jsonl and samples.

    Several processes or nodes, each with a batch of its own: fabric run --devices 4 -- $(which denoise) train ...
    """
    try:
        from denoise.training.loop import train as run
    except ImportError:
        raise ConfigError('training needs more packages. In the source: pip install ".[train]".') from None
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from denoise.pipelines.device import pick_device, precision_of
    from denoise.training.recipe import load_recipe

    fast = precision_of(pick_device(device)) == "bfloat16"
    if precision is Precision.AUTO:
        precision = Precision.BF16 if fast else Precision.FLOAT32
    what = load_recipe(recipe, settings or ())
    if not data.is_dir():
        raise ConfigError(f"{data}: not a folder. Give --data the folder that holds the training data.")
    if minutes is not None and not minutes > 0:
        raise ConfigError(f"--minutes is {minutes:g}; expected more than 0.")
    keep_freed_memory()
    folder = out or Path("runs") / what.name
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    first = os.environ.get("RANK", "0") == "0"  # of the processes that a launcher has started
    with Progress(*columns, console=console, disable=not (console.is_terminal and first)) as bar:
        task = bar.add_task(what.name, total=1.0)

        def report(row: dict[str, Any]) -> None:
            bar.update(task, completed=row["progress"])
            numbers = {k: v for k, v in row.items() if k not in ("progress", "lr", "step")}
            line = "  ".join(f"{key} {value:.4g}" for key, value in numbers.items())
            bar.console.print(f"step {row['step']:>6}  {line}", highlight=False, soft_wrap=True)

        path = run(
            what, data, folder, minutes=minutes, resume=resume, device=device, precision=precision.value, report=report
        )
    if first:
        print(path)
