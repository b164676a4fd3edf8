"""The journal of a batch: one line of JSON a file, appended before its output appears, and never rewritten."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from denoise.errors import ConfigError
from denoise.pipelines.batch.items import Item
from denoise.pipelines.batch.storage import FileState, is_url, local_path, sha256_of, state_of

START = b'{"input"'  # of each line
Status = Literal["done", "failed"]
Plan = Literal["new", "changed", "failed", "done"]


@dataclass(frozen=True)
class Record:
    """What happened to one file.

    Args:
        input: path or URL that was read.
        output: path or URL that was written.
        status: ``"done"`` or ``"failed"``.
        seconds: wall-clock time.
        options: settings of the file, those that differ from the defaults.
        input_state: size and version of the input.
        input_sha256: hash of the input; None of a failed one.
        output_state: size and version of the output; None of a failed one.
        error: one sentence, None of a finished one.
        warnings: one sentence each.
        result: figures of the run, as in the JSON of `denoise audio` and `denoise image`.
    """

    input: str
    output: str
    status: Status
    seconds: float
    options: Mapping[str, Any] = field(default_factory=dict)
    input_state: FileState | None = None
    input_sha256: str | None = None
    output_state: FileState | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def failed(cls, item: Item, error: str, seconds: float, state: FileState | None) -> Record:
        """Return the record of a file that failed.

        Args:
            item: the file.
            error: one sentence.
            seconds: wall-clock time.
            state: state of the input.
        """
        return cls(item.source, item.target, "failed", seconds, changed_options(item), state, error=error)


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
        return Path(f"{target.rstrip('/').rpartition('/')[2] or 'batch'}.journal.jsonl")
    folder = Path(os.path.abspath(local_path(target)))
    return folder.with_name(f"{folder.name}.journal.jsonl")


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
            OSError: the disk is full, or the journal is not on a file system that this machine sees.
        """
        line = json.dumps(asdict(record), ensure_ascii=False, default=str) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            written = os.write(descriptor, data := line.encode("utf-8", "surrogateescape"))
            if written < len(data):
                raise OSError(28, "No space left on device")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self) -> dict[str, list[Record]]:
        """Return the records of each output, in order; without a journal there are none.

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
            record = _parse(line)
            if record is not None:
                records.setdefault(record.output, []).append(record)
            elif line[: len(START)] != START[: len(line)]:  # those that were cut when their process was killed
                raise ConfigError(f"{self.path}: line {i} is no record of a batch. Give another --journal.")
        return records


def _parse(line: bytes) -> Record | None:
    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"))
        states = {name: FileState(**row[name]) if row[name] else None for name in ("input_state", "output_state")}
        return Record(**row | states | {"warnings": tuple(row["warnings"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def plan_of(item: Item, records: Sequence[Record]) -> Plan:
    """Return what is to be done with a file.

    Args:
        item: the file.
        records: its records, in order.

    Returns:
        ``"done"``: nothing; ``"new"``: it was never finished; ``"changed"``: input, options or output differ from
        those of the last record; ``"failed"``: it failed, and nothing has changed since.
    """
    if not records:
        return "new"
    last = records[-1]
    is_same = last.options == _plain(changed_options(item)) and _is_same_input(item.source, last)
    if last.status == "failed":
        return "failed" if is_same else "changed"
    output = state_of(item.target)
    if output is None:
        return "new"
    return "done" if is_same and output == last.output_state else "changed"


def may_replace(item: Item, records: Sequence[Record]) -> bool:
    """Return whether the output, as it is, is one that this batch wrote.

    Args:
        item: the file.
        records: its records.
    """
    output = state_of(item.target)
    return output is not None and any(output == record.output_state for record in records)


def _is_same_input(source: str, record: Record) -> bool:
    state = state_of(source)
    if state == record.input_state:
        return True
    if state is None or record.input_state is None or state.size != record.input_state.size or is_url(source):
        return False
    return record.input_sha256 == sha256_of(local_path(source))  # touched, perhaps by a copy


def _plain(values: Mapping[str, Any]) -> Any:
    """Return values as they come back from JSON."""
    return json.loads(json.dumps(values, default=str))
