"""8-bit convolutions against sums of integers, and networks with them against float32 ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from denoise.nn import int8
from denoise.nn.blocks import ResidualBlock
from denoise.nn.int8 import (
    STRIP_ROWS,
    Int8Block,
    Int8Conv,
    find_int8_blocks,
    has_exact_int8,
    quantise_activations,
    quantise_network,
)

KERNELS = [
    pytest.param(False, id="vnni", marks=pytest.mark.skipif(not has_exact_int8(), reason="needs VNNI")),
    pytest.param(True, id="reference"),
]


@pytest.fixture(params=KERNELS)
def is_reference(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Blocks multiply integers with the instructions of this processor, or in float32 as every processor can."""
    monkeypatch.setattr(int8, "has_exact_int8", lambda: not request.param)
    return bool(request.param)


def block(channels: int, **settings: Any) -> ResidualBlock:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"dilation": 1, "bias": False, "activation": "relu", "norm": False}
    return ResidualBlock(2, channels, **defaults | settings).eval().requires_grad_(False)


def randn(*shape: int) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last)


def relative_error(y: Tensor, expected: Tensor, x: Tensor) -> float:
    """Power of the error of the residual branch of a block relative to the power of the branch."""
    return float((y - expected).square().mean() / (expected - x).square().mean())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 40), st.integers(1, 9))
def test_activations_are_rounded(seed: int, batch: int, channels: int, side: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = 100 * torch.randn(batch, channels, side, 3, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last)
    scale = 1 + 10 * torch.rand(channels, generator=generator)
    expected = np.floor((x / scale[:, None, None]).double().numpy() + 128.5).clip(0, 255)
    q = quantise_activations(x, scale).double().numpy()
    assert np.abs(q - expected).max() <= 1  # at a tie
    assert (q == expected).mean() > 0.99


@pytest.mark.parametrize("zero_point", [0, 128])
def test_convolution_is_the_sum_of_products(zero_point: int, is_reference: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(24, 40, 3, padding=1).requires_grad_(False)
    bias: Any = conv.bias
    scale = 0.01 + torch.rand(24, generator=generator)
    x = torch.randint(0, 256, (2, 24, 7, 9), generator=generator, dtype=torch.uint8)
    weight = conv.weight.double() * scale[:, None, None]
    step = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    weight = (weight / step).round() * step
    expected = nn.functional.conv2d(x.double() - zero_point, weight, bias.double(), padding=1)
    layer = Int8Conv(conv, scale, zero_point, reference=is_reference)
    y = layer(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(layer.in_float32(x.float() - zero_point), y, rtol=1e-5, atol=1e-3)


@pytest.mark.usefixtures("is_reference")
@pytest.mark.parametrize("pointwise", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_block_approximates_float32(pointwise: bool, bias: bool) -> None:
    exact = block(64, pointwise=pointwise, bias=bias)
    x = torch.linspace(0.1, 10, 64)[:, None, None] * randn(2, 64, 40, 30)  # channels of very different range
    network: Any = quantise_network(nn.Sequential(exact), x)
    assert isinstance(network[0], Int8Block)
    with torch.inference_mode():
        assert 0 < relative_error(network(x.clone()), exact(x), x) < 1e-3


@pytest.mark.usefixtures("is_reference")
@pytest.mark.parametrize("scale_of_others", [0.01, 0.0])
def test_activations_beyond_the_calibration_are_not_clipped(scale_of_others: float) -> None:
    """Neither in all channels, nor in some that were zero."""
    network, x = nn.Sequential(block(64)), randn(1, 64, 24, 24)
    calibration = scale_of_others * x
    calibration[:, ::2] = 0.01 * x[:, ::2]
    quantised = quantise_network(network, calibration)
    with torch.inference_mode():
        for scale in (0.01, 1.0, 100.0):
            assert relative_error(quantised(scale * x), network(scale * x), scale * x) < 1e-3


def test_block_without_calibration_stays_in_float32() -> None:
    network, x = nn.Sequential(block(64)), randn(1, 64, 8, 8)
    quantised = quantise_network(network, torch.zeros_like(x))
    with torch.inference_mode():
        torch.testing.assert_close(quantised(x.clone()), network(x.clone()))


@pytest.mark.parametrize("pointwise", [False, True])
@pytest.mark.parametrize("row", [1, 30, 33, 63, 64, 95])
@pytest.mark.parametrize("where", ["input", "hidden"])
def test_rows_out_of_range_are_computed_in_float32(
    where: str, row: int, pointwise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One position is out of the range of the input or of the hidden activations: float32 computes its strips only."""
    exact, x = block(64, pointwise=pointwise), randn(1, 64, 97, 24)
    quantised: Any = quantise_network(nn.Sequential(exact), x)
    outlier = x.clone()
    if where == "input":
        outlier[..., row, 20] = 1e4 * torch.sign(x[..., row, 20])
    else:  # what the first filter of the block responds to most, within the range of the input
        pattern = x.abs().amax() * 0.9 * torch.sign(exact.body[0].weight[0])  # type: ignore[index]
        outlier[..., row - 1 : row + 2, 19:22] = pattern
    n_rows: list[int] = []
    in_float32 = Int8Block.in_float32

    def counted(self: Int8Block, x: Tensor) -> Tensor:
        n_rows.append(x.shape[2])
        return in_float32(self, x)

    monkeypatch.setattr(Int8Block, "in_float32", counted)
    with torch.inference_mode():
        q = quantise_activations(outlier, quantised[0].scale)
        assert bool(((q == 0) | (q == 255)).any()) == (where == "input")
        y = quantised(outlier.clone())
        assert 0 < sum(n_rows) < 97  # the strips with that position, and rows around them
        assert relative_error(y, exact(outlier.clone()), outlier) < 1e-2
        expected = in_float32(quantised[0], outlier.clone())
        differs = (y - expected).abs() > 1e-4 * expected.abs().amax()
        assert differs.float().mean() < 1e-3  # ties may be rounded the other way
        far = torch.ones(97, dtype=torch.bool)
        far[max(0, row - STRIP_ROWS - 2) : row + STRIP_ROWS + 3] = False
        torch.testing.assert_close(y[:, :, far], quantised(x.clone())[:, :, far], rtol=0, atol=1e-4)


@pytest.mark.usefixtures("is_reference")
def test_crop_of_the_input_gives_the_crop_of_the_output() -> None:
    network, x = nn.Sequential(block(64), block(64)), randn(1, 64, 40, 40)
    quantised = quantise_network(network, x)
    with torch.inference_mode():
        whole, crop = quantised(x.clone()), quantised(x[..., 8:].clone())
    torch.testing.assert_close(crop[..., 4:], whole[..., 12:], rtol=0, atol=1e-5)


def test_other_blocks_stay_in_float32() -> None:
    network, x = nn.Sequential(block(16, norm=True), block(16, activation="mish")), randn(1, 16, 8, 8)
    assert not any(find_int8_blocks(network))
    with torch.inference_mode():
        torch.testing.assert_close(quantise_network(network, x)(x.clone()), network(x.clone()))
