"""Residual blocks in integers of 8 bits: a third of the time on processors that multiply bytes fast."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.nn.blocks import ResidualBlock, added

MARGIN = 1.25  # room above what an example reached
CHUNK = 1 << 16  # numbers that are rounded at a time: they stay in the cache


@cache
@torch.inference_mode()
def multiplies_bytes() -> bool:
    """Whether this processor adds products of bytes without loss, as those do that are made for it.

    Those without the instructions for it add two products in 16 bits, which are too few, and are hardly faster.
    """
    if not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        return False
    conv = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)
    greatest = torch.full((1, 64, 8, 8), 255, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    return abs(float(Conv8(conv, torch.ones(64), 0)(greatest).amax()) - 64 * 9 * 255) < 1


@torch.inference_mode()
def in_8_bits(network: nn.Module, *example: Tensor | None) -> nn.Module:
    """A network as this one, for inference on a CPU, whose residual blocks of two dimensions and ReLU use 8 bits.

    Weights have a scale for each channel that they make; features have one for each channel, too, that follows from
    an ``example`` of the input and is taken out again by the weights. So a place of a picture is rounded alike
    whatever is around it. Where features are greater than the example's, floats hold what bytes do not, rounded alike.

    Reference:
        Integer Quantization for Deep Learning Inference: Principles and Empirical Evaluation, 2020, arXiv:2004.09602;
        SmoothQuant, 2022, arXiv:2211.10438 (scales of channels by what they hold and what weighs them).
    """
    quick = copy.deepcopy(network).eval()
    tops: dict[str, list[Tensor]] = {}
    hooks = []
    for name, block in _blocks(quick):
        tops[name] = [torch.zeros(()), torch.zeros(())]
        for turn in (0, 1):

            def watch(conv: nn.Module, x: tuple[Tensor], of: list[Tensor] = tops[name], turn: int = turn) -> None:
                of[turn] = torch.maximum(of[turn], x[0].abs().amax(dim=(0, 2, 3)))

            hooks.append(block.body[2 * turn].register_forward_pre_hook(watch))
    quick(*example)
    for hook in hooks:
        hook.remove()
    for name, block in _blocks(quick):
        quick.set_submodule(name, Block8(block, *tops[name]))
    return quick


def _blocks(network: nn.Module) -> Iterator[tuple[str, Any]]:
    kinds = [nn.Conv2d, nn.ReLU, nn.Conv2d]
    for name, module in [*network.named_modules()]:
        if isinstance(module, ResidualBlock) and [type(layer) for layer in module.body] == kinds:
            yield name, module


class Block8(nn.Module):
    """A `ResidualBlock` that multiplies bytes; ``x`` and the sum stay in float32.

    Shape:
        x, returns: (batch, channels, height, width); ``top`` and ``top_within``, (channels,), are the greatest
            magnitudes that its convolutions meet.
    """

    def __init__(self, block: Any, top: Tensor, top_within: Tensor) -> None:
        super().__init__()
        first, _, last = block.body
        steps, steps_within = _steps(top, first) / 127, _steps(top_within, last) / 255
        self.per_step = 1 / steps
        self.first, self.last = Conv8(first, steps, 128, steps_within), Conv8(last, steps_within, 0)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        seen = as_bytes(x, self.per_step)
        if int(seen.amin()) > 0 and int(seen.amax()) < 255:
            within = self.first(seen)
            if int(within.amax()) < 255:
                return added(self.last(within), x)
            numbers = self.first(seen, torch.float32)
        else:
            numbers = torch.addcmul(x.new_tensor(0.5), x, self.per_step[:, None, None]).floor_()
            numbers = self.first.of_floats(numbers)
        return added(self.last.of_floats(numbers.relu_().round_()), x)


def _steps(top: Tensor, conv: nn.Conv2d) -> Tensor:
    """What each channel may hold, all that ``top`` says and in some more. Shape: (channels,), kept."""
    top = top.clamp_min(1e-3 * float(top.max()) + 1e-20)
    steps = (top / conv.weight.abs().amax(dim=(0, 2, 3)).clamp_min(1e-6)).sqrt()
    return MARGIN * steps * (top / steps).max()


class Conv8:
    """A convolution of bytes, each a number of ``steps`` of its channel above ``zero``.

    It gives float32, or, through a ReLU, bytes of the steps ``to``. Shape: as `Conv2d`'s.
    """

    def __init__(self, conv: nn.Conv2d, steps: Tensor, zero: int, to: Tensor | None = None) -> None:
        unit = torch.ones(len(conv.weight)) if to is None else to
        weight = conv.weight.detach() * steps[:, None, None] / unit[:, None, None, None]
        scales = (weight.abs().amax(dim=(1, 2, 3)) / 127).clamp_min(1e-20)
        rounded = (weight / scales[:, None, None, None]).round().to(torch.int8)
        how: Any = [[*conv.stride], [*conv.padding], [*conv.dilation], conv.groups]
        packed = torch.ops.onednn.qconv_prepack(rounded, scales, 1.0, zero, *how)
        bias = None if conv.bias is None else conv.bias.detach() / unit
        self.kind = torch.float32 if to is None else torch.uint8
        self.told = 1.0, zero, packed, scales, torch.zeros(len(scales)).int(), bias, *how, 1.0, 0
        self.in_floats = (rounded * scales[:, None, None, None]).to(memory_format=torch.channels_last), bias, *how

    def __call__(self, x: Tensor, kind: torch.dtype | None = None) -> Tensor:
        kind = kind or self.kind
        act = "relu" if kind == torch.uint8 else "none"
        y: Tensor = torch.ops.onednn.qconv2d_pointwise(x, *self.told, kind, act, [], "")
        return y

    def of_floats(self, x: Tensor) -> Tensor:
        """The same, but for ReLU and rounding, for numbers beyond 8 bits, in float32 and above 0."""
        weight, bias, stride, padding, dilation, groups = self.in_floats
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def as_bytes(x: Tensor, per_step: Tensor) -> Tensor:
    """``x * per_step + 128``, rounded and kept within 0 and 255. Shape: (batch, channels, height, width), kept."""
    out = torch.empty_like(x, dtype=torch.uint8)
    numbers, rounded = (z.permute(0, 2, 3, 1).view(-1, x.shape[1]) for z in (x, out))
    part, offset = x.new_empty(-(-CHUNK // x.shape[1]), x.shape[1]), x.new_tensor(128.5)
    for begin in range(0, len(numbers), len(part)):
        of = numbers[begin : begin + len(part)]
        sums = torch.addcmul(offset, of, per_step, out=part[: len(of)])
        rounded[begin : begin + len(part)].copy_(sums.clamp_(0, 255))
    return out
