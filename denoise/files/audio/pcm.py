"""PCM and float samples as bytes, for pipes and headerless files."""

from __future__ import annotations

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
"""Subtypes by the names of headerless encodings."""

SAMPLE_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
"""Bytes per sample by subtype."""

INTEGER_BITS = {
    **{"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32},
    **{"ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24, "ALAC_32": 32},
}
"""Bits per sample of integers by subtype."""

FLOATS = ("FLOAT", "DOUBLE")
"""Subtypes that hold more than full scale."""


@dataclass(frozen=True)
class RawFormat:
    """Format of headerless PCM.

    Args:
        sample_rate: sample rate in Hz.
        channels: number of interleaved channels.
        encoding: one of `ENCODINGS`.

    Raises:
        InputError: the encoding is unknown, or rate or channels are outside the limits of `AudioFormat`.
    """

    sample_rate: int
    channels: int
    encoding: str = "s16le"

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise InputError(f"raw format is {self.encoding!r}; expected one of {', '.join(ENCODINGS)}.")
        self.as_format()

    def as_format(self) -> AudioFormat:
        """Return the same format as an `AudioFormat`."""
        return AudioFormat(self.sample_rate, self.channels, "RAW", ENCODINGS[self.encoding])


class PcmDecoder:
    """Samples of a stream without seeking; an `AudioDecoder`.

    Args:
        source: the stream, at its first sample.
        format: format of the samples; its subtype is one of `SAMPLE_BYTES`.
        n_bytes: bytes of data that the header declares; None if it states no length.
        frames: number of samples of each channel, if known.
    """

    def __init__(
        self, source: BinaryIO, format: AudioFormat, n_bytes: int | None = None, frames: int | None = None
    ) -> None:
        self.format, self.frames = format, frames
        self.warnings: list[str] = []
        self.is_live = not source.seekable()
        self._source, self._n_bytes, self._remaining_bytes = source, n_bytes, n_bytes
        self._start = 0 if self.is_live else source.tell()

    def read(self, n: int) -> NDArray[Any]:
        """Return the next samples.

        Args:
            n: number of samples of each channel.

        Returns:
            (channels, up to n), full scale 1.0.
        """
        frame_bytes = self._sample_bytes * self.format.channels
        n_bytes = n * frame_bytes if self._remaining_bytes is None else min(n * frame_bytes, self._remaining_bytes)
        data = read_bytes(self._source, n_bytes)
        if self._remaining_bytes is not None:
            self._remaining_bytes -= len(data)
            if len(data) < n_bytes:
                self.warnings.append(f"the data end {self._remaining_bytes:,} bytes before the declared length.")
                self._remaining_bytes = 0
        return self._decode(data[: len(data) // frame_bytes * frame_bytes])

    def seek(self, position: int) -> None:
        """Continue at a sample of a stream that is not live.

        Args:
            position: index of the sample.
        """
        offset = position * self._sample_bytes * self.format.channels
        self._source.seek(self._start + offset)
        if self._n_bytes is not None:
            self._remaining_bytes = max(0, self._n_bytes - offset)

    @property
    def _sample_bytes(self) -> int:
        return SAMPLE_BYTES[self.format.subtype]

    def _decode(self, data: bytes) -> NDArray[Any]:
        return decode_pcm(data, self.format.subtype, self.format.channels)

    def close(self) -> None:
        """Do nothing: the source belongs to the caller."""


class PaddedPcmDecoder(PcmDecoder):
    """Samples of at most 24 bits in four bytes each; an `AudioDecoder`.

    The specification wants them in the upper bytes; ALSA's recorders write ``S24_LE``, in the lower ones. The first
    samples that are not 0 show which: the lowest bits are in use only in the second case.

    Args:
        source: the stream, at its first sample.
        format: format of the samples.
        bits: bits of each sample that are in use.
        n_bytes: as of `PcmDecoder`.
        frames: as of `PcmDecoder`.
    """

    def __init__(
        self, source: BinaryIO, format: AudioFormat, bits: int, n_bytes: int | None = None, frames: int | None = None
    ) -> None:
        super().__init__(source, format, n_bytes, frames)
        self._bits = bits
        self._is_low: bool | None = None

    @property
    def _sample_bytes(self) -> int:
        return 4

    def _decode(self, data: bytes) -> NDArray[Any]:
        x = np.frombuffer(data, "<u4")
        if self._is_low is None and x.any():
            self._is_low = bool((x & ((1 << 32 - self._bits) - 1)).any())
        if self._is_low:
            x = x << np.uint32(32 - self._bits)
        signed = x.view("<i4") >> (32 - self._bits)
        samples = signed.astype(np.float32) / np.float32(1 << self._bits - 1)
        return np.ascontiguousarray(samples.reshape(-1, self.format.channels).T)


class PcmEncoder:
    """Samples into a stream as they come; an `AudioEncoder`.

    Args:
        target: the stream.
        subtype: one of `SAMPLE_BYTES`.
    """

    def __init__(self, target: BinaryIO, subtype: str) -> None:
        self._target, self._subtype = target, subtype
        self.clips_as = "" if subtype in FLOATS else subtype

    def write(self, x: NDArray[Any]) -> None:
        """Append samples and flush.

        Args:
            x: (channels, time), full scale 1.0.
        """
        self._target.write(encode_pcm(x, self._subtype))
        self._target.flush()

    def close(self) -> None:
        """Do nothing: the stream belongs to the caller."""


def decode_pcm(data: bytes, subtype: str, channels: int) -> NDArray[Any]:
    """Decode interleaved little-endian samples.

    Args:
        data: bytes of whole frames.
        subtype: one of `SAMPLE_BYTES`.
        channels: number of channels.

    Returns:
        (channels, time), full scale 1.0; float64 for ``"PCM_32"`` and ``"DOUBLE"``, float32 otherwise.
    """
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


def encode_pcm(x: NDArray[Any], subtype: str) -> bytes:
    """Encode samples; the inverse of `decode_pcm`.

    Args:
        x: (channels, time), full scale 1.0; integers clip there.
        subtype: one of `SAMPLE_BYTES`.
    """
    interleaved = np.ascontiguousarray(x.T).reshape(-1)
    if subtype in FLOATS:
        return interleaved.astype("<f4" if subtype == "FLOAT" else "<f8").tobytes()
    integers = quantize(interleaved, INTEGER_BITS[subtype])
    if subtype == "PCM_U8":
        return (integers + 128).astype(np.uint8).tobytes()
    if subtype == "PCM_24":
        return np.ascontiguousarray(integers.astype("<i4", copy=False).view(np.uint8).reshape(-1, 4)[:, :3]).tobytes()
    return integers.astype("<i2" if subtype == "PCM_16" else "<i4").tobytes()


def quantize(x: NDArray[Any], bits: int, dither: np.random.Generator | None = None) -> NDArray[np.int32]:
    """Round samples to integers, which clip at full scale.

    Args:
        x: any shape, full scale 1.0.
        bits: bits of an integer.
        dither: generator of triangular noise (TPDF) of two steps, which makes the error independent of the signal;
            samples that the integers hold exactly get none.

    Returns:
        The same shape.
    """
    scaled = x.astype(np.float64) * 2 ** (bits - 1)
    if dither is not None:
        noise = dither.random(scaled.shape) - dither.random(scaled.shape)
        scaled = np.where(scaled == np.rint(scaled), scaled, scaled + noise)
    return np.rint(scaled).clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.int32)


def read_bytes(source: BinaryIO, n: int) -> bytes:
    """Return the next ``n`` bytes of a stream, fewer only at its end."""
    blocks: list[bytes] = []
    while n > 0 and (block := source.read(n)):
        blocks.append(block)
        n -= len(block)
    return b"".join(blocks)
