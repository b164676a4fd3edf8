"""Chunks of WAV, RF64 and BW64, and the channel mask."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from denoise.files.audio.chunks import BIG_ENDIAN, RIFF, Chunk
from denoise.files.audio.metadata.chunks import MAX_BYTES, MAX_SIZE, Chunked, decode_text, read_body
from denoise.files.audio.metadata.codec import MetadataCodec, ShiftedFile
from denoise.files.audio.metadata.id3 import build_id3, lost_frames, parse_id3
from denoise.files.audio.metadata.tags import Tags
from denoise.signals import AudioMetadata

EXTENSIBLE, MASK_OFFSET, GUID_BYTES = 0xFFFE, 20, 16  # of a format chunk
ENDLESS_BYTES = 0x7FFF_0000  # sizes from here on are stated where the length is unknown
INFO_NAMES = {
    "INAM": "TITLE", "IART": "ARTIST", "IPRD": "ALBUM", "ICMT": "COMMENT", "ICOP": "COPYRIGHT", "ICRD": "DATE",
    "IGNR": "GENRE", "ITRK": "TRACKNUMBER", "IMUS": "COMPOSER", "ILNG": "LANGUAGE", "ISFT": "SOFTWARE",
    "IENG": "ENGINEER", "IKEY": "KEYWORDS", "ISBJ": "SUBJECT", "ISRC": "SOURCE", "ITCH": "ENCODEDBY",
}  # fmt: skip


class Riff(Chunked):
    """WAV and RF64."""

    layout = RIFF
    sound = b"data"
    coding = frozenset((b"fmt ", b"fact", b"PEAK", b"ds64", b"JUNK", b"junk", b"PAD ", b"FLLR"))
    overviews = frozenset((b"levl",))

    def shares_blocks(self, other: MetadataCodec | None) -> bool:
        """Return whether blocks of another container are chunks of the same byte order."""
        return isinstance(other, Riff) and other.layout == self.layout

    def declared_sound(self, source: BinaryIO, sound: Chunk) -> Chunk:
        """Return the chunk of the sound with the size in the first chunk of an RF64."""
        source.seek(self.first_chunk)
        ds64 = source.read(24)
        if sound.size != MAX_SIZE or ds64[:4] != b"ds64":
            return sound
        return sound._replace(size=int.from_bytes(ds64[16:24], "little"))

    def header_bytes(self, coded: ShiftedFile) -> int:
        """Return the length of the header, with the sizes of an RF64."""
        coded.seek(self.first_chunk)
        name, size = struct.unpack("<4sI", coded.read(8))
        return self.first_chunk + (8 + size if name == b"ds64" else 0)

    def finish(self, file: BinaryIO, coded: ShiftedFile, leading: Sequence[bytes], metadata: AudioMetadata) -> None:
        """Write the chunks; those of odd length before the sound of an RF64 include their padding.

        libsndfile does not find the sound of an RF64 behind a chunk of odd length.
        """
        coded.seek(0)
        if coded.read(4) == b"RF64":
            sizes = [int.from_bytes(block[4:8], "little") for block in leading]
            leading = [
                block[:4] + struct.pack("<I", size + size % 2) + block[8:]
                for block, size in zip(leading, sizes, strict=True)
            ]
        super().finish(file, coded, leading, metadata)

    def complete_header(self, file: BinaryIO, metadata: AudioMetadata) -> None:
        """State the size of the file and the channel mask in the header."""
        file.seek(0)
        is_rf64 = file.read(4) in (b"RF64", b"BW64")
        size = file.seek(0, os.SEEK_END) - 8
        file.seek(20 if is_rf64 else 4)
        file.write(struct.pack("<Q", size) if is_rf64 else struct.pack(f"{self.byte_order}I", min(size, MAX_SIZE)))
        form = next(chunk for chunk in self.layout.read_chunks(file, self.first_chunk) if chunk.name == b"fmt ")
        if parse_channel_mask(read_body(file, form), self.byte_order) is not None:
            file.seek(form.start + MASK_OFFSET)
            file.write(struct.pack(f"{self.byte_order}I", metadata.channel_mask or 0))

    def read_coding(self, source: BinaryIO, chunk: Chunk, metadata: AudioMetadata) -> None:
        """Take the channel mask of the format."""
        if chunk.name == b"fmt ":
            metadata.channel_mask = parse_channel_mask(read_body(source, chunk), self.byte_order)

    def read_stream_header(self, header: bytes) -> AudioMetadata:
        """Return the metadata of a stream, without the chunks after the sound.

        Args:
            header: the stream up to the first sample.
        """
        metadata = self.read(io.BytesIO(header))
        sizes = [int.from_bytes(field, "little") for field in (header[4:8], header[-4:])]
        is_known = max(sizes) < ENDLESS_BYTES
        if header[12:16] == b"ds64" and sizes == [MAX_SIZE, MAX_SIZE]:
            sizes, is_known = [*struct.unpack_from("<QQ", header, 20)], True
        tail_bytes = sizes[0] + 8 - len(header) - sizes[1]
        if is_known and 8 <= tail_bytes <= MAX_BYTES:
            metadata.pending_bytes = tail_bytes
        return metadata

    def read_stream_tail(self, tail: bytes, metadata: AudioMetadata) -> None:
        """Add the chunks after the sound of a stream.

        Args:
            tail: what comes after the last sample, perhaps with a byte of padding.
            metadata: as from `read_stream_header`.
        """
        metadata.pending_bytes = 0
        self.collect(io.BytesIO(tail), int(tail[:1] == b"\0"), metadata, metadata.trailing)

    def to_tags(self, metadata: AudioMetadata) -> tuple[Tags, list[str]]:
        """Convert the text of LIST-INFO and the frames of ID3; ID3 goes first."""
        tags, info, lost = Tags(), Tags(), [*metadata.dropped]
        for name, body in self.split(metadata):
            if name in (b"id3 ", b"ID3 "):
                tags = tags.merged(parse_id3(body))
            elif name == b"LIST" and body[:4] == b"INFO":
                info = info.merged(Tags(tuple(self._parse_info(body))))
            else:
                lost.append(f"LIST-{body[:4].decode('latin-1')}" if name == b"LIST" else name.decode().strip())
        return tags.merged(info), lost

    def _parse_info(self, body: bytes) -> Iterator[tuple[str, str]]:
        for name, start, size in self.layout.read_chunks(io.BytesIO(body), 4):
            text = decode_text(body[start : start + size])
            name_text = name.decode("latin-1")
            if text:
                yield INFO_NAMES.get(name_text, name_text.strip()), text

    def from_tags(self, tags: Tags) -> tuple[list[bytes], list[str]]:
        """Convert tags to LIST-INFO, as far as it has names for them, and to ID3."""
        values = tags.by_name()
        info = b"".join(
            self.layout.pack(name.encode(), "; ".join(values[tag]).encode() + b"\0")
            for name, tag in INFO_NAMES.items()
            if tag in values
        )
        blocks = [self.layout.pack(b"LIST", b"INFO" + info)] if info else []
        return [*blocks, self.layout.pack(b"id3 ", build_id3(tags))], lost_frames(tags)


class Bw64(Riff):
    """BW64 (ITU-R BS.2088), which libsndfile writes as RF64."""

    def finish(self, file: BinaryIO, coded: ShiftedFile, leading: Sequence[bytes], metadata: AudioMetadata) -> None:
        """Write the signature and the chunks."""
        coded.seek(0)
        coded.write(b"BW64")
        super().finish(file, coded, leading, metadata)


class Rifx(Riff):
    """WAV of big-endian numbers."""

    layout = BIG_ENDIAN


def parse_channel_mask(body: bytes, byte_order: str) -> int | None:
    """Return the channel mask of a format chunk, None if it has none.

    Args:
        body: contents of the chunk.
        byte_order: as in formats for `struct`.
    """
    if len(body) < MASK_OFFSET + 4 + GUID_BYTES:
        return None
    (code,), (mask,) = (struct.unpack_from(byte_order + kind, body, at) for kind, at in (("H", 0), ("I", MASK_OFFSET)))
    return mask if code == EXTENSIBLE else None
