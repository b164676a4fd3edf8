"""Convolutions of bytes against sums of integers, and networks that use them against those that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from denoise.nn.blocks import ResidualBlock
from denoise.nn.int8 import Block8, Conv8, as_bytes, in_8_bits, multiplies_bytes

pytestmark = pytest.mark.skipif(not multiplies_bytes(), reason="this processor has no products of bytes")


def block(channels: int, **settings: Any) -> ResidualBlock:
    how: dict[str, Any] = {"dilation": 1, "bias": False, "activation": "relu", "norm": False}
    return ResidualBlock(2, channels, **how | settings).eval().requires_grad_(False)


def laid(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 40), st.integers(1, 9))
def test_bytes_are_rounded_numbers(seed: int, batch: int, channels: int, side: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = laid(100 * torch.randn(batch, channels, side, 3, generator=generator))
    per_step = 0.1 + torch.rand(channels, generator=generator)
    expected = np.floor((x * per_step[:, None, None]).double().numpy() + 128.5).clip(0, 255)
    assert np.abs(as_bytes(x, per_step).double().numpy() - expected).max() <= 1  # at a tie
    assert (as_bytes(x, per_step).double().numpy() == expected).mean() > 0.99


@pytest.mark.parametrize("zero", [0, 128])
def test_a_convolution_is_the_sum_of_products(zero: int) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(24, 40, 3, padding=1).requires_grad_(False)
    bias: Any = conv.bias
    steps = 0.01 + torch.rand(24, generator=generator)
    x = laid(torch.randint(0, 256, (2, 24, 7, 9), generator=generator, dtype=torch.uint8))
    weight = conv.weight.double() * steps[:, None, None]  # as it is rounded
    scale = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    weight = (weight / scale).round() * scale
    expected = nn.functional.conv2d(x.double() - zero, weight, bias.double(), padding=1)
    torch.testing.assert_close(Conv8(conv, steps, zero)(x).double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("pointwise", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_block_is_nearly_the_exact_one(pointwise: bool, bias: bool) -> None:
    exact = block(64, pointwise=pointwise, bias=bias)
    loud = torch.linspace(0.1, 10, 64)[:, None, None]  # channels may differ much
    x = laid(loud * torch.randn(2, 64, 40, 30, generator=torch.Generator().manual_seed(0)))
    quick: Any = in_8_bits(nn.Sequential(exact), x)
    assert isinstance(quick[0], Block8)
    with torch.inference_mode():
        expected, found = exact(x), quick(x.clone())
    change = (expected - x).square().mean()
    assert 0 < (found - expected).square().mean() < 1e-3 * change


def test_what_is_greater_than_the_example_is_not_cut() -> None:
    network = nn.Sequential(block(64))
    x = laid(torch.randn(1, 64, 24, 24, generator=torch.Generator().manual_seed(0)))
    quick = in_8_bits(network, 0.01 * x)
    with torch.inference_mode():
        for scale in (0.01, 1.0, 100.0):
            expected, found = network(scale * x), quick(scale * x)
            assert (found - expected).square().mean() < 1e-3 * (expected - scale * x).square().mean()


def test_floats_go_on_where_bytes_end() -> None:
    """With one place that no byte holds, the others are what they were."""
    quick = in_8_bits(nn.Sequential(block(64)), x := laid(torch.randn(1, 64, 24, 24)))
    for loud in (float(x.abs().max()) * 1.24, 1e4):  # too much within, and at once
        louder = x.clone()
        louder[..., 20, 20] = loud * torch.where(torch.arange(64) % 2 == 0, 1.0, -1.0)
        with torch.inference_mode():
            found = quick(louder.clone())
            assert (found - louder)[..., 20, 20].abs().max() > 0.01 * loud  # it did something to it
            torch.testing.assert_close(found[..., :18, :], quick(x.clone())[..., :18, :], rtol=0, atol=1e-4)


def test_a_part_is_that_of_the_whole() -> None:
    network = nn.Sequential(block(64), block(64))
    x = laid(torch.randn(1, 64, 40, 40, generator=torch.Generator().manual_seed(0)))
    quick = in_8_bits(network, x)
    with torch.inference_mode():
        whole, part = quick(x.clone()), quick(laid(x[..., 8:].clone()))
    torch.testing.assert_close(part[..., 4:], whole[..., 12:], rtol=0, atol=1e-5)


def test_other_blocks_stay() -> None:
    other = [block(16, norm=True), block(16, activation="mish")]
    x = laid(torch.randn(1, 16, 8, 8))
    quick: Any = in_8_bits(nn.Sequential(*other), x)
    assert all(isinstance(layer, ResidualBlock) for layer in quick)
    with torch.inference_mode():
        torch.testing.assert_close(quick(x.clone()), nn.Sequential(*other)(x))


def test_nothing_gives_nothing() -> None:
    network = nn.Sequential(block(64))
    nothing = torch.zeros(1, 64, 8, 8)
    assert not in_8_bits(network, nothing)(nothing.clone()).any()
