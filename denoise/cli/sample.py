"""``denoise sample``, ``denoise decode`` and ``denoise complete``: what priors make."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from denoise.cli.shared import AsJson, Device, Overwrite, Seed
from denoise.errors import ConfigError

if TYPE_CHECKING:
    from denoise.protocols import Progress

PriorOption = Annotated[
    str, typer.Option("--prior", help="A prior of `denoise models` or a file.", metavar="NAME|FILE")
]
OutOption = Annotated[str, typer.Option("-o", "--out", help="A .png (or .gif), a .wav, or a folder.", metavar="OUT")]
Class = Annotated[str | None, typer.Option("--class", help="A class by its name or number.", metavar="CLASS")]
Text = Annotated[str | None, typer.Option(help="What it should be, in words.")]


def sample(
    prior: Annotated[str, typer.Argument(help="A prior of `denoise models` or a .safetensors file.", metavar="PRIOR")],
    out: OutOption,
    n: Annotated[int, typer.Option("-n", help="How many.")] = 16,
    label: Class = None,
    text: Text = None,
    steps: Annotated[int | None, typer.Option(help="Of the solver: more are slower and finer.", min=1)] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Beyond 1: more like the class or text, less various.", min=0)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Below 1: nearer to the middle, less various.", min=0)
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make new pictures or sounds.

    A .png holds all of them in one picture (of sounds the spectrograms), a .wav in one sound with short pauses, a
    folder a file for each.
    """
    from denoise.pipelines.prior import PriorPipeline

    pipeline = PriorPipeline(prior, device=device)
    wanted, started = pipeline.label(label, text), time.perf_counter()
    pipeline.places(out, n, overwrite=overwrite)
    how = {"steps": steps, "guidance": guidance, "temperature": temperature}
    with bar("sampling") as progress:
        made = pipeline.sample(n, label=wanted, seed=seed, progress=progress, **how)
    files = pipeline.write(out, made, overwrite=overwrite)
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

    pipeline = PriorPipeline(codec, device=device)
    pipeline.places(out, n, overwrite=overwrite)
    files = pipeline.write(out, pipeline.decodings(pipeline.read(file), n, seed=seed), overwrite=overwrite)
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
    steps: Annotated[int | None, typer.Option(help="Of the solver: more are slower and finer.", min=2)] = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fill in what is missing of a picture or a sound, in several ways.

    ``--mask half`` takes the lower half of a picture, or the second half of a sound, for missing.
    """
    from denoise.pipelines.prior import PriorPipeline
    from denoise.pipelines.prior_files import half_known, read_mask

    pipeline = PriorPipeline(prior, device=device)
    pipeline.places(out, n, overwrite=overwrite)
    x = pipeline.read(file)
    if mask != "half" and pipeline.card.modality == "audio":
        raise ConfigError("a mask of a sound is half; a picture says nothing of it.")
    known = half_known(pipeline.card) if mask == "half" else read_mask(mask, file, pipeline.card)
    wanted = pipeline.label(label, text)
    with bar("completing") as progress:
        made = pipeline.complete(x, known, n, label=wanted, seed=seed, steps=steps, progress=progress)
    files = pipeline.write(out, made, overwrite=overwrite)
    tell(as_json, files, prior=prior, n=n, seed=seed)


@contextmanager
def bar(words: str) -> Iterator[Progress]:
    """A bar on a terminal, gone when the work is done."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(words, total=1.0)
        yield lambda done: shown.update(task, completed=done)


def tell(as_json: bool, files: list[Path], **facts: Any) -> None:
    """Print what was written: the place, or one line of JSON."""
    if as_json:
        print(json.dumps({"files": [str(file) for file in files], **facts}))
    else:
        print(files[0] if len(files) == 1 else f"{files[0].parent} ({len(files)} files)")
