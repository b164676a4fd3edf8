"""Which input goes to which output: known, and known to be free of clashes, before anything runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from os.path import isdir, isfile  # unlike those of Path they answer for any name, even one that is too long
from pathlib import Path

from denoise.errors import ConfigError

STREAM = "-"


def plan(
    inputs: Sequence[str], out: str | None, extensions: Iterable[str], *, overwrite: bool = False
) -> list[tuple[str, str]]:
    """Pair every input file with its output; ``-`` stands for standard input and output.

    Folders are walked; files in them that we made, hidden files, and an output folder inside them are passed
    over. One input file goes to ``out`` itself unless that is a folder, everything else into the folder
    ``out``, where the tree below each input folder is mirrored. Without ``out``, ``NAME.denoised.EXT``
    stands beside each input.

    Raises:
        ConfigError: two inputs would land on one output, an output is an input, or nothing was found; ``out`` is a
            file for several.
    """
    known = frozenset(extensions)
    single = len(inputs) == 1 and not isdir(inputs[0])
    if not single and out is not None and not isdir(out) and (isfile(out) or Path(out).suffix.lower() in known):
        raise ConfigError(f"{out}: is one file, and there are several inputs. Give a folder as -o.")
    pairs: list[tuple[str, str]] = []
    for name in inputs:
        path = Path(name)
        if name == STREAM:
            if out is None or out == STREAM or (single and not isdir(out)):
                pairs.append((name, out or STREAM))
                continue
            raise ConfigError("standard input needs one output: give -o - or -o FILE.")
        if out == STREAM:
            if not single:
                raise ConfigError("-o - takes one input file.")
            pairs.append((name, STREAM))
        elif isdir(path):
            found = [file for file in _walk(path, known) if not _inside(file, out, path)]
            if not found:
                raise ConfigError(f"{name}: no file in it that can be denoised ({', '.join(sorted(known))}).")
            pairs += [(str(f), str(Path(out) / f.relative_to(path)) if out else _beside(f)) for f in found]
        elif out is None:
            pairs.append((name, _beside(path)))
        elif single and not isdir(out) and not out.endswith(("/", "\\")):
            pairs.append((name, out))
        else:
            pairs.append((name, str(Path(out) / path.name)))
    _refuse_clashes(pairs, overwrite)
    return pairs


def passed_over(inputs: Sequence[str], extensions: Iterable[str]) -> Counter[str]:
    """How many files of which other extensions the input folders hold."""
    known = frozenset(extensions)
    folders = [Path(name) for name in inputs if name != STREAM and isdir(name)]
    others = (path.suffix.lower() for folder in folders for path in _visible(folder) if path.suffix)
    return Counter(suffix for suffix in others if suffix not in known)


def _walk(folder: Path, extensions: frozenset[str]) -> list[Path]:
    return sorted(path for path in _visible(folder) if path.suffix.lower() in extensions)


def _visible(folder: Path) -> Iterator[Path]:
    """Files in a folder, without hidden ones and those that we made."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and not _ours(path) and path.is_file():
            yield path


def _ours(path: Path) -> bool:
    """Whether a name is one that we give; the mean and the deviation of samples only stand beside them."""
    stem, dot, end = path.stem.rpartition(".")
    if end in ("mean", "std") and dot:
        return path.with_name(f"{stem}.sample-1{path.suffix}").exists()
    return bool(re.fullmatch(r"denoised|sample-\d+", end)) and bool(dot)


def _inside(file: Path, out: str | None, folder: Path) -> bool:
    """Whether a file in ``folder`` is in an output folder that is itself inside ``folder``."""
    if out is None:
        return False
    place = Path(out).resolve()
    return folder.resolve() in place.parents and place in file.resolve().parents


def _beside(path: Path) -> str:
    return str(path.with_name(f"{path.stem}.denoised{path.suffix}"))


def _refuse_clashes(pairs: list[tuple[str, str]], overwrite: bool) -> None:
    sources = {Path(source).resolve(): source for source, _ in pairs if source != STREAM}
    taken: dict[Path, str] = {}
    for source, target in pairs:
        if target == STREAM:
            continue
        place = Path(target).resolve()
        if place in taken:
            raise ConfigError(f"{taken[place]} and {source} would both be written to {target}. Run them apart.")
        taken[place] = source
        if place in sources and (not overwrite or sources[place] != source):
            raise ConfigError(f"{target} is an input itself. Give another -o, or --overwrite to replace it.")
