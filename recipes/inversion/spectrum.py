"""Infer the parameters of a spectrum by a conditional flow, and check its posterior.

python recipes/inversion/spectrum.py train inversion.safetensors
python recipes/inversion/spectrum.py check inversion.safetensors -o posterior.png

Two Lorentz lines of different, known heights and the same unknown width, with white noise. Where the noise hides the
lower one, the posterior has several modes. `check` draws ranks of true parameters among posterior samples
(simulation-based calibration), and compares with exact posteriors by quadrature on a grid, which three parameters
allow.

Reference:
    The frontier of simulation-based inference, 2019, arXiv:1911.01429; Validating Bayesian Inference Algorithms with
    Simulation-Based Calibration, 2018, arXiv:1804.06788.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import zuko
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CHANNELS = 32  # of the spectrum, at positions from 0 to 1
HEIGHTS = (1.0, 0.6)  # of the lines
WIDTHS = (0.05, 0.2)  # half widths at half height, log-uniform
SIGMA = 0.4  # of the noise
NAMES = ("position 1", "position 2", "width")
GRID = 64  # cells of each parameter of the exact posterior, narrower than its peaks
BINS = 20  # of rank histograms
CASE_SEED = 7  # of the spectrum that is drawn, whose posterior has two modes
app = typer.Typer()


def sample_prior(n: int) -> Tensor:
    """Return parameters as quantiles of their prior, uniform on [0, 1], (n, 3)."""
    return torch.rand(n, len(NAMES))


def simulate(theta: Tensor) -> Tensor:
    """Return spectra without noise, (..., 3) to (..., 32).

    Args:
        theta: positions of both lines, and the quantile of their half width.
    """
    low, high = WIDTHS
    width = low * (high / low) ** theta[..., 2:3]
    x = (torch.arange(CHANNELS, device=theta.device) + 0.5) / CHANNELS
    lines = [h / (1 + ((x - theta[..., i : i + 1]) / width).square()) for i, h in enumerate(HEIGHTS)]
    return sum(lines[1:], lines[0])


def measure(theta: Tensor) -> Tensor:
    """Return spectra with noise."""
    clean = simulate(theta)
    return clean + SIGMA * torch.randn(clean.shape)


class Posterior(nn.Module):
    """A spline flow of the parameters, which a network gives its condition from the spectrum.

    The quantiles of the prior are mapped to standard normal variables, so that without information from the spectrum
    the flow is the identity.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Linear(CHANNELS, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 32)
        )
        self.flow = zuko.flows.NSF(len(NAMES), 32, transforms=4, bins=12, hidden_features=(96, 96))

    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """Return the log-density of parameters given spectra, (batch, 3) and (batch, 32) to (batch,)."""
        z = torch.special.ndtri(theta.clamp(1e-6, 1 - 1e-6))
        log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(dim=-1)
        return self.flow(self.features(y)).log_prob(z) - log_prior

    @torch.no_grad()
    def sample(self, y: Tensor, n: int) -> Tensor:
        """Return n samples for each spectrum, (batch, 32) to (n, batch, 3)."""
        return torch.special.ndtr(self.flow(self.features(y)).sample((n,)))


