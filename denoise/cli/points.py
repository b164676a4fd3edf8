"""``denoise points``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from denoise.cli.completion import model_names
from denoise.cli.params import (
    DeviceOption,
    InputsArgument,
    JsonLinesOption,
    OutputOption,
    OverwriteOption,
    SkipExistingOption,
)
from denoise.errors import ConfigError

if TYPE_CHECKING:
    from denoise.pipelines.result import Result
    from denoise.protocols import Progress


def points(
    inputs: InputsArgument,
    out: OutputOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of a bundled prior of point clouds, or a .safetensors file.",
            metavar="NAME|FILE",
            autocompletion=model_names("prior", "points"),
        ),
    ] = None,
    sigma: Annotated[
        str,
        typer.Option(
            help="Standard deviation of the noise of each coordinate, as a fraction of the diagonal of the cloud.",
            metavar="FRACTION|auto",
        ),
    ] = "auto",
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    skip_existing: SkipExistingOption = False,
    as_json: JsonLinesOption = False,
) -> None:
    """Remove noise from point clouds, .ply or .xyz.

    Without -o, NAME.denoised.EXT is written beside each input. Number and order of the points, colours, normals,
    faces and everything else are kept.
    """
    from denoise.cli.files import BatchOptions, denoise_files
    from denoise.files.points import POINT_EXTENSIONS
    from denoise.pipelines.points import PointPipeline
    from denoise.registry import POINT_MODEL

    batch = BatchOptions(overwrite=overwrite, skip_existing=skip_existing, as_json=as_json)
    fraction = _parse_sigma(sigma)
    pipeline = PointPipeline(model or POINT_MODEL, device=device)

    def denoise_file(source: Any, target: Any, progress: Progress, name: str | None) -> Result:
        return pipeline.file(source, target, fraction, overwrite=overwrite, progress=progress, name=name)

    denoise_files(inputs, out, POINT_EXTENSIONS, denoise_file, batch)


def _parse_sigma(text: str) -> float | None:
    """Return the noise level as a fraction of the diagonal; None to estimate it."""
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--sigma is {text!r}; expected auto or a fraction of the diagonal, such as 0.02.") from None
