"""``denoise score`` and ``denoise embed``: what a prior thinks of files."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from denoise.cli.sample import Class, PriorOption, bar
from denoise.cli.shared import AsJson, Device, Overwrite, Seed, print_table
from denoise.errors import ConfigError, DenoiseError

if TYPE_CHECKING:
    from torch import Tensor

    from denoise.pipelines.prior import PriorPipeline


def score(
    inputs: Annotated[list[str], typer.Argument(help="Files or folders.", metavar="FILES")],
    prior: PriorOption,
    label: Class = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per file.")] = False,
) -> None:
    """Tell how likely files are under a prior, the most unusual first.

    Likelihoods are in nats for the whole signal, and in bits for each of its pixels or samples, whose values are
    taken for 256 levels where the prior has a density. Exact, estimate or bound: the last line says it.
    """
    from rich.table import Table

    from denoise.pipelines.prior import PriorPipeline

    pipeline = PriorPipeline(prior, device=device)
    paths = _files(inputs, pipeline.card.modality)
    wanted = pipeline.label(label)
    paths, signals, failed = _read(pipeline, paths)
    with bar("scoring") as progress:
        nats, kind = pipeline.log_prob(signals, label=wanted, seed=seed, progress=progress)
    bits = pipeline.bits_per_dim(nats)
    rows = sorted(zip(paths, nats.tolist(), bits.tolist(), strict=True), key=lambda row: row[1])
    if as_json:
        for path, value, per_entry in rows:
            print(json.dumps({"file": str(path), "nats": value, "bits_per_dim": per_entry, "kind": kind}))
        raise typer.Exit(failed)
    table = Table("nats", "bits per dim", "file", box=None, pad_edge=False)
    for path, value, per_entry in rows:
        table.add_row(f"{value:.2f}", f"{per_entry:.3f}" if math.isfinite(per_entry) else "-", str(path))
    print_table(table)
    print(f"{kind}; the most unusual first")
    raise typer.Exit(failed)


def embed(
    folder: Annotated[Path, typer.Argument(help="Pictures or sounds.", metavar="FOLDER")],
    codec: Annotated[str, typer.Option("--codec", help="A prior with a codec, or a file.", metavar="NAME|FILE")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The map.", metavar="PNG")],
    size: Annotated[int, typer.Option(help="Side of the map in pixels.", min=64)] = 1024,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Draw a map of pictures (or of the spectrograms of sounds): each where its latents lie, by the two directions
    in which they differ most.
    """
    from denoise.files.image import write_image
    from denoise.metrics import r2
    from denoise.pipelines.prior import PriorPipeline, principal_map
    from denoise.pipelines.prior_files import as_pictures, map_of
    from denoise.signals import ImageFormat

    if out.suffix.lower() != ".png":
        raise ConfigError(f"{out}: expected a .png.")
    pipeline = PriorPipeline(codec, device=device)
    paths = _files([str(folder)], pipeline.card.modality)
    paths, signals, failed = _read(pipeline, paths)
    with bar("encoding") as progress:
        latents = pipeline.latents(signals, progress=progress)
    remembered = float(r2(pipeline.reconstruct(signals), signals))
    places = principal_map(latents.flatten(1))
    write_image(out, [map_of(as_pictures(signals, pipeline.card), places, size)], ImageFormat(), overwrite=overwrite)
    if as_json:
        print(json.dumps({"file": str(out), "n": len(paths), "r2": remembered}))
    else:
        print(f"{out}: {len(paths)} files; R^2 of what the codec remembers: {remembered:.4f}")
    raise typer.Exit(failed)


def _read(pipeline: PriorPipeline, paths: list[Path]) -> tuple[list[Path], Tensor, bool]:
    """The files that can be read, and whether there are others, each of which is told."""
    import torch

    signals: dict[Path, Tensor] = {}
    for path in paths:
        try:
            signals[path] = pipeline.read(path)
        except DenoiseError as error:
            print(f"denoise: {error}", file=sys.stderr)
    if not signals:
        raise typer.Exit(1)
    return [*signals], torch.cat([*signals.values()]), len(signals) < len(paths)


def _files(inputs: list[str], modality: str) -> list[Path]:
    from denoise.files.audio import AUDIO_EXTENSIONS
    from denoise.files.find import find_files
    from denoise.files.image import IMAGE_EXTENSIONS

    known = AUDIO_EXTENSIONS if modality == "audio" else IMAGE_EXTENSIONS
    found: list[Path] = []
    for name in inputs:
        found += find_files(Path(name), (".",), known) if Path(name).is_dir() else [Path(name)]
    return found
