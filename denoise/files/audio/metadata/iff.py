"""Chunks of AIFF and CAF."""

from __future__ import annotations

import struct
from typing import BinaryIO, ClassVar

from denoise.files.audio.chunks import BIG_ENDIAN, CAF
from denoise.files.audio.metadata.chunks import Chunked, decode_text
from denoise.files.audio.metadata.codec import ShiftedFile
from denoise.files.audio.metadata.id3 import build_id3, lost_frames, parse_id3
from denoise.files.audio.metadata.tags import Tags
from denoise.signals import AudioMetadata

IFF_NAMES = {b"NAME": "TITLE", b"AUTH": "ARTIST", b"(c) ": "COPYRIGHT", b"ANNO": "COMMENT"}
CAF_NAMES = {"COMMENTS": "COMMENT", "YEAR": "DATE", "TRACK NUMBER": "TRACKNUMBER"}
USE_BITMAP = 1 << 16  # a channel layout that is the mask of a WAV; of others only the players know the tables


class Iff(Chunked):
    """Chunks with the channel layout of Core Audio.

    Attributes:
        positions: name of the chunk of the layout.
    """

    positions: ClassVar[bytes]

    def read(self, source: BinaryIO) -> AudioMetadata:
        """Read the chunks of a file, among them a layout that is a channel mask."""
        metadata = super().read(source)
        for name, body in self.split(metadata):
            if name == self.positions and len(body) >= 8 and int.from_bytes(body[:4], "big") == USE_BITMAP:
                metadata.channel_mask = int.from_bytes(body[4:8], "big")
        return metadata

    def from_mask(self, mask: int) -> bytes:
        """Return the chunk of a channel layout.

        Args:
            mask: mask of a WAV.
        """
        return self.layout.pack(self.positions, struct.pack(">III", USE_BITMAP, mask, 0))


class Aiff(Iff):
    """AIFF and AIFF-C."""

    positions = b"CHAN"
    layout = BIG_ENDIAN
    sound = b"SSND"
    coding = frozenset((b"COMM", b"FVER", b"PEAK", b"FLLR", b"JUNK"))

    def to_tags(self, metadata: AudioMetadata) -> tuple[Tags, list[str]]:
        """Convert the text chunks and the frames of ID3; ID3 goes first."""
        tags, text, lost = Tags(), Tags(), [*metadata.dropped]
        for name, body in self.split(metadata):
            if name == b"ID3 ":
                tags = tags.merged(parse_id3(body))
            elif name in IFF_NAMES:
                text = Tags((*text.comments, (IFF_NAMES[name], decode_text(body))))
            elif name != self.positions or metadata.channel_mask is None:
                lost.append(name.decode().strip())
        return tags.merged(text), lost

    def from_tags(self, tags: Tags) -> tuple[list[bytes], list[str]]:
        """Convert tags to text chunks and ID3."""
        values = tags.by_name()
        text = {name: "; ".join(values[tag]) for name, tag in IFF_NAMES.items() if tag in values}
        blocks = [self.layout.pack(name, value.encode()) for name, value in text.items()]
        return [*blocks, self.layout.pack(b"ID3 ", build_id3(tags))], lost_frames(tags)


class Caf(Iff):
    """Core Audio Format."""

    positions = b"chan"
    layout = CAF
    sound = b"data"
    coding = frozenset((b"desc", b"pakt", b"kuki", b"free", b"peak", b"edct"))
    overviews = frozenset((b"ovvw",))
    first_chunk = 8

    def header_bytes(self, coded: ShiftedFile) -> int:
        """Return the length of the header with the description, which must come first."""
        return self.first_chunk + 12 + 32

    def complete_header(self, file: BinaryIO, metadata: AudioMetadata) -> None:
        """Do nothing: the header states no size."""

    def to_tags(self, metadata: AudioMetadata) -> tuple[Tags, list[str]]:
        """Convert the strings of the information chunk."""
        tags, lost = Tags(), [*metadata.dropped]
        for name, body in self.split(metadata):
            if name == b"info":
                words = [decode_text(word) for word in body[4:].split(b"\0")]
                pairs = zip(map(str.upper, words[::2]), words[1::2], strict=False)
                tags = Tags((*tags.comments, *((CAF_NAMES.get(key, key), value) for key, value in pairs)))
            elif name != self.positions or metadata.channel_mask is None:
                lost.append(name.decode().strip())
        return tags, lost

    def from_tags(self, tags: Tags) -> tuple[list[bytes], list[str]]:
        """Convert the text to an information chunk."""
        keys = {name: key.lower() for key, name in CAF_NAMES.items()}
        strings = [(keys.get(name, name.lower()), "; ".join(values)) for name, values in tags.by_name().items()]
        body = struct.pack(">I", len(strings)) + "".join(f"{key}\0{value}\0" for key, value in strings).encode()
        lost = [*tags.id3_only, *["pictures"] * bool(tags.pictures)]
        return ([self.layout.pack(b"info", body)] if strings else []), lost
