"""The work on one file: as the pipelines do it, noted before it is in place, and nothing half written."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import fsspec
import numpy as np
import pytest
import soundfile
from moto.server import ThreadedMotoServer
from PIL import Image as Pillow

from denoise import ImagePipeline, RestoreOptions, RestorePipeline
from denoise.options import AudioRestoreOptions, DenoiseOptions
from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.batch.file_options import AudioFileOptions, ImageFileOptions
from denoise.pipelines.batch.items import Item, find_items
from denoise.pipelines.batch.journal import Journal, JournalError, Record, plan_of
from denoise.pipelines.batch.storage import STAGING
from denoise.pipelines.batch.worker import COPIES_KEPT, Task, Worker, WorkerSettings
from denoise.pipelines.restore_audio import AudioRestorePipeline


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    (tmp_path / "out").mkdir()
    journal = Journal(tmp_path / "out.journal.jsonl")
    journal.create()
    return Worker(WorkerSettings(str(tmp_path / "out"), tmp_path / "scratch", journal.path))


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "in.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 9000), 48000)
    return path


def item_of(source: Any, target: Any, options: Any) -> Item:
    modality: Any = "audio" if isinstance(options, AudioFileOptions) else "image"
    return Item(str(source), str(target), modality, options, Path(target).name)


THREADS = """
import sys
from pathlib import Path

from denoise.pipelines.batch.items import find_items
from denoise.pipelines.batch.worker import Task, Worker, WorkerSettings

