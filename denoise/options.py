"""Options of a denoising run: one frozen object, validated once, and the defaults that every interface shows.

This module imports no torch, so that ``denoise --help`` stays quick.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import index
from pathlib import Path
from typing import Any, Literal, get_args

from denoise.errors import ConfigError, shorten

DEVICES = ("auto", "cpu", "cuda", "mps")
"""Names of what a network is computed on; ``"auto"`` takes a GPU if there is one."""

AUDIO_STEPS = 5
"""Network calls per posterior sample of audio; each adds to the latency of a stream."""

IMAGE_STEPS = 12
"""Network calls per posterior sample of an image; the variance is then right within a tenth."""

BLOCK_S = 20.0
"""Seconds of audio that a network without a state processes at a time."""

MAX_MEGAPIXELS = 200.0
"""Size up to which images are read; larger files may be decompression bombs."""

MAX_SEED = 1 << 62
"""Largest seed: those of further samples, which are larger, still fit into 64 bits."""

TIME_LIMIT_S = 7200.0
"""Seconds after which a file of a batch has failed."""

Backend = Literal["auto", "torch", "onnx"]
"""What computes a network; ``"auto"`` takes torch for weights files, and onnxruntime for exported ones."""

BACKENDS: tuple[Backend, ...] = get_args(Backend)

NoiseSource = tuple[float, float] | str | Path
"""Noise alone: a time range of the recording itself, start and end in seconds, or the path of another recording."""

Sigma = float | Literal["auto"] | None
"""Noise level of an image, full scale 1.0; ``"auto"`` and None estimate it for networks that need one."""


RestoreTask = Literal["denoise", "inpaint", "deblur", "upscale", "dejpeg", "declip"]
"""What a prior undoes: noise, missing pixels, blur, lost resolution, JPEG artefacts, or clipped highlights."""

TASKS: tuple[RestoreTask, ...] = get_args(RestoreTask)

AudioRestoreTask = Literal["denoise", "declip", "inpaint", "extend"]
"""What is undone in a recording: noise, clipping, gaps and clicks, or a missing upper band."""

AUDIO_TASKS: tuple[AudioRestoreTask, ...] = get_args(AudioRestoreTask)

RESTORE_STEPS = 20
"""Network calls per restored image, or per window of a recording, of a prior that denoises."""

PRIOR_STEPS = 60
"""Network calls per restored image of a prior that denoises images of one size, which are small."""

INVERSION_STEPS = 100
"""Steps of the optimiser per restored image, of a prior with latents."""

TimeRange = tuple[float, float]
"""Start and end in seconds."""

Stereo = Literal["auto", "linked", "separate"]
"""Whether the channels of audio share one mask."""

STEREO: tuple[Stereo, ...] = get_args(Stereo)


@dataclass(frozen=True, kw_only=True)
class DenoiseOptions:
    """Options of one denoising run, from the public boundary down to the network.

    Args:
        steps: network calls per posterior sample, at least 1.
        strength: mix of input and output, from 0 (input unchanged) to 1 (full denoising).
        attenuation_limit: maximum attenuation of any component in dB, 0 or more; None sets no limit.
        sigma: noise level of an image, see `Sigma`.
        luminance: strength for the luminance of images, 0 to 1, times ``strength``.
        colour: strength for the colour of images, 0 to 1, times ``strength``.
        detail: faint detail that is kept in images, at the price of noise, from 0 (the network is conditioned on the
            noise as it is) to 1 (on half of it); for networks that take the noise.
        noise_profile: noise alone, of which the noise profile of audio is measured, see `NoiseSource`; None estimates
            the noise.
        perception: perception-distortion trade-off, from 0 (posterior mean) to 1 (posterior sample); None selects the
            posterior sample if ``seed`` is given, else the posterior mean.
        seed: seed of the posterior sample; None is seed 0 if ``perception`` is above 0.
        stereo: whether the channels of audio share one mask (``"linked"``) or not (``"separate"``); ``"auto"`` links
            two channels, unless a file or an array shows that they hardly correlate, and no other number of them. For
            networks that stream.
        overwrite: whether existing files are replaced.
        max_megapixels: size up to which images are read, above 0.

    Raises:
        ConfigError: a value is out of range.
    """

    steps: int
    strength: float = 1.0
    attenuation_limit: float | None = None
    sigma: Sigma = None
    luminance: float = 1.0
    colour: float = 1.0
    detail: float = 0.0
    noise_profile: NoiseSource | None = None
    perception: float | None = None
    seed: int | None = None
    stereo: Stereo = "auto"
    overwrite: bool = False
    max_megapixels: float = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        for name in ("strength", "luminance", "colour", "detail", "max_megapixels"):
            check_number(name, getattr(self, name))
        for name in ("attenuation_limit", "perception"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name))
        if self.sigma is not None and not isinstance(self.sigma, str):
            check_number("sigma", self.sigma)
        check_number("steps", self.steps, is_whole=True)
        if self.seed is not None:
            check_number("seed", self.seed, is_whole=True)
            if not 0 <= self.seed <= MAX_SEED:
                raise ConfigError(f"seed is {self.seed}; expected 0 to {MAX_SEED}.")
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"strength is {self.strength:g}; expected 0 (input unchanged) to 1 (full denoising).")
        for name in ("luminance", "colour", "detail"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name):g}; expected 0 to 1.")
        if self.attenuation_limit is not None and not self.attenuation_limit >= 0:
            raise ConfigError(f"attenuation limit is {self.attenuation_limit:g} dB; expected 0 or more.")
        if isinstance(self.sigma, str) and self.sigma != "auto":
            raise ConfigError(f"sigma is {self.sigma!r}; expected auto or a number.")
        if self.perception is not None and not 0 <= self.perception <= 1:
            raise ConfigError(
                f"perception is {self.perception:g}; expected 0 (posterior mean) to 1 (posterior sample)."
            )
        if self.noise_profile is not None and not isinstance(self.noise_profile, str | Path):
            try:
                start, end = self.noise_profile
                for seconds in (start, end):
                    check_number("a time of noise_profile", seconds)
            except (TypeError, ValueError):
                expected = "start and end in seconds, or the path of a recording of noise"
                raise ConfigError(f"noise_profile is {shorten(self.noise_profile)}; expected {expected}.") from None
            if not 0 <= start < end:
                raise ConfigError(f"the noise profile is of {start:g} to {end:g} s; expected a start before the end.")
        if self.stereo not in STEREO:
            raise ConfigError(f"stereo is {self.stereo!r}; expected {', '.join(STEREO)}.")
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; expected at least 1.")
        check_max_megapixels(self.max_megapixels)

    @property
    def limited_strength(self) -> float:
        """Strength at which no component is attenuated by more than ``attenuation_limit``.

        >>> DenoiseOptions(steps=1, attenuation_limit=20.0).limited_strength
        0.9
        """
        if self.attenuation_limit is None:
            return self.strength
        return min(self.strength, 1 - 10 ** (-self.attenuation_limit / 20))

    @property
    def uses_posterior(self) -> bool:
        """Whether a posterior sample or a perception is requested, which not every network supports."""
        return self.seed is not None or self.perception is not None

    @property
    def mix_weight(self) -> float:
        """Weight of the posterior sample beside the posterior mean, 0 to 1."""
        return float(self.seed is not None) if self.perception is None else self.perception

    @property
    def linked(self) -> bool | None:
        """Whether the channels share one mask; None if that follows from their number."""
        return {"auto": None, "linked": True, "separate": False}[self.stereo]

    @property
    def estimates_sigma(self) -> bool:
        """Whether the noise level is estimated, by the pipeline or by a blind network."""
        return self.sigma is None or self.sigma == "auto"


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """Options of the restoration of an image by a prior.

    Args:
        task: what is undone.
        mask: for inpainting, an image of the same size that is white where pixels are missing. It is laid on the image
            as viewers show both, each turned by its own EXIF orientation; an array has none.
        blur: for deblurring, the standard deviation of a Gaussian blur in pixels.
        kernel: for deblurring, an image of the kernel instead, of the blur as viewers show both.
        factor: for upscaling, the factor of both sides, 2 to 8.
        quality: for JPEG artefacts, 1 to 100 if the image was a JPEG of Pillow or libjpeg with chroma at half the
            resolution; None reads the steps of the quantisation from the file.
        limit: for clipped highlights, the level at which they are clipped, full scale 1.0; None is the largest of the
            image, if many values are there and few a little below.
        sigma: noise level of the measured image, full scale 1.0; None estimates it, for inpainting
            there is none. Not for JPEG artefacts and clipped highlights.
        steps: steps for each image, at least 2; None is `RESTORE_STEPS`, `PRIOR_STEPS` of priors of images of one
            size, or `INVERSION_STEPS` of priors with latents. A denoiser removes noise in one call, which takes none,
            unless there are samples.
        seed: seed of the first sample; each next one adds 1.
        samples: number of posterior samples to write with their mean and standard deviation; 0 writes one image.
        overwrite: whether existing files are replaced.
        max_megapixels: size up to which images are read, above 0.

    Raises:
        ConfigError: a value is out of range, or an option is missing or of another task.
    """

    task: RestoreTask
    mask: str | Path | None = None
    blur: float | None = None
    kernel: str | Path | None = None
    factor: int | None = None
    quality: int | None = None
    limit: float | None = None
    sigma: float | None = None
    steps: int | None = None
    seed: int = 0
    samples: int = 0
    overwrite: bool = False
    max_megapixels: float = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        own = {"inpaint": ("mask",), "deblur": ("blur", "kernel"), "upscale": ("factor",)}
        own |= {"denoise": (), "dejpeg": ("quality",), "declip": ("limit",)}
        if self.task not in own:
            raise ConfigError(f"task is {self.task!r}; expected {', '.join(TASKS)}.")
        given = {name: task for task, names in own.items() for name in names if getattr(self, name) is not None}
        for name, task in given.items():
            if task != self.task:
                raise ConfigError(f"{name} is for the task {task}, not {self.task}. Leave it out.")
        if len(given) != 1 and self.task in ("inpaint", "deblur", "upscale"):
            count = "one of them" if len(own[self.task]) > 1 else "it"
            raise ConfigError(f"the task {self.task} needs {' or '.join(own[self.task])}; give {count}.")
        if self.sigma is not None and self.task in ("dejpeg", "declip"):
            raise ConfigError(f"sigma is not for the task {self.task}, which takes the image as exact. Leave it out.")
        _check_ranges(
            self, ("blur", 0.1, 50), ("factor", 2, 8), ("quality", 1, 100), ("limit", 0.01, math.inf), *SAMPLER_RANGES
        )
        check_number("max_megapixels", self.max_megapixels)
        check_max_megapixels(self.max_megapixels)


def parse_sigma(value: str | float | None) -> Sigma:
    """Return the noise level of an image, full scale 1.0, for one on the scale of 0 to 255.

    Args:
        value: a number from 0 to 255 or its text, ``"auto"`` or None.

    Raises:
        ConfigError: it is something else.

    >>> parse_sigma("51")
    0.2
    """
    if value is None or value == "auto":
        return value  # type: ignore[return-value]
    try:
        sigma = float(value)
    except ValueError:
        sigma = -1.0
    if not 0 <= sigma <= 255:
        raise ConfigError(f"sigma is {value!r}; expected auto or a number from 0 to 255.")
    return sigma / 255


def parse_limit(value: float | None) -> float | None:
    """Return the level at which highlights are clipped, full scale 1.0, for one on the scale of 0 to 255.

    Args:
        value: the level, 2.55 to 255, or None.

    Raises:
        ConfigError: it is out of range.
    """
    if value is not None and not 2.55 <= value <= 255:
        raise ConfigError(f"limit is {value:g}; expected 2.55 to 255.")
    return None if value is None else value / 255


@dataclass(frozen=True, kw_only=True)
class AudioRestoreOptions:
    """Options of the restoration of a recording.

    Args:
        task: what is undone.
        sigma: for denoising, the standard deviation of white noise, full scale 1.0; None estimates the spectrum of the
            noise over time.
        limit: for declipping, the absolute value at which the recording is clipped, full scale 1.0; None finds it.
        gain_db: for declipping, gain of the result, -60 to 0: restored peaks exceed full scale, which integers do not.
            None is -6 for files of integers that are clipped near full scale, 0 else.
        gaps: for inpainting, time ranges that are missing in all channels, or a recording of the same length that is
            not 0 where samples are missing; None finds runs of zeros and clicks.
        band: for extension, the frequency in Hz above which the recording holds nothing; None finds it.
        steps: network calls per window, at least 2.
        seed: seed of the first sample; each next one adds 1.
        samples: number of posterior samples to write with their mean and standard deviation; 0 writes one recording.
        overwrite: whether existing files are replaced.

    Raises:
        ConfigError: a value is out of range, or an option is of another task.
    """

    task: AudioRestoreTask = "denoise"
    sigma: float | None = None
    limit: float | None = None
    gain_db: float | None = None
    gaps: Sequence[TimeRange] | str | Path | None = None
    band: float | None = None
    steps: int = RESTORE_STEPS
    seed: int = 0
    samples: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.task not in AUDIO_TASKS:
            raise ConfigError(f"task is {self.task!r}; expected {', '.join(AUDIO_TASKS)}.")
        own = {"sigma": "denoise", "limit": "declip", "gain_db": "declip", "gaps": "inpaint", "band": "extend"}
        for name, task in own.items():
            if getattr(self, name) is not None and task != self.task:
                raise ConfigError(f"{name} is for the task {task}, not {self.task}. Leave it out.")
        if self.gaps is not None and not isinstance(self.gaps, str | Path):
            object.__setattr__(self, "gaps", _parse_gaps(self.gaps))
        _check_ranges(self, ("limit", 1e-4, 10), ("gain_db", -60, 0), ("band", 100, 100_000), *SAMPLER_RANGES)


SAMPLER_RANGES = (("sigma", 0, 1), ("steps", 2, 1000), ("seed", 0, MAX_SEED))
WHOLE = ("steps", "seed", "samples", "factor", "quality")


def _check_ranges(options: RestoreOptions | AudioRestoreOptions, *ranges: tuple[str, float, float]) -> None:
    """Refuse numbers of samples and other numbers of a restoration that are out of range."""
    check_number("samples", options.samples, is_whole=True)
    if options.samples < 0 or options.samples == 1:
        raise ConfigError(f"samples is {options.samples}; expected 0, or at least 2.")
    for name, low, high in ranges:
        value = getattr(options, name)
        if value is None and name != "seed":
            continue
        check_number(name, value, is_whole=name in WHOLE)
        if not low <= value <= high:
            raise ConfigError(f"{name} is {value:g}; expected {low:g} to {high:g}.")


def _parse_gaps(gaps: Any) -> tuple[TimeRange, ...]:
    """Return time ranges as a tuple, or refuse them."""
    try:
        ranges = tuple((start, end) for start, end in gaps)
        for seconds in chain.from_iterable(ranges):
            check_number("a time of gaps", seconds)
    except (TypeError, ValueError):
        raise ConfigError(f"gaps is {shorten(gaps)}; expected pairs of start and end in seconds.") from None
    if not ranges:
        raise ConfigError("gaps is empty; expected at least one. None finds them.")
    for start, end in ranges:
        if not 0 <= start < end < math.inf:
            raise ConfigError(f"a gap is from {start:g} to {end:g} s; expected a start before the end.")
    return ranges


def check_number(name: str, value: object, *, is_whole: bool = False) -> None:
    """Refuse what is no number.

    Args:
        name: name of the option.
        value: its value.
        is_whole: whether it has to be a whole number.

    Raises:
        ConfigError: it is something else.
    """
    convert: Callable[[Any], object] = index if is_whole else float
    try:
        if isinstance(value, str | bytes):  # which float would read
            raise TypeError
        convert(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {shorten(value)}; expected a {'whole ' * is_whole}number.") from None


def check_max_megapixels(max_megapixels: float) -> None:
    """Check a limit of the size of images.

    Args:
        max_megapixels: size up to which images are read.

    Raises:
        ConfigError: the limit is not a finite number above 0.
    """
    if not 0 < max_megapixels < math.inf:
        raise ConfigError(f"max_megapixels is {max_megapixels:g}; expected a number above 0.")
