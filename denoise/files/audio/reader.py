"""Read audio files block by block, and pipes as their bytes arrive."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import numpy as np
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio.container import AudioDecoder
from denoise.files.audio.pcm import PcmDecoder, RawFormat, read_bytes
from denoise.files.audio.registry import HEAD_BYTES, detect_container
from denoise.signals import Audio, require_finite_samples

READ_FRAMES = 1 << 20  # of a whole recording: its header may claim any length


class AudioReader:
    """An open recording: its format, and its samples from the first to the last; a context manager.

    Args:
        source: path, or binary stream; a pipe is read as its bytes arrive if its container allows that.
        raw: format of headerless PCM; None detects the format.
        name: name of the source in messages; None takes the path.

    Attributes:
        format: how the recording is stored.

    Raises:
        InputError: the source is missing, no audio, empty, or outside the limits of `AudioFormat`.
    """

    def __init__(self, source: str | Path | BinaryIO, *, raw: RawFormat | None = None, name: str | None = None) -> None:
        self.name = name or (str(source) if isinstance(source, str | Path) else "stream")
        self._position = 0
        self._stack = ExitStack()
        try:
            with self._prefix_errors():
                self._decoder = self._open(source, raw)
        except BaseException:
            self._stack.close()
            raise
        self._stack.callback(self._decoder.close)
        self.format = self._decoder.format

    @contextmanager
    def _prefix_errors(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None

    def _open(self, source: str | Path | BinaryIO, raw: RawFormat | None) -> AudioDecoder:
        if isinstance(source, str | Path):
            source = self._stack.enter_context(_open_path(Path(source)))
        if raw is not None:
            return PcmDecoder(source, raw.as_format())
        if source.seekable():
            source.seek(0)
            head = source.read(HEAD_BYTES)
            container = detect_container(head)
        else:
            head = read_bytes(source, HEAD_BYTES)
            source = cast(BinaryIO, _PrefixedStream(head, source))
            container = detect_container(head)
            if not container.can_read_pipes:
                spool = cast(BinaryIO, self._stack.enter_context(tempfile.TemporaryFile()))
                shutil.copyfileobj(source, spool)
                source = spool
        if not head:
            raise InputError("is empty (0 bytes); expected audio. Get another copy.")
        if source.seekable():
            source.seek(0)
        return container.open(source)

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
        self._position += x.shape[1]
        return x

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


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


class _PrefixedStream:
    """A stream that starts with bytes that have been read already."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head, self._stream = head, stream

    def read(self, n: int = -1) -> bytes:
        if not self._head:
            return self._stream.read(n)
        end = len(self._head) if n < 0 else n
        data, self._head = self._head[:end], self._head[end:]
        return data

    def seekable(self) -> bool:
        return False
