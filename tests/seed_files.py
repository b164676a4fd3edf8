"""Small files without faults, of every kind that the package decodes: what the mutations start from."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pillow_heif
import pyarrow
import soundfile
import tifffile
from PIL import Image as Pillow
from PIL import ImageCms
from pyarrow import parquet


def sound(format: str, subtype: str | None = None, channels: int = 2) -> bytes:
    file = io.BytesIO()
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (600, channels))
    soundfile.write(file, x, 44100, format=format, subtype=subtype)
    return file.getvalue()


def opus() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).uniform(-0.5, 0.5, (4800, 1)), 48000, format="OGG", subtype="OPUS")
    return file.getvalue()


def wav_with_chunks() -> bytes:
    data = sound("WAV", "PCM_16")
    chunks = [
        (b"LIST", b"INFOINAM\x04\0\0\0abc\0"),
        (b"bext", bytes(610)),
        (b"id3 ", b"ID3\x04\0\0\0\0\0\0"),
        (b"cue ", bytes(28)),
    ]
    tail = b"".join(name + len(body).to_bytes(4, "little") + body for name, body in chunks)
    return data[:4] + (len(data) + len(tail) - 8).to_bytes(4, "little") + data[8:] + tail


def picture(format: str, mode: str = "RGB", **options: Any) -> bytes:
    rng = np.random.default_rng(0)
    channels = {"RGB": 3, "RGBA": 4, "L": 1, "P": 1, "CMYK": 4}[mode]
    pixels = rng.integers(0, 256, (24, 20, channels), np.uint8)
    image = Pillow.fromarray(pixels.squeeze() if channels == 1 else pixels, mode)
    if mode == "P":
        image.putpalette(rng.integers(0, 256, 768, np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture_16(format: str) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(0).integers(0, 65536, (24, 20), np.uint16)).save(file, format)
    return file.getvalue()


def exif() -> Pillow.Exif:
    tags = Pillow.Exif()
    tags[0x0112], tags[0x010E] = 6, "a description"
    return tags


def animation(format: str) -> bytes:
    frames = [Pillow.fromarray(np.full((12, 10, 3), 40 * i, np.uint8)) for i in range(3)]
    file = io.BytesIO()
    frames[0].save(file, format, save_all=True, append_images=frames[1:], duration=40)
    return file.getvalue()


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def heic() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB", (20, 24), pixels.tobytes()).save(file, exif=exif().tobytes())
    return file.getvalue()


def dng() -> bytes:
    mosaic = np.random.default_rng(0).integers(1024, 16_383, (48, 64), np.uint16)
    tags: list[tuple[int, int, int, Any, bool]] = [
        (33421, 3, 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, 1, 4, bytes([0, 1, 1, 2]), True),  # CFAPattern
        (50706, 1, 4, bytes([1, 4, 0, 0]), True),  # DNGVersion
        (50708, 2, 7, "Camera", True),  # UniqueCameraModel
        (50714, 4, 1, 1024, True),  # BlackLevel
        (50717, 4, 1, 16_383, True),  # WhiteLevel
        (50721, 10, 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), True),  # ColorMatrix1
        (50728, 5, 3, (1, 2, 1, 1, 3, 5), True),  # AsShotNeutral
        (50778, 3, 1, 21, True),  # CalibrationIlluminant1
    ]
    file = io.BytesIO()
    tifffile.imwrite(file, mosaic, photometric="cfa", byteorder="<", extratags=tags, metadata=None)
    return file.getvalue()


def film(format: str, codec: str) -> bytes:
    """A fifth of a second of picture and sound."""
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    with av.open(file, "w", format=format) as media:
        pictures, sound = media.add_stream("mpeg4", rate=25, width=32, height=32), media.add_stream(codec, rate=48_000)
        pictures.pix_fmt, sound.layout = "yuv420p", "stereo"
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (32, 32, 3), np.uint8), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            media.mux(pictures.encode(frame))
        for i in range(0, 9600, 960):
            samples = (3000 * rng.standard_normal((1, 1920))).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, i, Fraction(1, 48_000)
            media.mux(sound.encode(frame))
        media.mux(pictures.encode(None))
        media.mux(sound.encode(None))
    return file.getvalue()


def cloud(format: str) -> bytes:
    points = np.random.default_rng(0).normal(size=(12, 3))
    if format == "xyz":
        return b"\n".join(b" ".join(b"%f" % c for c in row) for row in points)
    order = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}[format]
    names = "".join(f"property float {name}\n" for name in "xyz")
    header = f"ply\nformat {format} 1.0\nelement vertex {len(points)}\n{names}property uchar red\nend_header\n".encode()
    if format == "ascii":
        return header + b"\n".join(b"%f %f %f 7" % tuple(row) for row in points)
    rows = np.zeros(len(points), np.dtype([("p", f"{order}f4", 3), ("c", "u1")]))
    rows["p"] = points
    return header + rows.tobytes()


def table() -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"input": ["a.wav", "b.png"], "sigma": [None, 3.0]}), file)
    return file.getvalue()


def journal() -> bytes:
    row = {
        "input": "a",
        "output": "b",
        "name": "b",
        "status": "failed",
        "seconds": 1.0,
        "output_state": None,
        "warnings": [],
    }
    return json.dumps(row | {"input_state": {"size": 3, "version": "1"}, "output_state": None}).encode() + b"\n"
