"""The variational bound against closed forms for signals from a normal distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from denoise.probability_path import cosine_betas, expand_like, linear_betas, noise_ratios
from denoise.sampling.solvers import ancestral_step
from denoise.sampling.variational_bound import discretised_log_prob, variational_bound

MEAN, STD = 0.55, 0.2


def optimal(x: Tensor, sigma: Tensor) -> Tensor:
    """The optimal denoiser of signals from N(MEAN, STD^2)."""
    return MEAN + expand_like(STD**2 / (STD**2 + sigma**2), x) * (x - MEAN)


def closed_form(x: float, sigmas: np.ndarray) -> float:
    """The expectation of the bound for one number and the optimal denoiser; that of the levels by quadrature."""
    gain = STD**2 / (STD**2 + sigmas**2)
    errors = ((1 - gain) * (x - MEAN)) ** 2 + (gain * sigmas) ** 2
    cost = sum(0.5 * (1 / sigmas[t - 1] ** 2 - 1 / sigmas[t] ** 2) * errors[t] for t in range(1, len(sigmas)))
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    centres = MEAN + gain[0] * (x + sigmas[0] * nodes - MEAN)
    half = 0.5 / 255
    probabilities = norm.cdf(x + half, centres, sigmas[0]) - norm.cdf(x - half, centres, sigmas[0])
    reconstruction = float((weights * np.log(probabilities)).sum() / weights.sum())
    at_last = torch.distributions.Normal(torch.tensor(x).double(), float(sigmas[-1]))
    start = torch.distributions.Normal(torch.tensor(MEAN).double(), float((sigmas[-1] ** 2 + STD**2) ** 0.5))
    return reconstruction - cost - float(torch.distributions.kl_divergence(at_last, start))


@pytest.mark.parametrize("samples", [3, 40])
def test_the_bound_of_a_normal_distribution_has_its_closed_form(samples: int) -> None:
    sigmas = STD * noise_ratios(linear_betas(40))
    x = 150 / 255
    copies = torch.full((60_000, 1), x, dtype=torch.float64)
    estimates = variational_bound(
        optimal,
        copies,
        sigmas,
        mean=MEAN,
        std=STD,
        samples=samples,
        interval=(0.0, 1.0),
        levels=256,
        generator=torch.Generator().manual_seed(0),
    )
    standard_error = float(estimates.std()) / len(copies) ** 0.5
    assert standard_error < 0.05
    assert float(estimates.mean()) == pytest.approx(closed_form(x, sigmas.numpy()), abs=4 * standard_error)


def exact(x: float) -> float:
    """The log-probability of the level of a number from N(MEAN, STD^2)."""
    return float(np.log(norm.cdf(x + 0.5 / 255, MEAN, STD) - norm.cdf(x - 0.5 / 255, MEAN, STD)))


@pytest.mark.parametrize("level", [20, 140, 200])
def test_the_bound_reaches_the_likelihood_with_ever_smaller_steps(level: int) -> None:
    x = level / 255
    gaps = [exact(x) - closed_form(x, np.geomspace(0.01, 50.0, n)) for n in (100, 400, 1600)]
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > 0  # in proportion to the step
    assert gaps[2] < 0.03


@pytest.mark.parametrize("schedule", [linear_betas, cosine_betas])
@pytest.mark.parametrize("level", [20, 140, 200])
def test_the_bound_of_a_schedule_is_below_the_likelihood(schedule: Callable[[int], Tensor], level: int) -> None:
    x = level / 255
    few, many = (closed_form(x, (STD * noise_ratios(schedule(n))).numpy()) for n in (20, 1000))
    assert few < many < exact(x)


@pytest.mark.parametrize("std", [0.001, 0.1, 3.0])
def test_the_probabilities_of_the_levels_sum_to_one(std: float) -> None:
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)[:, None]
    for mean in (-1.3, -0.2, 0.99):
        centre = torch.full_like(levels, mean)
        logs = discretised_log_prob(levels, centre, torch.tensor(std).double(), interval=(-1.0, 1.0), levels=256)
        assert torch.isfinite(logs).all()
        assert float(logs.exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("schedule", [linear_betas, cosine_betas])
@pytest.mark.parametrize("t", [1, 10, 49])
def test_an_ancestral_step_samples_the_posterior(schedule: Callable[[int], Tensor], t: int) -> None:
    """q(z_{t-1} | z_t, x0) by conditioning the joint normal distribution of a chain of added noise."""
    betas = schedule(50)
    transition = torch.eye(t + 1, dtype=torch.float64)  # of the independent noise of each step to z_1, ..., z_{t+1}
    for later in range(1, t + 1):
        transition[later] = (1 - betas[later]).sqrt() * transition[later - 1]
        transition[later, later] = 1.0
    covariance = transition @ betas[: t + 1].diag() @ transition.T
    power = (1 - betas[: t + 1]).cumprod(dim=0)
    x0, z = torch.tensor([[0.8]], dtype=torch.float64), torch.tensor([[-0.3]], dtype=torch.float64)
    gain = covariance[t - 1, t] / covariance[t, t]
    mean = power[t - 1].sqrt() * x0 + gain * (z - power[t].sqrt() * x0)
    std = (covariance[t - 1, t - 1] - gain * covariance[t, t - 1]).sqrt()
    ratios = noise_ratios(betas)
    x = ancestral_step(x0, z / power[t].sqrt(), ratios[t], ratios[t - 1], torch.Generator().manual_seed(0))
    noise = torch.randn(1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(power[t - 1].sqrt() * x, mean + std * noise)


def test_one_noise_level_has_no_steps() -> None:
    settings = {"mean": MEAN, "std": STD, "samples": 1, "interval": (0.0, 1.0), "levels": 256}
    with pytest.raises(ValueError, match="1 noise levels; expected at least 2"):
        variational_bound(optimal, torch.zeros(1, 1), torch.ones(1), **settings)  # type: ignore[arg-type]
