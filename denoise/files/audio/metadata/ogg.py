"""Comments of Ogg with Vorbis, Opus or FLAC: pages are written anew around a comment packet of another length.

Reference:
    The Ogg Encapsulation Format Version 0, 2003, RFC 3533.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from denoise.files.audio.metadata.codec import MetadataCodec, ShiftedFile
from denoise.files.audio.metadata.tags import Tags, build_comments, is_picture, parse_comments
from denoise.signals import AudioMetadata

PICTURE = "METADATA_BLOCK_PICTURE"
SIGNATURES = {b"\x01vorbis": b"\x03vorbis", b"OpusHead": b"OpusTags", b"\x7fFLAC": b""}
"""First bytes of the comment packet by those of the first packet."""
HEADER_PACKETS = {b"\x03vorbis": 3, b"OpusTags": 2}
FLAC_HEADER_BYTES = 4  # of the block that is the comment packet
PAGE_HEADER = "<4sBBQIIIB"
CONTINUED, FIRST = 1, 2  # flags
MAX_SEGMENTS = 255
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
NO_PACKET_ENDS = (1 << 64) - 1


@dataclass
class Page:
    """A page: flags, granule position, serial and sequence number, and its segments."""

    flags: int
    granule: int
    serial: int
    number: int
    sizes: bytes
    data: bytes

    def pack(self) -> bytes:
        """Return the page as bytes with its checksum."""
        fields = struct.pack(
            "<4sBBQIIIB", b"OggS", 0, self.flags, self.granule, self.serial, self.number, 0, len(self.sizes)
        )
        page = fields + self.sizes + self.data
        return page[:22] + struct.pack("<I", _checksum(page)) + page[26:]


class OggMetadata(MetadataCodec):
    """The comments of the first stream; those of later parts of a chained file are dropped."""

    copies_sound = True

    def read(self, source: BinaryIO) -> AudioMetadata:
        """Read the comments of a file."""
        source.seek(0)
        bodies = [body for body in _read_comments(source) if parse_comments(body)]
        metadata = AudioMetadata(bodies[:1])
        if any(set(parse_comments(body)) - set(parse_comments(bodies[0])) for body in bodies[1:]):
            metadata.dropped.append("the comments of later parts")
        return metadata

    def to_tags(self, metadata: AudioMetadata) -> tuple[Tags, list[str]]:
        """Convert comments, among them pictures."""
        pairs = [pair for body in metadata.leading for pair in parse_comments(body)]
        coded_pictures = [_decode_picture(value) for name, value in pairs if name == PICTURE]
        pictures = tuple(body for body in coded_pictures if is_picture(body))
        lost = ["a damaged picture"] if len(pictures) < len(coded_pictures) else []
        return Tags(tuple(pair for pair in pairs if pair[0] != PICTURE), pictures), [*metadata.dropped, *lost]

    def from_tags(self, tags: Tags) -> tuple[list[bytes], list[str]]:
        """Convert tags to comments."""
        pictures = [(PICTURE, base64.b64encode(body).decode()) for body in tags.pictures]
        return [build_comments([*tags.comments, *pictures])], [*tags.id3_only]

    def finish(self, file: BinaryIO, coded: ShiftedFile, leading: Sequence[bytes], metadata: AudioMetadata) -> None:
        """Copy the pages with the comments of the source and the vendor of the encoder."""
        coded.seek(0)
        pages = read_pages(coded)
        first = next(pages)
        file.write(first.pack())
        signature = next(s for start, s in SIGNATURES.items() if first.data.startswith(start))
        packets: list[bytearray] = [bytearray()]
        while len(packets) < HEADER_PACKETS[signature]:  # the headers end with a page
            _append(packets, next(pages))
        own = bytes(packets[0][len(signature) :])
        vendor_bytes = 4 + int.from_bytes(own[:4], "little")
        source_vendor_bytes = 4 + int.from_bytes(leading[0][:4], "little")
        framing = b"\1" if signature == b"\x03vorbis" else b""
        comments = leading[0][source_vendor_bytes:]
        packets[0] = bytearray(signature + own[:vendor_bytes] + comments + framing)
        number = 1
        for page in _paginate([bytes(packet) for packet in packets[:-1]], first.serial):
            file.write(page.pack())
            number += 1
        for page in pages:
            page.number = number
            file.write(page.pack())
            number += 1


def read_pages(source: BinaryIO | ShiftedFile) -> Iterator[Page]:
    """Yield the pages from the position of a file on, up to the first bytes that are no page.

    Args:
        source: the file.
    """
    while len(header := source.read(27)) == 27 and header[:4] == b"OggS":
        _, _, flags, granule, serial, number, _, n = struct.unpack(PAGE_HEADER, header)
        sizes = source.read(n)
        yield Page(flags, granule, serial, number, sizes, source.read(sum(sizes)))


def _read_comments(source: BinaryIO) -> Iterator[bytes]:
    """Yield the comments of all streams, without signatures."""
    streams: dict[int, list[bytearray]] = {}
    for page in read_pages(source):
        if page.flags & FIRST:
            streams[page.serial] = [bytearray()]
        if page.serial not in streams:
            continue
        stream = streams[page.serial]
        _append(stream, page)
        signature = next((s for start, s in SIGNATURES.items() if stream[0].startswith(start)), None)
        if signature is not None and len(stream) > 2:
            framing_bytes = int(signature == b"\x03vorbis")
            yield bytes(stream[1][len(signature) or FLAC_HEADER_BYTES : len(stream[1]) - framing_bytes])
        if signature is None or len(stream) > 2:
            del streams[page.serial]


def _decode_picture(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except binascii.Error:
        return b""


def _append(packets: list[bytearray], page: Page) -> None:
    """Append the segments of a page to the packets of its stream; the last one is unfinished."""
    offset = 0
    for size in page.sizes:
        packets[-1] += page.data[offset : offset + size]
        offset += size
        if size < 255:
            packets.append(bytearray())


def _paginate(packets: Sequence[bytes], serial: int) -> Iterator[Page]:
    """Yield pages with header packets, from number 1 on."""
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
