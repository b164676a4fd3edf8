"""Several posterior samples of one file, their mean and their standard deviation, each written to a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from denoise.errors import ConfigError, InputError
from denoise.files.atomic import require_free
from denoise.files.audio import AudioReader, AudioWriter, channel_names
from denoise.files.image import ImageReader, write_image
from denoise.options import DenoiseOptions
from denoise.pipelines.audio import AudioPipeline, find_unchanged, read_blocks, warn_of_clipping
from denoise.pipelines.batch import STREAM
from denoise.pipelines.choice import ModelChoice
from denoise.pipelines.image import ImagePipeline, sigma_255
from denoise.pipelines.impulse_frames import fraction, remove_impulses
from denoise.pipelines.progress import progress_of_part
from denoise.pipelines.result import AUDIO_UNITS, IMAGE_UNITS, Diagnostics, Result
from denoise.protocols import Progress
from denoise.signals import Image

STD_SCALE = 8  # of images: standard deviations above an eighth of full scale, which are clipped, are rare


@dataclass(frozen=True)
class SamplePaths:
    """Paths of posterior samples, of their mean and of their standard deviation."""

    samples: tuple[Path, ...]
    mean: Path
    std: Path

    @classmethod
    def for_target(cls, target: str | Path, n: int) -> SamplePaths:
        """Derive the paths from that of an output.

        Args:
            target: NAME.EXT or NAME.denoised.EXT.
            n: number of samples, at least 2.

        Returns:
            NAME.sample-1.EXT, ..., NAME.mean.EXT and NAME.std.EXT.

        Raises:
            ConfigError: ``n`` is less than 2, which have no standard deviation.
        """
        if n < 2:
            raise ConfigError(f"{n} samples are requested; expected at least 2. Raise --samples or leave it out.")
        path = Path(target)
        stem = path.stem.removesuffix(".denoised")
        suffixes = [*(f"sample-{i + 1}" for i in range(n)), "mean", "std"]
        *samples, mean, std = (path.with_name(f"{stem}.{suffix}{path.suffix}") for suffix in suffixes)
        return cls(tuple(samples), mean, std)

    def all(self) -> tuple[Path, ...]:
        """Return the paths of the samples, of the mean and of the standard deviation."""
        return (*self.samples, self.mean, self.std)

    def require_free(self, source: str | Path | BinaryIO, overwrite: bool) -> None:
        """Refuse, before any work, to replace the source, or other files without ``overwrite``.

        Args:
            source: path or binary file that the samples are of.
            overwrite: whether existing files are replaced.

        Raises:
            InputError: a path is that of the source or of an existing file.
        """
        for path in self.all():
            if isinstance(source, str | Path) and path.resolve() == Path(source).resolve():
                raise InputError(f"{path}: is the input itself. Give another -o.")
            require_free(path, overwrite=overwrite)


def write_image_samples(
    pipeline: ImagePipeline,
    source: str | Path | BinaryIO,
    target: str | Path,
    n: int,
    options: DenoiseOptions,
    *,
    progress: Progress | None = None,
    name: str | None = None,
) -> Result:
    """Write posterior samples of an image, their mean, and `STD_SCALE` times their standard deviation.

    One sample is in memory at a time.

    Args:
        pipeline: pipeline of a model with posterior samples.
        source: path or binary file of a single image.
        target: path that the `SamplePaths` are derived from.
        n: number of samples.
        options: options of the run; the seed is that of the first sample, and each next one adds 1.
        progress: called with the finished fraction, 0 to 1.
        name: name of the source in messages, if it is no path.

    Returns:
        As `ImagePipeline.file`.

    Raises:
        ConfigError: the model has no posterior samples, or does not support an option.
        InputError: the file cannot be read or holds several images, or a target cannot be written.
    """
    paths, started, seed = SamplePaths.for_target(target, n), time.perf_counter(), options.seed or 0
    paths.require_free(source, options.overwrite)
    pipeline.check(replace(options, seed=seed))
    with ImageReader(source, max_megapixels=options.max_megapixels, name=name) as reader:
        image, impulses = only_frame(reader), None
        if options.estimates_sigma and not pipeline.card.blind:
            image, impulses = remove_impulses(image)
        image_float = image.as_float()

        def write(path: Path, pixels_float: NDArray[Any]) -> None:
            pixels = image.from_float(pixels_float)
            write_image(path, [replace(image, pixels=pixels)], reader.format, overwrite=options.overwrite)

        estimate = pipeline.estimate_noise(image)
        sigma = options.sigma
        if options.estimates_sigma and not pipeline.card.blind:
            sigma = min(estimate[0].mean_sigma, pipeline.max_sigma(image))
        diagnostics: list[Diagnostics] = []

        def draw(i: int) -> NDArray[Any]:
            sample_options = replace(options, sigma=sigma, seed=seed + i)
            sample, of_sample = pipeline.denoise_frame(image_float, sample_options, progress_of_part(progress, i, n))
            diagnostics.append(of_sample)
            return sample.pixels

        mean = replace(image_float, pixels=write_image_set(paths, draw, write).astype(np.float32))
        return Result.from_diagnostics(
            replace(
                Diagnostics.combine(diagnostics),
                noise_before=sigma_255(estimate),
                noise_after=sigma_255(pipeline.estimate_noise(mean, by_intensity=False)),
                no_noise_found=sigma == 0 and options.estimates_sigma and impulses is None,
                impulse_fraction=fraction(impulses),
            ),
            IMAGE_UNITS,
            input=reader.name,
            output=str(paths.mean),
            amount=n * image.pixels[..., 0].size / 1e6,
            seconds=time.perf_counter() - started,
            files=[str(path) for path in paths.all()],
            warnings=reader.warnings,
        )


def write_image_set(
    paths: SamplePaths, draw: Callable[[int], NDArray[Any]], write: Callable[[Path, NDArray[Any]], None]
) -> NDArray[Any]:
    """Write the samples of an image, their mean, and `STD_SCALE` times their standard deviation.

    One sample is in memory at a time.

    Args:
        paths: of the files.
        draw: returns a sample, given its number.
        write: writes pixels to a path.

    Returns:
        The mean.
    """
    moments = Moments()
    for i, path in enumerate(paths.samples):
        pixels = draw(i)
        moments.add(pixels)
        write(path, pixels)
    write(paths.mean, moments.mean)
    write(paths.std, STD_SCALE * moments.std())
    return moments.mean


def write_audio_set(writers: Sequence[AudioWriter], samples: NDArray[Any]) -> None:
    """Write a block of the samples of a recording, of their mean and of their standard deviation.

    Args:
        writers: of `SamplePaths.all`.
        samples: (samples, channels, time).
    """
    outputs = [*samples, samples.mean(axis=0), samples.std(axis=0, ddof=1)]
    for writer, output in zip(writers, outputs, strict=True):
        writer.write(np.ascontiguousarray(output))


def write_audio_samples(
    pipeline: AudioPipeline,
    source: str | Path | BinaryIO,
    target: str | Path,
    n: int,
    options: DenoiseOptions,
    *,
    progress: Progress | None = None,
    name: str | None = None,
) -> Result:
    """Write posterior samples of a recording, their mean and their standard deviation, block by block.

    Args:
        pipeline: pipeline of a model with posterior samples.
        source: path or binary file.
        target: path that the `SamplePaths` are derived from.
        n: number of samples.
        options: options of the run; the seed is that of the first sample, and each next one adds 1.
        progress: called with the finished fraction, 0 to 1, if the length is known.
        name: name of the source in messages, if it is no path.

    Returns:
        As `AudioPipeline.file`, without noise floors.

    Raises:
        ConfigError: the model has no posterior samples, or does not support an option.
        InputError: the file cannot be read or a target cannot be written.
    """
    paths, started, seed = SamplePaths.for_target(target, n), time.perf_counter(), options.seed or 0
    paths.require_free(source, options.overwrite)
    pipeline.check(replace(options, seed=seed))
    with AudioReader(source, name=name) as reader, ExitStack() as stack:
        format, frames, n_done = reader.format, reader.frames, 0
        writers = [
            stack.enter_context(AudioWriter(path, format, overwrite=options.overwrite, frames=frames))
            for path in paths.all()
        ]
        unchanged = find_unchanged(channel_names(format))
        run = pipeline.start(format.sample_rate, options, range(seed, seed + n), unchanged=unchanged)
        for block in run.blocks(read_blocks(reader, format.sample_rate)):
            write_audio_set(writers, block.reshape(n, format.channels, -1))
            n_done += block.shape[1]
            if progress and frames:
                progress(min(1.0, n_done / frames))
        return Result.from_diagnostics(
            run.diagnostics(),
            AUDIO_UNITS,
            input=reader.name,
            output=str(paths.mean),
            amount=n_done / format.sample_rate,
            seconds=time.perf_counter() - started,
            files=[str(path) for path in paths.all()],
            warnings=[*reader.warnings, *writers[0].warnings, *warn_of_clipping(reader, writers)],
            model=ModelChoice(pipeline.card.name, "posterior samples"),
        )


class Moments:
    """Mean and standard deviation of arrays that are added one by one.

    Reference:
        Note on a Method for Calculating Corrected Sums of Squares and Products, Welford, 1962.
    """

    def __init__(self) -> None:
        self.n, self.mean, self._squares = 0, np.zeros(()), np.zeros(())

    def add(self, x: NDArray[Any]) -> None:
        """Add one array.

        Args:
            x: array of the shape of those before.
        """
        self.n += 1
        deviation = x - self.mean
        self.mean = self.mean + deviation / self.n
        self._squares = self._squares + deviation * (x - self.mean)

    def std(self) -> NDArray[Any]:
        """Return the standard deviation of a sample, divided by n - 1."""
        return np.sqrt(self._squares / max(1, self.n - 1))


def check_samples(n: int, inputs: Sequence[str], out: str | None, single_output_options: Mapping[str, Any]) -> None:
    """Refuse, before any work, samples that could not be written.

    Args:
        n: number of samples; 0 for none.
        inputs: inputs of the command line.
        out: output of the command line.
        single_output_options: options that need a single output by their name; those that are None are not given.

    Raises:
        ConfigError: there is one sample, all would be written to a pipe, or an option needs a single output.
    """
    if not n:
        return
    SamplePaths.for_target("NAME.EXT", n)
    if out == STREAM or (out is None and STREAM in inputs):
        raise ConfigError("samples are written to several files; give -o a name or a folder.")
    for option, value in single_output_options.items():
        if value is not None:
            raise ConfigError(f"{option} needs a single output; leave out either it or --samples.")


def only_frame(reader: ImageReader) -> Image:
    """Return the frame of an image file.

    Args:
        reader: reader of the file.

    Raises:
        InputError: it holds several.
    """
    frames = [*islice(reader, 2)]
    if len(frames) > 1:
        raise InputError(f"{reader.name}: holds several images; expected one. Save the image to a file of its own.")
    return frames[0]
