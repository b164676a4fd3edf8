"""WebP, lossy and lossless, and its animations."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from typing import IO, Any, BinaryIO, ClassVar

import numpy as np
from PIL import Image as Pillow
from PIL import WebPImagePlugin

from denoise.files.image.container import FrameInfo
from denoise.files.image.pillow import PillowContainer
from denoise.signals import Image, ImageFormat

EXIF_PREFIX = b"Exif\0\0"
VP8X_OFFSET, ALPHA_FLAG, OPAQUE = 12, 0x10, 255
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

    def open_picture(self) -> WebPImagePlugin.WebPImageFile:
        """Return Pillow's image of the file; once the header is read, that of an animation has alpha.

        An encoder may leave parts of the canvas uncovered, or dispose of them, without stating that there is alpha.
        """
        if getattr(self, "n_frames", 1) == 1:
            return super().open_picture()
        self.file.seek(0)
        file = io.BytesIO(self.file.read())
        _state_alpha(file)
        file.seek(0)
        return self.plugin(file, "")

    def decode(self, picture: WebPImagePlugin.WebPImageFile) -> tuple[Image, FrameInfo]:
        """Convert the loaded frame of Pillow's image, without an alpha that is neither stated nor used."""
        frame, info = super().decode(picture)
        if self.mode == "RGB" and frame.alpha is not None and np.all(frame.alpha == OPAQUE):
            return replace(frame, alpha=None), info | {"mode": self.mode}
        return frame, info

    def read_info(self, picture: WebPImagePlugin.WebPImageFile) -> dict[str, Any]:
        """Return Pillow's metadata and whether the file is lossless."""
        info = super().read_info(picture)
        if exif := info.get("exif"):
            info["exif"] = EXIF_PREFIX + exif.removeprefix(EXIF_PREFIX)  # as in the other containers
        return info | {"lossless": _is_lossless(self.file)}

    @classmethod
    def file_options(cls, source: ImageFormat, name: str) -> dict[str, Any]:
        """Return the options of Pillow's writer: lossy where the source is lossy."""
        lossless = source.info.get("lossless", source.container != "JPEG")
        quality = LOSSLESS_EFFORT if lossless else LOSSY_QUALITY
        options = super().file_options(source, name)
        if exif := options.get("exif"):
            options["exif"] = exif.removeprefix(EXIF_PREFIX)  # Pillow leaves it in animations
        return options | {"lossless": lossless, "quality": quality, "exact": True}

    @classmethod
    def save(cls, file: IO[bytes], pictures: list[Pillow.Image], source: ImageFormat, options: dict[str, Any]) -> None:
        """Write with Pillow, and state the alpha of an animation that comes from its disposal only."""
        super().save(file, pictures, source, options)
        if len(pictures) > 1 and any(picture.mode == "RGBA" for picture in pictures):
            _state_alpha(file)
            file.seek(0, io.SEEK_END)


def _state_alpha(file: IO[bytes]) -> None:
    """Set the flag of alpha in the header of an extended file."""
    file.seek(VP8X_OFFSET)
    if file.read(4) == b"VP8X":
        file.seek(4, io.SEEK_CUR)
        flags = file.read(1)[0]
        file.seek(-1, io.SEEK_CUR)
        file.write(bytes([flags | ALPHA_FLAG]))


def _is_lossless(file: BinaryIO) -> bool:
    """Return whether the first frame is lossless."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        if kind in (b"VP8L", b"VP8 "):
            return bool(kind == b"VP8L")
        file.seek(16 if kind == b"ANMF" else length + length % 2, io.SEEK_CUR)
    return False
