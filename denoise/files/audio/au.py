"""AU, Sun's container."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from denoise.files.audio.chunked import describe_length
from denoise.files.audio.soundfile_container import SoundfileContainer, SoundfileDecoder
from denoise.files.audio.spliced import Section, SplicedFile, file_size

HEADER_BYTES = 12  # up to the size of the sound
UNKNOWN_BYTES = 0xFFFF_FFFF


@dataclass(frozen=True)
class Au(SoundfileContainer):
    """AU, whose sound ends with the file, whatever its header declares."""

    def matches(self, head: bytes) -> bool:
        """Return whether a file starts with the signature of AU."""
        return head[:4] == b".snd"

    def open(self, source: BinaryIO) -> SoundfileDecoder:
        """Open a file for reading, and warn of a header that does not declare the length of the sound.

        Args:
            source: the file, seekable.

        Raises:
            InputError: libsndfile cannot read the file, or it has no samples.
        """
        size = file_size(source)
        source.seek(0)
        head = source.read(HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            return SoundfileDecoder(source)  # which reports it
        data_start, declared_bytes = struct.unpack(">II", head[4:])
        unknown = struct.pack(">I", UNKNOWN_BYTES)
        decoder = SoundfileDecoder(SplicedFile(source, [head[:8], unknown, Section(HEADER_BYTES, size - HEADER_BYTES)]))
        if declared_bytes not in (size - data_start, UNKNOWN_BYTES):  # the latter is what a pipe gets
            decoder.warnings.append(describe_length(declared_bytes, size - data_start, UNKNOWN_BYTES, decoder))
        return decoder
