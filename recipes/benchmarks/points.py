"""Measure the denoising of point clouds: Chamfer distances on shapes that a prior was and was not trained on.

python recipes/benchmarks/points.py shapes --picture recipes/shapes/denoised.png
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from common import JsonFile, Row, Threads, describe_environment, report, show_progress, use_threads

if TYPE_CHECKING:
    from torch import Tensor

    from denoise.pipelines.points import PointPipeline

DIGITS = {"estimate, %": 2}


def main(
    model: Annotated[str, typer.Argument(help="Name of a bundled prior, or a .safetensors file.")],
    sigma: Annotated[float, typer.Option(help="Noise of each coordinate, as a fraction of the diagonal.")] = 0.02,
    n: Annotated[int, typer.Option("-n", help="Clouds of each shape.", min=1)] = 4,
    points: Annotated[int, typer.Option(help="Points of a cloud.", min=16)] = 2048,
    picture: Annotated[Path | None, typer.Option(help="Picture of the first clouds: clean, noisy, denoised.")] = None,
    threads: Threads = 1,
    json_file: JsonFile = None,
) -> None:
    """Print the ratio of the distances to the clean points after and before denoising, by shape."""
    use_threads(threads)
    import torch

    from denoise.pipelines.points import PointPipeline
    from denoise.training.shapes import SHAPES

    torch.set_num_threads(threads)
    pipeline = PointPipeline(model, device="cpu")
    table, clouds = [], []
    for name in show_progress([*SHAPES], "denoising"):
        row, first = measure_shape(pipeline, name, sigma, n, points)
        table.append(row)
        clouds.append(first)
    if picture:
        write_picture(picture, torch.stack(clouds, dim=1).flatten(0, 1))
    protocol = (
        f"{n} clouds of {points} points of each shape, seeds 0 to {n - 1}; white noise of {sigma:g} of the diagonal of "
        "the clean cloud; means of the ratios after / before of the Chamfer distance (squared: mean squared distance "
        "to the nearest point, both ways) and of the plain distance; blind: sigma is estimated; "
        f"{describe_environment(['torch', 'numpy'])}"
    )
    report(table, protocol, DIGITS, json_file, {"model": model})


def measure_shape(pipeline: PointPipeline, name: str, sigma: float, n: int, points: int) -> tuple[Row, Tensor]:
    """Denoise clouds of one shape.

    Args:
        pipeline: prior.
        name: name of the shape.
        sigma: noise of each coordinate, as a fraction of the diagonal of the clean cloud.
        n: number of clouds.
        points: points of a cloud.

    Returns:
        The row of the table, and the first cloud clean, noisy and denoised, (3, 3, points).
    """
    import torch
    from torch import Generator

    from denoise.metrics import chamfer_distance
    from denoise.training.shapes import sample_shape

    ratios, first = [], torch.empty(0)
    for seed in range(n):
        generator = Generator().manual_seed(seed)
        clean = sample_shape(name, points, generator).double()
        noisy = clean + sigma * diagonal(clean) * torch.randn(clean.shape, generator=generator)
        to_clean_diagonal = diagonal(noisy) / diagonal(clean)  # the pipeline knows that of the noisy cloud alone
        given, _ = pipeline.denoise(noisy.numpy(), sigma / to_clean_diagonal)
        blind, estimate = pipeline.denoise(noisy.numpy())
        clouds = torch.stack([noisy, *map(torch.from_numpy, (given, blind))]).transpose(1, 2)
        reference = clean.T.expand(3, -1, -1)
        squared, plain = chamfer_distance(clouds, reference), plain_distance(clouds, reference)
        ratios.append(
            [
                *(squared[1:] / squared[0]).tolist(),
                *(plain[1:] / plain[0]).tolist(),
                100 * estimate * to_clean_diagonal,
            ]
        )
        if not seed:
            first = torch.stack([clean.T, *clouds[:2]])
    columns = ("squared", "squared, blind", "plain", "plain, blind", "estimate, %")
    return {"shape": name, **dict(zip(columns, np.mean(ratios, axis=0).tolist(), strict=True))}, first


def diagonal(points: Tensor) -> float:
    """Return the diagonal of the bounding box of points, (n, 3)."""
    return float((points.amax(dim=0) - points.amin(dim=0)).norm())


def plain_distance(estimate: Tensor, reference: Tensor) -> Tensor:
    """Return the mean distance to the nearest point, summed both ways, of clouds (batch, 3, n): (batch,)."""
    import torch

    distances = torch.cdist(estimate.transpose(1, 2), reference.transpose(1, 2))
    return distances.amin(dim=1).mean(dim=1) + distances.amin(dim=2).mean(dim=1)


def write_picture(path: Path, clouds: Tensor) -> None:
    """Write clouds, (3 * shapes, 3, points), as rows: clean, noisy and denoised."""
    from denoise.files.image import write_image
    from denoise.pipelines.prior_files import make_grid
    from denoise.rendering import render_points
    from denoise.signals import Image, ImageFormat

    sheet: Any = make_grid(render_points(clouds.float()), len(clouds) // 3)
    pixels = np.rint(sheet.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    write_image(path, [Image(np.ascontiguousarray(pixels))], ImageFormat(mode="L"), overwrite=True)


if __name__ == "__main__":
    typer.run(main)
