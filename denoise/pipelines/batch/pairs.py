"""Pair inputs with outputs before anything runs, and refuse collisions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from os.path import exists, isdir, isfile  # unlike those of Path they accept any name, even one that is too long
from pathlib import Path, PurePath

from denoise.errors import ConfigError
from denoise.files.names import output_suffix

STREAM = "-"
KINDS_LISTED = 8  # most frequent kinds of files that a message names
IN_OUTPUT_FOLDER = "in the output folder"  # kind of files that are skipped although they could be taken


def plan(
    inputs: Sequence[str], out: str | None, extensions: Iterable[str], *, overwrite: bool = False
) -> list[tuple[str, str]]:
    """Pair every input file with its output; ``-`` is standard input and output.

    Folders are searched; outputs of earlier runs, hidden files, links to folders, pipes, and an output folder inside of
    an input are skipped.
    A single input file is written to ``out`` itself unless that is a folder, several files into the folder ``out``,
    with the same tree as in each input folder. Without ``out``, NAME.denoised.EXT is written beside each input. Outputs
    have the extension of the input, or that of TIFF for raw files of cameras.

    Args:
        inputs: files, folders or ``-``.
        out: file, folder, ``-`` or None.
        extensions: extensions of the files that are taken from folders, with a dot, lower case.
        overwrite: whether an output may replace its own input.

    Returns:
        Pairs of input and output.

    Raises:
        ConfigError: two inputs would have the same output, an output is an input, a folder has no files, or ``out`` is
            a file and there are several inputs.
    """
    suffixes = frozenset(extensions)
    is_single = len(inputs) == 1 and not isdir(inputs[0])
    if not is_single and out is not None and not isdir(out) and (isfile(out) or Path(out).suffix.lower() in suffixes):
        raise ConfigError(f"{out}: is one file, and there are several inputs. Give a folder as -o.")
    pairs: list[tuple[str, str]] = []
    for name in inputs:
        if name == STREAM:
            pairs.append((name, _stream_output(out, is_single)))
        elif out == STREAM:
            if not is_single:
                raise ConfigError("-o - takes one input file.")
            pairs.append((name, STREAM))
        elif isdir(name):
            pairs += _pair_folder(Path(name), out, suffixes)
        elif out is None:
            pairs.append((name, _default_output(Path(name))))
        elif is_single and not isdir(out) and not out.endswith(("/", "\\")):
            pairs.append((name, out))
        else:
            pairs.append((name, str(_in_folder(Path(out), Path(Path(name).name)))))
    _refuse_collisions(pairs, overwrite)
    return pairs


def count_skipped(inputs: Sequence[str], out: str | None, extensions: Iterable[str]) -> Counter[str]:
    """Count the files in the input folders that are skipped.

    Args:
        inputs: files, folders or ``-``.
        out: file, folder, ``-`` or None.
        extensions: extensions of the files that `plan` takes.

    Returns:
        Number of files by `skipped_kind` and `IN_OUTPUT_FOLDER`.
    """
    suffixes = frozenset(extensions)
    folders = [Path(name) for name in inputs if name != STREAM and isdir(name)]
    kinds = (_skipped_kind(path, folder, out, suffixes) for folder in folders for path in _entries(folder))
    return Counter(kind for kind in kinds if kind)


def _skipped_kind(path: Path, folder: Path, out: str | None, suffixes: frozenset[str]) -> str | None:
    kind = skipped_kind(path.relative_to(folder), suffixes, path)
    return IN_OUTPUT_FOLDER if kind is None and _is_in_nested_output(path, out, folder) else kind


def skipped_kind(relative: PurePath, suffixes: Container[str], path: Path | None) -> str | None:
    """Return why a file in a folder is skipped: its extension or a few words; None of a file that is taken.

    Hidden files of other extensions are not worth a word, which is empty then. A dangling link is taken: it fails.

    Args:
        relative: its path below the folder.
        suffixes: extensions of the files that are taken.
        path: the file; None if it is not on this machine.
    """
    suffix = relative.suffix.lower()
    if any(part.startswith(".") for part in relative.parts):
        return "hidden" if suffix in suffixes else ""
    if path is not None and isdir(path):  # not followed: it may lead back to the folder
        return "linked folders"
    if suffix not in suffixes:
        return suffix or "without extension"
    if path is None:
        return None
    if is_output(path):
        return "outputs of earlier runs"
    return "pipes and devices" if exists(path) and not isfile(path) else None


def list_kinds(kinds: Counter[str]) -> str:
    """Return the numbers of skipped files as text, most frequent kinds first.

    Args:
        kinds: number of files by kind.

    >>> list_kinds(Counter([".mid", ".txt", ".mid"]))
    '.mid 2, .txt 1'
    """
    return ", ".join(f"{kind} {n}" for kind, n in kinds.most_common(KINDS_LISTED))


def _stream_output(out: str | None, is_single: bool) -> str:
    """Output of standard input."""
    if out is None or out == STREAM or (is_single and not isdir(out)):
        return out or STREAM
    raise ConfigError("standard input needs one output: give -o - or -o FILE.")


def _pair_folder(folder: Path, out: str | None, suffixes: frozenset[str]) -> list[tuple[str, str]]:
    """Files in a folder with their outputs."""
    files = sorted(path for path in _entries(folder) if _skipped_kind(path, folder, out, suffixes) is None)
    if not files:
        raise ConfigError(f"{folder}: no file in it that can be denoised ({', '.join(sorted(suffixes))}).")
    outputs = [str(_in_folder(Path(out), path.relative_to(folder))) if out else _default_output(path) for path in files]
    return list(zip(map(str, files), outputs, strict=True))


def _entries(folder: Path) -> Iterator[Path]:
    """Files in a folder and its subfolders, and links to folders."""
    return (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def is_output(path: Path) -> bool:
    """Whether a name is that of an output; the mean and the deviation of samples only beside the samples."""
    stem, dot, suffix = path.stem.rpartition(".")
    if suffix in ("mean", "std") and dot:
        return path.with_name(f"{stem}.sample-1{path.suffix}").exists()
    return bool(re.fullmatch(r"denoised|sample-\d+", suffix)) and bool(dot)


def _is_in_nested_output(path: Path, out: str | None, folder: Path) -> bool:
    """Whether a file in ``folder`` is in an output folder that is itself inside ``folder``."""
    if out is None:
        return False
    output_folder = Path(out).resolve()
    return folder.resolve() in output_folder.parents and output_folder in path.resolve().parents


def _default_output(path: Path) -> str:
    return str(path.with_name(f"{path.stem}.denoised{output_suffix(path)}"))


def _in_folder(folder: Path, path: Path) -> Path:
    return folder / path.with_name(f"{path.stem}{output_suffix(path)}")


def _refuse_collisions(pairs: list[tuple[str, str]], overwrite: bool) -> None:
    sources = {Path(source).resolve(): source for source, _ in pairs if source != STREAM}
    source_by_output: dict[Path, str] = {}
    for source, target in pairs:
        if target == STREAM:
            continue
        path = Path(target).resolve()
        if path in source_by_output:
            raise ConfigError(
                f"{source_by_output[path]} and {source} would both be written to {target}. Run them one by one."
            )
        source_by_output[path] = source
        if path in sources and (not overwrite or sources[path] != source):
            raise ConfigError(f"{target} is an input itself. Give another -o, or --overwrite to replace it.")
