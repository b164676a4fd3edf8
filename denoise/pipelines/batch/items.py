"""Files of a batch: what is in folders, patterns, manifests and URLs, each with its output and its options."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from denoise.errors import ConfigError
from denoise.files.audio import AUDIO_EXTENSIONS
from denoise.files.image import IMAGE_EXTENSIONS
from denoise.files.names import output_suffix
from denoise.pipelines.batch.file_options import (
    AudioFileOptions,
    ImageFileOptions,
    Modality,
    check_shared_options,
    parse_file_options,
    select_options,
)
from denoise.pipelines.batch.pairs import is_output
from denoise.pipelines.batch.storage import STAGING, is_url, join, local_path, open_storage

MANIFESTS = (".csv", ".jsonl", ".parquet")
MAX_MANIFEST_BYTES = 1 << 30
GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True)
class Item:
    """One file of a batch.

    Args:
        source: path or URL that is read.
        target: path or URL that is written.
        modality: what is in it.
        options: settings of this file.
    """

    source: str
    target: str
    modality: Modality
    options: AudioFileOptions | ImageFileOptions


@dataclass(frozen=True)
class Found:
    """A file before its options are known.

    Args:
        source: path or URL.
        output: path of its output below the output folder.
        values: options that a manifest gives it.
        where: manifest and line, for messages.
    """

    source: str
    output: PurePosixPath
    values: Mapping[str, Any]
    where: str


def find_items(
    sources: Sequence[str], target: str, values: Mapping[str, Any], modalities: Iterable[Modality] = ("audio", "image")
) -> tuple[list[Item], Counter[str]]:
    """Find the files of a batch and pair each with its output.

    Args:
        sources: folders, files, patterns, manifests, or URLs of them.
        target: folder or URL of a folder; the tree below each source folder is kept.
        values: options that all files share, by their names; a row of a manifest overrides them.
        modalities: modalities that are taken.

    Returns:
        The files in order, and the number of files of other kinds by extension.

    Raises:
        ConfigError: nothing is found, an option does not fit, two files would have the same output, or an output
            would be outside of the target or an input.
    """
    kinds = {e: m for m, known in _extensions(modalities).items() for e in known}
    items: list[Item] = []
    skipped: Counter[str] = Counter()
    found = [file for source in sources for file in _find(source, target)]
    present = {kinds[s] for file in found if (s := _suffix(file.source)) in kinds}
    if present:
        check_shared_options(values, present)
    for file in found:
        modality = kinds.get(_suffix(file.source))
        if modality is None and not file.values and not file.where:
            skipped[_suffix(file.source)] += 1
            continue
        if modality is None:
            raise ConfigError(f"{file.where}: {file.source} is no file of {' or '.join(_extensions(modalities))}.")
        shared = select_options(values, modality)
        options = parse_file_options(shared | dict(file.values), modality, file.where or "--set")
        items.append(Item(file.source, join(target, file.output), modality, options))
    if not items:
        raise ConfigError(f"{', '.join(sources)}: no file in it that can be denoised.")
    _refuse_collisions(items)
    return items, skipped


def _extensions(modalities: Iterable[Modality]) -> dict[Modality, frozenset[str]]:
    known: dict[Modality, frozenset[str]] = {"audio": AUDIO_EXTENSIONS, "image": IMAGE_EXTENSIONS}
    return {modality: known[modality] for modality in modalities}


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _output_name(path: PurePosixPath) -> PurePosixPath:
    return path.with_name(f"{path.stem}{output_suffix(Path(path))}")


def _find(source: str, target: str) -> Iterator[Found]:
    """Find the files that one source names."""
    if _suffix(source) in MANIFESTS:
        yield from _read_manifest(source)
        return
    if not is_url(source) and os.path.lexists(local_path(source)):
        storage, path, is_pattern = *open_storage(source), False  # a name may hold the characters of a pattern
    else:
        storage, path = open_storage(source)
        is_pattern = not GLOB_CHARACTERS.isdisjoint(source)
    try:
        if is_pattern:
            root, files = _fixed_root(path), [name for name in storage.glob(path) if not storage.isdir(name)]
        elif storage.isdir(path):
            root, files = path, storage.find(path)
        elif storage.exists(path) or os.path.lexists(path):
            yield Found(source, _output_name(PurePosixPath(PurePosixPath(path).name)), {}, "")
            return
        else:
            raise ConfigError(f"{source}: no such file or folder.")
    except OSError as error:
        raise ConfigError(f"{source}: cannot be listed ({error.strerror or error}).") from None
    own_output = None  # an output folder inside of the input
    if not is_url(source) and not is_url(target) and local_path(target).resolve() != Path(root).resolve():
        own_output = local_path(target).resolve()
    for name in sorted(files):
        relative = PurePosixPath(os.path.relpath(name, root))
        if any(part.startswith(".") for part in relative.parts) or STAGING in relative.parts:
            continue
        if is_url(source):
            yield Found(storage.unstrip_protocol(name), _output_name(relative), {}, "")
        elif not is_output(Path(name)) and not (own_output and Path(name).resolve().is_relative_to(own_output)):
            yield Found(name, _output_name(relative), {}, "")


def _fixed_root(pattern: str) -> str:
    """Return the folders of a pattern before the first that has a wildcard."""
    parts = []
    for part in PurePosixPath(pattern).parts[:-1]:
        if not GLOB_CHARACTERS.isdisjoint(part):
            break
        parts.append(part)
    return str(PurePosixPath(*parts))


def _read_manifest(name: str) -> Iterator[Found]:
    """Read a manifest: a row a file, with `input`, perhaps `output`, and options by their names."""
    storage, path = open_storage(name)
    try:
        if storage.size(path) > MAX_MANIFEST_BYTES:
            raise ConfigError(f"{name}: has more than {MAX_MANIFEST_BYTES >> 20} MiB. Split it.")
        rows = {".csv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}[_suffix(name)](storage, path)
        numbered = [(f"{name}: row {i}", row) for i, row in enumerate(rows, 1)]
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise ConfigError(f"{name}: is no manifest that can be read ({reason}).") from None
    folder = name.rpartition("/")[0] if is_url(name) else str(local_path(name).parent)
    for where, row in numbered:
        values = {key: value for key, value in row.items() if value is not None and value != ""}
        source, output = values.pop("input", None), values.pop("output", None)
        if not isinstance(source, str) or not isinstance(output, str | None):
            raise ConfigError(f'{where}: needs a column "input" with a path or URL; "output" is a path, if given.')
        if "\0" in source or "\0" in (output or ""):
            raise ConfigError(f"{where}: a path has a null character.")
        if not is_url(source) and not os.path.isabs(local_path(source)):
            source = f"{folder}/{source}" if is_url(folder) else os.path.normpath(os.path.join(folder, source))
        default = _output_name(PurePosixPath(PurePosixPath(source).name))
        yield Found(source, PurePosixPath(output) if output else default, values, where)


def _read_csv(storage: Any, path: str) -> Iterable[Mapping[str, Any]]:
    with storage.open(path, "r", encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            if None in row or any(value is None for value in row.values()):
                raise ValueError("a row has another number of columns than the first line")
            yield row


def _read_json_lines(storage: Any, path: str) -> Iterable[Mapping[str, Any]]:
    with storage.open(path, "r", encoding="utf-8") as file:
        for line in file:
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"a line is no object: {line[:40].strip()}")
            yield row


def _read_parquet(storage: Any, path: str) -> Iterable[Mapping[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError('Parquet needs pyarrow; run: pip install "denoise-toolkit[batch]"') from None
    with storage.open(path, "rb") as file:
        return parquet.read_table(file).to_pylist()


def _refuse_collisions(items: Sequence[Item]) -> None:
    sources = {os.path.realpath(item.source) if not is_url(item.source) else item.source for item in items}
    source_by_target: dict[str, str] = {}
    for item in items:
        place = item.target if is_url(item.target) else os.path.realpath(item.target)
        if place in source_by_target:
            raise ConfigError(
                f"{source_by_target[place]} and {item.source} would both be written to {item.target}. "
                "Give them another output, or run them one by one."
            )
        source_by_target[place] = item.source
        if place in sources:
            raise ConfigError(f"{item.target}: is an input itself. Give another output folder.")
