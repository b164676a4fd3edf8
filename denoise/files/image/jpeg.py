"""JPEG."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import IO, Any, ClassVar, NamedTuple

from PIL import Image as Pillow
from PIL import JpegImagePlugin

from denoise.errors import InputError
from denoise.files.image.container import add_warning, frame_info
from denoise.files.image.jpeg_planes import JpegLayout, encode_planes
from denoise.files.image.jpeg_segments import (
    APP1,
    APP2,
    APP13,
    APPENDED_PROPERTIES,
    EOI,
    EXTENDED_XMP_HEADER,
    EXTENDED_XMP_PROPERTIES,
    GAIN_MAP_HEADER,
    GAIN_MAP_SIGNS,
    MPF_HEADER,
    XMP_HEADER,
    MultiPictureIndex,
    Segment,
    announced_bytes,
    announces_data,
    complete_extended_xmp,
    encode_segment,
    has_properties,
    iterate_segments,
    remove_properties,
)
from denoise.files.image.pillow import PillowContainer
from denoise.signals import Image, ImageFormat

MAX_SEGMENT_BYTES = 65_500  # of EXIF, XMP or a comment
DEFAULT_OPTIONS = {"quality": 95, "subsampling": 0}
LOSSLESS_OPTIONS = {"quality": 100, "subsampling": 0}


@dataclass(frozen=True)
class Appended:
    """What follows the image of a JPEG, or continues its XMP, and the metadata that announce it.

    Args:
        data: what follows the image.
        image_end: position of ``data`` in the file.
        xmp: main packet of XMP, with its announcements.
        extended_xmp: segments of extended XMP.
        gain_map: segments about a gain map by ISO 21496-1.
        index: segment of the Multi-Picture Format, with the positions of all images.
    """

    data: bytes
    image_end: int
    xmp: bytes
    extended_xmp: tuple[Segment, ...]
    gain_map: tuple[Segment, ...]
    index: Segment | None

    @property
    def description(self) -> str:
        """What other containers drop, empty for padding."""
        if self.data.strip(b"\0"):
            return "what follows the image (gain map, video)"
        return "extended XMP" if self.extended_xmp else ""

    def encode_segments(self) -> bytes:
        """Return the segments beside the main packet of XMP."""
        index = () if self.index is None else (self.index,)
        return b"".join(segment.encode() for segment in (*self.extended_xmp, *self.gain_map, *index))

    def is_complete(self, file_size: int) -> bool:
        """Return whether everything is there that the metadata announce.

        Args:
            file_size: size of the file in bytes.
        """
        if announced_bytes(self.xmp) > len(self.data) or (not self.data and announces_data(self.xmp)):
            return False
        if self.index is None:
            return True
        try:
            entries = MultiPictureIndex(self.index.data).entries
        except ValueError:
            return False
        base = self.index.offset + len(MPF_HEADER)
        return all(
            self.image_end <= base + offset and base + offset + size <= file_size for size, offset in entries if offset
        )

    def append(self, file: IO[bytes]) -> None:
        """Write the data behind an image, and correct the positions in its MPF segment.

        Args:
            file: JPEG with the segments, readable and seekable.
        """
        size = file.seek(0, io.SEEK_END)
        if self.index is not None:
            file.seek(0)
            index = next(s for s in iterate_segments(file.read()) if s.data.startswith(MPF_HEADER))
            shift = (size - index.offset) - (self.image_end - self.index.offset)
            file.seek(index.offset)
            file.write(MultiPictureIndex(index.data).moved(size, shift))
        file.seek(0, io.SEEK_END)
        file.write(self.data)


class Jpeg(PillowContainer[JpegImagePlugin.JpegImageFile]):
    """JPEG; of a file with several images (MPO), the first one.

    Gain maps, videos and depth maps that follow the image are kept with what announces them.
    """

    plugin = JpegImagePlugin.JpegImageFile
    name = "JPEG"
    extensions = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
    modes: ClassVar[dict[str, str]] = {"L": "L", "RGB": "RGB", "CMYK": "CMYK"}
    max_side = 65_535
    saved_info = ("icc_profile", "exif", "dpi", "xmp")

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file starts with the markers of JPEG."""
        return head.startswith(b"\xff\xd8\xff")

    def read_info(self, picture: JpegImagePlugin.JpegImageFile) -> dict[str, Any]:
        """Return Pillow's metadata, the coding options and what follows the image."""
        info = super().read_info(picture)
        self.file.seek(0)
        data = self.file.read()
        segments = list(iterate_segments(data))
        info |= {"jpeg": _coding_options(picture, segments), "jpeg_layout": _layout(picture)}
        appended = self._read_appended(data, segments, info.get("xmp", b""))
        if "xmp" in info:
            info["xmp"] = remove_properties(appended.xmp, APPENDED_PROPERTIES | EXTENDED_XMP_PROPERTIES)
        if appended.data or appended.encode_segments() or appended.xmp != info.get("xmp", b""):
            info["jpeg_appended"] = appended
        return info

    def _read_appended(self, data: bytes, segments: list[Segment], xmp: bytes) -> Appended:
        """Return what follows the image, without what is incomplete."""
        image_end = segments[-1].offset if segments and segments[-1].marker == EOI else len(data)
        extended_xmp = [s for s in segments if s.marker == APP1 and s.data.startswith(EXTENDED_XMP_HEADER)]
        complete_xmp = complete_extended_xmp(xmp, extended_xmp)
        if complete_xmp is None and (extended_xmp or has_properties(xmp, EXTENDED_XMP_PROPERTIES)):
            self.warnings.append("the extended XMP is incomplete; it is dropped, the main packet is kept.")
            xmp = remove_properties(xmp, EXTENDED_XMP_PROPERTIES)
        app2_segments = [s for s in segments if s.marker == APP2]
        index = next((s for s in app2_segments if s.data.startswith(MPF_HEADER)), None)
        gain_map = tuple(s for s in app2_segments if s.data.startswith(GAIN_MAP_HEADER))
        appended = Appended(data[image_end:], image_end, xmp, tuple(complete_xmp or ()), gain_map, index)
        if index is not None and not any(sign in data for sign in GAIN_MAP_SIGNS) and _count_images(index) > 1:
            self.warnings.append("holds several images (MPO); the first one is read.")
        elif appended.is_complete(len(data)):
            return appended
        else:
            self.warnings.append("what follows the image (gain map, video) is incomplete; it is dropped.")
        xmp = remove_properties(xmp, APPENDED_PROPERTIES)
        return replace(appended, data=b"", xmp=xmp, gain_map=(), index=None)

    @classmethod
    def write(cls, file: IO[bytes], frames: Iterator[Image], source: ImageFormat, name: str) -> None:
        """Write a frame with the sampling and the quantisation of its source, and what follows the image there.

        Args:
            file: empty file, readable and seekable.
            frames: one frame.
            source: format of the file that the frame comes from.
            name: name of the target in errors.

        Raises:
            InputError: the container cannot hold the frame or the metadata.
        """
        frame = next(frames)
        if source.info.get("jpeg", {}).get("quality") == LOSSLESS_OPTIONS["quality"]:
            add_warning(source, "is a lossless JPEG; quality 100 is written. Write PNG to lose nothing.")
        layout: JpegLayout | None = source.info.get("jpeg_layout")
        if layout is None or len(layout.sampling) != frame.pixels.shape[2]:
            super().write(file, chain([frame], frames), source, name)
        else:
            cls.stored_mode(frame, frame_info(source, 0), name)
            head = io.BytesIO()  # metadata as Pillow writes them, with an image of one pixel
            super().write(head, iter([Image(frame.pixels[:1, :1])]), source, name)
            options = source.info["jpeg"]
            for part in encode_planes(
                head.getvalue(), frame.pixels, layout, options["qtables"], progressive=options["progressive"]
            ):
                file.write(part)
        if "jpeg_appended" in source.info:
            source.info["jpeg_appended"].append(file)

    @classmethod
    def file_options(cls, source: ImageFormat, name: str) -> dict[str, Any]:
        """Return the options of Pillow's writer.

        Args:
            source: format of the file that the frame comes from.
            name: name of the target in errors.

        Raises:
            InputError: metadata are too long for a segment of JPEG.
        """
        options = super().file_options(source, name)
        if isinstance(source.info.get("comment"), bytes | str):
            options["comment"] = source.info["comment"]
        for key in ("exif", "xmp", "comment"):
            if len(options.get(key, b"")) > MAX_SEGMENT_BYTES:
                raise InputError(
                    f"{name}: {len(options[key])} bytes of {key}; JPEG holds at most {MAX_SEGMENT_BYTES}. Write PNG."
                )
        options |= source.info.get("jpeg", DEFAULT_OPTIONS)
        if appended := source.info.get("jpeg_appended"):
            options["extra"] = options.get("extra", b"")
            if appended.xmp:
                options["extra"] += encode_segment(APP1, XMP_HEADER + appended.xmp)
                options.pop("xmp", None)
            options["extra"] += appended.encode_segments()
        return options


