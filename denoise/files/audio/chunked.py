"""AIFF, CAF, Wave64 and big-endian WAV: containers of chunks that libsndfile decodes once their sizes are right."""

from __future__ import annotations

import struct
from abc import abstractmethod
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

from denoise.errors import InputError
from denoise.files.audio.chunks import BIG_ENDIAN, CAF, WAVE64, ChunkLayout
from denoise.files.audio.container import AudioDecoder
from denoise.files.audio.media_format import MediaFormat
from denoise.files.audio.soundfile_container import SoundfileContainer, SoundfileDecoder
from denoise.files.audio.spliced import Section, SplicedFile, file_size
from denoise.signals import AudioFormat


@dataclass(frozen=True)
class ChunkedContainer(SoundfileContainer):
    """A container whose sound is one chunk; subclasses state its layout.

    Attributes:
        layout: how the heads of chunks are written.
        first_chunk: offset of the first chunk.
        data_name: first characters of the name of the chunk of the sound.
        size_format: format of a size for `struct`.
        has_tail: whether libsndfile reads the chunks behind the sound.
    """

    layout: ClassVar[ChunkLayout]
    first_chunk: ClassVar[int]
    data_name: ClassVar[bytes]
    size_format: ClassVar[str]
    has_tail: ClassVar[bool] = True

    @abstractmethod
    def matches(self, head: bytes) -> bool:
        """Return whether a file is of this container."""

    def open(self, source: BinaryIO) -> SoundfileDecoder:
        """Open a file for reading, and warn of a header that does not declare the length of the sound.

        Args:
            source: the file, seekable.

        Raises:
            InputError: libsndfile cannot read the file, or it has no samples.
        """
        chunks = self.layout.read_chunks(source, self.first_chunk)
        data = next((chunk for chunk in chunks if chunk.name.startswith(self.data_name)), None)
        if data is None:
            try:
                return SoundfileDecoder(source)
            except InputError:
                name = self.data_name.decode()
                raise InputError(f"has no samples (no chunk {name!r}); expected some. Record it again.") from None
        n_bytes = self.layout.measure(source, data)
        size_bytes = struct.calcsize(self.size_format)
        head_bytes = self.layout.head_bytes * self.layout.counts_head
        size = struct.pack(self.size_format, min(n_bytes + head_bytes, (1 << 8 * size_bytes) - 1))
        end = file_size(source) if self.has_tail else data.start + n_bytes
        before, sound = Section(0, data.start - size_bytes), Section(data.start, end - data.start)
        decoder = SoundfileDecoder(SplicedFile(source, [before, size, sound]))
        if n_bytes != data.size:
            decoder.warnings.append(describe_length(data.size, n_bytes, self.layout.unknown_size, decoder))
        return decoder


@dataclass(frozen=True)
class BigEndianWav(ChunkedContainer):
    """WAV of big-endian numbers."""

    layout = BIG_ENDIAN
    first_chunk, data_name, size_format = 12, b"data", ">I"

    def matches(self, head: bytes) -> bool:
        """Return whether a file starts with the signature of a big-endian WAV."""
        return head[:4] == b"RIFX" and head[8:] == b"WAVE"


@dataclass(frozen=True)
class Aiff(ChunkedContainer):
    """AIFF and AIFF-C."""

    layout = BIG_ENDIAN
    first_chunk, data_name, size_format = 12, b"SSND", ">I"

    def matches(self, head: bytes) -> bool:
        """Return whether a file starts with the signature of AIFF or AIFF-C."""
        return head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC")


@dataclass(frozen=True)
class Caf(ChunkedContainer):
    """Apple's Core Audio Format, which declares -1 while it is recorded."""

    layout = CAF
    first_chunk, data_name, size_format = 8, b"data", ">q"

    def matches(self, head: bytes) -> bool:
        """Return whether a file starts with the signature of CAF."""
        return head[:4] == b"caff"

    def choose_format(self, format: AudioFormat, frames: int | None) -> tuple[str, str]:
        """Return libsndfile's names of the container and of the subtype to write; ALAC that FFmpeg reads stays ALAC."""
        if isinstance(format, MediaFormat) and format.codec == "alac":
            return self.name, format.subtype.replace("PCM", "ALAC")
        return super().choose_format(format, frames)


@dataclass(frozen=True)
class Wave64(ChunkedContainer):
    """Sony's Wave64, of whose chunks libsndfile takes all behind the head of the sound for sound."""

    layout = WAVE64
    first_chunk, data_name, size_format = 40, b"data", "<Q"
    has_tail = False

    def matches(self, head: bytes) -> bool:
        """Return whether a file starts with the signature of Wave64."""
        return head[:4] == b"riff"


def describe_length(declared_bytes: int, n_bytes: int, unknown_size: int, decoder: AudioDecoder) -> str:
    """Return the warning of a header that does not declare the length of the sound.

    Args:
        declared_bytes: what it declares.
        n_bytes: bytes of sound.
        unknown_size: the size that declares nothing, beside 0.
        decoder: of the sound.
    """
    is_unknown = not 0 < declared_bytes < 1 << 63 or declared_bytes == unknown_size
    declared = "no length" if is_unknown else f"{declared_bytes:,} bytes of data"
    seconds = (decoder.frames or 0) / decoder.format.sample_rate
    return f"the header declares {declared}; the file has {n_bytes:,} bytes of data, {seconds:.1f} s are used."
