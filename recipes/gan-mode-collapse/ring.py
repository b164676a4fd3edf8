"""Make the ring of Gaussians, and measure and draw what GANs learn of it.

python recipes/gan-mode-collapse/ring.py make ring.npz
python recipes/gan-mode-collapse/ring.py measure runs/gan-mode-collapse runs/gan-mode-cure
python recipes/gan-mode-collapse/ring.py draw runs/gan-mode-collapse runs/gan-mode-cure -o modes.png
"""

from __future__ import annotations

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
SAMPLES = 1000
SHOWN_STEPS = 4
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
def measure(runs: Annotated[list[Path], typer.Argument(help="Folders of trainings.")]) -> None:
    """Print the modes and the fraction of high-quality samples after the last kept step."""
    for run in runs:
        modes, good = mode_coverage(sample(kept(run)[-1]))
        print(f"{run.name}: {modes} of {MODES} modes, {good:.0%} within {HIGH_QUALITY} sigma")


@app.command()
def draw(
    runs: Annotated[list[Path], typer.Argument(help="Folders of trainings, a row each.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="PNG to write.")],
) -> None:
    """Draw samples after each quarter of the kept steps, and the number of modes after each of these steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.4 * (SHOWN_STEPS + 1), 2.6 * len(runs)), layout="constrained")
    grid: Any = figure.subplots(len(runs), SHOWN_STEPS + 1, squeeze=False)
    for row, run in zip(grid, runs, strict=True):
        files = kept(run)
        steps, points = [_step(file) for file in files], [sample(file) for file in files]
        coverage = [mode_coverage(each) for each in points]
        for axis, quarter in zip(row, range(1, SHOWN_STEPS + 1), strict=False):
            i = quarter * len(files) // SHOWN_STEPS - 1
            axis.scatter(*centres().T, s=120, facecolors="none", edgecolors="tab:orange")
            axis.scatter(*points[i].T, s=2, alpha=0.5)
            modes, good = coverage[i]
            axis.set(
                title=f"step {steps[i]}: {modes} modes\n{good:.0%} within {HIGH_QUALITY} sigma", xticks=[], yticks=[]
            )
            axis.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
        row[0].set_ylabel(run.name)
        row[-1].plot(steps, [modes for modes, _ in coverage])
        row[-1].set(title="modes", ylim=(0, MODES + 0.5), xlabel="step")
    figure.savefig(out, dpi=100)


def kept(run: Path) -> list[Path]:
    """Return the weights that a training kept, by step."""
    files = sorted(run.glob("*-[0-9]*.safetensors"), key=_step)
    if not files:
        raise SystemExit(f"{run}: holds no weights of single steps, as schedule.keep_every keeps. Train it first.")
    return files


def sample(file: Path) -> torch.Tensor:
    """Return samples of stored weights, (1000, 2)."""
    prior, _ = load(file)
    return prior.sample(SAMPLES, generator=torch.Generator().manual_seed(0))[:, 0]


def _step(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])


if __name__ == "__main__":
    app()
