"""Chunks of Wave64, whose names are GUIDs."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from denoise.files.audio.chunks import WAVE64, Chunk
from denoise.files.audio.metadata.chunks import Chunked, read_body
from denoise.files.audio.metadata.riff import INFO_NAMES, parse_channel_mask
from denoise.files.audio.metadata.tags import Tags
from denoise.signals import AudioMetadata

GUID_END = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # behind the names of RIFF
SUMMARY_LIST = bytes.fromhex("bc945f925a52d21186dc00c04f8edb8a")
SIZE_OFFSET = 16  # of the whole file


class Wave64(Chunked):
    """Sony's Wave64."""

    layout = WAVE64
    sound = b"data" + GUID_END
    coding = frozenset(name + GUID_END for name in (b"fmt ", b"fact", b"junk"))
    overviews = frozenset((b"levl" + GUID_END,))
    first_chunk = 40

    def read_coding(self, source: BinaryIO, chunk: Chunk, metadata: AudioMetadata) -> None:
        """Name the channel mask, which libsndfile does not write."""
        if chunk.name.startswith(b"fmt ") and parse_channel_mask(read_body(source, chunk), "<"):
            metadata.dropped.append("the channel mask")

    def complete_header(self, file: BinaryIO, metadata: AudioMetadata) -> None:
        """State the size of the file in its header."""
        size = file.seek(0, os.SEEK_END)
        file.seek(SIZE_OFFSET)
        file.write(struct.pack("<Q", size))

    def to_tags(self, metadata: AudioMetadata) -> tuple[Tags, list[str]]:
        """Convert the text of the summary list."""
        tags, lost = Tags(), [*metadata.dropped]
        for name, body in self.split(metadata):
            if name == SUMMARY_LIST:
                tags = tags.merged(Tags(tuple(_parse_summary(body))))
            else:
                lost.append(self.layout.describe(name))
        return tags, lost

    def from_tags(self, tags: Tags) -> tuple[list[bytes], list[str]]:
        """Name all tags: few programs read those of Wave64."""
        return [], tags.names


def _parse_summary(body: bytes) -> Iterator[tuple[str, str]]:
    """Yield names and values of a summary list: a number of entries, each as a chunk of RIFF with text in UTF-16."""
    offset = 4
    while offset + 8 <= len(body):
        name, size = struct.unpack_from("<4sI", body, offset)
        text = body[offset + 8 : offset + 8 + size].decode("utf-16-le", "replace").rstrip("\0")
        name_text = name.decode("latin-1")
        if text:
            yield INFO_NAMES.get(name_text, name_text.strip()), text
        offset += 8 + size
