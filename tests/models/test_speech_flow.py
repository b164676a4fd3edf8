"""Speech flow: ends of the paths, posterior samples, rejection, and agreement of training and streaming."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from denoise.errors import ConfigError
from denoise.models import speech_flow
from denoise.models.posterior_spectra import PowerSums, compress, estimate_noise_power, expand, rejection_weight
from denoise.protocols import FlowNetwork, PosteriorSampler, StreamingNetwork
from denoise.registry import build
from tests.laws.test_streaming import stream, white_noise

SETTINGS = {
    "linear_hz": 2000.0,
    "bands": 16,
    "widths": [4, 6],
    "blocks": 2,
    "hidden": 5,
    "squeeze": 2,
    "full_hidden": 7,
}


@pytest.fixture(scope="module", params=[0, 2])
def net(request: pytest.FixtureRequest) -> Any:
    """A causal network and one with look-ahead, far from their initialisation."""
    torch.manual_seed(0)
    net = build("speech-flow", SETTINGS | {"lookahead": request.param}).eval().requires_grad_(False)
    for p in net.parameters():
        p.copy_(2 * p if p.any() else 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
    return net


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_posterior_samples_are_streamed(net: Any, steps: int, rate: int) -> None:
    assert isinstance(net, FlowNetwork)
    sampler = net.posterior_sampler(5, steps)
    assert isinstance(sampler, StreamingNetwork)
    assert isinstance(sampler, PosteriorSampler)
    assert sampler.delay == 1 + steps * (net.delay - 1)
    x = white_noise(rate // 4 + 37, channels=2, batch=2)
    whole = sampler(x, sample_rate=rate)
    for block_hops in ([1], [2, 1, 5]):
        blocks = stream(sampler, x, rate, block_hops)[..., : x.shape[-1]]
        torch.testing.assert_close(blocks, whole, atol=5e-4, rtol=0)
    assert torch.equal(net.posterior_sampler(5, steps)(x, sample_rate=rate), whole)
    assert (net.posterior_sampler(6, steps)(x, sample_rate=rate) - whole).std() > 0.05 * whole.std()


def test_training_pairs_of_the_mean_are_the_streamed_mean(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_flow, "MEAN_FRACTION", 1.0)
    noisy = white_noise(16_000 + 11, channels=2, batch=2)
    clean = torch.zeros_like(noisy)
    estimate, noise_fraction = net.training_pair(noisy, clean, sample_rate=16_000)
    assert not noise_fraction.any()
    torch.testing.assert_close(estimate, net(noisy, sample_rate=16_000), atol=1e-4, rtol=1e-3)


def test_training_pairs_at_time_0_are_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """At t = 0 the point is the clean signal, which is then the output of a network that passes the point."""
    passing = build("speech-flow", SETTINGS).eval().requires_grad_(False)
    for p in passing.parameters():
        p.zero_()
    passing.head.bias.copy_(torch.tensor([0.0, 0, 0, 80.0]))  # weight 0 of the noisy signal, 1 of the point
    monkeypatch.setattr(speech_flow, "MEAN_FRACTION", 0.0)
    monkeypatch.setattr(torch, "rand", lambda *size, device=None: torch.zeros(size))
    noisy, clean = white_noise(8_000, batch=2), 0.1 * white_noise(8_000, batch=2, seed=1)
    estimate, _ = passing.training_pair(noisy, clean, sample_rate=8_000)
    torch.testing.assert_close(estimate, clean, atol=1e-4, rtol=1e-3)


def test_compression_and_its_inverse() -> None:
    z = torch.randn(1000, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)) * torch.logspace(
        -4, 1, 1000
    )
    compressed = compress(z, 0.3)
    torch.testing.assert_close(compressed.abs(), z.abs() ** 0.3, rtol=1e-3, atol=0)
    torch.testing.assert_close(compressed.angle(), z.angle())
    torch.testing.assert_close(expand(compressed, 0.3), z, rtol=1e-2, atol=1e-9)


def test_perception_interpolates_between_mean_and_sample(net: Any) -> None:
    x = white_noise(8_000, channels=2)
    mean, half, sample = (
        net.posterior_sampler(3, 3, perception)(x, sample_rate=16_000) for perception in (0.0, 0.5, 1.0)
    )
    torch.testing.assert_close(mean, net(x, sample_rate=16_000), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(half, (mean + sample) / 2, atol=1e-5, rtol=1e-3)
    assert (sample - mean).std() > 0.05 * mean.std()


def gaussian_posterior(signal: float, noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A noisy spectrum, an exact posterior sample and the posterior mean, for these powers of signal and noise."""
    a, b, e = torch.randn(3, 1, 2, 400, 129, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    noisy = signal**0.5 * a + noise**0.5 * b
    mean = signal / (signal + noise) * noisy
    return noisy, mean + (signal * noise / (signal + noise)) ** 0.5 * e, mean


@pytest.mark.parametrize("signal", [0.01, 1.0, 100.0])
def test_exact_samples_are_not_rejected_and_remove_exactly_the_noise(net: Any, signal: float) -> None:
    noisy, sample, mean = gaussian_posterior(signal, 0.3)
    noise = estimate_noise_power(noisy, mean)
    assert noise.mean() == pytest.approx(0.3, rel=0.05)
    rejection = rejection_weight(noise, sample, mean)
    assert rejection.mean() < 0.01
    sampler = net.posterior_sampler(0, 2)
    sums = PowerSums.of(noisy, sample, noise, sample - mean, rejection)
    diagnostics = sampler.diagnostics(replace(sampler.initial_state(1, 2, 16_000), sums=sums))
    assert diagnostics.residual_by_sigma == pytest.approx(1.0, rel=0.03)
    assert abs(diagnostics.residual_correlation) < 4 / noisy.numel() ** 0.5
    assert diagnostics.rejected_fraction < 0.03


def test_power_sums_are_added_by_name() -> None:
    a, b = PowerSums(1.0, 2.0, 3.0, 4.0, 5.0, 6.0), PowerSums(change=0.5, removed=0.25)
    assert a + b == PowerSums(1.25, 2.0, 3.0, 4.0, 5.0, 6.5)


def test_a_sample_that_invents_a_signal_is_rejected_there() -> None:
    noisy, sample, mean = gaussian_posterior(1.0, 0.01)
    sample[:, :, 200:, 60:100] += 0.5  # a signal that the noisy spectrum does not have
    weights = rejection_weight(estimate_noise_power(noisy, mean), sample, mean)
    assert weights.shape == noisy.shape
    weight = weights[0, 0]
    assert weight[:200].mean() < 0.01
    assert weight[200:, :40].mean() < 0.01
    assert weight[200:, 60:100].min() == 1.0


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_the_stereo_image_of_a_sample_is_kept(net: Any, rate: int) -> None:
    """The sample of a panned signal is panned, and that of a silent channel is silent."""
    x = white_noise(rate // 2)
    sampler = net.posterior_sampler(1, 3)
    for right in (0.3, 0.0):
        output = sampler(torch.cat([x, right * x], dim=1), sample_rate=rate)
        assert output[:, :1].std() > 1e-3
        torch.testing.assert_close(
            output[:, 1:], right * output[:, :1], atol=2e-3 * float(output.abs().max()), rtol=1e-2
        )


def test_a_path_has_at_least_one_step(net: Any) -> None:
    with pytest.raises(ConfigError, match="steps is 0"):
        net.posterior_sampler(0, 0)
