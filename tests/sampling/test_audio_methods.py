"""Sparsity, autoregressive interpolation and coloured noise against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from denoise.dsp import stft
from denoise.models.mdct import MDCT, MDCTConfig
from denoise.probability_path import karras_sigmas
from denoise.sampling import linear_prediction
from denoise.sampling.coloured_noise import coefficient_variance, denoise_whitened, noise_power, wiener
from denoise.sampling.linear_prediction import fill_gap, fit_autoregressive, interpolate_autoregressive
from denoise.sampling.operators import Whitened
from denoise.sampling.posterior import diffpir
from denoise.sampling.sparsity import a_spade

BINS, TIME = 32, 256


def tones(time: int) -> Tensor:
    t = torch.arange(time, dtype=torch.float64)
    return (0.5 * torch.sin(0.21 * t) + 0.3 * torch.sin(0.083 * t + 1))[None]


def snr_db(x: Tensor, clean: Tensor) -> float:
    return float(10 * (clean.square().sum() / (x - clean).square().sum()).log10())


def test_the_fit_finds_the_coefficients_of_a_process() -> None:
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    x = [0.0, 0.0]
    for e in noise:
        x.append(1.6 * x[-1] - 0.9 * x[-2] + e)
    coefficients = fit_autoregressive(torch.tensor(x[100:], dtype=torch.float64), 4)
    expected = torch.tensor([1, -1.6, 0.9, 0, 0], dtype=torch.float64)
    assert torch.allclose(coefficients, expected, atol=0.02)


@pytest.mark.parametrize("order", [1, 2, 7, 40])
def test_the_fit_is_that_of_least_squares_over_all_runs(order: int) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(300, generator=generator, dtype=torch.float64).cumsum(0)
    known = torch.ones(300, dtype=torch.bool)
    known[120:130], known[160] = False, False  # the run of 30 between them is shorter than the highest order
    sections = torch.stack([x[i : i + order + 1] for i in range(300 - order) if known[i : i + order + 1].all()])
    sections = torch.cat([sections, sections.flip(1)])
    expected = -torch.linalg.lstsq(sections[:, 1:], sections[:, :1]).solution[:, 0]
    assert torch.allclose(fit_autoregressive(x, order, known)[1:], expected, atol=1e-5)


def test_interpolation_minimises_the_prediction_error() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(200, generator=generator, dtype=torch.float64).cumsum(0)
    missing = torch.zeros(200, dtype=torch.bool)
    missing[90:100], missing[104] = True, True
    known = torch.where(missing, 0.0, x)
    filter_ = fit_autoregressive(known, 5, ~missing)
    errors = torch.zeros(205, 200, dtype=torch.float64)  # the naive matrix of the filter, with zeros around the signal
    for i in range(200):
        errors[i : i + 6, i] = filter_
    expected = known.clone()
    expected[missing] = torch.linalg.lstsq(errors[:, missing], -(errors @ known)[:, None]).solution[:, 0]
    result = interpolate_autoregressive(x, missing, 5)
    assert torch.allclose(result, expected, atol=1e-6)


def test_interpolation_of_tones_is_exact_but_for_the_model() -> None:
    x = tones(2000)[0]
    missing = torch.zeros(2000, dtype=torch.bool)
    missing[1000:1040] = True
    result = interpolate_autoregressive(torch.where(missing, 0.0, x), missing, 128)
    assert snr_db(result[missing], x[missing]) > 30
    assert torch.equal(result[~missing], x[~missing])


def test_sparse_signals_are_declipped_within_their_bounds() -> None:
    x, limit = tones(2000), 0.45
    clipped = x.abs() >= limit
    low = torch.where(x <= -limit, -torch.inf, x.clamp(-limit, limit))
    high = torch.where(x >= limit, torch.inf, x.clamp(-limit, limit))
    result = a_spade(low, high, window=256)
    assert snr_db(result, x) > snr_db(x.clamp(-limit, limit), x) + 15
    assert torch.equal(result[~clipped], x[~clipped])
    assert (result[clipped].abs() >= limit).all()
    assert (result * x >= 0)[clipped].all()


def test_frames_of_sparse_spectra_do_not_depend_on_the_ends() -> None:
    x = tones(2000)
    bounds = [torch.where(x.abs() >= 0.45, sign * torch.inf, x) for sign in (-1, 1)]
    whole = a_spade(bounds[0], bounds[1], window=256)
    part = a_spade(bounds[0][:, 256:1280], bounds[1][:, 256:1280], window=256)
    assert torch.allclose(whole[:, 512:1024], part[:, 256:768], atol=1e-12)


# Coloured noise


def transform() -> MDCT:
    return MDCT(MDCTConfig(time=TIME, bins=BINS))


def variances() -> tuple[Tensor, Tensor]:
    """Return the variances of signals and of noise, of all coefficients."""
    k = torch.arange(BINS)[:, None].expand(BINS, TIME // BINS)
    return 0.02 + torch.exp(-k / 5), 0.01 + 0.3 * torch.exp(-((k - 20) ** 2) / 30)


def test_whitened_operator_is_linear_with_its_adjoint_and_inverse() -> None:
    generator = torch.Generator().manual_seed(0)
    operator = Whitened(transform(), variances()[1][None, None])
    x = torch.randn(2, 1, TIME, generator=generator)
    y = torch.randn(2, 1, BINS, TIME // BINS, generator=generator)
    assert torch.isclose((operator.forward(x) * y).sum(), (x * operator.adjoint(y)).sum(), rtol=1e-4)
    product = operator.forward(operator.adjoint(operator.solve(y, 0.3))) + 0.3 * operator.solve(y, 0.3)
    assert torch.allclose(product, y, atol=1e-4)


def test_samples_surround_the_wiener_estimate_in_coloured_noise() -> None:
    generator = torch.Generator().manual_seed(2)
    signal, noise = (v[None, None] for v in variances())
    codec, n = transform(), 300
    shape = (1, 1, BINS, TIME // BINS)
    clean = signal.sqrt() * torch.randn(shape, generator=generator)
    noisy = clean + noise.sqrt() * torch.randn(shape, generator=generator)
    mean = signal / (signal + noise) * noisy
    variance = signal * noise / (signal + noise)

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return codec.decode(signal / (signal + sigma[0] ** 2) * codec.encode(x))

    operator = Whitened(codec, noise)
    y = (noisy / noise.sqrt()).expand(n, -1, -1, -1)
    start = 10 * torch.randn(n, 1, TIME, generator=generator)
    sigmas = karras_sigmas(60, 0.01, 10.0)
    z = codec.encode(diffpir(denoiser, y, operator, 1.0, sigmas, start=start, generator=generator))
    assert (z.mean(dim=0) - mean[0]).square().mean().sqrt() < 0.1 * (noisy - mean).square().mean().sqrt()
    assert 0.3 < float((z.var(dim=0) / variance[0]).mean()) < 1.2  # DiffPIR's samples vary less than the posterior


def test_a_whitened_denoiser_is_the_wiener_filter_of_white_noise() -> None:
    generator = torch.Generator().manual_seed(3)
    codec, sigma, level = transform(), 0.3, 0.05
    noisy = torch.randn(1, 1, TIME, generator=generator)
    variance = torch.full((1, 1, BINS, TIME // BINS), sigma**2)

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return level**2 / (level**2 + sigma**2) * x

    signal = float(noisy.square().mean()) - sigma**2  # estimated from the noisy signal
    expected = signal / (signal + sigma**2) * noisy
    assert torch.allclose(denoise_whitened(denoiser, noisy, codec, variance, level), expected, atol=1e-5)


def test_variances_of_coefficients_follow_from_the_power_of_the_spectrum() -> None:
    generator, time = torch.Generator().manual_seed(4), 64 * 512
    white = torch.randn(1, time, generator=generator)
    noise = white + 0.9 * white.roll(1)  # coloured
    codec = MDCT(MDCTConfig(time=time, bins=64))
    predicted = coefficient_variance(noise_power(stft(noise, 128, 64))).mean(dim=-1)
    measured = codec.encode(noise[:, None]).square().mean(dim=-1)
    assert float((predicted / measured).log().abs().mean()) < 0.1
    true = 1 + 0.9**2 + 1.8 * torch.cos(math.pi * (torch.arange(64) + 0.5) / 64)
    assert float((predicted[0, 0] / true).log().abs().mean()) < 0.1


def test_the_wiener_filter_keeps_signals_and_removes_noise() -> None:
    generator = torch.Generator().manual_seed(5)
    noise = stft(0.01 * torch.randn(1, 128 * 100, generator=generator), 256, 128)
    expected_power = torch.full_like(noise.real, 0.01**2 * 128)
    assert wiener(noise, expected_power).abs().square().mean() < 0.05 * noise.abs().square().mean()
    loud = 1e4 * noise
    assert torch.allclose(wiener(loud, expected_power)[..., 1:], loud[..., 1:], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("rate", [16_000, 192_000])
def test_models_of_gaps_are_bounded_at_high_rates(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[int] = []

    def record(x: Tensor, missing: Tensor, order: int) -> Tensor:
        orders.append(order)
        return x

    monkeypatch.setattr(linear_prediction, "interpolate_autoregressive", record)
    missing = torch.zeros(rate, dtype=torch.bool)
    missing[rate // 2 : rate // 2 + rate // 100] = True
    fill_gap(torch.ones(rate), missing, rate // 2, rate // 2 + rate // 100, rate)
    assert max(orders) == (512 if rate == 16_000 else 1024)
