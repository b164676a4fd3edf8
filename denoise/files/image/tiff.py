"""TIFF and BigTIFF, of any number of pages, of 8 and 16 bits and floats."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
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
    UNSPECIFIED,
    TiffPicture,
    encode_page,
    isolate_page,
    needs_codec,
    read_blocks,
    read_page,
)
from denoise.files.image.tiff_directory import BIG_ENDIAN, LITTLE_ENDIAN, Directory, DirectoryWriter, Field, read_header
from denoise.files.image.tiff_tags import Page, metadata_fields, page_size, read_metadata, read_pages
from denoise.signals import Image, ImageFormat

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BILEVEL_COMPRESSIONS = ("group3", "group4", "tiff_ccitt")
PREDICTED_COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "zstd")
JPEG_MODES = ("L", "RGB", "CMYK")
JPEG_QUALITY = 95
MIN_MASK_FRACTION = 0.9


class Tiff(PillowContainer[TiffPicture]):
    """TIFF and BigTIFF. Pages of 8 bits go through Pillow, others through `tiff_codec`."""

    name = "TIFF"
    extensions: ClassVar[tuple[str, ...]] = (".tif", ".tiff")
    modes: ClassVar[dict[str, str]] = {"L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "CMYK"}
    dtypes = (np.uint8, np.uint16, np.float32)
    has_bilevel = True
    palette_modes = ("RGB",)
    has_pages = True
    has_premultiplied_alpha = True
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
        header = read_header(self.file)
        self._order = header.order
        self._is_unknown_to_pillow = header.is_big and header.order == BIG_ENDIAN
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
            picture = self._open_page(0, page)
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
            elif self._is_unknown_to_pillow:
                decoded = self._load_page(self._open_page(index, page), page)
            else:
                picture = picture or self.open_picture()
                picture.seek(index)
                decoded = self._load_page(picture, page)
            if index == self.n_frames - 1:
                picture = None  # the caller works on the last page while no decoder holds a copy
            yield decoded
            del decoded

    def _open_page(self, index: int, page: Page) -> TiffPicture:
        if self._is_unknown_to_pillow:
            return TiffPicture(isolate_page(self.file, page))
        picture = self.open_picture()
        picture.seek(index)
        return picture

    def _decode_page(self, page: Page) -> tuple[Image, FrameInfo]:
        self.limit.check(*page_size(page))
        pixels, coding = read_page(self.file, page)
        bits = pixels.itemsize * 8
        frame = split_alpha(pixels, COLOUR_CHANNELS[page.get(Tag.PhotometricInterpretation, BLACK_IS_ZERO)])
        if frame.alpha is not None and UNSPECIFIED in coding["extra"]:
            frame = replace(frame, is_alpha_opacity=_looks_like_opacity(frame.alpha, frame.full_scale))
        mode = NATURAL_MODES[frame.pixels.shape[2], frame.alpha is not None]
        return frame, read_metadata(self.file, page) | {
            "mode": mode,
            "bits": bits,
            "tiff": coding | {"order": self._order},
        }

    def _load_page(self, picture: TiffPicture, page: Page) -> tuple[Image, FrameInfo]:
        self.limit.check(*page_size(page))
        info = read_metadata(self.file, page)
        compression = picture.info.get("compression", "raw")
        predictor = page.get(Tag.Predictor, NO_PREDICTOR)
        info["tiff"] = {"compression": compression, "predictor": predictor, "order": self._order}
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
        writer: DirectoryWriter | None = None
        strips: Iterable[bytes]
        for index, frame in enumerate(frames):
            info = frame_info(source, index)
            mode = cls.stored_mode(frame, info, name)
            coding = info.get("tiff", DEFAULT_CODING)
            if writer is None:
                order = coding.get("order", LITTLE_ENDIAN)
                writer = DirectoryWriter(file, order)
            if frame.pixels.dtype != np.uint8:
                page, strips = encode_page(interleave_alpha(frame), frame.alpha is not None, coding, order)
            else:
                page, strips = _encode_picture(  # which holds no copy of the pixels while strips are written
                    to_pillow(frame, mode, palette_size(info, source), info.get("palette"))[0],
                    _pillow_compression(coding, mode),
                    coding,
                )
                if frame.alpha is not None and "extra" in coding:
                    page[Tag.ExtraSamples] = Field.shorts(*coding["extra"])
            writer.write(metadata_fields(info if "tiff" in info else source.info) | page, strips)


def _looks_like_opacity(channel: NDArray[Any], full_scale: float) -> bool:
    """Return whether a channel of unspecified kind is a mask: nearly all opaque or transparent, and not all dark."""
    is_opaque = channel == full_scale
    return bool(is_opaque.any() and (is_opaque | (channel == 0)).mean() >= MIN_MASK_FRACTION)


def _pillow_compression(coding: dict[str, Any], mode: str) -> str:
    """Return Pillow's name of the compression of a page of 8 bits."""
    compression = coding["compression"]
    if not isinstance(compression, str):
        return BYTE_CODECS.get(compression, "raw")
    is_unfit = (compression in BILEVEL_COMPRESSIONS and mode != "1") or (
        compression == "jpeg" and mode not in JPEG_MODES
    )
    return "tiff_adobe_deflate" if is_unfit else compression


def _encode_picture(
    picture: Pillow.Image, compression: str, coding: dict[str, Any]
) -> tuple[Directory, Iterable[bytes]]:
    """Return the fields and strips of a page of 8 bits."""
    options: dict[str, Any] = {"quality": JPEG_QUALITY} if compression == "jpeg" else {}
    if coding.get("predictor") == HORIZONTAL_PREDICTOR and compression in PREDICTED_COMPRESSIONS:
        predictor = NO_PREDICTOR if picture.mode == "1" else HORIZONTAL_PREDICTOR
        options["tiffinfo"] = {Tag.Predictor: predictor}
    file = io.BytesIO()
    picture.save(file, "TIFF", compression=compression, **options)
    page, strips = read_blocks(file)
    page.setdefault(int(Tag.SamplesPerPixel), Field.shorts(1))
    return page, strips
