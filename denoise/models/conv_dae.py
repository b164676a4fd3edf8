"""Convolutional denoising autoencoder for waveforms, spectra and images."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.blocks import ACTIVATIONS, CONV, CONV_TRANSPOSE, ResidualBlock, add
from denoise.nn.conditioning import check_sigma, sigma_map
from denoise.protocols import LatentSampler

MAX_SETTING = 1 << 16


@config
class ConvDAEConfig:
    """Configuration of a `ConvDAE`.

    Bias-free with ``relu``, the network is homogeneous, D(a x) = a D(x), so that a blind one generalises to noise
    levels outside its training. With sigma, D(a x, a sigma) = a D(x, sigma).

    Args:
        ndim: spatial dimensions, 1 or 2.
        channels: channels of the input.
        widths: channels of each stage of the encoder.
        kernels: kernel size of the strided convolution of each stage.
        strides: stride of each stage.
        blocks: residual blocks of each stage, after its convolution in the encoder and before the mirrored one in the
            decoder; the innermost stage has them once.
        out_channels: channels of the output; None is ``channels``.
        dilation_cycle: block ``j`` has dilation ``2 ** (j % dilation_cycle)``.
        pointwise: whether every other convolution of the blocks has kernel size 1: for the same operations nearly twice
            as many.
        skips: whether the features of the encoder are added to those of the decoder at each resolution.
        residual: whether the input is added to the output.
        bias: whether convolutions have biases.
        norm: whether blocks normalise their input.
        activation: a name in `denoise.nn.blocks.ACTIVATIONS`.
        blind: whether the network takes no sigma. Otherwise sigma is a further channel of the input.
        sigma_maps: channels of sigma: 1, or ``2 * channels`` for networks that are conditioned on a map of the noise of
            each channel, and of the noise of its 2 x 2 means, see `denoise.noise_profile`.
        max_change: no sample changes by more than this multiple of the greatest sigma at its position, and where sigma
            is 0 nothing changes; None sets no bound.
        centred: whether the local mean bypasses the network, so that D(x + c) = D(x) + c. Without biases the brightness
            of a region would otherwise switch units, instead of its content.
        latents: normal latent variables per position between encoder and decoder at each stage, which make the network
            variational; 0 connects nothing there.

    Raises:
        ConfigError: settings are out of range or contradict each other.
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
    sigma_maps: int = 1
    max_change: float | None = None
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
        if self.sigma_maps not in (1, 2 * self.channels) or (self.blind and self.sigma_maps > 1):
            raise ConfigError(f"sigma_maps is {self.sigma_maps}; expected 1, or {2 * self.channels} if blind is false.")
        if self.max_change is not None and (self.blind or not self.residual or not 0 < self.max_change < math.inf):
            raise ConfigError(f"max_change is {self.max_change}; it needs residual, a sigma, and a number above 0.")
        if self.latents and (len(self.latents) != len(self.widths) or min(self.latents) < 0 or not self.latents[-1]):
            raise ConfigError(f"latents are {self.latents}; expected one number per stage, the last at least 1.")
        if max(self.latents, default=0) > MAX_SETTING or (self.latents and self.residual):
            raise ConfigError(
                f"latents are {self.latents} with residual {self.residual}; expected at most {MAX_SETTING} each, "
                "and no residual, which would bypass them. Set residual to false."
            )


