"""Chunks of WAV, AIFF, CAF and Wave64: all that the sound does not depend on, byte for byte."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, ClassVar

from denoise.files.audio.chunks import Chunk, ChunkLayout, is_chunk_name
from denoise.files.audio.metadata.codec import MetadataCodec, ShiftedFile, move_header
from denoise.files.audio.spliced import file_size
from denoise.signals import AudioMetadata

MAX_SIZE = 0xFFFF_FFFF
MAX_BYTES = 1 << 26  # of all chunks that are kept in memory


class Chunked(MetadataCodec):
    """A container of chunks; subclasses state what differs.

    Attributes:
        layout: how the heads of chunks are written.
        sound: name of the chunk with the samples.
        coding: names of chunks that describe the coding or fill space, which the encoder writes anew.
        overviews: names of chunks with peaks of the sound for display, which no longer hold.
        first_chunk: offset of the first chunk.
    """

    layout: ClassVar[ChunkLayout]
    sound: ClassVar[bytes]
    coding: ClassVar[frozenset[bytes]]
    overviews: ClassVar[frozenset[bytes]] = frozenset()
    first_chunk: ClassVar[int] = 12

    def read(self, source: BinaryIO) -> AudioMetadata:
        """Read the chunks of a file; those after the sound start where it ends, whatever the header declares."""
        metadata = AudioMetadata()
        sound = self.collect(source, self.first_chunk, metadata, metadata.leading)
        if sound is None:
            return metadata
        sound = self.declared_sound(source, sound)
        tail = self.layout.find_tail(source, sound._replace(size=self.layout.measure(source, sound)))
        if tail is not None:
            self.collect(source, tail, metadata, metadata.trailing)
        return metadata

    def collect(self, source: BinaryIO, start: int, metadata: AudioMetadata, blocks: list[bytes]) -> Chunk | None:
        """Append chunks of a file to its metadata, up to the sound or to the first that is cut off.

        Args:
            source: the file.
            start: offset of the first chunk.
            metadata: metadata of the file.
            blocks: list of the metadata for these chunks.

        Returns:
            The chunk of the sound, None if there is none.
        """
        kept_bytes, end = metadata.n_bytes, file_size(source)
        for chunk in self.layout.read_chunks(source, start):
            if chunk.name == self.sound:
                return chunk
            if not is_chunk_name(chunk.name) or not chunk.start <= chunk.end <= end:
                break
            if chunk.name in self.coding:
                self.read_coding(source, chunk, metadata)
            elif chunk.name in self.overviews or kept_bytes + chunk.size > MAX_BYTES:
                metadata.dropped.append(self.layout.describe(chunk.name))
            else:
                kept_bytes += chunk.size
                blocks.append(self.layout.pack(chunk.name, read_body(source, chunk)))
        return None

    def read_coding(self, source: BinaryIO, chunk: Chunk, metadata: AudioMetadata) -> None:
        """Take what is kept of a chunk that describes the coding: nothing here."""

    def declared_sound(self, source: BinaryIO, sound: Chunk) -> Chunk:
        """Return the chunk of the sound with the size that the header declares elsewhere: nowhere here."""
        return sound

    def finish(self, file: BinaryIO, coded: ShiftedFile, leading: Sequence[bytes], metadata: AudioMetadata) -> None:
        """Write the chunks before and after the sound, and complete the header."""
        move_header(file, coded, self.header_bytes(coded), leading)
        end = file.seek(0, os.SEEK_END)
        file.write(bytes(-end % self.layout.alignment) + b"".join(metadata.trailing))
        self.complete_header(file, metadata)

    def header_bytes(self, coded: ShiftedFile) -> int:
        """Return the length of what must come first in a file."""
        return self.first_chunk

    def complete_header(self, file: BinaryIO, metadata: AudioMetadata) -> None:
        """State the size of the file in its header."""
        size = file.seek(0, os.SEEK_END) - 8
        file.seek(4)
        file.write(struct.pack(f"{self.byte_order}I", min(size, MAX_SIZE)))

    @property
    def byte_order(self) -> str:
        """Byte order of numbers, as in formats for `struct`."""
        return self.layout.head[0]

    def split(self, metadata: AudioMetadata) -> Iterator[tuple[bytes, bytes]]:
        """Yield names and contents of the chunks that `read` has kept."""
        for block in (*metadata.leading, *metadata.trailing):
            name, size = struct.unpack_from(self.layout.head, block)
            yield name, block[self.layout.head_bytes : size + self.layout.head_bytes * (not self.layout.counts_head)]


def read_body(source: BinaryIO, chunk: Chunk) -> bytes:
    """Return the contents of a chunk.

    Args:
        source: the file.
        chunk: a chunk of it.
    """
    source.seek(chunk.start)
    return source.read(chunk.size)


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
