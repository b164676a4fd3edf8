"""The paths of speech: their ends, their draws, and that training sees what a stream does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from denoise.errors import ConfigError
from denoise.models import speech_flow
from denoise.models.speech_flow import compressed, expanded
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


def test_training_from_the_end_is_the_mean(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_flow, "FROM_THE_END", 1.0)
    monkeypatch.setattr(torch, "rand", lambda *size, device=None: torch.full(size, 0.9))  # without noise
    noisy = sound(16_000 + 11, channels=2, batch=2)
    clean = torch.zeros_like(noisy)
    out = net.on_the_way(noisy, clean, sample_rate=16_000)
    torch.testing.assert_close(out, net(noisy, sample_rate=16_000), atol=1e-4, rtol=1e-3)


def test_training_near_the_beginning_sees_the_clean_one(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At t = 0 the point is the clean signal, and of a network that passes the point it is what comes out."""
    passing = build("speech-flow", SETTINGS).eval().requires_grad_(False)
    for p in passing.parameters():
        p.zero_()
    passing.head.bias.copy_(torch.tensor([0.0, 0, 0, 80.0]))  # nothing of the noisy one, the point as it is
    monkeypatch.setattr(speech_flow, "FROM_THE_END", 0.0)
    monkeypatch.setattr(torch, "rand", lambda *size, device=None: torch.zeros(size))
    noisy, clean = sound(8_000, batch=2), 0.1 * sound(8_000, batch=2, seed=1)
    torch.testing.assert_close(passing.on_the_way(noisy, clean, sample_rate=8_000), clean, atol=1e-4, rtol=1e-3)


def test_compression_and_its_inverse() -> None:
    z = torch.randn(1000, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)) * torch.logspace(
        -4, 1, 1000
    )
    small = compressed(z, 0.3)
    torch.testing.assert_close(small.abs(), z.abs() ** 0.3, rtol=1e-3, atol=0)
    torch.testing.assert_close(small.angle(), z.angle())
    torch.testing.assert_close(expanded(small, 0.3), z, rtol=1e-2, atol=1e-9)


def test_a_path_needs_a_step(net: Any) -> None:
    with pytest.raises(ConfigError, match="steps is 0"):
        net.drawn(0, 0)
