"""Solve inverse problems by the algorithms of deepinv with the denoiser of this project, and by those of this project.

deepinv is no dependency: install it in an environment of its own.

python recipes/benchmarks/restore_peers.py --data DIR
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
from image import read_clean

DIGITS = {"PSNR": 2, "s": 2, "s / ours": 2}
BLUR = 1.6  # pixels
PEER_STEPS, PEER_ZETA = 100, 0.3  # defaults of deepinv: steps, and fraction of the noise that is drawn anew


def main(
    data: Annotated[Path, typer.Option(help="A folder of clean images.", metavar="DIR")],
    side: Annotated[int, typer.Option(help="Side of the central crop of each image.")] = 128,
    sigma: Annotated[float, typer.Option(help="Level of the measurement noise, 0 to 255.")] = 2.55,
    steps: Annotated[int, typer.Option(help="Noise levels of the samplers.")] = 30,
    limit: Annotated[int, typer.Option(help="Maximum number of images.", min=1)] = 4,
    threads: Threads = 1,
    json_file: JsonFile = None,
) -> None:
    """Measure each algorithm on each problem; print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    import deepinv
    import torch

    from denoise.files.find import find_files
    from denoise.files.image import IMAGE_EXTENSIONS
    from denoise.noise import generator_for
    from denoise.probability_path import karras_sigmas
    from denoise.registry import load
    from denoise.sampling.operators import Blur, Mask
    from denoise.sampling.posterior import diffpir

    torch.set_num_threads(threads)
    net, _ = load("gaussian", kind="denoiser", modality="image")

    class Denoiser(torch.nn.Module):
        """The network with the arguments of deepinv: sigma is a number or one for each image."""

        def forward(self, x: Any, sigma: Any, **_: Any) -> Any:
            return net(x, torch.as_tensor(sigma, dtype=x.dtype).reshape(-1).expand(len(x)))

    position = torch.arange(-7, 8, dtype=torch.float32)
    gaussian = torch.exp(-(position**2) / (2 * BLUR**2))
    kernel = gaussian[:, None] * gaussian / gaussian.sum() ** 2
    observed = (torch.rand(1, 1, side, side, generator=generator_for(0, 0, 0)) < 0.5).float()
    shape, noise_level = (3, side, side), sigma / 255
    problems = {
        "blurred": (Blur(kernel), deepinv.physics.BlurFFT(shape, filter=kernel[None, None])),
        "half lost": (Mask(observed), deepinv.physics.Inpainting(shape, mask=observed.expand(1, *shape)[0])),
    }
    sigmas = karras_sigmas(steps, 0.01, 1.0)
    dpir = deepinv.optim.DPIR(sigma=noise_level, denoiser=Denoiser(), device="cpu")

    def peer(max_iter: int, zeta: float) -> Any:
        settings = {"max_iter": max_iter, "zeta": zeta, "verbose": False, "device": "cpu"}
        return deepinv.sampling.DiffPIR(Denoiser(), deepinv.optim.L2(), sigma=noise_level, **settings)

    same, default = peer(steps, 1.0), peer(PEER_STEPS, PEER_ZETA)
    rows: list[Row] = []
    files = find_files(data, (".",), IMAGE_EXTENSIONS)
    for index, path in show_progress(evenly_spaced([*enumerate(files)], limit), "images"):
        x = torch.from_numpy(read_clean(path, grey=False)).permute(2, 0, 1)[None]
        top, left = ((n - side) // 2 for n in x.shape[2:])
        clean = x[..., top : top + side, left : left + side]
        for problem, (operator, physics) in problems.items():
            if (operator.forward(clean) - physics.A(clean)).abs().max() > 1e-4:
                raise SystemExit(f"{problem}: the operators differ.")
            noise = noise_level * torch.randn(clean.shape, generator=generator_for(0, index, 1))
            y = operator.forward(clean) + (noise if problem == "blurred" else operator.forward(noise))
            generator = generator_for(0, index, 2)
            start = 0.5 + torch.randn(clean.shape, generator=generator)
            settings = {"start": start, "generator": generator}

            methods = {
                "denoise, DiffPIR": lambda y=y, operator=operator, settings=settings: diffpir(
                    net, y, operator, noise_level, sigmas, **settings
                ),
                "deepinv, DiffPIR, same zeta": lambda y=y, physics=physics: same(y, physics, seed=0),
                f"deepinv, DiffPIR, {PEER_STEPS} steps": lambda y=y, physics=physics: default(y, physics, seed=0),
                "deepinv, DPIR": lambda y=y, physics=physics: dpir(y, physics),
            }
            for method, restore in methods.items():
                started = clock()
                with torch.no_grad():
                    restored = restore()
                error = (restored.clamp(0, 1) - clean).square().mean()
                seconds = clock() - started
                row = {"problem": problem, "method": method, "file": path.name, "PSNR": float(-10 * error.log10())}
                rows.append(row | {"s": seconds})
    table: list[Row] = []
    for problem, method in dict.fromkeys((row["problem"], row["method"]) for row in rows):
        group = [row for row in rows if (row["problem"], row["method"]) == (problem, method)]
        seconds = float(np.mean([row["s"] for row in group]))
        first = next((row["s"] for row in table if row["problem"] == problem), seconds)
        psnr = float(np.mean([row["PSNR"] for row in group]))
        table.append({"problem": problem, "method": method, "PSNR": psnr, "s": seconds, "s / ours": seconds / first})
    protocol = (
        f"the denoiser gaussian in all of them; central {side} x {side} pixels of {limit} of {len(files)} images of "
        f"{data.resolve().name}, in colour; blurred: Gaussian, {BLUR} pixels, circular; half lost: pixels at random; "
        f"then noise of {sigma:g} / 255; {steps} steps and zeta 1, or the defaults of deepinv, and 8 of DPIR; output "
        f"clipped to 0 to 1; s an image: {describe_clock(threads)}; {describe_environment(['torch', 'deepinv'])}"
    )
    report(table, protocol, DIGITS, json_file, {"rows": rows})


if __name__ == "__main__":
    typer.run(main)
