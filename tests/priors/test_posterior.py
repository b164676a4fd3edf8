"""What is filled in, where the answer is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from denoise.priors.operators import Blur, Mask, Reduce
from denoise.priors.posterior import coarse_mask, ddrm, diffpir, dps, impute, inpaint, pnp_flow
from denoise.priors.solvers import ancestral
from denoise.probability_path import karras_sigmas

MEAN = torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.8, 0.3], [0.8, 1.0, 0.5], [0.3, 0.5, 0.7]], dtype=torch.float64)


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """The best there is for signals of N(MEAN, COVARIANCE)."""
    gain = COVARIANCE @ torch.linalg.inv(COVARIANCE + sigma[0] ** 2 * torch.eye(3, dtype=torch.float64))
    return MEAN + (x - MEAN) @ gain.T


def test_what_is_missing_is_drawn_from_what_the_known_part_leaves_open() -> None:
    generator = torch.Generator().manual_seed(0)
    n, known = 4000, torch.tensor([1.5, 0.0, 0.0], dtype=torch.float64)
    mask = torch.tensor([1.0, 0.0, 0.0]).expand(n, 3)
    sigmas = karras_sigmas(150, 0.01, 20.0).double()
    start = 20 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    out = inpaint(denoiser, known.expand(n, 3), mask, sigmas, start=start, again=10, generator=generator)
    assert torch.equal(out[:, 0], known[:1].expand(n))
    slope = COVARIANCE[1:, 0] / COVARIANCE[0, 0]
    mean = MEAN[1:] + slope * (known[0] - MEAN[0])
    covariance = COVARIANCE[1:, 1:] - torch.outer(slope, COVARIANCE[0, 1:])
    torch.testing.assert_close(out[:, 1:].mean(dim=0), mean, atol=0.08, rtol=0)
    torch.testing.assert_close(out[:, 1:].T.cov(), covariance, atol=0.08, rtol=0)


class Copying:
    """A codec of pairs whose entries are nearly equal: it remembers their mean, and draws around it."""

    def draw(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x.mean(dim=1, keepdim=True) + 0.01 * torch.randn(len(x), 1, generator=generator)

    def decode(self, z: Tensor) -> Tensor:
        return z.expand(-1, 2)


def test_a_codec_remembers_what_goes_with_the_known_part() -> None:
    known = torch.tensor([[0.8, 0.0]]).expand(500, 2)
    mask = torch.tensor([[1.0, 0.0]]).expand(500, 2)
    out = impute(Copying(), known, mask, generator=torch.Generator().manual_seed(0))
    assert (out[:, 0] == 0.8).all()
    assert (out[:, 1] - 0.8).abs().mean() < 0.03
    assert out[:, 1].std() > 0.005


def test_latents_are_known_where_all_is_known() -> None:
    mask = torch.ones(1, 1, 8, 8)
    mask[..., 5:, 3] = 0
    expected = torch.ones(1, 1, 4, 4)
    expected[..., 2:, 1] = 0
    assert torch.equal(coarse_mask(mask, (4, 4)), expected)
    assert torch.equal(coarse_mask(mask[..., 0, :], (4,)), torch.ones(1, 1, 4))


VARIANCE = 0.36  # of signals of N(0.5, VARIANCE) in each of 8 x 8 entries, whose posterior is known


def white(x: Tensor, sigma: Tensor) -> Tensor:
    """The best denoiser of independent entries."""
    return 0.5 + VARIANCE / (VARIANCE + sigma.reshape(-1, 1, 1, 1) ** 2) * (x - 0.5)


CASES = {
    "mask": Mask((torch.arange(64).reshape(8, 8) % 3 > 0).double()),
    "reduce": Reduce(2),
    "blur": Blur(torch.tensor([[0.05, 0.1, 0.05], [0.1, 0.4, 0.1], [0.05, 0.1, 0.05]], dtype=torch.float64)),
}


def measured(operator: Any, n: int = 400) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One signal, its measurement n times, the posterior's mean, and noise to start with."""
    generator = torch.Generator().manual_seed(0)
    x = 0.5 + VARIANCE**0.5 * torch.randn(1, 1, 8, 8, generator=generator, dtype=torch.float64)
    clean = operator.forward(x)
    y = clean + 0.1 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    mean = 0.5 + operator.adjoint(operator.solve(y - operator.forward(torch.full_like(x, 0.5)), 0.01 / VARIANCE))
    start = 0.5 + 20 * torch.randn(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    return x, y.expand(n, *y.shape[1:]), mean, start


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_ddrm_keeps_what_is_measured_and_draws_the_rest(case: str, eta: float) -> None:
    operator = CASES[case]
    x, y, mean, start = measured(operator, 2000)
    sigmas = karras_sigmas(20 if eta else 100, 0.01, 20.0).double()
    generator = torch.Generator().manual_seed(1)
    out = ddrm(white, y, operator, 0.1, sigmas, start=start, eta=eta, generator=generator)
    misfit = (operator.forward(out) - y).square().mean() ** 0.5
    assert misfit < 0.5 * (operator.forward(torch.full_like(x, 0.5)) - y[:1]).square().mean() ** 0.5
    assert (out.mean(dim=0, keepdim=True) - mean).square().mean() < 0.25 * (mean - 0.5).square().mean()
    unseen = (operator.singular(operator.spectral(mean)) < 1e-6)[0]
    if unseen.any() and not eta:  # then the way down is the probability flow: these are of the prior
        spread = operator.spectral(out - out.mean(dim=0)).abs().square().mean(dim=0)
        assert float(spread[unseen].mean()) == pytest.approx(VARIANCE, rel=0.1)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["diffpir", "dps", "pnp-flow"])
