"""Validated containers of one decoded signal: samples or pixels, and what a writer needs to store them again.

Audio and images share no base class on purpose: time is not a second kind of space, and a common base would only hold
the word "data".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise.errors import ConfigError, InputError, shorten

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 8_000, 192_000
MAX_CHANNELS = 8
MAX_SAMPLE = 1e20  # full scale is 1; powers of larger samples overflow


@dataclass
class AudioMetadata:
    """What an audio file holds beside its sound, as blocks of its container that only `denoise.files.audio` interprets.

    Args:
        leading: blocks before the sound.
        trailing: blocks after the sound; those of a pipe come when its sound has been read.
        channel_mask: loudspeaker positions of the channels as in WAV, 0 for none; None if the file states no mask.
        dropped: names of blocks that are not copied.
        pending_bytes: size of the blocks that are still to come from a pipe.
    """

    leading: list[bytes] = field(default_factory=list)
    trailing: list[bytes] = field(default_factory=list)
    channel_mask: int | None = None
    dropped: list[str] = field(default_factory=list)
    pending_bytes: int = 0

    @property
    def n_bytes(self) -> int:
        """Size of all blocks in bytes."""
        return sum(map(len, (*self.leading, *self.trailing))) + self.pending_bytes


@dataclass(frozen=True)
class AudioFormat:
    """How an audio file is stored: everything that a writer needs for another file of the same format.

    Args:
        sample_rate: in Hz.
        channels: number of channels.
        format: libsndfile's name of the container, such as ``"WAV"``.
        subtype: libsndfile's name of the encoding, such as ``"PCM_16"``.
        endian: libsndfile's name of the byte order, such as ``"FILE"``.
        tags: text (title, artist, ...); only used without ``metadata``.
        metadata: what the file holds beside its sound, in the blocks of ``format``; None if that was not read.

    Raises:
        InputError: sample rate or channels are out of range.
    """

    sample_rate: int
    channels: int
    format: str = "WAV"
    subtype: str = "FLOAT"
    endian: str = "FILE"
    tags: dict[str, str] = field(default_factory=dict)
    metadata: AudioMetadata | None = None

    def __post_init__(self) -> None:
        if not MIN_SAMPLE_RATE <= self.sample_rate <= MAX_SAMPLE_RATE:
            raise InputError(
                f"sample rate is {self.sample_rate} Hz; expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz. "
                "Resample the recording first."
            )
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise InputError(f"{self.channels} channels; expected 1 to {MAX_CHANNELS}. Split the recording first.")


@dataclass(frozen=True)
class Audio:
    """A whole recording in memory.

    Args:
        samples: (channels, time), float32 or float64, finite, full scale 1.0.
        format: of its file.

    Raises:
        InputError: shape or values of the samples do not fit.
    """

    samples: NDArray[Any]
    format: AudioFormat

    def __post_init__(self) -> None:
        x = self.samples
        if x.ndim != 2 or x.shape[0] != self.format.channels:
            raise InputError(f"samples have shape {x.shape}; expected (channels={self.format.channels}, time).")
        require_finite_samples(x)


@dataclass(frozen=True)
class ImageFormat:
    """How an image file is stored: everything that a writer needs for another file of the same format.

    Args:
        container: ``"PNG"``, ``"JPEG"``, ``"TIFF"``, ``"WEBP"``, ``"BMP"``, ``"GIF"``, ``"HEIF"`` or
            ``"AVIF"``.
        mode: stored mode (``"1"``, ``"L"``, ``"LA"``, ``"P"``, ``"RGB"``, ``"RGBA"``, ``"CMYK"``, ...).
        bits: bits per channel.
        info: other contents of the file (icc_profile, exif, dpi, text, quality tables, frame durations, ...), which
            only `denoise.files.image` interprets.
    """

    container: str = "PNG"
    mode: str = "RGB"
    bits: int = 8
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Image:
    """One frame of an image in memory, in the number format of its file, with its alpha channel apart.

    Integers stay integers: a hundred megapixels in float32 would be four times as large, so the pipeline converts
    them tile by tile.

    Args:
        pixels: (height, width, channels), channels 1 (grey), 3 (RGB) or 4 (CMYK); uint8, uint16 or finite float32
            (full scale 255, 65535 or 1.0).
        alpha: (height, width), dtype and full scale of the pixels, or None.
        is_alpha_opacity: whether alpha states how opaque pixels are; False for a further channel of the picture, such
            as near infrared.

    Raises:
        InputError: shape, dtype or values do not fit.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    is_alpha_opacity: bool = True

    def __post_init__(self) -> None:
        x = self.pixels
        if x.ndim != 3 or x.shape[2] not in (1, 3, 4) or 0 in x.shape:
            raise InputError(f"pixels have shape {x.shape}; expected (height, width, 1, 3 or 4), none of them 0.")
        if x.dtype not in (np.uint8, np.uint16, np.float32):
            raise InputError(f"pixels are {x.dtype}; expected uint8, uint16 or float32.")
        if self.alpha is not None and self.alpha.shape != x.shape[:2]:
            raise InputError(f"alpha has shape {self.alpha.shape}; expected {x.shape[:2]} as the pixels.")
        if x.dtype == np.float32 and not np.isfinite(x).all():
            row, column, channel = (int(i) for i in np.argwhere(~np.isfinite(x))[0])
            raise InputError(
                f"pixel ({row}, {column}) of channel {channel} is {x[row, column, channel]}; "
                "an image must be finite. Re-export the file."
            )

    def equals(self, other: Image) -> bool:
        """Tell whether all samples of two frames are equal.

        Args:
            other: frame.
        """
        if self.alpha is None or other.alpha is None:
            return self.alpha is other.alpha and np.array_equal(self.pixels, other.pixels)
        return np.array_equal(self.pixels, other.pixels) and np.array_equal(self.alpha, other.alpha)

    @property
    def full_scale(self) -> float:
        """Value of white: 255, 65535 or 1."""
        return 1.0 if self.pixels.dtype == np.float32 else float(np.iinfo(self.pixels.dtype).max)

    @cached_property
    def visible(self) -> NDArray[np.bool_] | None:
        """Mask of the pixels that are not fully transparent, (height, width); None if all are visible."""
        return None if self.opacity is None or (self.opacity > 0).all() else self.opacity > 0

    @property
    def opacity(self) -> NDArray[Any] | None:
        """Alpha if it states how opaque pixels are, else None."""
        return self.alpha if self.is_alpha_opacity else None

    def as_float(self) -> Image:
        """Return the same image in float32, full scale 1.0."""
        alpha = None if self.alpha is None else self.alpha.astype(np.float32) / np.float32(self.full_scale)
        pixels = (self.pixels / np.float32(self.full_scale)).astype(np.float32)
        return Image(pixels, alpha, self.is_alpha_opacity)

    def from_float(self, pixels_float: NDArray[Any]) -> NDArray[Any]:
        """Convert floats to the dtype of these pixels.

        Args:
            pixels_float: any shape, full scale 1.0.

        Returns:
            The same shape; integers are rounded and clipped.
        """
        x = pixels_float * self.full_scale
        is_integer = self.pixels.dtype != np.float32
        return (np.rint(x).clip(0, self.full_scale) if is_integer else x).astype(self.pixels.dtype)


