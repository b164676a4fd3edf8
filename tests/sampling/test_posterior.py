"""Posterior samplers against posteriors in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from denoise.probability_path import karras_sigmas
from denoise.sampling.consistency import consistency, residual_check
from denoise.sampling.operators import Blur, Downsample, Mask
from denoise.sampling.posterior import (
    ddrm,
    diffpir,
    dps,
    pnp_flow,
    sample_posterior,
)
from denoise.sampling.solvers import ancestral
from tests.sampling.normal import COVARIANCE, MEAN, denoiser

VARIANCE = 0.36  # of signals from N(0.5, VARIANCE), independent in each of 8 x 8 entries


def white(x: Tensor, sigma: Tensor) -> Tensor:
    """The optimal denoiser of independent entries."""
    return 0.5 + VARIANCE / (VARIANCE + sigma.reshape(-1, 1, 1, 1) ** 2) * (x - 0.5)


CASES = {
    "mask": Mask((torch.arange(64).reshape(8, 8) % 3 > 0).double()),
    "downsample": Downsample(2),
    "blur": Blur(torch.tensor([[0.05, 0.1, 0.05], [0.1, 0.4, 0.1], [0.05, 0.1, 0.05]], dtype=torch.float64)),
}


def make_problem(operator: Any, n: int = 400) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a signal, its measurement n times, the posterior mean, and initial noise."""
    generator = torch.Generator().manual_seed(0)
    x = 0.5 + VARIANCE**0.5 * torch.randn(1, 1, 8, 8, generator=generator, dtype=torch.float64)
    clean = operator.forward(x)
    y = clean + 0.1 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    mean = 0.5 + operator.adjoint(operator.solve(y - operator.forward(torch.full_like(x, 0.5)), 0.01 / VARIANCE))
    start = 0.5 + 20 * torch.randn(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    return x, y.expand(n, *y.shape[1:]), mean, start


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_ddrm_fits_the_measurement_and_samples_the_null_space(case: str, eta: float) -> None:
    operator = CASES[case]
    x, y, mean, start = make_problem(operator, 2000)
    sigmas = karras_sigmas(20 if eta else 100, 0.01, 20.0).double()
    generator = torch.Generator().manual_seed(1)
    out = ddrm(white, y, operator, 0.1, sigmas, start=start, eta=eta, generator=generator)
    misfit = (operator.forward(out) - y).square().mean() ** 0.5
    assert misfit < 0.5 * (operator.forward(torch.full_like(x, 0.5)) - y[:1]).square().mean() ** 0.5
    assert (out.mean(dim=0, keepdim=True) - mean).square().mean() < 0.25 * (mean - 0.5).square().mean()
    unobserved = (operator.singular_values(operator.to_spectral(mean)) < 1e-6)[0]
    if unobserved.any() and not eta:  # the probability flow: these coordinates follow the prior
        spread = operator.to_spectral(out - out.mean(dim=0)).abs().square().mean(dim=0)
        assert float(spread[unobserved].mean()) == pytest.approx(VARIANCE, rel=0.1)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["diffpir", "dps", "pnp-flow"])
def test_restorations_fit_the_measurement_and_are_near_the_posterior_mean(case: str, method: str) -> None:
    operator = CASES[case]
    x, y, mean, start = make_problem(operator)
    sigmas, generator = karras_sigmas(60, 0.01, 20.0).double(), torch.Generator().manual_seed(1)
    if method == "diffpir":
        out = diffpir(white, y, operator, 0.1, sigmas, start=start, prior_weight=1.0, generator=generator)
    elif method == "dps":
        out = dps(white, y, operator, sigmas, start=start, step_size=0.5, generator=generator)
    else:
        out = pnp_flow(white, y, operator, sigmas, start=torch.full_like(start, 0.5), generator=generator)
    assert torch.isfinite(out).all()
    misfit = (operator.forward(out) - y).square().mean() ** 0.5
    assert misfit < 0.5 * (operator.forward(torch.full_like(x, 0.5)) - y[:1]).square().mean() ** 0.5
    error = (out.mean(dim=0, keepdim=True) - mean).square().mean() ** 0.5
    assert error < 0.5 * (mean - 0.5).square().mean() ** 0.5


@pytest.mark.parametrize("method", ["diffpir", "ddrm", "dps", "pnp-flow"])
def test_posterior_samplers_follow_the_generator(method: str) -> None:
    operator = CASES["mask"]
    _, y, _, start = make_problem(operator, 3)
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


def test_the_ancestral_sampler_from_a_noisy_signal_samples_the_posterior() -> None:
    """A noisy signal is a point on the exploding path, where the reverse process can start."""
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


def test_posterior_samples_have_the_mean_and_covariance_of_the_posterior() -> None:
    """Within three standard errors."""
    noisy, sigma, n = torch.tensor([1.4, -0.6, 0.3], dtype=torch.float64), 0.8, 20_000
    generator = torch.Generator().manual_seed(0)
    samples, mean = sample_posterior(denoiser, noisy.expand(n, 3), sigma, 150, generator=generator)
    precision = torch.linalg.inv(COVARIANCE) + torch.eye(3, dtype=torch.float64) / sigma**2
    covariance = torch.linalg.inv(precision)
    expected = covariance @ (torch.linalg.solve(COVARIANCE, MEAN) + noisy / sigma**2)
    torch.testing.assert_close(mean, expected.expand(n, 3))
    error = (covariance.diagonal() / n).sqrt()
    assert ((samples.mean(dim=0) - expected).abs() < 3 * error).all()
    spread = (covariance.diagonal().outer(covariance.diagonal()) + covariance.square()) / n
    assert ((samples.T.cov() - covariance).abs() < 3 * spread.sqrt()).all()


