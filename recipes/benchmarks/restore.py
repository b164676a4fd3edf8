"""A denoiser as the prior of other inverse problems: what was blurred, reduced or partly lost, and noisy besides.

python recipes/benchmarks/restore.py --data DIR
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import JsonFile, Row, Threads, bar, clock_name, report, spread, use_threads, where
from image import read_clean

SIDE = 256  # of the middle of each image that is measured
DIGITS = {"PSNR": 2, "fine power": 3, "s/MP": 2}


def problems(generator: Any) -> dict[str, Any]:
    """Operators by name."""
    import torch

    from denoise.sampling.operators import Blur, Mask, Reduce

    at = torch.arange(-7, 8, dtype=torch.float32)
    bell = torch.exp(-(at**2) / (2 * 1.6**2))
    kernel = bell[:, None] * bell
    kept = torch.rand(1, 1, SIDE, SIDE, generator=generator) < 0.5
    return {"blurred": Blur(kernel / kernel.sum()), "reduced": Reduce(4), "half lost": Mask(kept.float())}


def solvers(sigma_y: float, steps: int) -> dict[str, Callable[..., Any]]:
    """Ways to solve them, from (denoiser, measurement, operator, start, levels, generator)."""
    from denoise.sampling import posterior

    def with_sigma(name: str, **more: Any) -> Callable[..., Any]:
        def solve(denoiser: Any, y: Any, operator: Any, levels: Any, **draws: Any) -> Any:
            return getattr(posterior, name)(denoiser, y, operator, sigma_y, levels, **more, **draws)

        return solve

    return {
        "diffpir": with_sigma("diffpir"),
        "ddrm": with_sigma("ddrm"),
        "dps": posterior.dps,
        "pnp-flow": posterior.pnp_flow,
    }


def main(
    data: Annotated[Path, typer.Option(help="A folder of clean images.", metavar="DIR")],
    model: Annotated[str, typer.Option(help="A model that takes a sigma: a name or a .safetensors file.")] = "gaussian",
    ways: Annotated[str, typer.Option(help="Some of diffpir,ddrm,dps,pnp-flow.")] = "diffpir,ddrm,dps,pnp-flow",
    sigma: Annotated[float, typer.Option(help="Of the noise of the measurement, 0 to 255.")] = 2.55,
    steps: Annotated[int, typer.Option(help="Levels of noise.")] = 30,
    limit: Annotated[int, typer.Option(help="Use at most this many images.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Seed of noise and draws.")] = 0,
    threads: Threads = 2,
    json_file: JsonFile = None,
) -> None:
    """Measure the ways on each problem, and print a table in Markdown and the protocol."""
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
    chosen = spread([*enumerate(files)], limit)
    levels = karras_sigmas(steps, 0.01, 1.0)
    rows: list[Row] = []
    for index, path in bar(chosen, "images"):
        x = torch.from_numpy(read_clean(path, grey=False)).permute(2, 0, 1)[None]
        top, left = ((n - SIDE) // 2 for n in x.shape[2:])
        clean = x[..., top : top + SIDE, left : left + SIDE]
        for problem, operator in problems(generator_for(seed, index, 0)).items():
            y = operator.forward(clean)
            noise = sigma / 255 * torch.randn(y.shape, generator=generator_for(seed, index, 1))
            y = y + (noise * operator.mask if problem == "half lost" else noise)
            start = levels[0] * torch.randn(clean.shape, generator=generator_for(seed, index, 2)) + 0.5
            # what a tool without a prior gives: the measurement brought back to the size of the picture
            plain = operator.signal(operator.pseudoinverse(y)).real if problem != "blurred" else y
            rows.append({"problem": problem, "way": "none", "file": path.name} | quality(plain, clean))
            for way in ways.split(","):
                began = clock()
                with torch.no_grad():
                    out = solvers(sigma / 255, steps)[way](
                        net, y, operator, levels, start=start, generator=generator_for(seed, index, 3)
                    )
                seconds = (clock() - began) * 1e6 / SIDE**2
                rows.append(
                    {"problem": problem, "way": way, "file": path.name} | quality(out, clean) | {"s/MP": seconds}
                )
    table = []
    for problem, way in dict.fromkeys((row["problem"], row["way"]) for row in rows):
        own = [row for row in rows if (row["problem"], row["way"]) == (problem, way)]
        means = {key: float(np.mean([row[key] for row in own])) for key in DIGITS if key in own[0]}
        table.append({"problem": problem, "way": way, **{key: means.get(key) for key in DIGITS}})
    protocol = (
        f"{card.name}; middle {SIDE} x {SIDE} of {len(chosen)} of {len(files)} images of {data.resolve().name} in "
        f"colour; blurred: Gaussian, 1.6 pixels, round at the borders; reduced: means of 4 x 4; half lost: pixels at "
        f"random; then noise of {sigma:g} / 255; {steps} levels from 1 to 0.01; none: the measurement itself, enlarged "
        f"by squares; fine power: energy of the differences of neighbours by that of the clean image; s/MP: "
        f"{clock_name(threads)}; seed {seed}; {where(['torch'])}"
    )
    report(table, protocol, DIGITS, json_file, {"rows": rows})


def quality(x: Any, clean: Any) -> Row:
    """PSNR in decibels and how much of the fine power is there."""
    error = (x - clean).square().mean()
    fine = [part.diff(dim=-1).square().mean() + part.diff(dim=-2).square().mean() for part in (x, clean)]
    return {"PSNR": float(-10 * error.log10()), "fine power": float(fine[0] / fine[1])}


if __name__ == "__main__":
    typer.run(main)
