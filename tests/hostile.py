"""Mutated files for every decoder: `python -m tests.hostile --cases 10000` runs them and prints a report.

A decoder reads a file, or refuses it by a `DenoiseError` of one line. Anything else is a finding: another exception, a
crash, a hang, more memory than the bound, or a file written somewhere else.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import soundfile
from PIL import Image as Pillow
from PIL import ImageCms
from pyarrow import parquet

from denoise.errors import DenoiseError
from denoise.files.audio import AudioReader, AudioWriter
from denoise.files.image import ImageReader, write_image
from denoise.files.points import read_points
from denoise.pipelines.batch.items import find_items
from denoise.pipelines.batch.journal import Journal
from denoise.registry import load, locate
from denoise.training.recipe import load_recipe

LIMIT_S = 20  # for one file of a few kilobytes
LIMIT_MIB = 1024  # above the memory of the process before
EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF]


class Decoder(NamedTuple):
    """A decoder and the files that its mutations start from.

    Args:
        decode: reads a file and writes what it holds into a folder.
        seeds: makes a file by its name.
    """

    decode: Callable[[Path, Path], object]
    seeds: dict[str, Callable[[], bytes]]


def copy_audio(path: Path, out: Path) -> None:
    """Read a recording in blocks, and write it in its format with its metadata."""
    with AudioReader(path) as reader, AudioWriter(out / path.name, reader.format, frames=reader.frames) as writer:
        n = 0
        while (block := reader.read(4096)).shape[1] and (n := n + block.shape[1]) < 1 << 22:
            writer.write(block)


def copy_image(path: Path, out: Path) -> None:
    """Read the frames of an image, and write them in its format with its metadata."""
    with ImageReader(path, max_megapixels=2) as reader:
        write_image(out / path.name, islice(reader, 8), reader.format)


def _sound(format: str, subtype: str | None = None, channels: int = 2) -> bytes:
    file = io.BytesIO()
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (600, channels))
    soundfile.write(file, x, 44100, format=format, subtype=subtype)
    return file.getvalue()


def _opus() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).uniform(-0.5, 0.5, (4800, 1)), 48000, format="OGG", subtype="OPUS")
    return file.getvalue()


def _wav_with_chunks() -> bytes:
    data = _sound("WAV", "PCM_16")
    chunks = [
        (b"LIST", b"INFOINAM\x04\0\0\0abc\0"),
        (b"bext", bytes(610)),
        (b"id3 ", b"ID3\x04\0\0\0\0\0\0"),
        (b"cue ", bytes(28)),
    ]
    tail = b"".join(name + len(body).to_bytes(4, "little") + body for name, body in chunks)
    return data[:4] + (len(data) + len(tail) - 8).to_bytes(4, "little") + data[8:] + tail


def _picture(format: str, mode: str = "RGB", **options: Any) -> bytes:
    rng = np.random.default_rng(0)
    channels = {"RGB": 3, "RGBA": 4, "L": 1, "P": 1, "CMYK": 4}[mode]
    pixels = rng.integers(0, 256, (24, 20, channels), np.uint8)
    image = Pillow.fromarray(pixels.squeeze() if channels == 1 else pixels, mode)
    if mode == "P":
        image.putpalette(rng.integers(0, 256, 768, np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _picture_16(format: str) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(0).integers(0, 65536, (24, 20), np.uint16)).save(file, format)
    return file.getvalue()


def _exif() -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    return exif


def _animation(format: str) -> bytes:
    frames = [Pillow.fromarray(np.full((12, 10, 3), 40 * i, np.uint8)) for i in range(3)]
    file = io.BytesIO()
    frames[0].save(file, format, save_all=True, append_images=frames[1:], duration=40)
    return file.getvalue()


def _profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _cloud(format: str) -> bytes:
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


def _table() -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"input": ["a.wav", "b.png"], "sigma": [None, 3.0]}), file)
    return file.getvalue()


def read_manifest(path: Path, out: Path) -> None:
    """Read a manifest; its rows name files that need not exist."""
    items, _ = find_items([str(path)], str(out / "clean"), {})
    root = (out / "clean").resolve()
    for item in items:
        if not Path(item.target).resolve().is_relative_to(root):
            raise AssertionError(f"{item.target} is outside of the target")


def _journal() -> bytes:
    row = {"input": "a", "output": "b", "status": "failed", "seconds": 1.0, "output_state": None, "warnings": []}
    return json.dumps(row | {"input_state": {"size": 3, "version": "1"}}).encode() + b"\n"


DECODERS = {
    "audio": Decoder(copy_audio, {
        "chunks.wav": _wav_with_chunks,
        "float.wav": lambda: _sound("WAV", "FLOAT"),
        "extensible.wav": lambda: _sound("WAVEX", "PCM_24", 3),
        "mulaw.wav": lambda: _sound("WAV", "ULAW"),
        "adpcm.wav": lambda: _sound("WAV", "IMA_ADPCM"),
        "long.rf64.wav": lambda: _sound("RF64", "PCM_16"),
        "wave.w64": lambda: _sound("W64", "PCM_16"),
        "core.caf": lambda: _sound("CAF", "PCM_16"),
        "apple.aiff": lambda: _sound("AIFF", "PCM_16"),
        "lossless.flac": lambda: _sound("FLAC", "PCM_16"),
        "vorbis.ogg": lambda: _sound("OGG", "VORBIS"),
        "opus.opus": _opus,
        "layer3.mp3": lambda: _sound("MP3", "MPEG_LAYER_III"),
    }),
    "image": Decoder(copy_image, {
        "rgb.png": lambda: _picture("PNG", exif=_exif(), icc_profile=_profile()),
        "palette.png": lambda: _picture("PNG", "P", transparency=3),
        "grey16.png": lambda: _picture_16("PNG"),
        "animation.png": lambda: _animation("PNG"),
        "grey16.tif": lambda: _picture_16("TIFF"),
        "rgba.tif": lambda: _picture("TIFF", "RGBA", compression="tiff_lzw"),
        "cmyk.tif": lambda: _picture("TIFF", "CMYK", compression="tiff_adobe_deflate"),
        "pages.tif": lambda: _animation("TIFF"),
        "photo.jpg": lambda: _picture("JPEG", exif=_exif(), icc_profile=_profile()),
        "cmyk.jpg": lambda: _picture("JPEG", "CMYK"),
        "photo.webp": lambda: _picture("WEBP", "RGBA", lossless=True),
        "animation.webp": lambda: _animation("WEBP"),
        "animation.gif": lambda: _animation("GIF"),
        "bitmap.bmp": lambda: _picture("BMP"),
        "photo.avif": lambda: _picture("AVIF"),
    }),
    "points": Decoder(lambda path, _: read_points(path), {
        "cloud.xyz": lambda: _cloud("xyz"),
        "ascii.ply": lambda: _cloud("ascii"),
        "little.ply": lambda: _cloud("binary_little_endian"),
        "big.ply": lambda: _cloud("binary_big_endian"),
    }),
    "manifests": Decoder(read_manifest, {
        "list.csv": lambda: b"input,output,sigma,model\na.wav,,,\nb.png,c/d.png,3,gaussian\n",
        "list.jsonl": lambda: b'{"input": "a.wav"}\n{"input": "b.png", "output": "c/d.png", "sigma": 3}\n',
        "list.parquet": _table,
    }),
    "journals": Decoder(lambda path, _: Journal(path).read(), {"out.journal.jsonl": _journal}),
    "weights": Decoder(lambda path, _: load(path), {
        "mnist-vae.safetensors": lambda: locate("mnist-vae").read_bytes(),
    }),
    "recipes": Decoder(lambda path, _: load_recipe(path), {
        "recipe.toml": lambda: (Path(__file__).parents[1] / "recipes/mnist-vae/recipe.toml").read_bytes(),
    }),
}  # fmt: skip
SEEDS = [(kind, name) for kind, decoder in DECODERS.items() for name in decoder.seeds]


def mutate(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """Return a file with a few faults, most of them near its start, where headers are.

    Args:
        data: a sound file.
        chance: source of the faults.
        other: another file, of which a piece may be taken.
    """
    mutated = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        size = max(1, len(mutated))
        reach = min(size, chance.choice((16, 64, 256, 1024, size)))
        place = chance.randrange(reach) if chance.random() < 0.9 else size - 1 - chance.randrange(reach)
        match chance.randrange(7):
            case 0:
                mutated[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                width = chance.choice((1, 2, 4, 8))
                value = chance.choice(EXTREMES) & ((1 << 8 * width) - 1)
                mutated[place : place + width] = value.to_bytes(width, chance.choice(("little", "big")))
            case 2:
                del mutated[place:]
            case 3:
                del mutated[place : place + chance.choice((1, 4, 50))]
            case 4:
                mutated[place:place] = mutated[place : place + chance.choice((1, 8, 100))]
            case 5:
                mutated[place:place] = chance.randbytes(chance.choice((1, 4, 40)))
            case 6:
                start = chance.randrange(max(1, len(other)))
                mutated[place : place + 32] = other[start : start + 32]
    return bytes(mutated)


class FindingError(Exception):
    """A decoder did something else than to read a file or to refuse it."""


def run_case(case: int, folder: Path) -> str:
    """Run a decoder on one mutated file.

    Args:
        case: number of the case, which determines file and faults.
        folder: an empty folder.

    Returns:
        ``"read"`` or ``"refused"``, after the kind of the decoder.

    Raises:
        FindingError: the decoder did something else.
    """
    chance = random.Random(case)
    kind, name = SEEDS[case % len(SEEDS)]
    decoder = DECODERS[kind]
    other = decoder.seeds[chance.choice([*decoder.seeds])]()
    path, out = folder / name, folder / "out"
    path.write_bytes(mutate(decoder.seeds[name](), chance, other))
    out.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about damaged metadata
        try:
            decoder.decode(path, out)
            outcome = "read"
        except DenoiseError as error:
            if "\n" in str(error):
                raise FindingError(f"case {case}, {name}: a message of several lines: {error}") from None
            outcome = "refused"
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            raise FindingError(f"case {case}, {name}: {type(error).__name__} at {place}: {error}") from error
    if {item.name for item in folder.iterdir()} != {name, "out"}:
        raise FindingError(f"case {case}, {name}: wrote beside the output")
    return f"{kind} {outcome}"


# The script


def run_cases(start: int, stop: int) -> Iterator[str]:
    """Run cases in this process within the limits; yield the outcome of each, findings included."""
    with tempfile.TemporaryDirectory() as root:
        for case in range(start, stop):
            folder = Path(root) / str(case)
            folder.mkdir()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            signal.alarm(LIMIT_S)
            try:
                outcome = run_case(case, folder)
            except FindingError as finding:
                outcome = f"FINDING {finding}"
            signal.alarm(0)
            if (grown := (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024) > LIMIT_MIB:
                outcome = f"FINDING case {case}: {grown:.0f} MiB of memory"
            yield outcome


def _run_block(start: int, stop: int) -> list[str]:
    return [*run_cases(start, stop)]


def main() -> None:
    """Run the cases in blocks, each in a process that may crash; print a report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--block", type=int, default=250)
    arguments = parser.parse_args()
    outcomes: Counter[str] = Counter()
    started, last = time.perf_counter(), arguments.first + arguments.cases
    pool = None
    for start in range(arguments.first, last, arguments.block):
        pool = pool or ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        stop = min(last, start + arguments.block)
        try:
            found = pool.submit(_run_block, start, stop).result()
        except BrokenProcessPool:
            found = [f"FINDING a crash or a hang in cases {start} to {stop - 1}"]
            pool.shutdown()
            pool = None
        outcomes.update(line for line in found if not line.startswith("FINDING"))
        for line in found:
            if line.startswith("FINDING"):
                outcomes["findings"] += 1
                print(line, flush=True)
    if pool is not None:
        pool.shutdown()
    print(f"{arguments.cases} cases in {time.perf_counter() - started:.0f} s")
    for outcome, n in sorted(outcomes.items()):
        print(f"{outcome:20} {n}")
    sys.exit(outcomes["findings"] > 0)


if __name__ == "__main__":
    main()
