"""Recordings of noise alone, from which a noise profile is measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from denoise.errors import ConfigError, InputError
from denoise.files.audio import AudioReader, AudioSource, RawFormat
from denoise.options import NoiseSource, TimeRange
from denoise.pipelines.excerpts import is_pipe, open_preview
from denoise.pipelines.hum import MAX_TONES, SAME_HZ, Tone, find_noise_tones, without_tones
from denoise.protocols import ArrayNetwork, ArrayNoiseProfileNetwork
from denoise.registry import GENERAL_MODEL
from denoise.signals import AudioFormat, as_whole, require_finite_samples

MIN_NOISE_S = 0.1
MAX_NOISE_S = 60.0  # of a recording of noise: more makes the profile no better
TIME = r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)"
RANGE = rf"{TIME}\s*-\s*{TIME}"


def parse_noise_source(text: str) -> NoiseSource:
    """Parse a time range of the recording itself, or the path of a recording of noise.

    Args:
        text: as in ``0:00-0:02.5``, ``1:02:03-1:02:05`` or ``12-14.5``, or a path.

    Returns:
        Start and end in seconds, or the path.

    >>> parse_noise_source("1:00-1:02.5")
    (60.0, 62.5)
    """
    match = re.fullmatch(RANGE, text.strip())
    if match is None:
        return Path(text)
    values = [float(group or 0) for group in match.groups()]
    start, end = (3600 * h + 60 * m + s for h, m, s in (values[:3], values[3:]))
    return start, end


def parse_gaps(text: str) -> tuple[TimeRange, ...] | str:
    """Parse time ranges, separated by commas, or else return the path of a mask.

    Args:
        text: as in ``0:01.2-0:01.25,3.4-3.42``, or a path.

    >>> parse_gaps("0:01.2-0:01.25,3.4-3.42")
    ((1.2, 1.25), (3.4, 3.42))
    """
    if not re.fullmatch(rf"{RANGE}(?:\s*,\s*{RANGE})*", text.strip()):
        return text
    ranges = [parse_noise_source(part) for part in text.split(",")]
    return tuple(each for each in ranges if isinstance(each, tuple))


def read_noise(
    source: AudioSource, noise: NoiseSource, *, raw: RawFormat | None = None, name: str | None = None
) -> tuple[NDArray[Any], int]:
    """Read noise alone.

    Args:
        source: recording that is denoised.
        noise: time range of it in seconds, or a recording of noise, of which the first minute is read.
        raw: format of ``source``, if it is headerless PCM.
        name: name of ``source`` in messages, if it is no path.

    Returns:
        Noise, (channels, time), full scale 1.0, and its sample rate in Hz.

    Raises:
        InputError: a recording cannot be read, or ends before the range does; the noise is silent or too short.
        ConfigError: the source is a pipe.
    """
    if isinstance(noise, str | Path):
        return _read_recording(noise)
    if is_pipe(source):
        raise ConfigError("a pipe cannot be read twice: give a recording of the noise as the noise profile.")
    with open_preview(source, raw=raw, name=name) as reader:
        rate, position = reader.format.sample_rate, 0
        first, last = _to_samples(noise, rate)
        while position < first and (skipped := reader.read(min(first - position, rate)).shape[1]):
            position += skipped
        segment = reader.read(last - first) if position == first else np.zeros((1, 0))
        if segment.shape[1] < last - first:
            raise InputError(f"{reader.name}: {_too_short(position + segment.shape[1], rate, noise)}")
        return _require_noise(segment, rate, f"{reader.name}: "), rate


def cut_noise(x: NDArray[Any], sample_rate: int, noise: NoiseSource) -> tuple[NDArray[Any], int]:
    """Return noise alone, for a recording in memory.

    Args:
        x: recording that is denoised, (channels, time), full scale 1.0.
        sample_rate: its rate in Hz.
        noise: as in `read_noise`.

    Returns:
        As `read_noise`.

    Raises:
        InputError: as in `read_noise`.
    """
    if isinstance(noise, str | Path):
        return _read_recording(noise)
    first, last = _to_samples(noise, sample_rate)
    if last > x.shape[1]:
        raise InputError(_too_short(x.shape[1], sample_rate, noise))
    return x[:, first:last], sample_rate


def measure_profile(network: ArrayNetwork, name: str, noise: NDArray[Any], sample_rate: int) -> NDArray[Any]:
    """Measure the noise profile of noise alone.

    Args:
        network: network that the profile is for.
        name: name of its model, for messages.
        noise: noise, (channels, time), float32 or float64, full scale 1.0.
        sample_rate: its rate in Hz.

    Returns:
        Profile of each channel, (channels, positions).

    Raises:
        ConfigError: the network takes no noise profile.
        InputError: the noise has another shape or type, or is silent, not finite or shorter than 0.1 s.
    """
    noise_network = require_noise_profile_network(network, name)
    x, sample_rate = _as_noise(noise, sample_rate)
    return noise_network.measure_noise(x[:, None], sample_rate=sample_rate)


def _as_noise(noise: NDArray[Any], sample_rate: int) -> tuple[NDArray[np.float32], int]:
    """Return noise alone, (channels, time), and its sample rate, or refuse them as `measure_profile` does."""
    x: Any = np.asarray(noise)
    if x.ndim != 2 or x.dtype not in (np.float32, np.float64):
        raise InputError(f"the noise is {x.dtype} of shape {x.shape}; expected float32 or float64, (channels, time).")
    sample_rate = as_whole("sample rate", sample_rate)
    AudioFormat(sample_rate, x.shape[0])  # checks both
    require_finite_samples(x)
    return np.ascontiguousarray(_require_noise(x, sample_rate), np.float32), sample_rate


class NoisePrint(NamedTuple):
    """The steady tones of noise alone, and the profile of the rest.

    Args:
        profile: noise profile without the tones, (channels, positions); None estimates the noise.
        tones: its steady tones in each channel.
    """

    profile: NDArray[Any] | None
    tones: tuple[tuple[Tone, ...], ...] = ()

    def tones_of(self, channels: int) -> tuple[tuple[Tone, ...], ...]:
        """Return the tones of each channel of a recording: those of all where it has another number of channels."""
        if len(self.tones) == channels:
            return self.tones
        together: list[Tone] = []
        for tone in sorted((each for channel in self.tones for each in channel), key=lambda tone: -tone.power):
            if all(abs(tone.frequency - other.frequency) >= SAME_HZ for other in together):
                together.append(tone)
        return (tuple(together[:MAX_TONES]),) * channels


def measure_noise_print(network: ArrayNetwork, name: str, noise: NDArray[Any], sample_rate: int) -> NoisePrint:
    """Measure noise alone: its steady tones, and the profile of the rest.

    A network takes a tone for music, whatever the profile says; notches remove it.

    Args:
        network: as of `measure_profile`, whose errors this raises, too.
        name: likewise.
        noise: likewise.
        sample_rate: likewise.
    """
    noise_network = require_noise_profile_network(network, name)
    x, sample_rate = _as_noise(noise, sample_rate)
    tones = find_noise_tones(x, sample_rate)
    residual = without_tones(x, sample_rate, tones)
    return NoisePrint(noise_network.measure_noise(residual[:, None], sample_rate=sample_rate), tones)


def require_noise_profile_network(network: ArrayNetwork, name: str) -> ArrayNoiseProfileNetwork:
    """Return a network that takes a noise profile.

    Args:
        network: any network.
        name: name of its model.

    Raises:
        ConfigError: it takes none.
    """
    if not isinstance(network, ArrayNoiseProfileNetwork):
        raise ConfigError(f"model {name} takes no noise profile; use {GENERAL_MODEL}.")
    return network


def _read_recording(path: str | Path) -> tuple[NDArray[Any], int]:
    if not Path(path).exists():
        raise InputError(
            f"{path}: is no file of noise; a single part of the recording is given as 0:00-0:02.5 on the command "
            "line, (0, 2.5) in Python."
        )
    with AudioReader(path) as reader:
        rate = reader.format.sample_rate
        return _require_noise(reader.read(round(MAX_NOISE_S * rate)), rate, f"{reader.name}: "), rate


def _to_samples(seconds: tuple[float, float], sample_rate: int) -> tuple[int, int]:
    start, end = seconds
    return round(start * sample_rate), round(min(end, start + MAX_NOISE_S) * sample_rate)


def _require_noise(noise: NDArray[Any], sample_rate: int, prefix: str = "") -> NDArray[Any]:
    """Refuse noise that shows nothing; ``prefix`` of the message names the recording."""
    seconds = noise.shape[1] / sample_rate
    if seconds < MIN_NOISE_S:
        raise InputError(f"{prefix}the noise lasts {seconds:.3g} s; expected at least {MIN_NOISE_S:g} s.")
    if (noise == noise[:, :1]).all():  # perhaps at an offset
        raise InputError(f"{prefix}the noise is silent; expected a part with noise alone.")
    return noise


def _too_short(length: int, sample_rate: int, seconds: tuple[float, float]) -> str:
    return f"lasts {length / sample_rate:.1f} s; the noise profile is of {seconds[0]:g} to {seconds[1]:g} s."
