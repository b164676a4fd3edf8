"""OGG with Vorbis, Opus or FLAC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

from denoise.files.audio.container import AudioDecoder, AudioEncoder
from denoise.files.audio.joined import JoinedDecoder
from denoise.files.audio.media_format import MediaFormat
from denoise.files.audio.ogg_pages import SIGNATURE, read_pages
from denoise.files.audio.soundfile_container import SoundfileContainer, SoundfileDecoder
from denoise.files.audio.spliced import Section, SplicedFile, file_size
from denoise.files.audio.track_encoder import TrackEncoder
from denoise.signals import AudioFormat


@dataclass(frozen=True)
class Ogg(SoundfileContainer):
    """OGG: Opus and FLAC stay what they are, everything else becomes Vorbis."""

    def matches(self, head: bytes) -> bool:
        """Return whether a file starts with the signature of a page."""
        return head.startswith(SIGNATURE)

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

    def create(self, target: str | bytes | BinaryIO, format: AudioFormat, frames: int | None) -> AudioEncoder:
        """Create a file with libsndfile, or with FFmpeg where the source is FLAC in OGG.

        Args:
            target: path, or seekable file.
            format: format of the source.
            frames: number of samples of each channel, if known.

        Raises:
            InputError: the container cannot hold the format.
        """
        if isinstance(format, MediaFormat) and (format.format, format.codec) == (self.name, "flac"):
            return TrackEncoder(target, "ogg", ["flac"], replace(format, tags={}), {})
        return super().create(target, format, frames)

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
    was_first = False
    for page in read_pages(source):
        if page.is_first and not was_first:
            yield page.offset
        was_first = page.is_first
