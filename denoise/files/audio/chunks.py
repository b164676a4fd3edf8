"""Containers of chunks: where the sound is, and how much of it, whatever the header declares.

A recorder writes the header first and its sizes last: one that is stopped leaves 0, -1 or an earlier length. Sizes of
32 bits wrap beyond 4 GiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple
from uuid import RFC_4122, UUID

from denoise.files.audio.spliced import file_size

HEADER_CHUNKS = (b"data", b"fmt ", b"SSND", b"COMM", b"FVER")
MAX_PADDING_BYTES = 4096  # zeros up to the end of a sector
APPENDED_TAGS = (b"TAG", b"APETAGEX")  # by players of MP3 to any file
KNOWN_CHUNKS = (  # which may be cut off
    *(b"LIST", b"ID3 ", b"id3 ", b"bext", b"iXML", b"axml", b"cue ", b"smpl", b"inst", b"cart", b"acid", b"DISP"),
    *(b"_PMX", b"fact", b"PEAK", b"levl", b"JUNK", b"afsp", b"INST", b"MARK", b"COMT", b"NAME", b"AUTH", b"ANNO"),
)


class Chunk(NamedTuple):
    """A chunk.

    Args:
        name: its identifier.
        start: offset of its contents.
        size: declared bytes of its contents.
    """

    name: bytes
    start: int
    size: int

    @property
    def end(self) -> int:
        """Offset behind its contents."""
        return self.start + self.size


@dataclass(frozen=True)
class ChunkLayout:
    """How a container writes the heads of its chunks.

    Args:
        head: format of identifier and size for `struct`.
        alignment: chunks start at multiples of this many bytes.
        counts_head: whether the size includes the head.
        unknown_size: the size that declares nothing.
        wraps_at: sizes are stored modulo this number.
    """

    head: str
    alignment: int = 2
    counts_head: bool = False
    unknown_size: int = 0xFFFF_FFFF
    wraps_at: int = 1 << 32

    @property
    def head_bytes(self) -> int:
        """Bytes of identifier and size."""
        return struct.calcsize(self.head)

    def describe(self, name: bytes) -> str:
        """Return the name of a chunk in messages.

        Args:
            name: its identifier.
        """
        return name[:4].decode().strip() if _is_printable(name[:4]) else f"the chunk {UUID(bytes_le=name)}"

    def pack(self, name: bytes, body: bytes) -> bytes:
        """Return a chunk with its head, padded.

        Args:
            name: its identifier.
            body: its contents.
        """
        size = len(body) + self.head_bytes * self.counts_head
        return struct.pack(self.head, name, size) + body + bytes(-len(body) % self.alignment)

    def read_chunks(self, source: BinaryIO, start: int) -> Iterator[Chunk]:
        """Yield the chunks from an offset on, up to the first that ends behind the file.

        Args:
            source: the file.
            start: offset of the head of the first one.
        """
        size = file_size(source)
        while start + self.head_bytes <= size:
            source.seek(start)
            name, n_bytes = struct.unpack(self.head, source.read(self.head_bytes))
            chunk = Chunk(name, start + self.head_bytes, n_bytes - self.head_bytes * self.counts_head)
            yield chunk
            if chunk.size < 0:
                return
            start = chunk.end + -chunk.size % self.alignment
            if chunk.size % 2 and self.alignment == 2 and not self._is_padded(source, chunk):
                start = chunk.end

    def _is_padded(self, source: BinaryIO, chunk: Chunk) -> bool:
        source.seek(chunk.end)
        return starts_with_padding(source.read(5))

    def measure(self, source: BinaryIO, sound: Chunk) -> int:
        """Return the bytes of sound: those that are declared if only chunks follow them, else all up to the end.

        Args:
            source: the file.
            sound: chunk of the sound, with the declared size.
        """
        rest = max(0, file_size(source) - sound.start)
        if sound.size == self.unknown_size or sound.size < 0:
            return rest
        for size in range(sound.size, rest + 1, self.wraps_at):
            if self.find_tail(source, sound._replace(size=size)) is not None:
                return size
        return rest

    def find_tail(self, source: BinaryIO, sound: Chunk) -> int | None:
        """Return where the chunks, tags of MP3 players or padding after the sound start, None if other bytes follow.

        Args:
            source: the file.
            sound: chunk of the sound, with its true size; programs differ in its padding.
        """
        starts = (sound.end + -sound.size % alignment for alignment in (self.alignment, 1, 2))
        return next((start for start in starts if self._is_tail(source, start)), None)

    def _is_tail(self, source: BinaryIO, start: int) -> bool:
        size = file_size(source)
        for chunk in self.read_chunks(source, start):
            if chunk.name.startswith(KNOWN_CHUNKS):
                return True
            if chunk.size < 0 or chunk.end > size or not is_chunk_name(chunk.name):
                break
            start = chunk.end + -chunk.size % self.alignment
        source.seek(start)
        rest = source.read(MAX_PADDING_BYTES + 1)
        is_padding = len(rest) < self.head_bytes or (len(rest) <= MAX_PADDING_BYTES and not any(rest))
        return is_padding or rest.startswith(APPENDED_TAGS)


RIFF = ChunkLayout("<4sI")
BIG_ENDIAN = ChunkLayout(">4sI")  # AIFF, and WAV of big-endian numbers
CAF = ChunkLayout(">4sq", alignment=1, unknown_size=-1, wraps_at=1 << 63)
WAVE64 = ChunkLayout("<16sQ", alignment=8, counts_head=True, wraps_at=1 << 64)


def is_chunk_name(name: bytes) -> bool:
    """Whether bytes can be the identifier of a chunk: four printable characters first, or a GUID.

    Args:
        name: the bytes; 16 of them for a GUID.
    """
    return _is_printable(name[:4]) or (len(name) == 16 and UUID(bytes_le=name).variant == RFC_4122)


def starts_with_padding(following: bytes) -> bool:
    """Whether a chunk of odd size is padded; many programs forget the byte.

    Args:
        following: five bytes behind its contents, fewer at the end.
    """
    name, padded_name = following[:4], following[1:]
    known = (*KNOWN_CHUNKS, *HEADER_CHUNKS)
    return not _is_printable(name) or (padded_name in known and name not in known)


def _is_printable(data: bytes) -> bool:
    return all(0x20 <= byte < 0x7F for byte in data)
