"""Headers and samples of WAV as bytes arrive, for pipes, where libsndfile would need to seek."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.signals import AudioFormat

ENCODINGS = {
    "u8": "PCM_U8",
    "s16le": "PCM_16",
    "s24le": "PCM_24",
    "s32le": "PCM_32",
    "f32le": "FLOAT",
    "f64le": "DOUBLE",
}
WIDTHS = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
UNKNOWN = 0xFFFFFFFF
ENDLESS = 0x7FFF0000  # what sox (0x7FFFF000) and others say in a pipe, where nobody knows the length


@dataclass(frozen=True)
class RawFormat:
    """Headerless PCM: rate in Hz, interleaved channels, and an encoding of ``ENCODINGS``."""

    sample_rate: int
    channels: int
    encoding: str = "s16le"

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise InputError(f"raw format is {self.encoding!r}; expected one of {', '.join(ENCODINGS)}.")
        self.as_format()

    def as_format(self) -> AudioFormat:
        return AudioFormat(self.sample_rate, self.channels, "RAW", ENCODINGS[self.encoding])


def read_wav_header(file: BinaryIO) -> tuple[AudioFormat, int | None]:
    """Read up to the first sample; the bytes of data that the header declares, None if it does not know.

    Raises:
        InputError: the header is cut off or names a codec that is not PCM or float.
    """
    riff = _exactly(file, 12)
    if riff[:4] not in (b"RIFF", b"RF64") or riff[8:] != b"WAVE":
        raise InputError("not a WAV file.")
    found, long_size = None, None
    while True:
        name, size = struct.unpack("<4sI", _exactly(file, 8))
        if name == b"data":
            if found is None:
                raise InputError("the data come before the format chunk. Re-export the file.")
            declared = long_size if size == UNKNOWN else size
            return found, declared or None
        if size > 1 << 24:
            raise InputError(f"a header chunk claims {size:,} bytes. Re-export the file.")
        body = _exactly(file, size + size % 2)
        if name == b"ds64" and size >= 16:
            long_size = struct.unpack_from("<Q", body, 8)[0]
        elif name == b"fmt " and size >= 16:
            found = _parse_fmt(body, riff[:4] == b"RF64")


def write_wav_header(format: AudioFormat, frames: int | None = None) -> bytes:
    """A header for ``frames`` samples; where nobody knows, of the length that programs write into a pipe."""
    width, code = WIDTHS[format.subtype], 3 if format.subtype in ("FLOAT", "DOUBLE") else 1
    align = width * format.channels
    fmt = struct.pack(
        "<HHIIHH", code, format.channels, format.sample_rate, format.sample_rate * align, align, 8 * width
    )
    fmt_chunk = struct.pack("<4sI", b"fmt ", len(fmt)) + fmt
    data = UNKNOWN if frames is None else frames * align
    riff = UNKNOWN if data + len(fmt_chunk) + 12 >= UNKNOWN else data + len(fmt_chunk) + 12
    if riff == UNKNOWN:  # also what is too long to be said
        data = UNKNOWN
    return struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + fmt_chunk + struct.pack("<4sI", b"data", data)


def decode(data: bytes, subtype: str, channels: int) -> NDArray[Any]:
    """Interleaved little-endian bytes to (channels, time), full scale 1.0."""
    if subtype == "PCM_24":
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        x = (padded.view("<i4")[:, 0] >> 8).astype(np.float32) / 2**23
    elif subtype == "PCM_U8":
        x = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    elif subtype == "PCM_16":
        x = np.frombuffer(data, "<i2").astype(np.float32) / 2**15
    elif subtype == "PCM_32":
        x = np.frombuffer(data, "<i4") / 2**31
    else:
        x = np.frombuffer(data, "<f4" if subtype == "FLOAT" else "<f8")
    return np.ascontiguousarray(x.reshape(-1, channels).T)


def encode(x: NDArray[Any], subtype: str) -> bytes:
    """The inverse of `decode`; integers clip at full scale."""
    flat = np.ascontiguousarray(x.T).reshape(-1)
    if subtype in ("FLOAT", "DOUBLE"):
        return flat.astype("<f4" if subtype == "FLOAT" else "<f8").tobytes()
    half = 2 ** (8 * WIDTHS[subtype] - 1)
    steps = np.rint(flat.astype(np.float64) * half).clip(-half, half - 1)
    if subtype == "PCM_U8":
        return (steps + 128).astype(np.uint8).tobytes()
    if subtype == "PCM_24":
        return np.ascontiguousarray(steps.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]).tobytes()
    return steps.astype("<i2" if subtype == "PCM_16" else "<i4").tobytes()


def read_block(file: BinaryIO, n: int) -> bytes:
    """Read ``n`` bytes, fewer only at the end of the stream."""
    parts: list[bytes] = []
    while n > 0 and (part := file.read(n)):
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


def _exactly(file: BinaryIO, n: int) -> bytes:
    data = read_block(file, n)
    if len(data) < n:
        raise InputError("the header is cut off. Get the file again.")
    return data


def _parse_fmt(body: bytes, rf64: bool) -> AudioFormat:
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    extensible = code == 0xFFFE and len(body) >= 26
    if extensible:
        code = struct.unpack_from("<H", body, 24)[0]
    kinds = {(1, 8): "PCM_U8", (1, 16): "PCM_16", (1, 24): "PCM_24", (1, 32): "PCM_32", (3, 32): "FLOAT"}
    subtype = (kinds | {(3, 64): "DOUBLE"}).get((code, bits))
    if subtype is None:
        raise InputError(f"codec {code} with {bits} bits; expected PCM or float. Convert it to PCM first.")
    return AudioFormat(rate, channels, "RF64" if rf64 else "WAVEX" if extensible else "WAV", subtype)
