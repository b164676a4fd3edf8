"""Speech denoiser: a dual-path convolutional recurrent network for streams of any sample rate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.config import config
from denoise.dsp import compress_magnitude, power, stream_istft, stream_stft
from denoise.errors import ConfigError
from denoise.nn.dual_path import DualPathNet, DualPathState
from denoise.nn.noise_floor import NoiseFloorState
from denoise.nn.streaming import StreamingMixin

LEVEL_TIME_CONSTANT_S = 1.0
POWER_FLOOR = 1e-20
SPECTRUM_INPUTS = 3  # magnitude, real and imaginary part
MIN_REMAINING_POWER = 0.01  # channels of which less remains in the mean are out of phase


@config
class DPCRNConfig:
    """Configuration of `DPCRN`.

    Args:
        hop_s: distance of two frames in seconds; a frame is two hops long.
        linear_hz: frequency in Hz up to which every bin of ``1 / (2 * hop_s)`` Hz is a position of its own.
        top_hz: upper end of the ERB bands in Hz.
        bands: number of ERB bands from ``linear_hz`` to ``top_hz``.
        widths: channels at each resolution over frequency; each entry after the first halves the positions, whose
            number must be a multiple of these halvings.
        blocks: number of dual-path blocks at the coarsest resolution.
        hidden: units of the recurrence at each position.
        squeeze: channels of each position that the full-band recurrence receives.
        full_hidden: units of the full-band recurrence.
        lookahead: future frames that each block uses; 0 is causal.
        compression: exponent of the magnitudes of the input features.
    """

    hop_s: float = 0.016
    linear_hz: float = 5000.0
    top_hz: float = 24_000.0
    bands: int = 32
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 2
    hidden: int = 64
    squeeze: int = 8
    full_hidden: int = 256
    lookahead: int = 0
    compression: float = 0.3

    def __post_init__(self) -> None:
        if not (
            0.001 <= self.hop_s <= 0.1 and 0 < self.linear_hz < self.top_hz <= 96_000 and 0 < self.compression <= 1
        ):
            raise ConfigError(
                f"hop_s is {self.hop_s:g}, linear_hz {self.linear_hz:g}, top_hz {self.top_hz:g}, compression "
                f"{self.compression:g}; expected hop_s of 0.001 to 0.1, linear_hz below top_hz, top_hz up to 96000, "
                "compression above 0 up to 1."
            )
        sizes = (self.bands - 1, self.hidden, self.squeeze, self.full_hidden, *self.widths)
        if len(self.widths) < 2 or min(sizes) < 1 or max(sizes) > 4096 or not 1 <= self.blocks <= 100:
            raise ConfigError(
                "widths needs at least two entries; bands, hidden, squeeze, full_hidden and widths must be 1 to 4096, "
                "blocks 1 to 100."
            )
        if not 0 <= self.lookahead <= 1000:
            raise ConfigError(f"lookahead is {self.lookahead} frames; expected 0 to 1000.")
        if self.positions % (1 << (len(self.widths) - 1)):
            raise ConfigError(
                f"{self.positions} bins and bands cannot be halved {len(self.widths) - 1} times; change bands."
            )

    @property
    def linear_bins(self) -> int:
        """Number of bins that are positions of their own."""
        return round(self.linear_hz * 2 * self.hop_s)

    @property
    def bins(self) -> int:
        """Number of bins up to ``top_hz``."""
        return round(self.top_hz * 2 * self.hop_s) + 1

    @property
    def positions(self) -> int:
        """Number of frequency positions of the network: linear bins and bands."""
        return self.linear_bins + self.bands


class RunningMean(NamedTuple):
    """State of an exponentially weighted mean."""

    total: Tensor  # weighted sum of the values, (batch,)
    weight: Tensor  # sum of the weights, ()


class DPCRNState(NamedTuple):
    """State of a `DPCRN` between two blocks of a stream."""

    hop: int
    history: Tensor  # last hop of the input, (batch, channels, hop)
    pending: Tensor  # spectra that wait for their mask, (batch, channels, frames, bins)
    overlap: Tensor  # second half of the last output frame, (batch, channels, hop)
    level: RunningMean
    features: DualPathState
    floor: NoiseFloorState | None = None  # of a `NoiseFloorDPCRN`


class SpectralFeatures(nn.Module):
    """Conversion between bins of a spectrum and frequency positions: linear bins, and ERB bands above them.

    Args:
        config: configuration with the frequencies, bands and compression.
    """

    bands: Tensor
    normalised_bands: Tensor

    def __init__(self, config: DPCRNConfig) -> None:
        super().__init__()
        self.config = config
        bands = erb_bands(config)
        self.register_buffer("bands", bands, persistent=False)
        self.register_buffer("normalised_bands", bands / bands.sum(dim=1, keepdim=True), persistent=False)

    def to_features(self, spectrum: Tensor) -> Tensor:
        """Compute the input features of the network, the same for all channels of the signal.

        Args:
            spectrum: complex spectrum, (batch, channels, frames, bins).

        Returns:
            Compressed magnitudes, and up to ``linear_hz`` real and imaginary part of the spectrum with these
            magnitudes, (batch, 3, frames, positions).
        """
        c = self.config
        magnitude = self.compress(self.to_power(spectrum))
        mono = torch.view_as_complex(mix_down(torch.view_as_real(spectrum[..., : c.linear_bins])))
        mono = F.pad(mono, (0, c.linear_bins - mono.shape[-1]))
        phase = mono / mono.abs().clamp_min(1e-12)
        compressed = torch.stack([phase.real, phase.imag], dim=1) * magnitude[:, None, :, : c.linear_bins]
        return torch.cat([magnitude[:, None], F.pad(compressed, (0, c.bands))], dim=1)

    def to_power(self, spectrum: Tensor) -> Tensor:
        """Compute the mean power of all channels at each frequency position.

        Args:
            spectrum: complex spectrum, (batch, channels, frames, bins).

        Returns:
            Power, (batch, frames, positions).
        """
        c = self.config
        mean_power = power(spectrum).mean(dim=1)
        mean_power = F.pad(mean_power, (0, max(0, c.bins - mean_power.shape[-1])))
        low, high = mean_power[..., : c.linear_bins], mean_power[..., c.linear_bins : c.bins]
        return torch.cat([low, high @ self.normalised_bands.T], dim=-1)

    def compress(self, x: Tensor) -> Tensor:
        """Return compressed magnitudes of powers of any shape."""
        return compress_magnitude(x, self.config.compression / 2, POWER_FLOOR)

    def to_bins(self, x: Tensor, bins: int) -> Tensor:
        """Interpolate values at frequency positions to bins; bins above ``top_hz`` get the value of the last band.

        Args:
            x: values, (..., positions).
            bins: number of bins of the spectrum.

        Returns:
            Values, (..., bins).
        """
        c = self.config
        high = x[..., c.linear_bins :] @ self.bands
        values = torch.cat([x[..., : c.linear_bins], high], dim=-1)
        beyond = values[..., -1:].expand(*values.shape[:-1], max(0, bins - c.bins))
        return torch.cat([values, beyond], dim=-1)[..., :bins]

    def to_mask(self, output: Tensor, bins: int) -> Tensor:
        """Convert the output of the network to a complex mask: a gain below 1, and a rotation up to ``linear_hz``.

        Args:
            output: output in float32, (batch, 3, frames, positions).
            bins: number of bins of the spectrum.

        Returns:
            Complex mask, (batch, frames, bins).
        """
        c = self.config
        gain = self.to_bins(torch.sigmoid(output[:, 0] + 2.0), bins)
        rotation = torch.complex(output[:, 1] + 1.0, output[:, 2])[..., : c.linear_bins]  # output 0: no rotation
        rotation = F.pad(rotation / rotation.abs().clamp_min(1e-6), (0, max(0, bins - c.linear_bins)), value=1.0)
        return gain * rotation[..., :bins]


def mix_down(spectrum: Tensor) -> Tensor:
    """Mix channels to one that has the phase of all: their mean, but in frames where they cancel a weighted sum.

    The mean of a channel and its inverse is what rounding leaves of them, which is no phase of either.

    Args:
        spectrum: spectrum as real numbers, (batch, channels, frames, bins, 2).

    Returns:
        Spectrum of one channel, (batch, frames, bins, 2).
    """
    mean = spectrum.mean(dim=1)
    exponents = torch.arange(spectrum.shape[1], device=spectrum.device, dtype=spectrum.dtype)
    weights = torch.pow(0.5, exponents)  # which no signs cancel
    weighted = (spectrum * weights[:, None, None, None]).sum(dim=1)
    cancels = mean.square().sum(dim=(-2, -1)) < MIN_REMAINING_POWER * spectrum.square().sum(dim=(-2, -1)).mean(dim=1)
    return torch.where(cancels[..., None, None], weighted, mean)


class SpectralDualPathNet(StreamingMixin, DualPathNet):
    """Base of streaming networks that apply a `DualPathNet` to features of a short-time spectrum.

    Args:
        config: configuration of the spectrum and of the network.
        inputs: input channels of the network.
        outputs: output channels of the network.
    """

    def __init__(self, config: DPCRNConfig, inputs: int, outputs: int) -> None:
        super().__init__(
            inputs,
            outputs,
            config.positions,
            config.widths,
            config.blocks,
            hidden=config.hidden,
            squeeze=config.squeeze,
            full_hidden=config.full_hidden,
            lookahead=config.lookahead,
        )
        self.config = config
        self.spectral = SpectralFeatures(config)
        self.delay = 1 + self.feature_delay  # half a frame, and the look-ahead of the blocks

    def zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return zeros on the device of the network."""
        return self.stem.weight.detach().new_zeros(shape, dtype=dtype)

    def initial_level(self, batch: int) -> RunningMean:
        """Return the state of `running_level` before the first frame."""
        return RunningMean(self.zeros(batch), self.zeros())


