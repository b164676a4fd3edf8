"""Batches in processes: everything is done once, whatever is killed, hangs or fails."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import soundfile
from filelock import FileLock, Timeout

from denoise.errors import ConfigError
from denoise.pipelines.batch import engines
from denoise.pipelines.batch.engines import RayEngine, RayWorker
from denoise.pipelines.batch.journal import Journal, JournalError, Record
from denoise.pipelines.batch.run import Batch, BatchSettings, open_batch, plan_batch
from denoise.pipelines.batch.storage import STAGING, sha256_of
from denoise.pipelines.batch.worker import Task, WorkerSettings
from denoise.registry import PRETRAINED
from tests.cli.conftest import Command, command  # noqa: F401

N_FILES = 6


@pytest.fixture(autouse=True)
def fork_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the processes from a server that has imported torch once; those of commands and of Ray are spawned."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["denoise.pipelines.batch.worker", "denoise.backends.torch", "denoise.pipelines"])
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Noise of one second in several files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for i in range(N_FILES):
        soundfile.write(tmp_path / f"in/{i}.wav", np.random.default_rng(i).normal(0, 0.1, 48000), 48000)
    return tmp_path


def run(models: dict[str, Path], name: str = "mask-audio", **settings: Any) -> Counter[str]:
    """Run a batch in this process; return how many files have each status."""
    with open_batch(["in"], "out", {"model": str(models[name])}, settings=BatchSettings(**settings)) as batch:
        return Counter(record.status for record in batch.run())


def check_outputs(n: int = N_FILES) -> None:
    """Check that each output is complete and is that of its last line in the journal, and that nothing else is left."""
    files = sorted(path.name for path in Path("out").rglob("*") if path.is_file())
    assert files == [f"{i}.wav" for i in range(n)]
    assert not (Path("out") / STAGING).exists()
    records = Journal(Path("out.journal.jsonl")).read()
    for name in files:
        last = [record for record in records[name] if record.status == "done"][-1]
        assert soundfile.info(f"out/{name}").frames == soundfile.info(last.input).frames
        assert last.output_sha256 == sha256_of(Path("out") / name)


def versions() -> dict[str, int]:
    """Return the times of the outputs that are in place."""
    return {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.wav")}


class Running:
    """``denoise batch`` in a process group of its own, which is killed at the end of the block.

    The second of its files is a FIFO that nobody writes: on a machine of any speed it is still running.
    """

    def __init__(self, models: dict[str, Path], *words: str) -> None:
        names = ["0", "fifo", *map(str, range(1, N_FILES))]
        Path("list.jsonl").write_text("\n".join(json.dumps({"input": f"in/{name}.wav"}) for name in names))
        words = ("list.jsonl", "out", "--audio", "--model", str(models["mask-audio"]), *words)
        self.line = [sys.executable, "-m", "denoise", "batch", *words]

    def __enter__(self) -> Running:
        os.mkfifo("in/fifo.wav")
        self.process = subprocess.Popen(self.line, stderr=subprocess.PIPE, start_new_session=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        Path("in/fifo.wav").unlink()

    def wait_for_lines(self, n: int) -> None:
        """Wait until the journal has some lines."""
        journal = Path("out.journal.jsonl")
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= n):
            assert self.process.poll() is None
            time.sleep(0.01)


def test_second_run_does_what_is_missing_changed_or_failed(folder: Path, models: dict[str, Path]) -> None:
    Path("in/bad.wav").write_bytes(b"bad")
    assert run(models, workers=2) == {"done": N_FILES, "failed": 1}
    check_outputs()
    before = versions()
    assert run(models) == {}
    with open_batch(["in"], f"file://{folder}/out", {"model": str(models["mask-audio"])}) as same:
        assert not same.pending
    assert versions() == before
    assert run(models, retry_failed=True, workers=1) == {"failed": 1}
    soundfile.write("in/0.wav", np.zeros(9000), 48000)
    Path("out/1.wav").unlink()
    Path("in/bad.wav").unlink()
    assert run(models, workers=1) == {"done": 2}
    check_outputs()
    assert soundfile.info("out/0.wav").frames == 9000


def test_weights_of_the_same_name_count_by_their_bytes(folder: Path, models: dict[str, Path]) -> None:
    weights = Path("mine.safetensors")
    weights.write_bytes(models["mask-audio"].read_bytes())

    def plans() -> set[str]:
        return {file.plan for file in plan_batch(["in"], "out", {"model": str(weights)}).files}

    with open_batch(["in"], "out", {"model": str(weights)}, settings=BatchSettings(workers=1)) as batch:
        assert {record.status for record in batch.run()} == {"done"}
    os.utime(weights)
    assert plans() == {"done"}
    weights.write_bytes(models["keep-audio"].read_bytes())
    assert plans() == {"changed"}
    with open_batch(["in"], "out", {"model": str(weights)}, settings=BatchSettings(workers=1)) as batch:
        assert {record.status for record in batch.run()} == {"done"}
    assert Path("out/0.wav").read_bytes() == Path("in/0.wav").read_bytes()


@pytest.mark.parametrize(("options", "names"), [
    ({}, {"speech", "general", "audio-kind"}),
    ({"noise_profile": "in/0.wav"}, {"general", "in/0.wav"}),
    ({"task": "declip"}, set()),
    ({"task": "inpaint", "mask": "in/1.wav", "prior": "speech-prior"}, {"speech-prior", "in/1.wav"}),
    ({"task": "inpaint", "mask": "0-0.1"}, set()),
])  # fmt: skip
def test_files_that_options_name_are_hashed(folder: Path, options: dict[str, Any], names: set[str]) -> None:
    (planned,) = plan_batch(["in/2.wav"], "out", options).files
    assert planned.item.option_files == {name: sha256_of(find_weights(name)) for name in names}


def test_files_at_urls_that_options_name_count_by_their_versions(folder: Path) -> None:
    def plan(noise: bytes) -> Any:
        fsspec.filesystem("memory").pipe("/hiss/a.wav", noise)
        (planned,) = plan_batch(["in/2.wav"], "out", {"noise_profile": "memory://hiss/a.wav"}).files
        return planned.item.option_files["memory://hiss/a.wav"]

    assert plan(b"hiss") != plan(b"hum")


def find_weights(name: str) -> Path:
    """Return the file of a bundled model, or the path itself."""
    return Path(name) if "/" in name else PRETRAINED / f"{name}.safetensors"


def test_worker_that_is_killed_is_replaced(folder: Path, models: dict[str, Path]) -> None:
    statuses: Counter[str] = Counter()
    with open_batch(["in"], "out", {"model": str(models["mask-audio"])}, settings=BatchSettings(workers=2)) as batch:
        for i, record in enumerate(batch.run()):
            statuses[record.status] += 1
            if i == 0:
                for child in multiprocessing.active_children():
                    os.kill(child.pid or 0, signal.SIGKILL)
    assert statuses == {"done": N_FILES}
    check_outputs()


def test_file_that_was_finished_before_its_worker_died_is_done(
    folder: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "run_task", run_and_die)
    settings = BatchSettings(workers=1)
    with open_batch(["in/0.wav", "in/1.wav"], "out", {"model": str(models["mask-audio"])}, settings=settings) as batch:
        assert [record.status for record in batch.run()] == ["done", "done"]
    check_outputs(2)
    assert len(Path("out.journal.jsonl").read_text().splitlines()) == 2


def run_and_die(task: Task) -> Record:
    """Run a task, and die before the record is returned."""
    engines.run_task(task)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")


def test_killed_batch_is_finished_by_the_next(folder: Path, models: dict[str, Path]) -> None:
    chance = random.Random(0)
    before: dict[str, int] = {}
    for n_lines in (0, 2):
        with Running(models, "--workers", "2") as running:
            running.wait_for_lines(n_lines)
            time.sleep(0.05 * chance.random())
        assert versions().items() >= before.items(), "done twice"
        before = versions()
    statuses = run(models, workers=2)
    assert statuses.total() == statuses["done"] == N_FILES - len(before)
    check_outputs()
    assert versions().items() >= before.items(), "done twice"


def test_outputs_of_others_are_kept_unless_overwritten(folder: Path, models: dict[str, Path]) -> None:
    run(models, workers=1)
    before = versions()
    Path("other").mkdir()
    soundfile.write("other/0.wav", np.zeros(9000), 48000)
    settings = BatchSettings(workers=1)
    with open_batch(["other"], "out", {"model": str(models["mask-audio"])}, settings=settings) as batch:
        (record,) = batch.run()
    assert f"{folder}/other/0.wav: out/0.wav: exists already" in str(record.error)
    assert record.seconds == round(record.seconds, 3)
    assert versions() == before
    settings = BatchSettings(workers=1, overwrite=True)
    with open_batch(["other"], "out", {"model": str(models["keep-audio"])}, settings=settings) as batch:
        assert [record.status for record in batch.run()] == ["done"]


def test_journal_that_cannot_be_written_ends_the_batch(folder: Path, models: dict[str, Path]) -> None:
    with open_batch(["in"], "out", {"model": str(models["mask-audio"])}, settings=BatchSettings(workers=1)) as batch:
        records = batch.run()
        next(records)
        Path("out.journal.jsonl").unlink()  # as on a disk that is gone
        with pytest.raises(JournalError, match="give another --journal"):
            list(records)
    assert not (Path("out") / STAGING).exists()


def test_ctrl_c_ends_cleanly(folder: Path, models: dict[str, Path]) -> None:
    with Running(models, "--workers", "1") as running:
        running.wait_for_lines(1)
        os.killpg(running.process.pid, signal.SIGINT)
        _, errors = running.process.communicate(timeout=60)
    assert running.process.returncode == 130
    assert errors == b"denoise: interrupted; the same command does what is missing\n"
    assert not (Path("out") / STAGING).exists()
    run(models, workers=1)
    check_outputs()


def test_file_that_hangs_fails_alone(folder: Path, models: dict[str, Path]) -> None:
    os.mkfifo("in/fifo.wav")
    Path("list.jsonl").write_text("\n".join(json.dumps({"input": f"in/{n}.wav"}) for n in ("fifo", 0, 1)))
    settings = BatchSettings(workers=1, time_limit=15)
    with open_batch(["list.jsonl"], "out", {"model": str(models["mask-audio"])}, settings=settings) as batch:
        records = {Path(record.input).name: record for record in batch.run()}
    assert (
        records["fifo.wav"].error == "in/fifo.wav: not finished after 15 s. "
        "Raise --time-limit (time_limit), and give --retry-failed (retry_failed=True)."
    )
    assert records["0.wav"].status == records["1.wav"].status == "done"
    check_outputs(2)


def test_process_that_does_not_start_fails_its_file(
    folder: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_start_worker", hang)
    monkeypatch.setattr(engines, "START_LIMIT_S", 2)
    settings = BatchSettings(workers=1)
    with open_batch(["in/0.wav"], "out", {"model": str(models["mask-audio"])}, settings=settings) as batch:
        (record,) = batch.run()
    assert "its process has not started after 2 s" in str(record.error)
    assert not multiprocessing.active_children()


def hang(_: object) -> None:
    """Start a process on a disk that does not answer."""
    time.sleep(60)


def test_two_runs_exclude_each_other(folder: Path, models: dict[str, Path]) -> None:
    with (
        open_batch(["in"], "out"),
        pytest.raises(ConfigError, match="out: another run is writing there"),
        open_batch(["in"], "out"),
    ):
        pass
    with open_batch(["in"], "out"):  # free again
        pass
    with (
        open_batch(["in"], "out"),
        pytest.raises(ConfigError, match="another run"),
        open_batch(["in"], "out", settings=BatchSettings(journal=Path("another.jsonl"))),
    ):
        pass


@pytest.mark.parametrize("error", [PermissionError("mine"), FileExistsError("mine"), Timeout("mine.lock")])
def test_errors_of_the_body_are_the_callers(folder: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, open_batch(["in"], "out"):
        raise error
    assert caught.value is error
    with open_batch(["in"], "out"):  # not locked
        pass


def test_paths_and_single_sources_are_taken(folder: Path, models: dict[str, Path]) -> None:
    options = {"model": models["mask-audio"]}
    expected = [file.item for file in plan_batch(["in"], "out", {"model": str(models["mask-audio"])}).files]
    assert len(expected) == N_FILES
    for sources in ("in", Path("in"), [Path("in")], ["in", "in"], ["in", "in/0.wav"], Path("in").parent.glob("in")):
        with open_batch(sources, Path("out"), options) as batch:
            assert [file.item for file in batch.files] == expected


@pytest.mark.parametrize(("sources", "target", "modalities", "problem"), [
    ([], "out", ["audio"], "no sources are given; expected at least one folder"),
    (3, "out", ["audio"], "3 is of type int; expected a path or URL"),
    (["in", b"in"], "out", ["audio"], "b'in' is of type bytes; expected a path"),
    (["in"], None, ["audio"], "None is of type NoneType; expected a path"),
    (["in"], "out", "audio", "modalities is 'audio'; expected a list of audio and image"),
    (["in"], "out", ["audio", "video"], "expected a list of audio and image"),
    (["in"], "out", [], "expected a list of audio and image"),
])  # fmt: skip
def test_wrong_arguments_are_one_line(folder: Path, sources: Any, target: Any, modalities: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught, open_batch(sources, target, modalities=modalities):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("settings", "problem"), [
    ({"threads": "a"}, "threads is 'a'; expected a whole number"),
    ({"workers": 1.5}, "workers is 1.5; expected a whole number"),
    ({"time_limit": None}, "time_limit is None; expected a number"),
    ({"device": "tpu"}, "device is 'tpu'; expected auto, cpu, cuda, mps"),
])  # fmt: skip
def test_wrong_settings_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        BatchSettings(**settings)


def test_same_file_with_two_options_is_refused(folder: Path) -> None:
    rows = ({"input": "in/0.wav", "strength": strength} for strength in (0.5, 1))
    Path("list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ConfigError, match=r"in/0.wav and in/0.wav would both be written to out/0.wav"):
        plan_batch("list.jsonl", "out")


def test_read_only_file_system_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), ".out.journal.jsonl.lock")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(ConfigError) as caught, open_batch(["in"], "ro/out"):
        pass
    assert str(caught.value) == "ro/out: cannot be written (Read-only file system). Give another folder."


@pytest.mark.parametrize(("target", "journal", "named"), [
    ("ro/out", None, "ro/out"),
    ("ro", None, "ro"),
    ("out", Path("ro/journal.jsonl"), "ro/journal.jsonl"),
])  # fmt: skip
def test_plan_tells_that_the_target_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, target: str, journal: Path | None, named: str
) -> None:
    Path("ro").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "ro" or not mode & os.W_OK)
    with pytest.raises(ConfigError, match=rf"^{named}: cannot be written\. Give another folder"):
        plan_batch(["in"], target, settings=BatchSettings(journal=journal))
    assert plan_batch(["in"], "rw").pending


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_does_the_same(folder: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    Path("in/bad.wav").write_bytes(b"bad")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        assert run(models, engine="ray", workers=1) == {"done": N_FILES, "failed": 1}
    finally:
        ray.shutdown()
    check_outputs()
    assert run(models) == {}


@pytest.mark.parametrize(("address", "variable", "joined"), [
    (None, None, "local"),
    (None, "b:1", "b:1"),
    ("a:1", "b:1", "a:1"),
])  # fmt: skip
def test_cluster_that_ray_joins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, variable: str | None, joined: str
) -> None:
    ray = pytest.importorskip("ray")
    addresses = []
    monkeypatch.setattr(ray, "init", lambda address, **_: addresses.append(address))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    settings = WorkerSettings("out", tmp_path, tmp_path / "journal")
    RayEngine(settings, workers=1, time_limit=1.0, address=address)
    assert addresses == [joined]


def test_file_that_ray_repeats_is_not_done_twice(folder: Path, models: dict[str, Path]) -> None:
    run(models, workers=1)
    lines = Path("out.journal.jsonl").read_text()
    settings = WorkerSettings("out", folder / "scratch", folder / "out.journal.jsonl")
    (planned, *_) = plan_batch(["in"], "out", {"model": str(models["mask-audio"])}).files
    row = RayWorker(settings, time_limit=60)({"task": Task(planned.item, overwrite=False)})
    assert row == {"record": planned.last}
    assert Path("out.journal.jsonl").read_text() == lines


class TestCommand:
    def test_prints_outputs_errors_and_a_summary(
        self,
        folder: Path,
        models: dict[str, Path],
        command: Command,  # noqa: F811
    ) -> None:
        Path("in/bad.wav").write_bytes(b"bad")
        Path("in/notes.txt").touch()
        words = ["batch", "in", "out", "--audio", "--model", models["mask-audio"], "--workers", "1"]
        plan = command(*words, "--dry-run")
        assert plan.code == 0
        assert plan.out.count(b"new ") == N_FILES + 1
        assert [path.name for path in folder.iterdir()] == ["in"]
        done = command(*words, "--json")
        assert done.code == 1
        assert Counter(row["status"] for row in done.rows) == {"done": N_FILES, "failed": 1}
        assert f"{N_FILES} done, 1 failed" in done.err
        assert ".txt 1" in done.err
        assert "bad.wav" not in done.err
        again = command(*words)
        assert again.code == 1
        assert f"{N_FILES} done before, 1 failed before" in again.err

    @pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="has no such names")
    def test_names_are_printed_in_one_line(
        self,
        folder: Path,
        command: Command,  # noqa: F811
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(batch: Batch) -> Iterator[Record]:
            for file in batch.pending:
                yield Record(file.item.source, file.item.target, file.item.name, "done", 0.0)
                yield Record.failed(file.item, f"{file.item.source}: no", 0.0, None)

        monkeypatch.setattr(Batch, "run", fail)
        for path in Path("in").iterdir():
            path.unlink()
        Path(os.fsdecode(b"in/a\nb\x1b[2J\xff.wav")).touch()
        name = r"a\nb\x1b[2J\udcff.wav"
        assert (
            command("batch", "in", "out", "--dry-run")
            .out.decode()
            .splitlines()[0]
            .endswith(rf"in/{name} -> out/{name}")
        )
        done = command("batch", "in", "out")
        assert done.out.decode() == rf"out/{name}  0.0 s" + "\n"
        assert rf"in/{name}: no" in done.err.splitlines()[0]

    def test_messages_of_libraries_are_not_among_the_json(
        self,
        folder: Path,
        command: Command,  # noqa: F811
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def run_noisily(batch: Batch) -> Iterator[Record]:
            for file in batch.pending:
                print("(raylet) a machine has died")
                yield Record.failed(file.item, "no", 0.0, None)

        monkeypatch.setattr(Batch, "run", run_noisily)
        failed = command("batch", "in", "out", "--audio", "--json")
        assert [row["status"] for row in failed.rows] == ["failed"] * N_FILES
        assert failed.err.count("a machine has died") == N_FILES

    @pytest.mark.parametrize(("words", "problem"), [
        (["in"], "needs a destination"),
        (["in", "out", "--model", "photo"], "photo is a denoiser for image; expected one for audio"),
        (["in", "out", "--set", "model=photo"], "in/0.wav: photo is a denoiser for image"),
        (["in", "out", "--engine", "slurm"], "expected local or ray"),
        (["in", "out", "--workers", "0"], "workers is 0"),
        (["in", "out", "--address", "a:1"], "an address is for the engine ray"),
        (["in", "out", "--time-limit", "0"], "the time limit is 0 s"),
        (["in", "out", "--set", "strength"], "expected a name and a value, as in strength=0.8."),
        (["in", "in/0.wav"], "is a file. Give a folder"),
        (["in", "in/0.wav/out"], "cannot be written"),
        (["in", "out", "--audio", "--model", "no-such-model"], "no-such-model"),
    ])  # fmt: skip
    def test_wrong_words_are_one_line(
        self,
        folder: Path,
        command: Command,  # noqa: F811
        words: list[str],
        problem: str,
    ) -> None:
        refused = command("batch", *words)
        assert refused.code == 2
        assert problem in refused.err
        assert refused.err.count("\n") == 1
