"""``denoise audio`` chooses models and compares channels, and says which and why."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from denoise.cli.batch import print_record
from denoise.pipelines.batch.journal import Record
from tests.cli.conftest import Command

RATE = 8_000


def recording(*peaks: float) -> NDArray[Any]:
    """Two seconds of a tone at each of the peaks."""
    t = np.arange(2 * RATE) / RATE
    return np.concatenate([peak * np.sin(2 * np.pi * 440 * t) for peak in peaks])[None].astype(np.float32)


def write(path: Path, *peaks: float) -> Path:
    soundfile.write(path, recording(*peaks).T, RATE, "FLOAT")
    return path


@pytest.mark.usefixtures("general")
class TestCommand:
    def test_the_line_and_the_json_say_which_and_why(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        write(tmp_path / "in/song.wav", 0.3, 0.3)
        write(tmp_path / "in/talk.wav", 0.9, 0.3)
        done = command("audio", "in", "-o", "out")
        song, talk = done.out.decode().splitlines()
        assert re.search(r" x real time, noise -\d+\.\d -> -\d+\.\d dBFS, general \(music, no speech\)$", song)
        assert talk.endswith(" dBFS, speech (speech in 50 % of the excerpts)")
        song_row, talk_row = command("audio", "in", "-o", "out", "--overwrite", "--json").rows
        assert song_row["model"] == "general"
        assert song_row["model_reason"] == "music, no speech"
        assert (talk_row["model"], talk_row["speech_fraction"]) == ("speech", 0.5)
        assert "channels" not in song_row

    def test_a_warning_names_the_model_of_speech_where_there_is_some(self, command: Command, tmp_path: Path) -> None:
        write(tmp_path / "radio.wav", 0.9, 0.3, 0.3)
        write(tmp_path / "song.wav", 0.3, 0.3)
        line = command("audio", "radio.wav").out.decode()
        assert line.endswith(", general (music, speech in 33 % of the excerpts)\n")
        row = command("audio", "radio.wav", "--overwrite", "--json").rows[0]
        assert [warning for warning in row["warnings"] if "--model speech" in warning] == [
            "radio.wav: general was chosen (music, speech in 33 % of the excerpts). "
            "If it is of a voice, give --model speech."
        ]
        row = command("audio", "song.wav", "--json").rows[0]
        assert not any("--model speech" in warning for warning in row["warnings"])

    def test_the_line_of_a_batch_says_which_and_why(self, capsys: pytest.CaptureFixture[str]) -> None:
        result = {"model": "general", "model_reason": "music, no speech", "noise_before_dbfs": -60.0}
        record = Record("a", "b.wav", "b.wav", "done", 1.0, result=result)
        print_record(record, False, sys.stdout)
        print_record(replace(record, result=result | {"model_reason": "given"}), False, sys.stdout)
        photo = {"model": "photo", "model_reason": "default", "noise_before_sigma_255": 5.0}
        print_record(replace(record, result=photo), False, sys.stdout)
        assert capsys.readouterr().out == "b.wav  1.0 s, general (music, no speech)\nb.wav  1.0 s\nb.wav  1.0 s\n"

    def test_the_model_overrules(self, command: Command, tmp_path: Path) -> None:
        write(tmp_path / "song.wav", 0.3)
        done = command("audio", "song.wav", "--model", "speech", "--json")
        assert (done.rows[0]["model"], done.rows[0]["model_reason"]) == ("speech", "given")
        assert command("audio", "song.wav", "--model", "speech", "--overwrite").out.endswith(b" dBFS\n")
        assert command("audio", "song.wav", "--model", "auto", "--overwrite", "--json").rows[0]["model"] == "general"

    def test_the_line_says_why_without_speech_or_excerpts(self, command: Command, tmp_path: Path) -> None:
        write(tmp_path / "silence.wav", 0.0)
        assert command("audio", "silence.wav").out.endswith(b" digital silence in the pauses, speech (silence)\n")
        data = write(tmp_path / "song.wav", 0.3).read_bytes()
        assert command("audio", "-", "-o", "a.wav", stdin=data).out.endswith(b" dBFS, speech (default)\n")

    def test_standard_input_takes_speech_unless_told(self, command: Command, tmp_path: Path) -> None:
        data = write(tmp_path / "song.wav", 0.3).read_bytes()
        row = command("audio", "-", "-o", "a.wav", "--json", stdin=data).rows[0]
        assert (row["model"], row["model_reason"]) == ("speech", "default")
        row = command("audio", "-", "-o", "b.wav", "--json", "--model", "general", stdin=data).rows[0]
        assert (row["model"], row["model_reason"]) == ("general", "given")

    def test_separate_channels_are_shown(self, command: Command, tmp_path: Path) -> None:
        x = recording(0.9, 0.3, 0.9, 0.3)
        gate = np.repeat([1.0, 0.0, 1.0, 0.0], 2 * RATE)
        soundfile.write(tmp_path / "call.wav", np.concatenate([x * gate, x * (1 - gate)]).T, RATE, "FLOAT")
        assert b", channels separate (correlation -" in command("audio", "call.wav").out
        row = command("audio", "call.wav", "--json", "--overwrite").rows[0]
        assert row["channels"] == "separate"
        assert row["channel_correlation"] < 0
        row = command("audio", "call.wav", "--json", "--overwrite", "--channels", "linked").rows[0]
        assert row["channels"] == "linked"

    def test_channels_take_a_word_a_number_or_both(self, command: Command) -> None:
        data = np.random.default_rng(0).integers(-9000, 9000, 20_000, np.int16).tobytes()
        raw = ["audio", "-", "-o", "-", "--json", "--rate", 16_000, "--format", "s16le"]
        for words, expected in ((["2"], "linked"), (["2", "separate"], "separate"), (["linked", "2"], "linked")):
            done = command(*raw, *(word for each in words for word in ("--channels", each)), stdin=data)
            assert done.code == 0
            assert len(done.out) == len(data)
            assert f'"channels": "{expected}"' in done.err

    def test_a_reversed_range_is_refused_before_any_file(self, command: Command, tmp_path: Path) -> None:
        write(tmp_path / "a.wav", 0.3)
        write(tmp_path / "b.wav", 0.3)
        done = command("audio", "a.wav", "b.wav", "-o", "out", "--noise-profile", "5-3")
        assert (done.code, done.out) == (2, b"")
        assert done.err == "denoise: the noise profile is of 5 to 3 s; expected a start before the end.\n"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["wide"], "--channels is wide; expected linked, separate or auto, and for raw PCM a number"),
            (["linked", "separate"], "--channels is linked and separate; expected"),
            (["1", "2"], "--channels is 1 and 2; expected"),
            (["2"], "raw PCM needs all three"),
        ],
    )
    def test_other_words_are_refused(self, command: Command, tmp_path: Path, words: list[str], message: str) -> None:
        write(tmp_path / "a.wav", 0.3)
        done = command("audio", "a.wav", *(word for each in words for word in ("--channels", each)))
        assert done.code == 2
        assert message in done.err
