"""The header of an ID3v2 tag, which may stand before any stream."""

from __future__ import annotations

ID3_HEADER_BYTES = 10


def id3_bytes(head: bytes) -> int:
    """Return the length of an ID3v2 tag with its header and footer by its header, 0 if there is none.

    Args:
        head: the first `ID3_HEADER_BYTES` of a file, or more; fewer if it is shorter.
    """
    if head[:3] != b"ID3" or len(head) < ID3_HEADER_BYTES or max(head[6:10]) > 127:
        return 0
    return ID3_HEADER_BYTES + syncsafe(head[6:10]) + (ID3_HEADER_BYTES if has_footer(head) else 0)


def has_footer(head: bytes) -> bool:
    """Return whether a second header ends an ID3v2 tag, which libsndfile takes for sound.

    Args:
        head: the first `ID3_HEADER_BYTES` of the tag, or more.
    """
    return head[3] == 4 and bool(head[5] & 0x10)


def syncsafe(data: bytes) -> int:
    """Return a number of seven bits per byte.

    Args:
        data: its bytes, the highest first.
    """
    return sum((byte & 127) << 7 * i for i, byte in enumerate(reversed(data)))
