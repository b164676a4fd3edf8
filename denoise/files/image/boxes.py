"""Boxes of ISO base media files: what the decoders of HEIF and AVIF do not report."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from denoise.errors import InputError

ALPHA = ("urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", "urn:mpeg:hevc:2015:auxid:1")
DEPTH = "urn:mpeg:hevc:2015:auxid:2"
UNSPECIFIED = 2  # code of colours that viewers take for sRGB
IMAGE_ITEMS = (b"av01", b"grid", b"hvc1", b"iden", b"iovl")


@dataclass
class Item:
    """An item of a file: a coded image, a grid of images, or metadata.

    Args:
        kind: type of the item, four letters.
        is_hidden: whether viewers do not show it by itself.
        is_protected: whether its data are encrypted.
        properties: (type, content) of its properties.
        references: (type, identifiers of the items it refers to).
    """

    kind: bytes
    is_hidden: bool
    is_protected: bool
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    references: list[tuple[bytes, tuple[int, ...]]] = field(default_factory=list)

    def property(self, kind: bytes, prefix: bytes = b"") -> bytes | None:
        """Return the content of the first property of a type after a prefix, or None if there is none."""
        matches = (data for name, data in self.properties if name == kind and data.startswith(prefix))
        return next((data[len(prefix) :] for data in matches), None)


@dataclass
class Items:
    """The items of a file.

    Args:
        primary: identifier of the image that viewers show.
        by_id: the items.
        has_sequence: whether the file has a track of images beside the items.
    """

    primary: int
    by_id: dict[int, Item]
    has_sequence: bool

    @property
    def image(self) -> Item:
        """The image that viewers show."""
        return self.by_id[self.primary]

    def coded_property(self, kind: bytes) -> bytes | None:
        """Return a property of the primary image, or of a tile if it is a grid; None if there is none."""
        tiles = [to for name, ids in self.image.references if name == b"dimg" for to in ids[:1]]
        properties = (self.by_id[i].property(kind) for i in (self.primary, *tiles))
        return next((data for data in properties if data is not None), None)

    def auxiliary_kinds(self) -> list[str]:
        """Return names of the images that belong to the primary one, but for its alpha: depth, gain maps, mattes."""
        kinds = {"tone map" for item in self.by_id.values() if item.kind == b"tmap"}
        for item in self.by_id.values():
            name = (item.property(b"auxC") or b"")[4:].split(b"\0")[0].decode("ascii", "replace")
            if name and name not in ALPHA:
                kinds.add("depth" if name == DEPTH else name.split(":")[-1])
        return sorted(kinds)

    def count_images(self) -> int:
        """Return the number of images that viewers may show, the primary one and those beside it."""
        parts = {to for item in self.by_id.values() for name, ids in item.references if name == b"dimg" for to in ids}
        return sum(
            i == self.primary
            or (
                item.kind in IMAGE_ITEMS
                and not item.is_hidden
                and i not in parts
                and not {name for name, _ in item.references} & {b"auxl", b"thmb"}
            )
            for i, item in self.by_id.items()
        )

    def check_readable(self) -> None:
        """Refuse encrypted files.

        Raises:
            InputError: the primary image or a part of it is encrypted.
        """
        parts = [to for name, ids in self.image.references if name == b"dimg" for to in ids]
        if any(self.by_id[i].is_protected for i in (self.primary, *parts) if i in self.by_id):
            raise InputError("is encrypted; an image without protection was expected. Decrypt it first.")


def read_brands(head: bytes) -> set[bytes]:
    """Return the brands that the first bytes of a file name; none if it is no ISO base media file."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[i : i + 4] for i in (8, *range(16, end - 3, 4))}


def colour_info(*codes: int) -> dict[str, tuple[int, ...]]:
    """Return the colour space of a file as a key of `ImageFormat.info`, or nothing where it is the usual one.

    Args:
        codes: colour primaries, transfer characteristics, matrix coefficients and full range, of an nclx property.
    """
    return {} if UNSPECIFIED in codes[:2] or max(codes) > 255 else {"nclx": codes}


def read_items(data: bytes) -> Items | None:
    """Return the items of a file, or None if it has no images but those of a track.

    Args:
        data: the whole file.

    Raises:
        ValueError: the boxes are damaged.
        struct.error: the same.
    """
    top = dict(_read_boxes(memoryview(data)))
    if b"meta" not in top:
        return None
    meta = dict(_read_boxes(top[b"meta"][4:]))
    if b"pitm" not in meta or b"iinf" not in meta:
        return None
    pitm, iinf = meta[b"pitm"], meta[b"iinf"]
    primary = _number(pitm[4:], 4 if pitm[0] else 2)
    by_id = dict(_read_item(infe) for kind, infe in _read_boxes(iinf[8 if iinf[0] else 6 :]) if kind == b"infe")
    if primary not in by_id:
        raise ValueError("the primary image is missing")
    _read_references(meta.get(b"iref", memoryview(b"")), by_id)
    if b"iprp" in meta:
        _read_properties(meta[b"iprp"], by_id)
    return Items(primary, by_id, b"moov" in top)


def _read_boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (type, content) of the boxes in a box."""
    start = 0
    while start + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        head = 8
        if size == 1:
            head, size = 16, _number(data[start + 8 :], 8)
        size = size or len(data) - start
        if size < head:
            raise ValueError(f"a box of {size} bytes")
        yield kind, data[start + head : start + size]
        start += size


def _number(data: memoryview, size: int) -> int:
    """Return the unsigned number in the first bytes."""
    if len(data) < size:
        raise ValueError("a box is cut off")
    return int.from_bytes(data[:size], "big")


def _read_item(infe: memoryview) -> tuple[int, Item]:
    """Return (identifier, item) of an entry of the list of items."""
    size = 4 if infe[0] >= 3 else 2
    item = Item(bytes(infe[6 + size : 10 + size]), bool(infe[3] & 1), _number(infe[4 + size :], 2) > 0)
    return _number(infe[4:], size), item


def _read_references(iref: memoryview, by_id: dict[int, Item]) -> None:
    """Add the references to their items."""
    size = 4 if len(iref) and iref[0] else 2
    for kind, data in _read_boxes(iref[4:]):
        values = [_number(data[:size], size), *(_number(data[i:], size) for i in range(size + 2, len(data), size))]
        if values[0] in by_id:
            by_id[values[0]].references.append((kind, tuple(i for i in values[1:] if i in by_id)))


def _read_properties(iprp: memoryview, by_id: dict[int, Item]) -> None:
    """Add the properties to their items."""
    properties: list[tuple[bytes, bytes]] = []
    for box, content in _read_boxes(iprp):
        if box == b"ipco":
            properties = [(kind, bytes(data)) for kind, data in _read_boxes(content)]
        if box != b"ipma":
            continue
        id_size, index_size = (4 if content[0] else 2), (2 if content[3] & 1 else 1)
        offset = 8
        for _ in range(_number(content[4:], 4)):
            item = by_id.get(_number(content[offset:], id_size))
            count = _number(content[offset + id_size :], 1)
            offset += id_size + 1
            for _ in range(count):
                index = _number(content[offset:], index_size) & (0x7FFF if index_size == 2 else 0x7F)
                offset += index_size
                if item is not None and 0 < index <= len(properties):
                    item.properties.append(properties[index - 1])
