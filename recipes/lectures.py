"""Draw the figures of lecture-vae-digits: samples of a plain autoencoder beside those of variational ones.

python recipes/lectures.py --data DIR --weights runs
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from denoise import PriorPipeline
from denoise.files.image import write_image
from denoise.pipelines.prior_files import make_grid
from denoise.signals import Image, ImageFormat

OUT = Path(__file__).parent / "lecture-vae-digits"
NAMES = ("lecture-ae-digits", "lecture-vae-digits", "lecture-vae-digits-mse")
SCALE = 4  # pixels of the figures for one of a digit
HOLD_OUT = 5  # examples.hold_out_every of the recipes


def write_figure(path: Path, grids: list[Tensor]) -> None:
    """Write grids of digits, (1, height, width) each, side by side and enlarged."""
    gap = torch.ones(1, grids[0].shape[1], 6)
    sheet = torch.cat([part for grid in grids for part in (grid, gap)][:-1], dim=2)
    sheet = sheet.clamp(0, 1).repeat_interleave(SCALE, 1).repeat_interleave(SCALE, 2)
    pixels = (255 * sheet).round().byte().permute(1, 2, 0).numpy()
    write_image(path, [Image(np.ascontiguousarray(pixels))], ImageFormat("PNG", "L"), overwrite=True)


def main(
    data: Annotated[Path, typer.Option(help="Root of the data folder that the recipes name.", metavar="DIR")],
    weights: Annotated[Path, typer.Option(help="Folder with NAME/NAME.safetensors.")],
) -> None:
    """Draw samples of three codecs and decodings of held-out digits; print R^2 and likelihoods of held-out digits."""
    images = np.load(data / "image/digits8.npz")["images"][::HOLD_OUT]
    held_out = torch.from_numpy(images).float()[:, None] / 255
    pipelines = {name: PriorPipeline(weights / name / f"{name}.safetensors", device="cpu") for name in NAMES}
    write_figure(OUT / "samples.png", [make_grid(p.sample(64), 8) for p in pipelines.values()])
    few = held_out[:6].split(1)
    rows = [torch.cat([x, pipelines[NAMES[1]].decodings(x, 15, seed=i)]) for i, x in enumerate(few)]
    write_figure(OUT / "decoded.png", [make_grid(torch.cat(rows), 16)])
    for name, pipeline in pipelines.items():
        samples = pipeline.sample(1000)
        nearest = torch.cdist(samples.flatten(1), held_out.flatten(1)).amin(dim=1).mean()
        line = f"{name}: R^2 {pipeline.reconstruction_r2(held_out)[0]:.4f}, distance of samples {nearest:.3f}"
        if name == NAMES[1]:
            line += f", nats {-pipeline.log_prob(held_out)[0].mean():.2f}"
        print(line)


if __name__ == "__main__":
    typer.run(main)