def test_twelve_steps_suffice_for_the_posterior_variance() -> None:
    """Within 10 %, for signals whose standard deviation is a tenth of that of the noise or more."""
    for spread in (0.1, 0.3, 1.0, 3.0):
        variance = spread**2 / (spread**2 + 1)
        samples, _ = sample_posterior(
            lambda x, sigma, s=spread: x * (s**2 / (s**2 + sigma**2)).reshape(-1, 1),
            torch.zeros(40_000, 1, dtype=torch.float64),
            1.0,
            12,
            generator=torch.Generator().manual_seed(0),
        )
        assert float(samples.var()) == pytest.approx(variance, rel=0.1)


def test_posterior_samples_of_a_mixture_have_its_weights() -> None:
    """Signals from a mixture of N(-1, 0.2^2) and N(1, 0.2^2), whose posterior is a mixture, too."""
    centres, weights, sigma, y, n = torch.tensor([-1.0, 1.0]).double(), torch.tensor([0.4, 0.6]), 0.9, -0.1, 20_000

    def mixture(x: Tensor, level: Tensor) -> Tensor:
        posterior_weights, means = components(x, level.reshape(-1, 1))
        return (posterior_weights * means).sum(-1)

    def components(x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        total = 0.04 + level[..., None] ** 2
        logits = weights.log() - (x[..., None] - centres) ** 2 / (2 * total)
        return logits.softmax(-1), (0.04 * x[..., None] + level[..., None] ** 2 * centres) / total

    noisy = torch.full((n, 1), y, dtype=torch.float64)
    samples, _ = sample_posterior(mixture, noisy, sigma, 200, generator=torch.Generator().manual_seed(0))
    posterior_weights, means = (p[0, 0] for p in components(noisy[:1], torch.tensor([[sigma]]).double()))
    right = samples > 0
    assert abs(float(right.double().mean() - posterior_weights[1])) < 3 * float((posterior_weights.prod() / n) ** 0.5)
    variance = 0.04 * sigma**2 / (0.04 + sigma**2)
    for side, mean in ((~right, means[0]), (right, means[1])):
        count = int(side.sum())
        assert abs(float(samples[side].mean() - mean)) < 3 * (variance / count) ** 0.5
        assert abs(float(samples[side].var()) - variance) < 3 * variance * (2 / count) ** 0.5


@pytest.mark.parametrize("shape", [(1, 3, 64, 80), (1, 1, 64, 64), (2, 1, 4000)])
def test_samples_are_rejected_where_the_residual_exceeds_the_noise(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    sample = torch.rand(shape, generator=generator)
    noisy = sample + 0.1 * torch.randn(shape, generator=generator)
    assert (residual_check(noisy, sample, 0.1) == 0).all()
    noisy[..., 20:40] += 0.3  # an observed feature that the sample lacks
    weight = residual_check(noisy, sample, 0.1)
    assert (weight[..., 25:35] == 1).all()
    assert (weight[..., 50:] == 0).all()


def test_noise_is_a_consistent_residual_and_structure_is_not() -> None:
    noise = 0.1 * torch.randn(3, 200, 200, generator=torch.Generator().manual_seed(0))
    relative_rms, correlation = consistency(noise, 0.1)
    assert relative_rms == pytest.approx(1, abs=0.02)
    assert abs(correlation) < 0.02
    coarse = torch.nn.functional.interpolate(noise[None, :, :100, :100], scale_factor=2)[0]
    assert consistency(coarse, 0.1).correlation == pytest.approx(0.5, abs=0.05)
    assert consistency(2 * noise[:, :1], 0.1).relative_rms == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("sigma_y", [0.3, 0.05])
def test_diffpir_has_half_the_variance_of_the_posterior_and_its_mean(sigma_y: float) -> None:
    """By the recursion of the variance in a normal distribution: small steps lose as much as they keep."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(1, 1, 1, 1, generator=generator, dtype=torch.float64).expand(20_000, 1, 1, 1)
    start = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    sigmas = karras_sigmas(300, 0.002, 1.0).double()

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return x * 0.25 / (0.25 + sigma.view(-1, 1, 1, 1) ** 2)

    operator = Mask(torch.ones(1, dtype=torch.float64))
    out = diffpir(denoiser, y, operator, sigma_y, sigmas, start=start, generator=generator)
    variance = 0.25 * sigma_y**2 / (0.25 + sigma_y**2)
    assert float(out.mean()) == pytest.approx(float(y[0]) * 0.25 / (0.25 + sigma_y**2), rel=0.02)
    assert float(out.var()) == pytest.approx(variance / 2, rel=0.05)


@pytest.mark.parametrize(("zeta", "low", "high"), [(1.0, 0.3, 0.5), (0.3, 0.7, 1.0)])
def test_what_is_not_observed_fades_less_if_less_noise_is_drawn_anew(zeta: float, low: float, high: float) -> None:
    operator = CASES["mask"]
    x, y, _, _ = make_problem(operator)
    sigmas, generator = karras_sigmas(20, 0.002, 20.0).double(), torch.Generator().manual_seed(0)
    start = 0.5 + 20 * torch.randn(len(y), *x.shape[1:], generator=generator, dtype=torch.float64)
    out = diffpir(white, y, operator, 0.1, sigmas, start=start, zeta=zeta, generator=generator)
    unobserved = out[:, operator.mask.expand_as(x)[0] == 0]
    assert low < float(unobserved.var()) / VARIANCE < high
