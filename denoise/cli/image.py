"""``denoise image``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from denoise.cli.completion import model_names
from denoise.cli.params import (
    BackendOption,
    DeviceOption,
    InputsArgument,
    JsonLinesOption,
    OutputOption,
    OverwriteOption,
    SeedOption,
    SkipExistingOption,
    StrengthOption,
    given_options,
)
from denoise.errors import ConfigError
from denoise.options import (
    IMAGE_STEPS,
    INVERSION_STEPS,
    MAX_MEGAPIXELS,
    PRIOR_STEPS,
    RESTORE_STEPS,
    TASKS,
    DenoiseOptions,
    RestoreOptions,
    parse_limit,
    parse_sigma,
)

if TYPE_CHECKING:
    from denoise.pipelines.result import Result
    from denoise.protocols import Progress

PANEL = "Restoration by a prior"
NEEDED = {"inpaint": "--mask FILE", "deblur": "--blur PIXELS or --kernel FILE", "upscale": "--factor N"}


def image(
    context: typer.Context,
    inputs: InputsArgument,
    out: OutputOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of a bundled model, or a .safetensors or .onnx file. Without it, `photo`, or `gaussian` for "
            "noise that is estimated and found to be white.",
            metavar="NAME|FILE",
            autocompletion=model_names("denoiser", "image"),
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="Restore by this prior: a model that takes a sigma, or a prior of square images that denoises or has "
            "latents.",
            metavar="NAME|FILE",
            autocompletion=model_names(None, "image", can_restore=True),
            rich_help_panel=PANEL,
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="What is undone, by `gaussian` if no prior is given: noise, missing pixels (--mask), blur (--blur or "
            "--kernel), lost resolution (--factor), JPEG artefacts, or clipped highlights.",
            metavar="|".join(TASKS),
            rich_help_panel=PANEL,
        ),
    ] = "denoise",
    mask: Annotated[
        str | None,
        typer.Option(
            help="Image of the same size, white where pixels are missing.", metavar="FILE", rich_help_panel=PANEL
        ),
    ] = None,
    blur: Annotated[
        float | None,
        typer.Option(help="Standard deviation of a Gaussian blur.", metavar="PIXELS", rich_help_panel=PANEL),
    ] = None,
    kernel: Annotated[
        str | None, typer.Option(help="Image of the kernel of the blur.", metavar="FILE", rich_help_panel=PANEL)
    ] = None,
    factor: Annotated[
        int | None, typer.Option(help="Factor of both sides, 2 to 8.", metavar="N", rich_help_panel=PANEL)
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            help="JPEG quality that the image was stored with, if it is no JPEG.",
            metavar="1..100",
            rich_help_panel=PANEL,
        ),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(
            help="Level at which highlights are clipped, by default the largest, if many values are there.",
            metavar="2.55..255",
            rich_help_panel=PANEL,
        ),
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option(
            help="Standard deviation of white Gaussian noise, 0 to 255 at any bit depth, instead of an estimate. "
            "Without --model, it leaves the choice at `photo`, which bears a wrong one.",
            metavar="SIGMA|auto",
        ),
    ] = None,
    strength: StrengthOption = 1.0,
    luminance: Annotated[
        float, typer.Option(help="Strength for the luminance, times --strength.", metavar="0..1")
    ] = 1.0,
    colour: Annotated[float, typer.Option(help="Strength for the colour, times --strength.", metavar="0..1")] = 1.0,
    detail: Annotated[
        float,
        typer.Option(
            help="Keep faint detail at the price of noise: 1 halves the noise level given to the network.",
            metavar="0..1",
        ),
    ] = 0.0,
    compare: Annotated[
        str | None,
        typer.Option(help="Write input, output and removed noise, with an enlarged crop.", metavar="PNG"),
    ] = None,
    perception: Annotated[
        float | None,
        typer.Option(
            help="Trade-off between distortion and perception: 0 is the posterior mean (MMSE), 1 a posterior sample. "
            "Selects the model `gaussian`.",
            metavar="0..1",
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(help="Write this many posterior samples, their mean and 8 times their standard deviation.", min=0),
    ] = 0,
    steps: Annotated[
        int,
        typer.Option(
            help="Network calls per posterior sample, with --perception or --samples; with --task, or samples "
            f"of --prior, {RESTORE_STEPS}, {PRIOR_STEPS} for a prior of small images, {INVERSION_STEPS} with latents."
        ),
    ] = IMAGE_STEPS,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    tile: Annotated[
        int | None, typer.Option(help="Side of a tile; smaller tiles need less memory.", metavar="PIXELS")
    ] = None,
    overwrite: OverwriteOption = False,
    skip_existing: SkipExistingOption = False,
    as_json: JsonLinesOption = False,
    max_megapixels: Annotated[
        float, typer.Option(help="Refuse larger images, as a protection against decompression bombs.")
    ] = MAX_MEGAPIXELS,
) -> None:
    """Remove noise from images.

    Without -o, NAME.denoised.EXT is written beside each input. Format, mode, bit depth, alpha, profile
    and metadata are kept. Camera raw files become TIFF of 16 bits. A prior also fills in missing pixels,
    removes blur and JPEG artefacts, and enlarges: `--task inpaint --mask mask.png`.
    """
    from denoise.backends.malloc import keep_freed_memory
    from denoise.cli.files import BatchOptions, denoise_files
    from denoise.cli.restore import restore_images
    from denoise.files.image import IMAGE_EXTENSIONS
    from denoise.pipelines.choice import AUTO
    from denoise.pipelines.compare import check_extras, compare_image
    from denoise.pipelines.image import ImagePipeline, default_model
    from denoise.pipelines.samples import check_samples, write_image_samples
    from denoise.registry import SIGMA_MODEL

    batch = BatchOptions(overwrite=overwrite, skip_existing=skip_existing, as_json=as_json)
    if prior is not None and model is not None:
        raise ConfigError("both --model and --prior are given; expected one of them.")
    given: dict[str, Any] = {"mask": mask, "blur": blur, "kernel": kernel, "factor": factor, "quality": quality}
    given["limit"] = parse_limit(limit)
    if task in NEEDED and all(value is None for value in given.values()):
        raise ConfigError(f"--task {task} needs {NEEDED[task]}; give it.")
    if task == "denoise":
        tasks = {"mask": "inpaint", "factor": "upscale", "quality": "dejpeg", "limit": "declip"}
        for name, value in given.items():
            refuse({f"--{name}": value}, f"needs --task {tasks.get(name, 'deblur')}")
    if task != "denoise" or prior is not None:
        only_denoising = {
            "--model": model,
            "--strength": strength != 1 or None,
            "--luminance": luminance != 1 or None,
            "--colour": colour != 1 or None,
            "--detail": detail or None,
            "--perception": perception,
            "--compare": compare,
            "--backend": None if backend == "auto" else backend,
        }
        refuse(only_denoising, "is not for " + ("--prior" if task == "denoise" else f"--task {task}"))
        sigma_value = parse_sigma(sigma)
        restore_options = RestoreOptions(
            task=task,  # type: ignore[arg-type]
            **given,
            sigma=None if isinstance(sigma_value, str) else sigma_value,
            steps=steps if given_options(context, "steps") else None,
            seed=seed,
            samples=samples,
            overwrite=overwrite,
            max_megapixels=max_megapixels,
        )
        check_samples(samples, inputs, out, {"--skip-existing": skip_existing or None})
        restore_images(inputs, out, prior or SIGMA_MODEL, restore_options, batch, device=device, tile=tile)
        return
    if backend == "onnx":
        refuse({"--perception": perception, "--samples": samples or None}, "needs --backend torch")
    options = DenoiseOptions(
        steps=steps,
        strength=strength,
        luminance=luminance,
        colour=colour,
        detail=detail,
        sigma=parse_sigma(sigma),
        perception=perception,
        seed=seed if samples or perception is not None else None,
        overwrite=overwrite,
        max_megapixels=max_megapixels,
    )
    if perception is None and not samples:
        refuse(given_options(context, "steps", "seed"), "needs --perception or --samples")
    check_extras({"--compare": compare}, inputs, out, IMAGE_EXTENSIONS, overwrite=overwrite)
    chosen_model = default_model(options) if model is None or model == AUTO else model
    pipeline = ImagePipeline(chosen_model, device=device, tile=tile, backend=backend)
    pipeline.check(options)
    single_output_options: dict[str, Any] = {
        "--compare": compare,
        "--skip-existing": skip_existing or None,
        "--perception 0": perception == 0 or None,
    }
    check_samples(samples, inputs, out, single_output_options)

    def denoise_file(source: Any, target: Any, progress: Progress, name: str | None) -> Result:
        if samples:
            return write_image_samples(pipeline, source, target, samples, options, progress=progress, name=name)
        result = pipeline.denoise_file(source, target, options, progress=progress, name=name)
        if compare:
            compare_image(source, target, compare, overwrite=overwrite, max_megapixels=max_megapixels)
        return result

    keep_freed_memory()
    denoise_files(inputs, out, IMAGE_EXTENSIONS, denoise_file, batch)


def refuse(options: dict[str, Any], reason: str) -> None:
    """Refuse options that are given.

    Args:
        options: values by their names; None where an option is not given.
        reason: why, for the message.

    Raises:
        ConfigError: one is given.
    """
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"{name} {reason}; leave it out.")
