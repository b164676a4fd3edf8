"""AVIF and its animations, of 8 bits."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, ClassVar

from denoise.errors import InputError
from denoise.files.image.boxes import Items, colour_info, read_brands, read_items
from denoise.files.image.heif import AVIF_BRANDS
from denoise.files.image.pillow import PillowContainer
from denoise.files.image.subsampling import chroma_subsampling
from denoise.signals import Image, ImageFormat

if TYPE_CHECKING:
    from PIL.AvifImagePlugin import AvifImageFile

QUALITY = 95
SPEED = 8  # a third of the time of the default, for a twelfth more bytes
SRGB_NCLX = (1, 13, 6, 1)  # primaries, transfer, matrix, full range: what Pillow writes
GREY = 400  # chroma subsampling of images without colour
CHROMA_OF_FLAGS = {0x0C: 420, 0x08: 422}  # flags of the av1C property, which holds the depth, too:
DEEP, TWELVE_BITS = 0x40, 0x20
CHROMA_NAMES = {444: "4:4:4", 422: "4:2:2", 420: "4:2:0"}


class Avif(PillowContainer["AvifImageFile"]):
    """AVIF and its animations. Pillow decodes and encodes 8 bits; its plugin is imported where it is used."""

    name = "AVIF"
    extensions = (".avif", ".avifs")
    modes: ClassVar[dict[str, str]] = {"L": "L", "LA": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}
    max_side = 32_768
    can_animate = True
    saved_info = ("icc_profile", "exif", "xmp")

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file names a brand of AVIF."""
        return bool(read_brands(head) & AVIF_BRANDS)

    def open_picture(self) -> AvifImageFile:
        """Return Pillow's image of the file, with its header read.

        Raises:
            InputError: this Pillow has no AVIF.
        """
        _check_support("")
        from PIL.AvifImagePlugin import AvifImageFile

        self.file.seek(0)
        return AvifImageFile(self.file, "")

    def read_header(self) -> None:
        """Read the header with Pillow, and from the boxes what it does not report.

        Raises:
            InputError: the file is encrypted or above the limit of size.
        """
        self.file.seek(0)
        items = read_items(self.file.read())
        if items is not None:
            items.check_readable()
        super().read_header()
        if items is not None:
            self._read_boxes(items)

    def count_frames(self, picture: AvifImageFile) -> int:
        """Return the number of frames of an animation, or 1."""
        return picture.n_frames

    def _read_boxes(self, items: Items) -> None:
        """Set colours and subsampling, and warn of what is not kept."""
        if (config := items.coded_property(b"av1C")) is not None and len(config) > 2:
            flags = config[2]
            self.info["chroma"] = CHROMA_OF_FLAGS.get(flags & 0x0C, 444)
            if flags & DEEP:
                bits = 12 if flags & TWELVE_BITS else 10
                self.warnings.append(f"has {bits} bits per channel; 8 are read and written.")
        nclx = items.image.property(b"colr", b"nclx")
        if nclx is not None and len(nclx) >= 7:
            *codes, flags = struct.unpack(">HHHB", nclx[:7])
            self.info |= colour_info(*codes, flags >> 7)
        if (n_images := items.count_images()) > 1:
            self.warnings.append(f"holds {n_images} images; the primary one is read.")
        if kinds := items.auxiliary_kinds():
            self.warnings.append(f"holds auxiliary images ({', '.join(kinds)}); they are not read.")
        if items.image.property(b"clap") is not None:
            self.warnings.append("is cropped for display (clap); the whole image is read and written.")

    @classmethod
    def write(cls, file: IO[bytes], frames: Iterator[Image], source: ImageFormat, name: str) -> None:
        """Write frames of 8 bits with Pillow, and the colour space of the source.

        Args:
            file: empty file, readable and seekable.
            frames: at least one.
            source: format of the file that the frames come from.
            name: name of the target in errors.

        Raises:
            InputError: AVIF cannot hold a frame, or this Pillow has no AVIF.
        """
        _check_support(f"{name}: ")
        buffer, first = io.BytesIO(), next(frames)
        if first.pixels.shape[2] == 1 and first.alpha is None:
            source = replace(source, info=source.info | {"chroma": GREY})
        super().write(buffer, chain([first], frames), source, name)
        data = buffer.getvalue()
        colours = source.info.get("nclx", SRGB_NCLX)[:2]
        if colours != SRGB_NCLX[:2] and "icc_profile" not in source.info:
            # Pillow declares sRGB; the matrix that it has encoded with stays.
            old, new = (b"colrnclx" + struct.pack(">HH", *codes) for codes in (SRGB_NCLX[:2], colours))
            end = data.index(b"mdat")
            data = data[:end].replace(old, new) + data[end:]
        file.write(data)

    @classmethod
    def file_options(cls, source: ImageFormat, name: str) -> dict[str, Any]:
        """Return the options of Pillow's writer: the subsampling of the source, and a high quality."""
        options = super().file_options(source, name) | {"quality": QUALITY, "speed": SPEED}
        if source.info.get("chroma") == GREY:  # Pillow decides when it has seen all frames
            return options
        return options | {"subsampling": CHROMA_NAMES[chroma_subsampling(source)]}


def _check_support(prefix: str) -> None:
    """Refuse AVIF where Pillow was built without it."""
    from PIL.AvifImagePlugin import SUPPORTED

    if not SUPPORTED:
        raise InputError(f"{prefix}this Pillow has no AVIF; expected one that has. Install Pillow from PyPI.")