class DPCRN(SpectralDualPathNet):
    """Dual-path convolutional recurrent network that estimates a complex mask of the short-time spectrum.

    Frames last ``2 * hop_s`` at any sample rate, so that a bin has the same frequency in all files and nothing is
    resampled. Bins that a low rate lacks are silent, those above ``top_hz`` get the gain of the highest band.
    Magnitudes are compressed and divided by their running mean, so that the result does not depend on the level of
    the signal. The mask is a gain below 1 and, up to ``linear_hz``, a rotation. All channels of a signal share it,
    which keeps the stereo image.

    Unlike the published network it uses ERB bands above a linear part, dense layers across frequency in place of a
    recurrence, a full-band recurrence beside the one at each position, and a gain and a phase in place of a complex
    ratio mask.

    Args:
        config: see `DPCRNConfig`.

    Reference:
        DPCRN: Dual-Path Convolution Recurrent Network for Single Channel Speech Enhancement, 2021,
        arXiv:2107.05429; GTCRN, Rong et al., 2024 (bands above a linear part, shared recurrences).
    """

    def __init__(self, config: DPCRNConfig, inputs: int = SPECTRUM_INPUTS) -> None:
        super().__init__(config, inputs, 3)

    def initial_state(self, batch: int, channels: int, sample_rate: int) -> DPCRNState:
        """Return the state before the first sample.

        Args:
            batch: number of signals.
            channels: channels of each signal.
            sample_rate: rate of the signals in Hz.
        """
        hop = self.hop(sample_rate)
        silence = self.zeros(batch, channels, hop)
        pending = self.zeros(batch, channels, self.delay - 1, hop + 1, dtype=torch.complex64)
        return DPCRNState(hop, silence, pending, silence, self.initial_level(batch), self.initial_feature_state())

    def step(self, x: Tensor, state: DPCRNState) -> tuple[Tensor, DPCRNState]:
        """Denoise the next hops of a stream.

        Args:
            x: next samples, (batch, channels, n * hop).
            state: state after the previous samples; it is not modified.

        Returns:
            Denoised samples of the shape of ``x``, ``delay`` hops late, and the new state.
        """
        spectrum, history = stream_stft(x.float(), state.history)
        features, level_state, floor = self.to_inputs(spectrum / state.hop, state)
        output, feature_state = self.forward_features(features, state.features)
        mask = self.spectral.to_mask(output.float(), spectrum.shape[-1])
        spectrum = torch.cat([state.pending, spectrum], dim=2)
        spectrum, pending = spectrum.split([mask.shape[1], self.delay - 1], dim=2)
        y, overlap = stream_istft(spectrum * mask[:, None], state.overlap)
        return y.to(x.dtype), DPCRNState(state.hop, history, pending, overlap, level_state, feature_state, floor)

    def to_inputs(self, spectrum: Tensor, state: DPCRNState) -> tuple[Tensor, RunningMean, NoiseFloorState | None]:
        """Compute the input of the network and the new states of its level and of its noise floor.

        Args:
            spectrum: complex spectrum of the next frames, (batch, channels, frames, bins).
            state: state after the previous frames.
        """
        features = self.spectral.to_features(spectrum)
        level, level_state = running_level(features[:, 0].mean(dim=-1), state.level, self.config.hop_s)
        return features / level[:, None, :, None], level_state, None


