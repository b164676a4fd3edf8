"""Dual-path recurrent network over time and frequency, with an explicit state for streaming."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.nn.blocks import zero_init


class LSTMState(NamedTuple):
    """State of an LSTM of one layer; both are (1, batch, units)."""

    hidden: Tensor
    cell: Tensor


class DualPathBlockState(NamedTuple):
    """State of a `DualPathBlock`; None before the first frame."""

    lookahead: Tensor | None = None  # last frames of the input, (batch, channels, 2 * lookahead, positions)
    along: LSTMState | None = None
    full: LSTMState | None = None


class DualPathState(NamedTuple):
    """State of a `DualPathNet`; None before the first frame."""

    down: tuple[Tensor | None, ...]  # last frame of each input of `Down`
    blocks: tuple[DualPathBlockState, ...]
    skips: tuple[Tensor | None, ...]  # frames of each skip connection that wait for the blocks


class DualPathNet(nn.Module):
    """Convolutional encoder and decoder over frequency with dual-path recurrent blocks between them.

    It maps features of each frame and frequency position to as many positions. ``widths[0]`` channels are computed at
    every position, and each further entry halves the number of positions.

    Args:
        inputs: input channels.
        outputs: output channels.
        positions: frequency positions, a multiple of ``2 ** (len(widths) - 1)``.
        widths: channels of each resolution.
        blocks: number of dual-path blocks at the coarsest resolution.
        hidden: units of the recurrence at each position.
        squeeze: channels of each position that the full-band recurrence receives.
        full_hidden: units of the full-band recurrence.
        lookahead: future frames that each block uses.

    Reference:
        DPCRN: Dual-Path Convolution Recurrent Network for Single Channel Speech Enhancement, 2021, arXiv:2107.05429.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        positions: int,
        widths: tuple[int, ...],
        blocks: int,
        *,
        hidden: int,
        squeeze: int,
        full_hidden: int,
        lookahead: int,
    ) -> None:
        super().__init__()
        stem, *deeper = widths
        self.stem = nn.Conv2d(inputs, stem, (1, 5), padding=(0, 2))
        self.down = nn.ModuleList(Down(a, b) for a, b in zip(widths, deeper, strict=False))
        coarse = positions >> len(deeper)
        self.blocks = nn.ModuleList(
            DualPathBlock(widths[-1], coarse, hidden, squeeze, full_hidden, lookahead) for _ in range(blocks)
        )
        self.up = nn.ModuleList(Up(b, a) for a, b in reversed([*zip(widths, deeper, strict=False)]))
        self.head = nn.Conv2d(stem, outputs, (1, 3), padding=(0, 1))
        self.feature_delay = blocks * lookahead
        """Frames by which the output of `forward_features` lags behind its input."""

    def initial_feature_state(self) -> DualPathState:
        """Return the state of `forward_features` before the first frame."""
        down, blocks = len(self.down), len(self.blocks)
        return DualPathState((None,) * down, (DualPathBlockState(),) * blocks, (None,) * (down + 1))

    def forward_features(self, x: Tensor, state: DualPathState) -> tuple[Tensor, DualPathState]:
        """Process the next frames.

        Args:
            x: features, (batch, inputs, frames, positions).
            state: state after the previous frames; it is not modified.

        Returns:
            Output, (batch, outputs, frames, positions), ``feature_delay`` frames late, and the new state.
        """
        down_states: list[Tensor | None] = []
        block_states: list[DualPathBlockState] = []
        skip_states: list[Tensor | None] = []
        features = F.silu(self.stem(x))
        skips = [features]
        for down, down_state in zip(self.down, state.down, strict=True):
            features, down_state = down(features, down_state)
            skips.append(features)
            down_states.append(down_state)
        for block, block_state in zip(self.blocks, state.blocks, strict=True):
            features, block_state = block(features, block_state)
            block_states.append(block_state)
        for i, skip_state in enumerate(state.skips):
            skips[i], skip_state = delay_frames(skips[i], skip_state, self.feature_delay)
            skip_states.append(skip_state)
        for up in self.up:
            features = up(features + skips.pop())
        output = self.head(features + skips.pop())
        return output, DualPathState(tuple(down_states), tuple(block_states), tuple(skip_states))


