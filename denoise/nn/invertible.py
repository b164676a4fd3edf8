"""Invertible layers for images and sounds, (channels, *space), as transforms of zuko.

A layer is a module that returns a transform of `torch.distributions` for a condition; `zuko.lazy` composes and inverts
them. The direction of the call is from signals to noise.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Literal

import torch
from torch import Tensor, distributed, nn
from torch.distributions import Transform, constraints
from torch.nn import functional as F
from zuko.lazy import LazyTransform
from zuko.utils import unpack

from denoise.nn.blocks import CONV, ResidualBlock, zero_init
from denoise.nn.conditioning import FiLM

MIN_STD = 0.05  # of a channel that activation normalisation divides by: one may be constant in the first batch
Shape = tuple[int, ...]
MaskKind = Literal["checkerboard", "channels"]


class FunctionTransform(Transform):
    """A transform by functions.

    Args:
        to_noise: returns the result, and the logarithm of the determinant of the Jacobian of each signal.
        to_signal: its inverse.
        event_dim: axes of a signal.
        noise_dim: axes of the result, if they are others.
    """

    bijective = True

    def __init__(
        self,
        to_noise: Callable[[Tensor], tuple[Tensor, Tensor]],
        to_signal: Callable[[Tensor], Tensor],
        event_dim: int,
        noise_dim: int | None = None,
    ) -> None:
        super().__init__()
        self._to_noise, self._to_signal = to_noise, to_signal
        self.domain = constraints.independent(constraints.real, event_dim)
        self.codomain = constraints.independent(constraints.real, event_dim if noise_dim is None else noise_dim)

    def _call(self, x: Tensor) -> Tensor:
        return self._to_noise(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self._to_signal(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the logarithm of the determinant of the Jacobian at ``x``, (batch,)."""
        return self._to_noise(x)[1]

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the result and the logarithm of the determinant, as transforms of zuko do."""
        return self._to_noise(x)


class InvertibleLayer(LazyTransform):
    """A layer of signals, (batch, channels, *space).

    Args:
        ndim: axes of space, 1 or 2.
    """

    def __init__(self, ndim: int) -> None:
        super().__init__()
        self.ndim = ndim

    @abstractmethod
    def to_noise(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the result, and the logarithm of the determinant of the Jacobian of each signal, (batch,).

        Args:
            x: signals.
            context: condition, (batch, features), or maps, (batch, features, *space).
        """

    @abstractmethod
    def to_signal(self, y: Tensor, context: Tensor | None) -> Tensor:
        """Return the signals of results of `to_noise`."""

    def forward(self, c: Tensor | None = None) -> Transform:
        """Return the transform for a condition."""
        return FunctionTransform(
            partial(self.to_noise, context=c), partial(self.to_signal, context=c), event_dim=1 + self.ndim
        )


