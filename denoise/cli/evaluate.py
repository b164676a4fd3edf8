"""``denoise evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from denoise.cli.output import make_progress_bar, print_table
from denoise.cli.params import DeviceOption, ModelArgument, SeedOption
from denoise.errors import ConfigError


def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path,
        typer.Option(help="Folder of clean images, or one that holds speech/test and noise/test.", metavar="DIR"),
    ],
    noisy: Annotated[
        Path | None,
        typer.Option(help="Noisy versions of the files in --data, by name; no noise is added.", metavar="DIR"),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option("--levels", help="Noise levels: sigma (0-255) or SNR in dB, comma separated.", metavar="A,B,..."),
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Estimate the noise of images instead of giving the true sigma.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Maximum number of files.", min=1)] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
    record: Annotated[str | None, typer.Option(help="Store the metrics in the model card under this name.")] = None,
) -> None:
    """Measure a denoiser on clean files with added noise.

    With --noisy, on pairs of clean and noisy files. The protocol is printed with the metrics.
    """
    from denoise.pipelines.evaluate import evaluate as run_evaluation

    try:
        noise_levels = [float(level) for level in levels.split(",")] if levels else None
    except ValueError:
        raise ConfigError(f"--levels is {levels!r}; expected numbers with commas between, such as 15,25,50.") from None
    try:
        with make_progress_bar() as bar:
            rows, protocol = run_evaluation(
                model,
                data,
                noisy=noisy,
                levels=noise_levels,
                limit=limit,
                seed=seed,
                estimates=estimate,
                device=device,
                track=bar.track,
            )
    except ModuleNotFoundError as error:
        raise ConfigError(f'{error.name} is missing. In the source: pip install ".[metrics]".') from None
    if record:
        from denoise.registry import locate
        from denoise.weights import record_metrics

        record_metrics(locate(model), {record: {"rows": rows, "protocol": protocol}})
    if as_json:
        print(json.dumps({"model": model, "protocol": protocol, "rows": rows}, indent=2))
        return
    print_table([*rows[0]], [[_format_value(value) for value in row.values()] for row in rows])
    print(f"Protocol: {protocol}")


def _format_value(value: float) -> str:
    return f"{value:.3g}" if isinstance(value, int) else f"{value:.3f}"
