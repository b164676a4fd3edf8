"""Read image files frame by frame, in the integers of the file; `write_image` makes their twins.

::

    with ImageReader("in.png") as reader:
        write_image("out.png", map(denoise, reader), reader.format)
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFile

from denoise.errors import ConfigError, InputError
from denoise.files.image.pillow import DAMAGE, blame, carried, container_of, open_picture
from denoise.files.image.png16 import bands, read_png16
from denoise.files.image.tiff_codec import TIFF_COLOURS, Ifd, is_deep, read_tiff, tiff_info, tiff_pages
from denoise.signals import Image, ImageFormat

BYTES_PER_PIXEL = 16  # of the most wasteful file, when a pipe has to be read into memory
NATURAL = {(1, False): "L", (1, True): "LA", (3, False): "RGB", (3, True): "RGBA", (4, False): "CMYK"}

# Pillow turns TIFF pixels upright while it loads them; these turn them back, by orientation.
AS_STORED: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: np.rot90,
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
}
UPRIGHT = AS_STORED | {6: AS_STORED[8], 8: AS_STORED[6]}  # all others undo themselves


class ImageReader:
    """The frames of an image file, decoded one at a time; a context manager that can be iterated again.

    ``format`` says how to make the file's twin; what belongs to single frames (durations, kinds of
    TIFF pages) is added to it as they are yielded. ``size`` is (width, height) of the first frame in
    pixels, as stored: an EXIF orientation is kept, never applied. ``warnings`` are remarks of Pillow.

    Raises:
        InputError: not an image that can be read, damaged, cut off, or above ``max_megapixels``.
    """

    def __init__(self, source: str | Path | BinaryIO, *, max_megapixels: float = 200, name: str | None = None) -> None:
        self.name = name or str(source if isinstance(source, str | Path) else getattr(source, "name", "<stdin>"))
        check_megapixels(max_megapixels)
        self.max_megapixels = max_megapixels
        self.warnings: list[str] = []
        self._owns = isinstance(source, str | Path)
        self._pages: list[Ifd] = []  # of a TIFF
        self._deep_png = 0  # samples per pixel of a 16-bit PNG in colour or with alpha
        with self._blame():
            self._file = self._open_file(source)
        try:
            with self._blame():
                self._read_header()
        except BaseException:
            self.close()
            raise

    def _blame(self, frame: int = 0) -> AbstractContextManager[None]:
        return blame(f"{self.name}: frame {frame + 1}" if frame else self.name, self.warnings)

    def _open_file(self, source: str | Path | BinaryIO) -> BinaryIO:
        if isinstance(source, str | Path):
            path = Path(source)
            if path.is_dir():
                raise InputError("is a directory; an image file was expected. Name the files in it.")
            try:
                return path.open("rb")
            except FileNotFoundError as error:
                raise InputError("no such file; an image was expected. Check the path.") from error
            except OSError as error:
                raise InputError(f"cannot be opened ({error.strerror}); a readable file was expected.") from error
        if source.seekable() and source.tell() == 0:
            return source
        limit = int(self.max_megapixels * 1e6) * BYTES_PER_PIXEL + (64 << 20)
        data = source.read(limit + 1)
        if len(data) > limit:
            raise InputError(
                f"more than {limit >> 20} MiB came; expected an image of up to {self.max_megapixels:g} megapixels. "
                "Raise --max-megapixels."
            )
        return io.BytesIO(data)

    def _read_header(self) -> None:
        container = container_of(self._file.read(16))
        info: dict[str, Any] = {}
        if container == "TIFF":
            self._pages = tiff_pages(self._file)
            page, self.n_frames = self._pages[0], len(self._pages)
            self.size, bits = (page[256], page[257]), max(8, *page.get(258, (1,)))
            self._check_size(self.size)
            if is_deep(page):
                base = TIFF_COLOURS.get(page.get(262, 1), 1)
                mode = NATURAL.get((base, page.get(277, 1) > base), "L")
            else:
                picture = open_picture(self._file, container)
                mode, info = picture.mode, carried(picture, self._file)
            info |= tiff_info(self._file, page)
        else:
            picture = open_picture(self._file, container)
            self.size, self.n_frames, bits = picture.size, getattr(picture, "n_frames", 1), 8
            self._check_size(self.size)
            mode, info = "P" if container == "GIF" else picture.mode, carried(picture, self._file)
            if picture.format == "MPO":
                self.n_frames = 1
                self.warnings.append("holds several pictures (MPO); the first one is read.")
            if mode == "P" and container != "GIF":
                info["colors"] = len(picture.getpalette() or []) // 3
            if container == "PNG":
                mode, bits = self._png_kind(picture.mode, info)
        self.format = ImageFormat(container, mode, bits, info | {"frames": []})

    def _png_kind(self, mode: str, info: dict[str, Any]) -> tuple[str, int]:
        self._file.seek(24)
        bits, colour = self._file.read(2)
        if bits == 16:
            if self.n_frames > 1:
                raise InputError("is an animation of 16 bits; expected 8. Convert it to 8 bits.")
            self._deep_png = {2: 3, 4: 2, 6: 4}.get(colour, 0)
            mode = {0: "L", 2: "RGB", 4: "LA", 6: "RGBA"}[colour]
        # A colour that means "transparent" would not survive denoising: it becomes a channel.
        self._key = info.get("transparency") if mode in ("1", "L", "RGB") else None
        if self._key is not None:
            mode = "RGBA" if mode == "RGB" else "LA"
        return mode, max(8, bits)

    def _check_size(self, size: tuple[int, int]) -> None:
        width, height = size
        if width < 1 or height < 1:
            raise InputError(f"is {width} x {height} pixels; expected at least 1 x 1. Re-export the file.")
        if width * height > self.max_megapixels * 1e6:
            raise InputError(
                f"is {width} x {height} pixels ({width * height / 1e6:,.1f} megapixels); expected at most "
                f"{self.max_megapixels:g}. Raise --max-megapixels if the file can be trusted."
            )

    def __iter__(self) -> Iterator[Image]:
        """Yield the frames as `Image`, the first to the last.

        Raises:
            InputError: the data are cut off, damaged, not finite, or of a kind that is not supported.
        """
        told: list[dict[str, Any]] = self.format.info["frames"]
        told.clear()
        picture = None
        for index in range(self.n_frames):
            with self._blame(index):
                if self._pages and is_deep(self._pages[index]):
                    frame, how = self._deep_page(index)
                elif self._deep_png:
                    x = read_png16(self._file, self._deep_png)
                    frame, how = self._keyed(_split(x, 1 if self._deep_png == 2 else 3)), {}
                else:
                    picture = picture or open_picture(self._file, self.format.container)
                    picture.seek(index)
                    frame, how = self._picture(picture, index)
            told.append(how)
            if index == self.n_frames - 1:
                picture = None  # lets go of Pillow's copy while the caller works on the last frame
            yield frame
            del frame

    def _deep_page(self, index: int) -> tuple[Image, dict[str, Any]]:
        page = self._pages[index]
        self._check_size((page[256], page[257]))
        x, tiff = read_tiff(self._file, page)
        frame = _split(x, TIFF_COLOURS[page.get(262, 1)])
        mode = NATURAL[frame.pixels.shape[2], frame.alpha is not None]
        return frame, tiff_info(self._file, page) | {"mode": mode, "bits": x.itemsize * 8, "tiff": tiff}

    def _picture(self, picture: ImageFile.ImageFile, index: int) -> tuple[Image, dict[str, Any]]:
        how: dict[str, Any] = {}
        if self._pages:
            page = self._pages[index]
            self._check_size((page[256], page[257]))
            compression = picture.info.get("compression", "raw")
            how = tiff_info(self._file, page) | {"tiff": {"compression": compression, "predictor": page.get(317, 1)}}
        picture.load()
        mode = picture.mode
        frame = self._convert(picture)
        if self._pages and (turn := AS_STORED.get(page.get(274, 1))):
            alpha = None if frame.alpha is None else np.ascontiguousarray(turn(frame.alpha))
            frame = Image(np.ascontiguousarray(turn(frame.pixels)), alpha)
        if self.format.container == "PNG":
            frame = self._keyed(frame)
            mode = mode if self._key is None else self.format.mode
        if mode == "P" and self.format.container != "GIF":
            how["colors"] = len(picture.getpalette() or []) // 3
        how |= {key: picture.info[key] for key in ("duration", "disposal") if key in picture.info}
        if (disposal := getattr(picture, "disposal_method", None)) is not None:
            how["disposal"] = disposal
        return frame, how | {"mode": mode}

    def _keyed(self, frame: Image) -> Image:
        """The frame with its transparent colour (tRNS of a PNG without a palette) as alpha."""
        if self._key is None:
            return frame
        hit = (frame.pixels == np.asarray(self._key)).all(axis=-1)
        return replace(frame, alpha=np.where(hit, 0, frame.full_scale).astype(frame.pixels.dtype))

    def _convert(self, picture: Pillow.Image) -> Image:
        """A decoded picture as an `Image`."""
        mode, dtype = picture.mode, np.dtype(np.uint16 if picture.mode.startswith("I;16") else np.uint8)
        # Frames of a GIF come as RGB with a transparent colour; that of a PNG is left to `_keyed`.
        clear = picture.has_transparency_data and (mode in ("P", "PA") or self.format.container == "GIF")
        # YCbCr of a TIFF becomes RGB for good: Pillow's way back rounds down, and darkens.
        if mode in ("P", "PA", "RGB", "YCbCr", "RGBX"):
            mode = "RGBA" if clear else "RGB"
        elif mode == "1":
            mode = "L"
        elif dtype == np.uint8 and mode not in ("L", "LA", "RGBA", "CMYK"):
            raise InputError(f"is of mode {mode}; expected grey, RGB, a palette or CMYK. Convert the file.")
        channels = {"RGB": 3, "RGBA": 3, "CMYK": 4}.get(mode, 1)
        pixels = np.empty((picture.height, picture.width, channels), dtype)
        alpha = np.empty(pixels.shape[:2], dtype) if mode in ("LA", "RGBA") else None
        for y, band in bands(picture, mode):
            rows = band.reshape(*band.shape[:2], -1)
            pixels[y : y + len(rows)] = rows[..., :channels]
            if alpha is not None:
                alpha[y : y + len(rows)] = rows[..., channels]
        return Image(pixels, alpha)

    def close(self) -> None:
        """Close the file, unless it was opened by the caller."""
        if self._owns:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_image(source: str | Path | BinaryIO, *, max_megapixels: float = 200, name: str | None = None) -> Image:
    """The first frame of an image file.

    Raises:
        InputError: as `ImageReader`.
    """
    with ImageReader(source, max_megapixels=max_megapixels, name=name) as reader:
        return next(iter(reader))


def check_megapixels(most: float) -> None:
    """Refuse a limit that is none."""
    if not 0 < most < math.inf:
        raise ConfigError(f"max_megapixels is {most:g}; expected a number above 0.")


def upright(frame: Image, format: ImageFormat) -> Image:
    """The frame as viewers show it, turned by the EXIF orientation of ``format``; a view, not a copy."""
    exif, orientation = Pillow.Exif(), 1
    # EXIF that cannot be read turns nothing, as in viewers.
    with warnings.catch_warnings(action="ignore"), suppress(*DAMAGE):
        exif.load(format.info.get("exif", b""))
        orientation = exif.get(274, 1)
    turn = UPRIGHT.get(orientation, lambda x: x)
    return Image(turn(frame.pixels), None if frame.alpha is None else turn(frame.alpha))


def _split(x: NDArray[Any], base: int) -> Image:
    """Colour and alpha apart."""
    if x.shape[2] == base:
        return Image(x)
    return Image(np.ascontiguousarray(x[..., :base]), np.ascontiguousarray(x[..., base]))
