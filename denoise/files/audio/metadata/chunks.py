"""Chunks of WAV, AIFF and CAF: all that the sound does not depend on, byte for byte."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

from denoise.files.audio.metadata.codec import MetadataCodec, ShiftedFile, move_header
from denoise.signals import AudioMetadata

MAX_SIZE = 0xFFFF_FFFF
MAX_BYTES = 1 << 26  # of all chunks that are kept in memory


@dataclass(frozen=True)
class Chunk:
    """A chunk in a file: its name, the offset of its header, and the size of its contents in bytes."""

    name: bytes
    offset: int
    size: int


class Chunked(MetadataCodec):
    """A container of chunks; subclasses state the layout.

    Attributes:
        sound: name of the chunk with the samples.
        coding: names of chunks that describe the coding or fill space, which the encoder writes anew.
        overviews: names of chunks that draw the sound, which would be wrong.
    """

    sound: ClassVar[bytes]
    coding: ClassVar[frozenset[bytes]]
    overviews: ClassVar[frozenset[bytes]] = frozenset()
    size_format: ClassVar[str] = ">I"
    alignment: ClassVar[int] = 2
    first_chunk: ClassVar[int] = 12

    def read(self, source: BinaryIO) -> AudioMetadata:
        """Read the chunks of a file."""
        metadata = AudioMetadata()
        self.collect(source, self.first_chunk, metadata, metadata.leading)
        return metadata

    def collect(self, source: BinaryIO, start: int, metadata: AudioMetadata, blocks: list[bytes]) -> None:
        """Append the chunks of a file to its metadata.

        Args:
            source: the file.
            start: offset of the first chunk.
            metadata: metadata of the file.
            blocks: list of the metadata for the chunks up to the sound.
        """
        kept_bytes = 0
        for chunk in self.walk(source, start, source.seek(0, os.SEEK_END)):
            if chunk.name == self.sound:
                blocks = metadata.trailing
            elif chunk.name in self.coding:
                self.read_coding(source, chunk, metadata)
            elif chunk.name in self.overviews or kept_bytes + chunk.size > MAX_BYTES:
                metadata.dropped.append(chunk.name.decode().strip())
            else:
                kept_bytes += chunk.size
                blocks.append(self.pack(chunk.name, self.read_body(source, chunk)))

    def read_coding(self, source: BinaryIO, chunk: Chunk, metadata: AudioMetadata) -> None:
        """Take what is kept of a chunk that describes the coding: nothing here."""

    def walk(self, source: BinaryIO, start: int, end: int) -> Iterator[Chunk]:
        """Yield the chunks between two offsets that are complete, up to the first bytes that are no chunk.

        Args:
            source: the file.
            start: offset of the first chunk.
            end: offset behind the last one.
        """
        header_bytes = 4 + struct.calcsize(self.size_format)
        while start + header_bytes <= end:
            source.seek(start)
            header = source.read(header_bytes)
            name, (size,) = header[:4], struct.unpack_from(self.size_format, header, 4)
            size = self.actual_size(source, name, size)
            if not all(32 <= byte < 127 for byte in name) or not 0 <= size <= end - start - header_bytes:
                return
            yield Chunk(name, start, size)
            start += header_bytes + size + -size % self.alignment

    def actual_size(self, source: BinaryIO, name: bytes, size: int) -> int:
        """Return the size of a chunk whose header declares ``size``."""
        return size

    def pack(self, name: bytes, body: bytes) -> bytes:
        """Return a chunk with its header, padded."""
        return name + struct.pack(self.size_format, len(body)) + body + bytes(-len(body) % self.alignment)

    def read_body(self, source: BinaryIO, chunk: Chunk) -> bytes:
        """Return the contents of a chunk."""
        source.seek(chunk.offset + 4 + struct.calcsize(self.size_format))
        return source.read(chunk.size)

    def finish(self, file: BinaryIO, coded: ShiftedFile, leading: Sequence[bytes], metadata: AudioMetadata) -> None:
        """Write the chunks before and after the sound, and complete the header."""
        move_header(file, coded, self.header_bytes(coded), leading)
        end = file.seek(0, os.SEEK_END)
        file.write(bytes(-end % self.alignment) + b"".join(metadata.trailing))
        self.complete_header(file, metadata)

    def header_bytes(self, coded: ShiftedFile) -> int:
        """Return the length of what must come first in a file."""
        return self.first_chunk

    def complete_header(self, file: BinaryIO, metadata: AudioMetadata) -> None:
        """State the size of the file in its header."""
        size = file.seek(0, os.SEEK_END) - 8
        file.seek(4)
        file.write(struct.pack(self.size_format, min(size, MAX_SIZE)))

    def split(self, metadata: AudioMetadata) -> Iterator[tuple[bytes, bytes]]:
        """Yield names and contents of the chunks that `read` has kept."""
        header_bytes = 4 + struct.calcsize(self.size_format)
        for block in (*metadata.leading, *metadata.trailing):
            (size,) = struct.unpack_from(self.size_format, block, 4)
            yield block[:4], block[header_bytes : header_bytes + size]


def decode_text(data: bytes) -> str:
    """Decode text of an unstated encoding: UTF-8 if it is that, or else that of Windows.

    Args:
        data: bytes of the text, perhaps with zeros at the end.
    """
    data = data.rstrip(b"\0")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
