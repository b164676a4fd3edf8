"""Frames of MPEG audio: where they are, so that the length is counted instead of estimated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from denoise.files.audio.id3_header import ID3_HEADER_BYTES, id3_bytes
from denoise.files.audio.spliced import Section, file_size

MPEG1 = 3  # the value of the version field
SAMPLE_RATES = {MPEG1: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
KBITS_PER_SECOND = {  # by MPEG-1 or not, and layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
CONFIRMING_FRAMES = 3  # after one that does not follow another: four bytes look like a header by chance
MAX_JUNK_BYTES = 1 << 20  # before the first frame, of a file without a signature
TAG_SIGNATURES = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS", b"3DI")
MAX_FRAME_BYTES = 2881
BLOCK_BYTES = 1 << 20
VBRI_OFFSET = 36  # of Fraunhofer's description in its frame


class StreamKind(NamedTuple):
    """What all frames of a stream have in common."""

    version: int
    layer: int
    sample_rate: int
    is_mono: bool


class FrameHeader(NamedTuple):
    """Header of a frame.

    Args:
        kind: of its stream.
        n_bytes: length with the header.
        n_samples: samples of each channel.
        has_crc: whether two bytes of a checksum follow.
    """

    kind: StreamKind
    n_bytes: int
    n_samples: int
    has_crc: bool

    @property
    def side_info_start(self) -> int:
        """Offset in the frame of the side information of layer III."""
        return 6 if self.has_crc else 4

    @property
    def side_info_bytes(self) -> int:
        """Bytes of the side information of layer III."""
        if self.kind.version == MPEG1:
            return 17 if self.kind.is_mono else 32
        return 9 if self.kind.is_mono else 17


@dataclass
class Part:
    """Frames of one stream; a file that was put together of several has several.

    Args:
        header: of the first frame.
        first_frame: bytes of the first frame of sound.
        info_frame: the frame that describes the stream (Xing, Info, VBRI); empty if there is none.
        declared_frames: number of frames that it declares; None if it declares none.
        sections: where the frames of sound are.
        n_frames: number of frames of sound.
    """

    header: FrameHeader
    first_frame: bytes = b""
    info_frame: bytes = b""
    declared_frames: int | None = None
    sections: list[Section] = field(default_factory=list)
    n_frames: int = 0

    @property
    def is_described(self) -> bool:
        """Whether the first frame declares the length: all frames, or more if the file is cut off."""
        return self.declared_frames is not None and self.n_frames <= self.declared_frames

    @property
    def description(self) -> bytes:
        """The first frame with the true number of bytes; of another, libmpg123 prints a warning on the terminal."""
        flags = self.header.side_info_start + self.header.side_info_bytes + 7
        if not self.info_frame[flags] & 2:
            return self.info_frame
        start = flags + (5 if self.info_frame[flags] & 1 else 1)
        n_bytes = len(self.info_frame) + self.n_bytes
        return self.info_frame[:start] + n_bytes.to_bytes(4, "big") + self.info_frame[start + 4 :]

    @property
    def n_samples(self) -> int:
        """Samples of each channel."""
        return self.n_frames * self.header.n_samples

    @property
    def n_bytes(self) -> int:
        """Bytes of the frames of sound."""
        return sum(section.length for section in self.sections)

    def append(self, start: int, length: int) -> None:
        """Add a frame."""
        self.n_frames += 1
        last = self.sections[-1] if self.sections else None
        if last and last.start + last.length == start:
            self.sections[-1] = Section(last.start, last.length + length)
        else:
            self.sections.append(Section(start, length))


@lru_cache(4096)
def parse_header(word: int) -> FrameHeader | None:
    """Parse the four bytes of a header.

    Args:
        word: the bytes as a big-endian integer.

    Returns:
        None for anything else, and for free bit rates, whose frames do not state their length.
    """
    version, layer, bit_rate, rate = word >> 19 & 3, 4 - (word >> 17 & 3), word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return None
    bits_per_second = 1000 * KBITS_PER_SECOND[version == MPEG1, layer][bit_rate - 1]
    sample_rate, padding = SAMPLE_RATES[version][rate], word >> 9 & 1
    n_samples = {1: 384, 2: 1152, 3: 1152 if version == MPEG1 else 576}[layer]
    slot_bytes = 4 if layer == 1 else 1
    n_bytes = (n_samples // 8 // slot_bytes * bits_per_second // sample_rate + padding) * slot_bytes
    kind = StreamKind(version, layer, sample_rate, word >> 6 & 3 == 3)
    return FrameHeader(kind, n_bytes, n_samples, not word >> 16 & 1)


class FrameScanner:
    """Find all frames of a file.

    Args:
        source: seekable file.

    Attributes:
        warnings: what is left out between frames, with its time.
    """

    def __init__(self, source: BinaryIO) -> None:
        self.warnings: list[str] = []
        self._source, self._size = source, file_size(source)
        self._buffer, self._buffer_start = b"", 0

    def scan(self) -> list[Part]:
        """Return the parts of the file in order; none if it has no frames."""
        parts: list[Part] = []
        offset = self._tag_end()
        while (found := self._next_frame(offset, parts[-1] if parts else None)) is not None:
            start, header = found
            self._warn_of_gap(offset, start, parts)
            frame = self._bytes(start, header.n_bytes)
            info = _parse_info(frame, header)
            if not parts or info is not None or header.kind != parts[-1].header.kind or _starts_anew(parts[-1], frame):
                parts.append(Part(header))
            if info is not None:
                parts[-1].info_frame, parts[-1].declared_frames = frame, info.n_frames
            else:
                parts[-1].first_frame = parts[-1].first_frame or frame
                parts[-1].append(start, header.n_bytes)
            offset = start + header.n_bytes
        if self._size - offset > MAX_FRAME_BYTES:  # else a frame that is cut off
            self._warn_of_gap(offset, self._size, parts)
        return [part for part in parts if part.n_frames]

    @property
    def is_tagged(self) -> bool:
        """Whether the file starts with an ID3 tag, of any length."""
        return self._bytes(0, 3) == b"ID3"

    def first_frame(self) -> int:
        """Return the offset of the first frame; the size of the file if it has none."""
        found = self._next_frame(self._tag_end(), None)
        return self._size if found is None else found[0]

    def _tag_end(self) -> int:
        """Return where the ID3 tag ends by its length, if there is a frame; the length may be wrong."""
        end = id3_bytes(self._bytes(0, ID3_HEADER_BYTES))
        header = self._header(end)
        return end if header is not None and self._is_confirmed(end, header) else 0

    def _next_frame(self, offset: int, part: Part | None) -> tuple[int, FrameHeader] | None:
        """Return the next whole frame; one that does not follow another is confirmed by those after it."""
        header = self._header(offset)
        if header is not None and part is not None and header.kind == part.header.kind:
            return offset, header
        limit = self._size if part is not None or self.is_tagged else MAX_JUNK_BYTES
        for start in self._sync_words(offset):
            if start > limit:
                break
            header = self._header(start)
            if header is not None and self._is_confirmed(start, header):
                return start, header
        return None

    def _sync_words(self, offset: int) -> Iterator[int]:
        while offset < self._size:
            block = self._bytes(offset, BLOCK_BYTES)
            index = block.find(b"\xff")
            while index >= 0:
                yield offset + index
                index = block.find(b"\xff", index + 1)
            offset += len(block)

    def _is_confirmed(self, start: int, header: FrameHeader) -> bool:
        offset = start + header.n_bytes
        for _ in range(CONFIRMING_FRAMES):
            following = parse_header(int.from_bytes(self._bytes(offset, 4), "big"))  # perhaps of one that is cut off
            if following is None or following.kind != header.kind:
                return offset >= self._size or self._is_tag(offset)
            offset += following.n_bytes
        return True

    def _is_tag(self, offset: int) -> bool:
        """Whether a tag or padding is there."""
        head = self._bytes(offset, 8)
        return head.startswith(TAG_SIGNATURES) or head == bytes(8)

    def _header(self, offset: int) -> FrameHeader | None:
        """Return the header at an offset, None if there is none or its frame is cut off."""
        header = parse_header(int.from_bytes(self._bytes(offset, 4), "big"))
        return header if header is not None and offset + header.n_bytes <= self._size else None

    def _bytes(self, offset: int, n: int) -> bytes:
        start = offset - self._buffer_start
        if start < 0 or start + n > len(self._buffer):
            self._source.seek(offset)
            self._buffer, self._buffer_start, start = self._source.read(max(n, BLOCK_BYTES)), offset, 0
        return self._buffer[start : start + n]

    def _warn_of_gap(self, start: int, end: int, parts: list[Part]) -> None:
        if end > start and parts and not self._is_tag(start):
            seconds = sum(part.n_samples / part.header.kind.sample_rate for part in parts)
            self.warnings.append(f"{end - start:,} bytes at {seconds:.1f} s are no MP3 and are left out.")


class _Info(NamedTuple):
    n_frames: int | None


def _parse_info(frame: bytes, header: FrameHeader) -> _Info | None:
    """Return what a frame that describes the stream declares, None for a frame of sound."""
    if header.kind.layer == 3 and frame[VBRI_OFFSET:].startswith(b"VBRI"):
        return _Info(None)  # libmpg123 takes it for sound, so its number of frames does not help
    side_info, start = header.side_info_start, header.side_info_start + header.side_info_bytes
    if header.kind.layer != 3 or frame[start : start + 4] not in (b"Xing", b"Info") or any(frame[side_info:start]):
        return None
    has_length = frame[start + 7] & 1
    return _Info(int.from_bytes(frame[start + 8 : start + 12], "big") or None if has_length else None)


def _starts_anew(part: Part, frame: bytes) -> bool:
    """Whether a frame starts another stream of the same kind: all declared frames have been read, and it is complete.

    A frame that takes bits from those before it (``main_data_begin``) continues their stream, whatever was declared.
    """
    if part.declared_frames is None or part.n_frames != part.declared_frames:
        return False
    n_bits = 9 if part.header.kind.version == MPEG1 else 8
    start = part.header.side_info_start
    return int.from_bytes(frame[start : start + 2], "big") >> (16 - n_bits) == 0
