"""Raw files of cameras (DNG, CR2, CR3, NEF, ARW, RAF, ORF, RW2, ...), developed from the samples of the sensor."""

from __future__ import annotations

import io
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ImageCms, JpegImagePlugin
from PIL.ExifTags import IFD
from PIL.ExifTags import Base as Tag

from denoise.errors import InputError
from denoise.files.image.boxes import read_brands
from denoise.files.image.container import NATURAL_MODES, FrameInfo
from denoise.files.image.demosaic import blend_by_detail
from denoise.files.image.tiff import Tiff
from denoise.files.image.tiff_directory import Directory, Field, decode_exif, encode_exif, read_directory, read_header
from denoise.files.image.tiff_tags import METADATA_TAGS, is_camera_raw
from denoise.files.image.tones import find_exposure, map_tones
from denoise.files.names import RAW_EXTENSIONS
from denoise.signals import Image

if TYPE_CHECKING:
    from rawpy import RawPy

TIFF_LIKE = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0")  # of Olympus and Panasonic: TIFF but for the signature
SIGNATURES = (*TIFF_LIKE, b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")
CR3_BRAND = b"crx "
BAYER_SHAPE = (2, 2)
SHARP, SMOOTH = "DHT", "LINEAR"

STALE_EXIF = (
    Tag.MakerNote, Tag.ComponentsConfiguration, Tag.CompressedBitsPerPixel, Tag.CFAPattern, Tag.Gamma,
    Tag.RelatedSoundFile, IFD.Interop, 0xEA1C, 0xEA1D,
)  # fmt: skip
"""Tags about the raw file; maker notes point into it. The last two are padding."""
RAW_SETTINGS = (b"crs:", b"tiff:Orientation", b"exif:PixelXDimension")
"""Properties of XMP that do not hold for a developed picture: settings of a raw developer, geometry."""
XMP_TAG = int(Tag.XMLPacket)
SRGB, UPRIGHT = 1, 1  # colour space and orientation in EXIF
DAMAGE_REPORT = re.compile(rb"data corrupted|unexpected end of file", re.IGNORECASE)
ICC_DATE = slice(24, 36)


class Raw(Tiff):
    """A raw file of a camera. It is read as a picture of 16 bits in sRGB, and written as another container.

    The samples of the sensor are developed, never the preview. They are turned upright. rawpy is imported where it is
    used, since few runs need it.
    """

    extensions = RAW_EXTENSIONS

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file starts with a signature of a raw file; those that are TIFFs have none."""
        return head.startswith(SIGNATURES) or CR3_BRAND in read_brands(head)

    @classmethod
    def matches_file(cls, head: bytes, file: BinaryIO) -> bool:
        """Return whether a file is a raw file.

        Args:
            head: the first 64 bytes of the file, fewer if it is shorter.
            file: the file, seekable.
        """
        return cls.matches(head) or (Tiff.matches(head) and is_camera_raw(file))

    def read_header(self) -> None:
        """Read the header with LibRaw, and the metadata.

        Raises:
            InputError: rawpy is missing, or the file is unknown to LibRaw, damaged or above the limit of size.
        """
        with _open_raw(self.file) as raw:
            sizes, channels = raw.sizes, 1 if raw.num_colors == 1 else 3
            self.limit.check(sizes.raw_width, sizes.raw_height)
            self.size = (sizes.iheight, sizes.iwidth) if sizes.flip & 4 else (sizes.iwidth, sizes.iheight)
            self.limit.check(*self.size)
            directory = self._read_directory(raw)
        self.n_frames, self.bits, self.mode = 1, 16, NATURAL_MODES[channels, False]
        self.info = {"exif": encode_exif(_picture_fields(directory, self.size))}
        if channels == 3:
            self.info["icc_profile"] = _srgb_profile()
        xmp = directory.get(XMP_TAG)
        if isinstance(xmp, Field) and any(name in xmp.data for name in RAW_SETTINGS):
            warnings.warn("not kept: XMP with settings of a raw developer.", stacklevel=2)
        elif isinstance(xmp, Field):
            self.info["xmp"] = xmp.data

    def read_frames(self) -> Iterator[tuple[Image, FrameInfo]]:
        """Develop the picture.

        Yields:
            The picture and its mode.
        """
        with _open_raw(self.file) as raw:
            has_bayer_mosaic = raw.raw_pattern is not None and raw.raw_pattern.shape == BAYER_SHAPE
            algorithms = (SHARP, SMOOTH) if has_bayer_mosaic else (SHARP,)
            pictures = [develop(raw, algorithm) for algorithm in algorithms]
        exposure = find_exposure(pictures[0])
        pictures = [map_tones(picture, exposure) for picture in pictures]
        pixels = blend_by_detail(*pictures) if has_bayer_mosaic else pictures[0]
        del pictures
        yield Image(pixels), {"mode": self.mode}

    def _read_directory(self, raw: RawPy) -> Directory:
        """Return the fields of the first directory, or of the EXIF of the preview where the file is no TIFF."""
        self.file.seek(0)
        head = self.file.read(4)
        if Tiff.matches(head) or head in TIFF_LIKE:
            header = read_header(self.file)
            return read_directory(self.file, header, header.first_offset)
        return decode_exif(_read_preview_exif(raw))


def develop(raw: RawPy, algorithm: str) -> NDArray[np.uint16]:
    """Return the linear light of a raw file: white-balanced as by the camera, demosaiced, upright.

    Args:
        raw: the open file.
        algorithm: name of rawpy's `DemosaicAlgorithm`, which mosaics other than Bayer's ignore.

    Returns:
        (height, width, 1 or 3), linear sRGB, full scale 65535 where the first channel of the sensor saturates.
    """
    rawpy = import_rawpy()
    result: NDArray[Any] = raw.postprocess(
        gamma=(1, 1),
        no_auto_bright=True,
        output_bps=16,
        use_camera_wb=True,
        output_color=rawpy.ColorSpace.sRGB,
        demosaic_algorithm=rawpy.DemosaicAlgorithm[algorithm],
    )
    return result.reshape(*result.shape[:2], -1)


def import_rawpy() -> Any:
    """Return the module rawpy.

    Raises:
        InputError: the package is not installed.
    """
    try:
        return import_module("rawpy")
    except ImportError as error:
        raise InputError(
            'is a camera raw file, which needs the package rawpy. Install the extra: pip install ".[raw]"'
        ) from error


@contextmanager
def _open_raw(file: BinaryIO) -> Iterator[RawPy]:
    """Open a raw file with LibRaw, whose errors are translated and whose reports stay off the terminal.

    Raises:
        InputError: the file is unknown to LibRaw, or damaged.
    """
    rawpy = import_rawpy()
    file.seek(0)
    reports: list[bytes] = []
    try:
        with _capture_stderr(reports), rawpy.imread(file) as raw:
            yield raw
    except rawpy.LibRawFileUnsupportedError as error:
        raise InputError(
            "is a camera raw file that LibRaw cannot read; expected one of a known camera, whole and not encrypted. "
            "Get another copy or convert it to DNG."
        ) from error
    except (rawpy.LibRawError, rawpy.NotSupportedError) as error:
        reason = error.args[0] if error.args else type(error).__name__
        reason = reason.decode() if isinstance(reason, bytes) else reason
        raise InputError(
            f"the camera raw file is cut off, damaged or of a rare kind ({reason}); expected a whole, common file. "
            "Get another copy or convert it to DNG."
        ) from error
    if any(DAMAGE_REPORT.search(report) for report in reports):
        warnings.warn("LibRaw reports damaged data; parts of the picture may be wrong.", stacklevel=3)


@contextmanager
def _capture_stderr(reports: list[bytes]) -> Iterator[None]:
    """Collect what C libraries print to standard error, which rawpy cannot silence."""
    try:
        terminal = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            file.seek(0)
            reports.extend(file.read().splitlines())


def _read_preview_exif(raw: RawPy) -> bytes:
    """Return the EXIF of the JPEG preview, to which LibRaw adds one if there is none; empty without a preview."""
    rawpy = import_rawpy()
    try:
        preview: Any = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return b""
    if preview.format != rawpy.ThumbFormat.JPEG:
        return b""
    exif: bytes = JpegImagePlugin.JpegImageFile(io.BytesIO(preview.data)).info.get("exif", b"")
    return exif


def _picture_fields(directory: Directory, size: tuple[int, int]) -> Directory:
    """Return the fields of a raw file that hold for the developed picture.

    Args:
        directory: fields of the raw file.
        size: (width, height) of the picture.
    """
    fields = {tag: field for tag, field in directory.items() if tag in METADATA_TAGS or tag in (IFD.Exif, IFD.GPSInfo)}
    fields[Tag.Orientation] = Field.shorts(UPRIGHT)
    exif = fields.get(IFD.Exif, {})
    assert isinstance(exif, dict)
    width, height = map(Field.longs, size)
    fields[IFD.Exif] = {tag: field for tag, field in exif.items() if tag not in STALE_EXIF} | {
        int(Tag.ColorSpace): Field.shorts(SRGB),
        int(Tag.ExifImageWidth): width,
        int(Tag.ExifImageHeight): height,
    }
    return {int(tag): field for tag, field in fields.items()}


def _srgb_profile() -> bytes:
    """Return the ICC profile of sRGB, without the date of today."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[ICC_DATE] = bytes(12)
    return bytes(profile)
