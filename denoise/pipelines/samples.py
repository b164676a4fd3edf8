"""Several likely answers for one file, from models that draw them; their mean, and where they differ."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from denoise.errors import ConfigError, InputError
from denoise.files.audio import AudioReader, AudioWriter
from denoise.files.image import ImageReader, write_image
from denoise.pipelines.batch import STREAM
from denoise.pipelines.image import Sigma, part_of, sigma_255
from denoise.pipelines.latent_noise import check_draws
from denoise.pipelines.perception import left_over, mean_of
from denoise.pipelines.result import Result, doubted_much, found_silent
from denoise.protocols import Progress
from denoise.sampling.consistency import Consistency
from denoise.signals import ImageFormat

STD_TIMES = 8  # in files of pictures: what differs by more than an eighth of full scale is rare
Place = str | Path


@dataclass(frozen=True)
class Places:
    """Files of ``n`` samples, of their mean and of their standard deviation, named after the output."""

    samples: tuple[Path, ...]
    mean: Path
    std: Path

    @classmethod
    def beside(cls, target: Place, n: int) -> Places:
        """NAME.sample-1.EXT, ..., NAME.mean.EXT and NAME.std.EXT for NAME.EXT or NAME.denoised.EXT.

        Raises:
            ConfigError: ``n`` is less than 2, of which there is no deviation.
        """
        if n < 2:
            raise ConfigError(f"{n} samples are asked for; expected at least 2, or leave --samples out.")
        path = Path(target)
        parts = [*(f"sample-{i + 1}" for i in range(n)), "mean", "std"]
        *samples, mean, std = (path.with_name(f"{path.stem.removesuffix('.denoised')}.{p}{path.suffix}") for p in parts)
        return cls(tuple(samples), mean, std)

    def all(self) -> tuple[Path, ...]:
        return (*self.samples, self.mean, self.std)

    def require_free(self, source: Place | BinaryIO, overwrite: bool) -> None:
        """Refuse, before hours of drawing, to replace the source, or anything unless told to.

        Raises:
            InputError: a file is there.
        """
        for place in self.all():
            own = isinstance(source, (str, Path)) and place.resolve() == Path(source).resolve()
            if own or (place.exists() and not overwrite):
                told = "is the input itself" if own else "exists already"
                raise InputError(f"{place}: {told}. Give another -o{'' if own else ', or --overwrite'}.")


def draw_images(
    pipeline: Any,
    source: Place | BinaryIO,
    target: Place,
    n: int,
    *,
    sigma: Sigma = None,
    strength: float = 1.0,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    name: str | None = None,
    max_megapixels: float = 200,
    **how: Any,
) -> Result:
    """Write ``n`` samples of a picture, their mean and ``STD_TIMES`` times their deviation, by an `ImagePipeline`.

    ``sigma``, ``strength`` and ``how``, ``steps`` and ``perception``, are as in `ImagePipeline.frame`. One sample is in
    memory at a time.

    Raises:
        ConfigError: the model draws nothing.
        InputError: the file cannot be read, holds several pictures, or a target cannot be written.
    """
    places, started = Places.beside(target, n), time.perf_counter()
    places.require_free(source, overwrite)
    pipeline.check_sigma(sigma)
    with ImageReader(source, max_megapixels=max_megapixels, name=name) as reader:
        frames = [*islice(reader, 2)]
        if len(frames) > 1:
            raise InputError(f"{reader.name}: holds several pictures; samples are of one. Save it apart.")
        frame, format = frames[0], reader.format
        light = frame.as_float()

        def write(place: Path, pixels: NDArray[Any], format: ImageFormat) -> None:
            write_image(place, [replace(frame, pixels=frame.numbers(pixels))], format, overwrite=overwrite)

        before = sigma_255(frame)
        level = pipeline.level(sigma, frame, before)
        moments, doubted, residuals = Moments(), [], []
        for i, place in enumerate(places.samples):
            part = part_of(progress, i, n)
            drawn, share = pipeline.answer(light, level, strength, draw=seed + i, progress=part, **how)
            moments.add(drawn.pixels)
            doubted.append(share)
            if level and strength and pipeline.goes(how.get("perception"), seed):
                residuals.append(left_over(light, drawn, strength * level))
            write(place, drawn.pixels, format)
        write(places.mean, moments.mean, format)
        write(places.std, STD_TIMES * moments.std(), format)
        seconds, pixels = time.perf_counter() - started, n * frame.pixels.shape[0] * frame.pixels.shape[1]
        return Result(
            input=reader.name,
            output=str(places.mean),
            seconds=round(seconds, 3),
            speed=round(pixels / 1e6 / seconds, 3),
            speed_unit="megapixels_per_s",
            noise_before=round(before, 2),
            noise_after=round(sigma_255(replace(light, pixels=moments.mean.astype(np.float32))), 2),
            noise_unit="sigma_255",
            residual=mean_of(residuals),
            files=tuple(map(str, places.all())),
            warnings=(
                *reader.warnings,
                *doubted_much(reader.name, float(np.mean(doubted))),
                *found_silent(reader.name, level == 0 and isinstance(sigma, str | None)),
            ),
        )


def draw_audio(
    pipeline: Any,
    source: Place | BinaryIO,
    target: Place,
    n: int,
    *,
    seed: int = 0,
    strength: float = 1.0,
    overwrite: bool = False,
    progress: Progress | None = None,
    name: str | None = None,
    **how: Any,
) -> Result:
    """Write ``n`` samples of a recording, their mean and their deviation, block by block, by an `AudioPipeline`.

    ``how`` is ``steps`` and ``perception``, as in `AudioPipeline.stream`.

    Raises:
        ConfigError: the model draws nothing.
        InputError: the file cannot be read or a target cannot be written.
    """
    places, started, done = Places.beside(target, n), time.perf_counter(), 0
    places.require_free(source, overwrite)
    with AudioReader(source, name=name) as reader, ExitStack() as stack:
        format, frames = reader.format, reader.frames

        def chunks() -> Any:
            while (chunk := reader.read(format.sample_rate)).shape[1]:
                yield chunk

        files = (AudioWriter(place, format, overwrite=overwrite, frames=frames) for place in places.all())
        writers = [stack.enter_context(file) for file in files]
        judged: list[tuple[Consistency, float]] = []
        how |= {"strength": strength, "draws": range(seed, seed + n), "judged": judged.append}
        for out in pipeline.stream(chunks(), format.sample_rate, **how):
            drawn = out.reshape(n, format.channels, -1)
            for writer, x in zip(writers, [*drawn, drawn.mean(axis=0), drawn.std(axis=0, ddof=1)], strict=True):
                writer.write(np.ascontiguousarray(x))
            done += out.shape[1]
            if progress and frames:
                progress(min(1.0, done / frames))
        seconds = time.perf_counter() - started
        return Result(
            input=reader.name,
            output=str(places.mean),
            seconds=round(seconds, 3),
            speed=round(done / format.sample_rate / seconds, 2),
            speed_unit="times_real_time",
            noise_before=None,
            noise_after=None,
            noise_unit="dbfs",
            files=tuple(map(str, places.all())),
            residual=mean_of([told for told, _ in judged]),
            warnings=tuple(reader.warnings)
            + doubted_much(reader.name, float(np.mean([share for _, share in judged])) if judged else 0.0),
        )


class Moments:
    """Mean and standard deviation of arrays that come one by one.

    Reference:
        Note on a Method for Calculating Corrected Sums of Squares and Products, Welford, 1962.
    """

    def __init__(self) -> None:
        self.n, self.mean, self.squares = 0, np.zeros(()), np.zeros(())

    def add(self, x: NDArray[Any]) -> None:
        self.n += 1
        off = x - self.mean
        self.mean = self.mean + off / self.n
        self.squares = self.squares + off * (x - self.mean)

    def std(self) -> NDArray[Any]:
        """Of a sample: divided by n - 1."""
        return np.sqrt(self.squares / max(1, self.n - 1))


def check_samples(pipeline: Any, n: int, inputs: Sequence[str], out: str | None, others: Mapping[str, Any]) -> None:
    """Refuse, before any work, samples that could not be drawn or written.

    Raises:
        ConfigError: the model draws none, they would all go to a pipe, or another option asks for the one answer.
    """
    if not n:
        return
    check_draws(pipeline.model, pipeline.card.name, n)
    Places.beside("NAME.EXT", n)
    if out == STREAM or (out is None and STREAM in inputs):
        raise ConfigError("samples are files; give -o a name or a folder.")
    for option, value in others.items():
        if value is not None:
            raise ConfigError(f"{option} is of the one answer; leave it out, or --samples.")
