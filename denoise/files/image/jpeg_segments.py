"""Segments of JPEG files, and what follows their image: gain maps, videos, depth maps."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

SOI, EOI, SOS, COM = 0xD8, 0xD9, 0xDA, 0xFE
APP0, APP1, APP2, APP13, APP15 = 0xE0, 0xE1, 0xE2, 0xED, 0xEF
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED_XMP_HEADER = b"http://ns.adobe.com/xmp/extension/\0"
MPF_HEADER = b"MPF\0"
GAIN_MAP_HEADER = b"urn:iso:std:iso:ts:21496:-1\0"  # ISO 21496-1
GAIN_MAP_SIGNS = (b"http://ns.adobe.com/hdr-gain-map/", GAIN_MAP_HEADER, b"photo:2020:aux:hdrgainmap")
MP_ENTRIES, MP_ENTRY_BYTES = 0xB002, 16

# Properties of XMP that announce what follows the image, by their namespace.
APPENDED_PROPERTIES = {
    b"http://ns.adobe.com/hdr-gain-map/1.0/": rb"[\w.-]+",
    b"http://ns.google.com/photos/1.0/container/": rb"Directory",
    b"http://ns.google.com/photos/1.0/camera/": rb"(?:MotionPhoto|MicroVideo)\w*",
}
EXTENDED_XMP_PROPERTIES = {b"http://ns.adobe.com/xmp/note/": rb"HasExtendedXMP"}
GAIN_MAP_NAMESPACE = b"http://ns.adobe.com/hdr-gain-map/1.0/"
ITEM_NAMESPACE = b"http://ns.google.com/photos/1.0/container/item/"
CAMERA_NAMESPACE = b"http://ns.google.com/photos/1.0/camera/"

_NEXT_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # in entropy-coded data: neither stuffing nor a restart


@dataclass(frozen=True)
class Segment:
    """A marker with its data.

    Args:
        marker: second byte of the marker.
        data: what follows the length.
        offset: position of the data in the file.
    """

    marker: int
    data: bytes
    offset: int

    def encode(self) -> bytes:
        """Return the bytes of the segment."""
        return encode_segment(self.marker, self.data)


def encode_segment(marker: int, data: bytes) -> bytes:
    """Return a segment with its marker and length."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def iterate_segments(file: bytes) -> Iterator[Segment]:
    """Iterate over the segments of the first image of a file, to its end.

    Args:
        file: bytes of a file that begins with a JPEG image.

    Yields:
        Each segment with data; of scans, the header; last the end of the image, without data. A cut-off or damaged
        image has no end.
    """
    position = 2
    while match := _NEXT_MARKER.match(file, position):
        marker, position = file[match.end() - 1], match.end()
        if marker == EOI:
            yield Segment(EOI, b"", position)
            return
        if marker == SOI or position + 2 > len(file):
            return
        end = position + struct.unpack_from(">H", file, position)[0]
        if end > len(file):
            return
        yield Segment(marker, file[position + 2 : end], position + 2)
        position = end
        if marker == SOS:
            next_marker = _NEXT_MARKER.search(file, position)
            position = next_marker.start() if next_marker else len(file)


def complete_extended_xmp(xmp: bytes, segments: list[Segment]) -> list[Segment] | None:
    """Return the segments of the extended XMP that the main packet refers to.

    Reference:
        XMP Specification Part 3, Storage in Files, 2020, section 1.1.3.1.

    Args:
        xmp: the main packet.
        segments: of the file, in any order.

    Returns:
        The segments in the order of their offsets, or None if some are missing.
    """
    parts = []
    for segment in segments:
        guid, fields = _split_extended_xmp(segment)
        if guid and guid in xmp and len(fields) >= 8:
            length, start = struct.unpack_from(">II", fields)
            parts.append((start, len(fields) - 8, length, segment))
    parts.sort(key=lambda part: part[0])
    end = 0
    for start, size, _, _ in parts:
        if start != end:
            return None
        end += size
    return [part[3] for part in parts] if parts and all(part[2] == end for part in parts) else None


def _split_extended_xmp(segment: Segment) -> tuple[bytes, bytes]:
    """Return the digest and the rest of a segment of extended XMP, both empty for other segments."""
    if segment.marker != APP1 or not segment.data.startswith(EXTENDED_XMP_HEADER):
        return b"", b""
    data = segment.data[len(EXTENDED_XMP_HEADER) :]
    return data[:32], data[32:]


