"""Lists of recordings in git clones: what to take, by which licence, of which speaker, for which split."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from clones import Clone
from licences import find_licence

KINDS = ("speech", "noise", "room")


@dataclass(frozen=True)
class Source:
    """Recordings of one repository.

    Args:
        kind: ``speech``, ``noise`` or ``room``.
        folder: folder that they are written to.
        repository: owner/name.
        files: pattern of all paths; its group ``speaker`` is the speaker, or the source recording of noise.
        licence: licence of all files; empty if `credits` names it for each.
        credit: authors.
        credits: file with a line for each recording, which names its licence if `licence` is empty; relative to the
            repository, or, if it begins with ``./``, to the folder of the recording. Files that have no line or no
            permissive licence are left out.
        exclude: pattern of paths that are left out.
        test: pattern of paths that are never trained on.
        validation: pattern of paths that are for the choice of checkpoints.
        speaker: speaker of all files; empty if the speakers are unknown, then nothing is joined.
        minutes: most minutes of a speaker, of all unknown speakers, or of a recording of noise.
        range_db: least level range of speech in dB.
        commit: commit to read; the newest if it is empty.
    """

    kind: str
    folder: str
    repository: str
    files: str
    licence: str = ""
    credit: str = ""
    credits: str = ""
    exclude: str = "(?!)"
    test: str = "(?!)"
    validation: str = "(?!)"
    speaker: str = ""
    minutes: float = 15.0
    range_db: float = 38.0
    commit: str = ""


class Candidate(NamedTuple):
    """A file with what is known of it before it is decoded."""

    path: str
    speaker: str
    split: str
    licence: str
    credit: str


def load_sources(path: Path) -> list[Source]:
    """Return the sources of a TOML file with tables [[speech]], [[noise]] and [[room]]."""
    tables = tomllib.loads(path.read_text("utf-8"))
    return [Source(kind, **table) for kind in KINDS for table in tables.get(kind, [])]


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def find_credit(text: str, path: str) -> str:
    """Return the line of a text that names a file, or nothing.

    Args:
        text: lines or a Markdown table; a line names a file by its name, or by its stem in the first cell or link.
        path: path of the file.
    """
    name, stem = Path(path).name, _letters(Path(path).stem)
    for line in text.splitlines():
        label = re.match(r"\W*\[?([^|\](]+)", line)
        if name in line or (label and _letters(label[1]) == stem):
            return " ".join(line.split())[:300]
    return ""


def find_candidates(clone: Clone, source: Source) -> Iterator[Candidate]:
    """Yield the files of a source with a permissive licence, in the order of their paths."""
    for path in sorted(clone.files):
        match = re.fullmatch(source.files, path)
        if not match or re.search(source.exclude, path):
            continue
        licence, credit = source.licence, source.credit
        if source.credits:
            parent = Path(path).parent if source.credits.startswith("./") else Path()
            text = clone.read(str(parent / source.credits)) or b""
            line = find_credit(text.decode("utf-8", "replace"), path)
            licence = licence or find_licence(line) or ""
            if not line or not licence:
                continue
            credit = credit or line
        named = match.groupdict().get("speaker")
        if re.search(source.test, path):
            split = "test"
        else:
            split = "validation" if re.search(source.validation, path) else "train"
        yield Candidate(path, named or source.speaker, split, licence, credit)
