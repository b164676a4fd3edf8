"""Codec for TIFF pages of uint16 and float32, grey or colour, with alpha or without.

Pillow decodes 16-bit colour to 8 bits and has no mode for colour in floats. tifffile cannot decompress LZW without
imagecodecs (26 MB, with LGPL code inside). But libtiff, which comes with Pillow, can decompress any strip or tile that
is presented to it as a grey image of 8 bits, one row of bytes.
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import TiffImagePlugin
from PIL.ExifTags import Base as Tag

from denoise.errors import InputError
from denoise.files.image.tiff_directory import (
    LITTLE_ENDIAN,
    ByteOrder,
    Directory,
    DirectoryWriter,
    Field,
    place_tags,
    read_directory,
    read_header,
)
from denoise.files.image.tiff_tags import Page, page_size

UNCOMPRESSED, LZW, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD = 1, 5, 8, 32773, 32946, 34925, 50000
BYTE_CODECS = {LZW: "tiff_lzw", DEFLATE: "tiff_adobe_deflate", PACKBITS: "packbits", LZMA: "lzma", ZSTD: "zstd"}
"""Pillow's names of the compressions that code any stream of bytes."""

NO_PREDICTOR, HORIZONTAL_PREDICTOR, FLOAT_PREDICTOR = 1, 2, 3
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # sample formats
SAMPLE_FORMAT_NAMES = {UNSIGNED: "unsigned integers", SIGNED: "signed integers", FLOAT: "floats"}
DTYPES = {(UNSIGNED, 8): np.uint8, (UNSIGNED, 16): np.uint16, (FLOAT, 32): np.float32}  # by sample format and bits
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, SEPARATED = 0, 1, 2, 5  # photometric interpretations
COLOUR_CHANNELS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, SEPARATED: 4}
PHOTOMETRICS = {1: BLACK_IS_ZERO, 3: RGB, 4: SEPARATED}  # by channels
PLANAR = 2  # planar configuration
UNSPECIFIED, ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA = 0, 1, 2  # kinds of extra samples
STRIP_BYTES = 1 << 18
COMPRESS_LEVEL = 4
DEFAULT_CODING = {"compression": DEFLATE, "predictor": HORIZONTAL_PREDICTOR}


class TiffPicture(TiffImagePlugin.TiffImageFile):
    """Pillow's reader without its own limit of size, which ignores ``max_megapixels``."""

    def load_prepare(self) -> None:
        """Allocate the image without checking its size."""
        if self._im is None:
            self.im = Pillow.new(self.mode, self._tile_size).im
        super().load_prepare()


@dataclass(frozen=True)
class _Layout:
    """How the samples of a page are stored: in strips or tiles, planar or interleaved."""

    height: int
    width: int
    samples: int
    dtype: np.dtype[Any]
    stored_dtype: np.dtype[Any]
    compression: int
    predictor: int
    photometric: int
    is_planar: bool
    is_tiled: bool
    block_height: int
    block_width: int
    offsets: tuple[int, ...]
    byte_counts: tuple[int, ...]

    @property
    def block_samples(self) -> int:
        return 1 if self.is_planar else self.samples

    def block_positions(self) -> list[tuple[int, int, int]]:
        """Return (plane, first row, first column) of each block, in the order of the file."""
        return [
            (plane, y, x)
            for plane in range(self.samples if self.is_planar else 1)
            for y in range(0, self.height, self.block_height)
            for x in range(0, self.width, self.block_width)
        ]


def needs_codec(page: Page) -> bool:
    """Return whether a page has to be decoded here, rather than by Pillow.

    Besides pages of more than 8 bits, these are pages of 8 bits with an extra channel that Pillow drops, of
    unspecified meaning, or grey pages with premultiplied alpha, for which it has no full support.

    Args:
        page: the tags of the page.
    """
    if max(page.get(Tag.BitsPerSample, (1,))) > 8:
        return True
    is_byte_coded = page.get(Tag.Compression, UNCOMPRESSED) in (UNCOMPRESSED, *BYTE_CODECS)
    extra_samples = page.get(Tag.ExtraSamples, ())
    is_grey = COLOUR_CHANNELS.get(page.get(Tag.PhotometricInterpretation, BLACK_IS_ZERO)) == 1
    return is_byte_coded and (UNSPECIFIED in extra_samples or (ASSOCIATED_ALPHA in extra_samples and is_grey))


