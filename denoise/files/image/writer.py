"""Write frames as the twin of the file that they came from."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import GifImagePlugin, PngImagePlugin, TiffImagePlugin
from PIL import Image as Pillow

from denoise.errors import InputError
from denoise.files.atomic import atomic_file
from denoise.files.image.palette import to_palette
from denoise.files.image.png16 import Chunks, write_png16
from denoise.files.image.tiff_codec import EXIF_GROUPS, TIFF_BYTE_CODECS, tiff_tags, write_tiff
from denoise.signals import Image, ImageFormat

CONTAINERS = {
    ".png": "PNG", ".apng": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG",
    ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".bmp": "BMP", ".dib": "BMP", ".gif": "GIF",
}  # fmt: skip

# What Pillow is to write for each natural mode; None: the container cannot hold it.
MODES: dict[str, dict[str, str]] = {
    "PNG": {"L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA"},
    "JPEG": {"L": "L", "RGB": "RGB", "CMYK": "CMYK"},
    "TIFF": {"L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "CMYK"},
    "WEBP": {"L": "RGB", "LA": "RGBA", "RGB": "RGB", "RGBA": "RGBA"},
    "BMP": {"L": "L", "LA": "RGBA", "RGB": "RGB", "RGBA": "RGBA"},
    "GIF": {"L": "P", "LA": "P", "RGB": "P", "RGBA": "P"},
}
MAX_SIDE = {"JPEG": 65_535, "GIF": 65_535, "WEBP": 16_383}
MAX_JPEG_BLOCK = 65_500  # of EXIF, XMP or a comment
DEEP = {"PNG": (np.uint16,), "TIFF": (np.uint16, np.float32)}

PNG_KEPT_CHUNKS = (b"cHRM", b"cICP", b"gAMA", b"sRGB", b"tIME", b"tEXt", b"zTXt", b"iTXt", b"sPLT")
# A threshold of 0.5, in the integers of a file.
WHITE = 128


def write_image(
    target: str | Path | BinaryIO, frames: Iterable[Image], format: ImageFormat, *, overwrite: bool = False
) -> None:
    """Write ``frames`` in the container, mode and depth of ``format``, with all that its ``info`` holds.

    The extension of ``target`` decides about the container where it names another one. Identical
    neighbours in an animated PNG or WebP become one frame of their common duration.

    Raises:
        InputError: the target exists or cannot be written; an unknown extension; a container that
            cannot hold the alpha, the depth, the inks or the number of the frames.
    """
    name = str(target) if isinstance(target, str | Path) else getattr(target, "name", "<stdout>")
    container = format.container
    if isinstance(target, str | Path):
        extension = Path(target).suffix.lower()
        if extension not in CONTAINERS:
            known = " ".join(sorted(CONTAINERS))
            raise InputError(f"{name}: the extension is {extension or 'missing'!r}; expected one of {known}.")
        container = CONTAINERS[extension]
    writer = _Writer(name, container, format)
    if isinstance(target, str | Path):
        with atomic_file(Path(target), overwrite=overwrite) as path, path.open("w+b") as fp:
            writer.write(fp, frames)
    else:
        buffer = io.BytesIO()  # a pipe cannot seek, and a failure must leave nothing behind
        writer.write(buffer, frames)
        target.write(buffer.getbuffer())


class _Writer:
    def __init__(self, name: str, container: str, format: ImageFormat) -> None:
        self.name, self.container, self.format, self.info = name, container, format, format.info
        self.twin = container == format.container

    def write(self, fp: IO[bytes], frames: Iterable[Image]) -> None:
        rest = iter(frames)
        first = next(rest, None)
        if first is None:
            raise InputError(f"{self.name}: 0 frames came; expected at least one. Check the input.")
        if self.container == "TIFF":
            return self._write_tiff(fp, chain([first], rest))
        second = next(rest, None)
        if second is not None:
            if self.container not in ("PNG", "WEBP", "GIF") or self.format.container == "TIFF":
                raise InputError(
                    f"{self.name}: {self.container} holds one picture; several frames or pages came. "
                    "Choose the extension of the input."
                )
            rest = chain([second], rest)
        if self.container == "GIF":
            return self._write_gif(fp, chain([first], rest))
        how = self._how(0)
        mode = self._mode(first, how)
        if first.pixels.dtype != np.uint8:
            if second is not None:
                raise InputError(f"{self.name}: frames of 16 bits cannot be animated; expected 8. Convert them.")
            return write_png16(fp, _join(first), self._deep_chunks())
        if self.container == "BMP" and mode == "RGBA":
            return _write_bmp_alpha(fp, first, self.info.get("dpi"))
        options = self._options(mode)
        picture = self._picture(first, mode, how, options)
        if second is None:
            picture.save(fp, self.container, **options)
            return
        del first
        more = [self._picture(x, self._mode(x, self._how(i)), self._how(i), {}) for i, x in enumerate(rest, 1)]
        hows = [self._how(i) for i in range(len(more) + 1)]
        options |= {"save_all": True, "append_images": more, "loop": self.info.get("loop", 0)}
        options["duration"] = [how.get("duration", 100) for how in hows]
        if self.container == "PNG":
            options["blend"] = 0  # frames come whole: each replaces what it covers
            apart = bool(self.info.get("default_image"))  # the first picture is no frame of the animation
            options["default_image"], options["duration"] = apart, options["duration"][apart:]
            # Pillow cannot dispose of palettes; frames that come whole look the same without.
            keep = self.twin and mode in ("RGB", "RGBA")
            options["disposal"] = [how.get("disposal") or 0 if keep else 0 for how in hows[apart:]]
        picture.save(fp, self.container, **options)

    def _how(self, index: int) -> dict[str, Any]:
        """What the file held about a frame; a pipeline may hand on more frames than it had."""
        frames = self.info.get("frames") or [{}]
        how = frames[min(index, len(frames) - 1)]
        return {"mode": self.format.mode, "bits": self.format.bits} | how

    def _mode(self, frame: Image, how: dict[str, Any]) -> str:
        channels, dtype = frame.pixels.shape[2], frame.pixels.dtype
        if max(frame.pixels.shape) > (limit := MAX_SIDE.get(self.container, 2**31)):
            height, width = frame.pixels.shape[:2]
            raise InputError(
                f"{self.name}: {width} x {height} pixels; {self.container} holds at most {limit} a side. Write PNG."
            )
        if dtype != np.uint8 and dtype not in DEEP.get(self.container, ()):
            raise InputError(
                f"{self.name}: {self.container} cannot hold {'floats' if dtype == np.float32 else '16 bits'}; "
                "8 bits were expected. Write PNG (16 bits) or TIFF."
            )
        natural = {1: "L", 3: "RGB", 4: "CMYK"}[channels] + ("" if frame.alpha is None else "A")
        mode = MODES[self.container].get(natural)
        if mode is None:
            what = "alpha" if frame.alpha is not None else "CMYK"
            raise InputError(f"{self.name}: {self.container} cannot hold {what}; {natural} came. Write TIFF or PNG.")
        if dtype != np.uint8 or self.container in ("JPEG", "WEBP", "GIF"):
            return mode
        if how["mode"] == "1" and natural == "L":
            return "1"
        if how["mode"] == "P" and natural in ("RGB", "RGBA" if self.container == "PNG" else "RGB"):
            return "P"
        return mode

    def _picture(self, frame: Image, mode: str, how: dict[str, Any], options: dict[str, Any]) -> Pillow.Image:
        """The frame for Pillow; a palette's transparency goes into ``options``."""
        pixels = frame.pixels
        if mode == "1":
            return Pillow.fromarray(pixels[..., 0] >= WHITE)
        if pixels.shape[2] == 4:
            return Pillow.fromarray(pixels, "CMYK")
        picture = Pillow.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        if frame.alpha is not None:
            picture.putalpha(Pillow.fromarray(frame.alpha))
        if mode == "P":
            picture, alphas = to_palette(picture, min(256, how.get("colors") or self.info.get("colors") or 256))
            if alphas is not None:
                options["transparency"] = alphas
            return picture
        return picture if picture.mode == mode else picture.convert(mode)

    def _options(self, mode: str) -> dict[str, Any]:
        info = self.info
        options: dict[str, Any] = {key: info[key] for key in ("icc_profile", "exif", "dpi") if key in info}
        if self.container == "BMP":
            return {key: options[key] for key in ("dpi",) if key in options}
        if self.container == "PNG":
            text = PngImagePlugin.PngInfo()
            for kind, data in self._kept_chunks():
                text.add(kind, data)
            return options | {"pnginfo": text, "compress_level": 4}  # twice as fast as 6, a little larger
        if "xmp" in info:
            options["xmp"] = info["xmp"]
        if self.container == "JPEG":
            if isinstance(info.get("comment"), bytes | str):
                options["comment"] = info["comment"]
            for key in ("exif", "xmp", "comment"):
                if len(options.get(key, b"")) > MAX_JPEG_BLOCK:
                    raise InputError(
                        f"{self.name}: {len(options[key])} bytes of {key}; "
                        f"JPEG holds at most {MAX_JPEG_BLOCK}. Write PNG."
                    )
            return options | info.get("jpeg", {"quality": 95, "subsampling": 0})
        options.pop("dpi", None)  # WebP has no place for it but EXIF
        lossless = info.get("lossless", self.format.container != "JPEG")
        return options | {"lossless": lossless, "quality": 80 if lossless else 90, "exact": True}

    def _kept_chunks(self) -> Chunks:
        chunks = self.info.get("png_chunks")
        if chunks is None:
            return [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + self.info["xmp"])] if "xmp" in self.info else []
        # A small fourth letter marks private chunks that stay true of other pixels.
        return [(k, d) for k, d in chunks if k in PNG_KEPT_CHUNKS or (k[1:2].islower() and k[3:4].islower())]

    def _deep_chunks(self) -> Chunks:
        raw = dict(self.info.get("png_chunks", ()))
        made: Chunks = []
        if icc := self.info.get("icc_profile"):
            made.append((b"iCCP", raw.get(b"iCCP") or b"ICC Profile\0\0" + zlib.compress(icc)))
        if b"pHYs" in raw:
            made.append((b"pHYs", raw[b"pHYs"]))
        elif dpi := self.info.get("dpi"):
            made.append((b"pHYs", struct.pack(">IIB", *(round(x / 0.0254) for x in dpi), 1)))
        if exif := self.info.get("exif"):
            made.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
        return made + [(k, d) for k, d in self._kept_chunks() if not (k == b"sRGB" and icc)]

    def _write_gif(self, fp: IO[bytes], frames: Iterator[Image]) -> None:
        """Every frame whole, with a palette of its own: Pillow's writer would merge equal neighbours."""
        for index, frame in enumerate(frames):
            how = self._how(index)
            self._mode(frame, how)
            height, width = frame.pixels.shape[:2]
            if index == 0:
                fp.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0))
                if self.info.get("loop") is not None:
                    fp.write(b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", self.info["loop"], 0))
                if comment := self.info.get("comment"):
                    data = comment.encode() if isinstance(comment, str) else comment
                    blocks = [data[i : i + 255] for i in range(0, len(data), 255)]
                    fp.write(b"!\xfe" + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0")
            if frame.alpha is not None and not np.isin(frame.alpha, (0, 255)).all():
                raise InputError(f"{self.name}: GIF holds no half-transparent pixels; some came. Write PNG or WebP.")
            options: dict[str, Any] = {}
            picture = self._picture(frame, "P", {"colors": 256}, options)
            transparency = options.get("transparency")
            options = {"include_color_table": True, "duration": how.get("duration", 0)}
            options["disposal"] = how.get("disposal") or 0
            if transparency is not None:
                options["transparency"] = transparency.index(0)
            if frame.alpha is not None:
                options["disposal"] = 2  # the next frame comes whole and may be transparent here
            fp.writelines(GifImagePlugin.getdata(picture, (0, 0), **options))
        fp.write(b";")

    def _write_tiff(self, fp: IO[bytes], frames: Iterator[Image]) -> None:
        with TiffImagePlugin.AppendingTiffWriter(fp) as pages:
            for index, frame in enumerate(frames):
                how = self._how(index)
                mode = self._mode(frame, how)
                tiff = how.get("tiff", {"compression": 8, "predictor": 2})
                tags = tiff_tags(how if "tiff" in how else self.info)
                if frame.pixels.dtype != np.uint8:
                    groups = {tag: tags.get_ifd(tag) for tag in EXIF_GROUPS if tag in tags}
                    page = io.BytesIO()
                    write_tiff(page, _join(frame), frame.alpha is not None, tiff, (dict(tags) | groups).items())
                    pages.write(page.getbuffer())
                else:
                    self._save_tiff_page(pages, self._picture(frame, mode, how, {}), tiff, tags)
                pages.newFrame()

    def _save_tiff_page(self, fp: IO[bytes], picture: Pillow.Image, tiff: dict[str, Any], tags: Pillow.Exif) -> None:
        compression = tiff["compression"]
        if not isinstance(compression, str):
            compression = TIFF_BYTE_CODECS.get(compression, "raw")
        bilevel = compression in ("group3", "group4", "tiff_ccitt")
        if (bilevel and picture.mode != "1") or (compression == "jpeg" and picture.mode not in ("L", "RGB", "CMYK")):
            compression = "tiff_adobe_deflate"
        if tiff.get("predictor") == 2 and compression in ("tiff_lzw", "tiff_adobe_deflate", "zstd"):
            tags[317] = 2 if picture.mode not in ("1",) else 1
        options = {"quality": 95} if compression == "jpeg" else {}
        picture.save(fp, "TIFF", compression=compression, tiffinfo=tags, **options)


def _join(frame: Image) -> NDArray[Any]:
    return frame.pixels if frame.alpha is None else np.concatenate([frame.pixels, frame.alpha[..., None]], axis=2)


def _write_bmp_alpha(fp: IO[bytes], frame: Image, dpi: tuple[float, float] | None) -> None:
    """BMP with a header of version 4: the one that Pillow writes has no place for alpha."""
    height, width = frame.pixels.shape[:2]
    x, y = (round(value / 0.0254) for value in dpi or (96, 96))
    data = np.empty((height, width, 4), np.uint8)
    data[..., :3] = frame.pixels[..., ::-1]
    data[..., 3] = 255 if frame.alpha is None else frame.alpha
    fp.write(struct.pack("<2sIII", b"BM", 122 + data.nbytes, 0, 122))
    fp.write(struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, data.nbytes, x, y, 0, 0))
    fp.write(struct.pack("<IIII4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs").ljust(68, b"\0"))
    fp.write(data[::-1].tobytes())
