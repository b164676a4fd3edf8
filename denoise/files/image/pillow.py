"""Containers that Pillow decodes and encodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, ClassVar, Generic, TypeVar

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFile

from denoise.errors import InputError
from denoise.files.image.bands import row_bands
from denoise.files.image.container import FrameInfo, ImageContainer, frame_info
from denoise.files.image.palette import Palette, read_palette, to_palette
from denoise.signals import Image, ImageFormat

BILEVEL_THRESHOLD = 128  # 0.5 in 8 bits
DEFAULT_DURATION_MS = 100
FILE_INFO_KEYS = ("icc_profile", "exif", "dpi", "xmp", "comment", "loop", "default_image", "transparency")
FRAME_INFO_KEYS = ("duration", "disposal")

PictureT = TypeVar("PictureT", bound=ImageFile.ImageFile)


class PillowContainer(ImageContainer, Generic[PictureT]):
    """A container that Pillow decodes and encodes; subclasses state what differs.

    Attributes:
        plugin: Pillow's reader. It is called without `PIL.Image.open`, which limits the size of images by a variable
            of Pillow that the whole process shares.
        saved_info: keys of `ImageFormat.info` that Pillow's writer takes under the same name.
    """

    plugin: type[PictureT]
    saved_info: ClassVar[tuple[str, ...]] = ()

    def open_picture(self) -> PictureT:
        """Return Pillow's image of the file, with its header read."""
        self.file.seek(0)
        return self.plugin(self.file, "")

    def read_header(self) -> None:
        """Read the header with Pillow."""
        picture = self.open_picture()
        self.size, self.n_frames = picture.size, self.count_frames(picture)
        self.limit.check(*self.size)
        self.mode, self.bits = picture.mode, 8
        self.info = self.read_info(picture)

    def count_frames(self, picture: PictureT) -> int:
        """Return the number of frames.

        Args:
            picture: Pillow's image, its header read.
        """
        return 1

    def read_info(self, picture: PictureT) -> dict[str, Any]:
        """Return the metadata of the whole file.

        Args:
            picture: Pillow's image, its header read.

        Returns:
            What a file with the same content needs beside its pixels, in the keys of `ImageFormat.info`.
        """
        return file_info(picture) | self.palette_info(picture)

    def read_frames(self) -> Iterator[tuple[Image, FrameInfo]]:
        """Decode the frames with Pillow.

        Yields:
            The frame and what the file holds about it.
        """
        picture = self.open_picture()
        for index in range(self.n_frames):
            picture.seek(index)
            self.limit.check(*picture.size)  # a frame of GIF may enlarge the canvas
            picture.load()
            decoded = self.decode(picture)
            if index == self.n_frames - 1:
                del picture  # the caller works on the last frame while no decoder holds a copy
            yield decoded
            del decoded

    def decode(self, picture: PictureT) -> tuple[Image, FrameInfo]:
        """Convert the loaded frame of Pillow's image.

        Args:
            picture: Pillow's image, a frame loaded.

        Returns:
            The frame and what the file holds about it.

        Raises:
            InputError: the mode is not supported.
        """
        info = {key: picture.info[key] for key in FRAME_INFO_KEYS if key in picture.info}
        info |= self.palette_info(picture) | {"mode": picture.mode, "palette": self.read_palette(picture)}
        return self.to_image(picture), info

    def read_palette(self, picture: PictureT) -> Palette | None:
        """Return the palette of the loaded frame, if it has one.

        Args:
            picture: Pillow's image, a frame loaded.
        """
        return read_palette(picture)

    def palette_info(self, picture: PictureT) -> dict[str, Any]:
        """Return the number of colours of the palette, under the key ``colors``, or nothing without a palette.

        Args:
            picture: Pillow's image; its frame is loaded if it is not yet.
        """
        return {"colors": len(picture.getpalette() or []) // 3} if picture.mode == "P" else {}

    def has_alpha(self, picture: PictureT) -> bool:
        """Return whether the transparency of an image without a channel for it becomes alpha.

        Args:
            picture: Pillow's image, a frame loaded.
        """
        return picture.mode in ("P", "PA") and picture.has_transparency_data

    def to_image(self, picture: PictureT) -> Image:
        """Convert the loaded frame of Pillow's image into pixels and alpha.

        Args:
            picture: Pillow's image, a frame loaded.

        Raises:
            InputError: the mode is not supported.
        """
        mode, dtype = picture.mode, np.dtype(np.uint16 if picture.mode.startswith("I;16") else np.uint8)
        # YCbCr of a TIFF is stored as RGB: Pillow's conversion back rounds down, and darkens.
        if mode in ("P", "PA", "RGB", "YCbCr", "RGBX"):
            mode = "RGBA" if self.has_alpha(picture) else "RGB"
        elif mode == "1":
            mode = "L"
        elif dtype == np.uint8 and mode not in ("L", "LA", "RGBA", "CMYK"):
            raise InputError(f"is of mode {mode}; expected grey, RGB, a palette or CMYK. Convert the file.")
        channels = {"RGB": 3, "RGBA": 3, "CMYK": 4}.get(mode, 1)
        pixels = np.empty((picture.height, picture.width, channels), dtype)
        alpha = np.empty(pixels.shape[:2], dtype) if mode in ("LA", "RGBA") else None
        for y, band in row_bands(picture, mode):
            rows = band.reshape(*band.shape[:2], -1)
            pixels[y : y + len(rows)] = rows[..., :channels]
            if alpha is not None:
                alpha[y : y + len(rows)] = rows[..., channels]
        return Image(pixels, alpha)

    @classmethod
    def write(cls, file: IO[bytes], frames: Iterator[Image], source: ImageFormat, name: str) -> None:
        """Write frames of 8 bits with Pillow.

        Args:
            file: empty file, readable and seekable.
            frames: at least one.
            source: format of the file that the frames come from.
            name: name of the target in errors.

        Raises:
            InputError: the container cannot hold a frame or the metadata.
        """
        pictures: list[Pillow.Image] = []
        infos: list[FrameInfo] = []
        options: dict[str, Any] = {}
        for index, frame in enumerate(frames):
            info = frame_info(source, index)
            mode = cls.stored_mode(frame, info, name)
            if index == 0:
                options = cls.file_options(source, name)
            picture, transparency = to_pillow(frame, mode, palette_size(info, source), info.get("palette"))
            if transparency is not None:
                picture.info["transparency"] = transparency
            pictures.append(picture)
            infos.append(info)
        if len(pictures) > 1:
            pictures = cls.unify(pictures)
            options |= cls.animation_options(source, infos, pictures[0].mode) | {"append_images": pictures[1:]}
        cls.save(file, pictures, source, options)

    @classmethod
    def unify(cls, pictures: list[Pillow.Image]) -> list[Pillow.Image]:
        """Convert the frames of an animation to modes that the container can hold side by side.

        Args:
            pictures: the frames; the alpha of a palette is under the key ``transparency`` of their info.
        """
        return pictures

    @classmethod
    def save(cls, file: IO[bytes], pictures: list[Pillow.Image], source: ImageFormat, options: dict[str, Any]) -> None:
        """Write converted frames with Pillow.

        Args:
            file: empty file, readable and seekable.
            pictures: at least one frame in the mode to write.
            source: format of the file that the frames come from.
            options: options of Pillow's writer; they hold the further frames.
        """
        pictures[0].save(file, cls.name, **options)

    @classmethod
    def file_options(cls, source: ImageFormat, name: str) -> dict[str, Any]:
        """Return the options of Pillow's writer for a file.

        Args:
            source: format of the file that the frames come from.
            name: name of the target in errors.

        Raises:
            InputError: the container cannot hold the metadata.
        """
        return {key: source.info[key] for key in cls.saved_info if key in source.info}

    @classmethod
    def animation_options(cls, source: ImageFormat, infos: list[FrameInfo], mode: str) -> dict[str, Any]:
        """Return the further options of Pillow's writer for several frames.

        Args:
            source: format of the file that the frames come from.
            infos: what it holds about each frame.
            mode: mode in which the first frame is written.
        """
        durations = [info.get("duration", DEFAULT_DURATION_MS) for info in infos]
        return {"save_all": True, "loop": source.info.get("loop", 0), "duration": durations}


def file_info(picture: ImageFile.ImageFile) -> dict[str, Any]:
    """Return the metadata that Pillow's image holds, in the keys of `ImageFormat.info`, without decoding pixels."""
    return {key: picture.info[key] for key in FILE_INFO_KEYS if picture.info.get(key) is not None}


def to_pillow(
    frame: Image, mode: str, max_colours: int, palette: Palette | None = None
) -> tuple[Pillow.Image, bytes | None]:
    """Convert a frame of 8 bits for Pillow's writers.

    Args:
        frame: frame, uint8.
        mode: mode to write, see `ImageContainer.stored_mode`.
        max_colours: maximum length of a palette.
        palette: palette of the source.

    Returns:
        Image, and the alpha of each colour of its palette, or None if there is none.
    """
    pixels = frame.pixels
    if mode == "1":
        return Pillow.fromarray(pixels[..., 0] >= BILEVEL_THRESHOLD), None
    if pixels.shape[2] == 4:
        return Pillow.fromarray(pixels, "CMYK"), None
    picture = Pillow.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if frame.alpha is not None:
        picture.putalpha(Pillow.fromarray(frame.alpha))
    if mode == "P":
        return to_palette(picture, max_colours, palette)
    return (picture if picture.mode == mode else picture.convert(mode)), None


def palette_size(info: FrameInfo, source: ImageFormat) -> int:
    """Return the maximum number of colours of a frame with a palette.

    Args:
        info: what the source holds about the frame.
        source: format of the file that the frame comes from.
    """
    return min(256, info.get("colors") or source.info.get("colors") or 256)
