"""What an image file is and carries beside its pixels."""

from __future__ import annotations

import io
import logging
import lzma
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from PIL import BmpImagePlugin, GifImagePlugin, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL import Image as Pillow

from denoise.errors import InputError
from denoise.files.image.png16 import PNG_SIGNATURE, png_chunks
from denoise.files.image.tiff_codec import TiffPicture

# Pillow's readers by the first bytes of a file. Used without `PIL.Image.open`, which judges the size
# of a picture by a global of Pillow that belongs to the whole process.
OPENERS: dict[str, tuple[Callable[[bytes], bool], Callable[..., ImageFile.ImageFile]]] = {
    "PNG": (lambda head: head.startswith(PNG_SIGNATURE), PngImagePlugin.PngImageFile),
    "JPEG": (lambda head: head.startswith(b"\xff\xd8\xff"), JpegImagePlugin.jpeg_factory),
    "TIFF": (lambda head: head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffPicture),
    "WEBP": (lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", WebPImagePlugin.WebPImageFile),
    "BMP": (lambda head: head.startswith(b"BM"), BmpImagePlugin.BmpImageFile),
    "GIF": (lambda head: head[:6] in (b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
}
KEPT = ("icc_profile", "exif", "dpi", "xmp", "comment", "loop", "default_image", "transparency")
# What Pillow, zlib and struct raise on damaged files.
DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, TypeError, AttributeError,
    struct.error, zlib.error, lzma.LZMAError,
)  # fmt: skip


def container_of(head: bytes) -> str:
    """The container of a file that starts with ``head``.

    Raises:
        InputError: empty, or none that is known.
    """
    if not head:
        raise InputError("the file is empty (0 bytes); an image was expected. Get another copy.")
    for container, (accept, _) in OPENERS.items():
        if accept(head):
            return container
    if head[4:8] == b"ftyp":
        what = "looks like HEIC, AVIF or a video"
    elif head.lstrip().startswith((b"<svg", b"<?xml")):
        what = "looks like SVG or XML"
    elif all(9 <= byte < 127 for byte in head):
        what = "looks like text"
    else:
        what = "is of an unknown format"
    raise InputError(f"{what}; expected PNG, JPEG, TIFF, WebP, BMP or GIF. Convert the file.")


def open_picture(fp: BinaryIO, container: str) -> ImageFile.ImageFile:
    """Pillow's reader of the file, its header read."""
    fp.seek(0)
    return OPENERS[container][1](fp, "")


def carried(picture: ImageFile.ImageFile, fp: BinaryIO) -> dict[str, Any]:
    """What a twin of the file needs beside its pixels, whatever the frame; TIFF has it by pages."""
    info = {key: picture.info[key] for key in KEPT if picture.info.get(key) is not None}
    if isinstance(picture, PngImagePlugin.PngImageFile):
        info["png_chunks"] = list(png_chunks(fp))
    elif isinstance(picture, WebPImagePlugin.WebPImageFile):
        info["lossless"] = _webp_is_lossless(fp)
    elif isinstance(picture, JpegImagePlugin.JpegImageFile):
        info["jpeg"] = _jpeg_how(picture)
    return info


def _jpeg_how(picture: JpegImagePlugin.JpegImageFile) -> dict[str, Any]:
    """Quantisation and the like, in Pillow's names, so that the twin loses as little as the file did."""
    factors: Any = sum((layer[1:3] for layer in picture.layer[:3]), ())
    # Sampling that Pillow cannot write becomes none: rather too good than too coarse.
    sampling = JpegImagePlugin.samplings.get(factors, 0)
    if len(picture.layer) == 4 and picture.layer[3][1:3] != (1, 1):
        sampling = 0
    iptc = [data for marker, data in picture.applist if marker == "APP13"]
    return {
        "qtables": {key: list(table) for key, table in picture.quantization.items()},
        "subsampling": sampling,
        "progressive": bool(picture.info.get("progressive")),
        "keep_rgb": picture.mode == "RGB" and picture.info.get("adobe_transform") == 0,
        "extra": b"".join(b"\xff\xed" + struct.pack(">H", len(data) + 2) + data for data in iptc),
    }


def _webp_is_lossless(fp: BinaryIO) -> bool:
    """Whether the first picture of a WebP file is of the lossless kind."""
    fp.seek(12)
    while len(head := fp.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        if kind in (b"VP8L", b"VP8 "):
            return bool(kind == b"VP8L")
        fp.seek(16 if kind == b"ANMF" else length + length % 2, io.SEEK_CUR)
    return False


class _Remarks(logging.Handler):
    """Collects what Pillow logs; without a handler, Python prints it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def blame(name: str, said: list[str]) -> Iterator[None]:
    """Turn what Pillow raises into an `InputError` about ``name``; what it warns of is added to ``said``."""
    remarks, logger = _Remarks(), logging.getLogger("PIL")
    logger.addHandler(remarks)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (MemoryError, Pillow.DecompressionBombError) as error:
        raise InputError(f"{name}: is too large for memory or Pillow; expected a smaller image. Crop it.") from error
    except DAMAGE as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{name}: the image is cut off, damaged or of a rare kind ({why}); expected a whole, common file. "
            "Get another copy or convert it."
        ) from error
    finally:
        logger.removeHandler(remarks)
    told = [str(w.message) for w in caught if not issubclass(w.category, Pillow.DecompressionBombWarning)]
    said.extend(line for text in told + remarks.lines if (line := " ".join(text.split())) not in said)