def read_page(file: IO[bytes], page: Page) -> tuple[NDArray[Any], dict[str, Any]]:
    """Decode a page of 8 or 16-bit integers or 32-bit floats, in strips or tiles, interleaved or planar.

    Args:
        file: the open TIFF, seekable.
        page: the tags of the page.

    Returns:
        Pixels, (height, width, samples), uint8, uint16 or float32; and the coding options that `write_page` takes.

    Raises:
        InputError: samples, colours or compression of an unsupported kind; data that are cut off.
    """
    layout = _read_layout(page)
    result = np.empty((layout.height, layout.width, layout.samples), layout.dtype)
    positions = layout.block_positions()
    if min(len(layout.offsets), len(layout.byte_counts)) < len(positions):
        raise InputError(f"{len(layout.offsets)} strips; {len(positions)} were expected. Re-export the file.")
    for (plane, y, x), offset, byte_count in zip(positions, layout.offsets, layout.byte_counts, strict=False):
        stored_rows = layout.block_height if layout.is_tiled else min(layout.block_height, layout.height - y)
        shape = (stored_rows, layout.block_width, layout.block_samples)
        size = stored_rows * layout.block_width * layout.block_samples * layout.dtype.itemsize
        file.seek(offset)
        data = _decompress(file.read(byte_count), layout.compression, size)
        if len(data) < size:
            raise InputError("the data of the image are cut off; expected a whole file. Get another copy.")
        block = _undo_predictor(data[:size], layout.predictor, shape, layout.stored_dtype)
        block = block[: layout.height - y, : layout.width - x]
        rows, columns = slice(y, y + layout.block_height), slice(x, x + layout.block_width)
        if layout.is_planar:
            result[rows, columns, plane] = block[..., 0]
        else:
            result[rows, columns] = block
    if layout.photometric == WHITE_IS_ZERO:
        full_scale = 1 if layout.dtype == np.float32 else 256**layout.dtype.itemsize - 1
        np.subtract(full_scale, result[..., 0], out=result[..., 0])
    extra_samples = page.get(Tag.ExtraSamples, (UNASSOCIATED_ALPHA,))
    return result, {"compression": layout.compression, "predictor": layout.predictor, "extra": extra_samples}


def _read_layout(page: Page) -> _Layout:
    bits, sample_format = page.get(Tag.BitsPerSample, (1,)), page.get(Tag.SampleFormat, (UNSIGNED,))[0]
    compression = page.get(Tag.Compression, UNCOMPRESSED)
    predictor = page.get(Tag.Predictor, NO_PREDICTOR)
    photometric = page.get(Tag.PhotometricInterpretation, BLACK_IS_ZERO)
    samples = page.get(Tag.SamplesPerPixel, 1)
    if (sample_format, bits[0]) not in DTYPES or len(set(bits)) != 1:
        raise InputError(
            f"samples are {bits[0]}-bit {SAMPLE_FORMAT_NAMES.get(sample_format, 'numbers of an unknown kind')}; "
            "expected 8 or 16-bit unsigned integers or 32-bit floats. Convert the file."
        )
    channels = COLOUR_CHANNELS.get(photometric)
    if channels is None or not channels <= samples <= channels + 1 or (channels == 4 and samples == 5):
        raise InputError(
            f"{samples} samples per pixel of colour kind {photometric}; "
            "expected grey, RGB (with alpha or not) or CMYK. Convert the file."
        )
    is_supported = compression in (UNCOMPRESSED, OLD_DEFLATE, *BYTE_CODECS)
    if not is_supported or predictor not in (NO_PREDICTOR, HORIZONTAL_PREDICTOR, FLOAT_PREDICTOR):
        raise InputError(
            f"compression {compression} with predictor {predictor}; expected none, LZW, deflate, packbits, "
            "LZMA or zstd. Re-save with one of these."
        )
    dtype = np.dtype(DTYPES[sample_format, bits[0]])
    width, height = page_size(page)
    is_tiled = Tag.TileWidth in page
    return _Layout(
        height=height,
        width=width,
        samples=samples,
        dtype=dtype,
        stored_dtype=dtype.newbyteorder(">" if page.prefix == b"MM" else "<"),
        compression=compression,
        predictor=predictor,
        photometric=photometric,
        is_planar=page.get(Tag.PlanarConfiguration, 1) == PLANAR and samples > 1,
        is_tiled=is_tiled,
        block_height=_require(page, Tag.TileLength) if is_tiled else min(page.get(Tag.RowsPerStrip, height), height),
        block_width=page[Tag.TileWidth] if is_tiled else width,
        offsets=_require(page, Tag.TileOffsets if is_tiled else Tag.StripOffsets),
        byte_counts=_require(page, Tag.TileByteCounts if is_tiled else Tag.StripByteCounts),
    )


