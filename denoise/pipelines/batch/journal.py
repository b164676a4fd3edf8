"""The journal of a batch: one line of JSON a file, appended before its output appears, and never rewritten."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Literal

from denoise.errors import ConfigError, DenoiseError, InputError
from denoise.pipelines.batch.items import Item
from denoise.pipelines.batch.snapshot import Snapshot
from denoise.pipelines.batch.storage import FileState, canonical, is_url, local_path

START = b'{"input"'  # of each line
Status = Literal["done", "failed"]
Plan = Literal["new", "changed", "failed", "done"]


@dataclass(frozen=True)
class Record:
    """What happened to one file.

    Args:
        input: path or URL that was read, absolute.
        output: path or URL that was written.
        name: path of the output below the output folder, by which a second run knows it.
        status: ``"done"`` or ``"failed"``.
        seconds: wall-clock time.
        options: settings of the file, those that differ from the defaults.
        input_state: size and version of the input.
        input_sha256: hash of the input; None of a failed one.
        output_state: size and version of the output; None of a failed one.
        output_sha256: hash of the output; None of a failed one, and on other storages.
        error: one sentence, None of a finished one.
        warnings: one sentence each.
        result: figures of the run, as in the JSON of `denoise audio` and `denoise image`.
        option_files: hashes of the weights, and of other files that options name, by their names.
    """

    input: str
    output: str
    name: str
    status: Status
    seconds: float
    options: Mapping[str, Any] = field(default_factory=dict)
    input_state: FileState | None = None
    input_sha256: str | None = None
    output_state: FileState | None = None
    output_sha256: str | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    option_files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def failed(cls, item: Item, error: str, seconds: float, state: FileState | None) -> Record:
        """Return the record of a file that failed.

        Args:
            item: the file.
            error: one sentence.
            seconds: wall-clock time.
            state: state of the input.
        """
        return cls(
            absolute(item.source),
            item.target,
            item.name,
            "failed",
            seconds,
            changed_options(item),
            state,
            error=error,
            option_files=item.option_files,
        )


def absolute(source: str) -> str:
    """Return the absolute path of an input, or its URL.

    Args:
        source: path or URL.
    """
    return source if is_url(source) else os.path.abspath(local_path(source))


def changed_options(item: Item) -> dict[str, Any]:
    """Return the options of a file that differ from the defaults, by their names."""
    defaults = asdict(type(item.options)())
    return {name: value for name, value in asdict(item.options).items() if value != defaults[name]}


def default_journal(target: str) -> Path:
    """Return the journal beside a local output folder, or in the current folder for one of another storage.

    Args:
        target: path or URL of the folder.
    """
    if is_url(target):
        url = canonical(target)
        return Path(f"{url.rpartition('/')[2]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}.journal.jsonl")
    folder = Path(os.path.abspath(local_path(target)))
    if not folder.name:
        raise ConfigError(f"{target}: is no folder for outputs. Give one below it.")
    return folder.with_name(f"{folder.name}.journal.jsonl")


class JournalError(DenoiseError):
    """The journal cannot be written, so that the batch must end."""


class Journal:
    """An append-only file of records.

    Args:
        path: file of this machine, or of a file system that all workers share.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Create the file if there is none, and end a line that a killed process left unfinished.

        Raises:
            ConfigError: the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written ({error.strerror}). Give another --journal.") from None

    def append(self, record: Record) -> None:
        """Append a line, in one write, so that lines of several processes do not mix.

        Args:
            record: what happened to a file.

        Raises:
            JournalError: the disk is full, or the journal is not on a file system that this machine sees.
        """
        line = json.dumps(asdict(record), ensure_ascii=False, default=str) + "\n"
        try:
            with self.path.open("rb") as end, self.path.open("ab", buffering=0) as file:  # a worker creates no journal
                _wait_for_lock(file)
                end.seek(max(0, end.seek(0, os.SEEK_END) - 1))
                is_cut = end.read(1) not in (b"", b"\n")  # by a full disk, or a kill
                data = b"\n" * is_cut + line.encode("utf-8", "surrogateescape")
                if (file.write(data) or 0) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
        except OSError as error:
            raise JournalError(
                f"{self.path}: the journal cannot be written ({error.strerror}). Free space, or give another --journal."
            ) from None

    def read(self) -> dict[str, list[Record]]:
        """Return the records of each output by its name, in order; without a journal there are none.

        Raises:
            ConfigError: a line is no record of a batch.
        """
        records: dict[str, list[Record]] = {}
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return records
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read ({error.strerror}). Give another --journal.") from None
        for i, line in enumerate(lines, 1):
            try:
                if (record := _parse(line)) is not None:
                    records.setdefault(record.name, []).append(record)
            except (LookupError, RecursionError, TypeError, ValueError):
                advice = "Remove the line, or give another --journal."
                raise ConfigError(f"{self.path}: line {i} is no record of a batch. {advice}") from None
        return records