class Squeeze(InvertibleLayer):
    """Make channels of the 2 x 2 pixels of each square, or of each pair of samples.

    Reference:
        Density estimation using Real NVP, 2016, arXiv:1605.08803, section 3.6.
    """

    def to_noise(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return squeezed signals, (batch, channels * 2^ndim, *(space / 2))."""
        if self.ndim == 1:
            y = x.unflatten(2, (-1, 2)).movedim(3, 2).flatten(1, 2)
        else:
            y = F.pixel_unshuffle(x, 2)
        return y, x.new_zeros(len(x))

    def to_signal(self, y: Tensor, context: Tensor | None) -> Tensor:
        """Return signals of twice the size."""
        return y.unflatten(1, (-1, 2)).movedim(2, 3).flatten(2) if self.ndim == 1 else F.pixel_shuffle(y, 2)


class ActNorm(InvertibleLayer):
    """Scale and shift of each channel; the first batch of a training sets them to standardise it.

    Args:
        ndim: axes of space.
        channels: channels of the signals.

    Reference:
        Glow, 2018, arXiv:1807.03039, section 3.1.
    """

    is_initialised: Tensor

    def __init__(self, ndim: int, channels: int) -> None:
        super().__init__(ndim)
        self.log_scale = nn.Parameter(torch.zeros(channels, *[1] * ndim))
        self.shift = nn.Parameter(torch.zeros(channels, *[1] * ndim))
        self.register_buffer("is_initialised", torch.tensor(False))

    def to_noise(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return scaled signals."""
        if self.training and not self.is_initialised:
            self._initialise(x.detach())
        n = prod(x.shape[2:])
        return (x + self.shift) * self.log_scale.exp(), (n * self.log_scale.sum()).expand(len(x))

    def to_signal(self, y: Tensor, context: Tensor | None) -> Tensor:
        """Undo scale and shift."""
        return y * (-self.log_scale).exp() - self.shift

    @torch.no_grad()
    def _initialise(self, x: Tensor) -> None:
        axes = [0, *range(2, x.ndim)]
        self.shift.copy_(-x.mean(dim=axes, keepdim=True)[0])
        self.log_scale.copy_(-x.std(dim=axes, correction=0, keepdim=True)[0].clamp_min(MIN_STD).log())
        if distributed.is_available() and distributed.is_initialized():  # only gradients are averaged over processes
            for parameter in (self.shift, self.log_scale):
                distributed.broadcast(parameter.data, src=0)
        self.is_initialised.fill_(True)


class InvertibleConv(InvertibleLayer):
    """Invertible convolution of kernel size 1 by its LU decomposition: a learned mixture of the channels.

    Args:
        ndim: axes of space.
        channels: channels of the signals.

    Reference:
        Glow, 2018, arXiv:1807.03039, section 3.2.
    """

    permutation: Tensor
    signs: Tensor

    def __init__(self, ndim: int, channels: int) -> None:
        super().__init__(ndim)
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        self.register_buffer("permutation", permutation)
        self.register_buffer("signs", upper.diagonal().sign())
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log())

    def to_noise(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return signals whose channels are mixed."""
        n = prod(x.shape[2:])
        with torch.autocast(x.device.type, enabled=False):  # neither inverse nor determinant is exact in bfloat16
            lower, upper = self._factors()
            y = self._mix(self.permutation @ lower @ upper, x)
        return y, (n * self.log_diagonal.sum()).expand(len(x))

    def to_signal(self, y: Tensor, context: Tensor | None) -> Tensor:
        """Undo the mixture."""
        with torch.autocast(y.device.type, enabled=False):
            lower, upper = self._factors()
            inverse = torch.linalg.solve_triangular(lower, self.permutation.T, upper=False, unitriangular=True)
            return self._mix(torch.linalg.solve_triangular(upper, inverse, upper=True), y)

    def _factors(self) -> tuple[Tensor, Tensor]:
        diagonal = (self.signs * self.log_diagonal.exp()).diag()
        return self.lower.tril(-1) + torch.eye(len(diagonal)).to(diagonal), self.upper.triu(1) + diagonal

    def _mix(self, weight: Tensor, x: Tensor) -> Tensor:
        return torch.einsum("ij,bj...->bi...", weight.to(x), x)


class CouplingNet(nn.Module):
    """Residual convolutions that compute the parameters of a coupling; zero at first.

    Args:
        ndim: axes of space.
        channels: channels of the signals.
        outputs: channels of the parameters.
        width: features.
        blocks: residual blocks.
        embedding: length of the embedding of a condition, 0 for none.
        maps: channels of maps of a condition, 0 for none.
    """

    def __init__(
        self, ndim: int, channels: int, outputs: int, width: int, blocks: int, embedding: int, maps: int
    ) -> None:
        super().__init__()
        self.maps = maps
        self.first = CONV[ndim](channels + maps, width, 3, padding=1)
        self.films = nn.ModuleList([FiLM(embedding, width) for _ in range(blocks if embedding else 0)])
        self.blocks = nn.ModuleList(
            [ResidualBlock(ndim, width, dilation=1, bias=True, activation="relu", norm=True) for _ in range(blocks)]
        )
        self.last = zero_init(CONV[ndim](width, outputs, 3, padding=1))

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Return the parameters of signals under a condition: (batch, channels, *space) to (batch, outputs, *space)."""
        if self.maps and context is not None:
            x = torch.cat([x, context], dim=1)
        features = self.first(x)
        for i, block in enumerate(self.blocks):
            if self.films and context is not None:
                features = self.films[i](features, context)
            features = block(features)
        outputs = self.last(features.relu())
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32))  # functions are not evaluated in bfloat16


