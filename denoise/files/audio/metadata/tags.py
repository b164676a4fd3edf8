"""Text and pictures in the one form that all containers are converted through: that of Vorbis comments and FLAC."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from denoise.files.audio.metadata.chapters import split_comments

CODING_NAMES = frozenset(("ENCODER", "ENCODEROPTIONS", "ENCODER_OPTIONS", "ENCODERSETTINGS"))
"""Names of comments on the coding, which are wrong in another container."""


@dataclass(frozen=True)
class Tags:
    """Text and pictures of a recording.

    Args:
        comments: names, in capitals as in Vorbis comments, and values; a name with several values comes several times.
        pictures: bodies of PICTURE blocks of FLAC.
        id3: the ID3v2 tag that all of them are from, if they are.
        id3_only: names of the frames of ``id3`` that are neither text nor pictures nor chapters.
        length_ms: length of the recording, where the last chapter ends; None if it is not known.
    """

    comments: tuple[tuple[str, str], ...] = ()
    pictures: tuple[bytes, ...] = ()
    id3: bytes = b""
    id3_only: tuple[str, ...] = ()
    length_ms: int | None = None

    def __bool__(self) -> bool:
        return bool(self.comments or self.pictures or self.id3)

    @property
    def names(self) -> list[str]:
        """Names of all that the tags hold, for messages."""
        chapters, comments = split_comments(self.comments)
        names = [*(name for name, _ in comments), *["chapters"] * bool(chapters)]
        return [*dict.fromkeys(names), *["pictures"] * bool(self.pictures), *self.id3_only]

    def by_name(self) -> dict[str, list[str]]:
        """Return the values by name."""
        values: dict[str, list[str]] = {}
        for name, value in self.comments:
            values.setdefault(name, []).append(value)
        return values

    def without_coding(self) -> Tags:
        """Return the tags that do not describe the coding."""
        return replace(self, comments=tuple(pair for pair in self.comments if pair[0] not in CODING_NAMES))

    def merged(self, other: Tags) -> Tags:
        """Return these tags and those of the names and kinds that only another one has.

        Args:
            other: tags from another part of the same file.
        """
        names = {name for name, _ in self.comments}
        if not self:
            return other
        comments = tuple(pair for pair in other.comments if pair[0] not in names)
        pictures = () if self.pictures else other.pictures
        id3 = b"" if comments or pictures else self.id3
        return Tags(self.comments + comments, self.pictures + pictures, id3, self.id3_only + other.id3_only)


def parse_comments(body: bytes) -> list[tuple[str, str]]:
    """Parse Vorbis comments, up to where they are cut off.

    Args:
        body: vendor, and comments, without the signature of a codec.

    Returns:
        Names in capitals and values.
    """
    comments: list[tuple[str, str]] = []
    with suppress(struct.error):
        (vendor_bytes,) = struct.unpack_from("<I", body)
        (n,) = struct.unpack_from("<I", body, 4 + vendor_bytes)
        offset = 8 + vendor_bytes
        for _ in range(n):
            (size,) = struct.unpack_from("<I", body, offset)
            name, _, value = body[offset + 4 : offset + 4 + size].decode(errors="replace").partition("=")
            comments.append((name.upper(), value))
            offset += 4 + size
    return comments


def build_comments(comments: Iterable[tuple[str, str]], vendor: bytes = b"denoise") -> bytes:
    """Return Vorbis comments; the inverse of `parse_comments`.

    Args:
        comments: names and values.
        vendor: name of the encoder.
    """
    lines = [f"{name}={value}".encode() for name, value in comments]
    packed = b"".join(struct.pack("<I", len(line)) + line for line in lines)
    return struct.pack("<I", len(vendor)) + vendor + struct.pack("<I", len(lines)) + packed


def build_picture(data: bytes, mime: str, kind: int, description: str) -> bytes:
    """Return the body of a PICTURE block of FLAC; width, height and depth are left unknown.

    Args:
        data: contents of the image file.
        mime: its media type.
        kind: number of the kind of picture, the same in ID3 and FLAC; 3 is the front cover.
        description: description of the picture.
    """
    strings = b"".join(struct.pack(">I", len(text)) + text for text in (mime.encode(), description.encode()))
    return struct.pack(">I", kind) + strings + struct.pack(">IIIII", 0, 0, 0, 0, len(data)) + data


def parse_picture(body: bytes) -> tuple[bytes, str, int, str]:
    """Return the arguments of `build_picture`.

    Args:
        body: body of a PICTURE block.

    Raises:
        struct.error: the block is cut off.
    """
    kind, mime_bytes = struct.unpack_from(">II", body)
    mime = body[8 : 8 + mime_bytes].decode(errors="replace")
    (text_bytes,) = struct.unpack_from(">I", body, 8 + mime_bytes)
    offset = 12 + mime_bytes + text_bytes
    description = body[12 + mime_bytes : offset].decode(errors="replace")
    (size,) = struct.unpack_from(">I", body, offset + 16)
    return body[offset + 20 : offset + 20 + size], mime, kind, description


def is_picture(body: bytes) -> bool:
    """Return whether a body is a complete PICTURE block.

    Args:
        body: body of the block.
    """
    try:
        return bool(parse_picture(body)[0])
    except struct.error:
        return False
