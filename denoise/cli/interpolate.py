"""``denoise interpolate``."""

from __future__ import annotations

from math import isfinite
from os.path import exists  # unlike that of Path it accepts any name, even one that is too long
from pathlib import Path
from typing import Annotated

import typer

from denoise.cli.output import describe_r2, print_outputs, progress_bar, warn_once
from denoise.cli.params import (
    ClassOption,
    DeviceOption,
    JsonOption,
    OverwriteOption,
    PriorOption,
    SamplesOutputOption,
    parse_seed,
)
from denoise.errors import ConfigError

MAX_WEIGHT = 100.0


def interpolate(
    ends: Annotated[
        list[str],
        typer.Argument(help="Two end points, or the four corners of a grid: files or seeds.", metavar="A B [C D]"),
    ],
    prior: PriorOption,
    out: SamplesOutputOption,
    n: Annotated[int, typer.Option("-n", help="Number of points along each path, ends included.")] = 8,
    linear: Annotated[
        bool, typer.Option("--linear", help="Interpolate linearly (lerp) instead of spherically (slerp).")
    ] = False,
    label: ClassOption = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the solver.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance scale; above 1, results match the class better and the ends less.")
    ] = None,
    away: Annotated[
        Path | None,
        typer.Option(help="Examples of the attribute to remove from A; with --towards.", metavar="FOLDER"),
    ] = None,
    towards: Annotated[
        Path | None,
        typer.Option(help="Examples of the attribute to add to A; with --away, and A only.", metavar="FOLDER"),
    ] = None,
    latents: Annotated[
        bool, typer.Option("--latents", help="Work in the latents of the prior's codec instead of in noise.")
    ] = False,
    weight: Annotated[float, typer.Option(help="Largest multiple of the attribute vector that is added to A.")] = 1.0,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Interpolate between files or seeds in the space of noise.

    Files are encoded; their reconstructions are the ends of the path, and their R^2 is printed.
    A .png is a strip (a grid for four corners), a .gif an animation, a .wav plays the results one after another.
    With --away and --towards, an attribute vector, the difference of the two folders' means, is added to A in steps up
    to --weight: flowers become pink, words are spoken by another speaker. With --latents, attributes change while the
    rest of the file stays.
    """
    from functools import partial

    import torch

    from denoise.files.find import find_files
    from denoise.pipelines.latent_space import attribute_direction, interpolate_grid, interpolate_path
    from denoise.pipelines.prior import PriorPipeline
    from denoise.pipelines.prior_files import INPUT_EXTENSIONS

    if not isfinite(weight) or abs(weight) > MAX_WEIGHT:
        raise ConfigError(f"--weight is {weight:g}; expected at most {MAX_WEIGHT:g} in size.")
    if towards is None and weight != 1:
        raise ConfigError("--weight needs --away and --towards; leave it out.")
    if towards is not None and linear:
        raise ConfigError("--linear is not for --away and --towards; leave it out.")
    if (away is None) != (towards is None):
        raise ConfigError("--away and --towards belong together: give both or none.")
    if len(ends) not in ((1,) if towards else (2, 4)):
        expected = "one file or seed with --away and --towards" if towards else "two ends or four corners"
        raise ConfigError(f"{len(ends)} inputs; expected {expected}.")
    if latents and any(option is not None for option in (label, steps, guidance)):
        raise ConfigError("--latents are decoded without --class, --steps and --guidance; leave them out.")
    pipeline = PriorPipeline(prior, device=device)
    condition = pipeline.label(label)
    read = partial(pipeline.read, report=warn_once())
    files = {i: read(end) for i, end in enumerate(ends) if not end.isdecimal() or exists(end)}
    pipeline.output_paths(out, n * n if len(ends) == 4 else n, overwrite=overwrite)

    decode_noise = partial(pipeline.decode, label=condition, steps=steps, guidance=guidance)
    encode, decode = (
        (pipeline.latents, pipeline.decode_latents)
        if latents
        else (partial(pipeline.encode, label=condition), decode_noise)
    )

    def to_point(i: int) -> torch.Tensor:
        if i in files:
            return encode(files[i])
        noise = pipeline.noise(parse_seed(ends[i]))
        return encode(decode_noise(noise)) if latents else noise

    def encode_folder(folder: Path) -> torch.Tensor:
        return encode(read(*find_files(folder, (".",), INPUT_EXTENSIONS[pipeline.card.modality])))

    points = torch.cat([to_point(i) for i in range(len(ends))])
    if away and towards:
        shifted = points + weight * attribute_direction(encode_folder(towards), encode_folder(away))
        path = interpolate_path(torch.cat([points, shifted]), n, spherical=False)  # multiples of one vector
    elif len(ends) == 4:
        path = interpolate_grid(points, n, spherical=not linear)
    else:
        path = interpolate_path(points, n, spherical=not linear)
    with progress_bar("decoding") as progress:
        signals = decode(path, progress=progress)
    paths = pipeline.write(out, signals, columns=n, overwrite=overwrite)
    remarks, facts = [], {}
    if files:  # the ends of the path, or corners of the grid, are their reconstructions
        rows_columns = (divmod(i, 2) for i in files)
        reconstructions = signals[[(row * n + column) * (n - 1) for row, column in rows_columns]]
        r2, compared = pipeline.r2(reconstructions, torch.cat([*files.values()]))
        remarks, facts = [describe_r2(r2, compared)], {"r2": r2, "compared": compared}
    print_outputs(as_json, paths, *remarks, prior=prior, n=n, ends=ends, **facts)
