"""Pages of Ogg.

Reference:
    The Ogg Encapsulation Format Version 0, 2003, RFC 3533.
    Ogg Encapsulation for the Opus Audio Codec, 2016, RFC 7845.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from denoise.files.audio.spliced import file_size

SIGNATURE = b"OggS"
HEADER = "<4sBBQIIIB"
HEADER_BYTES = struct.calcsize(HEADER)
CHECKSUM_OFFSET = 22
CONTINUED, FIRST = 1, 2  # flags
MAX_SEGMENTS = 255
NO_PACKET_ENDS = (1 << 64) - 1
SEARCH_BYTES = 1 << 20
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class Page:
    """A page.

    Args:
        flags: `CONTINUED`, `FIRST`, or both.
        granule: position of the last sample that ends on the page.
        serial: number of its stream.
        number: number of the page in its stream.
        sizes: bytes of its segments, a byte each.
        data: its segments.
        offset: where it starts in its file.
    """

    flags: int
    granule: int
    serial: int
    number: int
    sizes: bytes
    data: bytes
    offset: int = 0

    @property
    def is_first(self) -> bool:
        """Whether a stream starts with the page."""
        return bool(self.flags & FIRST)

    def pack(self) -> bytes:
        """Return the page as bytes with its checksum."""
        fields = (SIGNATURE, 0, self.flags, self.granule, self.serial, self.number, 0, len(self.sizes))
        page = struct.pack(HEADER, *fields) + self.sizes + self.data
        return page[:CHECKSUM_OFFSET] + struct.pack("<I", _checksum(page)) + page[CHECKSUM_OFFSET + 4 :]


def read_pages(source: BinaryIO) -> Iterator[Page]:
    """Yield the pages of a file; other bytes between them are skipped.

    Args:
        source: the file, seekable.
    """
    size, offset = file_size(source), 0
    while offset < size:
        source.seek(offset)
        header = source.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES or not header.startswith(SIGNATURE):
            offset = _find_page(source, offset + 1, size)
            continue
        _, _, flags, granule, serial, number, _, n_segments = struct.unpack(HEADER, header)
        sizes = source.read(n_segments)
        yield Page(flags, granule, serial, number, sizes, source.read(sum(sizes)), offset)
        offset += HEADER_BYTES + len(sizes) + sum(sizes)


def _find_page(source: BinaryIO, offset: int, size: int) -> int:
    """Return the offset of the next page behind other bytes, the size of the file if there is none."""
    while offset < size:
        source.seek(offset)
        block = source.read(SEARCH_BYTES)
        index = block.find(SIGNATURE)
        if index >= 0:
            return offset + index
        offset += max(1, len(block) - len(SIGNATURE) + 1)  # the signature may cross blocks
    return size


def has_positions(source: BinaryIO) -> bool:
    """Return whether the channels of a file are those of loudspeakers: Opus has a mapping for others, too.

    Args:
        source: the file, seekable.
    """
    first = next(read_pages(source), None)
    return first is None or not first.data.startswith(b"OpusHead") or first.data[18:19] in (b"\0", b"\1")


def append_segments(packets: list[bytearray], page: Page) -> None:
    """Append the segments of a page to the packets of its stream; the last one is unfinished.

    Args:
        packets: packets of the stream up to the page.
        page: its next page.
    """
    offset = 0
    for size in page.sizes:
        packets[-1] += page.data[offset : offset + size]
        offset += size
        if size < 255:
            packets.append(bytearray())


def paginate(packets: Sequence[bytes], serial: int) -> Iterator[Page]:
    """Yield pages with header packets, from number 1 on.

    Args:
        packets: the packets.
        serial: number of their stream.
    """
    sizes = b"".join(b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,)) for packet in packets)
    data, offset, flags = b"".join(packets), 0, 0
    for number, start in enumerate(range(0, len(sizes), MAX_SEGMENTS), 1):
        page_sizes = sizes[start : start + MAX_SEGMENTS]
        granule = 0 if min(page_sizes) < 255 else NO_PACKET_ENDS
        yield Page(flags, granule, serial, number, page_sizes, data[offset : offset + sum(page_sizes)])
        offset += sum(page_sizes)
        flags = CONTINUED if page_sizes[-1] == 255 else 0


def _checksum(page: bytes) -> int:
    """CRC-32 without reflection, by zlib's with it: bits are reversed in bytes and in the result."""
    crc = zlib.crc32(page.translate(REVERSED_BITS), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(REVERSED_BITS), "big")
