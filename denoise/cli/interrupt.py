"""Ctrl-C while a recording comes in ends the recording, not the work on it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO


class _Ended(BaseException):
    """Leaves a read that waits for sound."""


class _UntilInterrupted:
    """A pipe that is at its end after the first Ctrl-C (or SIGTERM); a second one stops the program."""

    def __init__(self, pipe: BinaryIO) -> None:
        self.pipe, self.ended, self.waiting = pipe, False, False

    def end(self, *_: Any) -> None:
        if self.ended:
            raise KeyboardInterrupt
        self.ended = True
        if self.waiting:
            raise _Ended

    def read(self, n: int = -1) -> bytes:
        try:
            return self._read(n)
        except _Ended:
            return b""

    def _read(self, n: int) -> bytes:
        try:
            self.waiting = True
            return b"" if self.ended else self.pipe.read(n)
        finally:
            self.waiting = False

    def seekable(self) -> bool:
        return False


@contextmanager
def until_interrupted(source: Any) -> Iterator[Any]:
    """Let the first Ctrl-C end a pipe, so that what was recorded until then is finished and kept."""
    if isinstance(source, str) or source.seekable():
        yield source
        return
    pipe = _UntilInterrupted(source)
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, pipe.end) for number in signals]
    try:
        yield pipe
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
