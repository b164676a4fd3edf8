"""Make the ring of Gaussians, and draw what two GANs learn of it.

python recipes/gan-mode-collapse/ring.py make ring.npz
python recipes/gan-mode-collapse/ring.py draw runs/gan-mode-collapse runs/gan-mode-cure -o modes.png
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from denoise.registry import load

MODES, RADIUS, SIGMA = 8, 0.8, 0.02
HIGH_QUALITY = 3  # standard deviations from the nearest mode
POINTS = 100_000
SHOWN = 1000  # samples of each panel
app = typer.Typer()


def centres() -> torch.Tensor:
    """Return the means of the Gaussians, (8, 2)."""
    angles = 2 * math.pi * torch.arange(MODES) / MODES
    return RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)


def mode_coverage(points: torch.Tensor) -> tuple[int, float]:
    """Return the number of modes that samples reach, and the fraction of high-quality samples.

    A mode is reached by a hundredth of its share or more, of samples within three standard deviations.

    Reference:
        VEEGAN, 2017, arXiv:1705.07761, section 4.1.
    """
    distances, nearest = torch.cdist(points, centres()).min(dim=1)
    is_good = distances < HIGH_QUALITY * SIGMA
    counts = torch.bincount(nearest[is_good], minlength=MODES)
    return int((counts >= len(points) / MODES / 100).sum()), float(is_good.float().mean())


@app.command()
def make(out: Annotated[Path, typer.Argument(help="Archive to write, DIR/ring.npz.")]) -> None:
    """Draw points of the ring."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(MODES, (POINTS,), generator=generator)
    points = centres()[labels] + SIGMA * torch.randn(POINTS, 2, generator=generator)
    np.savez(out, signals=points.numpy(), labels=labels.numpy())


@app.command()
def draw(
    runs: Annotated[list[Path], typer.Argument(help="Folders of trainings, a row each.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="PNG to write.")],
) -> None:
    """Draw samples after each kept step, and the number of modes that they reach in the course of the training."""
    from matplotlib.figure import Figure

    checkpoints = [sorted(run.glob("*-[0-9]*.safetensors"), key=_step) for run in runs]
    columns = max(map(len, checkpoints))
    figure = Figure(figsize=(2.4 * (columns + 1), 2.6 * len(runs)), layout="constrained")
    grid: Any = figure.subplots(len(runs), columns + 1, squeeze=False)
    for row, run, files in zip(grid, runs, checkpoints, strict=True):
        for axis, file in zip(row, files, strict=False):
            prior, _ = load(file)
            points = prior.sample(SHOWN, generator=torch.Generator().manual_seed(0))[:, 0]
            modes, good = mode_coverage(points)
            axis.scatter(*centres().T, s=120, facecolors="none", edgecolors="tab:orange")
            axis.scatter(*points.T, s=2, alpha=0.5)
            axis.set(title=f"step {_step(file)}\n{modes} modes, {good:.0%} good", xticks=[], yticks=[])
            axis.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
        row[0].set_ylabel(run.name)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        row[-1].plot([r["step"] for r in rows], [r["modes"] for r in rows])
        row[-1].set(title="modes in training", ylim=(0, MODES + 0.5), xlabel="step")
    figure.savefig(out, dpi=100)


def _step(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])


if __name__ == "__main__":
    app()