class Coupling(InvertibleLayer):
    """A function of one variable of some entries, whose parameters a network computes from the others.

    Args:
        ndim: axes of space.
        channels: channels of the signals.
        mask: which entries stay: every second in ``"checkerboard"`` order, or half of the ``"channels"``.
        is_odd: whether those that would stay change instead.
        univariate: returns a transform of one variable for its parameters.
        shapes: their shapes.
        width: features of the network.
        blocks: its residual blocks.
        embedding: length of the embedding of a condition.
        maps: channels of maps of a condition.

    Reference:
        Density estimation using Real NVP, 2016, arXiv:1605.08803, section 3.4.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        mask: MaskKind,
        is_odd: bool,
        univariate: Callable[..., Transform],
        shapes: Sequence[Shape],
        *,
        width: int,
        blocks: int,
        embedding: int = 0,
        maps: int = 0,
    ) -> None:
        super().__init__(ndim)
        self.mask, self.is_odd = mask, is_odd
        self.univariate, self.shapes = univariate, [torch.Size(shape) for shape in shapes]
        self.total = sum(map(prod, shapes))
        self.net = CouplingNet(ndim, channels, channels * self.total, width, blocks, embedding, maps)

    def to_noise(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Transform the entries that are not masked."""
        stays = self._stays(x)
        y, ladj = self._transform(x * stays, context).call_and_ladj(x)  # type: ignore[attr-defined]
        return torch.where(stays, x, y), (ladj * ~stays).flatten(1).sum(dim=1)

    def to_signal(self, y: Tensor, context: Tensor | None) -> Tensor:
        """Transform them back."""
        stays = self._stays(y)
        return torch.where(stays, y, self._transform(y * stays, context).inv(y))

    def _transform(self, masked: Tensor, context: Tensor | None) -> Transform:
        raw = self.net(masked, context).unflatten(1, (masked.shape[1], self.total)).movedim(2, -1)
        return self.univariate(*unpack(raw, self.shapes))

    def _stays(self, x: Tensor) -> Tensor:
        """Return the mask of the entries that stay, (1, channels, *space) or broadcast to it."""
        sizes = x.shape[1:2] if self.mask == "channels" else x.shape[2:]
        if self.mask == "channels":
            half = torch.arange(sizes[0], device=x.device) < sizes[0] // 2
            return (half ^ self.is_odd).view(1, -1, *[1] * self.ndim)
        grids = torch.meshgrid(*(torch.arange(n, device=x.device) for n in sizes), indexing="ij")
        return ((sum(grids[1:], grids[0]) + self.is_odd) % 2 == 0)[None, None]


class Multiscale(LazyTransform):
    """Levels of layers; behind each but the last, half of the channels are noise already. The result is a vector.

    Args:
        levels: transforms of one level each, which may change the shape.
        shapes: shapes of the results of each level, (channels, *space).

    Reference:
        Density estimation using Real NVP, 2016, arXiv:1605.08803, section 3.6.
    """

    def __init__(self, levels: Sequence[LazyTransform], shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.levels, self.shapes = nn.ModuleList(levels), list(shapes)

    def to_noise(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return noise, (batch, entries), and the logarithm of the determinant."""
        noise, ladj = [], x.new_zeros(len(x))
        for i, level in enumerate(self.levels):
            x, level_ladj = level(context).call_and_ladj(x)
            ladj = ladj + level_ladj
            if i + 1 < len(self.levels):
                x, half = x.tensor_split([x.shape[1] // 2], dim=1)
                noise.append(half.flatten(1))
        return torch.cat([*noise, x.flatten(1)], dim=1), ladj

    def to_signal(self, noise: Tensor, context: Tensor | None) -> Tensor:
        """Return the signals of noise, (batch, channels, *space)."""
        halves, x = [], noise
        for channels, *space in self.shapes[:-1]:
            half, x = x.tensor_split([(channels - channels // 2) * prod(space)], dim=1)
            halves.append(half.unflatten(1, (-1, *space)))
        x = x.unflatten(1, self.shapes[-1])
        for i, level in reversed(list(enumerate(self.levels))):
            x = level(context).inv(x if i + 1 == len(self.levels) else torch.cat([x, halves[i]], dim=1))
        return x

    def forward(self, c: Tensor | None = None) -> Transform:
        """Return the transform for a condition."""
        return FunctionTransform(
            partial(self.to_noise, context=c),
            partial(self.to_signal, context=c),
            event_dim=len(self.shapes[0]),
            noise_dim=1,
        )