def require_image(image: object, method: str) -> None:
    """Refuse what is no `Image`, such as an array.

    Args:
        image: what is given as a frame.
        method: what takes arrays, for the message.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(image, Image):
        raise InputError(f"the frame is {shorten(image)}; expected a denoise.signals.Image. Arrays go to {method}.")


def as_whole(name: str, value: Any) -> int:
    """Return a whole number, such as a sample rate, of any type.

    Args:
        name: what it is, for the message.
        value: the number.

    Raises:
        InputError: it is something else.

    >>> as_whole("sample rate", 44100.0)
    44100
    """
    is_number = isinstance(value, Real)
    if not is_number or not math.isfinite(value) or value != int(value):
        raise InputError(f"{name} is {shorten(value)}; expected a whole number.")
    return int(value)


def require_finite_samples(x: NDArray[Any], start: int = 0) -> None:
    """Refuse samples that are NaN, infinite, or so large that their power overflows.

    Args:
        x: (channels, time).
        start: index in the recording of the first sample of ``x``.

    Raises:
        InputError: a sample is not finite, or beyond `MAX_SAMPLE`; the message names the first.
    """
    is_valid = np.abs(x) <= MAX_SAMPLE  # NaN is not
    if not is_valid.all():
        channel, sample = (int(i) for i in np.argwhere(~is_valid)[0])
        value = x[channel, sample]
        where = f"sample {start + sample:,} of channel {channel} is {value}"
        if np.isfinite(value):
            raise InputError(f"{where}; expected at most {MAX_SAMPLE:g}, where full scale is 1. Scale the recording.")
        raise InputError(f"{where}; audio must be finite. Replace it, or export the recording again.")


class NetworkOverflowError(InputError):
    """The samples of a recording are too large for a network."""


def require_finite_output(x: NDArray[Any]) -> None:
    """Refuse the output of a network that has overflowed.

    Args:
        x: (channels, time).

    Raises:
        NetworkOverflowError: a sample is not finite.
    """
    if not np.isfinite(x).all():
        raise NetworkOverflowError(
            "samples are too large for the network; expected about -1 to 1. Scale the recording."
        )


def check_noise_profile(shape: tuple[int, ...], batch: int, positions: int) -> None:
    """Check the shape of a noise profile.

    Args:
        shape: its shape.
        batch: number of signals.
        positions: frequencies of a network.

    Raises:
        ConfigError: it is neither of one signal nor of each.
    """
    if shape not in ((batch, positions), (1, positions)):
        raise ConfigError(
            f"the noise profile has shape {shape}; expected (1, {positions}). Measure it with this model."
        )