def _wait_for_lock(file: IO[bytes]) -> None:
    """Keep other machines from writing until the file is closed: network file systems do not append atomically."""
    with suppress(ImportError, OSError):  # on Windows, and where the file system has no locks
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)


def _parse(line: bytes) -> Record | None:
    """Return the record of a line, or None if its process was killed while it wrote; other lines are errors.

    Keys of newer releases are ignored.
    """
    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):  # the beginning of an object is no JSON
        if line[: len(START)] == START[: len(line)]:
            return None
        raise
    known = {each.name: row[each.name] for each in fields(Record) if each.name in row}
    for name in ("input_state", "output_state"):
        known[name] = FileState(row[name]["size"], row[name]["version"]) if row[name] else None
    return Record(**known | {"warnings": tuple(row["warnings"])})


def plan_of(item: Item, records: Sequence[Record], snapshot: Snapshot | None = None) -> Plan:
    """Return what is to be done with a file.

    Args:
        item: the file.
        records: its records, in order.
        snapshot: what is known of files already.

    Returns:
        ``"done"``: nothing; ``"new"``: it was never finished; ``"changed"``: input, options, the files that they name
        or output differ from those of the last record; ``"failed"``: it failed, and nothing has changed since.
    """
    if not records:
        return "new"
    last, snapshot = records[-1], snapshot or Snapshot()
    try:
        has_same_options = last.options == _plain(changed_options(item)) and last.option_files == item.option_files
        is_same = has_same_options and is_same_input(item, last, snapshot)
        if last.status == "failed":
            return "failed" if is_same else "changed"
        if snapshot.state_of(item.target) is None:
            return "new"
        return "done" if is_same and is_same_output(item, last, snapshot) else "changed"
    except InputError:
        return "changed"  # the storage does not answer; the worker will say why


def may_replace(item: Item, records: Sequence[Record], snapshot: Snapshot | None = None) -> bool:
    """Return whether the output, as it is, was made of this input by this batch.

    Args:
        item: the file.
        records: its records.
        snapshot: what is known of files already.
    """
    snapshot = snapshot or Snapshot()
    try:
        return any(
            record.input == absolute(item.source) and is_same_output(item, record, snapshot) for record in records
        )
    except InputError:
        return False


def is_same_input(item: Item, record: Record, snapshot: Snapshot) -> bool:
    """Return whether an input is what a record has read, perhaps at another place or with another time.

    Args:
        item: the file.
        record: a record of its output.
        snapshot: what is known of files.
    """
    if (state := snapshot.state_of(item.source)) == record.input_state and record.input == absolute(item.source):
        return True
    return _is_copy(item.source, state, record.input_state, record.input_sha256, snapshot)


def is_same_output(item: Item, record: Record, snapshot: Snapshot) -> bool:
    """Return whether an output is what a record has written, perhaps with another time.

    Args:
        item: the file.
        record: a record of its output.
        snapshot: what is known of files.
    """
    if (state := snapshot.state_of(item.target)) is not None and state == record.output_state:
        return True
    return _is_copy(item.target, state, record.output_state, record.output_sha256, snapshot)


def _is_copy(
    name: str, state: FileState | None, recorded: FileState | None, sha256: str | None, snapshot: Snapshot
) -> bool:
    """Return whether a file of this machine has the recorded bytes."""
    if state is None or recorded is None or state.size != recorded.size or is_url(name):
        return False
    try:
        return sha256 == snapshot.sha256_of(local_path(name))
    except OSError:
        return False  # the worker will say why


def _plain(values: Mapping[str, Any]) -> Any:
    """Return values as they come back from JSON."""
    return json.loads(json.dumps(values, default=str))
