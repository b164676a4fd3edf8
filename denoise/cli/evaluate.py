"""``denoise evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from denoise.cli.shared import Device, Seed, print_table
from denoise.errors import ConfigError


def evaluate(
    model: Annotated[str, typer.Argument(help="A name of `denoise models` or a .safetensors file.")],
    data: Annotated[
        Path, typer.Option(help="Clean images; or a folder with speech/test and noise/test inside.", metavar="DIR")
    ],
    noisy: Annotated[
        Path | None, typer.Option(help="Noisy twins of the files of --data, by name; no noise is added.", metavar="DIR")
    ] = None,
    levels: Annotated[
        str | None, typer.Option("--levels", help="sigma (0-255) or snr_db, comma separated.", metavar="A,B,...")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most this many files.", min=1)] = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
    record: Annotated[str | None, typer.Option(help="Write the figures into the card under this name.")] = None,
) -> None:
    """Measure a model on clean files with known noise or noisy twins, and print the protocol with the figures."""
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from denoise.pipelines.evaluate import evaluate as run

    err = Console(stderr=True)
    try:
        chosen = [float(level) for level in levels.split(",")] if levels else None
    except ValueError:
        raise ConfigError(f"--levels is {levels!r}; expected numbers with commas between, such as 15,25,50.") from None
    try:
        rows, protocol = run(
            model,
            data,
            noisy=noisy,
            levels=chosen,
            limit=limit,
            seed=seed,
            device=device,
            each=lambda files: track(files, console=err, transient=True, disable=not err.is_terminal),
        )
    except ImportError as error:
        raise ConfigError(f'{error.name} is missing. In the source: pip install ".[metrics]".') from None
    if record:
        from denoise.registry import locate
        from denoise.weights import record_metrics

        record_metrics(locate(model), {record: {"rows": rows, "protocol": protocol}})
    if as_json:
        print(json.dumps({"model": model, "protocol": protocol, "rows": rows}, indent=2))
        return
    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, int) else f"{value:.3f}" for value in row.values()))
    print_table(table)
    print(f"Protocol: {protocol}")
