"""Sounds through a codec of their spectra: what is heard of them is kept, their phase is found anew."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from denoise.config import config
from denoise.dsp import istft, stft
from denoise.errors import ConfigError


@config
class SpectralCodecConfig:
    """Sounds of ``time`` samples as compressed magnitudes of frames of ``n_fft`` every ``hop`` samples.

    ``codec`` is the ``architecture`` and the settings of the codec that keeps them: its signals have a channel
    for each bin, ``n_fft / 2 + 1``, and ``time / hop`` places.
    """

    time: int
    codec: dict[str, Any]
    n_fft: int = 256
    hop: int = 64
    compression: float = 0.3
    iterations: int = 60

    def __post_init__(self) -> None:
        if not (1 <= self.hop <= self.n_fft // 2 <= 1 << 15 and 1 <= self.time <= 1 << 24) or self.n_fft % 2:
            raise ConfigError(f"n_fft is {self.n_fft}, hop {self.hop}; expected n_fft even and at least two hops.")
        if self.time % self.hop or not 0 < self.compression <= 1 or not 0 <= self.iterations <= 10_000:
            raise ConfigError("time must be a multiple of hop, compression 0 to 1, iterations at least 0.")


class SpectralCodec(nn.Module):
    """A codec of waveforms around one of spectra.

    Shape:
        x: (batch, 1, time); z: as those of the inner codec.
    Reference:
        Signal Estimation from Modified Short-Time Fourier Transform, Griffin and Lim, 1984; A Fast Griffin-Lim
        Algorithm, Perraudin et al., 2013 (momentum).
    """

    def __init__(self, config: SpectralCodecConfig, codec: Any) -> None:
        super().__init__()
        self.config, self.codec = config, codec
        self.event_shape = torch.Size([1, config.time])
        self.size_multiple = config.hop * codec.size_multiple
        expected = (config.n_fft // 2 + 1, config.time // config.hop)
        if tuple(codec.event_shape) != expected:
            raise ConfigError(
                f"the inner codec is of {tuple(codec.event_shape)}; expected {expected}: bins and frames."
            )
        if hasattr(codec, "posterior"):
            self.posterior = lambda x: codec.posterior(self.spectrum(x))
        if hasattr(codec, "draw"):
            self.draw = lambda x, generator=None: codec.draw(self.spectrum(x), generator)

    @property
    def latent_shape(self) -> torch.Size:
        """Of the latents of one sound."""
        return torch.Size(self.codec.latent_shape)

    def encode(self, x: Tensor) -> Tensor:
        """The latents of sounds."""
        return self.codec.encode(self.spectrum(x))

    def decode(self, z: Tensor) -> Tensor:
        """The sounds that latents stand for."""
        return self.sound(self.codec.decode(z))

    def likelihood(self, z: Tensor) -> Heard:
        """p(spectrum|z), asked with the sound."""
        return Heard(self, self.codec.likelihood(z))

    def forward(self, x: Tensor) -> Tensor:
        """The sounds as the latents remember them."""
        return self.decode(self.encode(x))

    def spectrum(self, x: Tensor) -> Tensor:
        """Compressed magnitudes, full scale about 1. Shape: (batch, bins, frames)."""
        c = self.config
        magnitude = stft(x[:, 0], c.n_fft, c.hop).abs()[..., :-1] / (c.n_fft / 4)
        return (magnitude + 1e-8) ** c.compression

    def sound(self, compressed: Tensor) -> Tensor:
        """A waveform whose spectrum is nearly that. Shape: (batch, bins, frames) to (batch, 1, time)."""
        c = self.config
        magnitude = compressed.clamp_min(0) ** (1 / c.compression) * (c.n_fft / 4)
        magnitude = nn.functional.pad(magnitude, (0, 1))
        generator = Generator().manual_seed(0)
        angle = 2 * torch.pi * torch.rand(magnitude.shape, generator=generator).to(magnitude)
        there = torch.polar(magnitude, angle)
        last = there
        for _ in range(c.iterations):
            consistent = stft(istft(there, c.n_fft, c.hop), c.n_fft, c.hop)
            ahead = consistent + 0.99 * (consistent - last)
            last = consistent
            there = magnitude * ahead / ahead.abs().clamp_min(1e-9)
        return istft(there, c.n_fft, c.hop)[:, None, : c.time]


class Heard:
    """A distribution of spectra that is asked with sounds."""

    def __init__(self, outer: SpectralCodec, inner: Any) -> None:
        self.outer, self.inner = outer, inner

    @property
    def mean(self) -> Tensor:
        """The sound of the mean spectrum."""
        return self.outer.sound(self.inner.mean)

    def log_prob(self, x: Tensor) -> Tensor:
        """Of the spectra of sounds, in nats. Shape: (batch, 1, time) to (batch,)."""
        found: Tensor = self.inner.log_prob(self.outer.spectrum(x))
        return found