def test_what_is_restored_fits_the_measurement_and_is_near_the_posterior(case: str, method: str) -> None:
    operator = CASES[case]
    x, y, mean, start = measured(operator)
    sigmas, generator = karras_sigmas(60, 0.01, 20.0).double(), torch.Generator().manual_seed(1)
    if method == "diffpir":
        out = diffpir(white, y, operator, 0.1, sigmas, start=start, trust=1.0, generator=generator)
    elif method == "dps":
        out = dps(white, y, operator, sigmas, start=start, step=0.5, generator=generator)
    else:
        out = pnp_flow(white, y, operator, sigmas, start=torch.full_like(start, 0.5), generator=generator)
    assert torch.isfinite(out).all()
    misfit = (operator.forward(out) - y).square().mean() ** 0.5
    assert misfit < 0.5 * (operator.forward(torch.full_like(x, 0.5)) - y[:1]).square().mean() ** 0.5
    error = (out.mean(dim=0, keepdim=True) - mean).square().mean() ** 0.5
    assert error < 0.5 * (mean - 0.5).square().mean() ** 0.5


@pytest.mark.parametrize("method", ["diffpir", "ddrm", "dps", "pnp-flow"])
def test_they_follow_the_generator(method: str) -> None:
    operator = CASES["mask"]
    _, y, _, start = measured(operator, 3)
    sigmas = karras_sigmas(8, 0.01, 20.0).double()

    def run(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        if method == "dps":
            return dps(white, y, operator, sigmas, start=start, generator=generator)
        if method == "pnp-flow":
            return pnp_flow(white, y, operator, sigmas, start=start, generator=generator)
        return (ddrm if method == "ddrm" else diffpir)(
            white, y, operator, 0.1, sigmas, start=start, generator=generator
        )

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_gaussian_noise_is_taken_away_by_drawing_from_the_posterior() -> None:
    """A noisy signal is a place on the exploding path: the reverse process from there draws its posterior."""
    n, sigma = 20_000, 0.8
    generator = torch.Generator().manual_seed(0)
    y = torch.tensor([1.5, 0.3, -0.5], dtype=torch.float64)
    sigmas = karras_sigmas(200, 0.005, sigma).double()
    out = ancestral(denoiser, y.expand(n, 3).clone(), sigmas, generator=generator)
    gain = COVARIANCE @ torch.linalg.inv(COVARIANCE + sigma**2 * torch.eye(3, dtype=torch.float64))
    mean, covariance = MEAN + gain @ (y - MEAN), COVARIANCE - gain @ COVARIANCE
    standard_error = (covariance.diagonal() / n).sqrt()
    assert ((out.mean(dim=0) - mean).abs() < 4 * standard_error + 5e-3).all()
    torch.testing.assert_close(out.T.cov(), covariance, atol=0.01, rtol=0.05)
