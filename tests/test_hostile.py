"""Damaged and hostile files are read or refused in one line, by every decoder."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests import hostile
from tests.hostile import DECODERS, SEEDS, mutate, run_case

CASES = 8 * len(SEEDS)


@pytest.mark.parametrize(("kind", "name"), SEEDS)
def test_files_without_faults_are_read(kind: str, name: str, tmp_path: Path) -> None:
    path, out = tmp_path / name, tmp_path / "out"
    path.write_bytes(DECODERS[kind].seeds[name]())
    out.mkdir()
    DECODERS[kind].decode(path, out)


@pytest.mark.parametrize("index", range(len(SEEDS)), ids=[name for _, name in SEEDS])
def test_files_with_faults_are_read_or_refused(index: int, tmp_path: Path) -> None:
    for case in range(index, CASES, len(SEEDS)):
        folder = tmp_path / str(case)
        folder.mkdir()
        run_case(case, folder)


def test_case_that_hangs_or_crashes_is_a_finding_and_the_next_ones_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile, "run_within_limits", hang_at_1)
    outcomes = [*hostile.run_cases(0, 3)]
    assert outcomes[::2] == ["0", "2"]
    assert outcomes[1].startswith("FINDING case 1, float.wav: a crash, or longer than 20 s")


def hang_at_1(case: int) -> str:
    """Be ended by the alarm at one case."""
    if case == 1:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(60)
    return str(case)


def test_faults_are_faults() -> None:
    data = bytes(range(256))
    assert sum(mutate(data, random.Random(case), data) != data for case in range(100)) > 90
