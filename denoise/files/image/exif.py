"""The size of an image in its EXIF, of a result of another size."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace
from typing import Any

from PIL.ExifTags import IFD
from PIL.ExifTags import Base as Tag

from denoise.files.image.tiff_directory import EXIF_HEADER, LONG, Field
from denoise.signals import ImageFormat

ENTRY = 12  # bytes of a field of a directory: tag, type, number of values, and the value or its position


def with_size(source: ImageFormat, width: int, height: int) -> ImageFormat:
    """Return a format whose EXIF states another size of the image, where it states any.

    Everything else stays where it is, byte by byte: maker notes hold positions.

    Args:
        source: format of a file.
        width: pixels of a row.
        height: number of rows.
    """
    sizes = {int(Tag.ExifImageWidth): width, int(Tag.ExifImageHeight): height}
    info = _resize(source.info, sizes)
    if "frames" in info:
        info["frames"] = [_resize(frame, sizes) for frame in info["frames"]]
    return replace(source, info=info)


def _resize(info: dict[str, Any], sizes: dict[int, int]) -> dict[str, Any]:
    """Return the contents of a file, or of a page of a TIFF, which holds fields."""
    info = dict(info)
    if "exif" in info:
        header = EXIF_HEADER if info["exif"].startswith(EXIF_HEADER) else b""
        info["exif"] = header + _set_sizes(info["exif"].removeprefix(header), sizes)
    group = info.get("fields", {}).get(IFD.Exif)
    if isinstance(group, dict):
        new = {tag: Field.longs(size) for tag, size in sizes.items() if tag in group}
        info["fields"] = {**info["fields"], int(IFD.Exif): group | new}
    return info


def _set_sizes(exif: bytes, sizes: dict[int, int]) -> bytes:
    data, order = bytearray(exif), ">" if exif.startswith(b"MM") else "<"

    def entries(directory: int) -> dict[int, int]:
        """Positions of the fields of a directory by their tags."""
        (count,) = struct.unpack_from(order + "H", data, directory)
        positions = range(directory + 2, directory + 2 + ENTRY * count, ENTRY)
        return {struct.unpack_from(order + "H", data, position)[0]: position for position in positions}

    with suppress(struct.error):  # damaged: as it was
        (first,) = struct.unpack_from(order + "I", data, 4)
        pointer = entries(first).get(IFD.Exif)
        if pointer is not None:
            fields = entries(*struct.unpack_from(order + "I", data, pointer + 8))
            for tag, size in sizes.items():
                if tag in fields:
                    struct.pack_into(order + "HII", data, fields[tag] + 2, LONG, 1, size)
    return bytes(data)
