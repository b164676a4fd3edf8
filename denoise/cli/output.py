"""Output of the commands: tables, progress bars and one-line error messages. No text is parsed as markup."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as ProgressBar

    from denoise.protocols import Progress

CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # and bytes that are no text, as surrogates


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table as wide as the terminal, or without wrapping where the output is no terminal.

    Args:
        columns: titles of the columns.
        rows: cells of each row.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in columns:
        table.add_column(Text(title))
    for row in rows:
        table.add_row(*map(Text, row))
    terminal = Console(soft_wrap=True)
    (terminal if terminal.is_terminal else Console(width=10_000, soft_wrap=True)).print(table)


def make_progress_bar(*, is_shown: bool = True, is_transient: bool = True, counts: bool = False) -> ProgressBar:
    """Return a progress bar on standard error that is drawn on terminals only.

    Args:
        is_shown: whether it is drawn at all.
        is_transient: whether it is removed at the end.
        counts: whether the number done and its rate stand in place of the fraction.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *((MofNCompleteColumn(), TaskProgressColumn(show_speed=True)) if counts else (TaskProgressColumn(),)),
        TimeRemainingColumn(),
        console=console,
        transient=is_transient,
        disable=not (is_shown and console.is_terminal),
    )


@contextmanager
def progress_bar(description: str) -> Iterator[Progress]:
    """Show a progress bar and yield the callable that sets the fraction done."""
    with make_progress_bar() as bar:
        task = bar.add_task(description, total=1.0)
        yield lambda fraction: bar.update(task, completed=fraction)


def print_outputs(as_json: bool, paths: Sequence[Path], *remarks: str, **facts: Any) -> None:
    """Print the files that were written, as a path or one line of JSON.

    Args:
        as_json: whether to print JSON.
        paths: files that were written, at least one.
        *remarks: what follows the path.
        **facts: further keys of the JSON object.
    """
    if as_json:
        print(json.dumps({"files": [str(path) for path in paths], **facts}))
    else:
        files = str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} files)"
        print_line("; ".join([files, *remarks]))


def describe_r2(r2: float, compared: str) -> str:
    """Return a remark on reconstructions, from what `PriorPipeline.r2` returns."""
    return f"R^2 of the reconstructions{'' if compared == 'signals' else f' ({compared})'}: {r2:.4f}"


def warn_once() -> Callable[[str], None]:
    """Return a function that prints a warning on standard error, the same one once."""
    return cache(lambda message: print_error(f"warning: {message}"))


def print_error(message: str) -> None:
    """Print one line on standard error."""
    print_line(f"denoise: {message}", sys.stderr)


def print_line(text: str, file: TextIO | None = None) -> None:
    """Print one line: line breaks and other control characters, as names of files may have, are escaped.

    Args:
        text: the line.
        file: where it is printed; None is standard output.
    """
    print(escape_controls(text), file=file, flush=True)


def escape_controls(text: str) -> str:
    r"""Return a text with control characters and bytes that are no text as escapes.

    Args:
        text: any text.

    >>> print(escape_controls("naïve\nname\udcff.wav"))
    naïve\nname\udcff.wav
    """
    return CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
