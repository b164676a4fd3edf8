"""Classifier of short recordings: convolutions over a log spectrum."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.config import config
from denoise.dsp import power
from denoise.errors import ConfigError
from denoise.models.dpcrn import DPCRNConfig, erb_bands

FLOOR = 1e-6  # of the features, relative to the mean power of the recording
MIN_POWER = 1e-20


@config
class AudioClassifierConfig:
    """Configuration of `AudioClassifier`.

    Args:
        class_names: names of the classes.
        frame_s: length of a frame in seconds; frames do not overlap.
        linear_hz: frequency in Hz up to which every bin of ``1 / frame_s`` Hz is a feature.
        top_hz: upper end of the ERB bands in Hz.
        bands: number of ERB bands from ``linear_hz`` to ``top_hz``.
        widths: channels of the convolutions, of which each halves the frequencies, and each but the first the frames.
        window_s: seconds of the recordings in training.
    """

    class_names: tuple[str, ...]
    frame_s: float = 0.032
    linear_hz: float = 1000.0
    top_hz: float = 8000.0
    bands: int = 24
    widths: tuple[int, ...] = (16, 24, 32, 48)
    window_s: float = 2.0

    def __post_init__(self) -> None:
        if not (2 <= len(self.class_names) <= 100 and len(set(self.class_names)) == len(self.class_names)):
            raise ConfigError(f"class_names are {list(self.class_names)}; expected 2 to 100 different names.")
        if not (1 <= len(self.widths) <= 8 and all(1 <= width <= 4096 for width in self.widths)):
            raise ConfigError(f"widths are {list(self.widths)}; expected 1 to 8 numbers of 1 to 4096.")
        if not (1 <= self.bands <= 1000 and 0.1 <= self.window_s <= 60):
            raise ConfigError(
                f"bands is {self.bands}, window_s {self.window_s:g}; expected 1 to 1000 bands and 0.1 to 60 seconds."
            )
        _ = self.spectrum  # checks the frequencies

    @property
    def spectrum(self) -> DPCRNConfig:
        """Bins and bands, as those of the denoisers."""
        return DPCRNConfig(
            hop_s=self.frame_s / 2, linear_hz=self.linear_hz, top_hz=self.top_hz, bands=self.bands, widths=(1, 1)
        )


class AudioClassifier(nn.Module):
    """Convolutions over log powers of bins and ERB bands, and the mean and maximum of their output over time.

    Frames last equally long at any sample rate, so that a bin has the same frequency in all recordings; bands that a
    low rate lacks are at the floor. The power is relative to the mean of the recording, so that the result does not
    depend on the level.

    Args:
        config: see `AudioClassifierConfig`.
    """

    channels = 1  # any number is accepted: the mean power of all channels is classified
    bands: Tensor

    def __init__(self, config: AudioClassifierConfig) -> None:
        super().__init__()
        self.config, self.class_names, self.window_s = config, config.class_names, config.window_s
        spectrum = config.spectrum
        bands = erb_bands(spectrum)
        self.register_buffer("bands", bands / bands.sum(dim=1, keepdim=True).clamp_min(1e-12), persistent=False)
        self._linear_bins, self._bins = spectrum.linear_bins, spectrum.bins
        layers, positions = nn.ModuleList(), spectrum.positions
        for i, (inputs, outputs) in enumerate(pairwise([1, *config.widths])):
            layers.append(nn.Conv2d(inputs, outputs, 3, stride=(1 if i == 0 else 2, 2), padding=1))
            positions = -(-positions // 2)
        self.layers = layers
        self.head = nn.Linear(2 * config.widths[-1] * positions, len(config.class_names))

    def forward(self, x: Tensor, *, sample_rate: int) -> Tensor:
        """Classify recordings.

        Args:
            x: recordings, (batch, channels, time), full scale 1.0; zeros are added to one shorter than a frame.
            sample_rate: their rate in Hz.

        Returns:
            Logits, (batch, classes).
        """
        return self.classify(self.to_features(x, sample_rate))

    def classify(self, features: Tensor) -> Tensor:
        """Return the logits, (batch, classes), of features, (batch, frames, bins and bands)."""
        h = features[:, None]
        for layer in self.layers:
            h = F.relu(layer(h))
        h = h.permute(0, 2, 1, 3).flatten(2)  # (batch, frames, channels * frequencies)
        logits: Tensor = self.head(torch.cat([h.mean(dim=1), h.amax(dim=1)], dim=-1))
        return logits

    def to_features(self, x: Tensor, sample_rate: int) -> Tensor:
        """Return the features, log powers that do not depend on the level of a recording.

        Args:
            x: recordings, (batch, channels, time).
            sample_rate: their rate in Hz.

        Returns:
            Features, (batch, frames, bins and bands).
        """
        n = frame_length(self.config.frame_s, sample_rate)
        x = F.pad(x.float(), (0, max(0, n - x.shape[-1])))
        x = x / x.abs().amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)  # squares of any floats stay finite
        frames = x.unfold(-1, n, n) * torch.hann_window(n, dtype=x.dtype, device=x.device)
        bins = power(torch.fft.rfft(frames)[..., : self._bins]).mean(dim=1)
        return self.to_relative(F.pad(bins, (0, self._bins - bins.shape[-1])))

    def to_relative(self, bins: Tensor) -> Tensor:
        """Return the features of the power of each bin, (batch, frames, bins up to ``top_hz``), which is changed."""
        bins[..., :2] = 0  # an offset, which leaks into its neighbour, is no sound
        low, high = bins.split([self._linear_bins, self._bins - self._linear_bins], dim=-1)
        powers = torch.cat([low, high @ self.bands.T], dim=-1)
        relative = powers / powers.mean(dim=(1, 2), keepdim=True).clamp_min(MIN_POWER)
        return (torch.log10(relative + FLOOR) + 2) / 2


def frame_length(frame_s: float, sample_rate: int) -> int:
    """Return the samples of a frame: a multiple of 16, as transforms of prime lengths are slow.

    Args:
        frame_s: length of a frame in seconds.
        sample_rate: sample rate in Hz.
    """
    return 16 * max(1, round(frame_s * sample_rate / 16))
