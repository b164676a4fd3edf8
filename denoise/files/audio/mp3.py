"""MP3."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from denoise.errors import InputError
from denoise.files.audio.container import AudioDecoder
from denoise.files.audio.flac import Flac
from denoise.files.audio.id3_header import ID3_HEADER_BYTES, has_footer, id3_bytes
from denoise.files.audio.joined import JoinedDecoder
from denoise.files.audio.mp3_frames import FrameScanner, Part, parse_header
from denoise.files.audio.soundfile_container import SoundfileContainer, SoundfileDecoder
from denoise.files.audio.spliced import Repeated, Section, SplicedFile, file_size
from denoise.signals import AudioFormat

ID3V1_BYTES = 128
NO_CRC = 1  # bit of the second byte of a header


@dataclass(frozen=True)
class Mp3(SoundfileContainer):
    """MP3 by its frames: libsndfile alone stops where it estimates the end, and where another stream begins."""

    def matches(self, head: bytes) -> bool:
        """Return whether a file starts with an ID3 tag or the header of a frame."""
        return head[:3] == b"ID3" or parse_header(int.from_bytes(head[:4], "big")) is not None

    def open(self, source: BinaryIO) -> AudioDecoder:
        """Open a file for reading.

        Args:
            source: the file, seekable.

        Raises:
            InputError: it has no sound, or is of another kind.
        """
        scanner = FrameScanner(source)
        parts = scanner.scan()
        if not parts:
            if not scanner.is_tagged:
                raise InputError("has no complete frame of MP3. Get another copy.")
            return Flac("FLAC").open(source)  # behind the tag, or what libsndfile detects there
        openers = [partial(_open_part, source, part, is_first=part is parts[0]) for part in parts]
        decoder = JoinedDecoder(openers) if len(parts) > 1 else openers[0]()
        decoder.warnings += scanner.warnings
        return decoder

    def choose_format(self, format: AudioFormat, frames: int | None) -> tuple[str, str]:
        """Return libsndfile's names of the container and of the subtype to write."""
        return self.name, "MPEG_LAYER_III"


@dataclass(frozen=True)
class Undetected(SoundfileContainer):
    """A file without a known signature: any container that libsndfile detects, or MP3 behind other bytes."""

    def open(self, source: BinaryIO) -> AudioDecoder:
        """Open a file for reading.

        Args:
            source: the file, seekable.

        Raises:
            InputError: it is no audio.
        """
        try:
            return super().open(source)
        except InputError:
            if not FrameScanner(source).scan():
                raise
            return Mp3("MP3").open(source)


def _open_part(source: BinaryIO, part: Part, *, is_first: bool) -> SoundfileDecoder:
    """Open the frames of one stream as a file of their own, with the tags at both ends of the whole file."""
    tags = _find_tags(source, part) if is_first else (b"", b"")
    if part.is_described:  # libmpg123 knows the length, and removes the padding of the encoder
        return SoundfileDecoder(SplicedFile(source, [tags[0], part.description, *part.sections, tags[1]]))
    # libmpg123 takes the first frame for the mean: silence behind the last frame moves its estimate beyond it
    silence = _silent_frame(part.first_frame)
    missing = (part.n_frames + 2) * (len(part.first_frame) + 1) - part.n_bytes
    padding = Repeated(silence, max(0, -(-missing // len(silence)) * len(silence)))
    return SoundfileDecoder(SplicedFile(source, [tags[0], *part.sections, padding, tags[1]]), part.n_samples)


def _find_tags(source: BinaryIO, part: Part) -> tuple[bytes | Section, bytes]:
    """Return the ID3 tags before the first part and at the end of the file."""
    size = file_size(source)
    source.seek(0)
    head = source.read(ID3_HEADER_BYTES)
    length = id3_bytes(head)
    source.seek(max(0, size - ID3V1_BYTES))
    last = source.read(ID3V1_BYTES)
    first_frame = part.sections[0].start - len(part.info_frame)
    is_tagged = ID3_HEADER_BYTES < length <= first_frame and not has_footer(head)  # else its length is wrong
    return Section(0, length) if is_tagged else b"", last if last.startswith(b"TAG") else b""


def _silent_frame(frame: bytes) -> bytes:
    """Return a frame of the same length without sound: no bits for any band."""
    return bytes([frame[0], frame[1] | NO_CRC, *frame[2:4]]) + bytes(len(frame) - 4)
