"""What every streaming network must be: blocks give what the whole gives, and it waits no longer than it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from denoise.protocols import StreamingNetwork
from denoise.registry import build
from tests.laws.test_denoisers import EVERY, make

RATES = [8_000, 16_000, 44_100, 48_000, 96_000]
CAUSAL = [name for name in EVERY if isinstance(make(name), StreamingNetwork)]


@pytest.fixture(scope="module", params=CAUSAL)
def net(request: pytest.FixtureRequest) -> Any:
    net = make(request.param)
    with torch.no_grad():  # far from passing everything, so that a lost state would be heard
        generator = torch.Generator().manual_seed(2)
        for p in net.parameters():
            p.copy_(2 * p if p.any() else 0.2 * torch.randn(p.shape, generator=generator))
    return net


def sound(time: int, channels: int = 1, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, channels, time, generator=torch.Generator().manual_seed(seed)) * 0.1


def streamed(net: Any, x: Tensor, rate: int, hops: list[int]) -> Tensor:
    """Blocks of so many hops, in turn, then silence for as long as the network waits."""
    hop = net.hop(rate)
    late = net.delay * hop
    x = torch.cat([x, x.new_zeros(*x.shape[:-1], late + -x.shape[-1] % hop)], dim=-1)
    state, outs, at, turn = net.start(x.shape[0], x.shape[1], rate), [], 0, 0
    while at < x.shape[-1]:
        n = hops[turn % len(hops)] * hop
        out, state = net.stream(x[..., at : at + n], state)
        outs.append(out)
        at, turn = at + n, turn + 1
    return torch.cat(outs, dim=-1)[..., late:]


def test_there_is_one() -> None:
    assert CAUSAL


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("hops", [[1], [2, 1, 5], [50]])
def test_blocks_give_what_the_whole_gives(net: Any, rate: int, hops: list[int]) -> None:
    x = sound(rate // 4 + 37, channels=2, batch=2)
    whole = net(x, sample_rate=rate)
    torch.testing.assert_close(streamed(net, x, rate, hops)[..., : x.shape[-1]], whole, atol=1e-5, rtol=0)
    assert not torch.allclose(whole, x, atol=1e-2)


@pytest.mark.parametrize("rate", RATES)
def test_nothing_is_heard_before_its_latency(net: Any, rate: int) -> None:
    x = sound(rate // 2)
    changed, at = x.clone(), 3 * rate // 8
    assert net.latency_s < 0.35  # or nothing is left to compare
    changed[..., at:] = sound(x.shape[-1] - at, seed=1)
    a, b = net(x, sample_rate=rate), net(changed, sample_rate=rate)
    ahead = round(net.latency_s * rate)
    torch.testing.assert_close(a[..., : at - ahead], b[..., : at - ahead], atol=1e-6, rtol=0)
    assert not torch.allclose(a[..., at:], b[..., at:], atol=1e-3)


def test_the_state_that_is_given_stays_as_it_was(net: Any) -> None:
    x = sound(4 * net.hop(16_000))
    _, state = net.stream(x, net.start(1, 1, 16_000))
    first, _ = net.stream(x, state)
    again, _ = net.stream(x, state)
    assert torch.equal(first, again)


@pytest.mark.parametrize("gain", [1e-3, 0.1, 10.0])
def test_quiet_is_heard_as_loud_is(net: Any, gain: float) -> None:
    x = sound(8_000)
    torch.testing.assert_close(net(x * gain) / gain, net(x), atol=3e-3, rtol=0)


def test_silence_stays_silence_and_no_bin_gets_louder(net: Any) -> None:
    assert not net(torch.zeros(1, 1, 5_000)).any()
    x = sound(48_000)
    assert net(x).square().sum() <= x.square().sum() * 1.001
    loud = net(x * 1e4)
    assert torch.isfinite(loud).all()


def test_the_stereo_image_stays(net: Any) -> None:
    """One mask for both: a source that is k times louder on the left stays k times louder."""
    x = sound(9_000)
    out = net(torch.cat([x, -0.3 * x], dim=1))
    torch.testing.assert_close(out[:, 1], -0.3 * out[:, 0], atol=1e-5, rtol=0)


@settings(max_examples=20)
@given(rate=st.integers(8_000, 192_000), time=st.integers(1, 3_000), channels=st.integers(1, 3))
def test_any_rate_any_length(rate: int, time: int, channels: int) -> None:
    net = make(CAUSAL[0])
    out = net(sound(time, channels), sample_rate=rate)
    assert out.shape == (1, channels, time)
    assert torch.isfinite(out).all()


def test_an_open_mask_gives_the_input_back() -> None:
    """Analysis and synthesis alone are the identity: with all weights zero the mask is one constant gain."""
    for name in CAUSAL:
        net = make(name)
        with torch.no_grad():
            for p in net.parameters():
                p.zero_()
            net.head.bias[0], net.head.bias[3:] = 20.0, -20.0  # what a flow adds of its own: nothing
        for rate in RATES:
            x = sound(rate // 5 + 3, channels=2)
            torch.testing.assert_close(net(x, sample_rate=rate), x, atol=1e-5, rtol=0)


def test_it_can_learn_after_it_was_used() -> None:
    """What it keeps for all of its kind is no tensor of inference mode."""
    net = build("dpcrn", {"widths": [4, 6], "bands": 26, "blocks": 1, "hidden": 5, "squeeze": 2, "memory": 7})
    x = sound(1_000)
    with torch.inference_mode():
        net(x, sample_rate=8_000)
    net(x, sample_rate=8_000).sum().backward()
