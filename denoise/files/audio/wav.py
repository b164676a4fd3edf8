"""WAV and its variants, as files and as bytes arrive in a pipe, where libsndfile would need to seek."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

from denoise.errors import InputError
from denoise.files.audio.container import AudioDecoder, AudioEncoder
from denoise.files.audio.pcm import SAMPLE_BYTES, PcmDecoder, PcmEncoder, read_bytes
from denoise.files.audio.soundfile_container import SoundfileContainer, nearest_subtype
from denoise.signals import AudioFormat

WAV_FAMILY = ("WAV", "WAVEX", "RF64")
MAX_WAV_BYTES = 0xFFFF_0000
MAX_HEADER_CHUNK_BYTES = 1 << 24
UNKNOWN_BYTES = 0xFFFF_FFFF
ENDLESS_BYTES = 0x7FFF_0000  # sox (0x7FFFF000) and others state this or more in a pipe of unknown length
PCM_CODE, FLOAT_CODE, EXTENSIBLE_CODE = 1, 3, 0xFFFE
SUBTYPES = {
    (PCM_CODE, 8): "PCM_U8",
    (PCM_CODE, 16): "PCM_16",
    (PCM_CODE, 24): "PCM_24",
    (PCM_CODE, 32): "PCM_32",
    (FLOAT_CODE, 32): "FLOAT",
    (FLOAT_CODE, 64): "DOUBLE",
}


@dataclass(frozen=True)
class Wav(SoundfileContainer):
    """WAV, or its variant ``"WAVEX"`` or ``"RF64"``, by name."""

    can_read_pipes: ClassVar[bool] = True

    def matches(self, head: bytes) -> bool:
        """Return whether a file starts with the signature of WAV or RF64."""
        return head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE"

    def open(self, source: BinaryIO) -> AudioDecoder:
        """Open a file or a pipe for reading.

        Args:
            source: the file or stream, at its first byte.

        Raises:
            InputError: the header is damaged, or the format is not supported.
        """
        return self._open_file(source) if source.seekable() else _open_pipe(source)

    def _open_file(self, source: BinaryIO) -> AudioDecoder:
        """Open a file, and warn of a recorder that stopped before it completed the header.

        Such a header declares too much data, which libsndfile ignores, or none at all, which libsndfile takes for no
        samples: then the file is read like a pipe.
        """
        file_bytes = source.seek(0, os.SEEK_END)
        source.seek(0)
        riff_bytes = int.from_bytes(source.read(8)[4:], "little") + 8
        source.seek(0)
        try:
            format, declared_bytes = read_wav_header(source)
        except InputError:
            return super().open(source)  # another codec, or damage that libsndfile reports
        actual_bytes = file_bytes - source.tell()
        is_complete = declared_bytes is None and riff_bytes == file_bytes  # no samples; other chunks follow
        is_truncated = actual_bytes > 0 and (declared_bytes is None or declared_bytes > actual_bytes)
        if is_complete or not is_truncated:
            return super().open(source)
        frame_bytes = _frame_bytes(format)
        if declared_bytes is None:
            declared = "no length"
            decoder: AudioDecoder = PcmDecoder(source, format, actual_bytes, actual_bytes // frame_bytes)
        else:
            declared = f"{declared_bytes:,} bytes of data"
            decoder = super().open(source)
        seconds = actual_bytes / frame_bytes / format.sample_rate
        decoder.warnings.append(
            f"the header declares {declared}; the file has {actual_bytes:,} bytes of data, {seconds:.1f} s are used."
        )
        return decoder

    def choose_format(self, format: AudioFormat, frames: int | None) -> tuple[str, str]:
        """Return libsndfile's names of the container and of the subtype to write.

        A WAV stays of the kind of its source; beyond 4 GiB it becomes RF64.

        Args:
            format: format of the source.
            frames: number of samples of each channel, if known.
        """
        container = format.format if self.name == "WAV" and format.format in WAV_FAMILY else self.name
        subtype = nearest_subtype(container, format.subtype)
        n_bytes = (frames or 0) * format.channels * SAMPLE_BYTES.get(subtype, 0)
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
        return PcmEncoder(target, format.subtype)


def _open_pipe(source: BinaryIO) -> PcmDecoder:
    format, declared_bytes = read_wav_header(source)
    frames = None
    if declared_bytes is not None and declared_bytes < ENDLESS_BYTES:
        frames = declared_bytes // _frame_bytes(format)
    return PcmDecoder(source, format, declared_bytes, frames)


def read_wav_header(source: BinaryIO) -> tuple[AudioFormat, int | None]:
    """Read the header of a WAV or RF64 up to the first sample.

    Args:
        source: stream at its first byte.

    Returns:
        Format, and the bytes of data that the header declares, or None if it states no length.

    Raises:
        InputError: the header is cut off or names a codec that is not PCM or float.
    """
    riff = _read_exactly(source, 12)
    if riff[:4] not in (b"RIFF", b"RF64") or riff[8:] != b"WAVE":
        raise InputError("not a WAV file.")
    format, ds64_bytes = None, None
    while True:
        kind, size = struct.unpack("<4sI", _read_exactly(source, 8))
        if kind == b"data":
            if format is None:
                raise InputError("the data come before the format chunk. Re-export the file.")
            declared_bytes = ds64_bytes if size == UNKNOWN_BYTES else size
            return format, declared_bytes or None
        if size > MAX_HEADER_CHUNK_BYTES:
            raise InputError(f"a header chunk claims {size:,} bytes. Re-export the file.")
        body = _read_exactly(source, size + size % 2)
        if kind == b"ds64" and size >= 16:
            ds64_bytes = struct.unpack_from("<Q", body, 8)[0]
        elif kind == b"fmt " and size >= 16:
            format = _parse_format_chunk(body, riff[:4] == b"RF64")


def write_wav_header(format: AudioFormat, frames: int | None = None) -> bytes:
    """Return a header for a stream.

    Args:
        format: format of the samples; its subtype is one of `SAMPLE_BYTES`.
        frames: number of samples of each channel. For None, and for more than 4 GiB, the header states the length that
            programs write into a pipe.
    """
    sample_bytes = SAMPLE_BYTES[format.subtype]
    code = FLOAT_CODE if format.subtype in ("FLOAT", "DOUBLE") else PCM_CODE
    frame_bytes = _frame_bytes(format)
    bytes_per_second = format.sample_rate * frame_bytes
    body = struct.pack(
        "<HHIIHH", code, format.channels, format.sample_rate, bytes_per_second, frame_bytes, 8 * sample_bytes
    )
    format_chunk = struct.pack("<4sI", b"fmt ", len(body)) + body
    data_bytes = UNKNOWN_BYTES if frames is None else frames * frame_bytes
    riff_bytes = data_bytes + len(format_chunk) + 12
    if riff_bytes >= UNKNOWN_BYTES:
        data_bytes = riff_bytes = UNKNOWN_BYTES
    riff = struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE")
    return riff + format_chunk + struct.pack("<4sI", b"data", data_bytes)


def _frame_bytes(format: AudioFormat) -> int:
    return SAMPLE_BYTES[format.subtype] * format.channels


def _read_exactly(source: BinaryIO, n: int) -> bytes:
    data = read_bytes(source, n)
    if len(data) < n:
        raise InputError("the header is cut off. Get another copy.")
    return data


def _parse_format_chunk(body: bytes, is_rf64: bool) -> AudioFormat:
    code, channels, sample_rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    is_extensible = code == EXTENSIBLE_CODE and len(body) >= 26
    if is_extensible:
        code = struct.unpack_from("<H", body, 24)[0]
    subtype = SUBTYPES.get((code, bits))
    if subtype is None:
        raise InputError(f"codec {code} with {bits} bits; expected PCM or float. Convert it to PCM first.")
    return AudioFormat(sample_rate, channels, "RF64" if is_rf64 else "WAVEX" if is_extensible else "WAV", subtype)
