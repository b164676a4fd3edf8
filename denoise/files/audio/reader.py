"""Read audio files block by block, and pipes as their bytes arrive."""

from __future__ import annotations

import select
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import numpy as np
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio.chunks import is_chunk_name
from denoise.files.audio.container import AudioContainer, AudioDecoder, SeekableDecoder
from denoise.files.audio.media import open_otherwise
from denoise.files.audio.media_track import MediaTrack
from denoise.files.audio.metadata import RIFF, read_metadata
from denoise.files.audio.pcm import PcmDecoder, RawFormat, read_bytes
from denoise.files.audio.registry import HEAD_BYTES, detect_container
from denoise.files.audio.soundfile_container import UnreadableError
from denoise.files.audio.wav import WAV_FAMILY
from denoise.signals import Audio, AudioMetadata, require_finite_samples

AudioSource = str | Path | BinaryIO | MediaTrack
"""What `AudioReader` reads: a path, a binary stream, or an audio track of a media file."""

READ_FRAMES = 1 << 20  # of a whole recording: its header may claim any length


class AudioReader:
    """An open recording: its format, and its samples from the first to the last; a context manager.

    Args:
        source: path, audio track, or binary stream; a pipe is read as its bytes arrive if its container allows that.
        raw: format of headerless PCM; None detects the format.
        name: name of the source in messages; None takes the path.

    Attributes:
        format: how the recording is stored.

    Raises:
        InputError: the source is missing, no audio, empty, or outside the limits of `AudioFormat`.
    """

    def __init__(self, source: AudioSource, *, raw: RawFormat | None = None, name: str | None = None) -> None:
        self.name = name or source_name(source)
        self._position = 0
        self._pipe: _RewindablePipe | None = None
        self._stack = ExitStack()
        try:
            with self._prefix_errors():
                self._decoder = self._open(source, raw)
        except BaseException:
            self._stack.close()
            raise
        self._stack.callback(self._decoder.close)
        self.format = replace(self._decoder.format, metadata=self._metadata)

    @contextmanager
    def _prefix_errors(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read ({error.strerror or error}). Try again.") from None

    def _open(self, source: AudioSource, raw: RawFormat | None) -> AudioDecoder:
        self._metadata: AudioMetadata | None = None
        if isinstance(source, MediaTrack):
            return source.open()
        if isinstance(source, str | Path):
            source = self._stack.enter_context(_open_path(Path(source)))
            return self._open_stream(source) if raw is None else PcmDecoder(source, raw.as_format())
        if raw is not None:
            return PcmDecoder(source, raw.as_format())
        try:
            return self._open_stream(source)
        except UnreadableError as error:
            raise InputError(f"{error} Raw PCM needs --rate, --channels and --format (raw=).") from None

    def _open_stream(self, source: BinaryIO) -> AudioDecoder:
        if not source.seekable():
            return self._open_pipe(source)
        source.seek(0)
        container = _detect(source.read(HEAD_BYTES))
        source.seek(0)
        return self._open_file(container, source)

    def _open_file(self, container: AudioContainer, source: BinaryIO) -> AudioDecoder:
        try:
            decoder = container.open(source)
        except UnreadableError:
            if (other := open_otherwise(source, container)) is None:
                raise
            decoder = other
        self._metadata = read_metadata(source, decoder.format)
        return decoder

    def _open_pipe(self, source: BinaryIO) -> AudioDecoder:
        self._pipe = pipe = _RewindablePipe(source)
        stream = cast(BinaryIO, pipe)
        container = _detect(read_bytes(stream, HEAD_BYTES))
        pipe.rewind()
        decoder = container.open_pipe(stream)
        header = pipe.forget()
        if decoder is not None:
            if decoder.format.format in WAV_FAMILY:
                self._metadata = RIFF.read_stream_header(header)
            return decoder
        pipe.rewind()
        spool = cast(BinaryIO, self._stack.enter_context(tempfile.TemporaryFile()))
        shutil.copyfileobj(stream, spool)
        spool.seek(0)
        return self._open_file(container, spool)

    @property
    def frames(self) -> int | None:
        """Number of samples of each channel; None where only the end of a stream shows it."""
        return self._decoder.frames

    @property
    def warnings(self) -> list[str]:
        """Remarks about the file; more may come while it is read."""
        return [f"{self.name}: {warning}" for warning in self._decoder.warnings]

    @property
    def is_live(self) -> bool:
        """Whether the samples come from a pipe, perhaps while they are recorded."""
        return self._decoder.is_live

    @property
    def can_seek(self) -> bool:
        """Whether `seek` works."""
        return isinstance(self._decoder, SeekableDecoder) and not self.is_live

    def seek(self, position: int) -> None:
        """Continue at a sample, of a recording that can seek.

        Args:
            position: index of the sample.

        Raises:
            InputError: the file is damaged, or cannot seek.
        """
        with self._prefix_errors():
            if not isinstance(self._decoder, SeekableDecoder) or self.is_live:
                raise InputError("cannot be read from the middle; read it from its start.")
            self._decoder.seek(position)
        self._position = position

    def read(self, n: int) -> NDArray[Any]:
        """Return the next samples of each channel.

        Args:
            n: number of samples of each channel.

        Returns:
            (channels, up to n), fewer at the end and none after it; float32, or float64 for 32-bit integers and
            doubles; full scale 1.0.

        Raises:
            InputError: a sample is NaN or infinite, the file is damaged, or it holds no sample at all.
        """
        with self._prefix_errors():
            x = self._decoder.read(n)
            require_finite_samples(x, self._position)
            if not self._position and n and not x.shape[1]:
                raise InputError("has no samples; expected at least one.")
        if n and not x.shape[1]:
            self._read_tail()
        self._position += x.shape[1]
        return x

    def _read_tail(self) -> None:
        """Read the chunks after the sound of a pipe, perhaps behind padding; warn of more sound than is declared.

        If the header declares no chunks, a writer that stays open is not waited for.
        """
        if self._pipe is None:
            return
        pipe, self._pipe = self._pipe, None
        if not (self._metadata is not None and self._metadata.pending_bytes) and not pipe.can_read_at_once():
            return
        following = pipe.peek(5)
        if len(following) == 5 and not (is_chunk_name(following) or is_chunk_name(following[1:])):
            seconds = self._position / self.format.sample_rate
            self._decoder.warnings.append(f"more data follow the declared {seconds:.1f} s. Give it as a file.")
        elif self._metadata is not None and self._metadata.pending_bytes:
            tail = read_bytes(cast(BinaryIO, pipe), self._metadata.pending_bytes)
            RIFF.read_stream_tail(tail, self._metadata)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def source_name(source: AudioSource) -> str:
    """Return the name of a source in messages.

    Args:
        source: as of `AudioReader`.
    """
    if isinstance(source, MediaTrack):
        return source.name
    return str(source) if isinstance(source, str | Path) else "stream"


def read_audio(source: str | Path | BinaryIO) -> Audio:
    """Read a whole recording.

    Args:
        source: path or binary stream.

    Raises:
        InputError: as `AudioReader`.
    """
    with AudioReader(source) as reader:
        blocks = []
        while (block := reader.read(READ_FRAMES)).shape[1]:
            blocks.append(block)
        return Audio(np.concatenate(blocks, axis=1), reader.format)


def _open_path(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise InputError("is a folder; expected an audio file.")
        return path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror}). Check the path.") from None


