"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from denoise.cli.completion import complete_backend, complete_device, model_names
from denoise.errors import ConfigError
from denoise.options import BACKENDS

SEEDS = 1 << 62


def _check_seed(value: int) -> int:
    if not 0 <= value < SEEDS:
        raise ConfigError(f"--seed is {value}; expected 0 to {SEEDS - 1}.")
    return value


def given_options(context: typer.Context, *names: str) -> dict[str, bool]:
    """Return which options are given, perhaps with their default, as ``--name: True``.

    Args:
        context: context of the command.
        names: names of parameters.
    """
    sources = {name: context.get_parameter_source(name) for name in names}
    return {f"--{name}": True for name, source in sources.items() if source and source.name != "DEFAULT"}


def parse_seed(digits: str) -> int:
    """Return the seed that an argument of decimal digits gives.

    Raises:
        ConfigError: it is too large.
    """
    if len(digits) > len(str(SEEDS)) or int(digits) >= SEEDS:  # Python refuses to parse thousands of digits
        raise ConfigError(f"the seed of {len(digits)} digits is too large; expected 0 to {SEEDS - 1}.")
    return int(digits)


InputsArgument = Annotated[list[str], typer.Argument(help="Files, folders, or - for standard input.", metavar="INPUT")]
OutputOption = Annotated[
    str | None, typer.Option("-o", "--out", help="A file, a folder, or - for standard output.", metavar="OUT")
]
StrengthOption = Annotated[float, typer.Option(help="0 keeps the input, 1 applies the model in full.")]
SeedOption = Annotated[int, typer.Option(help="Seed of all random numbers.", callback=_check_seed)]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
SkipExistingOption = Annotated[
    bool, typer.Option("--skip-existing", help="Skip inputs whose output exists, to resume an interrupted run.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="Print one line of JSON per file.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", autocompletion=complete_device)]
BackendOption = Annotated[
    str,
    typer.Option(
        help="torch, or onnx: onnxruntime, on the CPU, which exports the model once. Files that end in .onnx imply it, "
        "and for audio so do models that have been exported.",
        metavar="|".join(BACKENDS),
        autocompletion=complete_backend,
    ),
]

ModelArgument = Annotated[
    str,
    typer.Argument(help="Name of a bundled model, or a .safetensors file.", autocompletion=model_names()),
]
PriorOption = Annotated[
    str,
    typer.Option(
        "--prior",
        help="Name of a bundled prior, or a .safetensors file of a prior or a codec.",
        metavar="NAME|FILE",
        autocompletion=model_names("prior"),
    ),
]
CodecOption = Annotated[
    str,
    typer.Option(
        "--codec",
        help="Codec, or prior with one: its name, or a .safetensors file.",
        metavar="NAME|FILE",
        autocompletion=model_names("prior"),
    ),
]
SignalArgument = Annotated[str, typer.Argument(help="Image, audio file or point cloud.", metavar="FILE")]
SamplesOutputOption = Annotated[
    str, typer.Option("-o", "--out", help="A .png (or .gif), a .wav, a .ply or .xyz, or a folder.", metavar="OUT")
]
ClassOption = Annotated[
    str | None, typer.Option("--class", help="Class to condition on: its name or number.", metavar="CLASS")
]
TextOption = Annotated[str | None, typer.Option(help="Text prompt to condition on.")]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        help="Scale of the noise, divisor of a PixelCNN's logits; below 1, samples are more typical and vary less."
    ),
]
SolverStepsOption = Annotated[int | None, typer.Option(help="Steps of the solver; more are slower and more accurate.")]
