"""``denoise sample``, ``denoise decode`` and ``denoise complete``: what priors make."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from denoise.errors import ConfigError

PriorOption = Annotated[
    str, typer.Option("--prior", help="A prior of `denoise models` or a file.", metavar="NAME|FILE")
]
OutOption = Annotated[str, typer.Option("-o", "--out", help="A .png (or .gif), a .wav, or a folder.", metavar="OUT")]
Seed = Annotated[int, typer.Option(help="The same seed makes the same.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Class = Annotated[str | None, typer.Option("--class", help="A class by its name or number.", metavar="CLASS")]
Text = Annotated[str | None, typer.Option(help="What it should be, in words.")]


def sample(
    prior: Annotated[str, typer.Argument(help="A prior of `denoise models` or a .safetensors file.", metavar="PRIOR")],
    out: OutOption,
    n: Annotated[int, typer.Option("-n", help="How many.")] = 16,
    label: Class = None,
    text: Text = None,
    steps: Annotated[int | None, typer.Option(help="Of the solver: more are slower and finer.", min=1)] = None,
    guidance: Annotated[float | None, typer.Option(help="Beyond 1: more like the class or text, less various.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Below 1: nearer to the middle, less various.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make new pictures or sounds.

    A .png holds all of them in one picture (of sounds the spectrograms), a .wav in one sound with short pauses, a
    folder a file for each.
    """
    from rich.console import Console
    from rich.progress import Progress

    from denoise.pipelines.prior import PriorPipeline
    from denoise.pipelines.prior_files import write_signals

    pipeline = PriorPipeline(prior, device=device)
    wanted = pipeline.label(label, text)
    console, started = Console(stderr=True), time.perf_counter()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("sampling", total=1.0)
        made = pipeline.sample(
            n,
            label=wanted,
            seed=seed,
            steps=steps,
            guidance=guidance,
            temperature=temperature,
            progress=lambda done: bar.update(task, completed=done),
        )
    files = write_signals(out, made, pipeline.card, overwrite=overwrite)
    tell(as_json, files, prior=prior, n=n, seed=seed, seconds=round(time.perf_counter() - started, 3))


def decode(
    file: Annotated[str, typer.Argument(help="A picture or a sound.", metavar="FILE")],
    codec: Annotated[str, typer.Option("--codec", help="A prior whose codec draws its latents.", metavar="NAME|FILE")],
    out: OutOption,
    n: Annotated[int, typer.Option("-n", help="How many.")] = 8,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Decode several latents that one file may have: what the codec takes for the same."""
    from denoise.pipelines.prior import PriorPipeline
    from denoise.pipelines.prior_files import read_signal, write_signals

    pipeline = PriorPipeline(codec, device=device)
    made = pipeline.decodings(read_signal(file, pipeline.card), n, seed=seed)
    files = write_signals(out, made, pipeline.card, overwrite=overwrite)
    tell(as_json, files, codec=codec, n=n, seed=seed)


def complete(
    file: Annotated[str, typer.Argument(help="A picture or a sound.", metavar="FILE")],
    mask: Annotated[
        str, typer.Option(help="A picture that is white where something is missing; or half.", metavar="MASK|half")
    ],
    prior: PriorOption,
    out: OutOption,
    n: Annotated[int, typer.Option("-n", help="How many ways.")] = 8,
    label: Class = None,
    text: Text = None,
    steps: Annotated[int, typer.Option(help="Of the solver: more are slower and finer.", min=2)] = 40,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fill in what is missing of a picture or a sound, in several ways.

    ``--mask half`` takes the lower half of a picture, or the second half of a sound, for missing.
    """
    import torch

    from denoise.pipelines.prior import PriorPipeline
    from denoise.pipelines.prior_files import read_signal, write_signals

    pipeline = PriorPipeline(prior, device=device)
    x = read_signal(file, pipeline.card)
    if mask == "half":
        known = torch.ones_like(x)
        axis = -1 if pipeline.card.modality == "audio" else -2
        half = x.shape[axis] // 2
        known.narrow(axis, x.shape[axis] - half, half).zero_()
    else:
        if pipeline.card.modality == "audio":
            raise ConfigError("a mask of a sound is half; a picture says nothing of it.")
        known = (read_signal(mask, pipeline.card).mean(dim=1, keepdim=True) < 0.5).float().expand_as(x).contiguous()
    made = pipeline.complete(x, known, n, label=pipeline.label(label, text), seed=seed, steps=steps)
    files = write_signals(out, made, pipeline.card, overwrite=overwrite)
    tell(as_json, files, prior=prior, n=n, seed=seed)


def tell(as_json: bool, files: list[Path], **facts: Any) -> None:
    """Print what was written: the place, or one line of JSON."""
    if as_json:
        print(json.dumps({"files": [str(file) for file in files], **facts}))
    else:
        print(files[0] if len(files) == 1 else f"{files[0].parent} ({len(files)} files)")
