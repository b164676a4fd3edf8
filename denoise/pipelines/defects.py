"""Detection of defects of recordings: clipping, gaps, clicks, and the end of the band."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from denoise.dsp import power, stft
from denoise.errors import ConfigError
from denoise.sampling.linear_prediction import fit_autoregressive

CLIP_TOLERANCE = 1e-3  # of the level of clipping: samples as near to it are clipped
MIN_CLIPPED = 8  # samples at the level of clipping
CLIP_BAND = 10  # times wider is the band below, which holds fewer samples; of a smooth peak it holds twice as many
MIN_CLIP_LEVEL = 0.01

MIN_ZEROS_S, MAX_GAP_S = 0.001, 0.1
EDGE_S = 0.003  # beside a gap, where there must be sound
EDGE_LEVEL = 10 ** (-50 / 20)

CLICK_ORDER = 32
CLICK_FRAME_S = 0.04
CLICK_RATIO = 12.0  # prediction error in robust standard deviations
CLICK_PEAK_RATIO = 3.0  # over the error of what is no click: voices have three pulses or more in a frame
CLICKS = 2  # in a frame
CLICK_LEVEL = 10 ** (-60 / 20)
CLICK_MARGIN_S = 0.0004  # on both sides of a click
ONSET_S, ONSET_RATIO, MIN_ONSET = 0.005, 8.0, 0.01  # more power behind than before, by the peak's: a sound that decays

BAND_FRAME_S = 0.032
BAND_DROP_DB = 25.0  # of the spectrum within BAND_STEP_HZ at the end of a band
BAND_STEP_HZ = 500.0


def find_limits(read: Callable[[], Iterable[Tensor]]) -> tuple[Tensor, Tensor]:
    """Find the levels at which channels are clipped: many samples are at the largest value, and few a little below.

    Args:
        read: returns the sections of the recording, (channels, time), from its start; it is called twice.

    Returns:
        Lower and upper limit of each channel, (channels, 1); infinite where it is not clipped.
    """
    peaks = reduce(torch.maximum, (_polarities(x).amax(dim=2, keepdim=True) for x in read()))
    limits, n_top, n_below = (1 - CLIP_TOLERANCE) * peaks, torch.tensor(0), torch.tensor(0)
    for x in read():
        signed = _polarities(x)
        is_top = signed >= limits
        n_top = n_top + is_top.sum(dim=2, keepdim=True)
        is_near = signed >= (1 - CLIP_BAND * CLIP_TOLERANCE) * peaks
        n_below = n_below + (is_near & ~is_top).sum(dim=2, keepdim=True)
    is_clipped = (peaks >= MIN_CLIP_LEVEL) & (n_top >= MIN_CLIPPED) & (n_top >= n_below)
    low, high = torch.where(is_clipped, limits, torch.inf)
    return -low, high


def _polarities(x: Tensor) -> Tensor:
    """Return a section turned over and as it is, (2, channels, time)."""
    return torch.stack([-x, x])


def find_gaps(x: Tensor, sample_rate: int) -> Tensor:
    """Find runs of zeros within sound, and clicks.

    Args:
        x: recording, (channels, time).
        sample_rate: its rate in Hz.

    Returns:
        Whether each sample is missing, (channels, time).
    """
    reach = CLICK_ORDER + 2 * math.ceil(CLICK_MARGIN_S * sample_rate)
    found = []
    for channel in x:
        zeros = _find_zeros(channel, sample_rate)
        near = F.max_pool1d(zeros[None].float(), 2 * reach + 1, 1, reach)[0] > 0  # the edges of a gap look like clicks
        found.append(zeros | (_find_clicks(channel, sample_rate) & ~near))
    return torch.stack(found)


def runs(mask: Tensor) -> list[tuple[int, int]]:
    """Return start and end of the runs of true entries of a mask, (time,)."""
    edges = F.pad(mask.int(), (1, 1)).diff()
    return [*zip((edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist(), strict=True)]


def _find_zeros(x: Tensor, sample_rate: int) -> Tensor:
    found, edge = torch.zeros(len(x), dtype=torch.bool), math.ceil(EDGE_S * sample_rate)
    for start, end in runs(x == 0):
        sides = (x[max(0, start - edge) : start], x[end : end + edge])
        if MIN_ZEROS_S <= (end - start) / sample_rate <= MAX_GAP_S and all(
            len(side) == edge and side.square().mean().sqrt() >= EDGE_LEVEL for side in sides
        ):
            found[start:end] = True
    return found


def _find_clicks(x: Tensor, sample_rate: int) -> Tensor:
    """Find up to `CLICKS` places a frame where the prediction error stands out from all others."""
    length, margin = 2 ** round(math.log2(CLICK_FRAME_S * sample_rate)), math.ceil(CLICK_MARGIN_S * sample_rate)
    hop = length // 2
    n_found = torch.zeros(len(x), dtype=torch.int32)
    for start in range(-hop, len(x), hop):
        begin, end = max(0, start), min(len(x), start + length)
        frame = x[begin:end]
        if len(frame) <= 2 * CLICK_ORDER or frame.abs().amax() < CLICK_LEVEL:
            continue
        frame = frame.double()
        filter_ = fit_autoregressive(frame, CLICK_ORDER)
        error = F.conv1d(frame[None, None], filter_.flip(0)[None, None])[0, 0].abs()
        others = error.clone()
        for _ in range(CLICKS):
            peak = int(others.argmax())
            others[max(0, peak - 2 * margin) : peak + 2 * margin + CLICK_ORDER] = 0
        threshold = torch.stack([CLICK_RATIO / 0.6745 * error.median(), CLICK_PEAK_RATIO * others.amax()]).amax()
        is_pulse = F.pad(error > threshold.clamp_min(CLICK_LEVEL), (CLICK_ORDER, 0))
        for first, last in merge_ranges(runs(is_pulse), 2 * margin):
            n_found[begin + max(0, first - margin) : begin + min(len(frame), last + margin)] += 1
    is_click = n_found > 1  # in both frames of each sample: in one, the first pulse of a voice stands out as well
    side, power = math.ceil(ONSET_S * sample_rate), x.square().masked_fill(is_click, 0)  # of what is around clicks
    for first, last in runs(is_click):
        before, behind = (power[each].mean() for each in (slice(max(0, first - side), first), slice(last, last + side)))
        highest = x[first:last].square().amax()
        is_click[first:last] = not (behind > ONSET_RATIO * before and behind > MIN_ONSET * highest)
    return is_click


def merge_ranges(ranges: list[tuple[int, int]], distance: int) -> list[tuple[int, int]]:
    """Return ranges of samples with those joined that are near each other.

    Args:
        ranges: start and end of each, sorted.
        distance: samples between two that are joined.
    """
    merged = ranges[:1]
    for start, end in ranges[1:]:
        if start - merged[-1][1] <= distance:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


class BandFinder:
    """The frequency at which the spectrum of a recording ends, from all of it so far.

    Args:
        sample_rate: rate of the recording in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._hop = 2 ** round(math.log2(BAND_FRAME_S / 2 * sample_rate))
        self._power = torch.zeros(self._hop + 1, dtype=torch.float64)

    def add(self, x: Tensor) -> float | None:
        """Add a section of the recording.

        Args:
            x: samples, (channels, time).

        Returns:
            Frequency in Hz, or None if the band reaches up to half the sample rate.
        """
        x = F.pad(x.double(), (0, -x.shape[1] % self._hop))
        self._power += power(stft(x, 2 * self._hop, self._hop)).sum(dim=(0, 2))
        bin_hz = self._sample_rate / (2 * self._hop)
        step, smooth = max(1, round(BAND_STEP_HZ / bin_hz)), max(1, round(100 / bin_hz))
        kernel = torch.ones(1, 1, smooth, dtype=torch.float64) / smooth
        level_db = 10 * (F.conv1d(self._power[None, None], kernel)[0, 0] + 1e-20).log10()
        is_edge = level_db[:-step] - level_db[step:] >= BAND_DROP_DB
        # above the end of a band there is nothing near the level below it
        above = level_db.flip(0).cummax(dim=0).values.flip(0)[step:]
        is_edge &= level_db[:-step] - above >= BAND_DROP_DB
        if not is_edge.any():
            return None
        return (int(is_edge.nonzero()[-1, 0]) + smooth // 2) * bin_hz


def check_gaps(missing: Tensor, sample_rate: int, name: str) -> None:
    """Refuse gaps that are too long to be filled.

    Args:
        missing: whether each sample is missing, (channels, time).
        sample_rate: rate of the recording in Hz.
        name: name of the recording in messages.

    Raises:
        ConfigError: a gap is longer than `MAX_GAP_S`.
    """
    longest = max((end - start for channel in missing for start, end in runs(channel)), default=0) / sample_rate
    if longest > MAX_GAP_S * 1.001:
        raise ConfigError(f"{name}: a gap lasts {1000 * longest:.0f} ms; expected at most {1000 * MAX_GAP_S:.0f} ms.")
