"""Codec of waveforms around a codec of their compressed magnitude spectra; phases are reconstructed."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, Normal

from denoise.config import config
from denoise.dsp import compress_magnitude, expand_magnitude, istft, stft
from denoise.errors import ConfigError
from denoise.probability_path import standard_uniform
from denoise.protocols import LikelihoodCodec, StochasticCodec, Support, VariationalCodec

MAGNITUDE_FLOOR = 1e-8
MOMENTUM = 0.99


class StochasticLikelihoodCodec(StochasticCodec, LikelihoodCodec, Protocol):
    """Inner codec of a `StochasticSpectralCodec`."""


@config
class SpectralCodecConfig:
    """Configuration of `SpectralCodec`.

    Args:
        time: samples of one signal, a multiple of ``hop``.
        codec: ``architecture`` and settings of the inner codec, whose signals are (n_fft / 2 + 1, time / hop).
        n_fft: length of a frame in samples, even.
        hop: distance of two frames in samples.
        compression: exponent of the magnitudes.
        iterations: iterations of the phase reconstruction.
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
            raise ConfigError(
                f"time is {self.time}, compression {self.compression:g}, iterations {self.iterations}; expected time a "
                f"multiple of hop ({self.hop}), compression above 0 up to 1, iterations of 0 to 10000."
            )


class SpectralCodec(nn.Module):
    """Codec of mono waveforms whose latents are those of their compressed magnitude spectra.

    `build_spectral_codec` picks the subclass with the capabilities of the inner codec.

    Args:
        config: see `SpectralCodecConfig`.
        codec: codec of spectra, (bins, frames).

    Raises:
        ConfigError: the inner codec is of another shape.

    Reference:
        Signal Estimation from Modified Short-Time Fourier Transform, Griffin and Lim, 1984; A Fast Griffin-Lim
        Algorithm, Perraudin et al., 2013 (momentum).
    """

    codec: LikelihoodCodec

    def __init__(self, config: SpectralCodecConfig, codec: Any) -> None:
        super().__init__()
        self.config, self.codec = config, codec
        self.event_shape = torch.Size([1, config.time])
        self.size_multiple = config.hop * codec.size_multiple
        expected = (config.n_fft // 2 + 1, config.time // config.hop)
        if tuple(codec.event_shape) != expected:
            raise ConfigError(
                f"the inner codec has signals of {tuple(codec.event_shape)}; expected {expected}: bins and frames."
            )

    @property
    def latent_shape(self) -> torch.Size:
        """Shape of the latents of one signal: that of the inner codec."""
        return torch.Size(self.codec.latent_shape)

    @property
    def support(self) -> Support:
        """Space on which `likelihood` is defined: compressed spectra."""
        inner = self.codec.support
        return Support(inner.shape, inner.values, "compressed spectra")

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of signals, (batch, 1, time) to (batch, *latent_shape)."""
        return self.codec.encode(self.to_spectrum(x))

    def decode(self, z: Tensor) -> Tensor:
        """Return the signals of latents, (batch, *latent_shape) to (batch, 1, time)."""
        return self.to_signal(self.codec.decode(z))

    def likelihood(self, z: Tensor) -> SpectralLikelihood:
        """Return the likelihood of the spectra of signals, given latents (batch, *latent_shape)."""
        return SpectralLikelihood(self, self.codec.likelihood(z))

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct signals from their latents, (batch, 1, time) to the same shape."""
        return self.decode(self.encode(x))

    def to_spectrum(self, x: Tensor) -> Tensor:
        """Compute compressed magnitudes, full scale about 1.0.

        Args:
            x: signals, (batch, 1, time).

        Returns:
            Spectra, (batch, bins, frames).
        """
        c = self.config
        magnitude = stft(x[:, 0], c.n_fft, c.hop).abs()[..., :-1] / (c.n_fft / 4)
        return compress_magnitude(magnitude, c.compression, MAGNITUDE_FLOOR)

    def to_signal(self, compressed: Tensor) -> Tensor:
        """Reconstruct signals with nearly these spectra, by the fast Griffin-Lim algorithm from fixed random phases.

        All signals start with the same phases, so that none depends on its place in a batch.

        Args:
            compressed: compressed magnitudes, (batch, bins, frames).

        Returns:
            Signals, (batch, 1, time).
        """
        c = self.config
        magnitude = expand_magnitude(compressed, c.compression) * (c.n_fft / 4)
        magnitude = nn.functional.pad(magnitude, (0, 1))
        generator = Generator().manual_seed(0)
        angle = 2 * torch.pi * standard_uniform(magnitude.shape[1:], generator).to(magnitude)
        spectrum = torch.polar(magnitude, angle.expand_as(magnitude))
        previous = spectrum
        for _ in range(c.iterations):
            consistent = stft(istft(spectrum, c.n_fft, c.hop), c.n_fft, c.hop)
            accelerated = consistent + MOMENTUM * (consistent - previous)
            previous = consistent
            spectrum = magnitude * accelerated / accelerated.abs().clamp_min(1e-9)
        return istft(spectrum, c.n_fft, c.hop)[:, None, : c.time]


class StochasticSpectralCodec(SpectralCodec):
    """A `SpectralCodec` around a `denoise.protocols.StochasticCodec`.

    Args:
        config: see `SpectralCodecConfig`.
        codec: stochastic codec of spectra.
    """

    codec: StochasticLikelihoodCodec

    def sample_posterior(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Sample latents from q(z|x); gradients flow through the sample.

        Args:
            x: signals, (batch, 1, time).
            generator: source of randomness on the CPU.

        Returns:
            Latents, (batch, *latent_shape).
        """
        return self.codec.sample_posterior(self.to_spectrum(x), generator)


class VariationalSpectralCodec(StochasticSpectralCodec):
    """A `SpectralCodec` around a `denoise.protocols.VariationalCodec`.

    Args:
        config: see `SpectralCodecConfig`.
        codec: variational codec of spectra.
    """

    codec: VariationalCodec

    def posterior(self, x: Tensor) -> Normal:
        """Return q(z|x), (batch, 1, time) to a distribution of shape (batch, *latent_shape)."""
        return self.codec.posterior(self.to_spectrum(x))


class SpectralLikelihood(Distribution):
    """Distribution of spectra that is evaluated at signals.

    Args:
        codec: codec that computes spectra of signals and signals of spectra.
        spectra: distribution of spectra, (bins, frames).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = torch.distributions.constraints.real

    def __init__(self, codec: SpectralCodec, spectra: Distribution) -> None:
        self.codec, self.spectra = codec, spectra
        super().__init__(spectra.batch_shape, codec.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Signal of the mean spectrum, (batch, 1, time)."""
        return self.codec.to_signal(self.spectra.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density in nats of the spectra of signals, (batch, 1, time) to (batch,)."""
        return self.spectra.log_prob(self.codec.to_spectrum(value))


def build_spectral_codec(config: SpectralCodecConfig, codec: LikelihoodCodec) -> SpectralCodec:
    """Build the `SpectralCodec` with the capabilities of the inner codec.

    Args:
        config: see `SpectralCodecConfig`.
        codec: codec of spectra.

    Returns:
        A `VariationalSpectralCodec`, a `StochasticSpectralCodec` or a plain `SpectralCodec`.
    """
    if isinstance(codec, VariationalCodec):
        return VariationalSpectralCodec(config, codec)
    if isinstance(codec, StochasticCodec):
        return StochasticSpectralCodec(config, codec)
    return SpectralCodec(config, codec)
