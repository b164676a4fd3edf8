"""The convolutional denoising autoencoder on the compressed spectrum of a waveform."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.config import config
from denoise.dsp import istft, stft
from denoise.errors import ConfigError
from denoise.models.conv_dae import ConvDAE, ConvDAEConfig
from denoise.nn.conditioning import check_sigma
from denoise.protocols import Draw


@config
class SpectralDAEConfig:
    """``n_fft`` and ``hop`` in samples; ``net`` is a 1-D `ConvDAE` over time with frequencies as channels."""

    net: ConvDAEConfig
    n_fft: int = 512
    hop: int = 128
    compression: float = 0.3

    def __post_init__(self) -> None:
        bins = self.n_fft // 2 + 1
        if (self.net.ndim, self.net.channels, self.net.out_channels) != (1, 3 * bins, 2 * bins):
            raise ConfigError(f"net must be 1-D from {3 * bins} to {2 * bins} channels for n_fft {self.n_fft}.")
        if not (1 <= self.hop <= self.n_fft <= 1 << 16 and 0 < self.compression <= 1):
            raise ConfigError(f"n_fft {self.n_fft}, hop {self.hop} or compression {self.compression} is out of range.")
        if self.n_fft % (2 * self.hop):
            raise ConfigError(f"hop {self.hop} must divide half of n_fft {self.n_fft}.")


class SpectralDAE(nn.Module):
    """A complex mask over the spectrum, drawn by a convolutional autoencoder.

    The network sees the spectrum with its magnitude raised to ``compression`` (real part, imaginary
    part and magnitude of each bin), and gives one complex factor per bin. No factor is larger than one
    in magnitude: what comes out of a bin was in it, silence stays silence, and nothing explodes.

    Shape:
        x, returns: (batch, 1, time), full scale is 1.0; sigma is refused, the model is blind.
    Reference:
        Complex Ratio Masking for Monaural Speech Separation, Williamson et al., 2016;
        A Consolidated View of Loss Functions for Supervised Deep Learning-based Speech Enhancement,
        2020, arXiv:2009.12286 (compressed spectra).
    """

    channels = 1
    ndim = 1
    blind = True
    window: int | None = None

    def __init__(self, config: SpectralDAEConfig) -> None:
        super().__init__()
        self.config = config
        self.net = ConvDAE(config.net)
        self.size_multiple = config.hop * self.net.size_multiple
        self.variational = self.net.variational

    @property
    def context(self) -> int:
        """Samples to each side that one output sample depends on."""
        return self.net.context * self.config.hop + 2 * self.config.n_fft

    def forward(self, x: Tensor, sigma: Tensor | None = None, draw: Draw | None = None) -> Tensor:
        check_sigma(sigma, blind=self.blind)
        c, time = self.config, x.shape[-1]
        # One frame more than the signal is long, and the frames a multiple of the strides with it, so
        # that a window that starts at a multiple of `size_multiple` has the frames of the whole signal.
        spectrum = stft(F.pad(x[:, 0].float(), (0, -time % c.hop)), c.n_fft, c.hop)
        power = spectrum.real.square() + spectrum.imag.square() + 1e-12
        compressed = spectrum * power ** ((c.compression - 1) / 2)
        features = torch.cat([compressed.real, compressed.imag, power ** (c.compression / 2)], dim=1)
        inner = None if draw is None else lambda level, q, stride: draw(level, q, stride * c.hop)
        real, imag = self.net(features, draw=inner).float().chunk(2, dim=1)
        real = real + 1  # at first the network passes everything
        over = torch.clamp((real.square() + imag.square() + 1e-12).sqrt(), min=1.0)
        mask = torch.complex(real / over, imag / over)
        return istft(spectrum * mask, c.n_fft, c.hop)[:, None, :time].to(x.dtype)
