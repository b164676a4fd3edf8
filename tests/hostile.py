"""Mutated files for every decoder: `python -m tests.hostile --cases 10000` runs them and prints a report.

A decoder reads a file, or refuses it by a `DenoiseError` of one line. Anything else is a finding: another exception, a
crash, a hang, more memory than the bound, or a file written somewhere else.
"""

from __future__ import annotations

import argparse
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
from functools import cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from denoise.errors import DenoiseError
from denoise.files.audio import AudioReader, AudioWriter, open_media_file
from denoise.files.image import ImageReader, write_image
from denoise.files.names import output_suffix
from denoise.files.points import read_points
from denoise.pipelines.batch.items import find_items
from denoise.pipelines.batch.journal import Journal
from denoise.registry import load, locate
from denoise.training.recipe import load_recipe
from tests import seed_files

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


def copy_media(path: Path, out: Path) -> None:
    """Read the audio tracks of a media file, and write it with them as `denoise audio` does."""
    with open_media_file(path, out / path.name, overwrite=False, name=None) as opened:
        if opened.media is None:
            copy_audio(path, out)
            return
        for track, target in opened.media.tracks:
            with AudioReader(track) as reader, AudioWriter(target, reader.format) as writer:
                n = 0
                while (block := reader.read(4096)).shape[1] and (n := n + block.shape[1]) < 1 << 22:
                    writer.write(block)
        opened.media.copy()


def copy_image(path: Path, out: Path) -> None:
    """Read the frames of an image, and write them in its format with its metadata."""
    with ImageReader(path, max_megapixels=2) as reader:
        write_image(out / f"{path.stem}{output_suffix(path)}", islice(reader, 8), reader.format)


def read_manifest(path: Path, out: Path) -> None:
    """Read a manifest; its rows name files that need not exist."""
    items, _ = find_items([str(path)], str(out / "clean"), {})
    root = (out / "clean").resolve()
    for item in items:
        if not Path(item.target).resolve().is_relative_to(root):
            raise AssertionError(f"{item.target} is outside of the target")


