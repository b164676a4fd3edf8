"""TIFF and BigTIFF, of any number of pages, of 8 and 16 bits and floats."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO, Any, ClassVar

import numpy as np
from PIL import Image as Pillow
from PIL import TiffImagePlugin
from PIL.ExifTags import Base as Tag

from denoise.files.image.container import (
    NATURAL_MODES,
    FrameInfo,
    frame_info,
    interleave_alpha,
    split_alpha,
)
from denoise.files.image.orientation import undo_orientation
from denoise.files.image.pillow import PillowContainer, file_info, palette_size, to_pillow
from denoise.files.image.tiff_codec import (
    BLACK_IS_ZERO,
    BYTE_CODECS,
    COLOUR_CHANNELS,
    DEFAULT_CODING,
    HORIZONTAL_PREDICTOR,
    NO_PREDICTOR,
    TiffPicture,
    needs_codec,
    read_page,
    write_page,
)
from denoise.files.image.tiff_tags import EXIF_GROUPS, Page, metadata_tags, page_size, read_metadata, read_pages
from denoise.signals import Image, ImageFormat

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BILEVEL_COMPRESSIONS = ("group3", "group4", "tiff_ccitt")
PREDICTED_COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "zstd")
JPEG_MODES = ("L", "RGB", "CMYK")
JPEG_QUALITY = 95


class Tiff(PillowContainer[TiffPicture]):
    """TIFF and BigTIFF. Pages of 8 bits go through Pillow, others through `tiff_codec`."""

    name = "TIFF"
    extensions = (".tif", ".tiff")
    modes: ClassVar[dict[str, str]] = {"L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "CMYK"}
    dtypes = (np.uint8, np.uint16, np.float32)
    has_bilevel = True
    palette_modes = ("RGB",)
    has_pages = True
    plugin = TiffPicture

    @classmethod
    def matches(cls, head: bytes) -> bool:
        """Return whether a file starts with a signature of TIFF or BigTIFF."""
        return head[:4] in SIGNATURES

    def read_header(self) -> None:
        """Read the tags of all pages.

        Raises:
            InputError: the list of pages is damaged, or the first page is above the limit of size.
        """
        self._pages = read_pages(self.file)
        self.n_frames = len(self._pages)
        page = self._pages[0]
        self.size = page_size(page)
        self.bits = max(8, *page.get(Tag.BitsPerSample, (1,)))
        self.limit.check(*self.size)
        if needs_codec(page):
            channels = COLOUR_CHANNELS.get(page.get(Tag.PhotometricInterpretation, BLACK_IS_ZERO), 1)
            has_alpha = page.get(Tag.SamplesPerPixel, 1) > channels
            self.mode, self.info = NATURAL_MODES.get((channels, has_alpha), "L"), {}
        else:
            picture = self.open_picture()
            self.mode, self.info = picture.mode, file_info(picture)
        self.info |= read_metadata(self.file, page)

    def read_frames(self) -> Iterator[tuple[Image, FrameInfo]]:
        """Decode the pages.

        Yields:
            The page and what the file holds about it.
        """
        picture: TiffPicture | None = None
        for index, page in enumerate(self._pages):
            if needs_codec(page):
                decoded = self._decode_page(page)
            else:
                picture = picture or self.open_picture()
                picture.seek(index)
                decoded = self._load_page(picture, page)
            if index == self.n_frames - 1:
                picture = None  # the caller works on the last page while no decoder holds a copy
            yield decoded
            del decoded

    def _decode_page(self, page: Page) -> tuple[Image, FrameInfo]:
        self.limit.check(*page_size(page))
        pixels, coding = read_page(self.file, page)
        bits = pixels.itemsize * 8
        frame = split_alpha(pixels, COLOUR_CHANNELS[page.get(Tag.PhotometricInterpretation, BLACK_IS_ZERO)])
        mode = NATURAL_MODES[frame.pixels.shape[2], frame.alpha is not None]
        return frame, read_metadata(self.file, page) | {"mode": mode, "bits": bits, "tiff": coding}

    def _load_page(self, picture: TiffPicture, page: Page) -> tuple[Image, FrameInfo]:
        self.limit.check(*page_size(page))
        info = read_metadata(self.file, page)
        compression = picture.info.get("compression", "raw")
        info["tiff"] = {"compression": compression, "predictor": page.get(Tag.Predictor, NO_PREDICTOR)}
        picture.load()  # Pillow turns the pixels by the orientation
        frame, pillow_info = self.decode(picture)
        return undo_orientation(frame, page.get(Tag.Orientation, 1)), info | pillow_info

    @classmethod
    def write(cls, file: IO[bytes], frames: Iterator[Image], source: ImageFormat, name: str) -> None:
        """Write the frames as pages.

        Args:
            file: empty file, readable and seekable.
            frames: at least one.
            source: format of the file that the frames come from.
            name: name of the target in errors.

        Raises:
            InputError: TIFF cannot hold a frame.
        """
        with TiffImagePlugin.AppendingTiffWriter(file) as pages:
            for index, frame in enumerate(frames):
                info = frame_info(source, index)
                mode = cls.stored_mode(frame, info, name)
                coding = info.get("tiff", DEFAULT_CODING)
                tags = metadata_tags(info if "tiff" in info else source.info)
                compression = _pillow_compression(coding, mode)
                # libtiff cannot write EXIF groups: those pages are compressed by `tiff_codec`, or not at all.
                has_groups = compression != "raw" and any(group in tags for group in EXIF_GROUPS)
                if frame.pixels.dtype != np.uint8 or (has_groups and mode in NATURAL_MODES.values()):
                    pages.write(_encode_page(frame, coding, tags))
                else:
                    picture, _ = to_pillow(frame, mode, palette_size(info, source))
                    _save_page(pages, picture, "raw" if has_groups else compression, coding, tags)
                pages.newFrame()


def _encode_page(frame: Image, coding: dict[str, Any], tags: Pillow.Exif) -> bytes:
    groups = {group: tags.get_ifd(group) for group in EXIF_GROUPS if group in tags}
    file = io.BytesIO()
    write_page(file, interleave_alpha(frame), frame.alpha is not None, coding, (dict(tags) | groups).items())
    return file.getvalue()


def _pillow_compression(coding: dict[str, Any], mode: str) -> str:
    """Return Pillow's name of the compression of a page of 8 bits."""
    compression = coding["compression"]
    if not isinstance(compression, str):
        return BYTE_CODECS.get(compression, "raw")
    is_unfit = (compression in BILEVEL_COMPRESSIONS and mode != "1") or (
        compression == "jpeg" and mode not in JPEG_MODES
    )
    return "tiff_adobe_deflate" if is_unfit else compression


def _save_page(
    pages: TiffImagePlugin.AppendingTiffWriter,
    picture: Pillow.Image,
    compression: str,
    coding: dict[str, Any],
    tags: Pillow.Exif,
) -> None:
    if coding.get("predictor") == HORIZONTAL_PREDICTOR and compression in PREDICTED_COMPRESSIONS:
        tags[Tag.Predictor] = NO_PREDICTOR if picture.mode == "1" else HORIZONTAL_PREDICTOR
    options = {"quality": JPEG_QUALITY} if compression == "jpeg" else {}
    picture.save(pages, "TIFF", compression=compression, tiffinfo=tags, **options)