def fit(steps: int, batch: int) -> Posterior:
    """Train on simulated pairs, each of which is seen once.

    Args:
        steps: steps of Adam.
        batch: pairs in each step.
    """
    posterior = Posterior()
    optimizer = torch.optim.Adam(posterior.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        theta = sample_prior(batch)
        loss = -posterior.log_prob(theta, measure(theta)).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(posterior.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step}  -log q {loss.item():.3f}", flush=True)
    return posterior.eval().requires_grad_(False)


def ranks(posterior: Posterior, simulations: int, samples: int) -> Tensor:
    """Return how many of the posterior samples are below the true parameters, (simulations, 3).

    The ranks are uniform on 0, ..., samples if the posterior is right.
    """
    theta = sample_prior(simulations)
    y = measure(theta)
    drawn = torch.cat([posterior.sample(each, samples) for each in y.split(100)], dim=1)
    return (drawn < theta).sum(dim=0)


def chi_square(counts: Tensor) -> tuple[float, float]:
    """Return the statistic of Pearson's test of equal frequencies, (bins,), and its p-value."""
    expected = counts.sum() / len(counts)
    statistic = ((counts - expected).square() / expected).sum()
    return float(statistic), float(torch.special.gammaincc(torch.tensor((len(counts) - 1) / 2), statistic / 2))


def exact_posterior(y: Tensor) -> Tensor:
    """Return the probabilities of the cells of a grid of parameters, (32,) to (64, 64, 64), by the likelihood."""
    axis = (torch.arange(GRID) + 0.5) / GRID
    log_likelihood = torch.stack(
        [-(y - simulate(torch.cartesian_prod(p[None], axis, axis))).square().sum(dim=-1) / (2 * SIGMA**2) for p in axis]
    )
    return log_likelihood.flatten().softmax(dim=0).view(GRID, GRID, GRID)


def marginals(probabilities: Tensor) -> list[Tensor]:
    """Return the marginal distributions of a grid, (64,) each."""
    return [probabilities.sum(dim=[j for j in range(3) if j != i]) for i in range(3)]


def compare(posterior: Posterior, y: Tensor, samples: int) -> list[tuple[Tensor, Tensor]]:
    """Return the exact marginals of the parameters and those of posterior samples, on the grid."""
    drawn = posterior.sample(y[None], samples)[:, 0]
    cells = (drawn * GRID).long().clamp(0, GRID - 1)
    estimated = [torch.bincount(cells[:, i], minlength=GRID) / samples for i in range(3)]
    return [*zip(marginals(exact_posterior(y)), estimated, strict=True)]


def mean_divergence(posterior: Posterior, cases: int) -> tuple[float, float]:
    """Return the mean of log p(theta|y) - log q(theta|y) over simulated pairs, and its standard error.

    Its expectation is the Kullback-Leibler divergence from the exact posterior, in nats.
    """
    theta = sample_prior(cases)
    y, cells = measure(theta), (theta * GRID).long()
    gaps = []
    for each, cell, values in zip(theta, cells, y, strict=True):
        exact = exact_posterior(values)[tuple(cell)].log() + 3 * math.log(GRID)
        gaps.append(exact - posterior.log_prob(each[None], values[None])[0])
    gap = torch.stack(gaps)
    return float(gap.mean()), float(gap.std() / cases**0.5)


@app.command()
def train(
    out: Annotated[Path, typer.Argument(help="Weights to write, .safetensors.")],
    steps: Annotated[int, typer.Option(help="Steps of the training.")] = 4000,
    batch: Annotated[int, typer.Option(help="Simulated spectra in each of them.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
) -> None:
    """Train the flow."""
    torch.manual_seed(seed)
    save_file(fit(steps, batch).state_dict(), out)


@app.command()
def check(
    weights: Annotated[Path, typer.Argument(help="Weights of `train`.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="PNG to write.")],
    simulations: Annotated[int, typer.Option(help="Simulated spectra of the calibration.")] = 2000,
    samples: Annotated[int, typer.Option(help="Posterior samples of each; one less than a multiple of 20.")] = 99,
    cases: Annotated[int, typer.Option(help="Spectra whose exact posteriors are computed.")] = 40,
    seed: Annotated[int, typer.Option(help="Seed.")] = 1,
) -> None:
    """Check the calibration, and compare one posterior with the exact one."""
    torch.manual_seed(seed)
    posterior = Posterior()
    posterior.load_state_dict(load_file(weights))
    posterior.eval().requires_grad_(False)
    rank = ranks(posterior, simulations, samples)
    histograms = [torch.bincount(rank[:, i] * BINS // (samples + 1), minlength=BINS) for i in range(3)]
    for name, counts in zip(NAMES, histograms, strict=True):
        statistic, p = chi_square(counts.float())
        print(f"{name}: chi-square {statistic:.1f} of {BINS - 1} degrees of freedom, p = {p:.3f}")
    divergence, error = mean_divergence(posterior, cases)
    print(f"divergence from the exact posteriors: {divergence:.3f} +- {error:.3f} nats, {cases} spectra")
    torch.manual_seed(CASE_SEED)
    theta = sample_prior(1)[0]
    y = measure(theta)
    pairs = compare(posterior, y, 20_000)
    for name, (exact, estimated) in zip(NAMES, pairs, strict=True):
        print(f"{name}: total variation {0.5 * float((exact - estimated).abs().sum()):.3f} on {GRID} cells")
    draw(theta, y, pairs, histograms, out)


def draw(theta: Tensor, y: Tensor, pairs: list[tuple[Tensor, Tensor]], histograms: list[Tensor], out: Path) -> None:
    """Draw a spectrum, the marginals of its posterior, and the ranks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    grid: Any = figure.subplots(2, 4)
    x = (torch.arange(CHANNELS) + 0.5) / CHANNELS
    grid[0, 0].plot(x, y, ".", label="measured")
    grid[0, 0].plot(x, simulate(theta), label="without noise")
    grid[0, 0].set(title="spectrum", xlabel="position")
    grid[0, 0].legend()
    grid[1, 0].axis("off")
    axis = (torch.arange(GRID) + 0.5) / GRID
    for i, (exact, estimated) in enumerate(pairs):
        grid[0, i + 1].plot(axis, GRID * exact, label="exact")
        grid[0, i + 1].plot(axis, GRID * estimated, label="flow")
        grid[0, i + 1].axvline(float(theta[i]), color="black", linewidth=0.8)
        grid[0, i + 1].set(title=f"posterior of {NAMES[i]}", xlabel="quantile of the prior")
        expected = float(histograms[i].sum()) / BINS
        grid[1, i + 1].bar(range(BINS), histograms[i])
        grid[1, i + 1].axhspan(
            expected - 2 * expected**0.5, expected + 2 * expected**0.5, color="tab:orange", alpha=0.4
        )
        grid[1, i + 1].set(title=f"ranks of {NAMES[i]}", xlabel="bin")
    grid[0, 1].legend()
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    app()
