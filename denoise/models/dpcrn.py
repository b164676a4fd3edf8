"""The speech denoiser: a dual-path convolutional recurrent network for streams of any sample rate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from denoise.config import config
from denoise.dsp import framed, joined
from denoise.errors import ConfigError
from denoise.nn.dual_path import DualPathNet
from denoise.nn.streaming import Streaming

LEVEL_S = 1.0  # how long the running level remembers


@config
class DPCRNConfig:
    """What the network hears: bins of ``1 / (2 * hop_s)`` Hz up to ``linear_hz``, ERB bands from there to ``top_hz``.

    ``widths[0]`` channels stand at every position; each further entry halves the positions. On the
    coarsest, ``blocks`` dual-path blocks of ``hidden`` units, each with a full-band memory of ``memory``
    units that sees ``squeeze`` numbers of each position. Positions must be a multiple of the halvings.
    Each block waits for the next ``lookahead`` frames of one hop; 0 is causal.
    """

    hop_s: float = 0.016
    linear_hz: float = 5000.0
    top_hz: float = 24_000.0
    bands: int = 32
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 2
    hidden: int = 64
    squeeze: int = 8
    memory: int = 256
    lookahead: int = 0
    compression: float = 0.3

    def __post_init__(self) -> None:
        if not (
            0.001 <= self.hop_s <= 0.1 and 0 < self.linear_hz < self.top_hz <= 96_000 and 0 < self.compression <= 1
        ):
            raise ConfigError("hop_s, linear_hz, top_hz or compression is out of range.")
        sizes = (self.bands - 1, self.hidden, self.squeeze, self.memory, *self.widths)
        if len(self.widths) < 2 or min(sizes) < 1 or max(sizes) > 4096 or not 1 <= self.blocks <= 100:
            raise ConfigError("widths needs two entries or more; bands, hidden, squeeze, memory and widths 1 to 4096.")
        if not 0 <= self.lookahead <= 1000:
            raise ConfigError(f"lookahead is {self.lookahead} frames; expected 0 to 1000.")
        if self.positions % (1 << (len(self.widths) - 1)):
            raise ConfigError(f"{self.positions} bins and bands cannot be halved {len(self.widths) - 1} times.")

    @property
    def linear_bins(self) -> int:
        return round(self.linear_hz * 2 * self.hop_s)

    @property
    def bins(self) -> int:
        return round(self.top_hz * 2 * self.hop_s) + 1

    @property
    def positions(self) -> int:
        """Points over frequency that the network works on."""
        return self.linear_bins + self.bands

    def net(self) -> dict[str, Any]:
        """Of a `DualPathNet`."""
        own = ("positions", "widths", "blocks", "hidden", "squeeze", "memory", "lookahead")
        return {name: getattr(self, name) for name in own}


@dataclass(frozen=True)
class DPCRNState:
    """What a stream carries from block to block: the last hop in, half a frame out, and all memories."""

    hop: int
    history: Tensor  # (batch, channels, hop)
    waiting: Tensor  # spectra whose mask is not known yet: (batch, channels, frames ahead, bins)
    overlap: Tensor  # (batch, channels, hop)
    level: tuple[Tensor, Tensor]  # weighted sum of levels (batch,), sum of weights ()
    memories: tuple[Tensor | None, ...]


class DPCRN(Streaming, DualPathNet):
    """A mask over the short-time spectrum, drawn frame by frame from what has been heard up to ``lookahead`` later.

    Frames last ``2 * hop_s`` at any sample rate, so that a bin means the same frequency in all files
    and nothing is resampled: bins that a low rate lacks are silent, those above ``top_hz`` get the gain
    of the highest band. Magnitudes are compressed and divided by their running mean: quiet speech is
    heard as loud speech is. The mask is a gain below one and, up to ``linear_hz``, a phase; all channels
    of one signal share it, so that the stereo image stays.

    Shape:
        x, returns: (batch, channels, time) at ``sample_rate`` Hz, full scale 1.0; sigma is refused.
    Unlike the published one, it sees ERB bands above a linear part, mixes within a frame by full layers in place of
    a recurrence, remembers the whole band beside each position, and gives a gain and a phase in place of a
    complex factor.

    Reference:
        DPCRN: Dual-Path Convolution Recurrent Network for Single Channel Speech Enhancement, 2021,
        arXiv:2107.05429; GTCRN, Rong et al., 2024 (bands above a linear part, shared recurrences).
    """

    def __init__(self, config: DPCRNConfig) -> None:
        super().__init__(3, 3, **config.net())
        self.config = config
        self.delay = 1 + self.late  # half a frame, and what the blocks wait for

    def start(self, batch: int, channels: int, sample_rate: int) -> DPCRNState:
        """The state before the first sample."""
        hop, like = self.hop(sample_rate), self.stem.weight.detach()
        silence = like.new_zeros(batch, channels, hop, dtype=torch.float32)
        level = (like.new_zeros(batch, dtype=torch.float32), like.new_zeros((), dtype=torch.float32))
        waiting = like.new_zeros(batch, channels, self.delay - 1, hop + 1, dtype=torch.complex64)
        return DPCRNState(hop, silence, waiting, silence, level, self.memories())

    def stream(self, x: Tensor, state: DPCRNState) -> tuple[Tensor, DPCRNState]:
        """Denoise the next hops of a stream; what comes out is ``delay`` hops late.

        Shape:
            x, returns: (batch, channels, a multiple of hop).
        """
        hop = state.hop
        spectrum, history = framed(x.float(), state.history)
        mask, level, memories = self._mask(spectrum / hop, state)
        spectrum = torch.cat([state.waiting, spectrum], dim=2)
        spectrum, waiting = spectrum.split([mask.shape[1], self.delay - 1], dim=2)
        out, overlap = joined(spectrum * mask[:, None], state.overlap)
        return out.to(x.dtype), DPCRNState(hop, history, waiting, overlap, level, memories)

    def _mask(
        self, spectrum: Tensor, state: DPCRNState
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor | None, ...]]:
        """Shape: spectrum (batch, channels, frames, bins) to one factor for all channels, (batch, frames, bins)."""
        c = self.config
        features = heard(spectrum, c)
        level, carried = running_level(features[:, 0].mean(dim=-1), state.level, c.hop_s)
        out, memories = self.body(features / level[:, None, :, None], state.memories)
        return mask_of(out.float(), c, spectrum.shape[-1]), carried, memories


def heard(spectrum: Tensor, c: DPCRNConfig) -> Tensor:
    """Compressed magnitudes of bins and bands, and up to ``linear_hz`` the spectrum with these magnitudes.

    Shape:
        spectrum: (batch, channels, frames, bins), complex; returns (batch, 3, frames, positions).
    """
    power = (spectrum.real.square() + spectrum.imag.square()).mean(dim=1)
    mixed = spectrum.mean(dim=1)[..., : c.linear_bins]
    power, mixed = (F.pad(z, (0, max(0, m - z.shape[-1]))) for z, m in ((power, c.bins), (mixed, c.linear_bins)))
    bands = erb_bands(c).to(power.device)
    low, high = power[..., : c.linear_bins], power[..., c.linear_bins : c.bins]
    high = high @ (bands / bands.sum(dim=1, keepdim=True)).T
    magnitude = (torch.cat([low, high], dim=-1) + 1e-20) ** (c.compression / 2)
    phase = mixed / mixed.abs().clamp_min(1e-12)
    turned = torch.stack([phase.real, phase.imag], dim=1) * magnitude[:, None, :, : c.linear_bins]
    return torch.cat([magnitude[:, None], F.pad(turned, (0, c.bands))], dim=1)


def mask_of(out: Tensor, c: DPCRNConfig, bins: int) -> Tensor:
    """A gain below one and a turn. Shape: out (batch, 3, frames, positions), returns (batch, frames, bins), complex."""
    gain = over_bins(torch.sigmoid(out[:, 0] + 2.0), c, bins)
    turn = torch.complex(out[:, 1] + 1.0, out[:, 2])[..., : c.linear_bins]  # at first no turn at all
    turn = F.pad(turn / turn.abs().clamp_min(1e-6), (0, max(0, bins - c.linear_bins)), value=1.0)
    return gain * turn[..., :bins]


def over_bins(x: Tensor, c: DPCRNConfig, bins: int) -> Tensor:
    """What is known at bins and bands, at all bins. Shape: (..., positions) to (..., bins)."""
    above = x[..., c.linear_bins :] @ erb_bands(c).to(x.device)
    known = torch.cat([x[..., : c.linear_bins], above], dim=-1)
    beyond = known[..., -1:].expand(*known.shape[:-1], max(0, bins - c.bins))
    return torch.cat([known, beyond], dim=-1)[..., :bins]


def running_level(x: Tensor, state: tuple[Tensor, Tensor], hop_s: float) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The exponentially weighted mean so far, at least a third of the present value.

    Shape:
        x, returns: (batch, frames).
    """
    frames = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
    ages = frames[:, None] - frames
    weights = torch.exp(-ages.clamp_min(0) * hop_s / LEVEL_S) * (ages >= 0)
    fading = torch.exp(-(frames + 1) * hop_s / LEVEL_S)
    total = x @ weights.T + state[0][:, None] * fading
    weight = weights.sum(dim=1) + state[1] * fading
    level = torch.maximum(total / weight, x / 3)
    return level.clamp_min(1e-4), (total[:, -1], weight[-1])


@cache  # not a buffer: a network is loaded without memory first
@torch.inference_mode(False)  # nor one of the tensors that no gradient may see, whoever asks first
def erb_bands(c: DPCRNConfig) -> Tensor:
    """Triangles of equal width on the ERB-rate scale, which sum to one at every bin.

    Shape:
        returns: (bands, bins above the linear part).
    Reference:
        Derivation of Auditory Filter Shapes from Notched-Noise Data, Glasberg and Moore, 1990.
    """

    def erb(hz: Tensor) -> Tensor:
        return 21.4 * torch.log10(1 + 0.00437 * hz)

    hz = torch.arange(c.linear_bins, c.bins, dtype=torch.float64) / (2 * c.hop_s)
    low, high = erb(hz[0]), erb(hz[-1])
    place = (erb(hz) - low) / (high - low) * (c.bands - 1)
    return (1 - (place - torch.arange(c.bands)[:, None]).abs()).clamp_min(0).float()