(item,), _ = find_items([sys.argv[1]], "out", {"model": sys.argv[2]})
worker = Worker(WorkerSettings("out", Path("scratch"), Path("journal"), threads=3))
worker.set_up()
assert "torch" not in sys.modules
worker.prepare(Task(item, overwrite=False))
print(sys.modules["torch"].get_num_threads())
"""


def test_threads_are_as_set(sound: Path, models: dict[str, Path]) -> None:
    line = [sys.executable, "-c", THREADS, str(sound), str(models["keep-audio"])]
    assert subprocess.run(line, capture_output=True, text=True, check=True, timeout=120).stdout == "3\n"


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and (".part" in path.name or STAGING in path.parts)]


def test_audio_is_what_the_pipeline_writes(
    worker: Worker, sound: Path, tmp_path: Path, models: dict[str, Path]
) -> None:
    item = item_of(sound, tmp_path / "out/deep/a.wav", AudioFileOptions(model=str(models["mask-audio"]), strength=0.7))
    record = worker(Task(item, overwrite=False))
    pipeline = AudioPipeline(models["mask-audio"])
    pipeline.denoise_file(sound, tmp_path / "expected.wav", DenoiseOptions(steps=5, strength=0.7))
    assert Path(item.target).read_bytes() == (tmp_path / "expected.wav").read_bytes()
    assert worker.journal.read() == {item.name: [record]}
    assert plan_of(item, [record]) == "done"
    assert record.options == {"model": str(models["mask-audio"]), "strength": 0.7}
    assert "times_real_time" in record.result


def test_image_is_what_the_pipeline_writes(worker: Worker, tmp_path: Path, models: dict[str, Path]) -> None:
    source, target = tmp_path / "in.png", tmp_path / "out/in.png"
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(source)
    worker(Task(item_of(source, target, ImageFileOptions(model=str(models["blur-image"]))), overwrite=False))
    ImagePipeline(models["blur-image"]).file(source, tmp_path / "expected.png")
    assert target.read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_image_is_restored_by_a_prior_as_by_the_pipeline(worker: Worker, tmp_path: Path) -> None:
    source, target = tmp_path / "in.png", tmp_path / "out/in.png"
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (28, 28), np.uint8)).save(source)
    options = ImageFileOptions(prior="mnist-vae", sigma=60, steps=3)
    record = worker(Task(item_of(source, target, options), overwrite=False))
    assert record.error is None
    restored = RestoreOptions(task="denoise", sigma=60 / 255, steps=3)
    RestorePipeline("mnist-vae").file(source, tmp_path / "expected.png", restored)
    assert target.read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_recording_is_repaired_as_by_the_pipeline(worker: Worker, tmp_path: Path) -> None:
    source, target = tmp_path / "in.wav", tmp_path / "out/in.wav"
    soundfile.write(source, np.sin(np.arange(9000) / 20).clip(-0.6, 0.6), 16000)
    record = worker(Task(item_of(source, target, AudioFileOptions(task="declip", limit=0.6)), overwrite=False))
    assert record.error is None
    AudioRestorePipeline().file(source, tmp_path / "expected.wav", AudioRestoreOptions(task="declip", limit=0.6))
    assert target.read_bytes() == (tmp_path / "expected.wav").read_bytes()
    assert np.abs(soundfile.read(target)[0]).max() > 0.7


def test_existing_output_is_kept(worker: Worker, sound: Path, tmp_path: Path, models: dict[str, Path]) -> None:
    target = tmp_path / "out/a.wav"
    target.write_bytes(b"mine")
    item = item_of(sound, target, AudioFileOptions(model=str(models["keep-audio"])))
    record = worker(Task(item, overwrite=False))
    assert record.status == "failed"
    assert "exists already" in str(record.error)
    assert target.read_bytes() == b"mine"
    assert worker(Task(item, overwrite=True)).status == "done"
    assert target.read_bytes() != b"mine"


@pytest.mark.parametrize("content", [b"", b"no sound", None])
def test_bad_input_is_a_failed_record(
    worker: Worker, tmp_path: Path, content: bytes | None, models: dict[str, Path]
) -> None:
    source = tmp_path / "bad.wav"
    if content is not None:
        source.write_bytes(content)
    item = item_of(source, tmp_path / "out/bad.wav", AudioFileOptions(model=str(models["keep-audio"])))
    record = worker(Task(item, overwrite=False))
    assert record.status == "failed"
    assert str(source) in str(record.error)
    assert "\n" not in str(record.error)
    assert worker.journal.read() == {item.name: [record]}
    assert not Path(item.target).exists()
    assert not leftovers(tmp_path / "out")


def test_error_that_no_code_foresaw_is_a_failed_record(
    worker: Worker, sound: Path, tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("of a\nlibrary")

    monkeypatch.setattr(AudioPipeline, "denoise_file", fail)
    record = worker(
        Task(item_of(sound, tmp_path / "out/a.wav", AudioFileOptions(model=str(models["keep-audio"]))), overwrite=False)
    )
    assert record.error is not None
    assert record.error.startswith(f"{sound}: RuntimeError: of a library")


def test_journal_is_written_before_the_output_appears(
    worker: Worker, sound: Path, tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    item = item_of(sound, tmp_path / "out/a.wav", AudioFileOptions(model=str(models["keep-audio"])))

    def append(journal: Journal, record: Record) -> None:
        assert not Path(item.target).exists()
        raise JournalError("full")

    monkeypatch.setattr(Journal, "append", append)
    with pytest.raises(JournalError):  # which ends the batch
        worker(Task(item, overwrite=False))
    assert not Path(item.target).exists()
    assert not leftovers(tmp_path / "out")


def test_input_that_changes_meanwhile_fails(
    worker: Worker, sound: Path, tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    denoise_file = AudioPipeline.denoise_file

    def change(self: AudioPipeline, source: Any, *args: Any, **kwargs: Any) -> Any:
        result = denoise_file(self, source, *args, **kwargs)
        soundfile.write(sound, np.zeros(10), 48000)
        return result

    monkeypatch.setattr(AudioPipeline, "denoise_file", change)
    item = item_of(sound, tmp_path / "out/a.wav", AudioFileOptions(model=str(models["keep-audio"])))
    assert "changed while it was read" in str(worker(Task(item, overwrite=False)).error)
    assert not Path(item.target).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(worker: Worker, sound: Path, tmp_path: Path, models: dict[str, Path]) -> None:
    (tmp_path / "out").chmod(0o500)
    item = item_of(sound, tmp_path / "out/a.wav", AudioFileOptions(model=str(models["keep-audio"])))
    assert "Permission denied" in str(worker(Task(item, overwrite=False)).error)


class TestStorages:
    def test_memory(self, worker: Worker, sound: Path, models: dict[str, Path]) -> None:
        storage = fsspec.filesystem("memory")
        storage.pipe("/in/a.wav", sound.read_bytes())
        (item,), _ = find_items(["memory://in"], "memory://out", {"model": str(models["keep-audio"])})
        remote = Worker(replace(worker.settings, folder="memory://out"))
        record = remote(Task(item, overwrite=False))
        assert storage.cat("/out/a.wav") == sound.read_bytes()
        assert plan_of(item, [record]) == "done"
        storage.pipe("/in/a.wav", b"another")
        assert plan_of(item, [record]) == "changed"

    def test_files_that_options_name(
        self, worker: Worker, sound: Path, tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage, copied = fsspec.filesystem("memory"), []
        get_file = type(storage).get_file
        monkeypatch.setattr(
            type(storage), "get_file", lambda self, *names: (copied.append(names[0]), get_file(self, *names))
        )

        def denoise(profile: str, version: str) -> bytes:
            options = AudioFileOptions(model=str(models["floor-audio"]), noise_profile=f"memory://noises/{profile}.wav")
            item = item_of(sound, tmp_path / "out/a.wav", options)
            item = replace(item, option_files={f"memory://noises/{profile}.wav": version})
            record = worker(Task(item, overwrite=True))
            assert record.error is None
            assert record.options["noise_profile"] == f"memory://noises/{profile}.wav"
            return (tmp_path / "out/a.wav").read_bytes()

        names = [f"hiss{i}" for i in range(COPIES_KEPT + 1)]
        for name in names:
            storage.pipe(f"/noises/{name}.wav", sound.read_bytes())
        AudioPipeline(models["floor-audio"]).file(sound, tmp_path / "expected.wav", noise_profile=str(sound))
        expected = (tmp_path / "expected.wav").read_bytes()
        assert denoise(names[0], "1") == denoise(names[0], "1") == expected
        assert len(copied) == 1
        assert denoise(names[0], "2") == expected  # the URL has another file now
        assert len(copied) == 2
        for name in (*names[1:], *names[-2:], names[0]):  # all, two again, and the one that the others have pushed out
            assert denoise(name, "2") == expected
        assert len(copied) == 2 + COPIES_KEPT + 1
        assert len([path for path in worker.settings.scratch.rglob("*") if path.is_file()]) == COPIES_KEPT

    def test_copies_of_files_that_options_name_end_with_the_worker(
        self, worker: Worker, sound: Path, tmp_path: Path, models: dict[str, Path]
    ) -> None:
        fsspec.filesystem("memory").pipe("/noises/last.wav", sound.read_bytes())
        options = AudioFileOptions(model=str(models["floor-audio"]), noise_profile="memory://noises/last.wav")
        another = Worker(worker.settings)
        assert another(Task(item_of(sound, tmp_path / "out/a.wav", options), overwrite=True)).error is None
        assert [path.name for path in worker.settings.scratch.rglob("*.wav")] == ["last.wav"]
        del another
        gc.collect()
        assert not any(worker.settings.scratch.iterdir())

    @pytest.fixture
    def bucket(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        server = ThreadedMotoServer(port=0)
        server.start()
        _, port = server.get_host_and_port()
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", url)
        fsspec.config.set_conf_env(fsspec.config.conf)
        with closing(boto3.client("s3", endpoint_url=url, region_name="us-east-1")) as client:
            client.create_bucket(Bucket="sounds")
            yield client
        fsspec.config.conf.pop("s3", None)
        server.stop()

    def test_s3(self, worker: Worker, sound: Path, models: dict[str, Path], bucket: Any) -> None:
        bucket.put_object(Bucket="sounds", Key="in/deep/a.wav", Body=sound.read_bytes())
        (item,), _ = find_items(["s3://sounds/in"], "s3://sounds/out", {"model": str(models["keep-audio"])})
        assert (item.source, item.target) == ("s3://sounds/in/deep/a.wav", "s3://sounds/out/deep/a.wav")
        remote = Worker(replace(worker.settings, folder="s3://sounds/out"))
        record = remote(Task(item, overwrite=False))
        assert record.error is None
        body = bucket.get_object(Bucket="sounds", Key="out/deep/a.wav")["Body"].read()
        assert body == sound.read_bytes()
        assert plan_of(item, [record]) == "done"
        assert "exists already" in str(remote(Task(item, overwrite=False)).error)
        assert not [path for path in worker.settings.scratch.rglob("*") if path.is_file()]
        missing = replace(item, source="s3://sounds/in/none.wav", target="s3://sounds/out/none.wav")
        assert "s3://sounds/in/none.wav" in str(remote(Task(missing, overwrite=False)).error)


@pytest.mark.parametrize("source", ["nowhere://x/a.wav", "s3://no-such-bucket/a.wav"])
def test_storage_that_fails_is_a_failed_record(
    worker: Worker, tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    item = item_of(source, tmp_path / "out/a.wav", AudioFileOptions(model=str(models["keep-audio"])))
    record = worker(Task(item, overwrite=False))
    assert record.status == "failed"
    assert str(record.error).startswith(source)
    assert "bug" not in str(record.error)


def test_records_are_lines_of_json(worker: Worker, sound: Path, tmp_path: Path, models: dict[str, Path]) -> None:
    worker(
        Task(item_of(sound, tmp_path / "out/a.wav", AudioFileOptions(model=str(models["keep-audio"]))), overwrite=False)
    )
    (line,) = worker.journal.path.read_text().splitlines()
    row = json.loads(line)
    assert row["status"] == "done"
    assert len(row["input_sha256"]) == 64
    assert row["input_state"]["size"] > 9000
