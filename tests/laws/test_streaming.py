"""Laws of `denoise.protocols.StreamingNetwork`: blocks give the output of the whole, within the stated latency."""

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
STREAMING = [name for name in EVERY if isinstance(make(name), StreamingNetwork)]


@pytest.fixture(scope="module", params=STREAMING)
def net(request: pytest.FixtureRequest) -> Any:
    net = make(request.param)
    with torch.no_grad():  # far from the identity, so that a lost state changes the output
        generator = torch.Generator().manual_seed(2)
        for p in net.parameters():
            p.copy_(2 * p if p.any() else 0.2 * torch.randn(p.shape, generator=generator))
    return net


def white_noise(time: int, channels: int = 1, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, channels, time, generator=torch.Generator().manual_seed(seed)) * 0.1


def stream(net: Any, x: Tensor, rate: int, block_hops: list[int]) -> Tensor:
    """Process blocks of these numbers of hops, in turn, then silence for the delay of the network."""
    hop = net.hop(rate)
    lag = net.delay * hop
    x = torch.cat([x, x.new_zeros(*x.shape[:-1], lag + -x.shape[-1] % hop)], dim=-1)
    state, outputs, start, turn = net.initial_state(x.shape[0], x.shape[1], rate), [], 0, 0
    while start < x.shape[-1]:
        n = block_hops[turn % len(block_hops)] * hop
        output, state = net.step(x[..., start : start + n], state)
        outputs.append(output)
        start, turn = start + n, turn + 1
    return torch.cat(outputs, dim=-1)[..., lag:]


def test_a_streaming_network_exists() -> None:
    assert STREAMING


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("block_hops", [[1], [2, 1, 5], [50]])
def test_blocks_give_the_output_of_the_whole_signal(net: Any, rate: int, block_hops: list[int]) -> None:
    x = white_noise(rate // 4 + 37, channels=2, batch=2)
    whole = net(x, sample_rate=rate)
    torch.testing.assert_close(stream(net, x, rate, block_hops)[..., : x.shape[-1]], whole, atol=1e-5, rtol=0)
    assert not torch.allclose(whole, x, atol=1e-2)


@pytest.mark.parametrize("rate", RATES)
def test_output_depends_on_no_sample_beyond_the_latency(net: Any, rate: int) -> None:
    x = white_noise(rate // 2)
    changed, start = x.clone(), 3 * rate // 8
    assert net.latency_s < 0.35  # or nothing remains to compare
    changed[..., start:] = white_noise(x.shape[-1] - start, seed=1)
    a, b = net(x, sample_rate=rate), net(changed, sample_rate=rate)
    lookahead = round(net.latency_s * rate)
    torch.testing.assert_close(a[..., : start - lookahead], b[..., : start - lookahead], atol=1e-6, rtol=0)
    assert not torch.allclose(a[..., start:], b[..., start:], atol=1e-3)


def test_step_does_not_modify_its_state(net: Any) -> None:
    x = white_noise(4 * net.hop(16_000))
    _, state = net.step(x, net.initial_state(1, 1, 16_000))
    first, _ = net.step(x, state)
    second, _ = net.step(x, state)
    assert torch.equal(first, second)


@pytest.mark.parametrize("gain", [1e-3, 0.1, 10.0])
def test_output_scales_with_the_level_of_the_input(net: Any, gain: float) -> None:
    x = white_noise(8_000)
    torch.testing.assert_close(net(x * gain) / gain, net(x), atol=3e-3, rtol=0)


def test_silence_stays_silent_and_no_energy_is_added(net: Any) -> None:
    assert not net(torch.zeros(1, 1, 5_000)).any()
    x = white_noise(48_000)
    assert net(x).square().sum() <= x.square().sum() * 1.001
    assert torch.isfinite(net(x * 1e4)).all()


def test_the_stereo_image_is_kept(net: Any) -> None:
    """One mask for both channels: the ratio of the two levels of a source stays."""
    x = white_noise(9_000)
    output = net(torch.cat([x, -0.3 * x], dim=1))
    torch.testing.assert_close(output[:, 1], -0.3 * output[:, 0], atol=1e-5, rtol=0)


def test_the_polarity_of_a_channel_does_not_matter(net: Any) -> None:
    """A channel and its inverse have the mask of two equal channels, whatever rounding leaves of their mean."""
    x = white_noise(9_000)
    residue = torch.zeros_like(x)
    residue[..., ::300] = 2.0**-15
    expected = net(torch.cat([x, x], dim=1))[:, :1]
    torch.testing.assert_close(net(torch.cat([x, residue - x], dim=1))[:, :1], expected, atol=1e-4, rtol=0)
    channels = torch.cat([0 * x, x, -x, x, residue - x], dim=1)
    torch.testing.assert_close(net(channels)[:, 1:2], expected, atol=1e-4, rtol=0)


@settings(max_examples=20)
@given(rate=st.integers(8_000, 192_000), time=st.integers(1, 3_000), channels=st.integers(1, 3))
def test_any_rate_and_any_length(rate: int, time: int, channels: int) -> None:
    net = make(STREAMING[0])
    output = net(white_noise(time, channels), sample_rate=rate)
    assert output.shape == (1, channels, time)
    assert torch.isfinite(output).all()


def test_a_mask_of_ones_gives_the_input() -> None:
    """Analysis and synthesis alone are the identity: with all weights 0 the mask is one constant gain."""
    for name in STREAMING:
        net = make(name)
        with torch.no_grad():
            for p in net.parameters():
                p.zero_()
            net.head.bias[0], net.head.bias[3:] = 20.0, -20.0  # of a flow: weight 0 of the point
        for rate in RATES:
            x = white_noise(rate // 5 + 3, channels=2)
            torch.testing.assert_close(net(x, sample_rate=rate), x, atol=1e-5, rtol=0)


def test_training_after_inference_mode() -> None:
    """Nothing that inference mode caches is used with gradients."""
    net = build("dpcrn", {"widths": [4, 6], "bands": 26, "blocks": 1, "hidden": 5, "squeeze": 2, "full_hidden": 7})
    x = white_noise(1_000)
    with torch.inference_mode():
        net(x, sample_rate=8_000)
    net(x, sample_rate=8_000).sum().backward()
