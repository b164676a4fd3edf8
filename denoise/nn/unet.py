"""Backbones conditioned on a noise level and a label: a U-Net for audio and images, an MLP, one for sets of points."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.blocks import CONV, patch_conv, unpatch_conv, zero_init
from denoise.nn.conditioning import FiLM
from denoise.nn.embeddings import SinusoidalEmbedding
from denoise.nn.sets import SetTransformer


@config
class BackboneConfig:
    """Configuration of a backbone.

    Args:
        kind: ``"mlp"`` for residual blocks over a flat vector, ``"unet"`` for convolutions, ``"set"`` for points.
        widths: channels at resolutions that are halved each time; the others have ``widths[0]`` units, sets no more.
        blocks: residual blocks at each resolution, or of the MLP or the network of sets.
        patch: side of the squares (or length of the pieces) that are one position of the first resolution.
        attention: whether there is self-attention at the last resolution.
        embedding: length of the embedding of noise level and label, even.
        dropout: probability of dropout in the residual blocks.
        inducing: learned queries in each block of the network of sets.
    """

    kind: Literal["mlp", "unet", "set"] = "unet"
    widths: tuple[int, ...] = (32, 64, 96)
    blocks: int = 2
    patch: int = 1
    attention: bool = True
    embedding: int = 128
    dropout: float = 0.0
    inducing: int = 32

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 8 or max(self.widths) > 4096 or any(w % 8 for w in self.widths):
            raise ConfigError(f"widths are {self.widths}; expected multiples of 8 up to 4096.")
        if not 1 <= self.patch <= 64:
            raise ConfigError(f"patch is {self.patch}; expected 1 to 64.")
        if not 1 <= self.blocks <= 100 or not 8 <= self.embedding <= 4096 or self.embedding % 2:
            raise ConfigError(
                f"blocks is {self.blocks}, embedding {self.embedding}; expected blocks of 1 to 100, an even embedding "
                "of 8 to 4096."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; expected 0 to below 1.")
        if not 1 <= self.inducing <= 4096:
            raise ConfigError(f"inducing is {self.inducing}; expected 1 to 4096.")
        if self.kind == "set" and (len(self.widths) > 1 or self.patch > 1 or self.dropout):
            raise ConfigError(
                f"widths are {self.widths}, patch is {self.patch}, dropout {self.dropout}; a set has one width, no "
                "patches and no dropout. Leave them out."
            )


def build_backbone(config: BackboneConfig, event_shape: tuple[int, ...]) -> nn.Module:
    """Build the backbone for signals of one shape.

    Args:
        config: layers of the backbone.
        event_shape: (features,), (channels, time), (channels, height, width), or (channels, points) of sets.

    Returns:
        An `MLP`, a `UNet` or a `SetTransformer`.

    Raises:
        ConfigError: the shape does not fit the configuration.
    """
    if config.kind == "mlp":
        return MLP(config, math.prod(event_shape))
    if config.kind == "set":
        if len(event_shape) != 2:
            raise ConfigError(f"shape is {event_shape}; a set expects (channels, points).")
        return SetTransformer(config.widths[0], config.blocks, config.inducing, config.embedding, event_shape[0])
    if len(event_shape) not in (2, 3):
        raise ConfigError(f"shape is {event_shape}; a unet expects (channels, *space). Use kind mlp.")
    return UNet(config, event_shape[0], len(event_shape) - 1)


class MLP(nn.Module):
    """Residual blocks over a flat vector.

    Args:
        config: layers of the network.
        features: length of the vector.
    """

    def __init__(self, config: BackboneConfig, features: int) -> None:
        super().__init__()
        width, embedding = config.widths[0], config.embedding
        self.noise_embedding = nn.Sequential(SinusoidalEmbedding(embedding), nn.Linear(embedding, embedding))
        self.stem = nn.Linear(features, width)
        self.blocks = nn.ModuleList()
        for _ in range(config.blocks):
            block = nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width, elementwise_affine=False),
                    "film": FiLM(embedding, width),
                    "body": nn.Sequential(
                        nn.Linear(width, 2 * width), nn.SiLU(), nn.Dropout(config.dropout), nn.Linear(2 * width, width)
                    ),
                }
            )
            self.blocks.append(block)
        self.out = zero_init(nn.Linear(width, features))

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor) -> Tensor:
        """Apply the network.

        Args:
            x: signals, (batch, *event).
            noise_level: c_noise of EDM, or time of a flow, (batch,).
            condition: embedding of the label, (batch, embedding).

        Returns:
            Output of the shape of ``x``.
        """
        embedding = self.noise_embedding(noise_level) + condition
        features = self.stem(x.flatten(1))
        for block in self.blocks:
            modulated = block["film"](block["norm"](features), embedding)  # type: ignore[index]
            features = features + block["body"](modulated)  # type: ignore[index]
        return self.out(F.silu(features)).reshape(x.shape)


class Block(nn.Module):
    """Residual block with FiLM.

    Args:
        ndim: dimensions of space.
        in_channels: channels of the input.
        out_channels: channels of the output.
        config: length of the embedding, and dropout.
    """

    def __init__(self, ndim: int, in_channels: int, out_channels: int, config: BackboneConfig) -> None:
        super().__init__()
        conv = CONV[ndim]
        self.first = nn.Sequential(
            nn.GroupNorm(8, in_channels), nn.SiLU(), conv(in_channels, out_channels, 3, padding=1)
        )
        self.norm = nn.GroupNorm(8, out_channels, affine=False)
        self.film = FiLM(config.embedding, out_channels)
        self.last = nn.Sequential(
            nn.SiLU(), nn.Dropout(config.dropout), zero_init(conv(out_channels, out_channels, 3, padding=1))
        )
        self.shortcut = conv(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (batch, in_channels, *space) to (batch, out_channels, *space), given (batch, embedding)."""
        return self.shortcut(x) + self.last(self.film(self.norm(self.first(x)), embedding))


