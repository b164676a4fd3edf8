"""``denoise interpolate``: ways between signals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from denoise.cli.sample import Class, OutOption, PriorOption, bar, tell
from denoise.cli.shared import AsJson, Device, Overwrite
from denoise.errors import ConfigError


def interpolate(
    ends: Annotated[
        list[str], typer.Argument(help="Two ends, or the four corners of a grid: files, or seeds.", metavar="A B [C D]")
    ],
    prior: PriorOption,
    out: OutOption,
    n: Annotated[int, typer.Option("-n", help="Places from end to end.")] = 8,
    linear: Annotated[
        bool, typer.Option("--linear", help="The straight way, in place of that along a sphere.")
    ] = False,
    label: Class = None,
    steps: Annotated[int | None, typer.Option(help="Of the solver.", min=1)] = None,
    guidance: Annotated[float | None, typer.Option(help="Beyond 1: more like the class, less like the ends.")] = None,
    away: Annotated[
        Path | None, typer.Option(help="Examples of what A shall be less like: see --towards.", metavar="FOLDER")
    ] = None,
    towards: Annotated[
        Path | None, typer.Option(help="Examples of what A shall be more like; then A is alone.", metavar="FOLDER")
    ] = None,
    weight: Annotated[float, typer.Option(help="How far: 1 adds the whole difference.")] = 1.0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Go from one picture or sound to another, or from one along a difference of kinds.

    A .png is a strip (or a grid of four corners), a .gif moves, a .wav tells one after another. With --away and
    --towards, the mean difference of the two folders' latents is added to A, more and more up to --weight.
    """
    import torch

    from denoise.files.audio import AUDIO_EXTENSIONS
    from denoise.files.find import find_files
    from denoise.files.image import IMAGE_EXTENSIONS
    from denoise.pipelines.prior import PriorPipeline, grid_between, path_between

    if (away is None) != (towards is None):
        raise ConfigError("--away and --towards belong together: give both or none.")
    if len(ends) not in ((1,) if towards else (2, 4)):
        expected = "one file or seed beside --away and --towards" if towards else "two ends or four corners"
        raise ConfigError(f"{len(ends)} inputs; expected {expected}.")
    pipeline = PriorPipeline(prior, device=device)
    wanted = pipeline.label(label)
    pipeline.places(out, n * n if len(ends) == 4 else n, overwrite=overwrite)

    def noise(place: str) -> torch.Tensor:
        if place.isdecimal() and not Path(place).exists():
            return pipeline.noise(int(place))
        return pipeline.encode(pipeline.read(place), label=wanted)

    def mean(folder: Path) -> torch.Tensor:
        known = AUDIO_EXTENSIONS if pipeline.card.modality == "audio" else IMAGE_EXTENSIONS
        signals = pipeline.read(*find_files(folder, (".",), known))
        return pipeline.encode(signals, label=wanted).mean(dim=0, keepdim=True)

    places = torch.cat([noise(end) for end in ends])
    if away and towards:
        there = places + weight * (mean(towards) - mean(away))
        path = path_between(torch.cat([places, there]), n, spherical=False)  # a sum of differences is a straight way
    elif len(ends) == 4:
        path = grid_between(places, n, spherical=not linear)
    else:
        path = path_between(places, n, spherical=not linear)
    with bar("decoding") as progress:
        made = pipeline.decode(path, label=wanted, steps=steps, guidance=guidance, progress=progress)
    files = pipeline.write(out, made, columns=n, overwrite=overwrite)
    tell(as_json, files, prior=prior, n=n, ends=ends)
