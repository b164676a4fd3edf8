"""``denoise batch``."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from denoise.cli.completion import model_names
from denoise.cli.files import describe_model, report_skipped
from denoise.cli.output import make_progress_bar, print_error, print_line
from denoise.cli.params import DeviceOption, JsonLinesOption, OverwriteOption
from denoise.errors import ConfigError
from denoise.options import TIME_LIMIT_S

if TYPE_CHECKING:
    from denoise.pipelines.batch.journal import Record
    from denoise.pipelines.batch.run import Batch


def batch(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, files, patterns, manifests (.csv, .jsonl, .parquet), or URLs such as s3://bucket/folder; "
            "the last one is the folder or URL that is written.",
            metavar="SRC... DST",
        ),
    ],
    only_audio: Annotated[bool, typer.Option("--audio", help="Take audio files only.")] = False,
    only_images: Annotated[bool, typer.Option("--image", help="Take images only.")] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model of all files, as of `denoise audio` or `denoise image`; with --audio or --image.",
            metavar="NAME|FILE",
            autocompletion=model_names("denoiser"),
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="Prior of all files, as of `denoise image`.",
            metavar="NAME|FILE",
            autocompletion=model_names(None, "image", can_restore=True),
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Option of `denoise audio` or `denoise image`, as in strength=0.8 or sigma=25.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="Processes of this machine, or a Ray cluster.", metavar="local|ray")] = (
        "local"
    ),
    workers: Annotated[int | None, typer.Option(help="Number of workers; by default, one per processor.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads per worker; by default, an equal share.")] = None,
    address: Annotated[str | None, typer.Option(help="Address of the Ray cluster.", metavar="ADDR")] = None,
    device: DeviceOption = "auto",
    time_limit: Annotated[
        float, typer.Option(help="Seconds after which a file has failed.", metavar="SECONDS")
    ] = TIME_LIMIT_S,
    journal: Annotated[
        Path | None, typer.Option(help="File of the journal; by default, DST.journal.jsonl.", metavar="FILE")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed before.")] = False,
    overwrite: OverwriteOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and write nothing.")] = False,
    as_json: JsonLinesOption = False,
) -> None:
    """Denoise any number of files in parallel, and resume after an interruption.

    The journal beside DST has a line per file. A second run does what is missing or has changed. An output appears at
    once, when it is complete. A manifest has the column `input`, and perhaps `output` and options; its inputs and
    the files that its options name are relative to it.
    """
    from denoise.config import override
    from denoise.pipelines.batch.run import BatchSettings, open_batch, plan_batch

    if len(sources) < 2:
        raise ConfigError(f"{sources[0]}: needs a destination too, as in: denoise batch SRC DST.")
    *names, target = sources
    values = override({}, options or [], "strength=0.8")
    if model is not None:
        values["model"] = model
    if prior is not None:
        values["prior"] = prior
    settings = BatchSettings(
        engine=engine,  # type: ignore[arg-type]
        workers=workers,
        threads=threads,
        device=device,
        address=address,
        journal=journal,
        time_limit=time_limit,
        retry_failed=retry_failed,
        overwrite=overwrite,
    )
    if only_audio == only_images:
        modalities: Any = ("audio", "image")
    else:
        modalities = ("audio",) if only_audio else ("image",)
    if dry_run:
        print_plan(plan_batch(names, target, values, modalities=modalities, settings=settings), as_json)
        return
    try:
        with open_batch(names, target, values, modalities=modalities, settings=settings) as planned:
            report_skipped(planned.skipped_kinds)
            n_failed = run(planned, as_json)
    except (KeyboardInterrupt, SystemExit):  # by Ctrl-C and SIGTERM
        print_error("interrupted; the same command does what is missing")
        raise
    if n_failed:
        raise typer.Exit(1)


def print_plan(batch: Batch, as_json: bool) -> None:
    """Print what a batch would do.

    Args:
        batch: the batch.
        as_json: whether to print a line of JSON per file.
    """
    report_skipped(batch.skipped_kinds)
    pending = {file.item.target for file in batch.pending}
    for file in batch.files:
        row = {"input": file.item.source, "output": file.item.target, "plan": file.plan}
        if as_json:
            print(json.dumps(row | {"pending": file.item.target in pending}))
        elif file.item.target in pending:
            print_line(f"{file.plan:8} {file.item.source} -> {file.item.target}")
    counts = Counter(file.plan for file in batch.files)
    listed = ", ".join(f"{plan} {n}" for plan, n in sorted(counts.items()))
    print_error(f"{len(pending)} of {len(batch.files)} files would be written ({listed})")


def run(batch: Batch, as_json: bool) -> int:
    """Run a batch with a progress bar, a line per file and a summary.

    Args:
        batch: the batch.
        as_json: whether to print a line of JSON per file.

    Returns:
        Number of files that failed, now or in an earlier run.
    """
    pending = batch.pending
    started, counts, out = time.perf_counter(), Counter[str](), sys.stdout
    with redirect_stdout(sys.stderr), make_progress_bar(counts=True) as bar:  # Ray prints messages of its own
        task = bar.add_task("files", total=len(pending))
        for record in batch.run():
            counts[record.status] += 1
            print_record(record, as_json, out)
            bar.update(task, advance=1)
    rate = f", {len(pending) / (time.perf_counter() - started):.3g} files/s" if pending else ""
    before = Counter(file.plan for file in batch.files)
    failed_before = 0 if batch.settings.retries_failed else before["failed"]
    parts = [f"{counts['done']} done", f"{counts['failed']} failed"]
    parts += [f"{before['done']} done before"] if before["done"] else []
    parts += [f"{failed_before} failed before (--retry-failed tries them again)"] if failed_before else []
    print_error(f"{', '.join(parts)}{rate}; journal: {batch.journal.path}")
    return counts["failed"] + failed_before


def print_record(record: Record, as_json: bool, out: TextIO) -> None:
    """Print what happened to a file: a line of JSON, or its output or its error.

    Args:
        record: record of the journal.
        as_json: whether to print JSON.
        out: where outputs and JSON are printed.
    """
    if as_json:
        print(json.dumps(asdict(record), default=str), file=out, flush=True)
        return
    for warning in record.warnings:
        print_error(f"warning: {warning}")
    if record.error is not None:
        print_error(record.error)
    else:
        model, reason = record.result.get("model"), record.result.get("model_reason")
        is_image = "noise_before_sigma_255" in record.result
        chosen = describe_model(model, reason, is_image=is_image) if model and reason else ""
        print_line(f"{record.output}  {record.seconds:.1f} s{chosen}", out)