class Quantisation(NamedTuple):
    """The quantisation of a JPEG of grey or YCbCr.

    Args:
        tables: steps of luma and of chroma, or of luma alone, 64 each by rows, on the scale of 255.
        reductions: rows and columns of pixels in one sample of chroma.
    """

    tables: list[list[int]]
    reductions: tuple[int, int]


def read_quantisation(source: ImageFormat) -> Quantisation | None:
    """Return the quantisation of the file of an image; None if it is no JPEG of grey or YCbCr of common sampling.

    Args:
        source: format of the file.
    """
    options = source.info.get("jpeg", {})
    is_other = source.mode == "CMYK" or options.get("keep_rgb") or source.info.get("jpeg_layout") is not None
    return None if is_other or "qtables" not in options else _quantisation(options)


def quantisation_of_quality(quality: int) -> Quantisation:
    """Return the quantisation of libjpeg, with chroma at half the resolution.

    Args:
        quality: 1 to 100.
    """
    file = io.BytesIO()
    Pillow.new("RGB", (1, 1)).save(file, "JPEG", quality=quality, subsampling=2)
    file.seek(0)
    with JpegImagePlugin.JpegImageFile(file) as picture:
        return _quantisation(_coding_options(picture, []))


def with_default_quality(source: ImageFormat) -> ImageFormat:
    """Return a format that is stored with the default quality instead of the quantisation of the source.

    Args:
        source: format of a file, also of another container.
    """
    if "jpeg" not in source.info:
        return source
    options = {key: value for key, value in source.info["jpeg"].items() if key != "qtables"}
    return replace(source, info=source.info | {"jpeg": options | DEFAULT_OPTIONS})


