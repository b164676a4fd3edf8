"""The speech denoiser: a dual-path convolutional recurrent network for streams of any sample rate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.config import config
from denoise.errors import ConfigError
from denoise.nn.blocks import zero_init
from denoise.nn.conditioning import check_sigma

DEFAULT_RATE = 48_000
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


@dataclass(frozen=True)
class DPCRNState:
    """What a stream carries from block to block: the last hop in, half a frame out, and all memories."""

    hop: int
    history: Tensor  # (batch, channels, hop)
    waiting: Tensor  # spectra whose mask is not known yet: (batch, channels, frames ahead, bins)
    overlap: Tensor  # (batch, channels, hop)
    level: tuple[Tensor, Tensor]  # weighted sum of levels (batch,), sum of weights ()
    memories: tuple[Tensor | None, ...]


class DPCRN(nn.Module):
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

    channels = 1  # or any number: they share the mask
    ndim = 1
    blind = True
    size_multiple = 1
    window: int | None = None
    context: int | None = None  # all that went before: carried by `stream`

    def __init__(self, config: DPCRNConfig) -> None:
        super().__init__()
        self.config = c = config
        stem, *deeper = c.widths
        self.stem = nn.Conv2d(3, stem, (1, 5), padding=(0, 2))
        self.down = nn.ModuleList(Down(a, b) for a, b in zip(c.widths, deeper, strict=False))
        coarse = c.positions >> len(deeper)
        self.blocks = nn.ModuleList(
            DualPathBlock(c.widths[-1], coarse, c.hidden, c.squeeze, c.memory, c.lookahead) for _ in range(c.blocks)
        )
        self.up = nn.ModuleList(Up(b, a) for a, b in reversed([*zip(c.widths, deeper, strict=False)]))
        self.head = nn.Conv2d(stem, 3, (1, 3), padding=(0, 1))

    @property
    def delay(self) -> int:
        """Hops that what comes out lags behind what went in: half a frame, and what the blocks wait for."""
        return 1 + self.config.blocks * self.config.lookahead

    @property
    def latency_s(self) -> float:
        """Seconds from a sample's arrival in a stream to its leaving it, computing aside."""
        return (1 + self.delay) * self.config.hop_s

    def hop(self, sample_rate: int) -> int:
        """Samples that a stream takes at a time."""
        return max(1, round(self.config.hop_s * sample_rate))

    def forward(self, x: Tensor, sigma: Tensor | None = None, *, sample_rate: int = DEFAULT_RATE) -> Tensor:
        check_sigma(sigma, blind=self.blind)
        hop, time = self.hop(sample_rate), x.shape[-1]
        late = self.delay * hop
        y, _ = self.stream(F.pad(x, (0, late + -time % hop)), self.start(x.shape[0], x.shape[1], sample_rate))
        return y[..., late : late + time]

    def start(self, batch: int, channels: int, sample_rate: int) -> DPCRNState:
        """The state before the first sample."""
        hop, like = self.hop(sample_rate), self.stem.weight.detach()
        silence = like.new_zeros(batch, channels, hop, dtype=torch.float32)
        level = (like.new_zeros(batch, dtype=torch.float32), like.new_zeros((), dtype=torch.float32))
        waiting = like.new_zeros(batch, channels, self.delay - 1, hop + 1, dtype=torch.complex64)
        memories = (None,) * (len(self.down) + 3 * len(self.blocks) + len(self.config.widths))
        return DPCRNState(hop, silence, waiting, silence, level, memories)

    def stream(self, x: Tensor, state: DPCRNState) -> tuple[Tensor, DPCRNState]:
        """Denoise the next hops of a stream; what comes out is ``delay`` hops late.

        Shape:
            x, returns: (batch, channels, a multiple of hop).
        """
        hop, dtype = state.hop, x.dtype
        x = torch.cat([state.history, x.float()], dim=-1)
        window = torch.hann_window(2 * hop, device=x.device).sqrt()
        spectrum = torch.fft.rfft(x.unfold(-1, 2 * hop, hop) * window)  # (batch, channels, frames, bins)
        mask, level, memories = self._mask(spectrum / hop, state)
        spectrum = torch.cat([state.waiting, spectrum], dim=2)
        spectrum, waiting = spectrum.split([mask.shape[1], self.delay - 1], dim=2)
        frames = torch.fft.irfft(spectrum * mask[:, None], n=2 * hop) * window
        early, late = frames.split(hop, dim=-1)
        late = torch.cat([state.overlap[:, :, None], late], dim=2)
        out = (early + late[:, :, :-1]).flatten(2)
        return out.to(dtype), DPCRNState(hop, x[..., -hop:], waiting, late[:, :, -1], level, memories)

    def _mask(
        self, spectrum: Tensor, state: DPCRNState
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor | None, ...]]:
        """Shape: spectrum (batch, channels, frames, bins) to one factor for all channels, (batch, frames, bins)."""
        c, n = self.config, spectrum.shape[-1]
        power = (spectrum.real.square() + spectrum.imag.square()).mean(dim=1)
        mixed = spectrum.mean(dim=1)[..., : c.linear_bins]
        power, mixed = (F.pad(z, (0, max(0, m - z.shape[-1]))) for z, m in ((power, c.bins), (mixed, c.linear_bins)))
        bands = erb_bands(c).to(power.device)
        low, high = power[..., : c.linear_bins], power[..., c.linear_bins : c.bins]
        high = high @ (bands / bands.sum(dim=1, keepdim=True)).T
        magnitude = (torch.cat([low, high], dim=-1) + 1e-20) ** (c.compression / 2)
        phase = mixed / mixed.abs().clamp_min(1e-12)
        level, carried = running_level(magnitude.mean(dim=-1), state.level, c.hop_s)
        magnitude = magnitude / level[..., None]
        turned = torch.stack([phase.real, phase.imag], dim=1) * magnitude[:, None, :, : c.linear_bins]
        features = torch.cat([magnitude[:, None], F.pad(turned, (0, c.bands))], dim=1)

        out, memories = self._network(features, state.memories)
        out = out.float()
        gain = torch.sigmoid(out[:, 0] + 2.0)
        above = gain[..., c.linear_bins :] @ bands
        turn = torch.complex(out[:, 1] + 1.0, out[:, 2])[..., : c.linear_bins]  # at first no turn at all
        mask = torch.cat([gain[..., : c.linear_bins] * turn / turn.abs().clamp_min(1e-6), above.to(turn.dtype)], dim=-1)
        beyond = mask[..., -1:].expand(*mask.shape[:-1], max(0, n - c.bins))
        return torch.cat([mask, beyond], dim=-1)[..., :n], carried, memories

    def _network(self, x: Tensor, before: tuple[Tensor | None, ...]) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Shape: x (batch, 3, frames, positions), returns the same, ``delay - 1`` frames late."""
        memories = iter(before)
        after: list[Tensor | None] = []
        features = F.silu(self.stem(x))
        skips = [features]
        for down in self.down:
            features, memory = down(features, next(memories))
            skips.append(features)
            after.append(memory)
        for block in self.blocks:
            features, *three = block(features, next(memories), next(memories), next(memories))
            after.extend(three)
        for i, skip in enumerate(skips):
            skips[i], memory = delayed(skip, next(memories), self.delay - 1)
            after.append(memory)
        for up in self.up:
            features = up(features + skips.pop())
        return self.head(features + skips.pop()), tuple(after)


class Down(nn.Module):
    """Half the positions, seen together with the frame before.

    Shape:
        x: (batch, before, frames, positions); returns (batch, after, frames, positions / 2).
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, (2, 3), stride=(1, 2), padding=(0, 1))

    def forward(self, x: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
        x = torch.cat([torch.zeros_like(x[:, :, :1]) if last is None else last, x], dim=2)
        return F.silu(self.conv(x)), x[:, :, -1:]


class Up(nn.Module):
    """The mirror of `Down`, within one frame."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(before, after, (1, 4), stride=(1, 2), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv(x))


class Lookahead(nn.Module):
    """Each frame hears so many frames before and after it, and leaves so many later.

    Shape:
        x, returns: (batch, channels, frames, positions).
    """

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv2d(channels, channels, (2 * frames + 1, 1), groups=channels)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
        n, time = self.frames, x.shape[2]
        x = torch.cat([torch.zeros_like(x[:, :, :1]).expand(-1, -1, 2 * n, -1) if last is None else last, x], dim=2)
        return x[:, :, n : n + time] + self.out(F.silu(self.conv(x))), x[:, :, time:]


class DualPathBlock(nn.Module):
    """Across frequency within a frame, then along time at each position and over the full band.

    It begins as an identity, so that a trained network can grow by more blocks.

    Shape:
        x, returns: (batch, channels, frames, positions), ``lookahead`` frames late.
    """

    def __init__(
        self, channels: int, positions: int, hidden: int, squeeze: int, memory: int, lookahead: int = 0
    ) -> None:
        super().__init__()
        self.lookahead = Lookahead(channels, lookahead) if lookahead else None
        self.across_norm = nn.LayerNorm(channels)
        self.across_in = nn.Linear(positions, 2 * positions)
        self.across_out = zero_init(nn.Linear(2 * positions, positions))
        self.along_norm = nn.LayerNorm(channels)
        self.along = nn.LSTM(channels, hidden, batch_first=True)
        self.along_out = zero_init(nn.Linear(hidden, channels))
        self.full_norm = nn.LayerNorm(channels)
        self.full_in = nn.Linear(channels, squeeze)
        self.full = nn.LSTM(squeeze * positions, memory, batch_first=True)
        self.full_out = nn.Linear(memory, squeeze * positions)
        self.full_back = zero_init(nn.Linear(squeeze, channels))

    def forward(
        self, x: Tensor, ahead: Tensor | None, along: Tensor | None, full: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        if self.lookahead is not None:
            x, ahead = self.lookahead(x, ahead)
        x = x.permute(0, 2, 3, 1)  # (batch, frames, positions, channels)
        batch, frames, positions, channels = x.shape
        mixed = self.across_out(F.silu(self.across_in(self.across_norm(x).transpose(2, 3))))
        x = x + mixed.transpose(2, 3)
        rows = self.along_norm(x).transpose(1, 2).reshape(batch * positions, frames, channels)
        heard, along = recur(self.along, rows, along)
        x = x + self.along_out(heard).reshape(batch, positions, frames, channels).transpose(1, 2)
        heard, full = recur(self.full, self.full_in(self.full_norm(x)).flatten(2), full)
        x = x + self.full_back(F.silu(self.full_out(heard)).reshape(batch, frames, positions, -1))
        return x.permute(0, 3, 1, 2), ahead, along, full


def delayed(x: Tensor, before: Tensor | None, frames: int) -> tuple[Tensor, Tensor | None]:
    """What came so many frames before, and what is still to come. Shape: x (batch, channels, frames, positions)."""
    if not frames:
        return x, None
    x = torch.cat([x.new_zeros(*x.shape[:2], frames, x.shape[3]) if before is None else before, x], dim=2)
    return x[:, :, :-frames], x[:, :, -frames:]


def recur(lstm: nn.LSTM, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run an LSTM in float32 also under autocast: rounding would add up over time.

    LSTM and not GRU, as torch runs it on CPUs in one fused kernel, two to three times faster.
    """
    with torch.autocast(x.device.type, enabled=False):
        out, (hidden, cell) = lstm(x.float(), None if state is None else (state[0], state[1]))
    return out, torch.stack([hidden, cell])


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
