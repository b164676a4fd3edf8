"""Integrate a function of several variables by importance sampling: uniform, Gaussian and flow proposals.

python recipes/importance-sampling/integral.py -o integral.png

The integrand, "camel" of the literature, has two peaks in the unit cube, on its diagonal:
f(x) = (g(x - 1/3) + g(x - 2/3)) / 2, g(y) = (width sqrt(pi))^-D exp(-|y|^2 / width^2). Its integral is a sum of
products of error functions. Nothing but values of f is used.

Reference:
    i-flow: High-dimensional Integration and Sampling with Normalizing Flows, 2020, arXiv:2001.05486, section 4.1;
    Neural Importance Sampling, 2018, arXiv:1808.03856.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Uniform

from denoise.priors.flows import Flow, FlowConfig, build_flow

PEAKS = (1 / 3, 2 / 3)
WIDTH = 0.2
DEFENSIVE = 0.05  # fraction of uniform samples in each proposal, which bounds the weights
CURVE = 48  # points of the figure's curves


def camel(x: Tensor) -> Tensor:
    """Return the integrand at points, (n, D) to (n,); 0 outside of the unit cube."""
    is_inside = ((x >= 0) & (x <= 1)).all(dim=1)
    log_peak = [-(x - peak).square().sum(dim=1) / WIDTH**2 for peak in PEAKS]
    value = sum(each.exp() for each in log_peak) / len(PEAKS) * (WIDTH * math.sqrt(math.pi)) ** -x.shape[1]
    return torch.where(is_inside, value, torch.zeros_like(value))


def camel_integral(dimensions: int) -> float:
    """Return the integral of `camel`."""
    factors = [(math.erf((1 - peak) / WIDTH) + math.erf(peak / WIDTH)) / 2 for peak in PEAKS]
    return sum(factor**dimensions for factor in factors) / len(PEAKS)


@dataclass(frozen=True)
class Estimate:
    """An integral by importance sampling.

    Args:
        value: mean of the weights f(x) / q(x).
        standard_error: its estimated standard deviation.
        variance: variance of one weight, relative to the square of the integral.
        effective_size: effective sample size (sum w)^2 / sum w^2, as a fraction of the samples.
    """

    value: float
    standard_error: float
    variance: float
    effective_size: float


def estimate(weights: Tensor) -> Estimate:
    """Return the estimate of an integral from weights of samples, (n,)."""
    w = weights.double()
    mean, variance = float(w.mean()), float(w.var())
    size = float(w.sum().square() / w.square().sum() / len(w))
    return Estimate(mean, (variance / len(w)) ** 0.5, variance / mean**2, size)


class Proposal:
    """A mixture of samples of a density and uniform ones.

    Args:
        density: distribution of points, or a flow; None for uniform samples alone.
        dimensions: number of variables.
    """

    def __init__(self, density: Distribution | Flow | None, dimensions: int) -> None:
        self.density, self.dimensions = density, dimensions
        self.uniform = Independent(Uniform(torch.zeros(dimensions), 1.0, validate_args=False), 1)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Return points, (n, D)."""
        x = self.uniform.sample((n,))
        if self.density is None:
            return x
        drawn = self.density.sample(n if isinstance(self.density, Flow) else (n,))
        return torch.where(torch.rand(n, 1) < DEFENSIVE, x, drawn)

    def weights(self, x: Tensor) -> Tensor:
        """Return f(x) / q(x) of points, (n, D) to (n,)."""
        is_inside = ((x >= 0) & (x <= 1)).all(dim=1)
        if self.density is None:
            return camel(x)
        with torch.no_grad():
            q = (1 - DEFENSIVE) * self.density.log_prob(x).exp() + DEFENSIVE * is_inside
        return camel(x) / q.clamp_min(torch.finfo(q.dtype).tiny)


def fit_gaussian(dimensions: int, n: int) -> Distribution:
    """Return the Gaussian with the mean and covariance of f, estimated from n uniform samples."""
    x = torch.rand(n, dimensions)
    w = camel(x) / camel(x).sum()
    mean = w @ x
    covariance = (x - mean).T @ ((x - mean) * w[:, None])
    return MultivariateNormal(mean, covariance)


def fit_flow(dimensions: int, steps: int, batch: int) -> Flow:
    """Return a spline flow, trained on samples of its own that are weighted by f / q: it minimises KL(f || q).

    Args:
        dimensions: number of variables.
        steps: steps of Adam.
        batch: evaluations of f in each step.
    """
    flow = build_flow(FlowConfig((dimensions,), "nsf-coupling", transforms=4, hidden=(32, 32), mean=0.5, scale=0.3))
    assert isinstance(flow, Flow)
    proposal, optimizer = Proposal(flow, dimensions), torch.optim.Adam(flow.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x = proposal.sample(batch)
        w = proposal.weights(x)
        loss = -(w / w.mean() * flow.log_prob(x)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return flow.eval().requires_grad_(False)


def draw(weights: dict[str, Tensor], points: dict[str, Tensor], exact: float, out: Path) -> None:
    """Draw the points of each proposal in two of their dimensions, and the errors by the number of samples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    *maps, curves = figure.subplots(1, len(points) + 1)
    for axis, (name, x) in zip(maps, points.items(), strict=True):
        axis.scatter(*x[:1500, :2].T, s=2, alpha=0.4)
        axis.set(title=name, xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="x1", ylabel="x2")
    sizes = torch.logspace(1, math.log10(len(next(iter(weights.values())))), CURVE).long()
    for name, w in weights.items():
        running = w.double().cumsum(0)[sizes - 1] / sizes
        curves.plot(sizes, (running / exact - 1).abs(), label=name)
    curves.set(xscale="log", yscale="log", xlabel="samples", title="relative error of the integral")
    curves.legend()
    figure.savefig(out, dpi=80)


def main(
    out: Annotated[Path | None, typer.Option("-o", "--out", help="PNG to write.")] = None,
    dimensions: Annotated[int, typer.Option(help="Number of variables.", min=2)] = 6,
    n: Annotated[int, typer.Option("-n", help="Samples of each estimate.")] = 100_000,
    steps: Annotated[int, typer.Option(help="Steps of the training of the flow.")] = 800,
    batch: Annotated[int, typer.Option(help="Evaluations of f in each of them.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Print a table of the proposals."""
    torch.manual_seed(seed)
    exact, training = camel_integral(dimensions), steps * batch
    densities: dict[str, Any] = {
        "uniform": None,
        "Gaussian": fit_gaussian(dimensions, training),
        "flow": fit_flow(dimensions, steps, batch),
    }
    print(
        f"integral {exact:.6f}, {dimensions} variables, {n} samples, {training} evaluations for each fit, seed {seed}"
    )
    print("| proposal | estimate | standard error | (estimate - integral) / standard error | variance | ESS |")
    print("|---|---|---|---|---|---|")
    weights, points = {}, {}
    for name, density in densities.items():
        proposal = Proposal(density, dimensions)
        points[name] = proposal.sample(n)
        weights[name] = proposal.weights(points[name])
        e = estimate(weights[name])
        z = (e.value - exact) / e.standard_error
        row = f"| {name} | {e.value:.5f} | {e.standard_error:.5f} | {z:+.2f} | {e.variance:.3f} |"
        print(f"{row} {e.effective_size:.1%} |", flush=True)
    if out:
        draw(weights, points, exact, out)


if __name__ == "__main__":
    typer.run(main)
