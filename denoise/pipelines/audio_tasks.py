"""What the restoration of a recording does to each window of it: denoise, declip, inpaint or extend."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from denoise.dsp import db_to_amplitude, istft, resample, stft
from denoise.errors import ConfigError, InputError
from denoise.files.audio import AudioReader
from denoise.models.mdct import MDCT, MDCTConfig
from denoise.noise import noise_field
from denoise.options import AudioRestoreOptions, TimeRange
from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.defects import CLIP_TOLERANCE, BandFinder, check_gaps, find_gaps, find_limits, merge_ranges, runs
from denoise.pipelines.full_band import denoise_full_band, gain_hop
from denoise.pipelines.prior_windows import MIN_SIGMA, WindowedPrior
from denoise.sampling.coloured_noise import coefficient_variance, denoise_whitened, noise_power, wiener
from denoise.sampling.linear_prediction import fill_gap
from denoise.sampling.operators import LowPass, Mask, Whitened
from denoise.sampling.sparsity import a_spade

Blocks = Iterator[NDArray[Any]]

SIGMA_START = 20.0  # of a sample that begins with nothing, relative to the level of the prior
SIGMA_REFINED = 2.0  # of one that begins with a good guess
SIGMA_UPPER, ZETA_UPPER = 1.0, 0.8  # of an upper band, which is faint
MIN_NOISE = 1e-5  # standard deviation of white noise
SPADE_WINDOW_S, SPADE_LINES = 0.064, 256  # a frame, and iterations after which all of its lines are used
MAX_CLIPPED = 0.8  # fraction of the samples
FULL_LIMIT, HEADROOM_DB = 0.9, 6.0  # integers that are clipped above the one are lowered by the other


class AudioTask(ABC):
    """Restores windows of a recording.

    Args:
        options: options of the run.
        sample_rate: rate of the recording in Hz.
        prior: prior, if the task takes one.
        name: name of the recording in messages.

    Attributes:
        gain_db: gain of the result.
    """

    def __init__(self, options: AudioRestoreOptions, sample_rate: int, prior: WindowedPrior | None, name: str) -> None:
        self.options, self.sample_rate, self.prior, self.name = options, sample_rate, prior, name
        self.gain_db = options.gain_db or 0.0

    def examine(self, read: Callable[[], Iterator[Tensor]]) -> None:  # noqa: B027 (some tasks need nothing)
        """Find in the whole recording what the options do not tell, before its first window is restored.

        Args:
            read: returns the sections of the recording, (channels, time), each as long as a window but the last; not
                called for pipes, of which each window is examined alone.
        """

    def make_room(self) -> bool:
        """Lower the result if integers would not hold it; return whether that is so."""
        return False

    def add_guides(self, blocks: Blocks) -> Blocks:
        """Append to each block, along the channels, what else `restore` needs.

        Args:
            blocks: recording, (channels, time) each.
        """
        return blocks

    @abstractmethod
    def restore(self, x: Tensor, channels: int, start: int, seed: int) -> Tensor:
        """Restore a window.

        Args:
            x: window of the recording and of its guides, (channels and guides, time).
            channels: channels of the recording.
            start: place of the window in the recording, in samples.
            seed: seed of the sample.

        Returns:
            Restored window, (channels, time).
        """

    def report(self) -> str | None:
        """Return, after the last window, what was found and may be doubted; None if nothing was."""
        return None

    def refusal(self) -> str | None:
        """Return, after the last window, why there was nothing to restore, and what to do; None if there was."""
        return None

    def _refine(self, x: Tensor, unknown: Tensor, start: int, seed: int) -> Tensor:
        """Sample the unknown samples of a window by the prior, beginning with the guess that is in their place."""
        if self.prior is None or not unknown.any():
            return x
        prior, rate = self.prior, self.prior.sample_rate
        low = resample(x.float(), self.sample_rate, rate)
        scale = prior.normalise(low)
        observed = (resample(unknown.float(), self.sample_rate, rate).abs() < 0.01).float()
        y, mask, at = (scale * low)[:, None], observed[:, None], start * rate // self.sample_rate
        sampled = (
            torch.cat(
                [
                    prior.sample(
                        y[i : i + 1],
                        (y * mask)[i : i + 1],
                        Mask(mask[i : i + 1]),
                        sigma=SIGMA_REFINED,
                        sigma_y=MIN_SIGMA * prior.level,
                        steps=self.options.steps,
                        seed=seed + i,
                        at=at,
                    )
                    for i in range(len(y))
                ]
            )[:, 0]
            / scale
        )
        change = resample(sampled - low, rate, self.sample_rate)[:, : x.shape[1]]
        return torch.where(unknown, x + change.to(x), x)


class Denoise(AudioTask):
    """Noise of any colour that varies slowly; its power is that of the residual of a network, if sigma is not given.

    Without samples, the result is the mean of the Wiener filter and of the whitened prior.
    """

    prior: WindowedPrior

    def add_guides(self, blocks: Blocks) -> Blocks:
        """Append the denoised channels."""
        if self.options.sigma is not None:
            return blocks
        network = AudioPipeline("speech", device=self.prior.device.type)
        return _beside(blocks, partial(network.stream, sample_rate=self.sample_rate))

    def restore(self, x: Tensor, channels: int, start: int, seed: int) -> Tensor:
        """Denoise a window; see `AudioTask.restore`."""
        rate = self.prior.sample_rate
        residual = (
            None
            if self.options.sigma is not None
            else resample((x[:channels] - x[channels:]).float(), self.sample_rate, rate)
        )
        denoise = partial(self._denoise, residual=residual, at=start * rate // self.sample_rate, seed=seed)
        noisy = x[:channels].numpy()
        return torch.from_numpy(denoise_full_band(denoise, noisy, self.sample_rate, rate))

    def _denoise(self, samples: NDArray[Any], residual: Tensor | None, at: int, seed: int) -> NDArray[Any]:
        """Denoise (channels, time) at the rate of the prior."""
        hop, time = gain_hop(self.prior.sample_rate), samples.shape[1]
        noisy = F.pad(torch.from_numpy(samples), (0, -time % hop))
        transform = MDCT(MDCTConfig(time=noisy.shape[1], bins=hop))
        spectrum = stft(noisy, 2 * hop, hop)
        if residual is None:
            sigma = max(self.options.sigma or 0.0, MIN_NOISE)
            ratio = self.prior.sample_rate / self.sample_rate
            white = max(ratio * sigma**2, MIN_NOISE**2)  # resampling keeps the power of each Hz
            noise = torch.full_like(spectrum.real, hop * white)
            if ratio > 1:  # the noise ends at half the old rate: white again, it is what the prior knows
                upper = noise_field(seed, 0, len(noisy), (at,), (noisy.shape[1],)).to(noisy) * math.sqrt(white)
                lines = stft(upper, 2 * hop, hop)
                lines[:, : math.ceil(hop / ratio)] = 0
                spectrum, noisy = spectrum + lines, noisy + istft(lines, 2 * hop, hop)
        else:
            noise = noise_power(stft(F.pad(residual, (0, -time % hop)), 2 * hop, hop))
        variance, filtered = coefficient_variance(noise), istft(wiener(spectrum, noise), 2 * hop, hop)
        denoised = []
        for channel in range(len(noisy)):
            x, v = noisy[channel][None, None], variance[channel : channel + 1]
            if self.options.samples:
                scale = self.prior.normalise(filtered[channel])
                operator = Whitened(transform, scale**2 * v)
                denoised.append(
                    self.prior.sample(
                        scale * filtered[channel][None, None],
                        operator.forward(scale * x),
                        operator,
                        sigma=SIGMA_START,
                        sigma_y=1.0,
                        steps=self.options.steps,
                        seed=seed + channel,
                        at=at,
                    )[0]
                    / scale
                )
            else:
                by_prior = denoise_whitened(self.prior, x, transform, v, self.prior.level)[0]
                denoised.append((by_prior + filtered[channel]) / 2)
        return torch.cat(denoised)[:, :time].numpy()


class Declip(AudioTask):
    """Clipped samples: those of sparse spectra, or with a prior, samples of it that begin with these."""

    n_clipped = n_samples = 0

    def __init__(self, options: AudioRestoreOptions, sample_rate: int, prior: WindowedPrior | None, name: str) -> None:
        super().__init__(options, sample_rate, prior, name)
        self._limits: tuple[Tensor, Tensor] | None = None
        if options.limit is not None:
            limit = torch.tensor((1 - CLIP_TOLERANCE) * options.limit, dtype=torch.float64)
            self._limits = -limit, limit

    def examine(self, read: Callable[[], Iterator[Tensor]]) -> None:
        """Find the level of clipping of each channel and polarity."""
        if self._limits is None:
            self._limits = find_limits(read)

    def make_room(self) -> bool:
        """Lower what is clipped near full scale, or perhaps is, unless the gain is told; see `AudioTask.make_room`."""
        bounds = torch.ones(1) if self._limits is None else torch.stack([-self._limits[0], self._limits[1]])
        is_full = (bounds >= (1 - CLIP_TOLERANCE) * FULL_LIMIT) & bounds.isfinite()
        if self.options.gain_db is not None or not is_full.any():
            return False
        self.gain_db = -HEADROOM_DB
        return True

    def restore(self, x: Tensor, channels: int, start: int, seed: int) -> Tensor:
        """Declip a window; see `AudioTask.restore`."""
        low_limit, high_limit = self._limits or find_limits(lambda: [x])
        is_low, is_high = x <= low_limit, x >= high_limit
        clipped = is_low | is_high
        self.n_clipped, self.n_samples = self.n_clipped + int(clipped.sum()), self.n_samples + x.numel()
        if not clipped.any():
            return x * db_to_amplitude(self.gain_db)
        low, high = torch.where(is_low, -torch.inf, x), torch.where(is_high, torch.inf, x)
        window = 2 ** round(math.log2(SPADE_WINDOW_S * self.sample_rate))
        sparse = a_spade(low.double(), high.double(), window=window, step=max(1, window // SPADE_LINES)).to(x)
        restored = self._refine(sparse, clipped, start, seed).clamp(low, high)
        return restored * db_to_amplitude(self.gain_db)

    def refusal(self) -> str | None:
        """Refuse a recording without clipping, or with nothing else; see `AudioTask.refusal`."""
        if not self.n_clipped:
            level = "above the limit" if self.options.limit is not None else "clipped"
            return f"no samples are {level}. Give --limit, the level at which it is clipped."
        if self.n_clipped > MAX_CLIPPED * self.n_samples:
            percentage = 100 * self.n_clipped / self.n_samples
            return f"{percentage:.0f} % of the samples are clipped; expected at most {100 * MAX_CLIPPED:.0f} %."
        return None


class Inpaint(AudioTask):
    """Gaps and clicks: autoregressive interpolation, or with a prior, samples of it that begin with that."""

    def __init__(self, options: AudioRestoreOptions, sample_rate: int, prior: WindowedPrior | None, name: str) -> None:
        super().__init__(options, sample_rate, prior, name)
        self._repaired: set[tuple[int, int]] = set()  # start and end in the recording; windows overlap

    def add_guides(self, blocks: Blocks) -> Blocks:
        """Append whether samples are missing, if that is told."""
        gaps = self.options.gaps
        if gaps is None:
            return blocks
        return self._add_mask(blocks, gaps) if isinstance(gaps, str | Path) else self._add_ranges(blocks, gaps)

    def restore(self, x: Tensor, channels: int, start: int, seed: int) -> Tensor:
        """Fill in the gaps of a window; see `AudioTask.restore`."""
        x, guide = x[:channels], x[channels:]
        missing = (guide != 0).expand_as(x) if len(guide) else find_gaps(x, self.sample_rate)
        check_gaps(missing, self.sample_rate, self.name)
        if missing.all():
            raise InputError(f"{self.name}: every sample is missing; expected some that are not.")
        filled = x.clone()
        for channel, mask in enumerate(missing):
            ranges = runs(mask)
            self._repaired |= {(start + first, start + last) for first, last in ranges}
            for first, last in ranges:
                filled[channel, first:last] = fill_gap(x[channel], mask, first, last, self.sample_rate)
        return self._refine(filled, missing, start, seed)

    def report(self) -> str | None:
        """Return how much was taken for gaps and clicks; see `AudioTask.report`."""
        if self.options.gaps is not None:
            return None
        places = merge_ranges(sorted(self._repaired), 0)
        ms = 1000 * sum(last - first for first, last in places) / self.sample_rate
        return (
            f"gaps and clicks were found and replaced: {len(places):,}, of {ms:,.4g} ms in total. If they were sound, "
            "state where gaps are."
        )

    def _add_ranges(self, blocks: Blocks, ranges: Sequence[TimeRange]) -> Blocks:
        position, samples = 0, [(round(a * self.sample_rate), round(b * self.sample_rate)) for a, b in ranges]
        for block in blocks:
            mask = np.zeros_like(block[:1])
            for first, last in samples:
                mask[:, max(0, first - position) : max(0, last - position)] = 1
            position += block.shape[1]
            yield np.concatenate([block, mask])
        if max(last for _, last in samples) > position:
            raise ConfigError(
                f"{self.name}: the recording lasts {position / self.sample_rate:.3g} s; a gap ends at "
                f"{max(b for _, b in ranges):g} s."
            )

    def _add_mask(self, blocks: Blocks, path: str | Path) -> Blocks:
        with AudioReader(path) as reader:
            form = reader.format
            for block in blocks:
                if form.sample_rate != self.sample_rate or form.channels not in (1, len(block)):
                    raise ConfigError(
                        f"{self.name}: {len(block)} channels, {self.sample_rate} Hz; the mask {path} has "
                        f"{form.channels}, {form.sample_rate} Hz. Expected the same rate, and 1 channel or as many."
                    )
                mask = np.empty((form.channels, 0))
                while mask.shape[1] < block.shape[1] and (more := reader.read(block.shape[1] - mask.shape[1])).shape[1]:
                    mask = np.concatenate([mask, more], axis=1)
                if mask.shape[1] < block.shape[1]:
                    raise ConfigError(
                        f"{self.name}: the mask {path} ends before the recording; expected a mask of the same length."
                    )
                yield np.concatenate([block, (mask != 0).astype(block.dtype)])
            if reader.read(1).shape[1]:
                raise ConfigError(
                    f"{self.name}: the mask {path} is longer than the recording; expected a mask of the same length."
                )

    def refusal(self) -> str | None:
        """Refuse a recording without gaps; see `AudioTask.refusal`."""
        if not self._repaired:
            return "no gap and no click was found. Give the gaps, such as 1.2-1.25 s."
        return None


class Extend(AudioTask):
    """A missing upper band: samples of the prior whose lower band is that of the recording."""

    prior: WindowedPrior

    def __init__(self, options: AudioRestoreOptions, sample_rate: int, prior: WindowedPrior | None, name: str) -> None:
        super().__init__(options, sample_rate, prior, name)
        self._finder, self._band, self._is_known = BandFinder(sample_rate), options.band, options.band is not None

    def examine(self, read: Callable[[], Iterator[Tensor]]) -> None:
        """Find the end of the band."""
        if self._is_known:
            return
        for x in read():
            self._band = self._finder.add(x)
        self._is_known = True

    def restore(self, x: Tensor, channels: int, start: int, seed: int) -> Tensor:
        """Add the upper band to a window; see `AudioTask.restore`."""
        found = self._band if self._is_known else self._finder.add(x)
        if found is None or found > 0.9 * self.prior.sample_rate / 2:
            return x
        self._band, rate = found, self.prior.sample_rate
        low_pass = LowPass(found / rate)
        low = resample(x.float(), self.sample_rate, rate)
        scale, at = self.prior.normalise(low), start * rate // self.sample_rate
        y = scale * low[:, None]
        upper = torch.cat(
            [
                self.prior.sample(
                    y[i : i + 1],
                    low_pass.forward(y[i : i + 1]),
                    low_pass,
                    sigma=SIGMA_UPPER,
                    sigma_y=MIN_SIGMA * self.prior.level,
                    steps=self.options.steps,
                    seed=seed + i,
                    at=at,
                    sigma_end=MIN_SIGMA,
                    zeta=ZETA_UPPER,
                )
                for i in range(channels)
            ]
        )
        upper = (upper - low_pass.forward(upper))[:, 0] / scale
        return x + resample(upper, rate, self.sample_rate)[:, : x.shape[1]].to(x)

    def refusal(self) -> str | None:
        """Refuse a recording of full band; see `AudioTask.refusal`."""
        if self._band is None or self._band > 0.9 * self.prior.sample_rate / 2:
            return (
                f"the band does not end below {0.45 * self.prior.sample_rate:.0f} Hz, as far as the prior goes. Give "
                "--band, the highest frequency that it holds."
            )
        return None


TASK_CLASSES: dict[str, type[AudioTask]] = {
    "denoise": Denoise,
    "declip": Declip,
    "inpaint": Inpaint,
    "extend": Extend,
}


def _beside(blocks: Blocks, process: Callable[[Iterable[NDArray[Any]]], Blocks]) -> Blocks:
    """Append to a stream of blocks what a streaming function makes of it, of the same length."""
    waiting: deque[NDArray[Any]] = deque()

    def tap() -> Blocks:
        for block in blocks:
            waiting.append(block)
            yield block

    for processed in process(tap()):
        n, parts = processed.shape[1], []
        while n:
            block = waiting.popleft()
            parts.append(block[:, :n])
            if block.shape[1] > n:
                waiting.appendleft(block[:, n:])
            n -= parts[-1].shape[1]
        if parts:
            yield np.concatenate([np.concatenate(parts, axis=1), processed])
