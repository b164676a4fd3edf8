"""PNG, of 8 and 16 bits, and APNG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import IO, Any, ClassVar

import numpy as np
from PIL import Image as Pillow
from PIL import PngImagePlugin

from denoise.errors import InputError
from denoise.files.image.apng import RESTORE_PREVIOUS, Canvas, read_subframes
from denoise.files.image.container import FrameInfo, frame_info, interleave_alpha, split_alpha
from denoise.files.image.pillow import PillowContainer, file_info
from denoise.files.image.png16 import PNG_SIGNATURE, read_png16, write_png16
from denoise.files.image.png_chunks import (
    chunks_16,
    further_chunks,
    insert_chunks,
    open_metadata,
    pillow_chunks,
    read_chunks,
    sample_chunks,
)
from denoise.signals import Image, ImageFormat

HEADER_OFFSET = 24  # of bit depth and colour type
MODES_16 = {0: "L", 2: "RGB", 4: "LA", 6: "RGBA"}  # by colour type
SAMPLES_16 = {2: 3, 4: 2, 6: 4}  # per pixel, by the colour types that Pillow reduces to 8 bits
MAX_COLOURS = 256
EXIF_PREFIX = b"Exif\0\0"
COMPRESS_LEVEL = 4  # twice as fast as 6, and little larger


class Png(PillowContainer[PngImagePlugin.PngImageFile]):
    """PNG, of 8 and 16 bits, and APNG."""

    name = "PNG"
    extensions = (".png", ".apng")
    modes: ClassVar[dict[str, str]] = {"L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA"}
    dtypes = (np.uint8, np.uint16)
    has_bilevel = True
    palette_modes = ("RGB", "RGBA")
    can_animate = True
    plugin = PngImagePlugin.PngImageFile
    saved_info = ("icc_profile", "exif", "dpi")

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file starts with the signature of PNG."""
        return head.startswith(PNG_SIGNATURE)

    def read_header(self) -> None:
        """Read the header, and the bit depth that Pillow does not report.

        Raises:
            InputError: an animation of 16 bits, or a file above the limit of size.
        """
        super().read_header()
        self.file.seek(HEADER_OFFSET)
        bits, colour_type = self.file.read(2)
        self.bits = max(8, bits)
        self._samples_16 = SAMPLES_16.get(colour_type, 0) if bits == 16 else 0
        if bits == 16:
            if self.n_frames > 1:
                raise InputError("is an animation of 16 bits; expected 8. Convert it to 8 bits.")
            self.mode = MODES_16[colour_type]
        # A colour that means "transparent" would not survive denoising: it becomes an alpha channel.
        self._transparent_colour = self.info.get("transparency") if self.mode in ("1", "L", "RGB") else None
        if self._transparent_colour is not None:
            self.mode = "RGBA" if self.mode == "RGB" else "LA"

    def count_frames(self, picture: PngImagePlugin.PngImageFile) -> int:
        """Return the number of frames of an APNG, or 1."""
        return picture.n_frames

    def read_info(self, picture: PngImagePlugin.PngImageFile) -> dict[str, Any]:
        """Return Pillow's metadata and the chunks of the file."""
        chunks = list(read_chunks(self.file))
        info = {key: value for key, value in super().read_info(picture).items() if not _is_text(key, value)}
        return info | file_info(open_metadata(chunks)) | {"png_chunks": chunks}

    def read_frames(self) -> Iterator[tuple[Image, FrameInfo]]:
        """Decode the frames.

        Yields:
            The frame and what the file holds about it.
        """
        if self._samples_16:
            channels = 1 if self._samples_16 == 2 else 3
            yield self._with_alpha(split_alpha(read_png16(self.file, self._samples_16), channels)), {}
        elif self.n_frames > 1:
            yield from self._read_animation()
        else:
            yield from super().read_frames()

    def _read_animation(self) -> Iterator[tuple[Image, FrameInfo]]:
        """Decode and compose the frames of an animation.

        Pillow composes those with a palette or a transparent colour without their alpha.

        Yields:
            The frame and what the file holds about it.

        Raises:
            EOFError: there are fewer frames than the header states.
        """
        canvas, count = Canvas(*self.size), 0
        for control, picture in islice(read_subframes(self.file), self.n_frames):
            picture.load()
            frame, info = self.decode(picture)
            del picture
            if control is not None:
                has_alpha = frame.alpha is not None
                frame = canvas.show(frame, control)
                if not has_alpha and np.all(frame.alpha == 255):
                    frame = replace(frame, alpha=None)
                info |= {"duration": control.duration, "disposal": control.disposal}
            if frame.alpha is not None and "colors" in info:
                info["colors"] = MAX_COLOURS  # blended and cleared pixels may add some
            count += 1
            yield frame, info
            del frame
        if count < self.n_frames:
            raise EOFError("there are fewer frames than the header states")

    def decode(self, picture: PngImagePlugin.PngImageFile) -> tuple[Image, FrameInfo]:
        """Convert the loaded frame of Pillow's image, a transparent colour into alpha."""
        frame, info = super().decode(picture)
        info = {key: value for key, value in info.items() if not _is_text(key, value)}
        return self._with_alpha(frame), info if self._transparent_colour is None else info | {"mode": self.mode}

    def _with_alpha(self, frame: Image) -> Image:
        """Convert the transparent colour of an image without a palette (its tRNS chunk) into alpha."""
        if self._transparent_colour is None:
            return frame
        is_transparent = (frame.pixels == np.asarray(self._transparent_colour)).all(axis=-1)
        return replace(frame, alpha=np.where(is_transparent, 0, frame.full_scale).astype(frame.pixels.dtype))

    @classmethod
    def write(cls, file: IO[bytes], frames: Iterator[Image], source: ImageFormat, name: str) -> None:
        """Write one frame of 8 or 16 bits, or an animation of 8 bits.

        Args:
            file: empty file, readable and seekable.
            frames: at least one.
            source: format of the file that the frames come from.
            name: name of the target in errors.

        Raises:
            InputError: PNG cannot hold a frame.
        """
        first = next(frames)
        if first.pixels.dtype == np.uint8:
            return super().write(file, chain([first], frames), source, name)
        mode = cls.stored_mode(first, frame_info(source, 0), name)
        if next(frames, None) is not None:
            raise InputError(f"{name}: frames of 16 bits cannot be animated; expected 8. Convert them.")
        write_png16(file, interleave_alpha(first), chunks_16(source.info, mode))

    @classmethod
    def file_options(cls, source: ImageFormat, name: str) -> dict[str, Any]:
        """Return the options of Pillow's writer for a file."""
        text = PngImagePlugin.PngInfo()
        for kind, data in pillow_chunks(source.info):
            text.add(kind, data)
        return super().file_options(source, name) | {"pnginfo": text, "compress_level": COMPRESS_LEVEL}

    @classmethod
    def unify(cls, pictures: list[Pillow.Image]) -> list[Pillow.Image]:
        """Convert the frames of an animation to a common mode: it has one palette, and alpha in all frames or none."""
        modes = {picture.mode for picture in pictures}
        palettes = {(tuple(x.getpalette() or ()), x.info.get("transparency")) for x in pictures}
        if len(modes) == 1 and (modes != {"P"} or len(palettes) == 1):
            return pictures
        has_alpha = any(picture.has_transparency_data for picture in pictures)
        if modes <= {"1", "L", "LA"}:
            mode = "LA" if has_alpha else "L"
        else:
            mode = "RGBA" if has_alpha else "RGB"
        return [picture if picture.mode == mode else picture.convert(mode) for picture in pictures]

    @classmethod
    def save(cls, file: IO[bytes], pictures: list[Pillow.Image], source: ImageFormat, options: dict[str, Any]) -> None:
        """Write with Pillow, and the chunks that Pillow does not write."""
        mode, palette = pictures[0].mode, bytes(pictures[0].getpalette() or b"")
        for kind, data in sample_chunks(source.info, mode, 1 if mode == "1" else 8, palette):
            options["pnginfo"].add(kind, data)
        chunks = further_chunks(source.info)
        if "dpi" not in options:  # without a unit: the aspect of pixels
            chunks += [chunk for chunk in source.info.get("png_chunks", ()) if chunk[0] == b"pHYs"][:1]
        insert_chunks(file, pictures[0], chunks, options)

    @classmethod
    def animation_options(cls, source: ImageFormat, infos: list[FrameInfo], mode: str) -> dict[str, Any]:
        """Return the further options of Pillow's writer for an APNG."""
        options = super().animation_options(source, infos, mode)
        has_default_image = bool(source.info.get("default_image"))  # the first image is no frame of the animation
        disposals = [info.get("disposal") or 0 for info in infos[has_default_image:]]
        # Frames cover the whole image and look the same without. Pillow disposes of RGBA only, and goes back to the
        # image before the last as it was shown.
        can_dispose = source.container == cls.name and mode == "RGBA"
        for index, disposal in enumerate(disposals):
            if not can_dispose or (disposal == RESTORE_PREVIOUS and (index == 0 or disposals[index - 1])):
                disposals[index] = 0
        return (
            options
            | {
                "blend": 0,  # each frame replaces what it covers
                "default_image": has_default_image,
                "duration": options["duration"][has_default_image:],
                "disposal": disposals,
            }
        )


def _is_text(key: str, value: Any) -> bool:
    """Return whether Pillow's info is a text of the file whose keyword happens to be a key of Pillow."""
    if key == "exif":
        return not (isinstance(value, bytes) and value.startswith(EXIF_PREFIX))
    return isinstance(value, str) and key not in ("comment", "mode")
