"""Pages of TIFF and BigTIFF files: their tags, and the metadata in them."""

from __future__ import annotations

import io
import struct
import warnings
from fractions import Fraction
from typing import IO, Any

from PIL import Image as Pillow
from PIL import TiffImagePlugin
from PIL.ExifTags import IFD
from PIL.ExifTags import Base as Tag

from denoise.errors import InputError
from denoise.files.image.tiff_directory import (
    BIG_ENDIAN,
    BYTE,
    IFD_POINTER,
    RATIONAL,
    UNDEFINED,
    Directory,
    Field,
    Header,
    decode_exif,
    read_directory,
    read_header,
    swap_bytes,
)

Page = TiffImagePlugin.ImageFileDirectory_v2
"""The tags of a page."""

Y_POSITION, X_POSITION = 286, 287
RATING, RATING_PERCENT = 18246, 18249
XP_TITLE, XP_COMMENT, XP_AUTHOR, XP_KEYWORDS, XP_SUBJECT = range(40091, 40096)  # of Windows
METADATA_TAGS = frozenset(
    (
        Tag.DocumentName, Tag.ImageDescription, Tag.Make, Tag.Model, Tag.Orientation, Tag.XResolution, Tag.YResolution,
        Tag.PageName, X_POSITION, Y_POSITION, Tag.ResolutionUnit, Tag.PageNumber, Tag.Software, Tag.DateTime,
        Tag.Artist, Tag.HostComputer, Tag.Copyright, Tag.IPTCNAA, Tag.ImageResources, RATING, RATING_PERCENT,
        XP_TITLE, XP_COMMENT, XP_AUTHOR, XP_KEYWORDS, XP_SUBJECT,
    )
)  # fmt: skip
"""Tags about the image that the EXIF of other containers holds, too."""

JPEG_INTERCHANGE_TAGS = range(512, 522)
LAYOUT_TAGS = frozenset(
    (
        Tag.ImageWidth, Tag.ImageLength, Tag.BitsPerSample, Tag.Compression, Tag.PhotometricInterpretation,
        Tag.Thresholding, Tag.CellWidth, Tag.CellLength, Tag.FillOrder, Tag.StripOffsets, Tag.SamplesPerPixel,
        Tag.RowsPerStrip, Tag.StripByteCounts, Tag.PlanarConfiguration, Tag.FreeOffsets, Tag.FreeByteCounts,
        Tag.T4Options, Tag.T6Options, Tag.Predictor, Tag.ColorMap, Tag.HalftoneHints, Tag.TileWidth, Tag.TileLength,
        Tag.TileOffsets, Tag.TileByteCounts, 326, 327, 328, Tag.ExtraSamples, Tag.SampleFormat, 346, Tag.JPEGTables,
        *JPEG_INTERCHANGE_TAGS, Tag.YCbCrCoefficients, Tag.YCbCrSubSampling, Tag.YCbCrPositioning,
        Tag.ReferenceBlackWhite,
    )
)  # fmt: skip
"""Tags about how a page is stored, which a writer sets anew."""

RANGE_TAGS = frozenset((Tag.MinSampleValue, Tag.MaxSampleValue, 290, 291, Tag.SMinSampleValue, Tag.SMaxSampleValue))
"""Tags about the values of samples, which pages do not keep where white is 0."""

SENSOR_PHOTOMETRICS = (32803, 34892)  # mosaic, and linear samples of a sensor
SENSOR_COMPRESSIONS = (32767, 32769, 32770, 34713, 65000, 65535)  # Sony, Epson, Samsung, Nikon, Kodak, Pentax
DNG_VERSION, REDUCED_SIZE = 50706, 1
MAX_RAW_PAGES = 8  # of raw files; stacks have thousands
MAKER_SIGNS = (b"CR", b"IIII", b"MMMM")  # of Canon and Phase One, behind the header

DROPPED_TAGS = {
    Tag.SubIFDs: "smaller or further pictures in sub-directories",
    37724: "the layers of Photoshop",
    34412: "the data of a laser scanning microscope (LSM)",
}
"""Tags that point into the file or hold the picture once more."""

EXIF_GROUPS = (IFD.Exif, IFD.GPSInfo)
INCHES_PER_UNIT = {2: 1.0, 3: 2.54}  # by ResolutionUnit: per inch, per centimetre
INCH = 2
MAX_LONG = 2**32 - 1


def read_pages(file: IO[bytes], max_pages: int | None = None) -> list[Page]:
    """Read the tags of every page without decoding any.

    Args:
        file: the open TIFF or BigTIFF, seekable.
        max_pages: number of pages after which the list may end.

    Returns:
        At least one page.

    Raises:
        InputError: there is no page, or the list of pages is damaged.
    """
    file.seek(0)
    header = read_header(file)
    pages: list[Page] = []
    visited_offsets: set[int] = set()
    end, offset = file.seek(0, io.SEEK_END), header.first_offset
    while offset and offset not in visited_offsets and len(pages) != max_pages:
        if offset >= end:
            raise InputError("the list of pages points behind the end of the file; it is cut off. Get a whole copy.")
        visited_offsets.add(offset)
        page = read_page_tags(file, header, offset)
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


def read_page_tags(file: IO[bytes], header: Header, offset: int) -> Page:
    """Read the tags of a page.

    Args:
        file: the open TIFF, seekable.
        header: its header.
        offset: position of the directory of the page.
    """
    page = Page(b"MM\0*\0\0\0\0" if header.order == BIG_ENDIAN else b"II*\0\0\0\0\0")
    page._bigtiff = header.is_big  # Pillow refuses the header of big-endian BigTIFF
    file.seek(offset)
    page.load(file)
    return page


