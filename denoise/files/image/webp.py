"""WebP, lossy and lossless, and its animations."""

from __future__ import annotations

import io
import struct
from typing import Any, BinaryIO, ClassVar

from PIL import WebPImagePlugin

from denoise.files.image.pillow import PillowContainer
from denoise.signals import ImageFormat

LOSSLESS_EFFORT, LOSSY_QUALITY = 80, 90


class WebP(PillowContainer[WebPImagePlugin.WebPImageFile]):
    """WebP, lossy and lossless, and its animations. It holds a resolution in EXIF only."""

    name = "WEBP"
    extensions = (".webp",)
    modes: ClassVar[dict[str, str]] = {"L": "RGB", "LA": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}
    max_side = 16_383
    can_animate = True
    plugin = WebPImagePlugin.WebPImageFile
    saved_info = ("icc_profile", "exif", "xmp")

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file starts with the signature of WebP."""
        return head[:4] == b"RIFF" and head[8:12] == b"WEBP"

    def count_frames(self, picture: WebPImagePlugin.WebPImageFile) -> int:
        """Return the number of frames of an animation, or 1."""
        return picture.n_frames

    def read_info(self, picture: WebPImagePlugin.WebPImageFile) -> dict[str, Any]:
        """Return Pillow's metadata and whether the file is lossless."""
        return super().read_info(picture) | {"lossless": _is_lossless(self.file)}

    @classmethod
    def file_options(cls, source: ImageFormat, name: str) -> dict[str, Any]:
        """Return the options of Pillow's writer: lossy where the source is lossy."""
        lossless = source.info.get("lossless", source.container != "JPEG")
        quality = LOSSLESS_EFFORT if lossless else LOSSY_QUALITY
        return super().file_options(source, name) | {"lossless": lossless, "quality": quality, "exact": True}


def _is_lossless(file: BinaryIO) -> bool:
    """Return whether the first frame is lossless."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        if kind in (b"VP8L", b"VP8 "):
            return bool(kind == b"VP8L")
        file.seek(16 if kind == b"ANMF" else length + length % 2, io.SEEK_CUR)
    return False
