"""A server in a process of its own, as users run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

MAX_UPLOAD_MIB = 8


@dataclass(frozen=True)
class Server:
    """A server that runs: its address, its process, and the folder in which its jobs have theirs."""

    url: str
    pid: int
    temporary: Path

    @property
    def job_folders(self) -> list[Path]:
        """Folders of jobs on the disk."""
        return [*self.temporary.glob("denoise-web-*/*")]

    def wait_until_empty(self) -> None:
        """Wait until no job has files: what ends a job runs in another thread than what answers."""
        for _ in range(1200):
            if not self.job_folders:
                return
            time.sleep(0.05)
        raise AssertionError(f"files are left in {self.job_folders}")


@contextmanager
def start_server(folder: Path, end: signal.Signals = signal.SIGTERM) -> Iterator[Server]:
    """``denoise web`` on a free port with its files in a folder, until a signal ends it."""
    words = [sys.executable, "-m", "denoise", "web", "--port", "0", "--max-upload", str(MAX_UPLOAD_MIB)]
    environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split()[0].rstrip("/")
            yield Server(url, process.pid, folder)
        finally:
            process.send_signal(end)
            try:
                process.wait(timeout=30)
            finally:
                process.kill()  # one that ignores the signal fails its test alone
    assert not [*folder.glob("denoise-web-*")]  # nothing is left behind


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``denoise web`` on a free port."""
    with start_server(tmp_path_factory.mktemp("temporary")) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of the server."""
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch, as in the server: sums in another order change some values in the last bit."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def noisy_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of a tone in noise, 16 bits at 16 kHz."""
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    t = np.arange(16_000) / 16_000
    x = 0.2 * np.sin(2 * np.pi * 440 * t) + 0.05 * np.random.default_rng(0).normal(size=t.size)
    soundfile.write(path, x, 16_000)
    return path


@pytest.fixture(scope="session")
def long_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than ten minutes of noise, which takes many seconds, below the limit of the server."""
    path = tmp_path_factory.mktemp("sound") / "long.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=5_500_000), 8_000, subtype="PCM_U8")
    return path


def assert_same_image(content: bytes, path: Path) -> None:
    """Assert that an image is that of a file but for the precision, which each process takes by its own measurement.

    Args:
        content: bytes of the image.
        path: file of the other.
    """
    with Image.open(BytesIO(content)) as image, Image.open(path) as expected:
        assert image.info == expected.info
        difference = np.asarray(image, np.int64) - np.asarray(expected, np.int64)
        assert np.abs(difference).max() <= 2  # of 255