DECODERS = {
    "audio": Decoder(copy_audio, {
        "chunks.wav": seed_files.wav_with_chunks,
        "float.wav": lambda: seed_files.sound("WAV", "FLOAT"),
        "extensible.wav": lambda: seed_files.sound("WAVEX", "PCM_24", 3),
        "mulaw.wav": lambda: seed_files.sound("WAV", "ULAW"),
        "adpcm.wav": lambda: seed_files.sound("WAV", "IMA_ADPCM"),
        "long.rf64.wav": lambda: seed_files.sound("RF64", "PCM_16"),
        "wave.w64": lambda: seed_files.sound("W64", "PCM_16"),
        "core.caf": lambda: seed_files.sound("CAF", "PCM_16"),
        "apple.aiff": lambda: seed_files.sound("AIFF", "PCM_16"),
        "lossless.flac": lambda: seed_files.sound("FLAC", "PCM_16"),
        "vorbis.ogg": lambda: seed_files.sound("OGG", "VORBIS"),
        "opus.opus": seed_files.opus,
        "layer3.mp3": lambda: seed_files.sound("MP3", "MPEG_LAYER_III"),
    }),
    "image": Decoder(copy_image, {
        "rgb.png": lambda: seed_files.picture("PNG", exif=seed_files.exif(), icc_profile=seed_files.profile()),
        "palette.png": lambda: seed_files.picture("PNG", "P", transparency=3),
        "grey16.png": lambda: seed_files.picture_16("PNG"),
        "animation.png": lambda: seed_files.animation("PNG"),
        "grey16.tif": lambda: seed_files.picture_16("TIFF"),
        "rgba.tif": lambda: seed_files.picture("TIFF", "RGBA", compression="tiff_lzw"),
        "cmyk.tif": lambda: seed_files.picture("TIFF", "CMYK", compression="tiff_adobe_deflate"),
        "pages.tif": lambda: seed_files.animation("TIFF"),
        "photo.jpg": lambda: seed_files.picture("JPEG", exif=seed_files.exif(), icc_profile=seed_files.profile()),
        "cmyk.jpg": lambda: seed_files.picture("JPEG", "CMYK"),
        "photo.webp": lambda: seed_files.picture("WEBP", "RGBA", lossless=True),
        "animation.webp": lambda: seed_files.animation("WEBP"),
        "animation.gif": lambda: seed_files.animation("GIF"),
        "bitmap.bmp": lambda: seed_files.picture("BMP"),
        "photo.avif": lambda: seed_files.picture("AVIF"),
        "photo.heic": seed_files.heic,
        "raw.dng": seed_files.dng,
    }),
    "media": Decoder(copy_media, {
        "film.mp4": lambda: seed_files.film("mp4", "aac"),
        "film.mkv": lambda: seed_files.film("matroska", "flac"),
        "film.ts": lambda: seed_files.film("mpegts", "mp2"),
        "film.avi": lambda: seed_files.film("avi", "pcm_s16le"),
    }),
    "points": Decoder(lambda path, _: read_points(path), {
        "cloud.xyz": lambda: seed_files.cloud("xyz"),
        "ascii.ply": lambda: seed_files.cloud("ascii"),
        "little.ply": lambda: seed_files.cloud("binary_little_endian"),
        "big.ply": lambda: seed_files.cloud("binary_big_endian"),
    }),
    "manifests": Decoder(read_manifest, {
        "list.csv": lambda: b"input,output,sigma,model\na.wav,,,\nb.png,c/d.png,3,gaussian\n",
        "list.jsonl": lambda: b'{"input": "a.wav"}\n{"input": "b.png", "output": "c/d.png", "sigma": 3}\n',
        "list.parquet": seed_files.table,
    }),
    "journals": Decoder(lambda path, _: Journal(path).read(), {"out.journal.jsonl": seed_files.journal}),
    "weights": Decoder(lambda path, _: load(path), {
        "mnist-vae.safetensors": lambda: locate("mnist-vae").read_bytes(),
    }),
    "recipes": Decoder(lambda path, _: load_recipe(path), {
        "recipe.toml": lambda: (Path(__file__).parents[1] / "recipes/mnist-vae/recipe.toml").read_bytes(),
    }),
}  # fmt: skip


@cache
def seed(kind: str, name: str) -> bytes:
    """Return a file without faults.

    Args:
        kind: key of `DECODERS`.
        name: name of the file.
    """
    return DECODERS[kind].seeds[name]()


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
    other = seed(kind, chance.choice([*decoder.seeds]))
    path, out = folder / name, folder / "out"
    path.write_bytes(mutate(seed(kind, name), chance, other))
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


def run_within_limits(case: int) -> str:
    """Run a case in this process, which a hang ends; return its outcome, perhaps a finding."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.alarm(LIMIT_S)
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcome = run_case(case, Path(folder))
        except FindingError as finding:
            outcome = f"FINDING {finding}"
    signal.alarm(0)
    if (grown := (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024) > LIMIT_MIB:
        return f"FINDING case {case}: {grown:.0f} MiB of memory"
    return outcome


def run_cases(first: int, last: int) -> Iterator[str]:
    """Run cases in a process that may crash or hang, and is then replaced; yield the outcome of each."""
    pool = None
    for case in range(first, last):
        pool = pool or ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            yield pool.submit(run_within_limits, case).result()
        except BrokenProcessPool:
            pool.shutdown()
            pool = None
            yield f"FINDING case {case}, {SEEDS[case % len(SEEDS)][1]}: a crash, or longer than {LIMIT_S} s"
    if pool is not None:
        pool.shutdown()


def main() -> None:
    """Run the cases and print a report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    outcomes: Counter[str] = Counter()
    started = time.perf_counter()
    for outcome in run_cases(arguments.first, arguments.first + arguments.cases):
        if outcome.startswith("FINDING"):
            print(outcome, flush=True)
        outcomes["findings" if outcome.startswith("FINDING") else outcome] += 1
    print(f"{arguments.cases} cases in {time.perf_counter() - started:.0f} s")
    for outcome, n in sorted(outcomes.items()):
        print(f"{outcome:20} {n}")
    sys.exit(outcomes["findings"] > 0)


if __name__ == "__main__":
    main()
