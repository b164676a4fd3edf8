"""Files are written completely or not at all."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denoise.errors import InputError
from denoise.files.atomic import atomic_file, require_free
from denoise.files.audio import AudioWriter, read_audio, write_audio
from denoise.files.audio.soundfile_container import SoundfileEncoder
from denoise.signals import Audio, AudioFormat


def write_text(target: Path, text: str, *, overwrite: bool = False) -> None:
    with atomic_file(target, overwrite=overwrite) as partial:
        partial.write_text(text)


def test_missing_folders_are_created(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_file(target, overwrite=False) as partial:
        partial.write_text("new")
        assert not target.exists()
        assert partial.parent == target.parent
        assert partial.suffix == ".txt"  # writers choose the format by it
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["a.txt"]


def test_permissions_follow_the_umask_and_survive_overwriting(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_text(tmp_path / "a", "1")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / "a").chmod(0o640)
    write_text(tmp_path / "a", "2", overwrite=True)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert (tmp_path / "a").read_text() == "2"


def test_existing_file_is_refused_before_the_block_runs(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with (
        pytest.raises(InputError, match=r"exists already. Give --overwrite"),
        atomic_file(tmp_path / "a", overwrite=False),
    ):
        pytest.fail("the block ran")
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("has_hard_links", [True, False])
def test_file_created_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_hard_links: bool) -> None:
    def refuse_link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    if not has_hard_links:
        monkeypatch.setattr(os, "link", refuse_link)

    def run_block() -> None:
        with atomic_file(tmp_path / "a", overwrite=False) as partial:
            partial.write_text("mine")
            (tmp_path / "a").write_text("theirs")

    with pytest.raises(InputError, match="created meanwhile"):
        run_block()
    assert (tmp_path / "a").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["a"]
    write_text(tmp_path / "b", "mine")  # a new file is written without hard links, too
    assert (tmp_path / "b").read_text() == "mine"


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        write_text(tmp_path, "x")
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "a.wav", tmp_path / "file" / "deep" / "a.wav"):
        with pytest.raises(InputError, match=r"a\.wav: cannot be written \(.*\)\. Choose another folder"):
            write_text(target, "x")
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / ("a" * 300), "x")
    assert os.listdir(tmp_path) == ["file"]


def test_longest_names_of_the_file_system(tmp_path: Path) -> None:
    for name in ("a" * 251, "語" * 83):
        write_text(tmp_path / f"{name}.wav", "x")
        assert (tmp_path / f"{name}.wav").read_text() == "x"


def test_the_file_behind_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "real").write_text("old")
    (tmp_path / "link").symlink_to("folder/real")
    with pytest.raises(InputError, match="link: exists already"):
        write_text(tmp_path / "link", "new")
    write_text(tmp_path / "link", "new", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "real").read_text() == "new"
    assert os.listdir(tmp_path / "folder") == ["real"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("target", ["nowhere/file", "loop"])
def test_dangling_link_is_refused_before_the_block_runs(tmp_path: Path, target: str, overwrite: bool) -> None:
    (tmp_path / "loop").symlink_to(target)
    with (
        pytest.raises(InputError, match=rf"loop: is a link to {target}, which does not exist\. "),
        atomic_file(tmp_path / "loop", overwrite=overwrite),
    ):
        pytest.fail("the block ran")
    assert os.listdir(tmp_path) == ["loop"]


def read_in_background(path: Path) -> Future[bytes]:
    """Return the bytes that come out of a named pipe, once its writer has closed it."""
    result: Future[bytes] = Future()
    threading.Thread(target=lambda: result.set_result(path.read_bytes()), daemon=True).start()
    return result


@pytest.mark.parametrize("overwrite", [False, True])
def test_named_pipe_is_written_into(tmp_path: Path, overwrite: bool) -> None:
    os.mkfifo(tmp_path / "fifo")
    data = read_in_background(tmp_path / "fifo")
    write_text(tmp_path / "fifo", "text", overwrite=overwrite)
    assert data.result(60) == b"text"
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


@pytest.mark.parametrize(("name", "signature"), [("fifo", b"RIFF"), ("fifo.wav", b"RIFF"), ("fifo.flac", b"fLaC")])
def test_audio_is_written_into_named_pipes(tmp_path: Path, name: str, signature: bytes) -> None:
    os.mkfifo(tmp_path / name)
    data = read_in_background(tmp_path / name)
    x = np.linspace(-0.5, 0.5, 3000, dtype=np.float32)[None]
    write_audio(tmp_path / name, Audio(x, AudioFormat(16_000, 1, "WAV", "PCM_24")))
    file = data.result(60)
    assert file.startswith(signature)
    np.testing.assert_allclose(read_audio(io.BytesIO(file)).samples, x, rtol=0, atol=2**-23)
    assert os.listdir(tmp_path) == [name]


def test_wav_reaches_a_named_pipe_as_it_is_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with AudioWriter(tmp_path / "fifo", AudioFormat(16_000, 1, "WAV", "PCM_16")) as writer:
        writer.write(np.zeros((1, 100), np.float32))
        assert len(os.read(reading, 1000)) == 44 + 200
    os.close(reading)


def test_devices_are_written_into() -> None:
    write_audio("/dev/null", Audio(np.zeros((1, 100), np.float32), AudioFormat(8000, 1)))
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), InputError("bad")])
def test_failed_block_leaves_nothing_behind(tmp_path: Path, error: BaseException, overwrite: bool) -> None:
    target = tmp_path / "a"
    if overwrite:
        target.write_text("old")

    def run_block() -> None:
        with atomic_file(target, overwrite=overwrite) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(type(error)):
        run_block()
    assert os.listdir(tmp_path) == (["a"] if overwrite else [])
    if overwrite:
        assert target.read_text() == "old"


@pytest.mark.parametrize("overwrite", [False, True])
def test_disk_full_on_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool) -> None:
    def refuse_fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse_fsync)
    if overwrite:
        (tmp_path / "a.wav").write_text("old")
    audio = Audio(np.zeros((1, 100), np.float32), AudioFormat(8000, 1))
    with pytest.raises(InputError, match=r"^.*a\.wav: cannot be written \(No space left on device\)[^\n]*$"):
        write_audio(tmp_path / "a.wav", audio, overwrite=overwrite)
    assert os.listdir(tmp_path) == (["a.wav"] if overwrite else [])
    if overwrite:
        assert (tmp_path / "a.wav").read_text() == "old"


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff", None])
def test_disk_full_while_audio_is_written(
    tmp_path: Path, extension: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """A limit of file sizes makes the kernel refuse a write, like a full disk; a stream is written there first."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).normal(0, 0.3, (1, 60_000)).astype(np.float32)
    audio = Audio(noise, AudioFormat(16_000, 1, "WAV" if extension else "FLAC", "PCM_16"))
    target = tmp_path / f"a.{extension}" if extension else io.BytesIO()
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(InputError) as caught:
            write_audio(target, audio)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"{f'a.{extension}' if extension else 'output stream'}: cannot be written" in str(caught.value)
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("refused", ["write", "seek", "tell"])
@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_errors_in_callbacks_of_libsndfile(container: str, refused: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A buffered file writes, and so fails, in any call."""

    class FullDisk(io.BytesIO):
        n_calls = 0

        def _call(self, name: str, *args: Any) -> Any:
            self.n_calls += name == refused
            if self.n_calls > 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return getattr(io.BytesIO, name)(self, *args)

        def write(self, data: Any) -> int:
            return self._call("write", data)

        def seek(self, offset: int, whence: int = 0) -> int:
            return self._call("seek", offset, whence)

        def tell(self) -> int:
            return self._call("tell")

    noise = np.random.default_rng(0).normal(0, 0.3, (1, 60_000))

    def write() -> None:
        encoder = SoundfileEncoder(FullDisk(), AudioFormat(16_000, 1), container, "PCM_16")
        encoder.write(noise)
        encoder.close()

    with pytest.raises(OSError, match="No space left"):
        write()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("format", [AudioFormat(8000, 1), AudioFormat(8000, 1, "FLAC", "PCM_16")])
def test_output_stream_that_refuses_writes(format: AudioFormat) -> None:
    class FullStream(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(InputError, match=r"output stream: cannot be written .No space"),
        AudioWriter(FullStream(), format) as writer,
    ):
        writer.write(np.zeros((1, 100), np.float32))


def test_paths_of_existing_files_are_refused_in_one_place(tmp_path: Path) -> None:
    (tmp_path / "is.wav").touch()
    with pytest.raises(
        InputError, match=r"is\.wav: exists already\. Give --overwrite \(overwrite=True\) to replace it\.$"
    ):
        require_free(tmp_path / "is.wav", overwrite=False)
    require_free(tmp_path / "is.wav", overwrite=True)
    require_free(tmp_path / "no.wav", overwrite=False)
    require_free(tmp_path / ("x" * 5000), overwrite=False)  # refused when it is written