def is_camera_raw(file: IO[bytes]) -> bool:
    """Return whether a TIFF holds the samples of a camera's sensor, beside previews of them.

    Args:
        file: the open TIFF, seekable.

    Raises:
        InputError: as `read_pages`.
    """
    header = read_header(file)
    file.seek(8)
    if file.read(4).startswith(MAKER_SIGNS) and header.first_offset != 8:
        return True
    for page in read_pages(file, MAX_RAW_PAGES):
        offsets = page.get(Tag.SubIFDs, ())
        offsets = offsets if isinstance(offsets, tuple) else (offsets,)
        pictures = [page, *(read_page_tags(file, header, offset) for offset in offsets)]
        if any(_holds_sensor_samples(picture) for picture in pictures):
            return True
        if page.get(Tag.NewSubfileType) == REDUCED_SIZE and any(_area(x) > _area(page) for x in pictures):
            return True
    return False


def _holds_sensor_samples(page: Page) -> bool:
    return (
        DNG_VERSION in page
        or page.get(Tag.PhotometricInterpretation) in SENSOR_PHOTOMETRICS
        or page.get(Tag.Compression) in SENSOR_COMPRESSIONS
    )


def _area(page: Page) -> int:
    return int(page.get(Tag.ImageWidth, 0)) * int(page.get(Tag.ImageLength, 0))


def read_fields(file: IO[bytes], page: Page) -> Directory:
    """Return the fields of a page that another page with the same picture keeps.

    Warns of fields that cannot be kept.

    Args:
        file: the open TIFF, seekable.
        page: the tags of the page.
    """
    directory: Directory = {}
    for tag, field in read_directory(file, read_header(file), page.offset).items():
        is_pointer = isinstance(field, Field) and field.type == IFD_POINTER
        if tag in DROPPED_TAGS or (is_pointer and tag not in LAYOUT_TAGS):
            warnings.warn(f"not kept: {DROPPED_TAGS.get(tag, 'a sub-directory')} (tag {tag}).", stacklevel=2)
        elif tag not in LAYOUT_TAGS and not (tag in RANGE_TAGS and page.get(Tag.PhotometricInterpretation) == 0):
            directory[tag] = field
    return directory


def read_metadata(file: IO[bytes], page: Page) -> dict[str, Any]:
    """Return the metadata of a page.

    Args:
        file: the open TIFF, seekable.
        page: the tags of the page.

    Returns:
        ``exif``, ``icc_profile``, ``xmp`` and ``dpi``, as Pillow names and encodes them, and ``fields``, see
        `read_fields`.
    """
    header, fields = read_header(file), read_fields(file, page)
    exif = Pillow.Exif()
    for tag in METADATA_TAGS.intersection(fields):
        exif[tag] = _encode_text(page[tag]) if tag != Tag.IPTCNAA else _stored_bytes(fields[tag], header)
    for group in EXIF_GROUPS:
        if group in fields:
            file.seek(0)
            directory = Page(b"MM\0*\0\0\0\0" if header.order == BIG_ENDIAN else b"II*\0\0\0\0\0", group=group)
            directory._bigtiff = header.is_big
            file.seek(page[group])
            directory.load(file)
            exif.get_ifd(group).update({tag: _encode_text(value) for tag, value in directory.items()})
    info: dict[str, Any] = {"exif": exif.tobytes(), "fields": fields}
    if Tag.InterColorProfile in page:
        info["icc_profile"] = page[Tag.InterColorProfile]
    if Tag.XMLPacket in page:
        info["xmp"] = page[Tag.XMLPacket]
    inches = INCHES_PER_UNIT.get(page.get(Tag.ResolutionUnit, INCH))
    if inches and Tag.XResolution in page and Tag.YResolution in page:
        info["dpi"] = (float(page[Tag.XResolution]) * inches, float(page[Tag.YResolution]) * inches)
    return info


def metadata_fields(info: dict[str, Any]) -> Directory:
    """Return the fields that hold metadata; the inverse of `read_metadata`.

    Args:
        info: ``fields``; without them ``exif``, ``icc_profile``, ``xmp`` and ``dpi``, each if there is any.
    """
    if "fields" in info:
        return dict(info["fields"])
    fields = {tag: field for tag, field in decode_exif(info.get("exif", b"")).items() if tag not in LAYOUT_TAGS}
    if "dpi" in info and Tag.XResolution not in fields:
        for tag, resolution in zip((Tag.XResolution, Tag.YResolution), info["dpi"], strict=True):
            fields[tag] = Field(RATIONAL, struct.pack("<II", *_ratio(resolution)))
        fields[Tag.ResolutionUnit] = Field.shorts(INCH)
    if "xmp" in info:
        fields[Tag.XMLPacket] = Field(BYTE, info["xmp"])
    if "icc_profile" in info:
        fields[Tag.InterColorProfile] = Field(UNDEFINED, info["icc_profile"])
    return fields


def _ratio(value: float) -> tuple[int, int]:
    """Return the nearest numerator and denominator of 32 bits."""
    is_inverse = value > 1
    ratio = Fraction(1 / value if is_inverse else value).limit_denominator(MAX_LONG)
    return (ratio.denominator, ratio.numerator) if is_inverse else (ratio.numerator, ratio.denominator)


def _encode_text(value: Any) -> Any:
    """Return text that Pillow decoded as Latin-1 as the bytes of the file; it would write ASCII only."""
    return value.encode("latin-1") if isinstance(value, str) and not value.isascii() else value


def _stored_bytes(field: Field | Directory, header: Header) -> bytes:
    """Return the values of a field as they lie in the file."""
    assert isinstance(field, Field)
    return swap_bytes(field.data, field.type) if header.order == BIG_ENDIAN else field.data