class ConvDAE(nn.Module):
    """Strided convolutional encoder and transposed convolutional decoder, with optional skips between them.

    Sizes that are no multiple of the total stride are padded at their end by reflection, and the output is cropped, so
    every size from 1 on is kept. Convolutions pad with ``(kernel - stride + 1) // 2`` zeros at the start.

    In evaluation under autocast the layers that decide the rounding error of the output stay in float32: the input
    layer, the sums of the residual blocks at the finest stage, the last block and the output layer. The others in
    bfloat16 cause a quarter of the error of a network wholly in bfloat16. In training all but the output layer follow
    autocast: these errors average out there.

    Args:
        config: sizes and options.

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
        self.ndim, self.channels, self.blind, self.sigma_maps = c.ndim, c.channels, c.blind, c.sigma_maps
        self.size_multiple = math.prod(c.strides)
        self.variational = bool(c.latents)

        def activation() -> nn.Module:
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
        innermost = len(c.widths) - 1
        for i, (width, k, s) in enumerate(zip(c.widths, c.kernels, c.strides, strict=True)):
            inputs = c.widths[i - 1] if i else c.channels + (0 if c.blind else c.sigma_maps)
            down = CONV[c.ndim](inputs, width, k, stride=s, padding=_padding(k, s), bias=c.bias)
            self.encoder.append(nn.Sequential(down, *(blocks(i) or [activation()])))

            outputs = c.widths[i - 1] if i else (c.out_channels or c.channels)
            p = _padding(k, s)
            up = CONV_TRANSPOSE[c.ndim](
                width, outputs, k, stride=s, padding=p, output_padding=s + 2 * p - k, bias=c.bias
            )
            needs_activation = i > 0 and not c.blocks[i - 1]  # blocks have activations of their own
            mirrored = blocks(i) if i < innermost else []
            self.decoder.insert(0, nn.Sequential(*mirrored, up, *([activation()] if needs_activation else [])))
        if c.latents:
            sizes = [*zip(c.widths, c.latents, strict=True)]
            self.posteriors = nn.ModuleList(CONV[c.ndim](w, 2 * n, 1) if n else nn.Identity() for w, n in sizes)
            self.from_latents = nn.ModuleList(CONV[c.ndim](n, w, 1) if n else nn.Identity() for w, n in sizes)

    @property
    def context(self) -> int:
        """Upper bound of the samples on each side that one output sample depends on."""
        c, scale, total = self.config, 1, 0
        for i, (k, s) in enumerate(zip(c.kernels, c.strides, strict=True)):
            total += (k - 1) * scale  # the strided convolution reaches at most k - 1 fine samples on one side
            total += -(-(k - 1) // s) * s * scale  # the transposed one
            scale *= s
            times = 1 if i == len(c.widths) - 1 else 2  # in the encoder, and in the decoder
            convolutions = 1 if c.pointwise else 2
            total += times * sum(convolutions * 2 ** (j % c.dilation_cycle) for j in range(c.blocks[i])) * scale
        return total + (2 * scale if c.centred else 0)

    def forward(self, x: Tensor, sigma: Tensor | None = None, sample_latent: LatentSampler | None = None) -> Tensor:
        """Denoise a batch.

        Args:
            x: noisy signals, (batch, channels, *space).
            sigma: standard deviation of the noise in the units of x: (batch,), or maps, (batch, sigma_maps, *space);
                None for blind networks.
            sample_latent: returns the latents of a stage, given their distribution; None takes the mean.

        Returns:
            Denoised signals, (batch, out_channels, *space).

        Raises:
            ConfigError: a blind network is given a sigma, or another one none.
        """
        check_sigma(sigma, blind=self.blind)
        size, padded = x.shape[2:], _pad_to_multiple(x, self.size_multiple)
        mean = local_mean(padded, self.size_multiple) if self.config.centred else None
        inputs = padded if mean is None else padded - mean
        if sigma is not None:
            sigma = sigma_map(x, sigma, self.config.sigma_maps)
            sigma = _pad_to_multiple(sigma, self.size_multiple) if sigma.shape[2:] == size else sigma
            inputs = torch.cat([inputs, sigma.expand(-1, -1, *inputs.shape[2:])], dim=1)
        skips = self._encode(inputs)
        skips = self._through_latents(skips, sample_latent) if self.variational else skips
        out = self._decode(skips).to(x.dtype)
        if sigma is not None and self.config.max_change is not None:
            bound = self.config.max_change * sigma.amax(dim=1, keepdim=True)
            out = torch.minimum(torch.maximum(out, -bound), bound)
        shortcut = padded if self.config.residual else mean
        out = out if shortcut is None else out + shortcut
        for dim, n in enumerate(size, start=2):
            out = out.narrow(dim, 0, n)
        return out

    def _encode(self, x: Tensor) -> list[Tensor]:
        """Return the features of each stage."""
        skips: list[Tensor] = []
        for i, stage in enumerate(self.encoder):
            first, *blocks = cast(nn.Sequential, stage)
            x = first(x) if i or self.training else _without_autocast(first, x.to(_weight_dtype(first)))
            for block in blocks:  # a Sequential would keep its input until its end
                x = block(x)
            skips.append(x)
        return skips

    def _decode(self, skips: list[Tensor]) -> Tensor:
        """Return the output of the decoder. Features are popped from ``skips``, so that each is freed after its use."""
        x = skips.pop()
        *stages, last = self.decoder
        for stage in stages:
            for layer in cast(nn.Sequential, stage):
                x = layer(x)
            if self.config.skips:
                x = add(x, skips.pop())
        *blocks, output = cast(nn.Sequential, last)
        if not self.training:
            x = x.to(_weight_dtype(output))
        for i, block in enumerate(blocks, start=1):
            x = block(x) if i < len(blocks) or self.training else _without_autocast(block, x)
        return _without_autocast(output, x.to(_weight_dtype(output)))

    def _through_latents(self, skips: list[Tensor], sample_latent: LatentSampler | None) -> list[Tensor]:
        """Return the features that the latents of each stage are decoded to, zeros where there are none."""
        out, stride = [], 1
        for i, (features, n) in enumerate(zip(skips, self.config.latents, strict=True)):
            stride *= self.config.strides[i]
            if not n:
                out.append(torch.zeros_like(features))
                continue
            parameters = self.posteriors[i](features)
            parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
            mean, log_variance = parameters.chunk(2, dim=1)
            posterior = Normal(mean, (0.5 * log_variance.clamp(-20, 10)).exp(), validate_args=False)
            latents = sample_latent(i, posterior, stride) if sample_latent else posterior.mean
            out.append(self.from_latents[i](latents))
        return out


def _without_autocast(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        y: Tensor = layer(x)
    return y


def _weight_dtype(layer: nn.Module) -> torch.dtype:
    return cast(Tensor, layer.weight).dtype


def local_mean(x: Tensor, step: int) -> Tensor:
    """Return the means of windows of ``2 * step`` at multiples of ``step``, interpolated linearly.

    Args:
        x: signals, (batch, channels, *space), each axis of space a multiple of ``step``.
        step: an even number of samples.

    Returns:
        Local means of the same shape.
    """
    pool, mode = ((F.avg_pool1d, "linear"), (F.avg_pool2d, "bilinear"))[x.ndim - 3]
    low = pool(x, 2 * step, step, step // 2, count_include_pad=False)
    return F.interpolate(low, scale_factor=float(step), mode=mode)


def _padding(kernel: int, stride: int) -> int:
    return max(0, (kernel - stride + 1) // 2)


def _pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad the end of each axis by reflection; repetition of a row of noise would resemble content."""
    for dim in range(2, x.ndim):
        n = x.shape[dim]
        if extra := -n % multiple:
            period = max(1, 2 * n - 2)
            index = torch.arange(n, n + extra, device=x.device) % period
            x = torch.cat([x, x.index_select(dim, torch.minimum(index, period - index))], dim=dim)
    return x
