"""Directories of TIFF files and of EXIF: their fields byte by byte, whatever they mean."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Final, Literal, Union

import numpy as np
from PIL.ExifTags import IFD
from PIL.ExifTags import Base as Tag

from denoise.errors import InputError

BYTE, SHORT, LONG, RATIONAL, UNDEFINED, SLONG, IFD_POINTER, LONG8, SLONG8, IFD8 = 1, 3, 4, 5, 7, 9, 13, 16, 17, 18
TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value, by type."""

RATIONALS = (RATIONAL, 10)  # pairs of numbers of four bytes
SHORT_FORMS = {LONG8: (LONG, "<u8", "<u4"), SLONG8: (SLONG, "<i8", "<i4"), IFD8: (IFD_POINTER, "<u8", "<u4")}
"""Type for files of less than 4 GiB, and the formats of the values, for the types of BigTIFF."""

GROUPS = (IFD.Exif, IFD.GPSInfo, IFD.Interop)
"""Tags that point to a directory which belongs to the one that they are in."""

EXIF_HEADER = b"Exif\0\0"
ByteOrder = Literal["<", ">"]
LITTLE_ENDIAN: Final = "<"
BIG_ENDIAN: Final = ">"
ORDER_NAMES: dict[ByteOrder, bytes] = {LITTLE_ENDIAN: b"II", BIG_ENDIAN: b"MM"}
MAX_BYTES = 2**32 - 1


@dataclass(frozen=True)
class Field:
    """A field of a directory.

    Args:
        type: type of the values, a key of `TYPE_SIZES`.
        data: values, little-endian.
    """

    type: int
    data: bytes

    @classmethod
    def shorts(cls, *values: int) -> Field:
        """Return a field of integers of 16 bits."""
        return cls(SHORT, struct.pack(f"<{len(values)}H", *values))

    @classmethod
    def longs(cls, *values: int) -> Field:
        """Return a field of integers of 32 bits."""
        return cls(LONG, struct.pack(f"<{len(values)}I", *values))

    @property
    def count(self) -> int:
        """Number of values."""
        return len(self.data) // TYPE_SIZES[self.type]

    def integers(self) -> tuple[int, ...]:
        """Return the values of a field of unsigned integers."""
        return tuple(np.frombuffer(self.data, f"<u{TYPE_SIZES[self.type]}").tolist())


Directory = dict[int, Union[Field, "Directory"]]
"""The fields by their tags; groups are directories of their own."""


@dataclass(frozen=True)
class Header:
    """The start of a TIFF file.

    Args:
        order: ``"<"`` or ``">"``, byte order of the file.
        is_big: whether offsets have 64 bits.
        first_offset: position of the first directory.
    """

    order: ByteOrder
    is_big: bool
    first_offset: int


def read_header(file: IO[bytes]) -> Header:
    """Read the header of a TIFF or BigTIFF.

    Args:
        file: the file, seekable.
    """
    file.seek(0)
    head = file.read(16)
    order: ByteOrder = BIG_ENDIAN if head[:2] == ORDER_NAMES[BIG_ENDIAN] else LITTLE_ENDIAN
    is_big = 43 in struct.unpack("<H", head[2:4]) + struct.unpack(">H", head[2:4])
    (offset,) = struct.unpack_from(order + ("Q" if is_big else "I"), head, 8 if is_big else 4)
    return Header(order, is_big, offset)


def read_directory(file: IO[bytes], header: Header, offset: int) -> Directory:
    """Read a directory with its groups.

    Fields that cannot be read are left out with a warning.

    Args:
        file: the file, seekable.
        header: header of the file.
        offset: position of the directory.
    """
    return _read_directory(file, header, offset, {offset})


