"""Containers that libsndfile reads and writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio.container import AudioContainer, AudioDecoder, AudioEncoder
from denoise.files.audio.pcm import FLOATS, INTEGER_BITS, quantize
from denoise.files.audio.spliced import Section, SplicedFile, file_size
from denoise.signals import AudioFormat

TAGS = ("title", "copyright", "software", "artist", "comment", "date", "album", "license", "tracknumber", "genre")
FLOAT64_SUBTYPES = ("PCM_32", "ALAC_32", "DOUBLE")  # float32 would lose bits
LOSSY_SUBTYPES = ("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")
LOSSY_COMPRESSION_LEVEL = 0.2  # from 0, the best quality, to 1; better than most sources were coded with
UNKNOWN_FRAMES = 1 << 62  # libsndfile's number for an unknown length is above this
READ_FRAMES = 4096  # samples of a damaged file that are lost at most before the damage
WRITE_FRAMES = 32_768  # libsndfile's Vorbis encoder overflows on longer blocks

T = TypeVar("T")


class UnreadableError(InputError):
    """Neither a container nor a codec that libsndfile reads."""


class SequentialSoundFile(soundfile.SoundFile):
    """A sound file that is read from its first sample to its last without seeking.

    `soundfile` seeks after every read to where that read has ended. This makes the last read of a FLAC of unknown
    length fail, and libmpg123 print complaints.
    """

    def seekable(self) -> bool:
        """Return False."""
        return False


class CallbackFile:
    """A file that libsndfile reads or writes by callbacks.

    No exception can pass through libsndfile: it would be printed, and taken for the end of the file. The first error is
    kept, and the calls after it do nothing.

    Args:
        file: the file, seekable.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def raise_error(self) -> None:
        """Raise the error that was kept, if any."""
        if self._error is not None:
            raise self._error

    def _call(self, default: T, function: Callable[..., T], *args: Any) -> T:
        if self._error is None:
            try:
                return function(*args)
            except OSError as error:
                self._error = error
        return default

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset, which may write what is buffered."""
        return self._call(0, self._file.seek, offset, whence)

    def tell(self) -> int:
        """Return the offset."""
        return self._call(0, self._file.tell)

    def write(self, data: bytes) -> int:
        """Write bytes."""
        return self._call(0, self._file.write, data)

    def read(self, n: int = -1) -> bytes:
        """Read bytes."""
        return self._call(b"", self._file.read, n)


class SoundfileDecoder:
    """A file that libsndfile reads; an `AudioDecoder`.

    Args:
        source: the file, seekable.
        frames: number of samples of each channel to decode, where libsndfile's number is an estimate.

    Raises:
        UnreadableError: libsndfile cannot read the file.
        InputError: it has no samples.
    """

    is_live = False

    def __init__(self, source: BinaryIO | SplicedFile, frames: int | None = None) -> None:
        self.warnings: list[str] = []
        self._position, self._limit = 0, frames
        if not isinstance(source, SplicedFile):
            source = SplicedFile(source, [Section(0, file_size(source))])
        self._source = CallbackFile(cast(BinaryIO, source))
        try:
            self._file = SequentialSoundFile(self._source)
        except (RuntimeError, ValueError, TypeError) as error:
            self._source.raise_error()
            raise UnreadableError(
                f"cannot be read as audio ({describe_error(error)}); expected WAV, FLAC, OGG, MP3 or AIFF. "
                "Convert it first, as by ffmpeg -i IN out.wav."
            ) from None
        try:
            self.format, self.frames = self._read_header()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> tuple[AudioFormat, int | None]:
        file = self._file
        tags = {tag: text for tag in TAGS if (text := getattr(file, tag))}
        format = AudioFormat(file.samplerate, file.channels, file.format, file.subtype, file.endian, tags)
        if not file.frames:
            raise InputError("has no samples; expected at least one. Record it again.")
        return format, self._limit or (file.frames if file.frames < UNKNOWN_FRAMES else None)

    def read(self, n: int) -> NDArray[Any]:
        """Return the next samples.

        Args:
            n: number of samples of each channel.

        Returns:
            (channels, up to n), full scale 1.0.

        Raises:
            InputError: the file is damaged from its first sample on.
        """
        if self._limit is not None:
            n = min(n, self._limit - self._position)
        dtype = "float64" if self.format.subtype in FLOAT64_SUBTYPES else "float32"
        blocks = [np.empty((0, self.format.channels), dtype)]
        while n > 0 and len(block := self._read_block(min(n, READ_FRAMES), dtype)):
            blocks.append(block)
            n -= len(block)
        if n > 0 and len(blocks) == 1 and self.frames and self._position < self.frames:
            self.warnings.append(f"ends after {self._position:,} of {self.frames:,} samples.")
            self.frames = self._position
        return np.ascontiguousarray(np.concatenate(blocks).T)

    def _read_block(self, n: int, dtype: str) -> NDArray[Any]:
        block = np.empty((n, self.format.channels), dtype)
        try:
            n_read = len(self._file.read(n, out=block))
        except RuntimeError as error:  # the samples before the damage, or before other bytes behind a FLAC, have come
            n_read = self._file.tell() - self._position
            if not self._position and not n_read:
                raise InputError(f"damaged ({error}). Get another copy.") from None
        finally:
            self._source.raise_error()
        self._position += n_read
        return block[:n_read]

    def seek(self, position: int) -> None:
        """Continue at a sample.

        Args:
            position: index of the sample.

        Raises:
            InputError: the file is damaged.
        """
        try:
            self._file.seek(position)
        except RuntimeError as error:
            raise InputError(f"damaged ({error}). Get another copy.") from None
        finally:
            self._source.raise_error()
        self._position = position

    def close(self) -> None:
        """Close libsndfile's handle; the source stays open."""
        self._file.close()


