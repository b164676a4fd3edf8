"""Residual blocks in integers of 8 bits: half the time or less on processors with instructions for it (VNNI)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.nn.blocks import ResidualBlock, added

MARGIN = 1.25  # room above the activations of the calibration
QUIET = 1 / 32  # a channel has at least this share of the range of the loudest, whatever it held in the calibration
STRIP = 32  # rows that are done again where one of them is out of the range of 8 bits
CHUNK = 1 << 16  # numbers that are rounded at a time: they stay in the cache


@cache
@torch.inference_mode()
def has_vnni() -> bool:
    """Whether this processor adds products of bytes without loss, as those with VNNI do.

    Others add two products in 16 bits, which overflow, and are hardly faster; builds without oneDNN have no such
    convolution.
    """
    conv = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)
    greatest = torch.full((1, 64, 8, 8), 255, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    try:
        found = Int8Conv(conv, torch.ones(64), 0)(greatest)
    except (RuntimeError, AttributeError):
        return False
    return abs(float(found.amax()) - 64 * 9 * 255) < 1


def int8_blocks(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """The blocks that `quantized` replaces: convolution, ReLU, convolution, in two dimensions."""
    kinds = nn.Conv2d, nn.ReLU, nn.Conv2d
    for name, module in [*network.named_modules()]:
        body = module.body if name and isinstance(module, ResidualBlock) else ()
        if len(body) == len(kinds) and all(map(isinstance, body, kinds)):
            yield name, module


@torch.inference_mode()
def quantized(network: nn.Module, *calibration: Tensor | None) -> nn.Module:
    """A network as this one, for inference on a CPU, whose `int8_blocks` multiply integers of 8 bits.

    Weights have a scale for each channel that they make; activations have one for each channel, too, that follows from
    ``calibration``, an example of the input, and is taken out again by the weights. So a place of a picture is rounded
    alike whatever is around it. Where activations are out of the range of 8 bits, float32 holds the same integers.

    Reference:
        Integer Quantization for Deep Learning Inference: Principles and Empirical Evaluation, 2020, arXiv:2004.09602;
        SmoothQuant, 2022, arXiv:2211.10438 (scales of channels by what they hold and what weighs them).
    """
    network = copy.deepcopy(network).eval()
    ranges: dict[str, list[Tensor]] = {}
    hooks = []
    for name, block in int8_blocks(network):
        ranges[name] = [torch.zeros(()), torch.zeros(())]
        for i in (0, 1):

            def watch(conv: nn.Module, x: tuple[Tensor], of: list[Tensor] = ranges[name], i: int = i) -> None:
                of[i] = torch.maximum(of[i], x[0].abs().amax(dim=(0, 2, 3)))

            hooks.append(block.body[2 * i].register_forward_pre_hook(watch))
    network(*calibration)
    for hook in hooks:
        hook.remove()
    for name, block in int8_blocks(network):
        if all(top.any() for top in ranges[name]):
            network.set_submodule(name, Int8Block(block, *ranges[name]))
    return network


class Int8Block(nn.Module):
    """A `ResidualBlock` whose convolutions take 8 bits; ``x`` and the sum stay in float32.

    Shape:
        x, returns: (batch, channels, height, width); ``top`` and ``hidden_top``, (channels,), are the greatest
            magnitudes that its two convolutions met in the calibration.
    """

    def __init__(self, block: Any, top: Tensor, hidden_top: Tensor) -> None:
        super().__init__()
        first, _, last = block.body
        self.scale, hidden_scale = scale_of(top, first) / 127, scale_of(hidden_top, last) / 255
        self.first, self.last = Int8Conv(first, self.scale, 128, hidden_scale), Int8Conv(last, hidden_scale, 0)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        q = quantize(x, self.scale)
        hidden = self.first(q)
        out = added(self.last(hidden), x)
        rows = (0, 1, 3)
        lost = (q.amin(dim=rows) == 0) | (q.amax(dim=rows) == 255) | (hidden.amax(dim=rows) == 255)
        del q, hidden
        reach = self.first.reach + self.last.reach
        for start in range(0, len(lost), STRIP):
            low, high = max(0, start - reach), start + STRIP + reach
            if lost[low:high].any():
                out[:, :, start : start + STRIP] = self.in_float32(x[:, :, low:high])[:, :, start - low :][:, :, :STRIP]
        return out

    def in_float32(self, x: Tensor) -> Tensor:
        """The same, also where the integers leave the range of 8 bits; rows at the border of a strip are wrong."""
        q = torch.addcmul(x.new_tensor(0.5), x, 1 / self.scale[:, None, None]).floor_()
        return added(self.last.in_float32(self.first.in_float32(q).relu_().round_()), x)


def scale_of(top: Tensor, conv: nn.Conv2d) -> Tensor:
    """The range of each channel before ``conv``: at least ``top`` and some more. Shape: (channels,), kept."""
    top = top.clamp_min(QUIET * float(top.max()))
    smooth = (top / conv.weight.abs().amax(dim=(0, 2, 3)).clamp_min(1e-6)).sqrt()
    return MARGIN * smooth * (top / smooth).max()


class Int8Conv:
    """A convolution of unsigned 8-bit activations of a ``scale`` for each channel and a zero point.

    It gives float32, or, through a ReLU, unsigned 8 bits of the scale ``hidden_scale``. Shape: as `Conv2d`'s.
    """

    def __init__(self, conv: nn.Conv2d, scale: Tensor, zero_point: int, hidden_scale: Tensor | None = None) -> None:
        unit = torch.ones(len(conv.weight)) if hidden_scale is None else hidden_scale
        weight = conv.weight.detach() * scale[:, None, None] / unit[:, None, None, None]
        scales = weight.abs().amax(dim=(1, 2, 3)) / 127
        scales = torch.where(scales > 0, scales, 1.0)
        q = (weight / scales[:, None, None, None]).round().to(torch.int8)
        how: Any = [[*conv.stride], [*conv.padding], [*conv.dilation], conv.groups]
        packed = torch.ops.onednn.qconv_prepack(q, scales, 1.0, zero_point, *how)
        bias = None if conv.bias is None else conv.bias.detach() / unit
        self.dtype = torch.float32 if hidden_scale is None else torch.uint8
        self.reach = conv.dilation[0] * (conv.kernel_size[0] // 2)
        self.arguments = 1.0, zero_point, packed, scales, torch.zeros(len(scales)).int(), bias, *how, 1.0, 0
        self.float32 = (q * scales[:, None, None, None]).to(memory_format=torch.channels_last), bias, *how

    def __call__(self, x: Tensor) -> Tensor:
        act = "relu" if self.dtype == torch.uint8 else "none"
        y: Tensor = torch.ops.onednn.qconv2d_pointwise(x, *self.arguments, self.dtype, act, [], "")
        return y

    def in_float32(self, x: Tensor) -> Tensor:
        """The same without the ReLU, of integers of any size from the zero point, as float32 holds them."""
        weight, bias, stride, padding, dilation, groups = self.float32
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def quantize(x: Tensor, scale: Tensor) -> Tensor:
    """``x / scale + 128``, rounded and kept within 0 and 255. Shape: (batch, channels, height, width), kept."""
    out = torch.empty_like(x, dtype=torch.uint8)
    numbers, rounded = (z.permute(0, 2, 3, 1).view(-1, x.shape[1]) for z in (x, out))
    part, offset = x.new_empty(-(-CHUNK // x.shape[1]), x.shape[1]), x.new_tensor(128.5)
    for begin in range(0, len(numbers), len(part)):
        of = numbers[begin : begin + len(part)]
        sums = torch.addcmul(offset, of, 1 / scale, out=part[: len(of)])
        rounded[begin : begin + len(part)].copy_(sums.clamp_(0, 255))
    return out
