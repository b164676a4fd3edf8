"""``denoise image``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from denoise.cli.shared import Device, Overwrite, Seed
from denoise.errors import ConfigError

if TYPE_CHECKING:
    from denoise.pipelines.result import Result
    from denoise.protocols import Progress


def image(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, or - for standard input.", metavar="INPUT")],
    out: Annotated[
        str | None, typer.Option("-o", "--out", help="A file, a folder, or - for standard output.", metavar="OUT")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A name of `denoise models` or a .safetensors file.", metavar="NAME|FILE")
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option(
            help="Standard deviation of white noise, 0 to 255 at any depth, or auto. Selects the model `gaussian`.",
            metavar="SIGMA|auto",
        ),
    ] = None,
    strength: Annotated[float, typer.Option(help="0 leaves the file as it is, 1 is all that the model does.")] = 1.0,
    compare: Annotated[
        str | None,
        typer.Option(help="The picture before, after and what was removed, with a part enlarged.", metavar="PNG"),
    ] = None,
    perception: Annotated[
        float | None,
        typer.Option(
            help="From 0, the mean of all likely pictures, which is smooth, to 1, one of them (`gaussian`).",
            metavar="0..1",
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Write so many of the likely pictures, their mean and 8 times their deviation.", min=0)
    ] = 0,
    steps: Annotated[int, typer.Option(help="With --perception, --samples: calls of the network on the way.")] = 12,
    seed: Seed = 0,
    device: Device = "auto",
    tile: Annotated[
        int | None, typer.Option(help="Side of the squares worked on at a time; bounds the memory.", metavar="PIXELS")
    ] = None,
    overwrite: Overwrite = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Pass over inputs whose output exists: go on with a broken run.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per file.")] = False,
    max_megapixels: Annotated[
        float, typer.Option(help="Refuse larger images: they may be made to exhaust the memory.")
    ] = 200.0,
) -> None:
    """Remove noise from pictures.

    Without -o, NAME.denoised.EXT is written beside each input. Format, mode, bit depth, alpha, profile
    and metadata stay as they were.
    """
    from denoise.cli.malloc import keep_freed_memory
    from denoise.cli.run import run
    from denoise.files.image import IMAGE_EXTENSIONS, check_megapixels
    from denoise.pipelines.compare import check_extras, compare_image
    from denoise.pipelines.image import ImagePipeline, pick
    from denoise.pipelines.result import check_strength
    from denoise.pipelines.samples import check_samples, draw_images

    check_strength(strength)
    check_megapixels(max_megapixels)
    check_extras({"--compare": compare}, inputs, out, IMAGE_EXTENSIONS, overwrite=overwrite)
    try:
        level: Any = sigma if sigma in (None, "auto") else float(sigma) / 255
    except ValueError:
        level = -1.0
    if isinstance(level, float) and not 0 <= level <= 1:
        raise ConfigError(f"--sigma is {sigma!r}; expected auto or a number from 0 to 255.")
    pipeline = ImagePipeline(pick(model, sigma, perception, samples or None), device=device, tile=tile)
    pipeline.check_sigma(level)
    pipeline.check_drawing(perception, steps, samples or None)
    check_samples(
        pipeline,
        samples,
        inputs,
        out,
        {"--compare": compare, "--skip-existing": skip_existing or None, "--perception 0": perception == 0 or None},
    )

    how: dict[str, Any] = {"sigma": level, "strength": strength, "overwrite": overwrite}
    how |= {"max_megapixels": max_megapixels, "perception": perception, "steps": steps}

    def one(source: Any, target: Any, progress: Progress, name: str | None) -> Result:
        if samples:
            return draw_images(pipeline, source, target, samples, seed=seed, progress=progress, name=name, **how)
        draw = None if perception is None else seed
        result = pipeline.file(source, target, draw=draw, progress=progress, name=name, **how)
        if compare:
            compare_image(source, target, compare, overwrite=overwrite, max_megapixels=max_megapixels)
        return result

    how_often = {"overwrite": overwrite, "skip_existing": skip_existing, "as_json": as_json}
    run(inputs, out, IMAGE_EXTENSIONS, one, memory=keep_freed_memory, **how_often)
