"""Convolutional denoising autoencoder that estimates a mask of the spectrum of a waveform."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.config import config
from denoise.dsp import compress_magnitude, compress_spectrum, istft, power, stft
from denoise.errors import ConfigError
from denoise.models.conv_dae import ConvDAE, ConvDAEConfig
from denoise.nn.conditioning import check_sigma
from denoise.protocols import LatentSampler

POWER_FLOOR = 1e-12


@config
class SpectralDAEConfig:
    """Configuration of `SpectralDAE`.

    Args:
        net: 1-D `ConvDAE` over frames, from 3 to 2 channels for each bin.
        n_fft: length of a frame in samples.
        hop: distance of two frames in samples; it divides half a frame.
        compression: exponent of the magnitudes of the input features.
    """

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
    """Complex ratio mask estimated by a convolutional autoencoder.

    The features of each bin are real part, imaginary part and magnitude of the compressed spectrum; the output is a
    complex factor. No factor is larger than 1 in magnitude, so that no bin is amplified and silence stays silent.

    Args:
        config: see `SpectralDAEConfig`.

    Reference:
        Complex Ratio Masking for Monaural Speech Separation, Williamson et al., 2016;
        A Consolidated View of Loss Functions for Supervised Deep Learning-based Speech Enhancement,
        2020, arXiv:2009.12286 (compressed spectra).
    """

    channels = 1
    ndim = 1
    blind = True
    sigma_maps = 1
    window: int | None = None

    def __init__(self, config: SpectralDAEConfig) -> None:
        super().__init__()
        self.config = config
        self.net = ConvDAE(config.net)
        self.size_multiple = config.hop * self.net.size_multiple
        self.variational = self.net.variational

    @property
    def context(self) -> int:
        """Receptive field to each side in samples."""
        return self.net.context * self.config.hop + 2 * self.config.n_fft

    def forward(self, x: Tensor, sigma: Tensor | None = None, sample_latent: LatentSampler | None = None) -> Tensor:
        """Denoise waveforms.

        Args:
            x: noisy signals, (batch, 1, time), full scale 1.0.
            sigma: must be None, as the network is blind.
            sample_latent: returns the latents of a variational network; None takes their means.

        Returns:
            Denoised signals of the shape of ``x``.

        Raises:
            ConfigError: sigma is given.
        """
        check_sigma(sigma, blind=self.blind)
        c, time = self.config, x.shape[-1]
        # The signal is padded to whole hops. There is then one frame more than hops, which leaves the frames of a
        # window that starts at a multiple of `size_multiple` aligned with those of the whole signal.
        spectrum = stft(F.pad(x[:, 0].float(), (0, -time % c.hop)), c.n_fft, c.hop)
        compressed = compress_spectrum(spectrum, c.compression, POWER_FLOOR)
        magnitude = compress_magnitude(power(spectrum), c.compression / 2, POWER_FLOOR)
        features = torch.cat([compressed.real, compressed.imag, magnitude], dim=1)
        sample_frames = None if sample_latent is None else _per_sample(sample_latent, c.hop)
        real, imag = self.net(features, sample_latent=sample_frames).float().chunk(2, dim=1)
        real = real + 1  # output 0: everything passes
        excess = torch.clamp((real.square() + imag.square() + 1e-12).sqrt(), min=1.0)
        mask = torch.complex(real / excess, imag / excess)
        return istft(spectrum * mask, c.n_fft, c.hop)[:, None, :time].to(x.dtype)


def _per_sample(sample_latent: LatentSampler, hop: int) -> LatentSampler:
    """Convert strides from frames to samples."""
    return lambda level, q, stride: sample_latent(level, q, stride * hop)
