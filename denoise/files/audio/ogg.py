"""OGG with Vorbis, Opus or FLAC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from denoise.files.audio.container import AudioDecoder, AudioEncoder
from denoise.files.audio.joined import JoinedDecoder
from denoise.files.audio.media_format import MediaFormat
from denoise.files.audio.metadata.positions import NAMES, VORBIS_NAMES
from denoise.files.audio.ogg_pages import SIGNATURE, has_positions, read_pages
from denoise.files.audio.soundfile_container import SoundfileContainer, SoundfileDecoder, SoundfileEncoder
from denoise.files.audio.spliced import Section, SplicedFile, file_size
from denoise.files.audio.track_encoder import TrackEncoder
from denoise.signals import AudioFormat


class OggDecoder(SoundfileDecoder):
    """Vorbis or Opus, whose channels come in the order of WAV.

    Args:
        source: the file, seekable.
    """

    def __init__(self, source: BinaryIO | SplicedFile) -> None:
        is_ordered = has_positions(cast(BinaryIO, source))
        source.seek(0)
        super().__init__(source)
        channels = self.format.channels
        self._order = np.argsort(vorbis_order(channels)) if is_ordered else np.arange(channels)

    def read(self, n: int) -> NDArray[Any]:
        """Return the next samples, as `SoundfileDecoder`."""
        return super().read(n)[self._order]


class OggEncoder(SoundfileEncoder):
    """Vorbis or Opus, from channels in the order of WAV."""

    def write(self, x: NDArray[Any]) -> None:
        """Append samples, as `SoundfileEncoder`."""
        super().write(x[vorbis_order(len(x))])


def vorbis_order(channels: int) -> list[int]:
    """Return the numbers, in the order of WAV, of the channels of Vorbis and Opus.

    Args:
        channels: number of channels.
    """
    names = VORBIS_NAMES.get(channels, [])
    return [sorted(names, key=NAMES.index).index(name) for name in names] or [*range(channels)]


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
            return OggDecoder(source)
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
        return OggEncoder(target, format, *self.choose_format(format, frames))

    def choose_format(self, format: AudioFormat, frames: int | None) -> tuple[str, str]:
        """Return libsndfile's names of the container and of the subtype to write."""
        return self.name, "OPUS" if format.subtype == "OPUS" else "VORBIS"


@dataclass(frozen=True)
class Opus(Ogg):
    """OGG with Opus, whatever the source has."""

    def choose_format(self, format: AudioFormat, frames: int | None) -> tuple[str, str]:
        """Return libsndfile's names of the container and of the subtype to write."""
        return self.name, "OPUS"


def _open_link(source: BinaryIO, link: Section) -> OggDecoder:
    return OggDecoder(SplicedFile(source, [link]))


def _find_links(source: BinaryIO) -> Iterator[int]:
    """Return the offsets of the links: a page that starts a stream, behind one that does not."""
    was_first = False
    for page in read_pages(source):
        if page.is_first and not was_first:
            yield page.offset
        was_first = page.is_first
