"""Recordings: file --> blocks --> windows --> model --> overlap-add --> blocks --> file."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from denoise.dsp import resample, stft
from denoise.errors import ConfigError, InputError
from denoise.files.audio import AudioReader, AudioWriter, RawFormat
from denoise.frames import Grid, Window, overlap_add, split
from denoise.pipelines.device import as_numpy, pick_device
from denoise.pipelines.latent_noise import Draw, check_dial
from denoise.pipelines.result import Result, doubted_much, limited_strength
from denoise.pipelines.stream import STEPS, AudioStream
from denoise.protocols import FlowNetwork, Progress, StreamingNetwork
from denoise.registry import DEFAULTS, WITH_DRAWS, load, version
from denoise.sampling.consistency import Consistency
from denoise.signals import MAX_CHANNELS, AudioFormat, require_finite_samples

BLOCK_S = 20.0
STEP_S = 2.0  # read and streamed at a time: tensors that still fit the cache
FADE_S = 0.02
RESAMPLER_S = 0.1  # what the resampling filters reach, generously
Samples = TypeVar("Samples", bound=NDArray[Any] | Tensor)


class AudioPipeline:
    """A loaded audio denoiser that takes files, bytes and streams of samples.

    Channels are never folded: a streaming network draws one mask for a stereo pair and one for each of any other
    number of channels; others denoise them one by one (in pairs, a stereo model). ``block`` is how many seconds
    a network without a state sees at a time; it bounds the memory and does not change the result.
    """

    def __init__(self, model: str | Path = DEFAULTS["audio"], *, device: str = "auto", block: float = BLOCK_S) -> None:
        self.device = pick_device(device)
        if not 0 < block < math.inf:
            raise ConfigError(f"block is {block:g} s; expected more than 0.")
        self.block = block
        self.model, self.card = load(model, kind="denoiser", modality="audio")
        if self.card.sample_rate is None:
            raise ConfigError(f"{model}: the card states no sample rate. Export the model again.")
        self.sample_rate: int = self.card.sample_rate
        self.model.to(self.device)

    def file(
        self,
        source: str | Path | BinaryIO,
        target: str | Path | BinaryIO,
        *,
        strength: float = 1.0,
        attenuation_limit: float | None = None,
        overwrite: bool = False,
        raw: RawFormat | None = None,
        progress: Progress | None = None,
        name: str | None = None,
        perception: float | None = None,
        steps: int = STEPS,
        draw: int | None = None,
    ) -> Result:
        """Denoise an audio file into another of the same make, block by block; a pipe as its bytes arrive.

        ``draw`` is the seed of one of the answers that are likely, in place of their mean, of a variational model or
        of one that goes to them on a path. With the latter, ``perception`` goes from the mean (0) to that one (1), in
        so many ``steps``, calls of the network.

        Raises:
            InputError: the file cannot be read or the target cannot be written; nothing is left behind.
        """
        strength = limited_strength(strength, attenuation_limit)
        self.check_drawing(perception, steps, draw)
        draws = None if draw is None or perception == 0 else [draw]
        drawing: dict[str, Any] = {"draws": draws, "steps": steps, "perception": perception}
        judged: list[tuple[Consistency, float]] = []
        started = time.perf_counter()
        before, after = _NoiseFloor(), _NoiseFloor()
        with AudioReader(source, raw=raw, name=name) as reader:
            rate, frames = reader.format.sample_rate, reader.frames
            # who listens while it is recorded shall not wait
            step = self._hop(rate) if reader.live else round(STEP_S * rate)

            def chunks() -> Iterator[NDArray[Any]]:
                while (chunk := reader.read(step)).shape[1]:
                    before.add(chunk, rate)
                    yield chunk

            done = 0
            with AudioWriter(target, reader.format, overwrite=overwrite, raw=raw, frames=frames) as writer:
                for out in self.stream(chunks(), rate, strength=strength, judged=judged.append, **drawing):
                    after.add(out, rate)
                    writer.write(out)
                    done += out.shape[1]
                    if progress and frames:
                        progress(min(1.0, done / frames))
            seconds = time.perf_counter() - started
            return Result(
                input=reader.name,
                output=str(target),
                seconds=round(seconds, 3),
                speed=round(done / rate / seconds, 2),
                speed_unit="times_real_time",
                noise_before=before.level_db(),
                noise_after=after.level_db(),
                noise_unit="dbfs",
                residual=judged[0][0] if judged else None,
                warnings=tuple(reader.warnings) + (doubted_much(reader.name, judged[0][1]) if judged else ()),
            )

    def bytes(self, data: bytes, **how: Any) -> bytes:
        """Denoise an audio file in memory, as `file` does; the result is a file of the same make."""
        out = io.BytesIO()
        self.file(io.BytesIO(data), out, name="audio bytes", **how)
        return out.getvalue()

    def stream(
        self,
        chunks: Iterable[NDArray[Any]],
        sample_rate: int,
        *,
        strength: float = 1.0,
        attenuation_limit: float | None = None,
        draws: Sequence[int] | None = None,
        steps: int = STEPS,
        perception: float | None = None,
        judged: Callable[[tuple[Consistency, float]], None] = lambda told: None,
    ) -> Iterator[NDArray[Any]]:
        """Denoise chunks as they come; what comes out has the same total length and no shift.

        ``draws`` are the seeds of answers that a variational model can give, in place of their mean. A model that goes
        to them on a path calls its network ``steps`` times for each and once for the mean; ``perception`` mixes from
        the mean (0) to them (1, if not told), and ``judged`` gets what is to be said of each at the end: how far what
        it takes away is noise, and the share of its change that gave way to the mean.

        Shape:
            chunks: (channels, any time) each, float32 or float64; what is yielded as well, the answers of
                ``draws`` one below the other: (draws * channels, time).
        Raises:
            InputError: shape, type or values of a chunk do not fit; what was yielded before stands.
        """
        strength = limited_strength(strength, attenuation_limit)
        self.check_drawing(perception, steps, draws)
        if perception and draws is None:
            draws = [0]
        AudioFormat(sample_rate, 1)  # checks the rate
        chunks = _checked(chunks)
        if strength == 0 and draws is None:
            yield from chunks
            return
        if isinstance(self.model, StreamingNetwork):
            share = 1.0 if perception is None else perception
            drawn = [cast(FlowNetwork, self.model).drawn(seed, steps, share) for seed in draws or ()]
            yield from self._carried(drawn or [self.model], chunks, sample_rate, strength, judged)
            return
        grid = self._grid(sample_rate)
        tensors = (torch.from_numpy(np.ascontiguousarray(chunk)) for chunk in chunks)
        windows = (w.map(self._answers(w, sample_rate, strength, draws)) for w in split(tensors, grid))
        for out in overlap_add(windows, grid):
            yield out.numpy()

    def _hop(self, sample_rate: int) -> int:
        """Samples to wait for when they come as they are recorded."""
        return self.model.hop(sample_rate) if isinstance(self.model, StreamingNetwork) else sample_rate // 100

    def check_drawing(self, perception: float | None, steps: int, draws: int | Sequence[int] | None) -> None:
        """Refuse draws from a model that gives one answer, and settings that make no sense."""
        check_dial(self.model, self.card.name, draws, perception, steps, goes=isinstance(self.model, FlowNetwork))

    def _carried(
        self,
        networks: Sequence[StreamingNetwork],
        chunks: Iterable[NDArray[Any]],
        sample_rate: int,
        strength: float,
        judged: Callable[[tuple[Consistency, float]], None],
    ) -> Iterator[NDArray[Any]]:
        """Causal networks need no windows: their state goes from chunk to chunk. Their answers go below each other."""
        streams: list[AudioStream] = []
        for chunk in chunks:
            how: dict[str, Any] = {"sample_rate": sample_rate, "channels": chunk.shape[0], "strength": strength}
            streams = streams or [AudioStream(network, **how) for network in networks]
            step = round(STEP_S * sample_rate)
            for start in range(0, chunk.shape[1], step):  # chunks may be of any length
                out = np.concatenate([stream.push(chunk[:, start : start + step]) for stream in streams])
                if out.shape[1]:
                    yield out
        if streams:
            yield np.concatenate([stream.flush() for stream in streams])
        for stream in streams:
            if told := stream.judged():
                judged(told)

    def _grid(self, sample_rate: int) -> Grid:
        """Windows at the file's rate that start on whole strides of the model at the model's rate."""
        stride, reach = self.model.size_multiple, self.model.context
        if sample_rate > self.sample_rate:  # `top_band_gain` is the same in all windows then, too
            hop = _gain_hop(self.sample_rate)
            stride, reach = math.lcm(stride, hop), reach + 4 * hop
        common = math.gcd(sample_rate, self.sample_rate)
        up, down = self.sample_rate // common, sample_rate // common
        multiple = down * (stride // math.gcd(up, stride))
        context = math.ceil(reach * sample_rate / self.sample_rate)
        if sample_rate != self.sample_rate:
            context += math.ceil(RESAMPLER_S * sample_rate)
        return Grid.fit(round(self.block * sample_rate), context, round(FADE_S * sample_rate), multiple)

    def _answers(self, window: Window, sample_rate: int, strength: float, draws: Sequence[int] | None) -> Tensor:
        """One answer, or the drawn ones below each other."""
        if draws is None:
            return self._window(window.data, sample_rate, strength, None)
        start = window.start * self.sample_rate // sample_rate
        drawn = [Draw(seed, (start,)) for seed in draws]
        return torch.cat([self._window(window.data, sample_rate, strength, draw) for draw in drawn])

    @torch.inference_mode()
    def _window(self, x: Tensor, sample_rate: int, strength: float, draw: Draw | None) -> Tensor:
        """One window (channels, time) at the file's rate."""
        low = resample(x.float(), sample_rate, self.sample_rate)
        denoised = self._model(low, draw)
        y = resample(denoised, self.sample_rate, sample_rate)[:, : x.shape[1]]
        if sample_rate > self.sample_rate:
            # What the model cannot hear is attenuated as much as the top of what it can.
            above = x - resample(low, self.sample_rate, sample_rate)[:, : x.shape[1]]
            gain = top_band_gain(low, denoised, self.sample_rate)
            y = y + above * _spread(gain, x.shape[1], _gain_hop(self.sample_rate) * sample_rate / self.sample_rate)
        return x + strength * (y.to(x.dtype) - x)

    def _model(self, x: Tensor, draw: Draw | None) -> Tensor:
        """Channel after channel for a mono model; in pairs for a stereo one, a single one doubled.

        One after another, not as a batch: eight channels then take the memory of one.
        """
        n = self.card.channels
        missing = -x.shape[0] % n
        filled = torch.cat([x, x[-1:].expand(missing, -1)]) if missing else x
        drawn = {"draw": draw} if draw else {}
        groups = (group[None].to(self.device) for group in filled.split(n))
        out = torch.cat([self.model(group, **drawn)[0].float().cpu() for group in groups])
        if missing:  # the two answers for the doubled channel are averaged
            out = torch.cat([out[: x.shape[0] - 1], out[x.shape[0] - 1 :].mean(dim=0, keepdim=True)])
        return out


