"""Remove JPEG artefacts and restore clipped highlights by a prior, beside the blind denoiser `photo`.

python recipes/benchmarks/jpeg.py --data DIR
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import (
    JsonFile,
    Row,
    Threads,
    describe_clock,
    describe_environment,
    evenly_spaced,
    report,
    show_progress,
    use_threads,
)
from image import read_clean

DIGITS = {"in": 2, "photo": 2, "sample": 2, "mean": 2, "clipped in": 2, "clipped mean": 2, "s": 1}
QUALITIES = 10, 30, 50
LIMIT = 0.75


def main(
    data: Annotated[Path, typer.Option(help="A folder of clean images.", metavar="DIR")],
    prior: Annotated[str, typer.Option(help="Name or .safetensors file of a prior.")] = "gaussian",
    side: Annotated[int, typer.Option(help="Side of the central crop of each image.")] = 96,
    samples: Annotated[int, typer.Option(help="Posterior samples whose mean is measured.", min=2)] = 2,
    limit: Annotated[int, typer.Option(help="Maximum number of images.", min=1)] = 4,
    threads: Threads = 1,
    json_file: JsonFile = None,
) -> None:
    """Measure each quality, and clipping; print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    import torch

    from denoise import ImagePipeline, RestoreOptions, RestorePipeline
    from denoise.files.find import find_files
    from denoise.files.image import IMAGE_EXTENSIONS, read_image, write_image
    from denoise.signals import Image, ImageFormat

    torch.set_num_threads(threads)
    restore, photo = RestorePipeline(prior), ImagePipeline()
    rows: list[Row] = []
    files = find_files(data, (".",), IMAGE_EXTENSIONS)
    for path in show_progress(evenly_spaced(files, limit), "images"):
        x = read_clean(path, grey=False)
        top, left = ((n - side) // 2 for n in x.shape[:2])
        clean = np.rint(255 * x[top : top + side, left : left + side]).astype(np.uint8)
        damaged: dict[str, tuple[Image, RestoreOptions]] = {}
        for quality in QUALITIES:
            file = io.BytesIO()
            write_image(
                file, [Image(clean)], ImageFormat("JPEG", info={"jpeg": {"quality": quality, "subsampling": 2}})
            )
            file.seek(0)
            damaged[f"quality {quality}"] = read_image(file), RestoreOptions(task="dejpeg", quality=quality)
        clipped = np.minimum(clean, round(255 * LIMIT)).astype(np.uint8)
        damaged[f"clipped at {LIMIT}"] = Image(clipped), RestoreOptions(task="declip", limit=round(255 * LIMIT) / 255)
        for name, (image, options) in damaged.items():
            if options.task == "declip" and not (clean > clipped).any():
                continue
            started = clock()
            draws = []
            for seed in range(samples):
                draw = RestoreOptions(task=options.task, quality=options.quality, limit=options.limit, seed=seed)
                draws.append(restore.frame(image, draw).pixels)
            seconds, mean = (clock() - started) / samples, np.mean(draws, axis=0)
            row = {"task": name, "in": psnr(image.pixels, clean), "sample": psnr(draws[0], clean)}
            row |= {"mean": psnr(mean, clean), "photo": psnr(photo.frame(image).pixels, clean), "s": seconds}
            if options.task == "declip":
                hole = clean > clipped
                row |= {"clipped in": psnr(clipped[hole], clean[hole]), "clipped mean": psnr(mean[hole], clean[hole])}
            rows.append(row)
    table: list[Row] = []
    for name in dict.fromkeys(row["task"] for row in rows):
        group = [row for row in rows if row["task"] == name]
        means = {key: float(np.mean([row[key] for row in group])) for key in DIGITS if key in group[0]}
        table.append({"task": name, **{key: means.get(key) for key in DIGITS}})
    protocol = (
        f"prior {prior}, 20 steps of DiffPIR; central {side} x {side} pixels of {limit} of {len(files)} images of "
        f"{data.resolve().name}, in colour; JPEG with chroma at half the resolution; mean PSNR in dB, of one posterior "
        f"sample and of the mean of {samples}; clipped: of the clipped values alone; s a sample: "
        f"{describe_clock(threads)}; {describe_environment(['torch', 'pillow'])}"
    )
    report(table, protocol, DIGITS, json_file, {"rows": rows})


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Return the PSNR of 8-bit pixels in dB."""
    return float(10 * np.log10(255**2 / max(1e-9, np.square(a.astype(float) - b).mean())))


if __name__ == "__main__":
    typer.run(main)
