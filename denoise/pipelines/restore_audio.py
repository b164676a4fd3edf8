"""Restoration of recordings of any length and rate: file -> windows -> task -> overlap-add -> file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denoise.backends.device import cpu_by_default
from denoise.errors import ConfigError, InputError
from denoise.files.audio import FLOATS, AudioReader, AudioSource, AudioWriter, EncodedTrack, MediaTrack, open_media_file
from denoise.files.audio.metadata import drop_places
from denoise.files.names import OUTPUT, check_file, file_name
from denoise.frames import Grid, Window, overlap_add, split
from denoise.options import BLOCK_S, AudioRestoreOptions
from denoise.pipelines.audio import read_blocks, warn_of_clipping
from denoise.pipelines.audio_run import FADE_S, STEP_S, check_chunks
from denoise.pipelines.audio_tasks import TASK_CLASSES, AudioTask
from denoise.pipelines.full_band import full_band_context
from denoise.pipelines.prior_windows import WindowedPrior
from denoise.pipelines.progress import progress_of_part
from denoise.pipelines.result import AUDIO_UNITS, Diagnostics, Result
from denoise.pipelines.samples import SamplePaths, write_audio_set
from denoise.protocols import Device, Progress
from denoise.registry import RESTORERS, locate
from denoise.signals import MAX_CHANNELS, AudioFormat, as_whole, require_finite_output

CONTEXT_S = 0.5  # of the methods without a prior: more than a gap, its surroundings and a frame
NEED_PRIOR = ("denoise", "extend")
EXAMINED = ("declip", "extend")  # tasks to which the whole recording tells something


class AudioRestorePipeline:
    """Removes noise, clipping, gaps and clicks from recordings, or extends their band.

    Declipping and inpainting need no prior; with one, the samples that are missing are drawn from it.

    Args:
        prior: denoising prior of mono audio: a name, or path of a weights file.
        device: ``"auto"``, or a device of torch.

    Raises:
        ConfigError: there is no such prior, or it has no denoiser of mono audio.
        WeightsError: the file is damaged.
    """

    def __init__(self, prior: str | Path | None = None, *, device: Device = "auto") -> None:
        if prior is not None:
            locate(prior, "prior", "audio", RESTORERS["audio"])  # a message that lists what restores, not all priors
        self.prior = None if prior is None else WindowedPrior(prior, device=device)

    @cpu_by_default()
    def file(
        self,
        source: str | Path | BinaryIO,
        target: str | Path | BinaryIO,
        options: AudioRestoreOptions,
        *,
        progress: Progress | None = None,
        name: str | None = None,
    ) -> Result:
        """Restore an audio file, or the audio tracks of a media file, in its format.

        Args:
            source: path or binary file.
            target: path or binary file; of several samples, a path that the `SamplePaths` are derived from.
            options: task and settings.
            progress: called with the finished fraction, 0 to 1, if the length is known.
            name: name of the source in messages, if it is no path.

        Returns:
            Time and warnings.

        Raises:
            InputError: the file cannot be read, there is nothing to restore, or the target cannot be written.
            ConfigError: the task needs a prior or does not support an option, or the mask does not fit.
        """
        check_file(source, "source")
        check_file(target, "target")
        self.check(options)
        if options.samples:
            return self._restore_recording(source, target, options, progress=progress, name=name)
        started = time.perf_counter()
        with open_media_file(source, target, overwrite=options.overwrite, name=name) as opened:
            if opened.media is None:
                return self._restore_recording(opened.source, target, options, progress=progress, name=opened.name)
            n = opened.media.n_tracks
            tracks = [
                self._restore_recording(*track, options, progress=progress_of_part(progress, i, n))
                for i, track in enumerate(opened.media.tracks)
            ]
            warnings = opened.media.copy()
        return Result.combine_tracks(tracks, str(target), time.perf_counter() - started, warnings)

    def _restore_recording(
        self,
        source: AudioSource,
        target: str | Path | BinaryIO | EncodedTrack,
        options: AudioRestoreOptions,
        *,
        progress: Progress | None = None,
        name: str | None = None,
    ) -> Result:
        started, n, n_done = time.perf_counter(), max(1, options.samples), 0
        targets: list[Any] = [target]
        if options.samples:
            if not isinstance(target, str | Path):
                raise ConfigError("samples are written to several files; give a path.")
            paths = SamplePaths.for_target(target, n)
            paths.require_free(source if isinstance(source, str | Path) else str(name), options.overwrite)
            targets = [*paths.all()]
        task = self._examine_file(source, options, name)
        with AudioReader(source, name=name) as reader, ExitStack() as stack:
            rate, channels, frames = reader.format.sample_rate, reader.format.channels, reader.frames
            new_rate = self.output_rate(rate, options)
            format = reader.format if new_rate == rate else replace(reader.format, sample_rate=new_rate)
            frames = None if frames is None else -(-frames * new_rate // rate)
            task = task or self._task(rate, options, reader.name)
            misplaced = drop_places(format) if new_rate != rate else []
            writers = [
                stack.enter_context(AudioWriter(each, format, overwrite=options.overwrite, frames=frames))
                for each in targets
            ]
            clips = bool(writers[0].clips_as) or format.subtype not in FLOATS
            is_lowered = clips and task.make_room()
            blocks = read_blocks(reader, round(STEP_S * rate))
            for block in self._blocks(blocks, rate, channels, task):
                if options.samples:
                    write_audio_set(writers, block.reshape(n, channels, -1))
                else:
                    writers[0].write(np.ascontiguousarray(block))
                n_done += block.shape[1]
                if progress and frames:
                    progress(min(1.0, n_done / frames))
            misplaced += drop_places(format) if new_rate != rate else []  # behind the sound of a pipe
        warnings = []
        if misplaced:
            warnings.append(f"{reader.name}: places are not kept at {new_rate} Hz; without {', '.join(misplaced)}.")
        if is_lowered:
            warnings.append(
                f"{reader.name}: lowered by {-task.gain_db:g} dB, so that restored peaks fit. Gain 0 keeps the level."
            )
        if (report := task.report()) is not None:
            warnings.append(f"{reader.name}: {report}")
        needed_db = math.floor(task.gain_db - 20 * math.log10(max(writer.peak for writer in writers)))
        advice = f"Give a gain of {needed_db} dB." if options.task == "declip" else None
        warnings += warn_of_clipping(reader, writers, advice)
        return Result.from_diagnostics(
            Diagnostics(),
            AUDIO_UNITS,
            input=reader.name,
            output=file_name(targets[-2] if options.samples else target, OUTPUT),
            amount=n_done / new_rate,
            seconds=time.perf_counter() - started,
            files=[str(path) for path in targets] if options.samples else [],
            warnings=[*reader.warnings, *writers[0].warnings, *warnings],
        )

    @cpu_by_default()
    def array(self, samples: NDArray[Any], sample_rate: int, options: AudioRestoreOptions) -> NDArray[Any]:
        """Restore a recording in memory.

        Args:
            samples: (time,) or (channels, time), float32 or float64, full scale 1.0.
            sample_rate: its rate in Hz.
            options: task and settings.

        Returns:
            Restored samples of as many channels and axes, at the rate of `output_rate`; of several posterior samples,
            with an axis (samples,) before them.

        Raises:
            InputError: shape, type or values of the samples do not fit, or there is nothing to restore.
            ConfigError: as of `file`.
        """
        self.check(options)
        x: Any = np.asarray(samples)
        if x.ndim not in (1, 2) or 0 in x.shape or (x.ndim == 2 and len(x) > MAX_CHANNELS):
            raise InputError(
                f"samples have shape {x.shape}; expected (time,), or (channels, time) of up to {MAX_CHANNELS} channels."
            )
        if x.dtype not in (np.float32, np.float64):
            raise InputError(f"samples are {x.dtype}; expected float32 or float64, full scale 1.0.")
        sample_rate = as_whole("sample rate", sample_rate)
        channels = np.atleast_2d(x)
        AudioFormat(sample_rate, len(channels))  # checks the range of the sample rate
        task = self._task(sample_rate, options, "array")
        self._examine(task, lambda: iter([channels]), sample_rate)
        restored = np.concatenate([*self._blocks(iter([channels]), sample_rate, len(channels), task)], axis=1)
        shape = (options.samples,) if options.samples else ()
        return restored.reshape(*shape, *x.shape[:-1], -1)

    def check(self, options: AudioRestoreOptions) -> None:
        """Refuse options that need a prior, if there is none.

        Args:
            options: options of a run.

        Raises:
            ConfigError: the task needs a prior, or posterior samples do.
        """
        if self.prior is None and (options.task in NEED_PRIOR or options.samples):
            what = "samples need" if options.samples else f"the task {options.task} needs"
            raise ConfigError(f"{what} a prior; give one, such as speech-prior.")

    def output_rate(self, sample_rate: int, options: AudioRestoreOptions) -> int:
        """Return the sample rate of a restored recording: extension raises a lower one to that of the prior.

        Args:
            sample_rate: rate of the recording in Hz.
            options: options of the run.
        """
        if options.task != "extend" or self.prior is None:
            return sample_rate
        return max(sample_rate, self.prior.sample_rate)

    def _task(self, rate: int, options: AudioRestoreOptions, name: str) -> AudioTask:
        return TASK_CLASSES[options.task](options, self.output_rate(rate, options), self.prior, name)

    def _examine_file(self, source: AudioSource, options: AudioRestoreOptions, name: str | None) -> AudioTask | None:
        """Return the task after a first pass over a file; None of what can be read only once, or need not be twice."""
        is_file = isinstance(source, MediaTrack) or (
            Path(source).is_file() if isinstance(source, str | Path) else source.seekable()
        )
        if not is_file or options.task not in EXAMINED:
            return None
        with AudioReader(source, name=name) as reader:
            rate = reader.format.sample_rate

        def read() -> Iterator[NDArray[Any]]:
            with AudioReader(source, name=name) as reader:
                yield from read_blocks(reader, round(STEP_S * rate))

        task = self._task(rate, options, reader.name)
        self._examine(task, read, rate)
        return task

    def _examine(self, task: AudioTask, read: Callable[[], Iterator[NDArray[Any]]], rate: int) -> None:
        """Show the task the whole recording, in sections of the length of its windows."""
        grid = Grid(self._grid(task.sample_rate).window, 0)

        def sections() -> Iterator[Tensor]:
            blocks = resample_blocks(check_chunks(read()), rate, task.sample_rate)
            return (torch.from_numpy(window.data) for window in split((np.array(b, order="C") for b in blocks), grid))

        task.examine(sections)

    def _blocks(
        self, blocks: Iterator[NDArray[Any]], rate: int, channels: int, task: AudioTask
    ) -> Iterator[NDArray[Any]]:
        """Blocks -> windows -> task -> overlap-add -> blocks; samples are concatenated along the channels."""
        options, grid = task.options, self._grid(task.sample_rate)
        blocks = resample_blocks(check_chunks(blocks), rate, task.sample_rate)
        copies = (np.array(block, order="C") for block in task.add_guides(blocks))
        seeds = range(options.seed, options.seed + max(1, options.samples))
        restore = partial(self._restore_window, task=task, channels=channels, seeds=seeds)
        restored = (window.map(restore(window)) for window in split(copies, grid))
        for block in overlap_add(restored, grid):
            require_finite_output(block)
            yield block
        if (refusal := task.refusal()) is not None:
            raise InputError(f"{task.name}: {refusal}")

    @torch.no_grad()
    def _restore_window(self, window: Window, task: AudioTask, channels: int, seeds: Iterable[int]) -> NDArray[Any]:
        """Return all samples of a window, concatenated along the channels; each channel has a seed of its own."""
        x = torch.from_numpy(window.data)
        return torch.cat([task.restore(x, channels, window.start, 1000 * seed) for seed in seeds]).numpy()

    def _grid(self, rate: int) -> Grid:
        """Windows that start where a window of the prior starts, too."""
        if self.prior is None:
            multiple, context = 2**14, round(CONTEXT_S * rate)  # of the hop of the frames of `a_spade`, at any rate
        else:
            multiple, context = full_band_context(self.prior.hop, self.prior.hop, rate, self.prior.sample_rate)
        return Grid.fit(round(BLOCK_S * rate), context, round(FADE_S * rate), multiple)


def resample_blocks(blocks: Iterable[NDArray[Any]], sample_rate: int, new_rate: int) -> Iterator[NDArray[Any]]:
    """Resample a recording block by block (soxr, high quality), without delay.

    Args:
        blocks: (channels, time) each.
        sample_rate: their rate in Hz.
        new_rate: rate of the result in Hz.

    Yields:
        Blocks of any length, as long in total as the recording, rounded up.
    """
    if sample_rate == new_rate:
        yield from blocks
        return
    import soxr

    stream, n_in, n_out = None, 0, 0
    for block in blocks:
        stream = stream or soxr.ResampleStream(sample_rate, new_rate, len(block), dtype=block.dtype)
        n_in += block.shape[1]
        out = stream.resample_chunk(np.ascontiguousarray(block.T).squeeze()).reshape(-1, len(block)).T
        n_out += out.shape[1]
        if out.shape[1]:
            yield np.ascontiguousarray(out)
    if stream is not None:
        rest = stream.resample_chunk(np.zeros((0, len(block)), block.dtype).squeeze(), last=True)
        length = -(-n_in * new_rate // sample_rate) - n_out
        rest = rest.reshape(-1, len(block)).T[:, :length]
        yield np.pad(rest, ((0, 0), (0, length - rest.shape[1])))