def remove_properties(xmp: bytes, properties: dict[bytes, bytes]) -> bytes:
    """Remove properties from an XMP packet; all other bytes stay as they are.

    Args:
        xmp: the packet.
        properties: for each namespace a pattern of names.
    """
    for namespace, names in properties.items():
        for prefix in _prefixes(xmp, namespace):
            name = re.escape(prefix) + b":" + names
            xmp = re.sub(rb"<(" + name + rb")(?=[\s/>])(?:[^>]*/>|[^>]*>.*?</\1\s*>)", b"", xmp, flags=re.DOTALL)
            xmp = re.sub(rb"\s+" + name + rb"""\s*=\s*(?:"[^"]*"|'[^']*')""", b"", xmp)
    return xmp


def has_properties(xmp: bytes, properties: dict[bytes, bytes]) -> bool:
    """Return whether an XMP packet holds any of some properties, see `remove_properties`."""
    return remove_properties(xmp, properties) != xmp


def _prefixes(xmp: bytes, namespace: bytes) -> set[bytes]:
    return set(re.findall(rb"xmlns:([\w.-]+)\s*=\s*[\"']" + re.escape(namespace) + rb"[\"']", xmp))


def announced_bytes(xmp: bytes) -> int:
    """Return how many bytes an XMP packet announces behind the image, 0 if it does not say."""
    item_bytes = 0
    for prefix in _prefixes(xmp, ITEM_NAMESPACE) or {b"Item"}:
        value = rb"""(?:\s*=\s*["']?|>\s*)(\d{1,18})"""
        pattern = re.escape(prefix) + rb":(?:Length|Padding)" + value
        primary = re.escape(prefix) + rb""":Semantic\s*=\s*["']?Primary"""
        for tag in re.split(rb"(?=<)", xmp):
            is_primary = re.search(primary, tag) is not None
            for match in re.finditer(pattern, tag):
                item_bytes += 0 if is_primary and b":Length" in match.group() else int(match.group(1))
    offsets = [0]
    for prefix in _prefixes(xmp, CAMERA_NAMESPACE):
        value = rb"""(?:\s*=\s*["']|>\s*)(\d{1,18})"""
        offsets += [int(n) for n in re.findall(re.escape(prefix) + rb":MicroVideoOffset" + value, xmp)]
    return max(item_bytes, *offsets)


def announces_data(xmp: bytes) -> bool:
    """Return whether an XMP packet says that a gain map or a video follows the image."""
    for prefix in _prefixes(xmp, GAIN_MAP_NAMESPACE):
        name = re.escape(prefix)
        if re.search(name + rb":Version\b", xmp) and not re.search(name + rb":GainMapMax\b", xmp):
            return True  # with its maximum, it would be the gain map itself
    value = rb""":(?:MotionPhoto|MicroVideo)(?:\s*=\s*["']|>\s*)1"""
    return any(re.search(re.escape(prefix) + value, xmp) for prefix in _prefixes(xmp, CAMERA_NAMESPACE))


class MultiPictureIndex:
    """Positions of the images of a file, in its MPF segment.

    Reference:
        Multi-Picture Format, CIPA DC-007, 2009, section 5.

    Args:
        data: data of the segment.

    Attributes:
        entries: (size, offset) of each image in bytes; offsets are relative to the TIFF header in the segment, and 0
            for the first image.

    Raises:
        ValueError: the segment is damaged.
    """

    def __init__(self, data: bytes) -> None:
        self._data = bytearray(data)
        tiff, base = data[len(MPF_HEADER) :], len(MPF_HEADER)
        self._order = "<" if tiff[:2] == b"II" else ">"
        try:
            directory = struct.unpack_from(self._order + "I", tiff, 4)[0]
            count = struct.unpack_from(self._order + "H", tiff, directory)[0]
            tags = [struct.unpack_from(self._order + "HHII", tiff, directory + 2 + 12 * i) for i in range(count)]
            size, start = next((tag[2], tag[3]) for tag in tags if tag[0] == MP_ENTRIES)
            self._positions = [base + start + i for i in range(0, size - MP_ENTRY_BYTES + 1, MP_ENTRY_BYTES)]
            self.entries = [struct.unpack_from(self._order + "II", data, position + 4) for position in self._positions]
        except (struct.error, StopIteration):
            raise ValueError("the MPF segment is damaged") from None

    def moved(self, size: int, shift: int) -> bytes:
        """Return the data of the segment for another first image.

        Args:
            size: size of the first image in bytes.
            shift: what is added to the offsets of the other images.
        """
        data = self._data.copy()
        for position, (old_size, offset) in zip(self._positions, self.entries, strict=True):
            is_first = offset == 0
            struct.pack_into(
                self._order + "II",
                data,
                position + 4,
                size if is_first else old_size,
                0 if is_first else offset + shift,
            )
        return bytes(data)
