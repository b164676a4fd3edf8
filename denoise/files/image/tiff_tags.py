"""Pages of TIFF and BigTIFF files: their tags, and the metadata in them."""

from __future__ import annotations

import io
from typing import IO, Any

from PIL import Image as Pillow
from PIL import TiffImagePlugin
from PIL.ExifTags import IFD
from PIL.ExifTags import Base as Tag

from denoise.errors import InputError

Page = TiffImagePlugin.ImageFileDirectory_v2
"""The tags of a page."""

Y_POSITION, X_POSITION = 286, 287
METADATA_TAGS = frozenset(
    (
        Tag.DocumentName, Tag.ImageDescription, Tag.Make, Tag.Model, Tag.Orientation, Tag.XResolution, Tag.YResolution,
        Tag.PageName, X_POSITION, Y_POSITION, Tag.ResolutionUnit, Tag.PageNumber, Tag.Software, Tag.DateTime,
        Tag.Artist, Tag.HostComputer, Tag.Copyright, Tag.IPTCNAA, Tag.ImageResources,
    )
)  # fmt: skip
"""Tags about the image, rather than about how it is stored."""

EXIF_GROUPS = (IFD.Exif, IFD.GPSInfo)
INCHES_PER_UNIT = {2: 1.0, 3: 2.54}  # by ResolutionUnit: per inch, per centimetre
INCH = 2
BIG_TIFF = 43  # version in the header


def read_pages(file: IO[bytes]) -> list[Page]:
    """Read the tags of every page without decoding any.

    Args:
        file: the open TIFF or BigTIFF, seekable.

    Returns:
        At least one page.

    Raises:
        InputError: there is no page, or the list of pages is damaged.
    """
    file.seek(0)
    header = _read_header(file)
    pages: list[Page] = []
    visited_offsets: set[int] = set()
    end, offset = file.seek(0, io.SEEK_END), Page(header).next
    while offset and offset not in visited_offsets:
        if offset >= end:
            raise InputError("the list of pages points behind the end of the file; it is cut off. Get a whole copy.")
        visited_offsets.add(offset)
        page = Page(header)
        file.seek(offset)
        page.load(file)
        if Tag.ImageWidth not in page or Tag.ImageLength not in page:
            raise InputError(f"page {len(pages) + 1} states no size; its header is damaged. Re-export the file.")
        pages.append(page)
        offset = page.next
    if not pages:
        raise InputError("holds 0 pages; expected at least one. Re-export the file.")
    return pages


def page_size(page: Page) -> tuple[int, int]:
    """Return (width, height) of a page in pixels, as stored."""
    return page[Tag.ImageWidth], page[Tag.ImageLength]


def read_metadata(file: IO[bytes], page: Page) -> dict[str, Any]:
    """Return the metadata of a page.

    Args:
        file: the open TIFF, seekable.
        page: the tags of the page.

    Returns:
        ``exif``, ``icc_profile``, ``xmp`` and ``dpi``, as Pillow names and encodes them.
    """
    exif = Pillow.Exif()
    for tag in METADATA_TAGS.intersection(page):
        exif[tag] = page[tag]
    for group in EXIF_GROUPS:
        if group in page:
            file.seek(0)
            directory = Page(_read_header(file), group=group)
            file.seek(page[group])
            directory.load(file)
            exif.get_ifd(group).update(dict(directory))
    info: dict[str, Any] = {"exif": exif.tobytes()}
    if Tag.InterColorProfile in page:
        info["icc_profile"] = page[Tag.InterColorProfile]
    if Tag.XMLPacket in page:
        info["xmp"] = page[Tag.XMLPacket]
    inches = INCHES_PER_UNIT.get(page.get(Tag.ResolutionUnit, INCH))
    if inches and Tag.XResolution in page and Tag.YResolution in page:
        info["dpi"] = (float(page[Tag.XResolution]) * inches, float(page[Tag.YResolution]) * inches)
    return info


def metadata_tags(info: dict[str, Any]) -> Pillow.Exif:
    """Return the tags that hold metadata; the inverse of `read_metadata`.

    Args:
        info: ``exif``, ``icc_profile``, ``xmp`` and ``dpi``, each if there is any.
    """
    tags = Pillow.Exif()
    tags.load(info.get("exif", b""))
    if "dpi" in info and Tag.XResolution not in tags:
        (tags[Tag.XResolution], tags[Tag.YResolution]), tags[Tag.ResolutionUnit] = info["dpi"], INCH
    if "xmp" in info:
        tags[Tag.XMLPacket] = info["xmp"]
    if "icc_profile" in info:
        tags[Tag.InterColorProfile] = info["icc_profile"]
    return tags


def _read_header(file: IO[bytes]) -> bytes:
    header = file.read(16)
    return header if BIG_TIFF in header[2:4] else header[:8]