def top_band_gain(before: Tensor, after: Tensor, sample_rate: int) -> Tensor:
    """How much a model attenuated the top half of its band, over time, at most 1.

    Shape:
        before, after: (channels, time).
        returns: (channels, frames), one every `_gain_hop` samples from the first sample to beyond the last.
    """
    hop = _gain_hop(sample_rate)
    n_fft = 2 * hop
    n = -before.shape[-1] % hop
    top = slice(n_fft // 4, round(0.475 * n_fft))  # without the edge, which the resampler has filtered
    energies = [stft(F.pad(x, (0, n)), n_fft, hop)[:, top].abs().square().sum(dim=1) for x in (before, after)]
    smooth = [F.avg_pool1d(e[None], 5, 1, 2, count_include_pad=False)[0] for e in energies]
    return (smooth[1] / smooth[0].clamp_min(1e-12)).clamp(0, 1).sqrt()


def _gain_hop(sample_rate: int) -> int:
    return 2 ** round(math.log2(0.016 * sample_rate))


def _spread(gain: Tensor, time: int, hop: float) -> Tensor:
    """Lines through frames that stand ``hop`` samples apart: (channels, frames) to (channels, time)."""
    place = torch.arange(time, dtype=torch.float64) / hop
    left = place.long().clamp(max=gain.shape[1] - 2)
    return torch.lerp(gain[:, left], gain[:, left + 1], (place - left).to(gain))


def _checked(chunks: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Refuse what is no float audio or changes its channels on the way."""
    channels = None
    for chunk in chunks:
        x: Any = np.asarray(chunk)
        channels = channels or (x.shape[0] if x.ndim == 2 else 0)
        if x.ndim != 2 or x.shape[0] != channels:
            raise InputError(f"a chunk has shape {x.shape}; expected ({channels or 'channels'}, time).")
        if x.dtype not in (np.float32, np.float64):
            raise InputError(f"a chunk is {x.dtype}; expected float32 or float64, full scale 1.0.")
        require_finite_samples(x)
        yield x


class _NoiseFloor:
    """The level that one frame of 50 ms in ten stays below: what is heard between the words.

    A histogram in tenths of a decibel from -200 dB on: kept levels would grow with the recording.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(4000, np.int64)
        self.rest: NDArray[Any] | None = None  # what fills no frame yet

    def add(self, x: NDArray[Any], sample_rate: int) -> None:
        n = max(1, sample_rate // 20)
        x = x if self.rest is None else np.concatenate([self.rest, x], axis=1)
        self.rest = x[:, x.shape[1] // n * n :]
        if x.shape[1] >= n:
            frames = x[:, : x.shape[1] // n * n].reshape(x.shape[0], -1, n)
            power = np.square(frames, dtype=np.float64).mean(axis=(0, 2))
            tenths = np.rint(100 * np.log10(power.clip(1e-20, 1e19)) + 2000).astype(np.int64)
            np.add.at(self.counts, tenths, 1)

    def level_db(self) -> float | None:
        total = self.counts.sum()
        if not total:
            return None
        return round(float(np.searchsorted(self.counts.cumsum(), 0.1 * total)) / 10 - 200, 1)


def denoise_audio(
    samples: Samples,
    sample_rate: int,
    *,
    model: str | Path | None = None,
    strength: float = 1.0,
    attenuation_limit: float | None = None,
    perception: float | None = None,
    steps: int = STEPS,
    seed: int = 0,
    device: str = "auto",
) -> Samples:
    """Denoise audio in memory; kind, dtype and shape stay. ``sample_rate`` is in Hz.

    Integers (int16, int32) have the full scale of their type, floats 1.0; floats are not clipped. ``perception``
    selects the model that draws unless one is named: 0 gives the mean of all likely answers, 1 one of them, drawn by
    ``seed`` in so many ``steps``.

    Shape:
        samples: NumPy (time,) or (channels, time) as librosa has it; tensor (channels, time) or
            (batch, channels, time).
    Raises:
        InputError: shape, dtype, sample rate or values do not fit.
    """
    strength = limited_strength(strength, attenuation_limit)
    is_tensor = isinstance(samples, Tensor)
    x: Any = as_numpy(samples) if isinstance(samples, Tensor) else np.asarray(samples)
    allowed = (2, 3) if is_tensor else (1, 2)
    if x.ndim not in allowed or 0 in x.shape:
        expected = "(channels, time) or (batch, channels, time)" if is_tensor else "(time,) or (channels, time)"
        raise InputError(f"samples have shape {x.shape}; expected {expected}, none of them 0.")
    channels = x.shape[-2] if x.ndim > 1 else 1
    if channels > MAX_CHANNELS:
        raise InputError(f"samples have shape {x.shape}; expected at most {MAX_CHANNELS} channels, then time.")
    if not isinstance(sample_rate, Real) or sample_rate != int(sample_rate):
        raise InputError(f"sample rate is {sample_rate!r}; expected a whole number of Hz.")
    sample_rate = int(sample_rate)
    AudioFormat(sample_rate, channels)  # checks the rate
    is_float = np.issubdtype(x.dtype, np.floating)
    if not is_float and x.dtype.newbyteorder("=") not in (np.int16, np.int32):
        raise InputError(f"samples are {x.dtype}; expected int16, int32 or a float type.")
    scale = 1.0 if is_float else -float(np.iinfo(x.dtype).min)
    model = model or (DEFAULTS["audio"] if perception is None else WITH_DRAWS)
    pipeline = _pipeline(model, version(model), device)
    pipeline.check_drawing(perception, steps, None)
    if strength == 0:
        return cast(Samples, samples.clone() if isinstance(samples, Tensor) else x.copy())
    out = np.empty_like(x).reshape(-1, channels, x.shape[-1])
    for i, item in enumerate(x.reshape(out.shape)):
        light = item.astype(np.float32 if x.dtype in (np.float32, np.float16, np.int16) else np.float64) / scale
        require_finite_samples(light)
        draws = [seed + i] if perception else None
        told = {"strength": strength, "draws": draws, "steps": steps, "perception": perception}
        y = np.concatenate([*pipeline.stream([light], sample_rate, **told)], axis=1) * scale
        out[i] = y if is_float else np.rint(y).clip(-scale, scale - 1)
    shaped = out.reshape(x.shape)
    return cast(Samples, torch.from_numpy(shaped).to(samples) if isinstance(samples, Tensor) else shaped)


@lru_cache(maxsize=4)
def _pipeline(model: str | Path, version: int, device: str) -> AudioPipeline:
    """Loaded once per version of the weights, for callers in a loop."""
    return AudioPipeline(model, device=device)