class Down(nn.Module):
    """Causal convolution over two frames that halves the number of positions.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, (2, 3), stride=(1, 2), padding=(0, 1))

    def forward(self, x: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        """Process the next frames.

        Args:
            x: features, (batch, in_channels, frames, positions).
            previous: last frame of the previous input, None for zeros.

        Returns:
            Features, (batch, out_channels, frames, positions / 2), and the last frame of ``x``.
        """
        x = torch.cat([torch.zeros_like(x[:, :, :1]) if previous is None else previous, x], dim=2)
        return F.silu(self.conv(x)), x[:, :, -1:]


class Up(nn.Module):
    """Transposed convolution within one frame that doubles the number of positions.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, (1, 4), stride=(1, 2), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, frames, positions) to (batch, out_channels, frames, 2 * positions)."""
        return F.silu(self.conv(x))


class Lookahead(nn.Module):
    """Depthwise convolution over past and future frames with a residual connection.

    Args:
        channels: channels of input and output.
        frames: frames to each side that one output frame depends on; the output is delayed by as many.
    """

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv2d(channels, channels, (2 * frames + 1, 1), groups=channels)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        """Process the next frames.

        Args:
            x: features, (batch, channels, frames, positions).
            previous: last ``2 * self.frames`` frames of the previous input, None for zeros.

        Returns:
            Features of the shape of ``x``, ``self.frames`` frames late, and the last frames of the input.
        """
        n, time = self.frames, x.shape[2]
        x = torch.cat(
            [torch.zeros_like(x[:, :, :1]).expand(-1, -1, 2 * n, -1) if previous is None else previous, x], dim=2
        )
        return x[:, :, n : n + time] + self.out(F.silu(self.conv(x))), x[:, :, time:]


class DualPathBlock(nn.Module):
    """Mixing across frequency within a frame, then recurrences along time: at each position, and over the full band.

    It is the identity at initialisation, so that blocks can be added to a trained network.

    Args:
        channels: channels of input and output.
        positions: frequency positions.
        hidden: units of the recurrence at each position.
        squeeze: channels of each position that the full-band recurrence receives.
        full_hidden: units of the full-band recurrence.
        lookahead: future frames that the block uses; the output is delayed by as many.
    """

    def __init__(
        self, channels: int, positions: int, hidden: int, squeeze: int, full_hidden: int, lookahead: int = 0
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
        self.full = nn.LSTM(squeeze * positions, full_hidden, batch_first=True)
        self.full_out = nn.Linear(full_hidden, squeeze * positions)
        self.full_back = zero_init(nn.Linear(squeeze, channels))

    def forward(self, x: Tensor, state: DualPathBlockState) -> tuple[Tensor, DualPathBlockState]:
        """Process the next frames.

        Args:
            x: features, (batch, channels, frames, positions).
            state: state after the previous frames; it is not modified.

        Returns:
            Features of the shape of ``x``, ``lookahead`` frames late, and the new state.
        """
        lookahead = state.lookahead
        if self.lookahead is not None:
            x, lookahead = self.lookahead(x, lookahead)
        x = x.permute(0, 2, 3, 1)  # (batch, frames, positions, channels)
        batch, frames, positions, channels = x.shape
        mixed = self.across_out(F.silu(self.across_in(self.across_norm(x).transpose(2, 3))))
        x = x + mixed.transpose(2, 3)
        rows = self.along_norm(x).transpose(1, 2).reshape(batch * positions, frames, channels)
        recurrent, along = run_lstm(self.along, rows, state.along)
        x = x + self.along_out(recurrent).reshape(batch, positions, frames, channels).transpose(1, 2)
        recurrent, full = run_lstm(self.full, self.full_in(self.full_norm(x)).flatten(2), state.full)
        x = x + self.full_back(F.silu(self.full_out(recurrent)).reshape(batch, frames, positions, -1))
        return x.permute(0, 3, 1, 2), DualPathBlockState(lookahead, along, full)


def delay_frames(x: Tensor, buffer: Tensor | None, frames: int) -> tuple[Tensor, Tensor | None]:
    """Delay frames by a number of frames.

    Args:
        x: next frames, (batch, channels, frames, positions).
        buffer: last ``frames`` frames of the previous input, None for zeros.
        frames: delay in frames.

    Returns:
        Delayed frames of the shape of ``x``, and the new buffer.
    """
    if not frames:
        return x, None
    x = torch.cat([x.new_zeros(*x.shape[:2], frames, x.shape[3]) if buffer is None else buffer, x], dim=2)
    return x[:, :, :-frames], x[:, :, -frames:]


def run_lstm(lstm: nn.LSTM, x: Tensor, state: LSTMState | None) -> tuple[Tensor, LSTMState]:
    """Run an LSTM in float32 also under autocast, where rounding errors would add up over time.

    An LSTM and not a GRU, because torch runs it on CPUs in one fused kernel, two to three times faster.

    Args:
        lstm: recurrent layer with ``batch_first``.
        x: sequence, (batch, time, features).
        state: state after the previous sequence, None for zeros.

    Returns:
        Outputs, (batch, time, units), and the new state.
    """
    with torch.autocast(x.device.type, enabled=False):
        outputs, (hidden, cell) = lstm(x.float(), state)
    return outputs, LSTMState(hidden, cell)
