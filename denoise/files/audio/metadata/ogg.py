"""Comments of Ogg with Vorbis, Opus or FLAC: pages are written anew around a comment packet of another length."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

from denoise.files.audio.metadata.codec import MetadataCodec, ShiftedFile
from denoise.files.audio.metadata.tags import Tags, build_comments, is_picture, parse_comments
from denoise.files.audio.ogg_pages import append_segments, has_positions, paginate, read_pages
from denoise.signals import AudioMetadata

PICTURE = "METADATA_BLOCK_PICTURE"
SIGNATURES = {b"\x01vorbis": b"\x03vorbis", b"OpusHead": b"OpusTags", b"\x7fFLAC": b""}
"""First bytes of the comment packet by those of the first packet."""
HEADER_PACKETS = {b"\x03vorbis": 3, b"OpusTags": 2, b"": 2}
"""Packets of the headers from the comments on, and one that is unfinished, by those bytes."""
FLAC_HEADER_BYTES = 4  # of the block that is the comment packet


class OggMetadata(MetadataCodec):
    """The comments of the first stream; those of later parts of a chained file are dropped."""

    copies_sound = True

    def read(self, source: BinaryIO) -> AudioMetadata:
        """Read the comments of a file."""
        bodies = [body for body in _read_comments(source) if parse_comments(body)]
        metadata = AudioMetadata(bodies[:1])
        if any(set(parse_comments(body)) - set(parse_comments(bodies[0])) for body in bodies[1:]):
            metadata.dropped.append("the comments of later parts")
        if not has_positions(source):
            metadata.channel_mask = 0
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
        pages = read_pages(cast(BinaryIO, coded))
        first = next(pages)
        file.write(first.pack())
        signature = next(s for start, s in SIGNATURES.items() if first.data.startswith(start))
        packets: list[bytearray] = [bytearray()]
        while len(packets) < HEADER_PACKETS[signature]:  # the headers end with a page
            append_segments(packets, next(pages))
        own = bytes(packets[0][len(signature) or FLAC_HEADER_BYTES :])
        vendor_bytes = 4 + int.from_bytes(own[:4], "little")
        source_vendor_bytes = 4 + int.from_bytes(leading[0][:4], "little")
        framing = b"\1" if signature == b"\x03vorbis" else b""
        body = own[:vendor_bytes] + leading[0][source_vendor_bytes:] + framing
        packets[0] = bytearray((signature or bytes(packets[0][:1]) + len(body).to_bytes(3, "big")) + body)
        number = 1
        for page in paginate([bytes(packet) for packet in packets[:-1]], first.serial):
            file.write(page.pack())
            number += 1
        for page in pages:
            page.number = number
            file.write(page.pack())
            number += 1


def _read_comments(source: BinaryIO) -> Iterator[bytes]:
    """Yield the comments of all streams, without signatures."""
    streams: dict[int, list[bytearray]] = {}
    for page in read_pages(source):
        if page.is_first:
            streams[page.serial] = [bytearray()]
        if page.serial not in streams:
            continue
        stream = streams[page.serial]
        append_segments(stream, page)
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
