"""Text of APE tags."""

from __future__ import annotations

import struct

from denoise.files.audio.metadata.tags import Tags

HEADER_BYTES = 32
KIND_MASK, TEXT = 6, 0  # bits of the flags of an item
APE_NAMES = {"YEAR": "DATE", "TRACK": "TRACKNUMBER", "DISC": "DISCNUMBER", "ALBUM ARTIST": "ALBUMARTIST"}


def parse_ape(tag: bytes) -> tuple[Tags, bool]:
    """Convert the text of an APE tag.

    Args:
        tag: the whole tag, with its footer and perhaps a header.

    Returns:
        The text, and whether the tag holds nothing else.
    """
    (n,) = struct.unpack_from("<I", tag, len(tag) - HEADER_BYTES + 16)
    offset = HEADER_BYTES if tag.startswith(b"APETAGEX") and len(tag) > HEADER_BYTES else 0
    comments: list[tuple[str, str]] = []
    is_whole = True
    for _ in range(n):
        name_end = tag.find(b"\0", offset + 8)
        if name_end < 0:
            return Tags(tuple(comments)), False
        size, flags = struct.unpack_from("<II", tag, offset)
        name = tag[offset + 8 : name_end].decode("latin-1").upper()
        offset = name_end + 1 + size
        if flags & KIND_MASK == TEXT:
            texts = tag[name_end + 1 : offset].decode(errors="replace").split("\0")
            comments += [(APE_NAMES.get(name, name), text) for text in texts]
        else:
            is_whole = False
    return Tags(tuple(comments)), is_whole
