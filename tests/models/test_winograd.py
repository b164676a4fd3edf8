"""Winograd convolutions against those of PyTorch in double precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.nn import winograd
from denoise.nn.winograd import MIN_CHANNELS, Conv3x3, Winograd


def relative_error(y: Tensor, expected: Tensor, scale: Tensor) -> float:
    return float((y - expected).detach().abs().max() / scale.detach().max())


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 30), st.integers(1, 30)),
    out_channels=st.integers(1, 9),
    chunk=st.sampled_from([1, 3000, 1 << 20]),  # one row of tiles, some rows and all images at a time
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_convolution_and_gradients(shape: tuple[int, ...], out_channels: int, chunk: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator).requires_grad_()
    weight = torch.randn(out_channels, shape[1], 3, 3, generator=generator).requires_grad_()
    grad = torch.randn(shape[0], out_channels, *shape[2:], generator=generator)

    def results(x: Tensor, weight: Tensor, grad: Tensor) -> list[Tensor]:
        y = F.conv2d(x, weight, padding=1)
        return [y, *torch.autograd.grad(y, (x, weight), grad)]

    expected = results(x.double(), weight.double(), grad.double())
    scales = results(x.abs(), weight.abs(), grad.abs())  # what the sums would be without cancellation
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "CHUNK", chunk)
        y = Winograd.apply(x, weight)
        computed = [y, *torch.autograd.grad(y, (x, weight), grad)]
    for a, b, scale in zip(computed, expected, scales, strict=True):
        assert relative_error(a, b, scale) < 2e-5


@pytest.mark.parametrize("bias", [False, True])
def test_layer_equals_conv2d(bias: bool) -> None:
    layer, reference = (
        Conv3x3(MIN_CHANNELS, MIN_CHANNELS, bias=bias),
        nn.Conv2d(MIN_CHANNELS, MIN_CHANNELS, 3, padding=1, bias=bias),
    )
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(2, MIN_CHANNELS, 13, 18).to(memory_format=torch.channels_last)
    assert relative_error(layer(x), reference(x), reference(x).abs()) < 2e-5
    assert layer(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="needs MKL")
def test_winograd_is_used_for_float32_and_many_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    monkeypatch.setattr(
        winograd, "convolve", lambda x, weight: shapes.append(x.shape) or F.conv2d(x, weight, padding=1)
    )
    wide, narrow = Conv3x3(MIN_CHANNELS, MIN_CHANNELS), Conv3x3(MIN_CHANNELS, 8)
    x = torch.randn(1, MIN_CHANNELS, 16, 16)
    narrow(x)
    wide.double()(x.double())
    wide.float()(x[..., :15])
    with torch.autocast("cpu", torch.bfloat16):
        assert wide(x).dtype == torch.bfloat16
    assert not shapes
    wide(x)
    assert shapes == [x.shape]


def test_next_layer_may_overwrite_the_output() -> None:
    layer = nn.Sequential(Conv3x3(MIN_CHANNELS, MIN_CHANNELS, bias=False), nn.ReLU(inplace=True))
    for size in ((22, 40), (40, 22), (22, 22), (40, 40)):
        x = torch.randn(1, MIN_CHANNELS, *size, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad is not None
        assert x.grad.any()


def test_many_channels() -> None:
    x, weight = torch.randn(2, 256, 18, 20), torch.randn(128, 256, 3, 3)
    inputs = [z.requires_grad_() for z in (x, weight)]
    grad = torch.randn(2, 128, 18, 20)
    y, expected = Winograd.apply(x, weight), F.conv2d(x.double(), weight.double(), padding=1)
    computed = [y, *torch.autograd.grad(y, inputs, grad)]
    gradients = [expected, *torch.autograd.grad(expected, inputs, grad.double())]
    for a, b in zip(computed, gradients, strict=True):
        assert relative_error(a, b, b.abs()) < 1e-4


def test_image_without_batch_axis_and_few_tiles() -> None:
    layer = Conv3x3(MIN_CHANNELS, MIN_CHANNELS)
    x = torch.randn(MIN_CHANNELS, 24, 24)
    assert relative_error(layer(x), layer(x[None])[0], layer(x).abs()) < 2e-5


def test_empty_batch() -> None:
    assert Conv3x3(MIN_CHANNELS, MIN_CHANNELS)(torch.zeros(0, MIN_CHANNELS, 8, 8)).shape == (0, MIN_CHANNELS, 8, 8)
