"""A network over time and frequency that remembers: what speech denoisers have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.nn.blocks import zero_init


class DualPathNet(nn.Module):
    """From features of each frame and position to as many others, with what was heard before.

    ``widths[0]`` channels stand at every position; each further entry halves the positions. ``blocks`` are on the
    coarsest; each waits for the next ``lookahead`` frames.

    Shape:
        `body`: (batch, inputs, frames, positions) to (batch, outputs, frames, positions).
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
        memory: int,
        lookahead: int,
    ) -> None:
        super().__init__()
        stem, *deeper = widths
        self.stem = nn.Conv2d(inputs, stem, (1, 5), padding=(0, 2))
        self.down = nn.ModuleList(Down(a, b) for a, b in zip(widths, deeper, strict=False))
        coarse = positions >> len(deeper)
        self.blocks = nn.ModuleList(
            DualPathBlock(widths[-1], coarse, hidden, squeeze, memory, lookahead) for _ in range(blocks)
        )
        self.up = nn.ModuleList(Up(b, a) for a, b in reversed([*zip(widths, deeper, strict=False)]))
        self.head = nn.Conv2d(stem, outputs, (1, 3), padding=(0, 1))
        self.late = blocks * lookahead
        """Frames that what comes out lags behind what went in."""

    def memories(self) -> tuple[Tensor | None, ...]:
        """What is remembered before the first frame: nothing, in as many places."""
        return (None,) * (2 * len(self.down) + 1 + 3 * len(self.blocks))

    def body(self, x: Tensor, before: tuple[Tensor | None, ...]) -> tuple[Tensor, tuple[Tensor | None, ...]]:
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
            skips[i], memory = delayed(skip, next(memories), self.late)
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
