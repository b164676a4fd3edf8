"""Networks that are told a noise level and a condition: a U-Net for signals and pictures, an MLP for latents."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.blocks import CONV, into_patches, out_of_patches, zero_init
from denoise.nn.embeddings import Fourier


@config
class BackboneConfig:
    """``mlp`` has ``blocks`` of ``widths[0]`` units; ``unet`` halves space between the entries of ``widths``.

    It begins with squares (or pieces) of ``patch`` a side as one position. ``blocks`` is per resolution.
    ``attention`` looks across the coarsest. ``embedding`` is the length of the vector that tells level and condition.
    """

    kind: Literal["mlp", "unet"] = "unet"
    widths: tuple[int, ...] = (32, 64, 96)
    blocks: int = 2
    patch: int = 1
    attention: bool = True
    embedding: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 8 or max(self.widths) > 4096 or any(w % 8 for w in self.widths):
            raise ConfigError(f"widths are {self.widths}; expected multiples of 8 up to 4096.")
        if not 1 <= self.patch <= 64:
            raise ConfigError(f"patch is {self.patch}; expected 1 to 64.")
        if not 1 <= self.blocks <= 100 or not 8 <= self.embedding <= 4096 or self.embedding % 2:
            raise ConfigError("blocks must be 1 to 100, embedding even and 8 to 4096.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; expected 0 to below 1.")


def backbone(c: BackboneConfig, event_shape: tuple[int, ...]) -> nn.Module:
    """The network for events of a shape: (features,), (channels, time) or (channels, height, width)."""
    if c.kind == "mlp":
        return MLP(c, math.prod(event_shape))
    if len(event_shape) not in (2, 3):
        raise ConfigError(f"a unet needs (channels, *space); the shape is {event_shape}. Take an mlp.")
    return UNet(c, event_shape[0], len(event_shape) - 1)


class Told(nn.Module):
    """Scales and shifts features by what a vector says; at first not at all.

    Shape:
        x: (batch, channels, *space); told: (batch, embedding).
    Reference:
        FiLM: Visual Reasoning with a General Conditioning Layer, 2017, arXiv:1709.07871.
    """

    def __init__(self, embedding: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embedding, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.linear(F.silu(told)).reshape(len(x), -1, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        return x * (1 + scale) + shift


class MLP(nn.Module):
    """Residual blocks over a flat vector.

    Shape:
        x: (batch, *event); level: (batch,); condition: (batch, embedding); returns as x.
    """

    def __init__(self, c: BackboneConfig, features: int) -> None:
        super().__init__()
        width = c.widths[0]
        self.level = nn.Sequential(Fourier(c.embedding), nn.Linear(c.embedding, c.embedding))
        self.into = nn.Linear(features, width)
        self.blocks = nn.ModuleList()
        for _ in range(c.blocks):
            block = nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width, elementwise_affine=False),
                    "told": Told(c.embedding, width),
                    "body": nn.Sequential(
                        nn.Linear(width, 2 * width), nn.SiLU(), nn.Dropout(c.dropout), nn.Linear(2 * width, width)
                    ),
                }
            )
            self.blocks.append(block)
        self.out = zero_init(nn.Linear(width, features))

    def forward(self, x: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        told = self.level(level) + condition
        features = self.into(x.flatten(1))
        for block in self.blocks:
            features = features + block["body"](block["told"](block["norm"](features), told))  # type: ignore[index]
        return self.out(F.silu(features)).reshape(x.shape)


class Block(nn.Module):
    """A residual block that is told level and condition. Shape: (batch, channels, *space), kept."""

    def __init__(self, ndim: int, before: int, after: int, c: BackboneConfig) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, before), nn.SiLU(), CONV[ndim](before, after, 3, padding=1))
        self.norm = nn.GroupNorm(8, after, affine=False)
        self.told = Told(c.embedding, after)
        self.last = nn.Sequential(nn.SiLU(), nn.Dropout(c.dropout), zero_init(CONV[ndim](after, after, 3, padding=1)))
        self.shortcut = CONV[ndim](before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        return self.shortcut(x) + self.last(self.told(self.norm(self.first(x)), told))


class Attention(nn.Module):
    """Each place looks at all others. Shape: (batch, channels, *space), kept.

    Reference:
        Attention Is All You Need, 2017, arXiv:1706.03762.
    """

    def __init__(self, channels: int, head: int = 32) -> None:
        super().__init__()
        self.heads = max(1, channels // head)
        self.norm = nn.GroupNorm(8, channels)
        self.asked = nn.Linear(channels, 3 * channels)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        places = self.norm(x).flatten(2).transpose(1, 2)  # (batch, places, channels)
        q, k, v = self.asked(places).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(seen).transpose(1, 2).reshape(x.shape)


class UNet(nn.Module):
    """Residual blocks at several resolutions, each told level and condition. Sizes are padded up and cut back.

    Shape:
        x: (batch, channels, *space); level: (batch,); condition: (batch, embedding); returns as x.
    Reference:
        U-Net, 2015, arXiv:1505.04597; Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239.
    """

    def __init__(self, c: BackboneConfig, channels: int, ndim: int) -> None:
        super().__init__()
        self.multiple = c.patch << (len(c.widths) - 1)
        self.level = nn.Sequential(
            Fourier(c.embedding), nn.Linear(c.embedding, c.embedding), nn.SiLU(), nn.Linear(c.embedding, c.embedding)
        )
        self.into = into_patches(ndim, channels, c.widths[0], c.patch)
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        for i, width in enumerate(c.widths):
            before = c.widths[max(0, i - 1)]
            self.shrink.append(CONV[ndim](before, width, 3, stride=2, padding=1) if i else nn.Identity())
            self.down.append(nn.ModuleList(Block(ndim, width, width, c) for _ in range(c.blocks)))
        self.middle = nn.ModuleList([Block(ndim, c.widths[-1], c.widths[-1], c)])
        self.attention = Attention(c.widths[-1]) if c.attention else nn.Identity()
        for i, width in reversed([*enumerate(c.widths)]):
            self.up.append(nn.ModuleList(Block(ndim, 2 * width, width, c) for _ in range(c.blocks)))
            self.grow.append(CONV[ndim](width, c.widths[i - 1], 3, padding=1) if i else nn.Identity())
        self.out = nn.Sequential(
            nn.GroupNorm(8, c.widths[0]), nn.SiLU(), zero_init(out_of_patches(ndim, c.widths[0], channels, c.patch))
        )

    def forward(self, x: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        told, size = self.level(level) + condition, x.shape[2:]
        padding = [n for side in reversed(size) for n in (0, -side % self.multiple)]
        features, skips = self.into(F.pad(x, padding)), []
        for shrink, blocks in zip(self.shrink, self.down, strict=True):
            features = shrink(features)
            for block in blocks:  # type: ignore[attr-defined]
                features = block(features, told)
                skips.append(features)
        for block in self.middle:
            features = self.attention(block(features, told))
        for blocks, grow in zip(self.up, self.grow, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                features = block(torch.cat([features, skips.pop()], dim=1), told)
            if not isinstance(grow, nn.Identity):
                features = grow(F.interpolate(features, scale_factor=2.0))
        features = self.out(features)
        for dim, n in enumerate(size, start=2):
            features = features.narrow(dim, 0, n)
        return features
