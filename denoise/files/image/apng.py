"""Composition of the frames of an animated PNG."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from denoise.files.image.png16 import PNG_SIGNATURE, Chunks
from denoise.files.image.png_chunks import encode_chunks
from denoise.signals import Image

CLEAR_TO_BACKGROUND, RESTORE_PREVIOUS = 1, 2  # methods of disposal
BLEND_OVER = 1
DEFAULT_DELAY_DENOMINATOR = 100
ROWS_PER_BLEND = 64


@dataclass(frozen=True)
class FrameControl:
    """How a frame is put on the canvas: the contents of a chunk ``fcTL`` behind its sequence number."""

    width: int
    height: int
    x: int
    y: int
    delay_numerator: int
    delay_denominator: int
    disposal: int
    blend: int

    @property
    def duration(self) -> float:
        """Duration in milliseconds."""
        return float(self.delay_numerator) / float(self.delay_denominator or DEFAULT_DELAY_DENOMINATOR) * 1000


def read_subframes(file: IO[bytes]) -> Iterator[tuple[FrameControl | None, PngImagePlugin.PngImageFile]]:
    """Yield each frame as a file of its own.

    Args:
        file: the open APNG, seekable.

    Yields:
        How the frame is put on the canvas (None for an image that is no frame of the animation), and Pillow's image
        of it, not yet decoded.

    Raises:
        SyntaxError: the chunks are out of order, or a frame exceeds the canvas.
    """
    header, shared, data = b"", Chunks(), []
    control: FrameControl | None = None
    next_number = 0
    file.seek(len(PNG_SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        content = file.read(length)
        if len(content) < length:
            raise SyntaxError("the animation is cut off")
        file.seek(4, io.SEEK_CUR)
        if kind in (b"fcTL", b"fdAT"):
            (number,) = struct.unpack_from(">I", content)
            if number != next_number:
                raise SyntaxError("the frames are out of order")
            next_number += 1
        if kind == b"IHDR":
            header = content
        elif kind in (b"PLTE", b"tRNS"):
            shared.append((kind, content))
        elif kind in (b"IDAT", b"fdAT"):
            data.append(content[4 if kind == b"fdAT" else 0 :])
        elif kind in (b"fcTL", b"IEND"):
            if data:
                yield control, _open_subframe(header, control, shared, data)
                data = []
            if kind == b"IEND":
                break
            control = FrameControl(*struct.unpack_from(">4I2H2B", content, 4))
            width, height = struct.unpack_from(">II", header)
            if control.x + control.width > width or control.y + control.height > height:
                raise SyntaxError("a frame exceeds the canvas")
    if data:  # there is no end
        yield control, _open_subframe(header, control, shared, data)


def _open_subframe(
    header: bytes, control: FrameControl | None, shared: Chunks, data: list[bytes]
) -> PngImagePlugin.PngImageFile:
    size = header[:8] if control is None else struct.pack(">II", control.width, control.height)
    chunks = [(b"IHDR", size + header[8:]), *shared, (b"IDAT", b"".join(data)), (b"IEND", b"")]
    return PngImagePlugin.PngImageFile(io.BytesIO(PNG_SIGNATURE + encode_chunks(chunks)), "")


class Canvas:
    """The canvas of an animation, transparent at first.

    Args:
        width: columns of pixels.
        height: rows of pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self._pixels: NDArray[np.uint8] | None = None
        self._alpha = np.zeros((height, width), np.uint8)

    def show(self, frame: Image, control: FrameControl) -> Image:
        """Put a frame on the canvas, and dispose of it as its successor expects.

        Args:
            frame: the frame, of the size in its control.
            control: how it is put on the canvas.

        Returns:
            A copy of the whole canvas with the frame on it, with alpha.
        """
        if self._pixels is None:
            self._pixels = np.zeros((*self._alpha.shape, frame.pixels.shape[2]), np.uint8)
        rows, columns = slice(control.y, control.y + control.height), slice(control.x, control.x + control.width)
        pixels, alpha = self._pixels[rows, columns], self._alpha[rows, columns]
        previous = (pixels.copy(), alpha.copy()) if control.disposal == RESTORE_PREVIOUS else None
        if frame.alpha is None or control.blend != BLEND_OVER:
            pixels[:], alpha[:] = frame.pixels, 255 if frame.alpha is None else frame.alpha
        else:
            for y in range(0, control.height, ROWS_PER_BLEND):
                band = slice(y, y + ROWS_PER_BLEND)
                _blend(pixels[band], alpha[band], frame.pixels[band], frame.alpha[band])
        shown = Image(self._pixels.copy(), self._alpha.copy())
        if previous is not None:
            pixels[:], alpha[:] = previous
        elif control.disposal == CLEAR_TO_BACKGROUND:
            pixels[:], alpha[:] = 0, 0
        return shown


def _blend(
    pixels: NDArray[np.uint8], alpha: NDArray[np.uint8], over: NDArray[np.uint8], over_alpha: NDArray[np.uint8]
) -> None:
    """Put pixels over others, in place, by the operator "over" on alpha that is not premultiplied."""
    front = over_alpha.astype(np.uint32) * 255
    back = alpha.astype(np.uint32) * (255 - over_alpha.astype(np.uint32))
    total = np.maximum(front + back, 1)
    is_changed = over_alpha > 0
    mixed = (over * front[..., None] + pixels * back[..., None] + total[..., None] // 2) // total[..., None]
    pixels[is_changed] = mixed[is_changed]
    alpha[:] = (front + back + 127) // 255