def _read_directory(file: IO[bytes], header: Header, offset: int, visited_offsets: set[int]) -> Directory:
    end = file.seek(0, io.SEEK_END)
    entry = struct.Struct(header.order + ("HHQ8s" if header.is_big else "HHI4s"))
    count_format, offset_format = (header.order + code for code in ("QQ" if header.is_big else "HI"))
    file.seek(offset)
    count_bytes = file.read(struct.calcsize(count_format))
    if len(count_bytes) < struct.calcsize(count_format):
        warnings.warn("a directory of tags lies behind the end of the file; its tags are left out.", stacklevel=2)
        return {}
    entries = file.read(min(struct.unpack(count_format, count_bytes)[0], 0xFFFF) * entry.size)
    directory: Directory = {}
    for tag, kind, count, inline in entry.iter_unpack(entries[: len(entries) // entry.size * entry.size]):
        size = TYPE_SIZES.get(kind, 0) * count
        position = offset if size <= len(inline) else struct.unpack(offset_format, inline)[0]
        if kind not in TYPE_SIZES or position + size > max(end, offset + size):
            warnings.warn(f"tag {tag} is damaged and is left out.", stacklevel=2)
            continue
        file.seek(position)
        data = inline[:size] if size <= len(inline) else file.read(size)
        field = _shorten(Field(kind, swap_bytes(data, kind) if header.order == BIG_ENDIAN else data))
        if field is None or tag in directory:
            continue
        if tag not in GROUPS:
            directory[tag] = field
        elif field.count == 1 and field.type in (LONG, IFD_POINTER) and field.integers()[0] not in visited_offsets:
            visited_offsets.add(field.integers()[0])
            if group := _read_directory(file, header, field.integers()[0], visited_offsets):
                directory[tag] = group
    return directory


def _shorten(field: Field) -> Field | None:
    """Return a field of 64-bit integers as one of 32 bits; None if a value is too large."""
    if field.type not in SHORT_FORMS:
        return field
    kind, long_format, short_format = SHORT_FORMS[field.type]
    values = np.frombuffer(field.data, long_format)
    short_values = values.astype(short_format)
    return Field(kind, short_values.tobytes()) if (short_values == values).all() else None


def swap_bytes(data: bytes, kind: int) -> bytes:
    """Return the values of a field in the other byte order.

    Args:
        data: the values.
        kind: their type.
    """
    unit = 4 if kind in RATIONALS else TYPE_SIZES[kind]
    return data if unit == 1 else np.frombuffer(data, f"u{unit}").byteswap().tobytes()


class DirectoryWriter:
    """Writes a TIFF file page by page.

    Args:
        file: empty file, seekable.
        order: byte order of the file, ``"<"`` or ``">"``.
    """

    def __init__(self, file: IO[bytes], order: ByteOrder = LITTLE_ENDIAN) -> None:
        self._file, self._order = file, order
        file.write(struct.pack(order + "2sHI", ORDER_NAMES[order], 42, 0))
        self._link = 4  # position of the offset of the next directory

    def write(self, directory: Directory, blocks: Iterable[bytes]) -> None:
        """Append a page.

        Args:
            directory: its fields, without those of the positions and lengths of blocks.
            blocks: encoded strips or tiles.

        Raises:
            InputError: the file would be larger than 4 GiB.
        """
        offsets, lengths = [], []
        for block in blocks:
            offsets.append(self._append(block))
            lengths.append(len(block))
        offset_tag, length_tag = place_tags(directory)
        self.write_directory(directory | {offset_tag: Field.longs(*offsets), length_tag: Field.longs(*lengths)})

    def write_directory(self, directory: Directory) -> None:
        """Append a directory as it is.

        Args:
            directory: its fields.

        Raises:
            InputError: the file would be larger than 4 GiB.
        """
        offset = self._append_directory(directory)
        self._file.seek(self._link)
        self._file.write(struct.pack(self._order + "I", offset))
        self._file.seek(0, io.SEEK_END)
        self._link = offset + 2 + 12 * len(directory)

    def _append_directory(self, directory: Directory) -> int:
        entries = []
        for tag, value in sorted(directory.items()):
            field = Field.longs(self._append_directory(value)) if isinstance(value, dict) else value
            data = swap_bytes(field.data, field.type) if self._order == BIG_ENDIAN else field.data
            if len(data) > 4:
                data = struct.pack(self._order + "I", self._append(data))
            entries.append(struct.pack(self._order + "HHI", tag, field.type, field.count) + data.ljust(4, b"\0"))
        return self._append(struct.pack(self._order + "H", len(entries)) + b"".join(entries) + bytes(4))

    def _append(self, data: bytes) -> int:
        position = self._file.seek(0, io.SEEK_END)
        if position % 2:
            position += self._file.write(b"\0")
        if position + len(data) > MAX_BYTES:
            raise InputError("the file would have more than 4 GiB, the limit of TIFF. Write fewer or smaller pages.")
        self._file.write(data)
        return position


def place_tags(directory: Directory) -> tuple[int, int]:
    """Return the tags of the positions and the lengths of the strips or tiles of a page.

    Args:
        directory: fields of the page.
    """
    if Tag.TileWidth in directory:
        return int(Tag.TileOffsets), int(Tag.TileByteCounts)
    return int(Tag.StripOffsets), int(Tag.StripByteCounts)


def decode_exif(exif: bytes) -> Directory:
    """Return the fields of the first directory of EXIF.

    Args:
        exif: EXIF as other containers hold it, perhaps empty.
    """
    file = io.BytesIO(exif.removeprefix(EXIF_HEADER))
    if len(file.getbuffer()) < 8:
        return {}
    header = read_header(file)
    return read_directory(file, header, header.first_offset)


def encode_exif(directory: Directory) -> bytes:
    """Return EXIF as other containers hold it; the inverse of `decode_exif`.

    Args:
        directory: fields of the first directory.
    """
    file = io.BytesIO()
    DirectoryWriter(file).write_directory(directory)
    return EXIF_HEADER + file.getvalue()
