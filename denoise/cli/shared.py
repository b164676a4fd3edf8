"""What several commands share: options, how a table is printed, and how a fault is told."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Annotated

import typer

from denoise.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

SEEDS = 1 << 62


def _seed(value: int) -> int:
    if not 0 <= value < SEEDS:
        raise ConfigError(f"--seed is {value}; expected 0 to {SEEDS - 1}.")
    return value


Seed = Annotated[int, typer.Option(help="The same seed makes the same.", callback=_seed)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal, or, for a file or another program, as wide as its longest line."""
    from rich.console import Console

    terminal = Console(soft_wrap=True)
    (terminal if terminal.is_terminal else Console(width=10_000, soft_wrap=True)).print(table)


def reason(error: Exception) -> str:
    """One line for what nobody foresaw."""
    text = " ".join(str(error).split())[:200]
    if isinstance(error, MemoryError) or "memory" in text:
        return "needs more memory than there is. Give a smaller --block or --tile, a smaller -n, or no --perception."
    if os.environ.get("DENOISE_DEBUG"):
        traceback.print_exception(error)
    return (
        f"{type(error).__name__}: {text}. This is a fault of denoise; please report it (DENOISE_DEBUG=1 shows where)."
    )