def _require(page: Page, tag: Tag) -> Any:
    if tag not in page:
        raise InputError(f"the tag {tag.name} is missing; the header is damaged. Re-export the file.")
    return page[tag]


def _decompress(data: bytes, compression: int, size: int) -> bytes:
    """Decompress a strip or tile of ``size`` bytes."""
    if compression == UNCOMPRESSED:
        return data
    if compression in (DEFLATE, OLD_DEFLATE):
        return zlib.decompressobj().decompress(data, size)
    if compression == LZMA:
        return lzma.LZMADecompressor().decompress(data, size)
    page = Page()  # of a grey image of 8 bits, `size` pixels wide and one high
    page[Tag.ImageWidth], page[Tag.ImageLength], page[Tag.BitsPerSample] = size, 1, 8
    page[Tag.Compression], page[Tag.PhotometricInterpretation] = compression, BLACK_IS_ZERO
    page[Tag.SamplesPerPixel], page[Tag.RowsPerStrip] = 1, 1
    page[Tag.StripOffsets], page[Tag.StripByteCounts] = 0, len(data)
    file = io.BytesIO()
    page.save(file)
    file.write(data)
    file.seek(0)
    return TiffPicture(file).tobytes()


def _compress(data: bytes, compression: int) -> bytes:
    if compression == UNCOMPRESSED:
        return data
    if compression == DEFLATE:
        return zlib.compress(data, COMPRESS_LEVEL)
    if compression == LZMA:
        return lzma.compress(data, check=lzma.CHECK_NONE)
    file = io.BytesIO()
    row_of_bytes = Pillow.frombuffer("L", (len(data), 1), data)
    row_of_bytes.save(file, "TIFF", compression=BYTE_CODECS[compression])
    return b"".join(read_blocks(file)[1])


def read_blocks(file: IO[bytes], offset: int | None = None) -> tuple[Directory, Iterator[bytes]]:
    """Return the fields and the encoded strips or tiles of a page, as `DirectoryWriter.write` takes them.

    Args:
        file: TIFF, seekable.
        offset: position of the directory of the page; None takes the first.
    """
    header = read_header(file)
    directory = read_directory(file, header, header.first_offset if offset is None else offset)
    offsets, byte_counts = (directory.pop(tag, None) for tag in place_tags(directory))
    if not isinstance(offsets, Field) or not isinstance(byte_counts, Field):
        raise InputError("the offsets of the strips are missing; the header is damaged. Re-export the file.")
    extents = zip(offsets.integers(), byte_counts.integers(), strict=False)
    return directory, (_read_at(file, position, byte_count) for position, byte_count in extents)


def _read_at(file: IO[bytes], position: int, byte_count: int) -> bytes:
    file.seek(position)
    return file.read(byte_count)


