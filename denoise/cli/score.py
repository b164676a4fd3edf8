"""``denoise score`` and ``denoise embed``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from denoise.cli.output import describe_r2, print_error, print_table, progress_bar, warn_once
from denoise.cli.params import (
    ClassOption,
    CodecOption,
    DeviceOption,
    JsonLinesOption,
    JsonOption,
    OverwriteOption,
    PriorOption,
    SeedOption,
)
from denoise.errors import ConfigError, DenoiseError

if TYPE_CHECKING:
    from torch import Tensor

    from denoise.pipelines.prior import PriorPipeline


def score(
    inputs: Annotated[list[str], typer.Argument(help="Files or folders.", metavar="FILES")],
    prior: PriorOption,
    typical: Annotated[
        Path | None,
        typer.Option(
            help="Typical examples, such as training data, for anomaly scores; some weights hold their statistics.",
            metavar="FOLDER",
        ),
    ] = None,
    label: ClassOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    as_json: JsonLinesOption = False,
) -> None:
    """Rank files by how unusual they are under a prior, the most unusual first.

    The anomaly score is the distance, in standard deviations, of log-likelihood and complexity (bytes after lossless
    compression) to those of typical examples, of diffusion and flow matching also of the error of removing
    strong noise; above 3 is rare. A high log-likelihood alone does not make a file normal: simple ones, such as a blank
    image, have it. Without statistics of typical examples, there is no anomaly score, and the lowest likelihood comes
    first. With --class, statistics of the weights are not used: give --typical.
    Log-likelihoods are in nats per signal, those of pixels with levels in bits per pixel, too. The last line states
    whether they are exact, estimates or bounds; estimates and bounds depend on the seed and on the other files.
    In JSON, an infinite number is null.
    """
    from denoise.pipelines.prior import PriorPipeline

    pipeline = PriorPipeline(prior, device=device)
    condition = pipeline.label(label)
    paths, signals, has_failures = _read_signals(pipeline, _list_files(inputs, pipeline.card.modality))
    statistics = pipeline.card.typical if condition is None else None
    if typical:
        _, examples, has_bad_examples = _read_signals(pipeline, _list_folder(typical, pipeline.card.modality))
        has_failures |= has_bad_examples
        with progress_bar("typical examples") as progress:
            statistics = pipeline.typical_statistics(examples, label=condition, seed=seed, progress=progress)
    with progress_bar("scoring") as progress:
        nats, kind = pipeline.log_prob(signals, label=condition, seed=seed, progress=progress)
    columns = {"nats": nats}
    if pipeline.support.values != "continuous":  # a density has none without noise of one level
        columns["bits_per_dim"] = pipeline.bits_per_dim(nats)
    if statistics:
        columns = {"anomaly": pipeline.anomaly_scores(signals, nats, statistics, label=condition)} | columns
    rows = []
    for path, *values in zip(paths, *(column.tolist() for column in columns.values()), strict=True):
        row = {"file": str(path)} | dict(zip(columns, values, strict=True))
        if row["nats"] < math.inf:
            rows.append(row)
        else:
            print_error(f"{path}: the log-likelihood is {row['nats']}: the computation has overflowed.")
            has_failures = True
    rows.sort(key=lambda row: -row["anomaly"] if statistics else row["nats"])
    if as_json:
        for row in rows:
            finite = {name: None if value in (math.inf, -math.inf) else value for name, value in row.items()}
            print(json.dumps(finite | {"kind": kind}))
        raise typer.Exit(has_failures)
    headings = {"anomaly": "anomaly", "nats": "log p, nats", "bits_per_dim": "bits per dim"}
    digits = {"anomaly": 1, "nats": 2, "bits_per_dim": 3}
    print_table(
        (*(headings[name] for name in columns), "file"),
        [(*(f"{row[name]:.{digits[name]}f}" for name in columns), row["file"]) for row in rows],
    )
    by_likelihood = "lowest likelihood first, which is no anomaly score: see --typical"
    print(f"{kind}; {'most anomalous first' if statistics else by_likelihood}")
    raise typer.Exit(has_failures)


def embed(
    folder: Annotated[Path, typer.Argument(help="Folder of images or audio files.", metavar="FOLDER")],
    codec: CodecOption,
    out: Annotated[Path, typer.Option("-o", "--out", help="Map to write.", metavar="PNG")],
    size: Annotated[int, typer.Option(help="Side of the map in pixels.", min=64)] = 1024,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Plot a map of files by the latents of a codec.

    Each file is a thumbnail (a spectrogram of audio) at the first two principal components of its latents.
    """
    from denoise.files.image import write_image
    from denoise.pipelines.latent_space import principal_map
    from denoise.pipelines.prior import PriorPipeline
    from denoise.pipelines.prior_files import as_images, draw_map
    from denoise.signals import ImageFormat

    if out.suffix.lower() != ".png":
        raise ConfigError(f"{out}: expected a .png.")
    pipeline = PriorPipeline(codec, device=device)
    paths, signals, has_failures = _read_signals(pipeline, _list_folder(folder, pipeline.card.modality))
    with progress_bar("encoding") as progress:
        latents = pipeline.latents(signals, progress=progress)
    r2, compared = pipeline.reconstruction_r2(signals)
    positions = principal_map(latents.flatten(1))
    thumbnails = as_images(signals, pipeline.card)
    write_image(out, [draw_map(thumbnails, positions, size)], ImageFormat(), overwrite=overwrite)
    if as_json:
        print(json.dumps({"file": str(out), "n": len(paths), "r2": r2, "compared": compared}))
    else:
        print(f"{out}: {len(paths)} files; {describe_r2(r2, compared)}")
    raise typer.Exit(has_failures)


def _read_signals(pipeline: PriorPipeline, paths: list[Path]) -> tuple[list[Path], Tensor, bool]:
    """Return the readable files, their signals and whether others failed; the failures are reported."""
    import torch

    signals: dict[Path, Tensor] = {}
    report = warn_once()
    for path in paths:
        try:
            signals[path] = pipeline.read(path, report=report)
        except DenoiseError as error:
            print_error(str(error))
    if not signals:
        raise typer.Exit(1)
    return [*signals], torch.cat([*signals.values()]), len(signals) < len(paths)


def _list_files(inputs: list[str], modality: str) -> list[Path]:
    paths: list[Path] = []
    for name in inputs:
        paths += _list_folder(Path(name), modality) if Path(name).is_dir() else [Path(name)]
    return paths


def _list_folder(folder: Path, modality: str) -> list[Path]:
    from denoise.files.find import find_files
    from denoise.pipelines.prior_files import INPUT_EXTENSIONS

    return find_files(folder, (".",), INPUT_EXTENSIONS[modality])