def _quantisation(options: dict[str, Any]) -> Quantisation:
    return Quantisation(options["qtables"], {0: (1, 1), 1: (1, 2), 2: (2, 2)}[options["subsampling"]])


def _count_images(index: Segment) -> int:
    """Return the number of images of a file by its MPF segment, 0 if it is damaged."""
    try:
        return len(MultiPictureIndex(index.data).entries)
    except ValueError:
        return 0


def _coding_options(picture: JpegImagePlugin.JpegImageFile, segments: list[Segment]) -> dict[str, Any]:
    """Return quantisation and the like, so that coding it again loses as little as the file did."""
    factors: Any = sum((layer[1:3] for layer in picture.layer[:3]), ())
    # Sampling that Pillow cannot write is replaced by none, which loses less, unless `_layout` returns it.
    subsampling = JpegImagePlugin.samplings.get(factors, 0)
    if _is_rgb(picture) or (len(picture.layer) == 4 and picture.layer[3][1:3] != (1, 1)):
        subsampling = 0
    iptc_segments = [segment for segment in segments if segment.marker == APP13]
    options = {
        "progressive": bool(picture.info.get("progressive")),
        "keep_rgb": _is_rgb(picture),
        "extra": b"".join(segment.encode() for segment in iptc_segments),
    }
    table_ids = [layer[3] for layer in picture.layer]
    if not all(table_id in picture.quantization for table_id in table_ids):
        return LOSSLESS_OPTIONS | options
    while len(table_ids) > 1 and table_ids[-1] == table_ids[-2]:
        table_ids.pop()  # writers use the last table for all further components
    tables = [list(picture.quantization[table_id]) for table_id in table_ids]
    return {"qtables": tables, "subsampling": subsampling} | options


def _is_rgb(picture: JpegImagePlugin.JpegImageFile) -> bool:
    """Return whether red, green and blue are stored without a colour transform."""
    if picture.mode != "RGB" or ("jfif" in picture.info and picture.info.get("adobe_transform") != 0):
        return False
    if "adobe" in picture.info:
        return picture.info.get("adobe_transform") == 0
    return [layer[0] for layer in picture.layer] == list(b"RGB")


def _layout(picture: JpegImagePlugin.JpegImageFile) -> JpegLayout | None:
    """Return the sampling and colours of the components if Pillow cannot write them, else None."""
    if len(picture.layer) < 3 or not all(layer[3] in picture.quantization for layer in picture.layer):
        return None
    divisors = [math.gcd(*(layer[i] for layer in picture.layer)) for i in (1, 2)]
    sampling = tuple((layer[1] // divisors[0], layer[2] // divisors[1]) for layer in picture.layer)
    limits = [max(factors[i] for factors in sampling) for i in (0, 1)]
    if any(
        factor == 0 or limit % factor for factors in sampling for factor, limit in zip(factors, limits, strict=True)
    ):
        return None
    is_ycck = picture.mode == "CMYK" and picture.info.get("adobe_transform", 0) != 0
    factors: Any = sum((layer[1:3] for layer in picture.layer[:3]), ())
    can_pillow_subsample = factors in JpegImagePlugin.samplings and picture.layer[-1][1:3] == (1, 1)
    can_pillow_write = limits == [1, 1] or (can_pillow_subsample and not _is_rgb(picture))
    if can_pillow_write and not is_ycck:
        return None
    return JpegLayout(sampling, has_luminance=is_ycck or (picture.mode == "RGB" and not _is_rgb(picture)))
