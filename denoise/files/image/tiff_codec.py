"""TIFF pages of uint16 and float32, grey or colour, with or without alpha; and the tags of all pages.

Pillow decodes 16-bit colour to 8 bits, and has no mode for colour in floats; tifffile cannot
decompress LZW without imagecodecs (26 MB, with LGPL code inside). But libtiff, which comes with
Pillow, is a byte machine: lent a strip or a tile as if it were a grey picture of 8 bits, it gives
the bytes back, whatever they mean.
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Iterable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import TiffImagePlugin

from denoise.errors import InputError

Ifd = TiffImagePlugin.ImageFileDirectory_v2

# Pillow's names of the TIFF compressions that both sides know as streams of bytes.
TIFF_BYTE_CODECS = {5: "tiff_lzw", 8: "tiff_adobe_deflate", 32773: "packbits", 34925: "lzma", 50000: "zstd"}
TIFF_DTYPES = {(1, 8): np.uint8, (1, 16): np.uint16, (3, 32): np.float32}  # by sample format and bits
TIFF_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4}  # channels by photometric interpretation; 0 is grey with white at 0
# Tags that tell about the picture rather than about how it is stored.
TIFF_KEPT_TAGS = frozenset(
    (269, 270, 271, 272, 274, 282, 283, 285, 286, 287, 296, 297, 305, 306, 315, 316, 33432, 33723, 34377)
)
EXIF_GROUPS = (34665, 34853)
STRIP_BYTES = 1 << 18


class TiffPicture(TiffImagePlugin.TiffImageFile):
    """Pillow's reader without its own limit of size, which would ignore ``max_megapixels``."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Pillow.new(self.mode, self._tile_size).im
        super().load_prepare()


def tiff_pages(fp: IO[bytes]) -> list[Ifd]:
    """The tags of every page of a TIFF or BigTIFF, without decoding any."""
    fp.seek(0)
    header = _header(fp)
    pages: list[Ifd] = []
    seen: set[int] = set()
    end, offset = fp.seek(0, io.SEEK_END), Ifd(header).next
    while offset and offset not in seen:
        if offset >= end:
            raise InputError("the list of pages points behind the end of the file; it is cut off. Get a whole copy.")
        seen.add(offset)
        page = Ifd(header)
        fp.seek(offset)
        page.load(fp)
        if 256 not in page or 257 not in page:
            raise InputError(f"page {len(pages) + 1} states no size; its header is damaged. Re-export the file.")
        pages.append(page)
        offset = page.next
    if not pages:
        raise InputError("holds 0 pages; expected at least one. Re-export the file.")
    return pages


def tiff_info(fp: IO[bytes], page: Ifd) -> dict[str, Any]:
    """What a page says about its picture, in the names of Pillow: exif, icc_profile, xmp, dpi."""
    exif = Pillow.Exif()
    for tag in TIFF_KEPT_TAGS.intersection(page):
        exif[tag] = page[tag]
    for group in EXIF_GROUPS:
        if group in page:
            fp.seek(0)
            directory = Ifd(_header(fp), group=group)
            fp.seek(page[group])
            directory.load(fp)
            exif.get_ifd(group).update(dict(directory))
    info: dict[str, Any] = {"exif": exif.tobytes()}
    if 34675 in page:
        info["icc_profile"] = page[34675]
    if 700 in page:
        info["xmp"] = page[700]
    unit = {2: 1.0, 3: 2.54}.get(page.get(296, 2))
    if unit and 282 in page and 283 in page:
        info["dpi"] = (float(page[282]) * unit, float(page[283]) * unit)
    return info


def tiff_tags(about: dict[str, Any]) -> Pillow.Exif:
    """The inverse of `tiff_info`."""
    tags = Pillow.Exif()
    tags.load(about.get("exif", b""))
    if "dpi" in about and 282 not in tags:
        (tags[282], tags[283]), tags[296] = about["dpi"], 2
    if "xmp" in about:
        tags[700] = about["xmp"]
    if "icc_profile" in about:
        tags[34675] = about["icc_profile"]
    return tags


def _header(fp: IO[bytes]) -> bytes:
    header = fp.read(16)
    return header if 43 in header[2:4] else header[:8]  # 43: BigTIFF


