"""Residual blocks in 8-bit integers, more than twice as fast as float32 on processors with VNNI instructions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.nn.blocks import ResidualBlock, add

HEADROOM = 1.25  # range of 8 bits above the activations of the calibration
MIN_CHANNEL_RANGE = 1 / 32  # range of a channel relative to the widest, whatever its activations in the calibration
STRIP_ROWS = 32  # rows that are recomputed where one of them is out of the range of 8 bits
CHUNK = 1 << 16  # activations that are rounded at a time: they stay in the cache


@cache
@torch.inference_mode()
def has_exact_int8() -> bool:
    """Return whether this processor sums products of bytes exactly, as those with VNNI do.

    Others add two products in 16 bits, which overflow, and are hardly faster. Builds without oneDNN have no such
    convolution. There `Int8Conv` computes the same integers in float32, slowly.
    """
    conv = nn.utils.skip_init(nn.Conv2d, 64, 64, 3, padding=1, bias=False)  # leaves the random state alone
    nn.init.ones_(conv.weight)
    largest = torch.full((1, 64, 8, 8), 255, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    try:
        sums = Int8Conv(conv, torch.ones(64, dtype=torch.float32), 0, reference=False)(largest)
    except (RuntimeError, AttributeError):
        return False
    return abs(float(sums.amax()) - 64 * 9 * 255) < 1


def find_int8_blocks(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """Iterate over the blocks that `quantise_network` replaces: convolution, ReLU, convolution, in two dimensions.

    Args:
        network: any module.

    Yields:
        Name and block.
    """
    layers = nn.Conv2d, nn.ReLU, nn.Conv2d
    for name, module in [*network.named_modules()]:
        body = module.body if name and isinstance(module, ResidualBlock) else ()
        if len(body) == len(layers) and all(map(isinstance, body, layers)):
            yield name, module


@torch.inference_mode()
def quantise_network(network: nn.Module, *calibration: Tensor | None) -> nn.Module:
    """Return a copy of a network, for inference on a CPU, whose residual blocks multiply 8-bit integers.

    Weights have a scale per output channel. Activations have a scale per channel, too, that follows from the
    calibration and is divided out by the weights, so the rounding at a position does not depend on its surroundings.
    Where activations leave the range of 8 bits, float32 holds the same integers.

    Args:
        network: network with blocks that `find_int8_blocks` finds.
        calibration: its inputs, of typical range.

    Returns:
        The copy. Blocks without any activation in the calibration stay in float32.

    Reference:
        Integer Quantization for Deep Learning Inference: Principles and Empirical Evaluation, 2020, arXiv:2004.09602;
        SmoothQuant, 2022, arXiv:2211.10438 (scales per channel from activations and weights).
    """
    network = copy.deepcopy(network).eval()
    ranges: dict[str, list[Tensor]] = {}
    hooks = []
    for name, block in find_int8_blocks(network):
        ranges[name] = [torch.zeros((), dtype=torch.float32) for _ in range(2)]
        for i in (0, 1):

            def update_range(
                conv: nn.Module, inputs: tuple[Tensor], block_ranges: list[Tensor] = ranges[name], i: int = i
            ) -> None:
                block_ranges[i] = torch.maximum(block_ranges[i], inputs[0].abs().amax(dim=(0, 2, 3)))

            hooks.append(block.body[2 * i].register_forward_pre_hook(update_range))
    network(*calibration)
    for hook in hooks:
        hook.remove()
    for name, block in find_int8_blocks(network):
        if all(magnitudes.any() for magnitudes in ranges[name]):
            network.set_submodule(name, Int8Block(block, *ranges[name]))
    return network


class Int8Block(nn.Module):
    """A `ResidualBlock` whose convolutions take 8-bit integers; the input and the sum stay in float32.

    Args:
        block: block that `find_int8_blocks` finds.
        magnitude: largest magnitude of each channel before the first convolution in the calibration, (channels,).
        hidden_magnitude: the same before the last convolution.
    """

    def __init__(self, block: Any, magnitude: Tensor, hidden_magnitude: Tensor) -> None:
        super().__init__()
        first, _, last = block.body
        self.scale = channel_ranges(magnitude, first) / 127
        hidden_scale = channel_ranges(hidden_magnitude, last) / 255
        reference = not has_exact_int8()
        self.first = Int8Conv(first, self.scale, 128, hidden_scale, reference=reference)
        self.last = Int8Conv(last, hidden_scale, 0, reference=reference)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, (batch, channels, height, width), plus the quantised residual branch."""
        x = x.contiguous(memory_format=torch.channels_last)
        q = quantise_activations(x, self.scale)
        hidden = self.first(q)
        out = add(self.last(hidden), x)
        rows = (0, 1, 3)
        is_saturated = (q.amin(dim=rows) == 0) | (q.amax(dim=rows) == 255) | (hidden.amax(dim=rows) == 255)
        del q, hidden
        reach = self.first.reach + self.last.reach
        for start in range(0, len(is_saturated), STRIP_ROWS):
            low, high = max(0, start - reach), start + STRIP_ROWS + reach
            if is_saturated[low:high].any():
                exact = self.in_float32(x[:, :, low:high])[:, :, start - low :]
                out[:, :, start : start + STRIP_ROWS] = exact[:, :, :STRIP_ROWS]
        return out

    def in_float32(self, x: Tensor) -> Tensor:
        """Compute the same with integers of any size in float32; rows at the border of a strip are wrong."""
        q = torch.addcmul(x.new_tensor(0.5), x, 1 / self.scale[:, None, None]).floor_()
        return add(self.last.in_float32(self.first.in_float32(q).relu_().round_()), x)


