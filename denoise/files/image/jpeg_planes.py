"""JPEG with any sampling and colour transform: one scan for each component.

Pillow writes neither YCCK nor components that only share columns (4:4:0). A scan of one component holds the same blocks
as a grey JPEG of this component, so each is written by Pillow as a grey image, and the scans become one file.

Reference:
    ITU-T T.81, 1992, sections A.2.2 and B.2.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from denoise.files.image.jpeg_segments import (
    APP0,
    APP15,
    COM,
    EOI,
    SOS,
    Segment,
    encode_segment,
    iterate_segments,
)

SOF_BASELINE, SOF_EXTENDED, SOF_PROGRESSIVE, DHT, DQT, APP14 = 0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xEE
ADOBE_TRANSFORM = 11  # position of the colour transform in Adobe's segment
YCCK = 2  # its value for YCCK
BAND_ROWS = 256  # a multiple of every sampling factor that divides it


@dataclass(frozen=True)
class JpegLayout:
    """How the components of a JPEG are stored, where Pillow cannot write them so.

    Args:
        sampling: horizontal and vertical sampling factors of each component.
        has_luminance: whether the first three components are luminance and chrominance of red, green and blue.
    """

    sampling: tuple[tuple[int, int], ...]
    has_luminance: bool

    @property
    def reductions(self) -> list[tuple[int, int]]:
        """Pixels of the image in a sample of each component, horizontally and vertically."""
        width, height = (max(factor[i] for factor in self.sampling) for i in (0, 1))
        return [(width // h, height // v) for h, v in self.sampling]


def encode_planes(
    head: bytes, pixels: NDArray[np.uint8], layout: JpegLayout, tables: Sequence[list[int]], *, progressive: bool
) -> Iterator[bytes]:
    """Encode an image with one scan for each component.

    Args:
        head: JPEG with the metadata of the file to write; its image is ignored.
        pixels: (height, width, 3 or 4), RGB or CMYK.
        layout: sampling and colours of the components.
        tables: quantisation tables; the last one is also used for all further components.
        progressive: whether each component is coded progressively.

    Yields:
        The bytes of the file, part by part.
    """
    height, width, count = pixels.shape
    yield b"\xff\xd8"
    yield from (_metadata(segment, layout).encode() for segment in iterate_segments(head) if _is_metadata(segment))
    frame = struct.pack(">BHHB", 8, height, width, count)
    is_wide = any(max(table) > 255 for table in tables)
    scans: list[bytes] = []
    for index, (factors, reduction) in enumerate(zip(layout.sampling, layout.reductions, strict=True)):
        table_index = min(index, len(tables) - 1)
        frame += bytes([index + 1, factors[0] << 4 | factors[1], table_index])
        plane = _plane(pixels, index, layout.has_luminance, reduction)
        encoded = io.BytesIO()
        Pillow.fromarray(plane).save(
            encoded, "JPEG", qtables=[tables[table_index]], progressive=progressive, optimize=True
        )
        data = encoded.getvalue()
        if table_index == index:
            yield from (
                encode_segment(DQT, bytes([segment.data[0] | index]) + segment.data[1:])
                for segment in iterate_segments(data)
                if segment.marker == DQT
            )
        scans += _scans(data, index + 1)
    yield encode_segment(SOF_PROGRESSIVE if progressive else SOF_EXTENDED if is_wide else SOF_BASELINE, frame)
    yield from scans
    yield b"\xff\xd9"


def _is_metadata(segment: Segment) -> bool:
    return APP0 <= segment.marker <= APP15 or segment.marker == COM


def _metadata(segment: Segment, layout: JpegLayout) -> Segment:
    """Return a segment of metadata, Adobe's with the colour transform of the layout."""
    if segment.marker == APP14 and segment.data.startswith(b"Adobe") and len(layout.sampling) == 4:
        transform = YCCK if layout.has_luminance else 0
        data = segment.data[:ADOBE_TRANSFORM] + bytes([transform]) + segment.data[ADOBE_TRANSFORM + 1 :]
        return Segment(segment.marker, data, segment.offset)
    return segment


def _scans(data: bytes, component: int) -> Iterator[bytes]:
    """Yield the Huffman tables and scans of a grey JPEG as those of a component."""
    segments = list(iterate_segments(data))
    for segment, following in pairwise(segments):
        if segment.marker == DHT:
            yield segment.encode()
        elif segment.marker == SOS:
            end = following.offset - (2 if following.marker == EOI else 4)
            yield encode_segment(SOS, segment.data[:1] + bytes([component]) + segment.data[2:])
            yield data[segment.offset + len(segment.data) : end]


def _plane(pixels: NDArray[np.uint8], index: int, has_luminance: bool, reduction: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the samples of a component, (height, width), reduced by averaging."""
    bands = []
    columns, rows = reduction
    step = BAND_ROWS * rows
    for y in range(0, len(pixels), step):
        plane = _component(pixels[y : y + step], index, has_luminance)
        height, width = plane.shape
        if reduction != (1, 1):
            padded = np.pad(plane, ((0, -height % rows), (0, -width % columns)), "edge")
            plane = padded.reshape(padded.shape[0] // rows, rows, -1, columns).mean((1, 3))
        bands.append(np.rint(plane).clip(0, 255).astype(np.uint8))
    return np.concatenate(bands)


def _component(pixels: NDArray[np.uint8], index: int, has_luminance: bool) -> NDArray[np.float32]:
    """Return a component of RGB or CMYK as it is stored.

    Pillow inverts CMYK, as Adobe does; libjpeg inverts CMY of YCCK once more, so that they are taken as they are.
    """
    if not has_luminance or index == 3:
        x = pixels[..., index].astype(np.float32)
        return 255 - x if pixels.shape[2] == 4 else x
    red, green, blue = (pixels[..., i].astype(np.float32) for i in range(3))
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-T T.871, section 7
    if index == 0:
        return luminance
    return (blue - luminance) / 1.772 + 128 if index == 1 else (red - luminance) / 1.402 + 128