def is_deep(page: Ifd) -> bool:
    """Whether a TIFF page is of the kind that this file reads, rather than Pillow.

    So are channels of 8 bits whose meaning is not stated: here they are alpha, Pillow drops them.
    """
    return max(page.get(258, (1,))) > 8 or (0 in page.get(338, ()) and page.get(259, 1) in (1, *TIFF_BYTE_CODECS))


def read_tiff(fp: IO[bytes], page: Ifd) -> tuple[NDArray[Any], dict[str, Any]]:
    """Decode a page of 8 or 16-bit integers or 32-bit floats, in strips or tiles, chunky or planar.

    Shape:
        result: (height, width, samples), uint16 or float32; and what `write_tiff` needs for its twin.
    Raises:
        InputError: kinds of samples, colours or compression that are not supported; truncated data.
    """
    bits, kind = page.get(258, (1,)), page.get(339, (1,))[0]
    compression, predictor, photometric = page.get(259, 1), page.get(317, 1), page.get(262, 1)
    samples = page.get(277, 1)
    if (kind, bits[0]) not in TIFF_DTYPES or len(set(bits)) != 1:
        names = {1: "unsigned integers", 2: "signed integers", 3: "floats"}
        raise InputError(
            f"samples are {bits[0]}-bit {names.get(kind, 'numbers of an unknown kind')}; "
            "expected 8 or 16-bit unsigned integers or 32-bit floats. Convert the file."
        )
    base = TIFF_COLOURS.get(photometric)
    if base is None or not base <= samples <= base + 1 or (base == 4 and samples == 5):
        raise InputError(
            f"{samples} samples per pixel of colour kind {photometric}; "
            "expected grey, RGB (with alpha or not) or CMYK. Convert the file."
        )
    if compression not in (1, 32946, *TIFF_BYTE_CODECS) or predictor not in (1, 2, 3):
        raise InputError(
            f"compression {compression} with predictor {predictor}; expected none, LZW, deflate, packbits, "
            "LZMA or zstd. Re-save with one of these."
        )
    dtype = np.dtype(TIFF_DTYPES[kind, bits[0]])
    stored_dtype = dtype.newbyteorder(">") if page.prefix == b"MM" else dtype.newbyteorder("<")
    height, width, planar = page[257], page[256], page.get(284, 1) == 2 and samples > 1
    tiled = 322 in page
    rows, columns = (page[323], page[322]) if tiled else (min(page.get(278, height), height), width)
    offsets, counts = (page[324], page[325]) if tiled else (page[273], page[279])
    per = 1 if planar else samples
    out = np.empty((height, width, samples), dtype)
    places = [
        (sample, y, x)
        for sample in range(samples if planar else 1)
        for y in range(0, height, rows)
        for x in range(0, width, columns)
    ]
    if min(len(offsets), len(counts)) < len(places):
        raise InputError(f"{len(offsets)} strips; {len(places)} were expected. Re-export the file.")
    for (sample, y, x), offset, count in zip(places, offsets, counts, strict=False):
        stored = rows if tiled else min(rows, height - y)
        size = stored * columns * per * dtype.itemsize
        fp.seek(offset)
        data = _unpack(fp.read(count), compression, size)
        if len(data) < size:
            raise InputError("the data of the picture are cut off; expected a whole file. Get another copy.")
        block = _unpredict(data[:size], predictor, (stored, columns, per), stored_dtype)
        part = block[: height - y, : width - x]
        if planar:
            out[y : y + rows, x : x + columns, sample] = part[..., 0]
        else:
            out[y : y + rows, x : x + columns] = part
    if photometric == 0:  # white is zero
        np.subtract(1 if dtype == np.float32 else 256**dtype.itemsize - 1, out[..., 0], out=out[..., 0])
    return out, {"compression": compression, "predictor": predictor, "extra": page.get(338, (2,))}


