"""The choice between `speech` and `general`, with a stand-in for `general`, and with that of the bundled classifier."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile
import soxr
import torch
from numpy.typing import NDArray

import denoise
from denoise.files.audio import RawFormat
from denoise.pipelines import audio, choice
from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.choice import Survey
from denoise.pipelines.excerpts import slice_excerpts

RATE = 8_000
Models = dict[str, Path]


def recording(*peaks: float) -> NDArray[Any]:
    """Two seconds of a tone at each of the peaks."""
    t = np.arange(2 * RATE) / RATE
    return np.concatenate([peak * np.sin(2 * np.pi * 440 * t) for peak in peaks])[None].astype(np.float32)


def write(path: Path, *peaks: float) -> Path:
    soundfile.write(path, recording(*peaks).T, RATE, "FLOAT")
    return path


def survey(*peaks: float) -> Survey:
    surveyed = Survey(chooses_model=True)
    surveyed.examine((recording(peak) for peak in peaks), RATE)
    return surveyed


@pytest.mark.usefixtures("general")
class TestSurvey:
    @pytest.mark.parametrize(
        ("peaks", "model", "reason", "fraction"),
        [
            ((0.9, 0.9), "speech", "speech in 100 % of the excerpts", 1.0),
            ((0.9, 0.9, 0.3, 0.1), "speech", "speech in 50 % of the excerpts", 0.5),
            ((0.9, *[0.3] * 9), "general", "music, speech in 10 % of the excerpts", 0.1),
            ((0.3, 0.3, 0.1), "general", "music, no speech", 0.0),
            ((0.1, 0.1, 0.3), "general", "sounds, no speech", 0.0),
            ((0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 1e-4, 1e-4), "speech", "speech in 100 % of the excerpts", 1.0),
            ((0.0, 0.0), "speech", "silence", None),
            ((), "speech", "default", None),
        ],
    )
    def test_a_fair_part_of_speech_decides(
        self, peaks: tuple[float, ...], model: str, reason: str, fraction: float | None
    ) -> None:
        chosen = survey(*peaks).model()
        assert (chosen.model, chosen.reason) == (model, reason)
        assert chosen.speech_fraction == (None if fraction is None else pytest.approx(fraction, abs=1e-3))


class TestFiles:
    def test_each_file_has_its_model(self, general: Path, tmp_path: Path) -> None:
        pipeline = AudioPipeline()
        for name, peak in (("speech", 0.9), ("general", 0.3)):
            source = write(tmp_path / f"{name}.wav", peak, peak)
            row = pipeline.file(source, tmp_path / f"{name}.out.wav").asdict()
            assert row["model"] == name
            expected = AudioPipeline(general / f"{name}.safetensors")
            expected.file(source, tmp_path / f"{name}.expected.wav")
            samples = soundfile.read(tmp_path / f"{name}.expected.wav")[0]
            np.testing.assert_array_equal(soundfile.read(tmp_path / f"{name}.out.wav")[0], samples)
            np.testing.assert_array_equal(soundfile.read(io.BytesIO(pipeline.bytes(source.read_bytes())))[0], samples)

    def test_models_are_loaded_once(self, general: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        loaded: list[str] = []
        load = audio.load_network

        def count(name: str, **settings: Any) -> Any:
            loaded.append(name)
            return load(name, **settings)

        monkeypatch.setattr(audio, "load_network", count)
        pipeline = AudioPipeline()
        for i, peak in enumerate((0.3, 0.9, 0.3, 0.9)):
            pipeline.file(write(tmp_path / f"{i}.wav", peak), tmp_path / f"{i}.out.wav")
        assert loaded == ["speech", "general"]

    @pytest.mark.usefixtures("general")
    def test_a_pipe_takes_speech(self, tmp_path: Path, pipe: Callable[..., BinaryIO]) -> None:
        source = write(tmp_path / "a.wav", 0.3)
        row = AudioPipeline().file(pipe(source.read_bytes()), io.BytesIO()).asdict()
        assert (row["model"], row["model_reason"]) == ("speech", "default")
        assert "speech_fraction" not in row

    @pytest.mark.usefixtures("general")
    def test_raw_pcm_in_memory_is_examined_and_read_from_where_it_starts(self, tmp_path: Path) -> None:
        x, pipeline = np.rint(32767 * recording(0.3, 0.3)).astype("<i2"), AudioPipeline()
        soundfile.write(tmp_path / "a.wav", x.T, RATE)
        pipeline.file(tmp_path / "a.wav", tmp_path / "b.wav")
        expected = soundfile.read(tmp_path / "b.wav", dtype="int16")[0].astype("<i2").tobytes()
        assert pipeline.bytes(x.tobytes(), raw=RawFormat(RATE, 1)) == expected
        source, target = io.BytesIO(b"skipped" + x.tobytes()), io.BytesIO()
        source.seek(7)
        assert pipeline.file(source, target, raw=RawFormat(RATE, 1)).asdict()["model_reason"] == "music, no speech"
        assert target.getvalue() == expected

    @pytest.mark.usefixtures("general")
    def test_a_given_model_is_taken(self, models: Models, tmp_path: Path) -> None:
        row = AudioPipeline(models["causal-audio"]).file(write(tmp_path / "a.wav", 0.3), tmp_path / "b.wav").asdict()
        assert (row["model"], row["model_reason"]) == ("causal-audio", "given")

    @pytest.mark.usefixtures("general")
    def test_damage_is_reported_as_without_a_choice(self, models: Models, tmp_path: Path) -> None:
        x = recording(*[0.3] * 50)
        x[0, 71 * RATE] = np.inf
        soundfile.write(tmp_path / "a.wav", x.T, RATE, "FLOAT")
        (tmp_path / "b.wav").write_bytes(b"RIFF")
        for name in ("a.wav", "b.wav", "missing.wav"):
            messages = []
            for pipeline in (AudioPipeline(), AudioPipeline(models["causal-audio"])):
                with pytest.raises(denoise.InputError) as error:
                    pipeline.file(tmp_path / name, tmp_path / "out.wav")
                messages.append(str(error.value))
            assert messages[0] == messages[1]
            assert not (tmp_path / "out.wav").exists()

    def test_without_general_there_is_no_choice(self, general: Path, tmp_path: Path) -> None:
        (general / "general.safetensors").unlink()
        row = AudioPipeline().file(write(tmp_path / "a.wav", 0.3), tmp_path / "b.wav").asdict()
        assert (row["model"], row["model_reason"]) == ("speech", "default")

    @pytest.mark.usefixtures("general")
    def test_arrays_keep_speech_unless_asked(self) -> None:
        x = recording(0.3, 0.3)
        by_default, by_choice, given = (
            denoise.denoise_audio(x, RATE, model=model) for model in (None, "auto", "general")
        )
        np.testing.assert_array_equal(by_choice, given)
        assert np.abs(by_default - by_choice).max() > 1e-3
        batch = torch.from_numpy(np.stack([recording(0.9), recording(0.3)]))
        items = denoise.denoise_audio(batch, RATE, model="auto")
        for item, model, peak in zip(items, ("speech", "general"), (0.9, 0.3), strict=True):
            np.testing.assert_array_equal(item.numpy(), denoise.denoise_audio(recording(peak), RATE, model=model))


class TestBundledClassifier:
    """What nobody doubts; the card holds the figures."""

    @pytest.fixture(autouse=True)
    def _general_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(choice, "can_choose", lambda: True)

    def chosen(self, x: NDArray[Any], rate: int) -> str:
        surveyed = Survey(chooses_model=True)
        surveyed.examine(slice_excerpts(np.atleast_2d(x), rate), rate)
        return surveyed.model().model

    @pytest.mark.parametrize("gain", [1e-3, 1.0])
    @pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
    @pytest.mark.parametrize("name", ["speech", "speech.clean"])
    def test_speech(self, name: str, rate: int, gain: float) -> None:
        x, stored_rate = soundfile.read(f"samples/{name}.wav", dtype="float32")
        assert self.chosen(gain * soxr.resample(x, stored_rate, rate), rate) == "speech"

    @pytest.mark.parametrize("rate", [8_000, 48_000])
    def test_chords_and_noise(self, rate: int) -> None:
        t = np.arange(12 * rate) / rate
        chords = np.zeros_like(t)
        for beat, chord in enumerate([(0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7)] * 3):
            since = t - beat
            envelope = np.where(since >= 0, np.exp(-2 * since), 0.0)
            for note in chord:
                chords += envelope * np.sin(2 * np.pi * 220 * 2 ** (note / 12) * t)
        assert self.chosen(0.1 * chords, rate) == "general"
        assert self.chosen(0.1 * np.random.default_rng(0).standard_normal(len(t)), rate) == "general"
