"""``denoise audio --task`` and ``--prior``: outputs, and one line per error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import Command


@pytest.fixture
def clipped(tmp_path: Path) -> Path:
    t = np.arange(16_000) / 16_000
    x = 1.2 * np.sin(2 * np.pi * 210 * t) * (0.7 + 0.3 * np.sin(20 * t))
    soundfile.write(tmp_path / "in.wav", x.clip(-1, 1), 16_000, subtype="PCM_16")
    return tmp_path / "in.wav"


def test_declipping_warns_of_what_integers_do_not_hold(command: Command, clipped: Path) -> None:
    result = command("audio", str(clipped), "--task", "declip", "--json")
    assert result.code == 0, result.err
    (report,) = result.rows
    assert any("exceed full scale and are clipped by PCM_16" in warning for warning in report["warnings"])
    result = command("audio", str(clipped), "--task", "declip", "--gain", "-6", "--overwrite", "--json")
    assert not result.rows[0]["warnings"]
    before, after = (soundfile.read(path)[0] for path in (clipped, report["output"]))
    assert np.abs(after).max() > 1.05 * np.abs(before).max() / 2
    assert soundfile.info(report["output"]).subtype == "PCM_16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "extend"), "the task extend needs a prior"),
        (("--task", "mend"), "task is 'mend'"),
        (("--limit", "0.5"), "--limit needs --task declip"),
        (("--mask", "0-1"), "--mask needs --task inpaint"),
        (("--sigma", "0.1"), "--sigma needs --prior"),
        (("--task", "declip", "--mask", "0.1-0.2"), "gaps is for the task inpaint, not declip"),
        (("--task", "declip", "--strength", "0.5"), "--strength is not for --task declip"),
        (("--prior", "speech-prior", "--model", "speech"), "--model is not for --prior"),
        (("--task", "declip", "--samples", "1"), "samples is 1; expected 0, or at least 2"),
        (("--task", "inpaint", "--mask", "0.1-0.3"), "a gap lasts 200 ms; expected at most 100 ms"),
        (("--task", "inpaint", "--mask", "0.3-0.1"), "a gap is from 0.3 to 0.1 s; expected a start before the end"),
        (("--task", "inpaint"), "no gap and no click was found"),
        (("--prior", "mnist-flow"), "mnist-flow is a prior for image"),
    ],
)
def test_errors_are_one_line(command: Command, clipped: Path, arguments: tuple[str, ...], message: str) -> None:
    result = command("audio", str(clipped), *arguments)
    assert result.code != 0
    assert message in " ".join(result.err.split())
    assert not clipped.with_name("in.denoised.wav").exists()
