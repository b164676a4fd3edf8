"""JPEG."""

from __future__ import annotations

import struct
from typing import Any, ClassVar

from PIL import JpegImagePlugin

from denoise.errors import InputError
from denoise.files.image.pillow import PillowContainer
from denoise.signals import ImageFormat

MAX_SEGMENT_BYTES = 65_500  # of EXIF, XMP or a comment
DEFAULT_OPTIONS = {"quality": 95, "subsampling": 0}


class Jpeg(PillowContainer[JpegImagePlugin.JpegImageFile]):
    """JPEG; of a file with several images (MPO), the first one."""

    name = "JPEG"
    extensions = (".jpg", ".jpeg", ".jpe", ".jfif")
    modes: ClassVar[dict[str, str]] = {"L": "L", "RGB": "RGB", "CMYK": "CMYK"}
    max_side = 65_535
    saved_info = ("icc_profile", "exif", "dpi", "xmp")

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file starts with the markers of JPEG."""
        return head.startswith(b"\xff\xd8\xff")

    def open_picture(self) -> JpegImagePlugin.JpegImageFile:
        """Return Pillow's image of the file, with its header read."""
        self.file.seek(0)
        return JpegImagePlugin.jpeg_factory(self.file, "")

    def read_info(self, picture: JpegImagePlugin.JpegImageFile) -> dict[str, Any]:
        """Return Pillow's metadata and the coding options."""
        if picture.format == "MPO":
            self.warnings.append("holds several images (MPO); the first one is read.")
        return super().read_info(picture) | {"jpeg": _coding_options(picture)}

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
        return options | source.info.get("jpeg", DEFAULT_OPTIONS)


def _coding_options(picture: JpegImagePlugin.JpegImageFile) -> dict[str, Any]:
    """Return quantisation and the like, so that coding it again loses as little as the file did."""
    factors: Any = sum((layer[1:3] for layer in picture.layer[:3]), ())
    # Subsampling that Pillow cannot write is replaced by none, which loses less.
    subsampling = JpegImagePlugin.samplings.get(factors, 0)
    if len(picture.layer) == 4 and picture.layer[3][1:3] != (1, 1):
        subsampling = 0
    iptc_segments = [data for marker, data in picture.applist if marker == "APP13"]
    return {
        "qtables": {key: list(table) for key, table in picture.quantization.items()},
        "subsampling": subsampling,
        "progressive": bool(picture.info.get("progressive")),
        "keep_rgb": picture.mode == "RGB" and picture.info.get("adobe_transform") == 0,
        "extra": b"".join(b"\xff\xed" + struct.pack(">H", len(data) + 2) + data for data in iptc_segments),
    }
