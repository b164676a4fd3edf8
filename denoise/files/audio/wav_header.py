"""The header of a WAV, RF64 or BW64, up to the first sample."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from denoise.errors import InputError
from denoise.files.audio.chunks import starts_with_padding
from denoise.files.audio.pcm import FLOATS, SAMPLE_BYTES, read_bytes
from denoise.signals import AudioFormat, AudioMetadata

SIGNATURES = {b"RIFF": "WAV", b"RF64": "RF64", b"BW64": "BW64"}
MAX_HEADER_CHUNK_BYTES = 1 << 24
UNKNOWN_BYTES = 0xFFFF_FFFF
ENDLESS_BYTES = 0x7FFF_0000  # sox (0x7FFFF000) and others state this or more in a pipe of unknown length
PCM_CODE, FLOAT_CODE, EXTENSIBLE_CODE = 1, 3, 0xFFFE
SUBFORMAT_GUID = bytes.fromhex("000000001000800000aa00389b71")  # behind the code
PCM_SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32")  # by bytes of a sample
FLOAT_SUBTYPES = {32: "FLOAT", 64: "DOUBLE"}  # by bits
MAX_PADDED_BITS = 24


@dataclass(frozen=True)
class WavHeader:
    """The header of a WAV.

    Args:
        variant: ``"WAV"``, ``"WAVEX"``, ``"RF64"`` or ``"BW64"``.
        is_plain: whether libsndfile finds the sound: not in a BW64 (ITU-R BS.2088), behind a chunk of odd size without
            padding, or in an RF64 behind any of odd size.
        code: number of the codec.
        channels: number of channels.
        sample_rate: in Hz.
        frame_bytes: declared bytes of a sample of all channels, or of a block.
        bits: bits of a sample that are in use.
        declared_bytes: declared bytes of sound; 0 or `UNKNOWN_BYTES` if it declares none.
        first_chunk: offset of the first chunk but ``ds64``.
        data_start: offset of the first sample.
    """

    variant: str
    is_plain: bool
    code: int
    channels: int
    sample_rate: int
    frame_bytes: int
    bits: int
    declared_bytes: int
    first_chunk: int
    data_start: int

    @property
    def subtype(self) -> str | None:
        """The subtype of PCM and floats, None for other codecs."""
        if self.code == FLOAT_CODE:
            return FLOAT_SUBTYPES.get(self.bits)
        return PCM_SUBTYPES[(self.bits - 1) // 8] if self.code == PCM_CODE and 1 <= self.bits <= 32 else None

    @property
    def is_padded(self) -> bool:
        """Whether samples of at most 24 bits are stored in four bytes each."""
        is_24_bits = self.subtype == "PCM_24" and self.bits <= MAX_PADDED_BITS
        return is_24_bits and self.frame_bytes == 4 * self.channels

    def as_format(self) -> AudioFormat:
        """Return the format of PCM and floats.

        Raises:
            InputError: sample rate or channels are out of range, or the codec is another.
        """
        if self.subtype is None:
            raise InputError(f"codec {self.code} with {self.bits} bits; expected PCM or float. Convert it first.")
        return AudioFormat(self.sample_rate, self.channels, self.variant, self.subtype)


def read_wav_header(source: BinaryIO) -> WavHeader:
    """Read the header of a WAV up to the first sample.

    Args:
        source: stream at its first byte.

    Raises:
        InputError: the header is cut off or damaged.
    """
    riff = _read_exactly(source, 12)
    if riff[:4] not in SIGNATURES or riff[8:] != b"WAVE":
        raise InputError("not a WAV file.")
    format_chunk, ds64_bytes, is_plain = b"", UNKNOWN_BYTES, riff[:4] != b"BW64"
    offset = first_chunk = len(riff)
    size = 0
    while True:
        head = _read_exactly(source, 8)
        if size % 2:
            is_padded = starts_with_padding(head[:5])
            is_plain = is_plain and is_padded and riff[:4] == b"RIFF"
            head = head[is_padded:] + _read_exactly(source, int(is_padded))
            offset += is_padded
        kind, size = struct.unpack("<4sI", head)
        offset += 8
        if kind == b"data":
            break
        if size > MAX_HEADER_CHUNK_BYTES:
            raise InputError(f"a header chunk claims {size:,} bytes. Re-export the file.")
        body = _read_exactly(source, size)
        offset += len(body)
        if kind == b"ds64" and size >= 16:
            ds64_bytes = struct.unpack_from("<Q", body, 8)[0]
            first_chunk = offset
        elif kind == b"fmt " and size >= 16:
            format_chunk = body
    if not format_chunk:
        raise InputError("the data come before the format chunk. Re-export the file.")
    code, channels, sample_rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", format_chunk)
    is_extensible = code == EXTENSIBLE_CODE and len(format_chunk) >= 26
    return WavHeader(
        variant="WAVEX" if is_extensible and riff[:4] == b"RIFF" else SIGNATURES[riff[:4]],
        is_plain=is_plain,
        code=struct.unpack_from("<H", format_chunk, 24)[0] if is_extensible else code,
        channels=channels,
        sample_rate=sample_rate,
        frame_bytes=frame_bytes,
        bits=bits,
        declared_bytes=ds64_bytes if size == UNKNOWN_BYTES else size,
        first_chunk=first_chunk,
        data_start=offset,
    )


def write_wav_header(format: AudioFormat, frames: int | None = None) -> bytes:
    """Return a header for a stream, with the chunks before the sound.

    Args:
        format: format of the samples; its subtype is one of `SAMPLE_BYTES`, and its metadata are chunks of WAV.
        frames: number of samples of each channel. For None, and for more than 4 GiB, the header states the length that
            programs write into a pipe.
    """
    sample_bytes = SAMPLE_BYTES[format.subtype]
    code = FLOAT_CODE if format.subtype in FLOATS else PCM_CODE
    frame_bytes = sample_bytes * format.channels
    bytes_per_second = format.sample_rate * frame_bytes
    metadata = format.metadata or AudioMetadata()
    bits, is_extensible = 8 * sample_bytes, metadata.channel_mask is not None
    body = struct.pack(
        "<HHIIHH",
        EXTENSIBLE_CODE if is_extensible else code,
        format.channels,
        format.sample_rate,
        bytes_per_second,
        frame_bytes,
        bits,
    )
    if is_extensible:
        body += struct.pack("<HHIH", 22, bits, metadata.channel_mask, code) + SUBFORMAT_GUID
    format_chunk = struct.pack("<4sI", b"fmt ", len(body)) + body
    data_bytes = UNKNOWN_BYTES if frames is None else frames * frame_bytes
    leading = b"".join(metadata.leading)
    trailing_bytes = metadata.n_bytes - len(leading)
    padding_bytes = data_bytes % 2 if metadata.trailing else 0
    riff_bytes = 12 + len(leading) + len(format_chunk) + data_bytes + padding_bytes + trailing_bytes
    if format.format == "BW64" and frames is not None:
        sizes = struct.pack("<QQQI", riff_bytes + 36, data_bytes, frames, 0)
        ds64 = struct.pack("<4sI", b"ds64", len(sizes)) + sizes
        riff = struct.pack("<4sI4s", b"BW64", UNKNOWN_BYTES, b"WAVE")
        return riff + ds64 + leading + format_chunk + struct.pack("<4sI", b"data", UNKNOWN_BYTES)
    if riff_bytes >= UNKNOWN_BYTES:
        data_bytes = riff_bytes = UNKNOWN_BYTES
    riff = struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE")
    return riff + leading + format_chunk + struct.pack("<4sI", b"data", data_bytes)


def _read_exactly(source: BinaryIO, n: int) -> bytes:
    data = read_bytes(source, n)
    if len(data) < n:
        raise InputError("the header is cut off. Get another copy.")
    return data