def channel_ranges(magnitude: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return the range of each channel before a convolution: its magnitude in the calibration or more.

    Args:
        magnitude: largest magnitude of each channel in the calibration, (channels,).
        conv: its weights divide the scales of the channels out again, and are rounded best if these differ little.

    Returns:
        Largest magnitude that 8 bits represent, (channels,).
    """
    magnitude = magnitude.clamp_min(MIN_CHANNEL_RANGE * float(magnitude.max()))
    balanced = (magnitude / conv.weight.abs().amax(dim=(0, 2, 3)).clamp_min(1e-6)).sqrt()
    return HEADROOM * balanced * (magnitude / balanced).max()


class Int8Conv:
    """A convolution of unsigned 8-bit activations, (batch, channels, height, width), with 8-bit weights.

    It returns float32, or, after a ReLU, unsigned 8-bit integers.

    Args:
        conv: float32 convolution.
        scale: value of one step of each input channel, (channels,).
        zero_point: integer that stands for 0.
        hidden_scale: value of one step of each output channel; None returns float32.
        reference: whether integers are multiplied in float32, which every machine can do.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        scale: Tensor,
        zero_point: int,
        hidden_scale: Tensor | None = None,
        *,
        reference: bool,
    ) -> None:
        unit = torch.ones(len(conv.weight), dtype=torch.float32) if hidden_scale is None else hidden_scale
        weight = conv.weight.detach() * scale[:, None, None] / unit[:, None, None, None]
        scales = weight.abs().amax(dim=(1, 2, 3)) / 127
        scales = torch.where(scales > 0, scales, 1.0)
        q = (weight / scales[:, None, None, None]).round().to(torch.int8)
        geometry: Any = [[*conv.stride], [*conv.padding], [*conv.dilation], conv.groups]
        bias = None if conv.bias is None else conv.bias.detach() / unit
        self.zero_point, self.is_hidden, self.reference = zero_point, hidden_scale is not None, reference
        self.reach = conv.dilation[0] * (conv.kernel_size[0] // 2)
        self.float32 = (q * scales[:, None, None, None]).to(memory_format=torch.channels_last), bias, *geometry
        if not reference:
            packed = torch.ops.onednn.qconv_prepack(q, scales, 1.0, zero_point, *geometry)
            zero_points = torch.zeros(len(scales)).int()
            self.arguments = 1.0, zero_point, packed, scales, zero_points, bias, *geometry, 1.0, 0

    def __call__(self, x: Tensor) -> Tensor:
        """Return the convolution of unsigned 8-bit integers, (batch, channels, height, width)."""
        if self.reference:
            y = self.in_float32(x.float() - self.zero_point)
            return y.relu_().round_().clamp_max_(255).to(torch.uint8) if self.is_hidden else y
        dtype, activation = (torch.uint8, "relu") if self.is_hidden else (torch.float32, "none")
        y = torch.ops.onednn.qconv2d_pointwise(x, *self.arguments, dtype, activation, [], "")
        return y

    def in_float32(self, x: Tensor) -> Tensor:
        """Compute the same without the ReLU, with integers of any size from the zero point, held by float32."""
        weight, bias, stride, padding, dilation, groups = self.float32
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def quantise_activations(x: Tensor, scale: Tensor) -> Tensor:
    """Return ``x / scale + 128``, rounded and clipped to 0 and 255.

    Args:
        x: activations, (batch, channels, height, width), channels last in memory.
        scale: value of one step of each channel, (channels,).

    Returns:
        Unsigned 8-bit integers of the same shape.
    """
    out = torch.empty_like(x, dtype=torch.uint8)
    rows, rounded = (z.permute(0, 2, 3, 1).view(-1, x.shape[1]) for z in (x, out))
    buffer, offset = x.new_empty(-(-CHUNK // x.shape[1]), x.shape[1]), x.new_tensor(128.5)
    for start in range(0, len(rows), len(buffer)):
        chunk = rows[start : start + len(buffer)]
        scaled = torch.addcmul(offset, chunk, 1 / scale, out=buffer[: len(chunk)])
        rounded[start : start + len(buffer)].copy_(scaled.clamp_(0, 255))
    return out
