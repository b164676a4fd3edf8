"""Measure posterior samples of a denoiser: error, fine detail, coverage and calibration.

python recipes/benchmarks/posterior.py --data DIR
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
from image import Noise, Pixels, degrade, read_clean
from numpy.typing import NDArray

BLOCK = 16  # pixels, side of the blocks for which the error is predicted


def psnr(a: Pixels, b: Pixels) -> float:
    """Return the PSNR in dB of images that are not clipped to [0, 1]."""
    return float(-10 * np.log10(np.mean(np.square(a - b))))


def fine_power(x: Pixels) -> float:
    """Return the energy above half of the Nyquist frequency, with the mean removed and a Hann window applied."""
    window = np.hanning(x.shape[0])[:, None] * np.hanning(x.shape[1])
    spectrum = np.abs(np.fft.fft2((x - x.mean(axis=(0, 1))) * window[..., None], axes=(0, 1))) ** 2
    hz = np.hypot(np.fft.fftfreq(x.shape[0])[:, None], np.fft.fftfreq(x.shape[1]))
    return float(spectrum[hz > 0.25].sum())


def block_rms(x: Pixels) -> NDArray[np.float64]:
    """Return the root mean square of blocks of ``BLOCK`` x ``BLOCK`` pixels, (blocks,)."""
    h, w = (n // BLOCK * BLOCK for n in x.shape[:2])
    blocks = np.square(x[:h, :w]).reshape(h // BLOCK, BLOCK, w // BLOCK, BLOCK, -1)
    return np.sqrt(blocks.mean(axis=(1, 3, 4))).ravel()


def measure(sample: Any, mean: Pixels, clean: Pixels, n: int) -> Row:
    """Measure ``n`` posterior samples of one image."""
    from scipy.stats import spearmanr

    samples = np.stack([sample(seed) for seed in range(n)])
    is_covered = (clean >= samples.min(axis=0)) & (clean <= samples.max(axis=0))
    predicted_error = block_rms(samples.std(axis=0, ddof=1))
    return {
        "mean": psnr(mean, clean),
        "sample": float(np.mean([psnr(x, clean) for x in samples])),
        f"mean of {n}": psnr(samples.mean(axis=0), clean),
        "covered": float(is_covered.mean()),
        "rank": float(spearmanr(predicted_error, block_rms(mean - clean)).statistic),
        "power": [fine_power(x) for x in (clean, mean, samples[0])],
    }


def main(
    data: Annotated[Path, typer.Option(help="A folder of clean images.", metavar="DIR")],
    model: Annotated[
        str, typer.Option(help="Name or .safetensors file of a model with sigma conditioning.")
    ] = "gaussian",
    sigma: Annotated[str, typer.Option(help="Levels of Gaussian noise, 0 to 255, comma separated.")] = "25,50",
    steps: Annotated[str, typer.Option(help="Network calls per posterior sample, comma separated.")] = "12",
    samples: Annotated[int, typer.Option(help="Posterior samples per image.", min=2)] = 16,
    limit: Annotated[int | None, typer.Option(help="Maximum number of images.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    threads: Threads = 2,
    json_file: JsonFile = None,
) -> None:
    """Compare posterior samples with the clean images; print a table in Markdown and the protocol."""
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
        image_rows: list[Row] = []
        selected = evenly_spaced([*enumerate(files)], limit or len(files))
        for index, path in show_progress(selected, f"sigma {level:g}, {nfe} steps"):
            clean = read_clean(path, grey=False)
            noise = generator_for(seed, index, round(level))
            noisy = Image(degrade(clean, level / 255, noise, Noise.GAUSSIAN, clipped=False))
            mean = pipeline.frame(noisy, sigma=level / 255).pixels
            started = clock()

            def sample(seed: int, noisy: Image = noisy, sigma: float = level / 255, steps: int = nfe) -> Pixels:
                return pipeline.frame(noisy, sigma=sigma, perception=1.0, steps=steps, seed=seed).pixels

            row = measure(sample, mean, clean, samples)
            row["s/MP"] = (clock() - started) / samples * 1e6 / clean[..., 0].size
            image_rows.append(row | {"sigma": level, "steps": nfe, "file": path.name})
        rows += image_rows
        power = np.sum([row.pop("power") for row in image_rows], axis=0)
        means = {key: float(np.mean([row[key] for row in image_rows])) for key in image_rows[0] if key != "file"}
        table.append(
            {
                "sigma": f"{level:g}",
                "steps": str(nfe),
                "mean, dB": means["mean"],
                "one sample": means["sample"] - means["mean"],
                f"mean of {samples} samples": means[f"mean of {samples}"] - means["mean"],
                "fine power of the mean": power[1] / power[0],
                "of a sample": power[2] / power[0],
                "covered": means["covered"],
                "rank correlation": means["rank"],
                "s/MP": means["s/MP"],
            }
        )
    exact_coverage = (samples - 1) / (samples + 1)
    protocol = (
        f"{pipeline.card.name}; {len(image_rows)} of {len(files)} images of {data.resolve().name} in colour, white "
        f"Gaussian noise of sigma / 255 in float, unclipped, seed {seed}, true sigma given; mean: PSNR of "
        f"the posterior mean; one sample, mean of {samples} samples: difference to it (exact sampler: -3.01 and "
        f"{-10 * np.log10(1 + 1 / samples):.2f} dB); fine power: energy above half of the Nyquist frequency, "
        f"relative to the clean images; covered: fraction of values within the range of {samples} samples (exact: "
        f"{exact_coverage:.3f}); rank correlation: Spearman's, of the samples' standard deviation and the error "
        f"of the mean in blocks of {BLOCK} pixels, mean over images; s/MP: for one sample, {describe_clock(threads)}; "
        f"{describe_environment(['torch'])}"
    )
    digits = {"fine power of the mean": 3, "of a sample": 3, "covered": 3, "rank correlation": 3}
    report(table, protocol, digits, json_file, {"rows": rows})


if __name__ == "__main__":
    typer.run(main)
