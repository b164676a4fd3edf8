"""Audio files through libsndfile, read and written block by block; pipes as their bytes arrive."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.atomic import atomic_file
from denoise.files.wav_stream import (
    ENDLESS,
    WIDTHS,
    RawFormat,
    decode,
    encode,
    read_block,
    read_wav_header,
    write_wav_header,
)
from denoise.signals import Audio, AudioFormat, require_finite_samples

__all__ = ["AUDIO_EXTENSIONS", "AudioReader", "AudioWriter", "RawFormat", "read_audio", "write_audio"]

CONTAINERS = {
    ".wav": "WAV",
    ".wave": "WAV",
    ".rf64": "RF64",
    ".w64": "W64",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
    ".aif": "AIFF",
    ".aiff": "AIFF",
    ".aifc": "AIFF",
    ".caf": "CAF",
}
AUDIO_EXTENSIONS = frozenset(CONTAINERS)
WAV_FAMILY = ("WAV", "WAVEX", "RF64")
TAGS = ("title", "copyright", "software", "artist", "comment", "date", "album", "license", "tracknumber", "genre")
WIDE = ("PCM_32", "DOUBLE")  # more than float32 holds
LOSSY_LEVEL = 0.2  # of libsndfile's scale from 0, the best, to 1: above what most sources were coded with
MAX_WAV_BYTES = 0xFFFF_0000
READ_STEP = 4096  # samples; what a damaged file loses at most before the place where it breaks
UNKNOWN_FRAMES = 1 << 62  # libsndfile's number for "nobody knows" is above this


class _Sequential(soundfile.SoundFile):
    """A sound file that is read from its first sample to its last, and never sought.

    `soundfile` seeks after every read to where that read has ended. This makes the last read of a FLAC
    of unknown length fail, and libmpg123 print complaints.
    """

    def seekable(self) -> bool:
        return False


class AudioReader:
    """An open recording: its format, and its samples from the first to the last.

    ``frames`` is None where only the end of a pipe tells. ``warnings`` fill while reading.
    Attributes that a text calls tags are in ``format.tags``.

    Raises:
        InputError: the source is missing, no audio, empty, or outside the limits of `AudioFormat`.
    """

    def __init__(self, source: str | Path | BinaryIO, *, raw: RawFormat | None = None, name: str | None = None) -> None:
        self.name = name or (str(source) if isinstance(source, str | Path) else "stream")
        self.warnings: list[str] = []
        self.frames: int | None = None
        self._position = 0
        self._left: int | None = None  # bytes of a pipe that the header declares
        self._pipe: BinaryIO | None = None
        self._file: Any = None
        self._stack = ExitStack()
        try:
            self._open(source, raw)
        except InputError as error:
            self._stack.close()
            raise InputError(f"{self.name}: {error}") from None
        except BaseException:
            self._stack.close()
            raise

    def _open(self, source: str | Path | BinaryIO, raw: RawFormat | None) -> None:
        if isinstance(source, str | Path):
            source = self._stack.enter_context(_open_path(Path(source)))
        if raw is not None:
            self._pipe, self.format = source, raw.as_format()
            return
        if not source.seekable():
            head = read_block(source, 12)
            source = cast(BinaryIO, _Prefixed(head, source))
            if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
                self._pipe = source
                self.format, self._left = read_wav_header(source)
                if self._left is not None and self._left < ENDLESS:
                    self.frames = self._left // (WIDTHS[self.format.subtype] * self.format.channels)
                return
            # other containers need to seek: the pipe goes to disk first
            spool = self._stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(source, spool)
            spool.seek(0)
            source = cast(BinaryIO, spool)
        size = source.seek(0, os.SEEK_END)
        if size == 0:
            raise InputError("is empty (0 bytes); expected audio. Get the file again.")
        if self._check_length(source, size):
            return
        source.seek(0)
        try:
            self._file = self._stack.enter_context(_Sequential(source))
        except (soundfile.LibsndfileError, RuntimeError, ValueError, TypeError) as error:
            reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
            raise InputError(
                f"cannot be read as audio ({reason}); expected WAV, FLAC, OGG, MP3 or AIFF. Check that it plays."
            ) from None
        f = self._file
        tags = {tag: text for tag in TAGS if (text := getattr(f, tag, ""))}
        self.format = AudioFormat(f.samplerate, f.channels, f.format, f.subtype, f.endian, tags)
        self.frames = f.frames if f.frames < UNKNOWN_FRAMES else None
        if not f.frames:
            raise InputError("has no samples; expected at least one. Record it again.")

    def _check_length(self, source: BinaryIO, size: int) -> bool:
        """Warn where the data of a WAV stop before its header says; libsndfile reads what is there.

        True where the header says no length at all, which libsndfile takes for silence: ``source`` is then
        read as a pipe is.
        """
        source.seek(0)
        head = source.read(8)
        if head[:4] not in (b"RIFF", b"RF64"):
            return False
        source.seek(0)
        try:
            format, declared = read_wav_header(source)
        except InputError:
            return False  # another codec, or no WAV at all: libsndfile has the last word
        there = size - source.tell()
        if declared is None and int.from_bytes(head[4:], "little") + 8 == size:
            return False  # finished in good order: no samples, and what follows is something else
        if there and (declared is None or declared > there):
            says = "no length" if declared is None else f"{declared:,} bytes of data"
            seconds = there / WIDTHS[format.subtype] / format.channels / format.sample_rate
            self.warnings.append(
                f"{self.name}: the header says {says}, {there:,} bytes are there; {seconds:.1f} s are used."
            )
            if declared is None:
                self._pipe, self.format, self._left = source, format, there
                self.frames = there // (WIDTHS[format.subtype] * format.channels)
                return True
        return False

    @property
    def live(self) -> bool:
        """Whether the samples come from a pipe, perhaps as they are recorded."""
        return self._pipe is not None and not self._pipe.seekable()

    def read(self, n: int) -> NDArray[Any]:
        """The next ``n`` samples of each channel, fewer at the end, none after it.

        Shape:
            returns: (channels, up to n), float32, or float64 for 32-bit integers and doubles.
        Raises:
            InputError: a sample is NaN or infinite, or the stream holds no sample at all.
        """
        try:
            x = self._read_pipe(n) if self._pipe is not None else self._read_file(n)
            require_finite_samples(x, self._position)
            if not self._position and n and not x.shape[1]:
                raise InputError("has no samples; expected at least one.")
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None
        self._position += x.shape[1]
        return x

    def _read_file(self, n: int) -> NDArray[Any]:
        kind = "float64" if self.format.subtype in WIDE else "float32"
        blocks = [np.empty((0, self.format.channels), kind)]
        try:
            while n > 0 and len(x := self._file.read(min(n, READ_STEP), dtype=kind, always_2d=True)):
                blocks.append(x)
                n -= len(x)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            if not self._position and len(blocks) == 1:
                raise InputError(f"damaged ({error}). Get the file again.") from None
        if n > 0 and len(blocks) == 1 and self.frames and self._position < self.frames:
            self.warnings.append(f"{self.name}: ends after {self._position:,} of {self.frames:,} samples.")
            self.frames = self._position
        return np.ascontiguousarray(np.concatenate(blocks).T)

    def _read_pipe(self, n: int) -> NDArray[Any]:
        f = self.format
        align = WIDTHS[f.subtype] * f.channels
        wanted = n * align if self._left is None else min(n * align, self._left)
        data = read_block(cast(BinaryIO, self._pipe), wanted)
        if self._left is not None:
            self._left -= len(data)
            if len(data) < wanted:
                self.warnings.append(f"{self.name}: the data stop {self._left:,} bytes before the header says.")
                self._left = 0
        return decode(data[: len(data) // align * align], f.subtype, f.channels)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class AudioWriter:
    """The twin of a recording, written block by block; it appears when the ``with`` block ends well.

    A path gets the container of its extension, with the nearest subtype that it can hold; a stream gets
    the container of ``format``, WAV as the samples come. ``frames``, if known, lets a WAV beyond 4 GiB
    become RF64. Integers clip at full scale.

    Raises:
        InputError: the target exists or cannot be written; nothing is left behind.
    """

    def __init__(
        self,
        target: str | Path | BinaryIO,
        format: AudioFormat,
        *,
        overwrite: bool = False,
        raw: RawFormat | None = None,
        frames: int | None = None,
    ) -> None:
        self.name = str(target) if isinstance(target, str | Path) else "output stream"
        self._stack = ExitStack()
        self._pipe: BinaryIO | None = None
        self._copy_to: BinaryIO | None = None
        self._file: Any = None
        self.format = format
        self._target, self._overwrite, self._raw, self._frames = target, overwrite, raw, frames

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _open(self) -> None:
        f, target = self.format, self._target
        if isinstance(target, str | Path):
            path = Path(target)
            container = CONTAINERS.get(path.suffix.lower())
            if container is None:
                known = ", ".join(sorted(AUDIO_EXTENSIONS))
                raise InputError(f"{path}: extension {path.suffix or 'none'!r} is no audio format; expected {known}.")
            if container == "WAV" and f.format in WAV_FAMILY:
                container = f.format
            opus = path.suffix.lower() == ".opus"
            place: Any = self._stack.enter_context(atomic_file(path, overwrite=self._overwrite))
            if os.name != "nt":  # soundfile would refuse a name that is not text, which only bytes can hold
                place = os.fsencode(place)
        else:
            if self._raw is not None or (f.format in WAV_FAMILY and f.subtype in WIDTHS and not target.seekable()):
                self._pipe = target
                if self._raw is None:
                    with self._blame_stream():
                        target.write(write_wav_header(f, self._frames))
                return
            container, opus = f.format, f.subtype == "OPUS"
            place = self._copy_to = self._stack.enter_context(cast(BinaryIO, tempfile.TemporaryFile()))
        subtype = _nearest_subtype(container, f.subtype, opus)
        data = (self._frames or 0) * f.channels * WIDTHS.get(subtype, 0)
        if container in ("WAV", "WAVEX") and data > MAX_WAV_BYTES:
            container = "RF64"
        lossy = subtype in ("VORBIS", "OPUS", "MPEG_LAYER_III")
        try:
            self._file = soundfile.SoundFile(
                place,
                "w",
                f.sample_rate,
                f.channels,
                subtype,
                f.endian if container == f.format else "FILE",
                container,
                compression_level=LOSSY_LEVEL if lossy else None,
            )
        except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{self.name}: {container} cannot hold {f.channels} channels of {subtype} at {f.sample_rate} Hz "
                f"({error}). Choose another extension with -o."
            ) from None
        self._stack.callback(self._close_file)
        for tag, text in f.tags.items():
            with suppress(soundfile.LibsndfileError):  # a container that knows no such tag, W64 for instance
                setattr(self._file, tag, text.removesuffix(f" (libsndfile-{soundfile.__libsndfile_version__})"))

    def write(self, x: NDArray[Any]) -> None:
        """Append samples. Shape: (channels, time), full scale 1.0."""
        if self._pipe is not None:
            with self._blame_stream():
                self._pipe.write(encode(x, self.format.subtype))
                self._pipe.flush()
            return
        try:
            for start in range(0, x.shape[1], 32_768):  # libsndfile's Vorbis encoder overflows on long blocks
                self._file.write(np.ascontiguousarray(x[:, start : start + 32_768].T))
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise InputError(f"{self.name}: cannot be written ({error}). Free space or choose another -o.") from None

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._copy_to is not None:
                self._close_file()
                self._copy_to.seek(0)
                with self._blame_stream():
                    shutil.copyfileobj(self._copy_to, cast(BinaryIO, self._target))
        except BaseException as mine:
            self._stack.__exit__(type(mine), mine, mine.__traceback__)
            raise
        self._stack.__exit__(kind, error, traceback)

    @contextmanager
    def _blame_stream(self) -> Iterator[None]:
        """Name an output stream that refuses, a full disk behind it for instance; a reader that left is no error."""
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(f"{self.name}: cannot be written ({error.strerror or error}). Free space.") from None


def read_audio(source: str | Path | BinaryIO) -> Audio:
    """Read a whole recording."""
    with AudioReader(source) as reader:
        blocks = []
        while (block := reader.read(1 << 20)).shape[1]:  # a header may claim any length
            blocks.append(block)
        return Audio(np.concatenate(blocks, axis=1), reader.format)


def write_audio(target: str | Path | BinaryIO, audio: Audio, *, overwrite: bool = False) -> None:
    """Write a whole recording."""
    frames = audio.samples.shape[1]
    with AudioWriter(target, audio.format, overwrite=overwrite, frames=frames) as writer:
        writer.write(audio.samples)


def _open_path(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise InputError("is a folder; expected an audio file.")
        return path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror}). Check the path.") from None


def _nearest_subtype(container: str, subtype: str, opus: bool) -> str:
    """The subtype that a container holds with the least loss."""
    if container == "OGG":
        return "OPUS" if opus or subtype == "OPUS" else "VORBIS"
    if soundfile.check_format(container, subtype):
        return subtype
    if container == "MP3":
        return "MPEG_LAYER_III"
    eight_bits = {"PCM_U8": "PCM_S8", "PCM_S8": "PCM_U8"}.get(subtype, "")
    return eight_bits if soundfile.check_format(container, eight_bits or None) and eight_bits else "PCM_24"


class _Prefixed:
    """A stream whose first bytes have been looked at already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self.head, self.rest = head, rest

    def read(self, n: int = -1) -> bytes:
        if self.head:
            out, self.head = (self.head, b"") if n < 0 else (self.head[:n], self.head[n:])
            return out
        return self.rest.read(n)

    def seekable(self) -> bool:
        return False
