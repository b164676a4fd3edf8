"""Ctrl-C while audio is recorded from a pipe ends the recording and keeps what came until then."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO


class _RecordingEnded(BaseException):
    """Interrupts a read that waits for data."""


class _InterruptiblePipe:
    """A pipe that ends at the first Ctrl-C (or SIGTERM); a second one stops the program."""

    def __init__(self, pipe: BinaryIO) -> None:
        self.pipe, self.has_ended, self.is_waiting = pipe, False, False

    def end(self, *_: Any) -> None:
        if self.has_ended:
            raise KeyboardInterrupt
        self.has_ended = True
        if self.is_waiting:
            raise _RecordingEnded

    def read(self, n: int = -1) -> bytes:
        try:
            return self._read(n)
        except _RecordingEnded:
            return b""

    def _read(self, n: int) -> bytes:
        try:
            self.is_waiting = True
            return b"" if self.has_ended else self.pipe.read(n)
        finally:
            self.is_waiting = False

    def seekable(self) -> bool:
        return False


@contextmanager
def until_interrupted(source: Any) -> Iterator[Any]:
    """Make the first Ctrl-C end a pipe, so that the audio read until then is denoised and written.

    Args:
        source: path, file or pipe; paths and files are yielded unchanged.
    """
    if isinstance(source, str) or source.seekable():
        yield source
        return
    pipe = _InterruptiblePipe(source)
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, pipe.end) for number in signals]
    try:
        yield pipe
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)
