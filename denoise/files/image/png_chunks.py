"""Chunks of PNG files: which of them stay true when the pixels change, and in which form."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from PIL import Image as Pillow
from PIL import PngImagePlugin

from denoise.files.image.png16 import PNG_SIGNATURE, Chunks

XMP_KEYWORD = b"XML:com.adobe.xmp\0"
PILLOW_CHUNKS = (b"cHRM", b"cICP", b"gAMA", b"sRGB", b"tIME", b"tEXt", b"zTXt", b"iTXt", b"sPLT")
"""Chunks that Pillow writes as they are."""
TRUE_CHUNKS = (b"mDCV", b"mDCv", b"cLLI", b"cLLi", b"pCAL", b"sCAL", b"sTER")
"""Chunks that Pillow does not write, about the scene or the display; the spellings ``v`` and ``i`` are of drafts."""
CONVERTED_CHUNKS = (b"pHYs", b"eXIf")
"""Chunks that are written from other keys of `ImageFormat.info`."""
COLOUR_TYPES = {"1": 0, "L": 0, "RGB": 2, "P": 3, "LA": 4, "RGBA": 6}
COLOUR_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # without alpha, by colour type
PALETTE_TYPE, ALPHA_TYPES = 3, (4, 6)


def read_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, data) of every chunk but the image data, without checking sums.

    Args:
        file: the open file, seekable.
    """
    file.seek(len(PNG_SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IDAT", b"fdAT"):
            file.seek(length + 4, io.SEEK_CUR)
        else:
            yield kind, file.read(length)
            file.seek(4, io.SEEK_CUR)


def encode_chunks(chunks: Chunks) -> bytes:
    """Return chunks with their lengths and sums."""
    file = io.BytesIO()
    for kind, data in chunks:
        PngImagePlugin.putchunk(file, kind, data)
    return file.getvalue()


def open_metadata(chunks: Chunks) -> PngImagePlugin.PngImageFile:
    """Return an image without pixels, with the EXIF and the XMP of a file wherever they stand.

    Pillow reads those behind the image data only after it has decoded all pixels.

    Args:
        chunks: chunks of the file, the header first.
    """
    kept = [
        (kind, data)
        for kind, data in chunks[1:]
        if kind == b"eXIf" or (kind == b"iTXt" and data.startswith(XMP_KEYWORD))
    ]
    return PngImagePlugin.PngImageFile(
        io.BytesIO(PNG_SIGNATURE + encode_chunks([*chunks[:1], *kept, (b"IDAT", b"")])), ""
    )


def pillow_chunks(info: dict[str, Any]) -> Chunks:
    """Return the chunks that hold for changed pixels, too, and that Pillow writes as they are.

    Args:
        info: info of the source, see `ImageFormat`.
    """
    chunks = info.get("png_chunks")
    if chunks is None:
        chunks = [(b"iTXt", XMP_KEYWORD + b"\0\0\0\0" + info["xmp"])] if "xmp" in info else []
        if "nclx" in info and "icc_profile" not in info:  # of HEIC and AVIF
            primaries, transfer, *_ = info["nclx"]
            chunks.append((b"cICP", bytes([primaries, transfer, 0, 1])))  # RGB at full range
        return chunks
    # A small fourth letter marks private chunks that do not depend on the pixels ("safe to copy").
    return [
        (kind, data) for kind, data in chunks if kind in PILLOW_CHUNKS or (kind[1:2].islower() and kind[3:4].islower())
    ]


def further_chunks(info: dict[str, Any]) -> Chunks:
    """Return the chunks that hold for changed pixels, too, and that Pillow does not write.

    Args:
        info: info of the source, see `ImageFormat`.
    """
    return [
        (kind, data)
        for kind, data in info.get("png_chunks", ())
        if kind in TRUE_CHUNKS
        or (
            # ancillary, public and safe to copy: oFFs, gIFg, gIFx and whatever later editions add
            (kind[:1].islower() and kind[1:2].isupper() and kind[3:4].islower())
            and kind not in PILLOW_CHUNKS + CONVERTED_CHUNKS
        )
    ]


def sample_chunks(info: dict[str, Any], mode: str, bits: int, palette: bytes = b"") -> Chunks:
    """Return the chunks that depend on the colour type (background colour, significant bits), in that of the target.

    Args:
        info: info of the source, see `ImageFormat`.
        mode: mode in which the image is written, a key of `COLOUR_TYPES`.
        bits: bits per channel in which it is written.
        palette: RGB of each colour of the palette, if there is one.
    """
    source = dict(info.get("png_chunks", ()))
    if len(source.get(b"IHDR", b"")) < 10:
        return []
    source_bits, source_type = source[b"IHDR"][8:10]
    target_type, n_colours = COLOUR_TYPES[mode], COLOUR_CHANNELS[COLOUR_TYPES[mode]]
    if COLOUR_CHANNELS.get(source_type) != n_colours:
        return []
    chunks: Chunks = []
    significant = source.get(b"sBIT", b"")
    if n_colours <= len(significant) <= n_colours + 1 and all(0 < x <= bits for x in significant):
        alpha = (significant[n_colours:] or bytes([bits])) if target_type in ALPHA_TYPES else b""
        chunks.append((b"sBIT", significant[:n_colours] + alpha))
    background = source.get(b"bKGD", b"")
    if source_type == PALETTE_TYPE:
        colour = source.get(b"PLTE", b"")[3 * background[0] :][:3] if len(background) == 1 else b""
        source_bits = 8
    else:
        colour = struct.unpack(f">{n_colours}H", background) if len(background) == 2 * n_colours else b""
    if len(colour) == n_colours:
        scaled = [round(x * (2**bits - 1) / (2**source_bits - 1)) & 0xFFFF for x in colour]
        if target_type == PALETTE_TYPE:
            distances = np.abs(np.frombuffer(palette, np.uint8).reshape(-1, 3).astype(int) - scaled).sum(axis=1)
            chunks.append((b"bKGD", bytes([distances.argmin()])))
        else:
            chunks.append((b"bKGD", struct.pack(f">{n_colours}H", *scaled)))
    return chunks


def chunks_16(info: dict[str, Any], mode: str) -> Chunks:
    """Return the chunks of a file of 16 bits, which Pillow does not write.

    Args:
        info: info of the source, see `ImageFormat`.
        mode: mode in which the image is written.
    """
    source_chunks = dict(info.get("png_chunks", ()))
    chunks: Chunks = []
    icc_profile = info.get("icc_profile")
    if icc_profile:
        chunks.append((b"iCCP", source_chunks.get(b"iCCP") or b"ICC Profile\0\0" + zlib.compress(icc_profile)))
    if b"pHYs" in source_chunks:
        chunks.append((b"pHYs", source_chunks[b"pHYs"]))
    elif dpi := info.get("dpi"):
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(x / 0.0254) for x in dpi), 1)))
    if exif := info.get("exif"):
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    kept = [(kind, data) for kind, data in pillow_chunks(info) if not (kind == b"sRGB" and icc_profile)]
    return chunks + kept + further_chunks(info) + sample_chunks(info, mode, 16)


def insert_chunks(file: IO[bytes], picture: Pillow.Image, chunks: Chunks, options: dict[str, Any]) -> None:
    """Write an image with Pillow, with chunks behind its header that Pillow does not write.

    Args:
        file: empty file, readable and seekable.
        picture: image.
        chunks: (type, data) of the chunks.
        options: options of Pillow's writer.
    """
    inserted = encode_chunks(chunks)
    file.seek(len(inserted))
    picture.save(file, "PNG", **options)
    if inserted:
        header_bytes = len(PNG_SIGNATURE) + 25
        file.seek(len(inserted))
        header = file.read(header_bytes)
        file.seek(0)
        file.write(header + inserted)
        file.seek(0, io.SEEK_END)
