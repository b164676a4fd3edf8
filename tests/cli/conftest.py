"""A fixture that runs the command line in this process."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from denoise.cli import main


@dataclass
class Completed:
    """Result of a command: exit code, standard output and standard error."""

    code: int
    out: bytes
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Lines of JSON on standard output."""
        return [json.loads(line) for line in self.out.decode().splitlines()]


Command = Callable[..., Completed]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    """Run ``denoise WORDS`` in this process, in ``tmp_path``, as the console script does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")

    def run(*words: Any, stdin: bytes = b"") -> Completed:
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["denoise", *map(str, words)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = 0
            try:
                main()
            except SystemExit as stop:
                code = int(stop.code or 0)
        out.flush()
        err.flush()
        captured = capfdbinary.readouterr()  # printed by C libraries
        done = Completed(code, out.buffer.getvalue() + captured.out, (err.buffer.getvalue() + captured.err).decode())
        assert "Traceback" not in done.err
        return done

    return run