def running_level(x: Tensor, state: RunningMean, hop_s: float) -> tuple[Tensor, RunningMean]:
    """Compute the exponentially weighted mean of all values so far, at least a third of the present value.

    Args:
        x: values of the next frames, (batch, frames).
        state: state after the previous frames.
        hop_s: distance of two frames in seconds.

    Returns:
        Level of each frame, (batch, frames), and the new state.
    """
    frames = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
    ages = frames[:, None] - frames
    weights = torch.exp(-ages.clamp_min(0) * hop_s / LEVEL_TIME_CONSTANT_S) * (ages >= 0)
    decay = torch.exp(-(frames + 1) * hop_s / LEVEL_TIME_CONSTANT_S)
    total = x @ weights.T + state.total[:, None] * decay
    weight = weights.sum(dim=1) + state.weight * decay
    level = torch.maximum(total / weight, x / 3)
    return level.clamp_min(1e-4), RunningMean(total[:, -1], weight[-1])


def erb_bands(config: DPCRNConfig) -> Tensor:
    """Compute triangular bands of equal width on the ERB-rate scale, which sum to 1 at every bin.

    Args:
        config: configuration with the frequencies and the number of bands.

    Returns:
        Weights, (bands, bins above the linear part).

    Reference:
        Derivation of Auditory Filter Shapes from Notched-Noise Data, Glasberg and Moore, 1990.
    """

    def erb_rate(hz: Tensor) -> Tensor:
        return 21.4 * torch.log10(1 + 0.00437 * hz)

    hz = torch.arange(config.linear_bins, config.bins, dtype=torch.float64) / (2 * config.hop_s)
    low, high = erb_rate(hz[0]), erb_rate(hz[-1])
    position = (erb_rate(hz) - low) / (high - low) * (config.bands - 1)
    return (1 - (position - torch.arange(config.bands)[:, None]).abs()).clamp_min(0).float()
