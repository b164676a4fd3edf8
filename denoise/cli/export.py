"""``denoise export``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from denoise.cli.completion import model_names
from denoise.cli.params import JsonOption, OverwriteOption
from denoise.errors import ConfigError

FORMATS = ("onnx",)


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Name of a bundled denoiser, or a .safetensors file.", autocompletion=model_names("denoiser")
        ),
    ],
    out: Annotated[str | None, typer.Option("-o", "--out", help="By default, MODEL.onnx.", metavar="FILE")] = None,
    format_: Annotated[str, typer.Option("--format", help="Format of the file.", metavar="|".join(FORMATS))] = "onnx",
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export a denoiser to ONNX, after a comparison with torch.

    The file takes audio of any sample rate, step by step with its state, or images of any size. Its metadata hold the
    model card and what a program needs to run it.
    """
    from dataclasses import asdict
    from pathlib import Path

    if format_ not in FORMATS:
        raise ConfigError(f"--format is {format_!r}; expected {', '.join(FORMATS)}.")
    from denoise.backends.onnx.export import MAX_DIFFERENCE
    from denoise.backends.onnx.export import export as export_model

    report = export_model(model, out or f"{Path(model).stem}.onnx", overwrite=overwrite)
    if as_json:
        print(json.dumps(asdict(report)))
        return
    print(
        f"{report.output}: {report.bytes / 2**20:.1f} MiB; differs from torch by at most {report.difference:.1e} "
        f"(limit {MAX_DIFFERENCE:g})"
    )
