"""Restore handwritten digits by priors of every family: noise, missing strokes, blur, lost resolution.

python recipes/benchmarks/digits.py --data mnist.npz --priors mnist-vae,mnist-flow,mnist-matching,mnist-diffusion
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import JsonFile, Row, Threads, describe_clock, describe_environment, report, show_progress, use_threads

from denoise.options import INVERSION_STEPS, PRIOR_STEPS

DIGITS = {"in": 2, "out": 2, "s": 2}
BLUR = 1.5  # pixels


def problems(side: int) -> dict[str, tuple[Any, float]]:
    """Return the measurement operators by task, with the level of the noise on the scale of 255."""
    import torch

    from denoise.sampling.operators import Blur, Downsample, Mask

    position = torch.arange(-6, 7.0)
    gaussian = torch.exp(-position.square() / (2 * BLUR**2))
    kernel = gaussian[:, None] * gaussian
    observed = torch.ones(side, side)
    observed[10:16] = 0
    observed[:, 12:15] = 0
    return {
        "denoise": (Mask(torch.ones(1)), 50.0),
        "inpaint": (Mask(observed), 0.5),
        "deblur": (Blur(kernel / kernel.sum()), 2.0),
        "upscale": (Downsample(2), 0.5),
    }


def main(
    data: Annotated[Path, typer.Option(help="File mnist.npz.", metavar="NPZ")],
    priors: Annotated[str, typer.Option(help="Names or .safetensors files of priors.")],
    split: Annotated[str, typer.Option(help="test, or train to choose settings.")] = "test",
    limit: Annotated[int, typer.Option(help="Number of digits, evenly spaced.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the noise and the samplers.")] = 0,
    threads: Threads = 1,
    json_file: JsonFile = None,
) -> None:
    """Measure each prior on each task; print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    import torch

    from denoise.probability_path import karras_sigmas
    from denoise.protocols import DenoisingPrior
    from denoise.registry import load
    from denoise.sampling.inversion import restore_by_inversion
    from denoise.sampling.posterior import diffpir

    torch.set_num_threads(threads)
    images = np.load(data)[f"{split}_images"]
    rows = np.linspace(0, len(images) - 1, limit).astype(int)
    clean = torch.from_numpy(images[rows]).float()[:, None] / 255
    table: list[Row] = []
    for name in show_progress(priors.split(","), "priors"):
        prior, card = load(name, kind="prior", modality="image")
        for task, (operator, sigma_255) in problems(clean.shape[-1]).items():
            generator, sigma = torch.Generator().manual_seed(seed), sigma_255 / 255
            y = operator.forward(clean)
            y = (y + sigma * torch.randn(y.shape, generator=generator)).clamp(0, 1)
            if task == "inpaint":
                y = operator.forward(y)
            started = clock()
            with torch.no_grad():
                if isinstance(prior, DenoisingPrior):
                    sigmas = karras_sigmas(PRIOR_STEPS, 0.01, 1.0)
                    grey = y.sum() / operator.forward(torch.ones_like(clean)).sum()
                    start = grey + torch.randn(clean.shape, generator=generator)
                    x = diffpir(prior, y, operator, sigma, sigmas, start=start, generator=generator)
                else:
                    shape, steps = clean.shape[1:], INVERSION_STEPS
                    x = restore_by_inversion(prior, y, operator, sigma, shape, steps=steps, generator=generator)
            seconds = (clock() - started) / limit
            enlarged = operator.adjoint(y) * 4 if task == "upscale" else y
            row = {"task": task, "prior": card.name, "in": psnr(enlarged, clean), "out": psnr(x, clean), "s": seconds}
            table.append(row)
    protocol = (
        f"{limit} digits of the {split} split; denoise: sigma 50 of 255; inpaint: 6 rows and 3 columns missing; "
        f"deblur: Gaussian of {BLUR} pixels, sigma 2; upscale: means of 2 x 2 pixels; measurements clipped to 0 to 1; "
        "mean PSNR in dB of in (missing pixels black, enlarged by repetition) and out; "
        f"{PRIOR_STEPS} steps of DiffPIR, one posterior sample, or {INVERSION_STEPS} steps of inversion; s a digit "
        f"in a batch: {describe_clock(threads)}; seed {seed}; {describe_environment(['torch'])}"
    )
    report(table, protocol, DIGITS, json_file, {"rows": table})


def psnr(x: Any, clean: Any) -> float:
    """Return the mean PSNR of images in dB."""
    errors = (x.clamp(0, 1) - clean).square().flatten(1).mean(dim=1)
    return float(-10 * errors.log10().mean())


if __name__ == "__main__":
    typer.run(main)
