"""``denoise sample``, ``denoise decode`` and ``denoise complete``."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from denoise.cli.completion import model_names
from denoise.cli.output import print_outputs, progress_bar, warn_once
from denoise.cli.params import (
    ClassOption,
    CodecOption,
    DeviceOption,
    JsonOption,
    OverwriteOption,
    PriorOption,
    SamplesOutputOption,
    SeedOption,
    SignalArgument,
    SolverStepsOption,
    TemperatureOption,
    TextOption,
)
from denoise.errors import ConfigError

STRIP_FRAMES, GIF_FRAMES = 17, 61  # of a trajectory


def sample(
    prior: Annotated[
        str,
        typer.Argument(
            help="Name of a bundled prior, or a .safetensors file of a prior or a codec.",
            metavar="PRIOR",
            autocompletion=model_names("prior"),
        ),
    ],
    out: SamplesOutputOption,
    n: Annotated[int, typer.Option("-n", help="Number of samples.")] = 16,
    label: ClassOption = None,
    text: TextOption = None,
    steps: SolverStepsOption = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="Guidance scale; above 1, samples match the class or text better and vary less."),
    ] = None,
    temperature: TemperatureOption = None,
    solver: Annotated[
        str | None,
        typer.Option(help="Solver of a diffusion: euler (DDIM), heun, dpmpp-2m, dpmpp-2m-sde or ancestral (DDPM)."),
    ] = None,
    trajectory: Annotated[
        bool,
        typer.Option(
            "--trajectory", help="Write how noise is added to the samples and removed: a .png strip or a .gif."
        ),
    ] = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Sample images, sounds or shapes from a prior.

    A .png shows all samples in a grid (spectrograms of audio), a .wav plays them one after another with short
    pauses, a .ply or .xyz holds them side by side, a folder gets one file per sample.
    """
    from denoise.pipelines.prior import PriorPipeline

    pipeline = PriorPipeline(prior, device=device)
    condition, started = pipeline.label(label, text), time.perf_counter()
    options: dict[str, Any] = {"steps": steps, "guidance": guidance, "temperature": temperature, "solver": solver}
    if trajectory:
        pipeline.trajectory_path(out, overwrite=overwrite)
        frames = STRIP_FRAMES if out.lower().endswith(".png") else GIF_FRAMES
        with progress_bar("sampling") as progress:
            points = pipeline.trajectory(n, frames=frames, label=condition, seed=seed, progress=progress, **options)
        paths = [pipeline.write_trajectory(out, points, overwrite=overwrite)]
    else:
        pipeline.output_paths(out, n, overwrite=overwrite)
        with progress_bar("sampling") as progress:
            samples = pipeline.sample(n, label=condition, seed=seed, progress=progress, **options)
        paths = pipeline.write(out, samples, overwrite=overwrite)
    seconds = round(time.perf_counter() - started, 3)
    print_outputs(as_json, paths, prior=prior, n=n, seed=seed, seconds=seconds)


def decode(
    file: SignalArgument,
    codec: CodecOption,
    out: SamplesOutputOption,
    n: Annotated[
        int | None, typer.Option("-n", help="Number of latent samples; by default 8, or 1 if there is no randomness.")
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Decode samples of the latent posterior q(z|x) of a file.

    A codec without randomness decodes its only latents.
    """
    from denoise.pipelines.prior import PriorPipeline

    pipeline = PriorPipeline(codec, device=device)
    n = n if n is not None else 8 if pipeline.samples_latents else 1
    x = pipeline.read(file, report=warn_once())
    pipeline.output_paths(out, n, overwrite=overwrite)
    decodings = pipeline.decodings(x, n, seed=seed)
    paths = pipeline.write(out, decodings, overwrite=overwrite)
    print_outputs(as_json, paths, codec=codec, n=n, seed=seed)


def complete(
    file: SignalArgument,
    mask: Annotated[
        str, typer.Option(help="Image that is white where pixels are missing, or half.", metavar="MASK|half")
    ],
    prior: PriorOption,
    out: SamplesOutputOption,
    n: Annotated[int, typer.Option("-n", help="Number of completions.")] = 8,
    label: ClassOption = None,
    text: TextOption = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the solver; more are slower and more accurate.", min=2)
    ] = None,
    temperature: TemperatureOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Inpaint an image, an audio file or a point cloud with posterior samples.

    With --mask half, the lower half of an image or cloud or the second half of an audio file is missing.
    """
    from denoise.pipelines.prior import PriorPipeline
    from denoise.pipelines.prior_files import half_mask, read_mask

    pipeline = PriorPipeline(prior, device=device)
    observed = pipeline.read(file, report=warn_once())
    if mask != "half" and pipeline.card.modality != "image":
        raise ConfigError(f"--mask is {mask!r}; expected half: mask images are for priors of images.")
    is_observed = half_mask(pipeline.card) if mask == "half" else read_mask(mask, file, pipeline.card)
    pipeline.output_paths(out, n, overwrite=overwrite)
    condition = pipeline.label(label, text)
    with progress_bar("inpainting") as progress:
        completions = pipeline.complete(
            observed,
            is_observed,
            n,
            label=condition,
            seed=seed,
            steps=steps,
            temperature=temperature,
            progress=progress,
        )
    paths = pipeline.write(out, completions, overwrite=overwrite)
    print_outputs(as_json, paths, prior=prior, n=n, seed=seed)
