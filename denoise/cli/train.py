"""``denoise train``."""

from __future__ import annotations

import os
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from denoise.cli.output import make_progress_bar, print_error
from denoise.cli.params import DeviceOption
from denoise.errors import ConfigError


class Precision(StrEnum):
    """Numerical precision of a training run, named as in Lightning Fabric."""

    AUTO = "auto"
    BF16 = "bf16-mixed"
    FLOAT32 = "32-true"


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe file, recipe.toml.", metavar="RECIPE")],
    data: Annotated[Path, typer.Option(help="Root of the data folders that the recipe names.", metavar="DIR")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Default: runs/NAME.", metavar="DIR")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a setting, such as schedule.steps=500.", metavar="KEY=VALUE"),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Time budget; the schedule is fitted to it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    device: DeviceOption = "auto",
    precision: Annotated[
        Precision, typer.Option(help="auto selects bfloat16 where the hardware multiplies it fast.")
    ] = Precision.AUTO,
) -> None:
    """Train a model from a recipe.

    Writes NAME.safetensors, metrics.jsonl and samples. For several processes or nodes, each with batches of its
    own: fabric run --devices 4 -- $(which denoise) train ...
    """
    try:
        from denoise.training.loop import train as run_training
    except ModuleNotFoundError as error:
        raise ConfigError(f'{error.name} is missing. In the source: pip install ".[train]".') from None
    from denoise.backends.device import pick_device
    from denoise.backends.malloc import keep_freed_memory
    from denoise.backends.precision import float_precision
    from denoise.training.recipe import load_recipe

    if precision is Precision.AUTO:
        has_fast_bfloat16 = float_precision("auto", pick_device(device)) == "bfloat16"
        precision = Precision.BF16 if has_fast_bfloat16 else Precision.FLOAT32
    loaded_recipe = load_recipe(recipe, settings or ())
    if not data.is_dir():
        raise ConfigError(f"{data}: not a folder. Give --data the folder that holds the training data.")
    if minutes is not None and not minutes > 0:
        raise ConfigError(f"--minutes is {minutes:g}; expected more than 0.")
    keep_freed_memory()
    is_main_process = os.environ.get("RANK", "0") == "0"  # set by the launcher of several processes
    with make_progress_bar(is_shown=is_main_process, is_transient=False) as bar:
        task = bar.add_task(loaded_recipe.name, total=1.0)

        def report(row: dict[str, Any]) -> None:
            bar.update(task, completed=row["progress"])
            losses = {key: value for key, value in row.items() if key not in ("progress", "lr", "step")}
            line = "  ".join(f"{key} {value:.4g}" for key, value in losses.items())
            bar.console.print(f"step {row['step']:>6}  {line}", soft_wrap=True)

        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print_error(f"warning: {message}")
            path = run_training(
                loaded_recipe,
                data,
                out or Path("runs") / loaded_recipe.name,
                minutes=minutes,
                resume=resume,
                device=device,
                precision=precision.value,
                report=report,
            )
    if is_main_process:
        print(path)
