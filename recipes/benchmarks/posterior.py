"""Whether the pictures that a denoiser draws are as likely, as sharp and as various as the true ones.

python recipes/benchmarks/posterior.py --data DIR
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import JsonFile, Row, Threads, bar, clock_name, report, spread, use_threads, where
from image import Noise, Pixels, degrade, read_clean
from numpy.typing import NDArray

BLOCK = 16  # pixels: a side of the squares whose error is foretold


def psnr(a: Pixels, b: Pixels) -> float:
    """Decibels, neither clipped: a draw may leave [0, 1] as the mean does."""
    return float(-10 * np.log10(np.mean(np.square(a - b))))


def fine_power(x: Pixels) -> float:
    """Energy of the spatial frequencies above half of Nyquist's, means taken off and edges faded."""
    fade = np.hanning(x.shape[0])[:, None] * np.hanning(x.shape[1])
    spectrum = np.abs(np.fft.fft2((x - x.mean(axis=(0, 1))) * fade[..., None], axes=(0, 1))) ** 2
    hz = np.hypot(np.fft.fftfreq(x.shape[0])[:, None], np.fft.fftfreq(x.shape[1]))
    return float(spectrum[hz > 0.25].sum())


def block_rms(x: Pixels) -> NDArray[np.float64]:
    """Root mean square of squares of ``BLOCK`` pixels. Shape: (squares,)."""
    h, w = (n // BLOCK * BLOCK for n in x.shape[:2])
    squares = np.square(x[:h, :w]).reshape(h // BLOCK, BLOCK, w // BLOCK, BLOCK, -1)
    return np.sqrt(squares.mean(axis=(1, 3, 4))).ravel()


def measure(draw: Any, mean: Pixels, clean: Pixels, n: int) -> Row:
    """Figures of ``n`` draws of one picture."""
    from scipy.stats import spearmanr

    draws = np.stack([draw(seed) for seed in range(n)])
    inside = (clean >= draws.min(axis=0)) & (clean <= draws.max(axis=0))
    foretold = block_rms(draws.std(axis=0, ddof=1))
    return {
        "mean": psnr(mean, clean),
        "draw": float(np.mean([psnr(x, clean) for x in draws])),
        f"mean of {n}": psnr(draws.mean(axis=0), clean),
        "covered": float(inside.mean()),
        "rank": float(spearmanr(foretold, block_rms(mean - clean)).statistic),
        "power": [fine_power(x) for x in (clean, mean, draws[0])],
    }


def main(
    data: Annotated[Path, typer.Option(help="A folder of clean images.", metavar="DIR")],
    model: Annotated[str, typer.Option(help="A model that takes a sigma: a name or a .safetensors file.")] = "gaussian",
    sigma: Annotated[str, typer.Option(help="Of the Gaussian noise, 0 to 255, comma separated.")] = "25,50",
    steps: Annotated[str, typer.Option(help="Calls of the network for a draw, comma separated.")] = "12",
    samples: Annotated[int, typer.Option(help="Draws of each image.", min=2)] = 16,
    limit: Annotated[int | None, typer.Option(help="Use at most this many images.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    threads: Threads = 2,
    json_file: JsonFile = None,
) -> None:
    """Measure draws against the clean images, and print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    import torch

    from denoise import ImagePipeline
    from denoise.files.find import find_files
    from denoise.files.image import IMAGE_EXTENSIONS
    from denoise.noise import generator_for
    from denoise.signals import Image

    torch.set_num_threads(threads)
    pipeline = ImagePipeline(model, device="cpu")
    files = find_files(data, (".",), IMAGE_EXTENSIONS)
    table: list[Row] = []
    rows: list[Row] = []
    for level, nfe in ((float(s), int(n)) for s in sigma.split(",") for n in steps.split(",")):
        found: list[Row] = []
        for index, path in bar(spread([*enumerate(files)], limit or len(files)), f"sigma {level:g}, {nfe} steps"):
            clean = read_clean(path, grey=False)
            noise = generator_for(seed, index, round(level))
            noisy = Image(degrade(clean, level / 255, noise, Noise.GAUSSIAN, clipped=False))
            how: dict[str, Any] = {"sigma": level / 255}
            mean = pipeline.frame(noisy, **how).pixels
            began = clock()

            def draw(seed: int, noisy: Image = noisy, how: dict[str, Any] = how, nfe: int = nfe) -> Pixels:
                return pipeline.frame(noisy, perception=1.0, steps=nfe, draw=seed, **how).pixels

            row = measure(draw, mean, clean, samples)
            row["s/MP"] = (clock() - began) / samples * 1e6 / clean[..., 0].size
            found.append(row | {"sigma": level, "steps": nfe, "file": path.name})
        rows += found
        power = np.sum([row.pop("power") for row in found], axis=0)
        means = {key: float(np.mean([row[key] for row in found])) for key in found[0] if key not in ("file",)}
        table.append(
            {
                "sigma": f"{level:g}",
                "steps": str(nfe),
                "mean, dB": means["mean"],
                "one draw": means["draw"] - means["mean"],
                f"mean of {samples} draws": means[f"mean of {samples}"] - means["mean"],
                "fine power of the mean": power[1] / power[0],
                "of a draw": power[2] / power[0],
                "covered": means["covered"],
                "rank correlation": means["rank"],
                "s/MP": means["s/MP"],
            }
        )
    exact = (samples - 1) / (samples + 1)
    protocol = (
        f"{pipeline.card.name}; {len(found)} of {len(files)} images of {data.resolve().name} in colour, white Gaussian "
        f"noise of sigma / 255 in float, unclipped, seed {seed}, true sigma told; nothing is clipped; mean: the answer "
        f"without drawing, PSNR; one draw, mean of {samples} draws: how far above it (an exact sampler: -3.01 and "
        f"{-10 * np.log10(1 + 1 / samples):.2f} dB); fine power: energy above half of Nyquist's frequency by that of "
        f"the clean images; covered: share of values between the least and the greatest of {samples} draws (exact: "
        f"{exact:.3f}); rank correlation: Spearman's, of the draws' deviation and the mean's error in squares of "
        f"{BLOCK} pixels, mean over images; s/MP: for one draw, {clock_name(threads)}; {where(['torch'])}"
    )
    digits = {"fine power of the mean": 3, "of a draw": 3, "covered": 3, "rank correlation": 3}
    report(table, protocol, digits, json_file, {"rows": rows})


if __name__ == "__main__":
    typer.run(main)
