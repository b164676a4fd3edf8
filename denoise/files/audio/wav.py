"""WAV and its variants, as files and as bytes arrive in a pipe, where libsndfile would need to seek."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, BinaryIO, cast

from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio.chunked import describe_length
from denoise.files.audio.chunks import RIFF, Chunk
from denoise.files.audio.container import AudioDecoder, AudioEncoder
from denoise.files.audio.mp3 import Mp3
from denoise.files.audio.pcm import SAMPLE_BYTES, PaddedPcmDecoder, PcmDecoder, PcmEncoder
from denoise.files.audio.soundfile_container import SoundfileContainer, SoundfileDecoder, nearest_subtype
from denoise.files.audio.spliced import Section, SplicedFile, file_size
from denoise.files.audio.wav_header import (
    ENDLESS_BYTES,
    SIGNATURES,
    UNKNOWN_BYTES,
    WavHeader,
    read_wav_header,
    write_wav_header,
)
from denoise.signals import AudioFormat

WAV_FAMILY = ("WAV", "WAVEX", "RF64", "BW64")
MAX_WAV_BYTES = 0xFFFF_0000
MPEG_CODES = (0x50, 0x55)


@dataclass(frozen=True)
class Wav(SoundfileContainer):
    """WAV, or its variant ``"WAVEX"``, ``"RF64"`` or ``"BW64"``, by name."""

    def matches(self, head: bytes) -> bool:
        """Return whether a file starts with the signature of WAV, RF64 or BW64."""
        return head[:4] in SIGNATURES and head[8:] == b"WAVE"

    def open(self, source: BinaryIO) -> AudioDecoder:
        """Open a file, and warn of a header that does not declare the length of the sound.

        Args:
            source: the file, at its first byte.

        Raises:
            InputError: the header is damaged, or the format is not supported.
        """
        source.seek(0)
        try:
            header = read_wav_header(source)
        except InputError:
            return super().open(source)  # damage that libsndfile reports
        n_bytes = RIFF.measure(source, Chunk(b"data", header.data_start, header.declared_bytes))
        sound = cast(BinaryIO, SplicedFile(source, [Section(header.data_start, n_bytes)]))
        if header.is_padded:
            decoder: AudioDecoder = _open_pcm(sound, header, n_bytes)
        elif header.code in MPEG_CODES:
            decoder = Mp3("MP3").open(sound)
        elif n_bytes != header.declared_bytes or not header.is_plain:
            decoder = SoundfileDecoder(_replace_header(source, header, n_bytes))
        else:
            return super().open(source)
        decoder.format = replace(decoder.format, format=header.variant)
        if n_bytes != header.declared_bytes:
            decoder.warnings.append(describe_length(header.declared_bytes, n_bytes, UNKNOWN_BYTES, decoder))
        return decoder

    def open_pipe(self, source: BinaryIO) -> AudioDecoder | None:
        """Open a pipe for reading.

        Args:
            source: the stream, at its first byte.

        Returns:
            The decoder, or None for codecs that only libsndfile reads.

        Raises:
            InputError: the header is damaged.
        """
        header = read_wav_header(source)
        if header.subtype is None:
            return None
        is_known = 0 < header.declared_bytes < ENDLESS_BYTES or UNKNOWN_BYTES < header.declared_bytes < 1 << 63
        return _open_pcm(source, header, header.declared_bytes if is_known else None)

    def choose_format(self, format: AudioFormat, frames: int | None) -> tuple[str, str]:
        """Return libsndfile's names of the container and of the subtype to write.

        A WAV stays of the kind of its source; beyond 4 GiB it becomes RF64. A BW64 is an RF64 until its metadata
        are written.

        Args:
            format: format of the source.
            frames: number of samples of each channel, if known.
        """
        variant = format.format if self.name == "WAV" and format.format in WAV_FAMILY else self.name
        has_mask = format.metadata is not None and format.metadata.channel_mask is not None
        container = {"BW64": "RF64", "WAV": "WAVEX" if has_mask else "WAV"}.get(variant, variant)
        subtype = nearest_subtype(container, format.subtype)
        n_bytes = (frames or 0) * format.channels * SAMPLE_BYTES.get(subtype, 0)
        if format.metadata is not None:
            n_bytes += format.metadata.n_bytes
        return "RF64" if n_bytes > MAX_WAV_BYTES else container, subtype

    def create_in_pipe(self, target: BinaryIO, format: AudioFormat, frames: int | None) -> AudioEncoder | None:
        """Create a WAV without seeking; its header is written at once.

        Args:
            target: the stream.
            format: format of the source.
            frames: number of samples of each channel, if known.

        Returns:
            The encoder, or None for codecs that only libsndfile writes.
        """
        if format.subtype not in SAMPLE_BYTES:
            return None
        target.write(write_wav_header(format, frames))
        return _PipedWavEncoder(target, format, frames)


class _PipedWavEncoder(PcmEncoder):
    """Samples behind a header, and then the chunks after the sound if the header states where it ends."""

    def __init__(self, target: BinaryIO, format: AudioFormat, frames: int | None) -> None:
        super().__init__(target, format.subtype)
        self._format, self._remaining_frames = format, frames
        self._padding = bytes((frames or 0) * SAMPLE_BYTES[format.subtype] * format.channels % 2)

    def write(self, x: NDArray[Any]) -> None:
        """Append samples and flush."""
        super().write(x)
        if self._remaining_frames is not None:
            self._remaining_frames -= x.shape[1]

    def close(self) -> None:
        """Append the chunks, once."""
        metadata = self._format.metadata
        if metadata is not None and metadata.trailing and self._remaining_frames == 0:
            self._remaining_frames = None
            self._target.write(self._padding + b"".join(metadata.trailing))
            self._target.flush()


def _open_pcm(source: BinaryIO, header: WavHeader, n_bytes: int | None) -> PcmDecoder:
    """Open the samples behind the header."""
    format = header.as_format()
    sample_bytes = 4 if header.is_padded else SAMPLE_BYTES[format.subtype]
    frames = None if n_bytes is None else n_bytes // (sample_bytes * format.channels)
    if header.is_padded:
        return PaddedPcmDecoder(source, format, header.bits, n_bytes, frames)
    return PcmDecoder(source, format, n_bytes, frames)


def _replace_header(source: BinaryIO, header: WavHeader, n_bytes: int) -> SplicedFile:
    """Return the file with the true number of bytes of sound in its header, beyond 4 GiB that of RF64.

    Chunks of odd length include their padding: behind others libsndfile does not find the sound of an RF64.
    """
    chunks: list[bytes | Section] = []
    for chunk in takewhile(lambda chunk: chunk.name != b"data", RIFF.read_chunks(source, header.first_chunk)):
        padding = bytes(chunk.size % 2)
        head = struct.pack(RIFF.head, chunk.name, chunk.size + len(padding))
        chunks += [head, Section(chunk.start, chunk.size), padding]
    chunk_bytes = sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in chunks)
    sound = Section(header.data_start, file_size(source) - header.data_start)
    riff_bytes = 4 + chunk_bytes + 8 + sound.length
    if riff_bytes <= MAX_WAV_BYTES:
        riff = struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE")
        return SplicedFile(source, [riff, *chunks, struct.pack("<4sI", b"data", n_bytes), sound])
    frames = n_bytes // max(1, header.frame_bytes)
    ds64 = struct.pack("<4sIQQQI", b"ds64", 28, riff_bytes + 36, n_bytes, frames, 0)
    riff = struct.pack("<4sI4s", b"RF64", UNKNOWN_BYTES, b"WAVE")
    return SplicedFile(source, [riff, ds64, *chunks, struct.pack("<4sI", b"data", UNKNOWN_BYTES), sound])
