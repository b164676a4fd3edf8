"""GIF and its animations."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, pairwise
from typing import IO, Any, ClassVar

import numpy as np
from PIL import GifImagePlugin, ImagePalette

from denoise.errors import InputError
from denoise.files.image.container import FrameInfo, frame_info, split_alpha
from denoise.files.image.palette import Palette, to_rgba
from denoise.files.image.pillow import PillowContainer, to_pillow
from denoise.signals import Image, ImageFormat

MAX_COLOURS = 256
CLEAR_TO_BACKGROUND = 2  # a method of disposal


class PaletteGif(GifImagePlugin.GifImageFile):
    """Pillow's reader of GIF that keeps every palette.

    Pillow takes a palette of greys in order for none, and then misreads transparency and the palettes that follow.

    Attributes:
        is_grey: whether all palettes read so far are of greys in order.
        palette_of_frame: the palette of the loaded frame, local or global, whatever Pillow converts the frame to.
    """

    is_grey = True
    palette_of_frame: ImagePalette.ImagePalette | None = None

    def _is_palette_needed(self, p: bytes) -> bool:
        self.is_grey = self.is_grey and not super()._is_palette_needed(p)
        return True

    def load_prepare(self) -> None:
        """Keep the palette, which Pillow drops before it decodes the frame."""
        if self._frame_palette:
            self.palette_of_frame = self._frame_palette
        super().load_prepare()


class Gif(PillowContainer[GifImagePlugin.GifImageFile]):
    """GIF and its animations; each frame is written whole, with a palette of its own."""

    name = "GIF"
    extensions = (".gif",)
    modes: ClassVar[dict[str, str]] = {"L": "P", "LA": "P", "RGB": "P", "RGBA": "P"}
    max_side = 65_535
    can_animate = True
    plugin = PaletteGif

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file starts with the signature of GIF."""
        return head[:6] in (b"GIF87a", b"GIF89a")

    def read_header(self) -> None:
        """Read the header; all GIFs have palettes, whatever Pillow converts them to."""
        super().read_header()
        self.mode = "P"

    def count_frames(self, picture: GifImagePlugin.GifImageFile) -> int:
        """Return the number of frames, after a look at all palettes."""
        n_frames = picture.n_frames
        self._is_grey = isinstance(picture, PaletteGif) and picture.is_grey
        return n_frames

    def palette_info(self, picture: GifImagePlugin.GifImageFile) -> dict[str, Any]:
        """Return nothing: each frame of a GIF may have a palette of 256 colours."""
        return {}

    def decode(self, picture: GifImagePlugin.GifImageFile) -> tuple[Image, FrameInfo]:
        """Convert the loaded frame of Pillow's image."""
        frame, info = super().decode(picture)
        return frame, info | {"disposal": picture.disposal_method}

    def to_image(self, picture: GifImagePlugin.GifImageFile) -> Image:
        """Convert the loaded frame of Pillow's image, grey where all palettes of the file are greys in order."""
        if picture.mode == "L" and picture.has_transparency_data:
            grey_and_alpha = np.asarray(picture.convert("LA"))
            return split_alpha(grey_and_alpha, 1)
        image = super().to_image(picture)
        return replace(image, pixels=np.ascontiguousarray(image.pixels[..., :1])) if self._is_grey else image

    def read_palette(self, picture: GifImagePlugin.GifImageFile) -> Palette | None:
        """Return the palette of the loaded frame, also of those that Pillow composes in RGB."""
        if picture.mode == "P" or not isinstance(picture, PaletteGif) or picture.palette_of_frame is None:
            return super().read_palette(picture)
        rgb = np.frombuffer(bytes(picture.palette_of_frame.palette), np.uint8).reshape(-1, 3)
        return Palette(to_rgba(rgb, picture._frame_transparency), np.ones(len(rgb), np.bool_))

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
        for index, (frame, next_frame) in enumerate(pairwise(chain(frames, [None]))):
            assert frame is not None
            info = frame_info(source, index)
            cls.stored_mode(frame, info, name)
            if index == 0:
                height, width = frame.pixels.shape[:2]
                file.write(_header(width, height, source.info))
            if frame.alpha is not None and not np.isin(frame.alpha, (0, 255)).all():
                raise InputError(
                    f"{name}: GIF holds no half-transparent pixels; the image has some. Write PNG or WebP."
                )
            file.writelines(
                _encode_frame(frame, info, is_cleared=_has_holes(next_frame), is_animated=next_frame is not None)
            )
        file.write(b";")


def _has_holes(frame: Image | None) -> bool:
    """Return whether pixels of a frame are fully transparent."""
    return frame is not None and frame.visible is not None


def _is_grey_in_order(palette: list[int]) -> bool:
    """Return whether each colour of a palette, as long as the table that holds it, is the grey of its index."""
    n_colours = len(palette) // 3
    return n_colours.bit_count() == 1 < n_colours and palette == [i for i in range(n_colours) for _ in range(3)]


def _encode_frame(frame: Image, info: FrameInfo, *, is_cleared: bool, is_animated: bool) -> list[bytes]:
    """Return the blocks of a frame.

    Args:
        frame: frame, each pixel opaque or fully transparent.
        info: what the source holds about it.
        is_cleared: whether the canvas must be transparent before the next frame.
        is_animated: whether another frame follows.
    """
    if frame.visible is not None:  # a GIF has one transparent colour
        hidden_colour = frame.pixels[~frame.visible][0]
        frame = replace(frame, pixels=np.where(frame.visible[..., None], frame.pixels, hidden_colour))
    picture, palette_alphas = to_pillow(frame, "P", MAX_COLOURS, info.get("palette"))
    options = {"include_color_table": True, "duration": info.get("duration", 0)}
    options["disposal"] = info.get("disposal") or 0
    if frame.visible is not None:
        options["transparency"] = int(np.asarray(picture)[~frame.visible][0])
    elif palette_alphas is not None and 0 in palette_alphas:
        options["transparency"] = palette_alphas.index(0)
    elif is_cleared:  # many viewers clear to the background colour where a frame has no transparent one
        unused_indices = np.flatnonzero(np.array(picture.histogram()) == 0)
        if not len(unused_indices):
            picture, _ = to_pillow(frame, "P", MAX_COLOURS - 1)
        palette = picture.getpalette() or []
        if len(palette) < 3 * MAX_COLOURS:
            options["transparency"] = len(palette) // 3
            picture.putpalette([*palette, 0, 0, 0])
        else:
            options["transparency"] = int(unused_indices[0])
    if is_animated and _is_grey_in_order(palette := picture.getpalette() or []):
        # Pillow misreads the frames behind such a palette, see `PaletteGif`.
        picture = picture.remap_palette([1, 0, *range(2, len(palette) // 3)])
        if "transparency" in options:
            options["transparency"] = {0: 1, 1: 0}.get(options["transparency"], options["transparency"])
    if frame.alpha is not None or is_cleared:  # the next frame is whole and may be transparent where this one is not
        options["disposal"] = CLEAR_TO_BACKGROUND
    return list(GifImagePlugin.getdata(picture, (0, 0), **options))


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
