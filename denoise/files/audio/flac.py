"""FLAC."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from denoise.files.audio.container import AudioDecoder
from denoise.files.audio.joined import JoinedDecoder
from denoise.files.audio.metadata.flac import read_blocks
from denoise.files.audio.soundfile_container import SoundfileContainer, SoundfileDecoder
from denoise.files.audio.spliced import Section, SplicedFile, file_size

SIGNATURE_BYTES, START_BYTES = 4, 8
STREAM_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # with the head of STREAMINFO
LENGTH_OFFSET = 21  # of 36 bits, behind four of another field
SEARCH_BYTES = 1 << 20


@dataclass(frozen=True)
class Flac(SoundfileContainer):
    """FLAC, decoded to its end: libsndfile alone stops at the length of the header, and at a second stream."""

    def matches(self, head: bytes) -> bool:
        """Return whether a file starts with the signature of FLAC."""
        return head[:SIGNATURE_BYTES] == b"fLaC"

    def open(self, source: BinaryIO) -> AudioDecoder:
        """Open a file for reading.

        Args:
            source: the file, seekable.

        Raises:
            InputError: libsndfile cannot read the file, or it has no samples.
        """
        starts = list(_find_streams(source))
        if not starts:
            return super().open(source)  # damage that libsndfile reports
        ends = [*starts[1:], file_size(source)]
        streams = [Section(start, end - start) for start, end in zip(starts, ends, strict=True)]
        openers = [partial(_open_stream, source, stream) for stream in streams]
        return JoinedDecoder(openers) if len(openers) > 1 else openers[0]()


def _open_stream(source: BinaryIO, stream: Section) -> SoundfileDecoder:
    """Open a stream as if its header stated no length, since an encoder that was stopped leaves any."""
    if stream.length < LENGTH_OFFSET + 5:
        return SoundfileDecoder(SplicedFile(source, [stream]))  # which reports it
    source.seek(stream.start)
    head = bytearray(source.read(LENGTH_OFFSET + 5))
    length = int.from_bytes(head[LENGTH_OFFSET:], "big") & (1 << 36) - 1
    head[LENGTH_OFFSET:] = bytes([head[LENGTH_OFFSET] & 0xF0, 0, 0, 0, 0])
    rest = Section(stream.start + len(head), stream.length - len(head))
    decoder = SoundfileDecoder(SplicedFile(source, [bytes(head), rest]))
    decoder.frames = length or None
    return decoder


def _find_streams(source: BinaryIO) -> Iterator[int]:
    """Return the offsets of the streams; their metadata are not searched, since a picture may hold any bytes."""
    offset, size = 0, file_size(source)
    while offset < size:
        source.seek(offset)
        found = STREAM_START.search(source.read(SEARCH_BYTES + START_BYTES - 1))
        if found is None:
            offset += SEARCH_BYTES
            continue
        start = offset + found.start()
        yield start
        source.seek(start + SIGNATURE_BYTES)
        for _ in read_blocks(source):
            pass
        offset = source.tell()
