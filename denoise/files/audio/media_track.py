"""Single audio tracks of a media file, as sources and targets of a run."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from denoise.files.audio.media import MediaContainer
from denoise.files.audio.media_format import MediaFormat
from denoise.files.audio.track_decoder import TrackDecoder
from denoise.files.audio.track_encoder import TrackEncoder
from denoise.signals import AudioFormat


@dataclass(frozen=True)
class MediaTrack:
    """An audio track of a media file, which `AudioReader` reads.

    Args:
        file: the media file, seekable.
        name: its name in messages.
        container: its container.
        index: number of the audio track, from 0.
    """

    file: BinaryIO
    name: str
    container: MediaContainer
    index: int

    def open(self) -> TrackDecoder:
        """Open the track.

        Raises:
            InputError: as `TrackDecoder`.
        """
        return self.container.open_track(self.file, self.index)


class EncodedTrack:
    """An audio track in a temporary file, which `AudioWriter` writes.

    Args:
        path: path of the temporary file.
        name: name in messages of the media file that will hold the track.
        container: container of that file.
    """

    def __init__(self, path: Path, name: str, container: MediaContainer) -> None:
        self.path, self.name, self.container = path, name, container
        self._format = AudioFormat(48_000, 1)
        self._encoder: TrackEncoder | None = None

    def create(self, format: AudioFormat) -> TrackEncoder:
        """Create the temporary file.

        Args:
            format: format of the source.

        Raises:
            InputError: the container cannot hold the format.
        """
        self._format, self._encoder = format, self.container.create(str(self.path), format, None)
        return self._encoder

    @property
    def start(self) -> Fraction:
        """Time of the first packet in s, on the clock of the media file, once the track is written."""
        start = self._format.start if isinstance(self._format, MediaFormat) else Fraction(0)
        return start - (self._encoder.padding if self._encoder else 0)
