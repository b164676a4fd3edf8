"""Damaged and hostile files are read or refused in one line, by every decoder."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_faults_are_faults() -> None:
    import random

    data = bytes(range(256))
    assert sum(mutate(data, random.Random(case), data) != data for case in range(100)) > 90
