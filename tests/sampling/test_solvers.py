"""Solvers against paths in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from denoise.probability_path import expand_like, karras_sigmas
from denoise.sampling.solvers import SOLVERS, STOCHASTIC, ddim_step, ddim_target, heun, heun_step, ode

MEAN, DEVIATION = 0.7, 0.5


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The optimal denoiser of signals from N(MEAN, DEVIATION^2)."""
    gain = expand_like(DEVIATION**2 / (DEVIATION**2 + sigma**2), x)
    return MEAN + gain * (x - MEAN)


def mixture(x: Tensor, sigma: Tensor) -> Tensor:
    """The optimal denoiser of signals from 0.25 N(-1, 0.1^2) + 0.75 N(1, 0.1^2)."""
    total = expand_like(0.01 + sigma**2, x)
    centres = x.new_tensor([-1.0, 1.0])
    logits = torch.log(x.new_tensor([0.25, 0.75])) - (x[..., None] - centres) ** 2 / (2 * total[..., None])
    means = (0.01 * x[..., None] + expand_like(sigma**2, x)[..., None] * centres) / total[..., None]
    return (logits.softmax(-1) * means).sum(-1)


def noise(n: int, sigma: float) -> Tensor:
    return sigma * torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpmpp-2m", 2)])
def test_deterministic_solvers_converge_at_their_order(name: str, order: int) -> None:
    x = MEAN + noise(64, 5.0)
    exact = MEAN + (x - MEAN) * (DEVIATION**2 / (DEVIATION**2 + 25)) ** 0.5

    def error(steps: int) -> float:
        sigmas = karras_sigmas(steps, 0.01, 5.0).double()
        calls = []
        out = SOLVERS[name](gaussian, x, sigmas, callback=lambda i, _: calls.append(i))
        assert calls == [*range(steps)]
        return float((out - exact).abs().max())

    few, many = error(20), error(80)
    assert many < (0.05 if order == 1 else 5e-3)
    assert few / many > (2.5 if order == 1 else 7)  # four times the steps: 4 and 16 in the limit


@pytest.mark.parametrize("name", SOLVERS)
def test_samples_follow_the_mixture(name: str) -> None:
    x = noise(4000, 20.0)
    out = SOLVERS[name](mixture, x, karras_sigmas(60, 0.01, 20.0).double(), generator=torch.Generator().manual_seed(1))
    right = out > 0
    assert float(right.double().mean()) == pytest.approx(0.75, abs=0.03)
    for side, centre in ((right, 1.0), (~right, -1.0)):
        assert float(out[side].mean()) == pytest.approx(centre, abs=0.02)
        assert float(out[side].std()) == pytest.approx(0.1, rel=0.15)


def test_stochastic_solvers_follow_the_generator() -> None:
    x, sigmas = noise(8, 5.0), karras_sigmas(10, 0.01, 5.0)
    for name, solver in SOLVERS.items():
        a, b = (solver(mixture, x, sigmas, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
        assert torch.equal(a, b) == (name not in STOCHASTIC)
        repeated = solver(mixture, x, sigmas, generator=torch.Generator().manual_seed(0))
        assert torch.equal(a, repeated)


@pytest.mark.parametrize("order", [1, 2])
def test_a_velocity_is_integrated_in_both_directions(order: int) -> None:
    """On the straight path of Gaussian signals, whose velocity has a closed form."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        t = expand_like(t, x)
        variance = ((1 - t) * DEVIATION) ** 2 + t**2
        rate = (t - (1 - t) * DEVIATION**2) / variance  # half the derivative of the variance, by the variance
        return -MEAN + rate * (x - (1 - t) * MEAN)

    eps = noise(64, 1.0)
    exact = MEAN + DEVIATION * eps

    def error(steps: int) -> float:
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        return float((ode(velocity, eps, times, order=order) - exact).abs().max())

    assert error(80) < 0.05
    assert error(20) / error(80) > (2.5 if order == 1 else 7)
    times = torch.linspace(1, 0, 201, dtype=torch.float64)
    x = ode(velocity, eps, times, order=order)
    torch.testing.assert_close(ode(velocity, x, times.flip(0), order=order), eps, rtol=0, atol=0.05)


def test_a_step_takes_levels_of_each_signal() -> None:
    """As `heun` does with one level for all, and Euler's method to 0."""
    x = MEAN + noise(4, 2.0)
    sigma = torch.tensor([2.0, 1.0, 0.3, 0.3], dtype=torch.float64)
    sigma_next = torch.tensor([1.5, 0.1, 0.2, 0.0], dtype=torch.float64)
    stepped = heun_step(gaussian, x, sigma, sigma_next)
    for i, levels in enumerate(zip(sigma, sigma_next, strict=True)):
        torch.testing.assert_close(stepped[i : i + 1], heun(gaussian, x[i : i + 1], torch.stack(levels)))
    torch.testing.assert_close(stepped[3:], gaussian(x[3:], sigma[3:]))


def test_the_target_of_a_step_is_its_inverse() -> None:
    x0, x, sigma = noise(3, 1.0), noise(3, 5.0), torch.tensor([2.0, 1.0, 0.3], dtype=torch.float64)
    for sigma_next in (0.5 * sigma, torch.zeros(3, dtype=torch.float64)):
        x_next = ddim_step(x0, x, sigma, sigma_next)
        torch.testing.assert_close(ddim_target(x_next, x, sigma, sigma_next), x0)