def _undo_predictor(data: bytes, predictor: int, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Decode differences into samples in the byte order of the machine, (rows, columns, samples)."""
    native = dtype.newbyteorder("=")
    if predictor == FLOAT_PREDICTOR:  # differences of the bytes of each row, all high bytes of the row first
        rows, columns, samples = shape
        planes = np.frombuffer(data, np.uint8).reshape(rows, dtype.itemsize * columns, samples)
        planes = np.cumsum(planes, axis=1, dtype=np.uint8).reshape(rows, dtype.itemsize, columns * samples)
        floats = planes.transpose(0, 2, 1).copy().view(f">f{dtype.itemsize}")
        return floats.reshape(shape).astype(native)
    block = np.frombuffer(data, dtype).reshape(shape).astype(native)
    if predictor == HORIZONTAL_PREDICTOR:
        integers = block.view(f"u{dtype.itemsize}")
        np.cumsum(integers, axis=1, dtype=integers.dtype, out=integers)
    return block


def _apply_predictor(block: NDArray[Any], predictor: int, order: ByteOrder) -> bytes:
    """Encode samples, (rows, columns, samples), as differences, in a byte order."""
    rows, columns, samples = block.shape
    if predictor == FLOAT_PREDICTOR:
        planes = block.astype(f">f{block.itemsize}").view(np.uint8).reshape(rows, columns * samples, block.itemsize)
        block = planes.transpose(0, 2, 1).reshape(rows, block.itemsize * columns, samples)
    elif predictor == HORIZONTAL_PREDICTOR:
        block = block.view(f"u{block.itemsize}")
    else:
        return block.astype(block.dtype.newbyteorder(order)).tobytes()
    differences = block.copy()
    differences[:, 1:] -= block[:, :-1]
    return differences.astype(differences.dtype.newbyteorder(order)).tobytes()


def encode_page(
    pixels: NDArray[Any], has_alpha: bool, coding: dict[str, Any], order: ByteOrder = LITTLE_ENDIAN
) -> tuple[Directory, list[bytes]]:
    """Encode a page.

    Args:
        pixels: (height, width, samples), uint8, uint16 or float32, alpha last.
        has_alpha: whether there is an alpha channel.
        coding: ``compression`` (number or Pillow's name), ``predictor`` and ``extra`` (kind of the extra channel), as
            `read_page` returns them; the nearest that fits is used.
        order: byte order of the file, ``"<"`` or ``">"``.

    Returns:
        Fields and encoded strips, as `DirectoryWriter.write` takes them.
    """
    height, width, samples = pixels.shape
    is_float = pixels.dtype == np.float32
    compression = coding.get("compression", DEFLATE)
    compression = TiffImagePlugin.COMPRESSION_INFO_REV.get(compression, compression)
    compression = compression if compression in (UNCOMPRESSED, *BYTE_CODECS) else DEFLATE
    predictor = coding.get("predictor", HORIZONTAL_PREDICTOR)
    if compression not in (LZW, DEFLATE, ZSTD) or (predictor == FLOAT_PREDICTOR and not is_float):
        predictor = NO_PREDICTOR
    rows = max(1, min(height, STRIP_BYTES // (width * samples * pixels.itemsize)))
    strips = [
        _compress(_apply_predictor(pixels[y : y + rows], predictor, order), compression) for y in range(0, height, rows)
    ]
    fields = {
        Tag.ImageWidth: Field.longs(width),
        Tag.ImageLength: Field.longs(height),
        Tag.BitsPerSample: Field.shorts(*(pixels.itemsize * 8,) * samples),
        Tag.Compression: Field.shorts(compression),
        Tag.PhotometricInterpretation: Field.shorts(PHOTOMETRICS[samples - has_alpha]),
        Tag.SamplesPerPixel: Field.shorts(samples),
        Tag.RowsPerStrip: Field.longs(rows),
        Tag.PlanarConfiguration: Field.shorts(1),
        Tag.SampleFormat: Field.shorts(*(FLOAT if is_float else UNSIGNED,) * samples),
    }
    if predictor != NO_PREDICTOR:
        fields[Tag.Predictor] = Field.shorts(predictor)
    if has_alpha:
        fields[Tag.ExtraSamples] = Field.shorts(*coding.get("extra", (UNASSOCIATED_ALPHA,)))
    return {int(tag): field for tag, field in fields.items()}, strips


def isolate_page(file: IO[bytes], page: Page) -> io.BytesIO:
    """Return a page as a file of its own, little-endian and not BigTIFF.

    Args:
        file: the open TIFF, seekable.
        page: the tags of the page, of samples of at most 8 bits.
    """
    result = io.BytesIO()
    DirectoryWriter(result).write(*read_blocks(file, page.offset))
    result.seek(0)
    return result
