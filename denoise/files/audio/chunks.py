"""Containers of chunks: where the sound is, and how much of it, whatever the header declares.

A recorder writes the header first and its sizes last: one that is stopped leaves 0, -1 or an earlier length. Sizes of
32 bits wrap beyond 4 GiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from denoise.files.audio.spliced import file_size

MAX_PADDING_BYTES = 4096  # zeros up to the end of a sector
APPENDED_TAGS = (b"TAG", b"APETAGEX")  # by players of MP3 to any file
KNOWN_CHUNKS = (  # which may be cut off
    b"LIST",
    b"ID3 ",
    b"id3 ",
    b"bext",
    b"iXML",
    b"axml",
    b"cue ",
    b"smpl",
    b"_PMX",
    b"INST",
    b"MARK",
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


@dataclass(frozen=True)
class ChunkLayout:
    """How a container writes the heads of its chunks.

    Args:
        head: format of identifier and size for `struct`.
        alignment: chunks start at multiples of this many bytes.
        counts_head: whether the size includes the head.
        unknown_size: the size that declares nothing.
        wraps_at: the size that is written as 0.
    """

    head: str
    alignment: int = 2
    counts_head: bool = False
    unknown_size: int = 0xFFFF_FFFF
    wraps_at: int = 1 << 32

    def read_chunks(self, source: BinaryIO, start: int) -> Iterator[Chunk]:
        """Yield the chunks from an offset on, up to the first that ends behind the file."""
        head_bytes, size = struct.calcsize(self.head), file_size(source)
        while start + head_bytes <= size:
            source.seek(start)
            name, n_bytes = struct.unpack(self.head, source.read(head_bytes))
            chunk = Chunk(name, start + head_bytes, n_bytes - head_bytes * self.counts_head)
            yield chunk
            if chunk.size < 0:
                return
            start = chunk.start + chunk.size
            start += -start % self.alignment

    def measure(self, source: BinaryIO, data: Chunk) -> int:
        """Return the bytes of sound: those that are declared if only chunks follow them, else all up to the end.

        Args:
            source: the file.
            data: chunk of the sound, with the declared size.
        """
        rest = max(0, file_size(source) - data.start)
        if data.size == self.unknown_size or data.size < 0:
            return rest
        for size in range(data.size, rest + 1, self.wraps_at):
            if self._is_tail(source, data.start + size):
                return size
        return rest

    def _is_tail(self, source: BinaryIO, start: int) -> bool:
        """Whether nothing but chunks, tags of MP3 players or padding follows; programs differ in the alignment."""
        return any(self._are_chunks(source, start + -start % alignment) for alignment in {1, 2, self.alignment})

    def _are_chunks(self, source: BinaryIO, start: int) -> bool:
        size = file_size(source)
        for chunk in self.read_chunks(source, start):
            end = chunk.start + chunk.size
            if chunk.size < 0 or end > size or not is_chunk_name(chunk.name):
                break
            start = end + -end % self.alignment
        source.seek(start)
        rest = source.read(MAX_PADDING_BYTES + 1)
        is_padding = len(rest) < struct.calcsize(self.head) or (len(rest) <= MAX_PADDING_BYTES and not any(rest))
        return is_padding or rest.startswith((*APPENDED_TAGS, *KNOWN_CHUNKS))


def is_chunk_name(name: bytes) -> bool:
    """Whether bytes can be the identifier of a chunk, of which the first four are printable characters.

    Args:
        name: the bytes.
    """
    return all(0x20 <= byte < 0x7F for byte in name[:4])
