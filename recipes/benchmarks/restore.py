"""Solve inverse problems with a denoiser as the prior: deblurring, super-resolution and inpainting with noise.

python recipes/benchmarks/restore.py --data DIR
"""

from __future__ import annotations

from collections.abc import Callable
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
from image import read_clean

SIDE = 256  # pixels, of the central crop of each image
DIGITS = {"PSNR": 2, "fine power": 3, "s/MP": 2}


def problems(generator: Any) -> dict[str, Any]:
    """Return the measurement operators by name."""
    import torch

    from denoise.sampling.operators import Blur, Downsample, Mask

    position = torch.arange(-7, 8, dtype=torch.float32)
    gaussian = torch.exp(-(position**2) / (2 * 1.6**2))
    kernel = gaussian[:, None] * gaussian
    is_observed = torch.rand(1, 1, SIDE, SIDE, generator=generator) < 0.5
    return {"blurred": Blur(kernel / kernel.sum()), "reduced": Downsample(4), "half lost": Mask(is_observed.float())}


def samplers(sigma_y: float) -> dict[str, Callable[..., Any]]:
    """Return the posterior samplers by name, called with (denoiser, measurement, operator, sigmas, start, generator).

    Args:
        sigma_y: level of the measurement noise, full scale 1.0.
    """
    from denoise.sampling import posterior

    def with_sigma_y(sampler: Callable[..., Any]) -> Callable[..., Any]:
        def sample(denoiser: Any, y: Any, operator: Any, sigmas: Any, *, start: Any, generator: Any) -> Any:
            return sampler(denoiser, y, operator, sigma_y, sigmas, start=start, generator=generator)

        return sample

    return {
        "diffpir": with_sigma_y(posterior.diffpir),
        "ddrm": with_sigma_y(posterior.ddrm),
        "dps": posterior.dps,
        "pnp-flow": posterior.pnp_flow,
    }


def main(
    data: Annotated[Path, typer.Option(help="A folder of clean images.", metavar="DIR")],
    model: Annotated[
        str, typer.Option(help="Name or .safetensors file of a model with sigma conditioning.")
    ] = "gaussian",
    names: Annotated[
        str, typer.Option("--samplers", help="Posterior samplers, some of diffpir,ddrm,dps,pnp-flow.")
    ] = "diffpir,ddrm,dps,pnp-flow",
    sigma: Annotated[float, typer.Option(help="Level of the measurement noise, 0 to 255.")] = 2.55,
    steps: Annotated[int, typer.Option(help="Noise levels of the sampler.")] = 30,
    limit: Annotated[int, typer.Option(help="Maximum number of images.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the noise and the samplers.")] = 0,
    threads: Threads = 2,
    json_file: JsonFile = None,
) -> None:
    """Measure each sampler on each problem; print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    import torch

    from denoise.files.find import find_files
    from denoise.files.image import IMAGE_EXTENSIONS
    from denoise.noise import generator_for
    from denoise.probability_path import karras_sigmas
    from denoise.registry import load

    torch.set_num_threads(threads)
    net, card = load(model, kind="denoiser", modality="image")
    files = find_files(data, (".",), IMAGE_EXTENSIONS)
    selected = evenly_spaced([*enumerate(files)], limit)
    sigmas = karras_sigmas(steps, 0.01, 1.0)
    rows: list[Row] = []
    for index, path in show_progress(selected, "images"):
        x = torch.from_numpy(read_clean(path, grey=False)).permute(2, 0, 1)[None]
        top, left = ((n - SIDE) // 2 for n in x.shape[2:])
        clean = x[..., top : top + SIDE, left : left + SIDE]
        for problem, operator in problems(generator_for(seed, index, 0)).items():
            y = operator.forward(clean)
            noise = sigma / 255 * torch.randn(y.shape, generator=generator_for(seed, index, 1))
            y = y + (noise * operator.mask if problem == "half lost" else noise)
            start = sigmas[0] * torch.randn(clean.shape, generator=generator_for(seed, index, 2)) + 0.5
            # baseline without a prior: the measurement at the size of the image
            baseline = operator.from_spectral(operator.pseudoinverse(y)).real if problem != "blurred" else y
            rows.append({"problem": problem, "sampler": "none", "file": path.name} | quality(baseline, clean))
            for name in names.split(","):
                started = clock()
                with torch.no_grad():
                    restored = samplers(sigma / 255)[name](
                        net, y, operator, sigmas, start=start, generator=generator_for(seed, index, 3)
                    )
                seconds = (clock() - started) * 1e6 / SIDE**2
                row = {"problem": problem, "sampler": name, "file": path.name}
                rows.append(row | quality(restored, clean) | {"s/MP": seconds})
    table = []
    for problem, name in dict.fromkeys((row["problem"], row["sampler"]) for row in rows):
        group = [row for row in rows if (row["problem"], row["sampler"]) == (problem, name)]
        means = {key: float(np.mean([row[key] for row in group])) for key in DIGITS if key in group[0]}
        table.append({"problem": problem, "sampler": name, **{key: means.get(key) for key in DIGITS}})
    protocol = (
        f"{card.name}; central {SIDE} x {SIDE} pixels of {len(selected)} of {len(files)} images of "
        f"{data.resolve().name}, in colour; blurred: Gaussian, 1.6 pixels, circular; reduced: means of 4 x 4; "
        f"half lost: pixels at random; then noise of {sigma:g} / 255; {steps} noise levels from 1 to 0.01; none: the "
        f"measurement itself, upsampled to squares; fine power: energy of pixel differences relative to the clean "
        f"image; s/MP: {describe_clock(threads)}; seed {seed}; {describe_environment(['torch'])}"
    )
    report(table, protocol, DIGITS, json_file, {"rows": rows})


def quality(x: Any, clean: Any) -> Row:
    """Return the PSNR in dB and the fraction of the fine power that is present."""
    error = (x - clean).square().mean()
    fine = [y.diff(dim=-1).square().mean() + y.diff(dim=-2).square().mean() for y in (x, clean)]
    return {"PSNR": float(-10 * error.log10()), "fine power": float(fine[0] / fine[1])}


if __name__ == "__main__":
    typer.run(main)
