"""GIF and its animations."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, Any, ClassVar

import numpy as np
from PIL import GifImagePlugin

from denoise.errors import InputError
from denoise.files.image.container import FrameInfo, frame_info
from denoise.files.image.pillow import PillowContainer, to_pillow
from denoise.signals import Image, ImageFormat

MAX_COLOURS = 256
CLEAR_TO_BACKGROUND = 2  # a method of disposal


class Gif(PillowContainer[GifImagePlugin.GifImageFile]):
    """GIF and its animations; each frame is written whole, with a palette of its own."""

    name = "GIF"
    extensions = (".gif",)
    modes: ClassVar[dict[str, str]] = {"L": "P", "LA": "P", "RGB": "P", "RGBA": "P"}
    max_side = 65_535
    can_animate = True
    plugin = GifImagePlugin.GifImageFile

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file starts with the signature of GIF."""
        return head[:6] in (b"GIF87a", b"GIF89a")

    def read_header(self) -> None:
        """Read the header; all GIFs have palettes, whatever Pillow converts them to."""
        super().read_header()
        self.mode = "P"

    def count_frames(self, picture: GifImagePlugin.GifImageFile) -> int:
        """Return the number of frames."""
        return picture.n_frames

    def palette_info(self, picture: GifImagePlugin.GifImageFile) -> dict[str, Any]:
        """Return nothing: each frame of a GIF may have a palette of 256 colours."""
        return {}

    def decode(self, picture: GifImagePlugin.GifImageFile) -> tuple[Image, FrameInfo]:
        """Convert the loaded frame of Pillow's image."""
        frame, info = super().decode(picture)
        return frame, info | {"disposal": picture.disposal_method}

    def has_alpha(self, picture: GifImagePlugin.GifImageFile) -> bool:
        """Return whether the frame has a transparent colour; Pillow keeps it beside RGB, too."""
        return picture.has_transparency_data

    @classmethod
    def write(cls, file: IO[bytes], frames: Iterator[Image], source: ImageFormat, name: str) -> None:
        """Write the frames one by one; Pillow's writer would merge equal neighbours.

        Args:
            file: file to write to.
            frames: at least one.
            source: format of the file that the frames come from.
            name: name of the target in errors.

        Raises:
            InputError: GIF cannot hold a frame.
        """
        for index, frame in enumerate(frames):
            info = frame_info(source, index)
            cls.stored_mode(frame, info, name)
            if index == 0:
                height, width = frame.pixels.shape[:2]
                file.write(_header(width, height, source.info))
            if frame.alpha is not None and not np.isin(frame.alpha, (0, 255)).all():
                raise InputError(
                    f"{name}: GIF holds no half-transparent pixels; the image has some. Write PNG or WebP."
                )
            picture, palette_alphas = to_pillow(frame, "P", MAX_COLOURS)
            options = {"include_color_table": True, "duration": info.get("duration", 0)}
            options["disposal"] = info.get("disposal") or 0
            if palette_alphas is not None:
                options["transparency"] = palette_alphas.index(0)
            if frame.alpha is not None:  # the next frame is whole and may be transparent where this one is not
                options["disposal"] = CLEAR_TO_BACKGROUND
            file.writelines(GifImagePlugin.getdata(picture, (0, 0), **options))
        file.write(b";")


def _header(width: int, height: int, info: dict[str, Any]) -> bytes:
    """Return the header with the number of repetitions and the comment."""
    header = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0)
    if info.get("loop") is not None:
        header += b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", info["loop"], 0)
    if comment := info.get("comment"):
        data = comment.encode() if isinstance(comment, str) else comment
        blocks = [data[i : i + 255] for i in range(0, len(data), 255)]
        header += b"!\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    return header
