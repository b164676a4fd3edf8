"""Collect speech, noise and rooms with permissive licences from git clones.

    python recipes/data/speech.py CLONES -o DIR/audio [--only FOLDER ...] [--list]

CLONES is a folder of clones, bare or checked out, each named owner+name, e.g. rhasspy+dataset-voice-kerstin. A source
without a clone is reported and left out. `speech.toml` beside this script names the sources: repository, licence,
files, speakers, what is test and what is left out. --list prints the repositories to clone.

Each folder gets train/*.flac (and test, validation) and index.csv, one line a file: source files, licence, speaker,
duration, rate, bandwidth, level range.

- Speech is cut to 0.2 s around the voice, faded, limited to a peak of 0.9. Short words of one speaker are joined.
  Recordings are left out whose 5th percentile of 20 ms levels is less than 38 dB below the 95th, that are clipped,
  or that end below 6 kHz.
  Of each speaker the widest level ranges are kept, up to so many minutes.
- Noise is cut into pieces of at most 30 s, up to so many minutes of each recording; quiet noise is raised.
- Rates are never raised; a rate is reduced where the recording holds no higher frequencies.

Needs numpy, soundfile and soxr only.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from clones import Clone
from recordings import (
    bandwidth,
    clipped_fraction,
    decode,
    join,
    level_range,
    prepare_noise,
    prepare_room,
    prepare_speech,
    reduce_rate,
)
from speech_sources import Candidate, Source, find_candidates, load_sources

CLIPPED = 1e-3  # highest fraction of clipped samples of speech
SHORTEST = 0.25  # seconds of speech after trimming
NARROW = 6_000  # Hz; speech of a higher rate that ends below it is left out: its consonants are cut off
COLUMNS = [
    "file", "split", "repository", "commit", "source", "licence", "credit",
    "speaker", "seconds", "sample_rate", "bandwidth_hz", "range_db",
]  # fmt: skip


class Piece(NamedTuple):
    """Prepared samples, (time,), of one or more files."""

    samples: np.ndarray
    rate: int
    sources: tuple[Candidate, ...]
    range_db: float
    bandwidth_hz: float


def collect_speech(clone: Clone, source: Source, candidates: list[Candidate], counts: Counter[str]) -> Iterator[Piece]:
    """Yield the clean speech of a source, short words joined."""
    groups: dict[tuple[str, str], list[Piece]] = defaultdict(list)
    for candidate in candidates:
        recording = decode(clone.read(candidate.path) or b"")
        if recording is None:
            counts["unreadable"] += 1
            continue
        x, rate = recording
        if clipped_fraction(x) > CLIPPED:
            counts["clipped"] += 1
            continue
        range_db = level_range(x, rate)
        if range_db < source.range_db:
            counts["noisy"] += 1
            continue
        band = bandwidth(x, rate)
        if band < min(NARROW, 0.45 * rate):
            counts["narrow"] += 1
            continue
        x, rate = reduce_rate(prepare_speech(x, rate), rate, band)
        if len(x) < SHORTEST * rate:
            counts["short"] += 1
            continue
        samples = np.rint(x * 32767).astype(np.int16)
        groups[candidate.speaker, candidate.split].append(Piece(samples, rate, (candidate,), range_db, band))
    for (speaker, split), pieces in groups.items():
        chosen = sorted(pieces, key=lambda piece: -piece.range_db)
        if split != "test":
            ends = np.cumsum([len(piece.samples) / piece.rate for piece in chosen])
            chosen = chosen[: int((ends <= source.minutes * 60).sum())]
        counts["beyond the minutes"] += len(pieces) - len(chosen)
        chosen.sort(key=lambda piece: piece.sources[0].path)
        if not speaker:
            yield from chosen
            continue
        for rate in sorted({piece.rate for piece in chosen}):
            yield from join_words([piece for piece in chosen if piece.rate == rate])


def join_words(pieces: list[Piece]) -> Iterator[Piece]:
    """Yield pieces of at least 4 s each, of the successive ones of one speaker and rate, and a shorter rest."""
    for indices in join([piece.samples for piece in pieces], pieces[0].rate):
        group = [pieces[i] for i in indices]
        yield Piece(
            np.concatenate([piece.samples for piece in group]),
            group[0].rate,
            tuple(source for piece in group for source in piece.sources),
            float(np.median([piece.range_db for piece in group])),
            max(piece.bandwidth_hz for piece in group),
        )


def collect_noise(clone: Clone, source: Source, candidates: list[Candidate], counts: Counter[str]) -> Iterator[Piece]:
    """Yield the pieces of the noises of a source."""
    for candidate in candidates:
        recording = decode(clone.read(candidate.path) or b"")
        if recording is None:
            counts["unreadable"] += 1
            continue
        x, rate = recording
        for piece in prepare_noise(x[: round(source.minutes * 60 * rate)], rate):
            band = bandwidth(piece, rate)
            reduced, new_rate = reduce_rate(piece, rate, band)
            yield Piece(reduced, new_rate, (candidate,), level_range(piece, rate), band)


def collect_rooms(clone: Clone, source: Source, candidates: list[Candidate], counts: Counter[str]) -> Iterator[Piece]:
    """Yield the impulse responses of a source: their first channels."""
    for candidate in candidates:
        recording = decode(clone.read(candidate.path) or b"", channel=0)
        if recording is None:
            counts["unreadable"] += 1
            continue
        x, rate = recording
        response = prepare_room(x, rate)
        yield Piece(response, rate, (candidate,), level_range(response, rate), bandwidth(response, rate))


def write(piece: Piece, clone: Clone, folder: Path, names: set[str]) -> list[Any]:
    """Write a piece as FLAC with 16 bits and return its row of the index."""
    first = piece.sources[0]
    parts = clone.repository.split("/")[1], first.speaker, Path(first.path).stem
    stem = re.sub(r"[^a-z0-9]+", "-", "-".join(part for part in parts if part).lower()).strip("-")[:90]
    stem = next(name for i in count(1) if (name := stem if i == 1 else f"{stem}-{i}") not in names)
    names.add(stem)
    name = f"{first.split}/{stem}.flac"
    (folder / first.split).mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / name, piece.samples, piece.rate, subtype="PCM_16")
    source = " | ".join(candidate.path for candidate in piece.sources)
    facts = clone.repository, clone.commit, source, first.licence, first.credit, first.speaker
    seconds = len(piece.samples) / piece.rate
    return [
        name, first.split, *facts, f"{seconds:.3f}", piece.rate, round(piece.bandwidth_hz), f"{piece.range_db:.1f}"
    ]  # fmt: skip


COLLECTORS = {"speech": collect_speech, "noise": collect_noise, "room": collect_rooms}


def collect(clones: Path, sources: list[Source], folder: Path, seen: set[str]) -> None:
    """Write the sources of one folder and its index, and print what each gave.

    Args:
        clones: folder of the clones.
        sources: sources of the folder.
        folder: output folder.
        seen: contents that are not to be repeated; new ones are added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names: set[str] = set()
    with open(folder / "index.csv", "w", newline="", encoding="utf-8", buffering=1) as file:
        index = csv.writer(file)
        index.writerow(COLUMNS)
        for source in sources:
            path = clones / source.repository.replace("/", "+")
            if not path.is_dir():
                print(f"{source.repository}: no clone at {path}", flush=True)
                continue
            with closing(Clone(path, source.commit or None)) as clone:
                candidates = []
                for candidate in find_candidates(clone, source):
                    if clone.files[candidate.path] not in seen:
                        candidates.append(candidate)
                    seen.add(clone.files[candidate.path])
                counts = Counter(files=len(candidates))
                seconds: Counter[str] = Counter()
                for piece in COLLECTORS[source.kind](clone, source, candidates, counts):
                    index.writerow(write(piece, clone, folder, names))
                    seconds[piece.sources[0].split] += len(piece.samples) / piece.rate
            minutes = ", ".join(f"{value / 60:.1f} min {split}" for split, value in seconds.items())
            print(f"{folder.name} {source.repository}: {minutes or 'nothing'} ({dict(counts)})", flush=True)


def main() -> None:
    """Parse the command line and write the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", type=Path, metavar="CLONES", help="folder of the clones")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR/audio", help="folder for the result")
    parser.add_argument("--only", nargs="*", help="folders to write, e.g. speech noise2; all by default")
    parser.add_argument("--list", action="store_true", help="print the repositories and stop")
    parser.add_argument("--sources", type=Path, default=Path(__file__).with_suffix(".toml"), help="other lists")
    options = parser.parse_args()
    sources = load_sources(options.sources)
    if options.list:
        print("\n".join(dict.fromkeys(source.repository for source in sources)))
        return
    if options.output is None:
        parser.error("-o is missing: name the folder for the result.")
    seen: set[str] = set()  # some repositories hold a recording twice, or that of another
    for folder in dict.fromkeys(source.folder for source in sources):
        if not options.only or folder in options.only:
            collect(
                options.clones, [source for source in sources if source.folder == folder], options.output / folder, seen
            )


if __name__ == "__main__":
    main()
