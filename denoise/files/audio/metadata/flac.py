"""Metadata blocks of FLAC: comments, pictures, cue sheets and blocks of applications."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from denoise.files.audio.id3_header import ID3_HEADER_BYTES, id3_bytes
from denoise.files.audio.metadata.codec import MetadataCodec, ShiftedFile, move_header
from denoise.files.audio.metadata.tags import Tags, build_comments, is_picture, parse_comments
from denoise.signals import AudioMetadata

STREAMINFO, PADDING, APPLICATION, SEEKTABLE, COMMENTS, CUESHEET, PICTURE = range(7)
NAMES = {APPLICATION: "application data", CUESHEET: "cue sheet", PICTURE: "a damaged picture"}
LAST = 0x80
HEAD_BYTES = 4 + 4 + 34  # signature and STREAMINFO
MAX_BLOCK_BYTES = (1 << 24) - 1


class FlacMetadata(MetadataCodec):
    """Metadata blocks, without those that describe the coding or fill space."""

    def read(self, source: BinaryIO) -> AudioMetadata:
        """Read the blocks of a file."""
        metadata = AudioMetadata()
        source.seek(0)
        start = id3_bytes(source.read(ID3_HEADER_BYTES))
        if start:
            metadata.dropped.append("ID3")  # before FLAC, against its specification
        source.seek(start)
        if source.read(4) != b"fLaC":
            return metadata
        for kind, body in read_blocks(source):
            is_empty = kind == COMMENTS and not parse_comments(body)
            if kind not in (STREAMINFO, PADDING, SEEKTABLE) and not is_empty:
                metadata.leading.append(pack_block(kind, body))
        return metadata

    def to_tags(self, metadata: AudioMetadata) -> tuple[Tags, list[str]]:
        """Convert comments and pictures."""
        tags, lost = Tags(), [*metadata.dropped]
        for block in metadata.leading:
            kind, body = block[0], block[4:]
            if kind == COMMENTS:
                tags = Tags((*tags.comments, *parse_comments(body)), tags.pictures)
            elif kind == PICTURE and is_picture(body):
                tags = Tags(tags.comments, (*tags.pictures, body))
            else:
                lost.append(NAMES.get(kind, f"block {kind}"))
        return tags, lost

    def from_tags(self, tags: Tags) -> tuple[list[bytes], list[str]]:
        """Convert tags to comments and pictures of at most 16 MiB each."""
        pictures = [body for body in tags.pictures if len(body) <= MAX_BLOCK_BYTES]
        comments = pack_block(COMMENTS, build_comments(tags.comments))
        lost = ["a picture"] if len(pictures) < len(tags.pictures) else []
        return [comments, *(pack_block(PICTURE, body) for body in pictures)], [*tags.id3_only, *lost]

    def finish(self, file: BinaryIO, coded: ShiftedFile, leading: Sequence[bytes], metadata: AudioMetadata) -> None:
        """Write the blocks behind STREAMINFO, and turn the encoder's own comments into padding."""
        coded.seek(HEAD_BYTES)
        offset = HEAD_BYTES
        has_comments = any(block[0] == COMMENTS for block in leading)
        for kind, body in [*read_blocks(coded)]:
            if kind == COMMENTS and has_comments:
                coded.seek(offset)
                is_last = coded.read(1)[0] & LAST
                coded.seek(offset)
                coded.write(bytes((is_last | PADDING,)))
                coded.seek(offset + 4)
                coded.write(bytes(len(body)))
            offset += 4 + len(body)
        move_header(file, coded, HEAD_BYTES, leading)


def read_blocks(source: BinaryIO | ShiftedFile) -> Iterator[tuple[int, bytes]]:
    """Yield kinds and bodies of the blocks from the position of a file on, up to the last one.

    Args:
        source: the file.
    """
    is_last = 0
    while not is_last and len(header := source.read(4)) == 4:
        is_last = header[0] & LAST
        yield header[0] & ~LAST, source.read(int.from_bytes(header[1:], "big"))


def pack_block(kind: int, body: bytes) -> bytes:
    """Return a block that is not the last one."""
    return struct.pack(">I", kind << 24 | len(body)) + body
