"""``denoise audio --task`` and ``--prior``: outputs, and one line per error."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import Command

T = np.arange(16_000) / 16_000
ORIGINAL = 1.2 * np.sin(2 * np.pi * 210 * T) * (0.7 + 0.3 * np.sin(20 * T))


@pytest.fixture
def clipped(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "in.wav", ORIGINAL.clip(-1, 1), 16_000, subtype="PCM_16")
    return tmp_path / "in.wav"


def snr_db(x: Any, clean: Any) -> float:
    return float(10 * np.log10(np.square(clean).sum() / np.square(x - clean).sum()))


@pytest.mark.parametrize(
    "words", [(), ("--limit", "1"), ("--limit", "0.9"), ("--gain", "-6"), ("--gain", "0"), ("-o", "-")]
)
def test_integers_are_lowered_to_hold_the_restored_peaks(
    command: Command, clipped: Path, words: tuple[str, ...]
) -> None:
    in_pipe = words == ("-o", "-")
    source = ("-",) if in_pipe else (str(clipped),)
    result = command("audio", *source, "--task", "declip", *words, stdin=clipped.read_bytes() if in_pipe else b"")
    assert result.code == 0, result.err
    output = io.BytesIO(result.out) if in_pipe else clipped.with_name("in.denoised.wav")
    restored, message = soundfile.read(output)[0], " ".join(result.err.split())
    assert ("lowered by 6 dB" in message) == ("--gain" not in words)
    before = snr_db(ORIGINAL.clip(-1, 1), ORIGINAL)
    if words == ("--gain", "0"):
        over_db = re.search(r"over full scale, by at most (.*) dB, as PCM_16 has to. Give a gain of -3 dB.", message)
        assert over_db is not None
        assert 2 < float(over_db[1]) <= 3  # the gain, rounded up
        assert snr_db(restored, ORIGINAL) < before + 0.1
    else:
        assert "exceed" not in message
        assert snr_db(restored * 10 ** (6 / 20), ORIGINAL) > before + 6


def test_what_is_clipped_far_below_full_scale_keeps_its_level(command: Command, clipped: Path) -> None:
    soundfile.write(clipped, (0.4 * ORIGINAL).clip(-0.4, 0.4), 16_000, subtype="PCM_16")
    result = command("audio", str(clipped), "--task", "declip", "--json")
    assert not result.rows[0]["warnings"]
    assert snr_db(soundfile.read(result.rows[0]["output"])[0], 0.4 * ORIGINAL) > 25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "extend"), "the task extend needs a prior"),
        (("--task", "mend"), "task is 'mend'"),
        (("--limit", "0.5"), "--limit needs --task declip"),
        (("--mask", "0-1"), "--mask needs --task inpaint"),
        (("--sigma", "0.1"), "--sigma needs --prior"),
        (("--task", "inpaint", "--sigma", "0.1"), "--sigma is not for --task inpaint"),
        (("--task", "inpaint", "--gain", "-6"), "--gain needs --task declip"),
        (("--task", "declip", "--mask", "0.1-0.2"), "--mask needs --task inpaint; leave it out"),
        (("--task", "declip", "--strength", "0.5"), "--strength is not for --task declip"),
        (("--prior", "speech-prior", "--model", "speech"), "--model is not for --prior"),
        (("--task", "declip", "--samples", "1"), "samples is 1; expected 0, or at least 2"),
        (("--task", "inpaint", "--mask", "0.1-0.3"), "a gap lasts 200 ms; expected at most 100 ms"),
        (("--task", "inpaint", "--mask", "0.3-0.1"), "a gap is from 0.3 to 0.1 s; expected a start before the end"),
        (("--task", "inpaint"), "no gap and no click was found"),
        (("--task", "declip", "--steps", "5"), "--steps needs --prior; leave it out"),
        (("--task", "inpaint", "--seed", "1"), "--seed needs --prior"),
        (("--prior", "speech-prior", "--steps", "5"), "--steps needs --samples"),
        (("--prior", "speech-prior", "--seed", "0"), "--seed needs --samples"),
        (("--task", "inpaint", "--mask", "0.1-0.3"), "in.wav: a gap lasts 200 ms"),
        (("--prior", "mnist-flow"), "mnist-flow is a prior for image"),
    ],
)
def test_errors_are_one_line(command: Command, clipped: Path, arguments: tuple[str, ...], message: str) -> None:
    result = command("audio", str(clipped), *arguments)
    assert result.code != 0
    assert message in " ".join(result.err.split())
    assert not clipped.with_name("in.denoised.wav").exists()