def _unpack(data: bytes, compression: int, size: int) -> bytes:
    if compression == 1:
        return data
    if compression in (8, 32946):
        return zlib.decompressobj().decompress(data, size)
    if compression == 34925:
        return lzma.LZMADecompressor().decompress(data, size)
    loan = Ifd()
    for tag, value in {256: size, 257: 1, 258: 8, 259: compression, 262: 1, 277: 1, 278: 1}.items():
        loan[tag] = value
    loan[273], loan[279] = 0, len(data)
    fp = io.BytesIO()
    loan.save(fp)
    fp.write(data)
    fp.seek(0)
    return TiffPicture(fp).tobytes()


def _pack(data: bytes, compression: int) -> bytes:
    if compression == 1:
        return data
    if compression == 8:
        return zlib.compress(data, 4)
    if compression == 34925:
        return lzma.compress(data, check=lzma.CHECK_NONE)
    fp = io.BytesIO()
    loan = Pillow.frombuffer("L", (len(data), 1), data)
    loan.save(fp, "TIFF", compression=TIFF_BYTE_CODECS[compression])
    fp.seek(0)
    page = tiff_pages(fp)[0]
    fp.seek(page[273][0])
    return fp.read(page[279][0])


def _unpredict(data: bytes, predictor: int, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    if predictor == 3:  # differences of the bytes of each row, all high bytes of the row first
        rows, columns, samples = shape
        planes = np.frombuffer(data, np.uint8).reshape(rows, dtype.itemsize * columns, samples)
        planes = np.cumsum(planes, axis=1, dtype=np.uint8).reshape(rows, dtype.itemsize, columns * samples)
        words = planes.transpose(0, 2, 1).copy().view(f">f{dtype.itemsize}")
        return words.reshape(shape).astype(dtype.newbyteorder("="))
    block = np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
    if predictor == 2:
        whole = block.view(f"u{dtype.itemsize}")
        np.cumsum(whole, axis=1, dtype=whole.dtype, out=whole)
    return block


def _predict(block: NDArray[Any], predictor: int) -> bytes:
    rows, columns, samples = block.shape
    if predictor == 3:
        planes = block.astype(f">f{block.itemsize}").view(np.uint8).reshape(rows, columns * samples, block.itemsize)
        block = planes.transpose(0, 2, 1).reshape(rows, block.itemsize * columns, samples)
    elif predictor == 2:
        block = block.view(f"u{block.itemsize}")
    else:
        return np.ascontiguousarray(block).tobytes()
    rest = block.copy()
    rest[:, 1:] -= block[:, :-1]
    return rest.tobytes()


def write_tiff(
    fp: IO[bytes], pixels: NDArray[Any], alpha: bool, how: dict[str, Any], tags: Iterable[tuple[int, Any]]
) -> None:
    """Write one page at the start of ``fp`` (a page of many goes through Pillow's appending writer).

    Shape:
        pixels: (height, width, samples), uint16 or float32, alpha last.
    """
    height, width, samples = pixels.shape
    deep_float = pixels.dtype == np.float32
    compression = how.get("compression", 8)
    compression = compression if compression in (1, *TIFF_BYTE_CODECS) else 8
    predictor = how.get("predictor", 2)
    if compression not in (5, 8, 50000) or (predictor == 3 and not deep_float):
        predictor = 1
    ifd = Ifd()
    for tag, value in tags:
        ifd[tag] = value
    rows = max(1, min(height, STRIP_BYTES // (width * samples * pixels.itemsize)))
    strips = [_pack(_predict(pixels[y : y + rows], predictor), compression) for y in range(0, height, rows)]
    colour = {1: 1, 3: 2, 4: 5}[samples - alpha]
    ifd[256], ifd[257], ifd[258], ifd[259] = width, height, (pixels.itemsize * 8,) * samples, compression
    ifd[262], ifd[277], ifd[278], ifd[284] = colour, samples, rows, 1
    ifd[339] = (3 if deep_float else 1,) * samples
    if predictor != 1:
        ifd[317] = predictor
    if alpha:
        ifd[338] = how.get("extra", (2,))
    ifd.tagtype[273] = ifd.tagtype[279] = 4  # LONG: Pillow would choose 16 bits by the first values
    lengths = [len(strip) for strip in strips]
    ifd[273], ifd[279] = tuple(int(n) for n in np.cumsum([0, *lengths[:-1]])), tuple(lengths)
    ifd.save(fp)
    fp.writelines(strips)
