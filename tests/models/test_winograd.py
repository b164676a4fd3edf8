"""3x3 convolutions of transformed tiles against those of PyTorch, in double precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.nn import winograd
from denoise.nn.winograd import LEAST, Conv3x3, Winograd


def error(found: Tensor, expected: Tensor, scale: Tensor) -> float:
    return float((found - expected).detach().abs().max() / scale.detach().max())


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 30), st.integers(1, 30)),
    after=st.integers(1, 9),
    chunk=st.sampled_from([1, 3000, 1 << 20]),  # a row of tiles, some rows and all images at a time
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_it_is_the_convolution_and_its_gradients(shape: tuple[int, ...], after: int, chunk: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator).requires_grad_()
    weight = torch.randn(after, shape[1], 3, 3, generator=generator).requires_grad_()
    grad = torch.randn(shape[0], after, *shape[2:], generator=generator)

    def results(x: Tensor, weight: Tensor, grad: Tensor) -> list[Tensor]:
        y = F.conv2d(x, weight, padding=1)
        return [y, *torch.autograd.grad(y, (x, weight), grad)]

    expected = results(x.double(), weight.double(), grad.double())
    scales = results(x.abs(), weight.abs(), grad.abs())  # what sums would be if nothing cancelled
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "CHUNK", chunk)
        y = Winograd.apply(x, weight)
        found = [y, *torch.autograd.grad(y, (x, weight), grad)]
    for a, b, scale in zip(found, expected, scales, strict=True):
        assert error(a, b, scale) < 2e-5


@pytest.mark.parametrize("bias", [False, True])
def test_the_layer_is_one_of_pytorch(bias: bool) -> None:
    ours, theirs = Conv3x3(LEAST, LEAST, bias=bias), nn.Conv2d(LEAST, LEAST, 3, padding=1, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, LEAST, 13, 18).to(memory_format=torch.channels_last)
    assert error(ours(x), theirs(x), theirs(x).abs()) < 2e-5
    assert ours(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="without MKL all convolutions are PyTorch's")
def test_tiles_are_for_float32_and_many_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(winograd, "convolved", lambda x, weight: seen.append(x.shape) or F.conv2d(x, weight, padding=1))
    wide, narrow = Conv3x3(LEAST, LEAST), Conv3x3(LEAST, 8)
    x = torch.randn(1, LEAST, 16, 16)
    narrow(x)
    wide.double()(x.double())
    wide.float()(x[..., :15])
    with torch.autocast("cpu", torch.bfloat16):
        assert wide(x).dtype == torch.bfloat16
    assert not seen
    wide(x)
    assert seen == [x.shape]


def test_what_follows_may_overwrite_its_answer() -> None:
    layer = nn.Sequential(Conv3x3(LEAST, LEAST, bias=False), nn.ReLU(inplace=True))
    for size in ((22, 40), (40, 22), (22, 22), (40, 40)):
        x = torch.randn(1, LEAST, *size, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad is not None
        assert x.grad.any()


def test_as_many_channels_as_networks_have() -> None:
    x, weight = torch.randn(2, 256, 18, 20), torch.randn(128, 256, 3, 3)
    inputs = [z.requires_grad_() for z in (x, weight)]
    grad = torch.randn(2, 128, 18, 20)
    y, expected = Winograd.apply(x, weight), F.conv2d(x.double(), weight.double(), padding=1)
    found = [y, *torch.autograd.grad(y, inputs, grad)]
    right = [expected, *torch.autograd.grad(expected, inputs, grad.double())]
    for a, b in zip(found, right, strict=True):
        assert error(a, b, b.abs()) < 1e-4


def test_a_picture_without_a_batch_and_few_tiles() -> None:
    layer = Conv3x3(LEAST, LEAST)
    x = torch.randn(LEAST, 24, 24)
    assert error(layer(x), layer(x[None])[0], layer(x).abs()) < 2e-5


def test_an_empty_batch_stays_empty() -> None:
    assert Conv3x3(LEAST, LEAST)(torch.zeros(0, LEAST, 8, 8)).shape == (0, LEAST, 8, 8)
