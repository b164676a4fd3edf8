"""The denoising of one recording: blocks -> windows -> model -> overlap-add -> blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.frames import Grid, Window, overlap_add, split
from denoise.options import DenoiseOptions
from denoise.pipelines.full_band import denoise_full_band, full_band_context
from denoise.pipelines.noise_segment import NoisePrint
from denoise.pipelines.result import Diagnostics
from denoise.pipelines.stream import AudioStream, channel_strengths
from denoise.protocols import (
    ArrayFlowNetwork,
    ArrayNoiseProfileNetwork,
    ArrayStreamingNetwork,
    ArrayVariationalNetwork,
)
from denoise.registry import SPEECH_MODELS
from denoise.signals import require_finite_output, require_finite_samples

if TYPE_CHECKING:
    from denoise.pipelines.audio import AudioPipeline

STEP_S = 2.0  # read and streamed at a time: tensors that still fit the cache
FADE_S = 0.02

Denoise = Callable[[NDArray[Any]], NDArray[Any]]
"""Denoises (batch, channels, time) at the sample rate of the network."""


class AudioRun:
    """The denoising of one recording, block by block; see `AudioPipeline.start`.

    Args:
        pipeline: pipeline with the network.
        sample_rate: sample rate of the recording in Hz.
        options: options of the run, supported by the network.
        seeds: seeds of the posterior samples; none for the posterior mean.
        noise_profile: as of `AudioPipeline.measure_noise`, or with tones; None estimates the noise.
        live: whether the blocks come while they are recorded, so that none must wait for later ones.
        unchanged: channels, from 0, that pass unchanged.
    """

    def __init__(
        self,
        pipeline: AudioPipeline,
        sample_rate: int,
        options: DenoiseOptions,
        seeds: tuple[int, ...],
        noise_profile: NDArray[Any] | NoisePrint | None = None,
        *,
        live: bool = False,
        unchanged: Sequence[int] = (),
    ) -> None:
        self._pipeline, self._network = pipeline, pipeline.network
        self._sample_rate, self._options, self._seeds = sample_rate, options, seeds
        self._noise = noise_profile if isinstance(noise_profile, NoisePrint) else NoisePrint(noise_profile)
        self._removes_hum = pipeline.card.name in SPEECH_MODELS
        estimates_floor = isinstance(self._network, ArrayNoiseProfileNetwork) and self._noise.profile is None
        self._looks_ahead = estimates_floor and not (live or self._removes_hum)
        self._strength, self._unchanged = options.limited_strength, unchanged
        self._streams: list[AudioStream] = []

    def blocks(self, chunks: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Denoise the recording, once.

        Args:
            chunks: as in `AudioPipeline.stream`.

        Returns:
            As `AudioPipeline.stream`.
        """
        chunks = check_chunks(chunks)
        if self._strength == 0 and not self._seeds:
            return (chunk.copy() for chunk in chunks)  # the caller may reuse its memory
        if isinstance(self._network, ArrayStreamingNetwork):
            return self._denoise_streaming(chunks, self._network)
        return self._denoise_windows(chunks)

    def diagnostics(self) -> Diagnostics:
        """Return the mean of the diagnostics of all posterior samples, after the last block."""
        return Diagnostics.combine([stream.diagnostics() for stream in self._streams])

    def _denoise_windows(self, chunks: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Blocks -> windows -> model -> overlap-add -> blocks."""
        grid = self._grid()
        copies = (np.array(chunk, order="C") for chunk in chunks)  # kept while the caller may reuse its memory
        denoised = (window.map(self._denoise_window(window)) for window in split(copies, grid))
        for block in overlap_add(denoised, grid):
            require_finite_output(block)
            yield block

    def _denoise_streaming(
        self, chunks: Iterable[NDArray[Any]], network: ArrayStreamingNetwork
    ) -> Iterator[NDArray[Any]]:
        """Blocks -> model -> blocks: the state of the network replaces windows."""
        step = round(STEP_S * self._sample_rate)
        for chunk in chunks:
            self._streams = self._streams or [
                AudioStream(
                    sampler,
                    sample_rate=self._sample_rate,
                    channels=chunk.shape[0],
                    linked=self._options.linked,
                    strength=self._strength,
                    noise_profile=self._noise.profile,
                    tones=self._noise.tones_of(chunk.shape[0]),
                    remove_hum=self._removes_hum,
                    renews=self._removes_hum,  # both for the models of speech
                    look_ahead=self._looks_ahead,
                    unchanged=self._unchanged,
                )
                for sampler in self._samplers(network)
            ]
            for start in range(0, chunk.shape[1], step):  # chunks may be of any length
                block = np.concatenate([stream.push(chunk[:, start : start + step]) for stream in self._streams])
                if block.shape[1]:
                    yield block
        if self._streams:
            yield np.concatenate([stream.flush() for stream in self._streams])

    def _samplers(self, network: ArrayStreamingNetwork) -> list[ArrayStreamingNetwork]:
        """One network for each posterior sample, or that of the mean."""
        if not self._seeds or not isinstance(network, ArrayFlowNetwork):
            return [network]
        weight = 1.0 if self._options.perception is None else self._options.perception
        return [network.posterior_sampler(seed, self._options.steps, weight) for seed in self._seeds]

    def _grid(self) -> Grid:
        """Windows at the sample rate of the recording that start on whole strides of the network at its own rate."""
        rate, facts = self._sample_rate, self._network.facts
        assert facts.context is not None  # of a network without a state
        multiple, context = full_band_context(facts.size_multiple, facts.context, rate, self._pipeline.sample_rate)
        return Grid.fit(round(self._pipeline.block * rate), context, round(FADE_S * rate), multiple)

    def _denoise_window(self, window: Window) -> NDArray[Any]:
        """The posterior mean, or the posterior samples concatenated along the channels."""
        if not self._seeds:
            return self._mix_window(window.data, self._network.denoise)
        start = window.start * self._pipeline.sample_rate // self._sample_rate
        assert isinstance(self._network, ArrayVariationalNetwork)  # see `AudioPipeline.check`
        samplers = [partial(self._network.sample, seed=seed, start=(start,)) for seed in self._seeds]
        return np.concatenate([self._mix_window(window.data, sampler) for sampler in samplers])

    def _mix_window(self, x: NDArray[Any], denoise: Denoise) -> NDArray[Any]:
        """Denoise (channels, time) at the sample rate of the recording and mix input and output."""
        denoise_channels = partial(self._denoise_channels, denoise=denoise)
        denoised = denoise_full_band(denoise_channels, x, self._sample_rate, self._pipeline.sample_rate)
        strengths = channel_strengths(self._strength, len(x), self._unchanged).astype(x.dtype)
        return x + strengths * (denoised.astype(x.dtype, copy=False) - x)

    def _denoise_channels(self, x: NDArray[Any], denoise: Denoise) -> NDArray[Any]:
        """Channel by channel for a mono model; in pairs for a stereo one, a single channel duplicated.

        One after another, not as a batch: eight channels then take the memory of one.
        """
        n = self._pipeline.card.channels
        missing = -x.shape[0] % n
        filled = np.concatenate([x, *[x[-1:]] * missing])
        groups = (filled[i : i + n] for i in range(0, len(filled), n))
        out = np.concatenate([denoise(group[None])[0] for group in groups])
        if missing:  # the two outputs of the duplicated channel are averaged
            out = np.concatenate([out[: len(x) - 1], out[len(x) - 1 :].mean(axis=0, keepdims=True)])
        return out


def check_chunks(chunks: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Refuse chunks that are no float audio, or whose number of channels changes."""
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
