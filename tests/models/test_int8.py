"""Convolutions of 8 bits against sums of integers, and networks that use them against those that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from denoise.nn.blocks import ResidualBlock
from denoise.nn.int8 import STRIP, Int8Block, Int8Conv, has_vnni, int8_blocks, quantize, quantized

pytestmark = pytest.mark.skipif(not has_vnni(), reason="this processor has no VNNI")


def block(channels: int, **settings: Any) -> ResidualBlock:
    torch.manual_seed(0)
    how: dict[str, Any] = {"dilation": 1, "bias": False, "activation": "relu", "norm": False}
    return ResidualBlock(2, channels, **how | settings).eval().requires_grad_(False)


def drawn(*shape: int) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last)


def change_kept(found: Tensor, expected: Tensor, x: Tensor) -> float:
    """The error of what a block adds, by that: powers."""
    return float((found - expected).square().mean() / (expected - x).square().mean())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 40), st.integers(1, 9))
def test_quantized_numbers_are_rounded(seed: int, batch: int, channels: int, side: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = 100 * torch.randn(batch, channels, side, 3, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last)
    scale = 1 + 10 * torch.rand(channels, generator=generator)
    expected = np.floor((x / scale[:, None, None]).double().numpy() + 128.5).clip(0, 255)
    found = quantize(x, scale).double().numpy()
    assert np.abs(found - expected).max() <= 1  # at a tie
    assert (found == expected).mean() > 0.99


@pytest.mark.parametrize("zero_point", [0, 128])
def test_a_convolution_is_the_sum_of_products(zero_point: int) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(24, 40, 3, padding=1).requires_grad_(False)
    bias: Any = conv.bias
    scale = 0.01 + torch.rand(24, generator=generator)
    x = torch.randint(0, 256, (2, 24, 7, 9), generator=generator, dtype=torch.uint8)
    weight = conv.weight.double() * scale[:, None, None]  # as it is rounded
    step = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    weight = (weight / step).round() * step
    expected = nn.functional.conv2d(x.double() - zero_point, weight, bias.double(), padding=1)
    layer = Int8Conv(conv, scale, zero_point)
    found = layer(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(layer.in_float32(x.float() - zero_point), found, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("pointwise", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_block_is_nearly_the_exact_one(pointwise: bool, bias: bool) -> None:
    exact = block(64, pointwise=pointwise, bias=bias)
    x = torch.linspace(0.1, 10, 64)[:, None, None] * drawn(2, 64, 40, 30)  # channels may differ much
    network: Any = quantized(nn.Sequential(exact), x)
    assert isinstance(network[0], Int8Block)
    with torch.inference_mode():
        assert 0 < change_kept(network(x.clone()), exact(x), x) < 1e-3


@pytest.mark.parametrize("share", [0.01, 0.0])
def test_what_the_calibration_did_not_hold_is_not_cut(share: float) -> None:
    """Neither in all channels, nor in some that were silent."""
    network, x = nn.Sequential(block(64)), drawn(1, 64, 24, 24)
    shown = share * x
    shown[:, ::2] = 0.01 * x[:, ::2]
    quick = quantized(network, shown)
    with torch.inference_mode():
        for scale in (0.01, 1.0, 100.0):
            assert change_kept(quick(scale * x), network(scale * x), scale * x) < 1e-3


def test_without_any_calibration_a_block_stays() -> None:
    network, x = nn.Sequential(block(64)), drawn(1, 64, 8, 8)
    quick = quantized(network, torch.zeros_like(x))
    with torch.inference_mode():
        torch.testing.assert_close(quick(x.clone()), network(x.clone()))


@pytest.mark.parametrize("pointwise", [False, True])
@pytest.mark.parametrize("row", [1, 30, 33, 63, 64, 95])
@pytest.mark.parametrize("where", ["in", "within"])
def test_float32_goes_on_where_8_bits_end(
    where: str, row: int, pointwise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one place that is too loud for the block or for its middle, all is as float32 has it; most is not its."""
    exact, x = block(64, pointwise=pointwise), drawn(1, 64, 97, 24)
    quick: Any = quantized(nn.Sequential(exact), x)
    louder = x.clone()
    if where == "in":
        louder[..., row, 20] = 1e4 * torch.sign(x[..., row, 20])
    else:  # what the first filter of the block answers most to, within the range of the input
        loud = x.abs().amax() * 0.9 * torch.sign(exact.body[0].weight[0])  # type: ignore[index]
        louder[..., row - 1 : row + 2, 19:22] = loud
    strips: list[int] = []
    exactly = Int8Block.in_float32

    def watched(self: Int8Block, x: Tensor) -> Tensor:
        strips.append(x.shape[2])
        return exactly(self, x)

    monkeypatch.setattr(Int8Block, "in_float32", watched)
    with torch.inference_mode():
        q = quantize(louder, quick[0].scale)
        assert bool(((q == 0) | (q == 255)).any()) == (where == "in")
        found = quick(louder.clone())
        assert 0 < sum(strips) < 97  # rows of the strips with that place, and around them
        assert change_kept(found, exact(louder.clone()), louder) < 1e-2
        whole = exactly(quick[0], louder.clone())
        off = (found - whole).abs() > 1e-4 * whole.abs().amax()
        assert off.float().mean() < 1e-3  # but for a tie that is rounded the other way
        far = torch.ones(97, dtype=torch.bool)
        far[max(0, row - STRIP - 2) : row + STRIP + 3] = False
        torch.testing.assert_close(found[:, :, far], quick(x.clone())[:, :, far], rtol=0, atol=1e-4)


def test_a_part_is_that_of_the_whole() -> None:
    network, x = nn.Sequential(block(64), block(64)), drawn(1, 64, 40, 40)
    quick = quantized(network, x)
    with torch.inference_mode():
        whole, part = quick(x.clone()), quick(x[..., 8:].clone())
    torch.testing.assert_close(part[..., 4:], whole[..., 12:], rtol=0, atol=1e-5)


def test_other_blocks_stay() -> None:
    network, x = nn.Sequential(block(16, norm=True), block(16, activation="mish")), drawn(1, 16, 8, 8)
    assert not any(int8_blocks(network))
    with torch.inference_mode():
        torch.testing.assert_close(quantized(network, x)(x.clone()), network(x.clone()))
