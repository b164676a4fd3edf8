"""Planning of many files: listings of remote folders, and hashes, each once and several at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from denoise.errors import InputError
from denoise.pipelines.batch import snapshot
from denoise.pipelines.batch.journal import Journal, Record, changed_options, default_journal
from denoise.pipelines.batch.run import BatchSettings, PlannedFile, plan_batch
from denoise.pipelines.batch.snapshot import Snapshot
from denoise.pipelines.batch.storage import sha256_of, state_of


@pytest.fixture
def storage() -> Iterator[Any]:
    storage = fsspec.filesystem("memory")
    storage.pipe({f"/plan/{i % 2}/{i}.wav": b"%d" % i for i in range(12)})
    storage.pipe({f"/clean/{i % 2}/{i}.wav": b"clean" for i in range(11)})
    yield storage
    storage.rm("/plan", recursive=True)
    storage.rm("/clean", recursive=True)


def done(file: PlannedFile) -> Record:
    item = file.item
    return Record(
        item.source,
        item.target,
        item.name,
        "done",
        1.0,
        changed_options(item),
        state_of(item.source),
        output_state=state_of(item.target),
        option_files=item.option_files,
    )


def test_each_remote_folder_is_listed_once_and_no_file_is_asked_for(
    storage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = BatchSettings(journal=tmp_path / "journal.jsonl")
    journal = Journal(tmp_path / "journal.jsonl")
    journal.create()
    for file in plan_batch(["memory://plan"], "memory://clean", settings=settings).files:
        assert file.plan == "new"
        if file.item.name != "0/0.wav":
            journal.append(done(file))
    storage.pipe("/plan/0/4.wav", b"another")
    calls: list[str] = []
    for name in ("ls", "info"):
        original = getattr(MemoryFileSystem, name)

        def call(self: Any, path: str, *args: Any, original: Any = original, name: str = name, **options: Any) -> Any:
            calls.append(f"{name} {path}")
            return original(self, path, *args, **options)

        monkeypatch.setattr(MemoryFileSystem, name, call)
    plans = Counter(file.plan for file in plan_batch(["memory://plan"], "memory://clean", settings=settings).files)
    assert plans == {"new": 2, "changed": 1, "done": 9}  # 11.wav has no output
    listed = [call for call in calls if call.startswith("ls ")]
    assert sorted(listed) == ["ls /clean/0", "ls /clean/1", "ls /plan/0", "ls /plan/1"]
    assert not [call for call in calls if call.endswith(".wav")]


def test_listings_are_as_the_answers_for_each_file(storage: Any) -> None:
    names = ["memory://plan/0/2.wav", "memory://plan/0/none.wav", "memory://no-such/2.wav"]
    assert [Snapshot().state_of(name) for name in names] == [state_of(name) for name in names]
    assert state_of(names[0]) is not None


def test_storage_that_fails_is_asked_once(storage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(self: Any, path: str, **_: Any) -> None:
        calls.append(path)
        raise OSError("503")

    monkeypatch.setattr(MemoryFileSystem, "ls", fail)
    known = Snapshot()
    for _ in range(2):
        with pytest.raises(InputError, match="memory://plan/0: cannot be listed"):
            known.state_of("memory://plan/0/2.wav")
    assert calls == ["/plan/0"]


def test_files_are_hashed_several_at_a_time_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("out").mkdir()
    journal = Journal(default_journal("out"))
    journal.create()
    for i in range(4):
        Path(f"in/{i}.wav").write_bytes(b"%d" % i)
        Path(f"out/{i}.wav").write_bytes(b"clean")
    for file in plan_batch(["in"], "out").files:
        hashes = [sha256_of(Path(name)) for name in (file.item.source, file.item.target)]
        journal.append(replace(done(file), input_sha256=hashes[0], output_sha256=hashes[1]))
    for path in [*Path("in").iterdir(), *Path("out").iterdir()]:
        os.utime(path, ns=(1, 1))
    together, hashed = Barrier(4, timeout=20), []

    def hash_together(path: Path) -> str:
        if path.suffix == ".wav":
            together.wait()
            hashed.append(path)
        return sha256_of(path)

    monkeypatch.setattr(snapshot, "sha256_of", hash_together)
    assert {file.plan for file in plan_batch(["in"], "out").files} == {"done"}
    assert len(hashed) == 8
