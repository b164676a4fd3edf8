"""Reading audio files through libsndfile, block by block; pipes as their bytes arrive."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio.pcm import ENDLESS, WIDTHS, RawFormat, decode, read_block, read_wav_header
from denoise.signals import Audio, AudioFormat, require_finite_samples

TAGS = ("title", "copyright", "software", "artist", "comment", "date", "album", "license", "tracknumber", "genre")
WIDE = ("PCM_32", "DOUBLE")  # more than float32 holds
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
                f"cannot be read as audio ({reason}); expected WAV, FLAC, OGG, MP3 or AIFF. "
                "Convert it first, as by ffmpeg -i IN out.wav; raw PCM needs --rate, --channels and --format."
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


def read_audio(source: str | Path | BinaryIO) -> Audio:
    """Read a whole recording."""
    with AudioReader(source) as reader:
        blocks = []
        while (block := reader.read(1 << 20)).shape[1]:  # a header may claim any length
            blocks.append(block)
        return Audio(np.concatenate(blocks, axis=1), reader.format)


def _open_path(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise InputError("is a folder; expected an audio file.")
        return path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror}). Check the path.") from None


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
