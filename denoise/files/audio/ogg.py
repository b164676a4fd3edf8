"""OGG with Vorbis, Opus or FLAC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from denoise.files.audio.container import AudioDecoder
from denoise.files.audio.joined import JoinedDecoder
from denoise.files.audio.soundfile_container import SoundfileContainer, SoundfileDecoder
from denoise.files.audio.spliced import Section, SplicedFile, file_size
from denoise.signals import AudioFormat

PAGE_SIGNATURE = b"OggS"
PAGE_HEADER_BYTES = 27
STARTS_STREAM = 2  # flag of a page


@dataclass(frozen=True)
class Ogg(SoundfileContainer):
    """OGG: Opus stays Opus, everything else becomes Vorbis."""

    def matches(self, head: bytes) -> bool:
        """Return whether a file starts with the signature of a page."""
        return head[:4] == PAGE_SIGNATURE

    def open(self, source: BinaryIO) -> AudioDecoder:
        """Open a file for reading; a chain of streams, as of web radio, is read link by link.

        Args:
            source: the file, seekable.

        Raises:
            InputError: libsndfile cannot read the file, or it has no samples.
        """
        starts = list(_find_links(source))
        if len(starts) < 2:
            return super().open(source)
        ends = [*starts[1:], file_size(source)]
        links = [Section(start, end - start) for start, end in zip(starts, ends, strict=True)]
        return JoinedDecoder([partial(_open_link, source, link) for link in links])

    def choose_format(self, format: AudioFormat, frames: int | None) -> tuple[str, str]:
        """Return libsndfile's names of the container and of the subtype to write."""
        return self.name, "OPUS" if format.subtype == "OPUS" else "VORBIS"


@dataclass(frozen=True)
class Opus(Ogg):
    """OGG with Opus, whatever the source has."""

    def choose_format(self, format: AudioFormat, frames: int | None) -> tuple[str, str]:
        """Return libsndfile's names of the container and of the subtype to write."""
        return self.name, "OPUS"


def _open_link(source: BinaryIO, link: Section) -> SoundfileDecoder:
    return SoundfileDecoder(SplicedFile(source, [link]))


def _find_links(source: BinaryIO) -> Iterator[int]:
    """Return the offsets of the links: a page that starts a stream, behind one that does not."""
    size, offset, was_start = file_size(source), 0, False
    while offset < size:
        source.seek(offset)
        header = source.read(PAGE_HEADER_BYTES)
        if header[:4] != PAGE_SIGNATURE or len(header) < PAGE_HEADER_BYTES:
            offset = _find_page(source, offset + 1, size)
            continue
        is_start = bool(header[5] & STARTS_STREAM)
        if is_start and not was_start:
            yield offset
        was_start = is_start
        offset += PAGE_HEADER_BYTES + header[26] + sum(source.read(header[26]))


def _find_page(source: BinaryIO, offset: int, size: int) -> int:
    """Return the offset of the next page behind other bytes, the size of the file if there is none."""
    while offset < size:
        source.seek(offset)
        block = source.read(1 << 20)
        index = block.find(PAGE_SIGNATURE)
        if index >= 0:
            return offset + index
        offset += max(1, len(block) - 3)  # the signature may cross blocks
    return size
