"""The convolutional denoising autoencoder, one class for waveforms, spectra and images."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.blocks import ACTIVATIONS, CONV, CONV_TRANSPOSE, ResidualBlock, added
from denoise.nn.conditioning import check_sigma, sigma_map
from denoise.protocols import Draw

MAX_SETTING = 1 << 16


@config
class ConvDAEConfig:
    """Stage ``i`` turns ``widths[i - 1]`` channels into ``widths[i]`` at a stride of ``strides[i]``.

    ``blocks[i]`` residual blocks follow it in the encoder and precede its mirror in the decoder
    (the innermost stage has them once); block ``j`` has dilation ``2 ** (j % dilation_cycle)``. With ``pointwise``
    every other convolution of the blocks looks at one position: for the same work nearly twice as many.
    ``skips`` add the encoder's features to the decoder's at each resolution; ``residual`` adds the
    input to the output. ``bias=False`` with ``relu`` makes D(a x) = a D(x), which is what lets a blind
    network hold at noise levels it was not trained on. Without ``blind`` sigma is one more channel of the
    input, the same everywhere, and D(a x, a sigma) = a D(x, sigma).

    ``centred`` makes D(x + c) = D(x) + c: the local mean goes around the network, which sees what differs from it.
    Without biases, units would else be switched by the light of a place and not by what is to be seen there.

    ``latents`` make it variational: what stage ``i`` hands to the decoder goes through ``latents[i]`` normal
    variables at each position (0: nothing is handed over there).
    """

    ndim: int
    channels: int
    widths: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    blocks: tuple[int, ...]
    out_channels: int | None = None
    dilation_cycle: int = 1
    pointwise: bool = False
    skips: bool = True
    residual: bool = False
    bias: bool = True
    norm: bool = False
    activation: str = "mish"
    blind: bool = True
    centred: bool = False
    latents: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.ndim not in CONV:
            raise ConfigError(f"ndim is {self.ndim}; expected 1 or 2.")
        if not len(self.widths) == len(self.kernels) == len(self.strides) == len(self.blocks) >= 1:
            raise ConfigError("widths, kernels, strides and blocks differ in length; give one of each per stage.")
        positive = (self.channels, self.dilation_cycle, *self.widths, *self.kernels, *self.strides)
        positive += () if self.out_channels is None else (self.out_channels,)
        if min(positive) < 1 or max(positive) > MAX_SETTING:
            raise ConfigError(f"channels, widths, kernels, strides and dilation_cycle must be 1 to {MAX_SETTING}.")
        if not all(0 <= n <= 1000 for n in self.blocks):
            raise ConfigError(f"blocks are {self.blocks}; expected 0 to 1000 each.")
        if any(s == 1 and k % 2 == 0 for k, s in zip(self.kernels, self.strides, strict=True)):
            raise ConfigError(f"kernels {self.kernels}: a kernel at stride 1 must be odd, or the size would change.")
        if any(k < s for k, s in zip(self.kernels, self.strides, strict=True)):
            raise ConfigError(f"kernels {self.kernels} are smaller than strides {self.strides}; samples would be lost.")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"activation is {self.activation!r}; expected one of {', '.join(ACTIVATIONS)}.")
        if self.centred and (math.prod(self.strides) % 2 or self.out_channels not in (None, self.channels)):
            raise ConfigError("centred needs an even total stride, and as many output channels as input channels.")
        if self.residual and self.out_channels not in (None, self.channels):
            raise ConfigError("residual needs as many output channels as input channels.")
        if self.latents and (len(self.latents) != len(self.widths) or min(self.latents) < 0 or not self.latents[-1]):
            raise ConfigError(f"latents are {self.latents}; expected one number per stage, the last at least 1.")
        if max(self.latents, default=0) > MAX_SETTING or (self.latents and self.residual):
            raise ConfigError("latents must be small and say everything: leave residual out.")


class ConvDAE(nn.Module):
    """Strided convolutional encoder, transposed convolutional decoder, optional skips between them.

    Sizes that are no multiple of the total stride are padded at their end by mirroring it
    and the result is cut back, so any size from 1 on keeps its size. Every convolution pads with zeros
    by ``(kernel - 1) // 2`` before; the transposed ones mirror it.

    With latents it gives the answer of their means, or of what ``draw`` says in place of each distribution.

    Shape:
        x: (batch, channels, *space); sigma: (batch,) in the units of x, refused by a blind model.
        returns: (batch, out_channels or channels, *space).
    Reference:
        Extracting and Composing Robust Features with Denoising Autoencoders, Vincent et al., 2008;
        U-Net, 2015, arXiv:1505.04597; Robust and Interpretable Blind Image Denoising via Bias-Free
        Convolutional Neural Networks, 2019, arXiv:1906.05478; FFDNet, 2017, arXiv:1710.04026 (the map of sigma);
        Normalization-Equivariant Neural Networks with Application to Image Denoising, 2023, arXiv:2306.05037 (centred);
        Denoising Criterion for Variational Auto-Encoding Framework, 2015, arXiv:1511.06406 (latents).
    """

    window: int | None = None

    def __init__(self, config: ConvDAEConfig) -> None:
        super().__init__()
        self.config = c = config
        self.ndim, self.channels, self.blind = c.ndim, c.channels, c.blind
        self.size_multiple = math.prod(c.strides)
        self.variational = bool(c.latents)

        def act() -> nn.Module:
            return ACTIVATIONS[c.activation]()

        def blocks(i: int) -> list[nn.Module]:
            return [
                ResidualBlock(
                    c.ndim,
                    c.widths[i],
                    dilation=2 ** (j % c.dilation_cycle),
                    bias=c.bias,
                    activation=c.activation,
                    norm=c.norm,
                    pointwise=c.pointwise,
                )
                for j in range(c.blocks[i])
            ]

        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        last = len(c.widths) - 1
        for i, (width, k, s) in enumerate(zip(c.widths, c.kernels, c.strides, strict=True)):
            before = c.widths[i - 1] if i else c.channels + (not c.blind)
            down = CONV[c.ndim](before, width, k, stride=s, padding=_padding(k, s), bias=c.bias)
            after = blocks(i) if c.blocks[i] else [act()]  # blocks bring activations of their own
            self.encoder.append(nn.Sequential(down, *after))

            out = c.widths[i - 1] if i else (c.out_channels or c.channels)
            p = _padding(k, s)
            up = CONV_TRANSPOSE[c.ndim](width, out, k, stride=s, padding=p, output_padding=s + 2 * p - k, bias=c.bias)
            plain = i > 0 and not c.blocks[i - 1]
            mirrored = blocks(i) if i < last else []
            self.decoder.insert(0, nn.Sequential(*mirrored, up, *([act()] if plain else [])))
        if c.latents:
            pairs = [*zip(c.widths, c.latents, strict=True)]
            self.posteriors = nn.ModuleList(CONV[c.ndim](w, 2 * n, 1) if n else nn.Identity() for w, n in pairs)
            self.handed = nn.ModuleList(CONV[c.ndim](n, w, 1) if n else nn.Identity() for w, n in pairs)

    @property
    def context(self) -> int:
        """Upper bound of the samples to each side that one output sample depends on."""
        c, scale, total = self.config, 1, 0
        for i, (k, s) in enumerate(zip(c.kernels, c.strides, strict=True)):
            total += (k - 1) * scale  # the strided convolution reaches at most k - 1 fine samples to one side
            total += -(-(k - 1) // s) * s * scale  # its mirror
            scale *= s
            sides = 1 if i == len(c.widths) - 1 else 2
            wide = 1 if c.pointwise else 2
            total += sides * sum(wide * 2 ** (j % c.dilation_cycle) for j in range(c.blocks[i])) * scale
        return total + (2 * scale if c.centred else 0)

    def forward(self, x: Tensor, sigma: Tensor | None = None, draw: Draw | None = None) -> Tensor:
        check_sigma(sigma, blind=self.blind)
        size, padded = x.shape[2:], _pad_to_multiple(x, self.size_multiple)
        mean = local_mean(padded, self.size_multiple) if self.config.centred else None
        seen = padded if mean is None else padded - mean
        seen = seen if sigma is None else torch.cat([seen, sigma_map(seen, sigma)], dim=1)
        features, skips = seen, []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        skips = self._through_latents(skips, draw) if self.variational else skips
        features = skips.pop()
        *stages, last = (cast(nn.Sequential, stage) for stage in self.decoder)
        for i, stage in enumerate([*stages, last[:-1]]):
            if i and self.config.skips:
                features = added(features, skips.pop())
            for layer in stage:  # each lets go of what the one before has made
                features = layer(features)
        with torch.autocast(x.device.type, enabled=False):  # in bfloat16, neighbours of a result are 1/256 apart
            out = last[-1](features.to(cast(Tensor, last[-1].weight).dtype))
        around = padded if self.config.residual else mean
        out = out.to(x.dtype) if around is None else out.to(x.dtype) + around
        for dim, n in enumerate(size, start=2):
            out = out.narrow(dim, 0, n)
        return out

    def _through_latents(self, skips: list[Tensor], draw: Draw | None) -> list[Tensor]:
        """What the decoder gets of each stage's features, nothing of those without latents."""
        out, stride = [], 1
        for i, (features, n) in enumerate(zip(skips, self.config.latents, strict=True)):
            stride *= self.config.strides[i]
            if not n:
                out.append(torch.zeros_like(features))
                continue
            told = self.posteriors[i](features)
            mean, log_variance = told.to(torch.promote_types(told.dtype, torch.float32)).chunk(2, dim=1)
            q = Normal(mean, (0.5 * log_variance.clamp(-20, 10)).exp(), validate_args=False)
            out.append(self.handed[i](draw(i, q, stride) if draw else q.mean))
        return out


def local_mean(x: Tensor, step: int) -> Tensor:
    """The mean of windows of ``2 * step`` at multiples of ``step``, and between them linearly.

    Shape:
        x, returns: (batch, channels, *space), each axis of space a multiple of ``step``, which is even.
    """
    pool, mode = ((F.avg_pool1d, "linear"), (F.avg_pool2d, "bilinear"))[x.ndim - 3]
    low = pool(x, 2 * step, step, step // 2, count_include_pad=False)
    return F.interpolate(low, scale_factor=float(step), mode=mode)


def _padding(kernel: int, stride: int) -> int:
    return max(0, (kernel - stride + 1) // 2)


def _pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Mirror the end of each axis. Not repeat it: a row of noise seven times over looks like a scene."""
    for dim in range(2, x.ndim):
        n = x.shape[dim]
        if extra := -n % multiple:
            period = max(1, 2 * n - 2)
            at = torch.arange(n, n + extra, device=x.device) % period
            x = torch.cat([x, x.index_select(dim, torch.minimum(at, period - at))], dim=dim)
    return x