def _detect(head: bytes) -> AudioContainer:
    if not head:
        raise InputError("is empty (0 bytes); expected audio. Get another copy.")
    return detect_container(head)


class _RewindablePipe:
    """A pipe whose first bytes, up to `forget`, can be read again once."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._kept, self._is_keeping = stream, b"", True
        self._position = 0  # in the bytes that are kept

    def read(self, n: int = -1) -> bytes:
        if self._position < len(self._kept):
            end = len(self._kept) if n < 0 else self._position + n
            data = self._kept[self._position : end]
        else:
            data = self._stream.read(n)
            if not self._is_keeping:
                return data
            self._kept += data
        self._position += len(data)
        return data

    def rewind(self) -> None:
        """Read from the first byte on."""
        self._position = 0

    def forget(self) -> bytes:
        """Keep no more bytes than those that have been read, and return them."""
        self._is_keeping = False
        return self._kept

    def peek(self, n: int) -> bytes:
        """Return up to ``n`` bytes that follow, which are still read afterwards."""
        self._kept, self._position = read_bytes(cast(BinaryIO, self), n), 0
        return self._kept

    def can_read_at_once(self) -> bool:
        """Whether bytes, or the end, have come; of streams that are no pipes this is so."""
        try:
            return bool(select.select([self._stream], [], [], 0)[0])
        except (OSError, TypeError, ValueError):  # no file descriptor, or one of Windows that is no socket
            return True

    def seekable(self) -> bool:
        return False
