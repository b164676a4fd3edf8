"""The journal: what is done, failed, changed or new, after any cut of its last line."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from denoise.errors import ConfigError
from denoise.pipelines.batch.file_options import AudioFileOptions
from denoise.pipelines.batch.items import Item
from denoise.pipelines.batch.journal import (
    Journal,
    JournalError,
    Record,
    changed_options,
    default_journal,
    may_replace,
    plan_of,
)
from denoise.pipelines.batch.storage import sha256_of, state_of


@pytest.fixture
def item(tmp_path: Path) -> Item:
    (tmp_path / "in.wav").write_bytes(b"input")
    (tmp_path / "out.wav").write_bytes(b"output")
    return Item(str(tmp_path / "in.wav"), str(tmp_path / "out.wav"), "audio", AudioFileOptions(strength=0.5), "out.wav")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "deep" / "out.journal.jsonl")
    journal.create()
    return journal


def done(item: Item) -> Record:
    return Record(
        item.source,
        item.target,
        item.name,
        "done",
        1.5,
        changed_options(item),
        state_of(item.source),
        sha256_of(Path(item.source)),
        state_of(item.target),
        sha256_of(Path(item.target)),
        warnings=("a",),
        result={"speed": 2.0},
    )


class TestPlan:
    def test_of_a_finished_file(self, item: Item) -> None:
        assert plan_of(item, []) == "new"
        assert plan_of(item, [done(item)]) == "done"
        assert may_replace(item, [done(item)])
        assert not may_replace(item, [])

    def test_input_is_compared_by_its_bytes(self, item: Item) -> None:
        record = done(item)
        os.utime(item.source, ns=(1, 1))
        assert plan_of(item, [record]) == "done"
        Path(item.source).write_bytes(b"inpuT")
        assert plan_of(item, [record]) == "changed"

    def test_output_is_compared_by_its_bytes(self, item: Item) -> None:
        record = done(item)
        os.utime(item.target, ns=(1, 1))
        assert plan_of(item, [record]) == "done"
        Path(item.target).write_bytes(b"outpuT")
        assert plan_of(item, [record]) == "changed"

    def test_another_input_may_not_replace_the_output(self, item: Item, tmp_path: Path) -> None:
        (tmp_path / "other.wav").write_bytes(b"other")
        other = replace(item, source=str(tmp_path / "other.wav"))
        assert plan_of(other, [done(item)]) == "changed"
        assert not may_replace(other, [done(item)])

    def test_inputs_that_moved_are_the_same(self, item: Item, tmp_path: Path) -> None:
        (tmp_path / "moved.wav").write_bytes(b"input")
        assert plan_of(replace(item, source=str(tmp_path / "moved.wav")), [done(item)]) == "done"

    def test_options_count(self, item: Item) -> None:
        assert plan_of(replace(item, options=AudioFileOptions()), [done(item)]) == "changed"

    def test_output_that_is_gone_or_of_another(self, item: Item) -> None:
        record = done(item)
        Path(item.target).write_bytes(b"by me")
        assert plan_of(item, [record]) == "changed"
        assert not may_replace(item, [record])
        Path(item.target).unlink()
        assert plan_of(item, [record]) == "new"

    def test_line_whose_output_was_never_put_in_place(self, item: Item) -> None:
        before = done(item)
        state = replace(done(item).output_state, version="later")
        cut = replace(done(item), output_state=state, output_sha256="of another")
        assert plan_of(item, [before, cut]) == "changed"
        assert may_replace(item, [before, cut])

    def test_of_a_failed_file(self, item: Item) -> None:
        record = Record.failed(item, "no", 1.0, state_of(item.source))
        assert plan_of(item, [record]) == "failed"
        Path(item.source).write_bytes(b"another")
        assert plan_of(item, [record]) == "changed"

    def test_of_a_file_that_vanished(self, item: Item) -> None:
        Path(item.source).unlink()
        assert plan_of(item, [Record.failed(item, "no", 1.0, None)]) == "failed"


class TestFile:
    def test_returns_what_was_appended(self, journal: Journal, item: Item) -> None:
        records = [done(item), Record.failed(item, "\udcff no such ä", 1.0, None)]
        for record in records:
            journal.append(record)
        assert journal.read() == {item.name: records}

    def test_lines_of_several_writers_do_not_mix(self, journal: Journal, item: Item) -> None:
        record = replace(done(item), input="ä" * 5000)

        def append() -> None:
            for _ in range(20):
                journal.append(record)

        threads = [Thread(target=append) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert journal.read() == {item.name: [record] * 80}

    @pytest.mark.skipif(os.name == "nt", reason="has no flock")
    def test_writers_wait_for_each_other(self, journal: Journal, item: Item) -> None:
        import fcntl

        writer = Thread(target=journal.append, args=(done(item),))
        with journal.path.open("ab") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            writer.start()
            writer.join(0.2)
            assert writer.is_alive()
            assert journal.read() == {}
        writer.join(10)
        assert journal.read() == {item.name: [done(item)]}

    def test_record_after_a_cut_line_is_kept(self, journal: Journal, item: Item) -> None:
        with journal.path.open("ab") as file:
            file.write(b'{"input": "a", "outp')  # a full disk, while other workers go on
        journal.append(done(item))
        assert journal.read() == {item.name: [done(item)]}

    def test_keys_of_a_newer_release_are_ignored(self, journal: Journal, item: Item) -> None:
        journal.append(done(item))
        row = json.loads(journal.path.read_text()) | {"host": "a"}
        row["input_state"]["inode"] = 3
        journal.path.write_text(json.dumps(row) + "\n")
        assert journal.read() == {item.name: [done(item)]}

    @pytest.mark.parametrize("change", [{"name": ["a"]}, {"input_state": 3}, {"warnings": None}, {"status": "DROP"}])
    def test_whole_line_that_is_no_record_is_refused(
        self, journal: Journal, item: Item, change: dict[str, Any]
    ) -> None:
        journal.append(done(item))
        row = json.loads(journal.path.read_text()) | change
        with journal.path.open("a") as file:
            file.write(json.dumps({key: value for key, value in row.items() if value != "DROP"}) + "\n")
        with pytest.raises(ConfigError, match=r"line 2 is no record of a batch\. Remove") as caught:
            journal.read()
        assert "\n" not in str(caught.value)

    @given(data=st.data())
    def test_survives_any_cut(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        journal = Journal(tmp_path_factory.mktemp("cut") / "journal.jsonl")
        journal.create()
        item = Item("in.wav", "out.wav", "audio", AudioFileOptions(), "out.wav")
        first, second = (Record.failed(item, text, 0.0, None) for text in ("one", "two"))
        journal.append(first)
        size = journal.path.stat().st_size
        journal.append(second)
        cut = data.draw(st.integers(size, journal.path.stat().st_size))
        os.truncate(journal.path, cut)
        journal.create()
        journal.append(second)
        records = journal.read()["out.wav"]
        assert records[0] == first
        assert records[-1] == second
        assert len(records) <= 3

    @pytest.mark.parametrize("text", ["my notes", "3", '"name"', "[" * 100_000])
    def test_another_file_is_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "notes.txt"
        path.write_text(f"{text}\n")
        with pytest.raises(ConfigError, match="line 1 is no record"):
            Journal(path).read()

    def test_one_that_is_missing_is_not_created_by_a_worker(self, tmp_path: Path, item: Item) -> None:
        with pytest.raises(JournalError, match=r"missing.jsonl: the journal cannot be written"):
            Journal(tmp_path / "missing.jsonl").append(done(item))

    def test_default_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert default_journal("out/clean/") == tmp_path / "out" / "clean.journal.jsonl"
        assert default_journal(".") == tmp_path.with_name(f"{tmp_path.name}.journal.jsonl")
        assert default_journal("memory://a/clean/") == default_journal("memory://a/clean")
        assert default_journal("memory://a/clean") != default_journal("memory://b/clean")
        assert default_journal("memory://a/clean").name.startswith("clean-")
        with pytest.raises(ConfigError, match="is no folder for outputs"):
            default_journal("/")
