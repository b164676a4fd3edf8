"""Tags around MP3: ID3v2 before the sound; APE, Lyrics3 and ID3v1 behind it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

from denoise.files.audio.id3_header import ID3_HEADER_BYTES, id3_bytes
from denoise.files.audio.metadata.ape import parse_ape
from denoise.files.audio.metadata.codec import MetadataCodec, ShiftedFile, move_header
from denoise.files.audio.metadata.id3 import (
    build_id3,
    drop_stale_frames,
    join_tags,
    lost_frames,
    parse_id3,
    seek_offset,
)
from denoise.files.audio.metadata.tags import Tags
from denoise.files.audio.mp3_frames import FrameScanner
from denoise.signals import AudioMetadata

ID3V1_BYTES, APE_FOOTER_BYTES = 128, 32
LYRICS_START, LYRICS_END = b"LYRICSBEGIN", b"LYRICS200"
FOOTER_START = b"3DI"
STALE_APE = b"MP3GAIN_"  # how the gain of the old stream was changed


class Mp3Metadata(MetadataCodec):
    """Tags of MP3, without what describes the stream: length, offsets, encoder delay."""

    def read(self, source: BinaryIO) -> AudioMetadata:
        """Read the tags of a file."""
        metadata = AudioMetadata()
        start, end, appended_start = 0, source.seek(0, os.SEEK_END), 0
        first_frame = FrameScanner(source).first_frame()
        source.seek(0)
        while size := id3_bytes(source.read(ID3_HEADER_BYTES)):
            source.seek(start)
            tag = source.read(min(size, first_frame - start))  # its declared length may be wrong
            metadata.leading.append(drop_stale_frames(tag))
            start += len(tag)
            appended_start = start + offset if (offset := seek_offset(tag)) else appended_start
        if end - start < ID3V1_BYTES:
            return metadata
        source.seek(end - ID3V1_BYTES)
        id3v1 = source.read()
        if id3v1[:3] == b"TAG":
            end -= ID3V1_BYTES
            metadata.trailing.append(id3v1)
        if lyrics := _read_lyrics(source, start, end):
            end -= len(lyrics)
            metadata.trailing.insert(0, lyrics)
        if ape := _read_ape(source, start, end):
            if STALE_APE in ape:
                metadata.dropped.append("APE")
            else:
                metadata.trailing.insert(0, ape)
        if appended := _read_appended_id3(source, start, end, appended_start):
            _prepend(appended, metadata)
        return metadata

    def to_tags(self, metadata: AudioMetadata) -> tuple[Tags, list[str]]:
        """Convert the frames of ID3; the text of APE, or else ID3v1, where there is no ID3v2."""
        tags, lost = Tags(), [*metadata.dropped]
        for tag in metadata.leading:
            tags = tags.merged(parse_id3(tag))
        for tag in metadata.trailing:
            if tag.startswith(LYRICS_START):
                lost.append("Lyrics3")
            elif tag[:3] != b"TAG":
                text, is_whole = parse_ape(tag)
                tags = tags or text
                if not is_whole or text.by_name().keys() - tags.by_name().keys():
                    lost.append("APE")
            elif not tags:
                tags = parse_id3(b"", tag)
        return tags, lost

    def from_tags(self, tags: Tags) -> tuple[list[bytes], list[str]]:
        """Convert tags to ID3v2.4."""
        return [build_id3(tags)], lost_frames(tags)

    def finish(self, file: BinaryIO, coded: ShiftedFile, leading: Sequence[bytes], metadata: AudioMetadata) -> None:
        """Write the tags before and behind the sound."""
        move_header(file, coded, 0, leading)
        file.seek(0, os.SEEK_END)
        file.write(b"".join(metadata.trailing))


def _read_appended_id3(source: BinaryIO, start: int, end: int, appended_start: int) -> bytes:
    """Return the ID3v2.4 tag to whose start another one points, or that which ends at an offset, or nothing."""
    if not start < appended_start < end:
        source.seek(max(start, end - ID3_HEADER_BYTES))
        footer = source.read(ID3_HEADER_BYTES)
        if footer[:3] != FOOTER_START:
            return b""
        appended_start = end - id3_bytes(b"ID3" + footer[3:])
    source.seek(max(start, appended_start))
    size = id3_bytes(source.read(ID3_HEADER_BYTES))
    if not size or appended_start < start or appended_start + size > end:
        return b""
    source.seek(appended_start)
    return source.read(size)


def _prepend(tag: bytes, metadata: AudioMetadata) -> None:
    """Put a tag that is behind the sound before it, where all programs read it."""
    tag = drop_stale_frames(tag)
    if metadata.leading and metadata.leading[0][3] == tag[3]:
        metadata.leading[0] = join_tags(metadata.leading[0], tag)
    else:
        metadata.leading.append(tag)


def _read_lyrics(source: BinaryIO, start: int, end: int) -> bytes:
    """Return the Lyrics3 tag that ends at an offset, or nothing."""
    size_bytes = 6 + len(LYRICS_END)
    source.seek(max(start, end - size_bytes))
    footer = source.read(size_bytes)
    if not footer.endswith(LYRICS_END) or not footer[:6].isdigit():
        return b""
    size = int(footer[:6]) + size_bytes
    source.seek(max(start, end - size))
    lyrics = source.read(size)
    return lyrics if lyrics.startswith(LYRICS_START) else b""


def _read_ape(source: BinaryIO, start: int, end: int) -> bytes:
    """Return the APE tag that ends at an offset, or nothing."""
    if end - start < APE_FOOTER_BYTES:
        return b""
    source.seek(end - APE_FOOTER_BYTES)
    footer = source.read(APE_FOOTER_BYTES)
    if footer[:8] != b"APETAGEX":
        return b""
    has_header = footer[23] & 0x80
    size = int.from_bytes(footer[12:16], "little") + (APE_FOOTER_BYTES if has_header else 0)
    if not APE_FOOTER_BYTES <= size <= end - start:
        return b""
    source.seek(end - size)
    return source.read(size)
