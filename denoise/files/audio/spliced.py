"""A file that is put together of sections of another file and of other bytes."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO


@dataclass(frozen=True)
class Section:
    """Bytes of the source.

    Args:
        start: offset of the first byte.
        length: number of bytes.
    """

    start: int
    length: int


@dataclass(frozen=True)
class Repeated:
    """Bytes that are repeated.

    Args:
        data: the bytes.
        length: number of bytes of all repetitions.
    """

    data: bytes
    length: int


class SplicedFile(io.RawIOBase):
    """A view of a file with a corrected header, and without bytes that a decoder cannot read.

    A seek to a negative offset, which libsndfile tries in damaged files, is ignored: an exception would be printed and
    not reach libsndfile.

    Args:
        source: seekable file; it stays open.
        pieces: the contents in order; bytes, or sections of the source.
    """

    def __init__(self, source: BinaryIO, pieces: Sequence[bytes | Section | Repeated]) -> None:
        self._source = source
        self._pieces = [Repeated(piece, len(piece)) if isinstance(piece, bytes) else piece for piece in pieces]
        self._ends = list(accumulate(piece.length for piece in self._pieces))
        self._size = self._ends[-1] if self._ends else 0
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes, fewer only at the end."""
        view = memoryview(buffer).cast("B")
        n = 0
        while n < len(view) and self._position < self._size:
            index = bisect_right(self._ends, self._position)
            piece = self._pieces[index]
            offset = self._position - (self._ends[index] - piece.length)
            data = self._read_piece(piece, offset, min(len(view) - n, piece.length - offset))
            if not data:  # the source is shorter than the sections
                break
            view[n : n + len(data)] = data
            n += len(data)
            self._position += len(data)
        return n

    def _read_piece(self, piece: Section | Repeated, offset: int, n: int) -> bytes:
        if isinstance(piece, Repeated):
            return piece.data[offset % len(piece.data) :][:n]
        self._source.seek(piece.start + offset)
        return self._source.read(n)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset that is not negative."""
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if position >= 0:
            self._position = position
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position


def file_size(source: BinaryIO) -> int:
    """Return the number of bytes of a seekable file; its position becomes the end."""
    return source.seek(0, os.SEEK_END)