class Attention(nn.Module):
    """Multi-head self-attention over all positions, with a residual connection.

    Args:
        channels: channels of input and output.
        head_channels: channels of each head.

    Reference:
        Attention Is All You Need, 2017, arXiv:1706.03762.
    """

    def __init__(self, channels: int, head_channels: int = 32) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map features (batch, channels, *space) to the same shape."""
        positions = self.norm(x).flatten(2).transpose(1, 2)  # (batch, positions, channels)
        q, k, v = self.qkv(positions).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(attended).transpose(1, 2).reshape(x.shape)


class UNet(nn.Module):
    """Residual blocks at several resolutions with skip connections, conditioned on noise level and label.

    Sizes that are no multiple of the total stride are padded with zeros, and the output is cropped.

    Args:
        config: layers of the network.
        channels: channels of the signals.
        ndim: dimensions of space.

    Reference:
        U-Net, 2015, arXiv:1505.04597; Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239.
    """

    def __init__(self, config: BackboneConfig, channels: int, ndim: int) -> None:
        super().__init__()
        widths, embedding = config.widths, config.embedding
        self.size_multiple = config.patch << (len(widths) - 1)
        self.noise_embedding = nn.Sequential(
            SinusoidalEmbedding(embedding), nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.stem = patch_conv(ndim, channels, widths[0], config.patch)
        self.down, self.downsample, self.up, self.upsample = (nn.ModuleList() for _ in range(4))
        for i, width in enumerate(widths):
            previous = widths[max(0, i - 1)]
            self.downsample.append(CONV[ndim](previous, width, 3, stride=2, padding=1) if i else nn.Identity())
            self.down.append(nn.ModuleList(Block(ndim, width, width, config) for _ in range(config.blocks)))
        self.middle = nn.ModuleList([Block(ndim, widths[-1], widths[-1], config)])
        self.attention = Attention(widths[-1]) if config.attention else nn.Identity()
        for i, width in reversed([*enumerate(widths)]):
            self.up.append(nn.ModuleList(Block(ndim, 2 * width, width, config) for _ in range(config.blocks)))
            self.upsample.append(CONV[ndim](width, widths[i - 1], 3, padding=1) if i else nn.Identity())
        self.out = nn.Sequential(
            nn.GroupNorm(8, widths[0]), nn.SiLU(), zero_init(unpatch_conv(ndim, widths[0], channels, config.patch))
        )

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor) -> Tensor:
        """Apply the network.

        Args:
            x: signals, (batch, channels, *space).
            noise_level: c_noise of EDM, or time of a flow, (batch,).
            condition: embedding of the label, (batch, embedding).

        Returns:
            Output of the shape of ``x``.
        """
        embedding, size = self.noise_embedding(noise_level) + condition, x.shape[2:]
        padding = [n for side in reversed(size) for n in (0, -side % self.size_multiple)]
        features, skips = self.stem(F.pad(x, padding)), []
        for downsample, blocks in zip(self.downsample, self.down, strict=True):
            features = downsample(features)
            for block in blocks:  # type: ignore[attr-defined]
                features = block(features, embedding)
                skips.append(features)
        for block in self.middle:
            features = self.attention(block(features, embedding))
        for blocks, upsample in zip(self.up, self.upsample, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                features = block(torch.cat([features, skips.pop()], dim=1), embedding)
            if not isinstance(upsample, nn.Identity):
                features = upsample(F.interpolate(features, scale_factor=2.0))
        output = self.out(features)
        for dim, n in enumerate(size, start=2):
            output = output.narrow(dim, 0, n)
        return output
