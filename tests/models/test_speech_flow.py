"""The paths of speech: their ends, their draws, and that training sees what a stream does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from denoise.errors import ConfigError
from denoise.models import speech_flow
from denoise.models.speech_flow import compressed, doubted, expanded, noise_of, sums_of
from denoise.protocols import FlowNetwork, StreamingNetwork
from denoise.registry import build
from tests.laws.test_streaming import sound, streamed

SETTINGS = {"linear_hz": 2000.0, "bands": 16, "widths": [4, 6], "blocks": 2, "hidden": 5, "squeeze": 2, "memory": 7}


@pytest.fixture(scope="module", params=[0, 2])
def net(request: pytest.FixtureRequest) -> Any:
    """Causal, and one that hears ahead; far from what it begins as."""
    torch.manual_seed(0)
    net = build("speech-flow", SETTINGS | {"lookahead": request.param}).eval().requires_grad_(False)
    for p in net.parameters():
        p.copy_(2 * p if p.any() else 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
    return net


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_draws_are_streamed(net: Any, steps: int, rate: int) -> None:
    assert isinstance(net, FlowNetwork)
    drawn = net.drawn(5, steps)
    assert isinstance(drawn, StreamingNetwork)
    assert drawn.delay == 1 + steps * (net.delay - 1)
    x = sound(rate // 4 + 37, channels=2, batch=2)
    whole = drawn(x, sample_rate=rate)
    for hops in ([1], [2, 1, 5]):
        torch.testing.assert_close(streamed(drawn, x, rate, hops)[..., : x.shape[-1]], whole, atol=5e-4, rtol=0)
    assert torch.equal(net.drawn(5, steps)(x, sample_rate=rate), whole)
    assert (net.drawn(6, steps)(x, sample_rate=rate) - whole).std() > 0.05 * whole.std()


def test_training_for_the_mean_is_the_mean(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_flow, "OF_THE_MEAN", 1.0)
    noisy = sound(16_000 + 11, channels=2, batch=2)
    clean = torch.zeros_like(noisy)
    out, noise = net.on_the_way(noisy, clean, sample_rate=16_000)
    assert not noise.any()
    torch.testing.assert_close(out, net(noisy, sample_rate=16_000), atol=1e-4, rtol=1e-3)


def test_training_near_the_beginning_sees_the_clean_one(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At t = 0 the point is the clean signal, and of a network that passes the point it is what comes out."""
    passing = build("speech-flow", SETTINGS).eval().requires_grad_(False)
    for p in passing.parameters():
        p.zero_()
    passing.head.bias.copy_(torch.tensor([0.0, 0, 0, 80.0]))  # nothing of the noisy one, the point as it is
    monkeypatch.setattr(speech_flow, "OF_THE_MEAN", 0.0)
    monkeypatch.setattr(torch, "rand", lambda *size, device=None: torch.zeros(size))
    noisy, clean = sound(8_000, batch=2), 0.1 * sound(8_000, batch=2, seed=1)
    torch.testing.assert_close(passing.on_the_way(noisy, clean, sample_rate=8_000)[0], clean, atol=1e-4, rtol=1e-3)


def test_compression_and_its_inverse() -> None:
    z = torch.randn(1000, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)) * torch.logspace(
        -4, 1, 1000
    )
    small = compressed(z, 0.3)
    torch.testing.assert_close(small.abs(), z.abs() ** 0.3, rtol=1e-3, atol=0)
    torch.testing.assert_close(small.angle(), z.angle())
    torch.testing.assert_close(expanded(small, 0.3), z, rtol=1e-2, atol=1e-9)


def test_the_dial_goes_from_the_mean_to_the_draw(net: Any) -> None:
    x = sound(8_000, channels=2)
    mean, half, drawn = (net.drawn(3, 3, share)(x, sample_rate=16_000) for share in (0.0, 0.5, 1.0))
    torch.testing.assert_close(mean, net(x, sample_rate=16_000), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(half, (mean + drawn) / 2, atol=1e-5, rtol=1e-3)
    assert (drawn - mean).std() > 0.05 * mean.std()


def gaussian(signal: float, noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A noisy spectrum, an exact draw and the mean of what it may have been, for powers of so much."""
    a, b, e = torch.randn(3, 1, 2, 400, 129, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    noisy = signal**0.5 * a + noise**0.5 * b
    mean = signal / (signal + noise) * noisy
    return noisy, mean + (signal * noise / (signal + noise)) ** 0.5 * e, mean


@pytest.mark.parametrize("signal", [0.01, 1.0, 100.0])
def test_exact_draws_are_not_doubted_and_leave_noise(net: Any, signal: float) -> None:
    noisy, drawn, mean = gaussian(signal, 0.3)
    noise = noise_of(noisy, mean)
    assert noise.mean() == pytest.approx(0.3, rel=0.05)
    doubt = doubted(noise, drawn, mean)
    assert doubt.mean() < 0.01
    draw = net.drawn(0, 2)
    told = replace(draw.start(1, 2, 16_000), sums=sums_of(noisy, drawn, noise, drawn - mean, doubt))
    level, correlation, share = draw.judged(told)
    assert level == pytest.approx(1.0, rel=0.03)
    assert abs(correlation) < 4 / noisy.numel() ** 0.5
    assert share < 0.03


def test_what_was_not_heard_gives_way_to_the_mean() -> None:
    noisy, drawn, mean = gaussian(1.0, 0.01)
    drawn[:, :, 200:, 60:100] += 0.5  # a voice where there was none
    doubts = doubted(noise_of(noisy, mean), drawn, mean)
    assert doubts.shape == noisy.shape
    doubt = doubts[0, 0]
    assert doubt[:200].mean() < 0.01
    assert doubt[200:, :40].mean() < 0.01
    assert doubt[200:, 60:100].min() == 1.0


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_the_stereo_image_of_a_draw_stays(net: Any, rate: int) -> None:
    """A voice panned is drawn panned, and where nothing is, nothing is drawn."""
    x = sound(rate // 2)
    drawn = net.drawn(1, 3)
    for right in (0.3, 0.0):
        out = drawn(torch.cat([x, right * x], dim=1), sample_rate=rate)
        assert out[:, :1].std() > 1e-3
        torch.testing.assert_close(out[:, 1:], right * out[:, :1], atol=2e-3 * float(out.abs().max()), rtol=1e-2)


def test_a_path_needs_a_step(net: Any) -> None:
    with pytest.raises(ConfigError, match="steps is 0"):
        net.drawn(0, 0)
