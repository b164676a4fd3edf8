"""Ctrl-C and SIGTERM stop the program; while audio is recorded from a pipe, they end and keep the recording."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer, main_thread
from types import FrameType
from typing import Any, BinaryIO

RETRY_S = 0.01  # after a signal within a callback


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


def stop_on_signals() -> None:
    """Let Ctrl-C and SIGTERM, by which schedulers stop jobs, end the program so that unfinished files are removed.

    Within a callback of libsndfile the exception would be printed and lost, and the file that is read end early: there
    the signal is sent once more.
    """
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as in the background
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    if _is_in_callback(frame):
        retry = Timer(RETRY_S, _send, (number,))
        retry.daemon = True
        retry.start()
    elif number == signal.SIGTERM:
        sys.exit(143)
    else:
        raise KeyboardInterrupt


def _send(number: int) -> None:
    """Send a signal to the main thread, which it wakes where it sleeps, except on Windows."""
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        signal.pthread_kill(main_thread().ident or 0, number)


def _is_in_callback(frame: FrameType | None) -> bool:
    """Whether a frame was called by libsndfile."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "soundfile" and frame.f_code.co_name.startswith("vio_"):
            return True
        frame = frame.f_back
    return False
