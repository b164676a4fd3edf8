"""Files of a batch: what is in folders, patterns, manifests and URLs, each with its output and its options."""

from __future__ import annotations

import csv
import json
import os
import posixpath
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from denoise.errors import ConfigError, InputError
from denoise.files.audio import AUDIO_EXTENSIONS
from denoise.files.image import IMAGE_EXTENSIONS
from denoise.files.names import output_suffix
from denoise.pipelines.batch.file_options import (
    AudioFileOptions,
    ImageFileOptions,
    Modality,
    check_shared_options,
    named_files,
    named_weights,
    parse_file_options,
    select_options,
)
from denoise.pipelines.batch.pairs import IN_OUTPUT_FOLDER, list_kinds, skipped_kind
from denoise.pipelines.batch.storage import canonical, is_url, join, local_path, open_storage, storage_errors

MANIFESTS = (".csv", ".jsonl", ".parquet")
MAX_MANIFEST_BYTES = 1 << 30
MAX_ROWS = 1_000_000
GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True)
class Item:
    """One file of a batch.

    Args:
        source: path or URL that is read.
        target: path or URL that is written.
        modality: what is in it.
        options: settings of this file.
        name: path of its output below the output folder.
        option_files: hashes of the weights, and of other files that its options name, by their names.
    """

    source: str
    target: str
    modality: Modality
    options: AudioFileOptions | ImageFileOptions
    name: str
    option_files: Mapping[str, str] = field(default_factory=dict)


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
        The files in order, and the number of skipped files by `skipped_kind` and `IN_OUTPUT_FOLDER`.

    Raises:
        ConfigError: nothing is found, an option does not fit, two files would have the same output, or an output
            would be outside of the target or an input.
    """
    extensions = _extensions(modalities)
    kinds = {e: m for m, known in extensions.items() for e in known}
    items: list[Item] = []
    skipped: Counter[str] = Counter()
    found = [file for source in sources for file in _find(source, target, kinds, skipped)]
    present = {kinds[s] for file in found if (s := _suffix(file.source)) in kinds}
    if present:
        check_shared_options(values, present)
    for file in found:
        modality = kinds.get(_suffix(file.source))
        if modality is None and not file.values and not file.where:
            skipped[_suffix(file.source) or "without extension"] += 1
            continue
        if modality is None:
            raise ConfigError(f"{file.where}: {file.source} is no file of {' or '.join(extensions)}.")
        if not _is_written(file.output, extensions[modality]):
            advice = f"Give an extension such as {output_suffix(Path(file.source))}."
            raise ConfigError(f"{file.where}: {file.output}: no such {modality} files can be written. {advice}")
        shared = select_options(values, modality)
        options = parse_file_options(shared | dict(file.values), modality, file.where or "options")
        items.append(Item(file.source, join(target, file.output), modality, options, str(file.output)))
    if not items:
        others = f"; skipped: {list_kinds(skipped)}" if skipped else ""
        raise ConfigError(f"{', '.join(sources)}: no file in it that can be denoised{others}.")
    return _refuse_collisions(items), skipped


def _extensions(modalities: Iterable[Modality]) -> dict[Modality, frozenset[str]]:
    known: dict[Modality, frozenset[str]] = {"audio": AUDIO_EXTENSIONS, "image": IMAGE_EXTENSIONS}
    names = [*modalities]
    if isinstance(modalities, str) or not names or any(name not in [*known] for name in names):
        raise ConfigError(f"modalities is {modalities!r}; expected a list of {' and '.join(known)}, or of one of them.")
    return {modality: known[modality] for modality in names}


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _output_name(path: PurePosixPath) -> PurePosixPath:
    return path.with_name(f"{path.stem}{output_suffix(Path(path))}")


def _is_written(output: PurePosixPath, extensions: Container[str]) -> bool:
    """Whether an output has one of the extensions of its modality, and none of files that are only read."""
    return _suffix(output.name) in extensions and _output_name(output) == output


def _find(source: str, target: str, suffixes: Container[str], skipped: Counter[str]) -> Iterator[Found]:
    """Find the files that one source names, and count those in folders that are skipped."""
    if _suffix(source) in MANIFESTS:
        yield from _read_manifest(source)
        return
    storage, path = open_storage(source)
    is_there = not is_url(source) and os.path.lexists(local_path(source))  # a name may hold wildcards itself
    try:
        with storage_errors(source, "listed"):
            if not is_there and not GLOB_CHARACTERS.isdisjoint(source):
                found = storage.glob(path, detail=True)
                root, files = _fixed_root(path), [name for name, info in found.items() if info["type"] != "directory"]
            elif storage.isdir(path):
                root, files = path, storage.find(path)
            elif is_there or storage.exists(path):
                yield Found(source, _output_name(PurePosixPath(PurePosixPath(path).name)), {}, "")
                return
            else:
                raise ConfigError(f"{source}: no such file or folder.")
    except (InputError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from None
    destination, own_root = canonical(target), canonical(source) if storage.isdir(path) else ""
    for name in sorted(files):
        relative = PurePosixPath(Path(os.path.relpath(name, root)).as_posix())
        full = str(storage.unstrip_protocol(name)) if is_url(source) else os.path.realpath(name)
        kind = skipped_kind(relative, suffixes, None if is_url(source) else Path(name))
        if kind is None and destination != own_root and full.startswith(destination.rstrip("/") + "/"):
            kind = IN_OUTPUT_FOLDER
        if kind is None:
            yield Found(full if is_url(source) else name, _output_name(relative), {}, "")
        elif kind:
            skipped[kind] += 1


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
    read = {".csv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}[_suffix(name)]
    try:
        with storage_errors(name, "read as a manifest"):
            if storage.size(path) > MAX_MANIFEST_BYTES:
                raise ConfigError(f"{name}: has more than {MAX_MANIFEST_BYTES >> 20} MiB. Split it.")
            numbered = [(f"{name}: row {i}", row) for i, row in enumerate(islice(read(storage, path), MAX_ROWS + 1), 1)]
    except (InputError, FileNotFoundError) as error:
        raise ConfigError(str(error) if isinstance(error, InputError) else f"{name}: no such file.") from None
    if len(numbered) > MAX_ROWS:
        raise ConfigError(f"{name}: has more than {MAX_ROWS} rows. Split it.")
    folder = name.rpartition("/")[0] if is_url(name) else str(local_path(name).parent)
    for where, row in numbered:
        values = {key: value for key, value in row.items() if value is not None and value != ""}
        source, output = values.pop("input", None), values.pop("output", None)
        if not isinstance(source, str) or not isinstance(output, str | None):
            raise ConfigError(f'{where}: needs a column "input" with a path or URL; "output" is a path, if given.')
        for path in (source, output or "a"):
            if "\0" in path or not PurePosixPath(path).name or not _is_encodable(path):
                raise ConfigError(f"{where}: {path!a} is no path of a file.")
        source = _resolve(source, folder)
        default = _output_name(PurePosixPath(PurePosixPath(source).name))
        weights = {key: _resolve(path, folder) for key, path in named_weights(values).items()}
        for path in filter(is_url, weights.values()):
            raise ConfigError(f"{where}: {path} is no file of this machine, as weights must be. Give a path or a name.")
        values |= weights | {key: _resolve(path, folder) for key, path in named_files(values).items()}
        yield Found(source, PurePosixPath(output) if output else default, values, where)


def _resolve(name: str, folder: str) -> str:
    """Return the path or URL of a file that a manifest in a folder names."""
    if is_url(name) or os.path.isabs(local_path(name)):
        return name
    if not is_url(folder):
        return os.path.normpath(os.path.join(folder, name))
    scheme, _, path = folder.partition("://")
    return f"{scheme}://{posixpath.normpath(f'{path}/{name}')}"  # to an object store, .. would be a name


def _is_encodable(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _read_csv(storage: Any, path: str) -> Iterable[Mapping[str, Any]]:
    with storage.open(path, "r", encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        for row in rows:
            if None in row or any(value is None for value in row.values()):
                raise ValueError(f"line {rows.line_num} has another number of columns than the first line")
            yield row


def _read_json_lines(storage: Any, path: str) -> Iterable[Mapping[str, Any]]:
    with storage.open(path, "r", encoding="utf-8") as file:
        for i, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:  # which counts lines within the text
                raise ValueError(f"line {i}, column {error.colno}: {error.msg}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {i} is no object: {line[:40].strip()}")
            yield row


def _read_parquet(storage: Any, path: str) -> Iterable[Mapping[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError('Parquet needs pyarrow; run: pip install "denoise-toolkit[parquet]"') from None
    with storage.open(path, "rb") as file:
        table = parquet.ParquetFile(file)
        groups = [table.metadata.row_group(i).total_byte_size for i in range(table.metadata.num_row_groups)]
        if table.metadata.num_rows > MAX_ROWS or sum(groups) > MAX_MANIFEST_BYTES:  # a small file may hold millions
            raise ValueError(f"more than {MAX_ROWS} rows or {MAX_MANIFEST_BYTES >> 20} MiB; split it")
        for batch in table.iter_batches():
            yield from batch.to_pylist()


def _refuse_collisions(items: Sequence[Item]) -> list[Item]:
    """Refuse two files with one output, and return the others; a file that is found twice counts once."""
    sources = {canonical(item.source) for item in items}
    item_by_target: dict[str, Item] = {}
    for item in items:
        place = canonical(item.target)
        other = item_by_target.setdefault(place, item)
        if place in sources:
            raise ConfigError(f"{item.target}: is an input itself. Give another output folder.")
        if canonical(other.source) != canonical(item.source) or other.options != item.options:
            raise ConfigError(
                f"{other.source} and {item.source} would both be written to {item.target}. "
                "Give them another output, or run them one by one."
            )
    return [*item_by_target.values()]
