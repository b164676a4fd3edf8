"""Measure the denoising of point clouds: Chamfer distances on shapes that a prior was and was not trained on.

python recipes/benchmarks/points.py shapes --picture recipes/shapes/denoised.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Generator

from denoise.files.image import write_image
from denoise.metrics import chamfer_distance
from denoise.pipelines.points import PointPipeline
from denoise.pipelines.prior_files import make_grid
from denoise.rendering import render_points
from denoise.signals import Image, ImageFormat
from denoise.training.shapes import SHAPES, sample_shape


def main(
    model: Annotated[str, typer.Argument(help="Name of a bundled prior, or a .safetensors file.")],
    sigma: Annotated[float, typer.Option(help="Noise of each coordinate, as a fraction of the diagonal.")] = 0.02,
    n: Annotated[int, typer.Option("-n", help="Clouds of each shape.")] = 4,
    points: Annotated[int, typer.Option(help="Points of a cloud.")] = 2048,
    picture: Annotated[Path | None, typer.Option(help="Picture of the first clouds: clean, noisy, denoised.")] = None,
) -> None:
    """Print the ratio of the Chamfer distances to the clean points after and before denoising, by shape.

    Squared distances (the Chamfer distance) and, in the second column, plain ones. Columns 3 and 4: sigma estimated.
    """
    pipeline, rows = PointPipeline(model), []
    print("shape     squared  plain  squared (auto)  estimate of sigma")
    for name in SHAPES:
        ratios = []
        for seed in range(n):
            generator = Generator().manual_seed(seed)
            clean = sample_shape(name, points, generator).double()
            diagonal = (clean.amax(dim=0) - clean.amin(dim=0)).norm()
            noisy = clean + sigma * diagonal * torch.randn(clean.shape, generator=generator)
            noisy_diagonal = (noisy.amax(dim=0) - noisy.amin(dim=0)).norm()
            given, _ = pipeline.denoise(noisy.numpy(), float(sigma * diagonal / noisy_diagonal))
            blind, estimate = pipeline.denoise(noisy.numpy())
            clouds = torch.stack([noisy, *map(torch.from_numpy, (given, blind))]).transpose(1, 2)
            reference = clean.T.expand(3, -1, -1)
            before, *after = chamfer_distance(clouds, reference).tolist()
            plain = [plain_distance(cloud, clean.T) for cloud in clouds]
            ratios.append(
                [after[0] / before, plain[1] / plain[0], after[1] / before, estimate * noisy_diagonal / diagonal]
            )
            if not seed:
                rows.append(torch.stack([clean.T, *clouds[:2]]))
        print(f"{name:<9} " + "  ".join(f"{value:.4f}" for value in np.mean(ratios, axis=0)))
    if picture:
        sheet = make_grid(render_points(torch.cat([*torch.stack(rows, dim=1)]).float()), len(SHAPES))
        pixels = np.rint(sheet.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        write_image(picture, [Image(np.ascontiguousarray(pixels))], ImageFormat(mode="L"), overwrite=True)


def plain_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the mean distance to the nearest point, summed both ways, of clouds (3, n)."""
    distances = torch.cdist(a.T, b.T)
    return float(distances.amin(dim=0).mean() + distances.amin(dim=1).mean())


if __name__ == "__main__":
    typer.run(main)
