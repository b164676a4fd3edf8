"""Draw the flow z = 0.5 x - 2.5, whose signals are from N(5, 2^2).

python recipes/lecture-affine-flow/plot.py docs/assets/affine-flow.png
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import torch
import typer

from denoise.priors.flows import FlowConfig, build_flow

MEAN, STD = 5.0, 2.0
SAMPLES = 20_000
LINES = 13  # values of z whose signals are joined with them


def main(out: Annotated[Path, typer.Argument(help="PNG to write.")]) -> None:
    """Draw histograms of noise and of its signals, the densities of both, and the map between them."""
    from matplotlib.figure import Figure

    flow = build_flow(FlowConfig((1,), "normal", mean=MEAN, scale=STD))
    noise = torch.randn(SAMPLES, 1, generator=torch.Generator().manual_seed(0))
    x = flow.decode_noise(noise)
    grid = torch.linspace(-4, 13, 400)[:, None]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    densities, lines = figure.subplots(1, 2)
    densities.hist(noise.flatten(), bins=60, density=True, alpha=0.4, label="z, samples of N(0, 1)")
    densities.hist(x.flatten(), bins=60, density=True, alpha=0.4, label="x = 2 z + 5")
    densities.plot(grid, flow.log_prob(grid).exp(), color="black", label="p(x) = N(0.5 x - 2.5; 0, 1) * 0.5")
    densities.plot(grid, (-grid.square() / 2).exp() / math.sqrt(2 * math.pi), "--", color="grey", label="N(z; 0, 1)")
    densities.set(xlabel="z or x", title="densities")
    densities.legend(fontsize=7)
    ends = torch.linspace(-3, 3, LINES)[:, None]
    for z, signal in zip(ends, flow.decode_noise(ends), strict=True):
        lines.plot([float(z), float(signal)], [1, 0], ".-", color="tab:blue", linewidth=0.8)
    lines.set(yticks=[0, 1], yticklabels=["x", "z"], title="z = 0.5 x - 2.5 halves lengths")
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    typer.run(main)