class SoundfileEncoder:
    """A file that libsndfile writes; an `AudioEncoder`.

    Args:
        target: path, or seekable file.
        format: format of the source.
        container: libsndfile's name of the container.
        subtype: libsndfile's name of the coding.

    Raises:
        InputError: the container cannot hold the format.
    """

    def __init__(self, target: str | bytes | BinaryIO, format: AudioFormat, container: str, subtype: str) -> None:
        self._target = None if isinstance(target, str | bytes) else CallbackFile(target)
        try:
            self._file = soundfile.SoundFile(
                self._target or target,
                "w",
                format.sample_rate,
                format.channels,
                subtype,
                format.endian if container == format.format else "FILE",
                container,
                compression_level=LOSSY_COMPRESSION_LEVEL if subtype in LOSSY_SUBTYPES else None,
            )
        except (RuntimeError, ValueError) as error:
            self._raise_error()
            raise InputError(
                f"{container} cannot hold {format.channels} channels of {subtype} at {format.sample_rate} Hz "
                f"({describe_error(error)}). Choose another extension of the output."
            ) from None
        self._bits = INTEGER_BITS.get(subtype)
        self.clips_as = "" if subtype in (*FLOATS, *LOSSY_SUBTYPES) else subtype
        is_deeper = format.subtype in FLOATS or INTEGER_BITS.get(format.subtype, 0) > (self._bits or 0)
        self._dither = np.random.default_rng(0) if is_deeper else None

    def write(self, x: NDArray[Any]) -> None:
        """Append samples.

        Args:
            x: (channels, time), full scale 1.0; integers clip there.

        Raises:
            InputError: the file cannot be written.
            OSError: as before, with the reason.
        """
        try:
            for start in range(0, x.shape[1], WRITE_FRAMES):
                block = np.ascontiguousarray(x[:, start : start + WRITE_FRAMES].T)
                if self._bits is not None:  # libsndfile takes the floor of floats
                    block = quantize(block, self._bits, self._dither) << (32 - self._bits)
                self._file.write(block)
        except RuntimeError as error:
            raise InputError(f"cannot be written ({error}). Free space, or choose another folder.") from None
        finally:  # libsndfile does not say why it wrote less
            self._raise_error()

    def close(self) -> None:
        """Finish the file."""
        if not self._file.closed:
            self._file.close()
            self._raise_error()

    def _raise_error(self) -> None:
        if self._target is not None:
            self._target.raise_error()


@dataclass(frozen=True)
class SoundfileContainer(AudioContainer):
    """A container that libsndfile reads and writes; subclasses state what differs.

    Without a name it stands for any container that libsndfile detects.
    """

    def matches(self, head: bytes) -> bool:
        """Return False: libsndfile detects its containers itself, where no other one matches."""
        return False

    def open(self, source: BinaryIO) -> AudioDecoder:
        """Open a file for reading with libsndfile.

        Args:
            source: the file, seekable.

        Raises:
            InputError: libsndfile cannot read the file, or it has no samples.
        """
        return SoundfileDecoder(source)

    def create(self, target: str | bytes | BinaryIO, format: AudioFormat, frames: int | None) -> AudioEncoder:
        """Create a file with libsndfile.

        Args:
            target: path, or seekable file.
            format: format of the source, perhaps of another container; the nearest subtype is used.
            frames: number of samples of each channel, if known.

        Raises:
            InputError: the container cannot hold the format.
        """
        return SoundfileEncoder(target, format, *self.choose_format(format, frames))

    def choose_format(self, format: AudioFormat, frames: int | None) -> tuple[str, str]:
        """Return libsndfile's names of the container and of the subtype to write.

        Args:
            format: format of the source.
            frames: number of samples of each channel, if known.
        """
        return self.name, nearest_subtype(self.name, format.subtype)


def nearest_subtype(container: str, subtype: str) -> str:
    """Return the subtype that a container holds with the least loss.

    Args:
        container: libsndfile's name of a container for PCM.
        subtype: libsndfile's name of the subtype of the source.
    """
    # A lossy codec decodes to floats: 24 bits hold them without audible error, and 16 bits would add dither.
    # libsndfile reads MP3 in WAV, reports the format as valid, and cannot write it.
    if subtype not in LOSSY_SUBTYPES and soundfile.check_format(container, subtype):
        return subtype
    other_8_bits = {"PCM_U8": "PCM_S8", "PCM_S8": "PCM_U8"}.get(subtype)
    return other_8_bits if other_8_bits and soundfile.check_format(container, other_8_bits) else "PCM_24"


def describe_error(error: Exception) -> str:
    """Return the message of libsndfile without the name of the file."""
    text = str(error.error_string if isinstance(error, soundfile.LibsndfileError) else error)
    if text.startswith("File does not exist"):  # libmpg123 finds no sound; the file is open
        return "no sound can be decoded"
    return text.removeprefix("Error : ").strip().rstrip(".")
