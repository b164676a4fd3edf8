"""Two channels are separate if their envelopes hardly correlate, whatever noise, delay or silence does to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import denoise
from denoise.errors import ConfigError
from denoise.options import DenoiseOptions
from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.stereo import MIN_CORRELATION, ChannelCorrelation

RATE = 16_000
N = 16 * RATE
TIME = np.arange(N) / RATE
Models = dict[str, Path]


def talker(seed: int, n: int = N) -> NDArray[Any]:
    """Noise bursts of syllables of 0.1 to 0.4 s with pauses, RMS near 0.1."""
    rng, x = np.random.default_rng(seed), np.zeros(n)
    position = 0
    while position < n:
        syllable = min(n - position, int(rng.uniform(0.1, 0.4) * RATE))
        x[position : position + syllable] = rng.uniform(0.3, 1) * np.hanning(syllable) * rng.standard_normal(syllable)
        position += syllable + int(rng.exponential(0.15) * RATE)
    return 0.1 * x / x.std()


def hiss(db: float, channels: int = 2) -> NDArray[Any]:
    return 0.1 * 10 ** (db / 20) * np.random.default_rng(99).standard_normal((channels, N))


def correlation(x: NDArray[Any], rate: int = RATE, excerpt: int = 2 * RATE) -> float | None:
    measured = ChannelCorrelation()
    for start in range(0, x.shape[1], excerpt):
        measured.add(x[:, start : start + excerpt], rate)
    return measured.value()


A, B = talker(1), talker(2)
TURN = np.floor(TIME / 3) % 2
TURNS = np.stack([A * TURN, B * (1 - TURN)])
HUM = 0.3 * np.sin(2 * np.pi * 100 * TIME)
DELAYED = np.stack([A + 0.4 * np.roll(B, 25), 0.5 * np.roll(A, 25) + B])


@pytest.mark.parametrize(
    "x",
    [
        TURNS,
        TURNS + hiss(-10),
        TURNS + hiss(-3),
        TURNS + HUM,
        TURNS + hiss(-10, 1),  # common noise
        TURNS + 0.1 * TURNS[::-1],  # crosstalk
        np.stack([A, B]),  # both talk all the time
        np.stack([A, B]) + hiss(-10),
        np.stack([A, np.zeros(N)]) + hiss(-20),  # a microphone that hears nobody
        1e-3 * TURNS,
    ],
    ids=[
        "turns",
        "hiss",
        "much hiss",
        "hum",
        "one hiss",
        "crosstalk",
        "at once",
        "at once, hiss",
        "unused",
        "quiet",
    ],
)
def test_two_speakers_in_two_channels_hardly_correlate(x: NDArray[Any]) -> None:
    measured = correlation(x)
    assert measured is not None
    assert measured < MIN_CORRELATION


@pytest.mark.parametrize(
    "x",
    [
        np.stack([A, A]),
        np.stack([A, -A]),
        np.stack([A, 0.1 * A]) + hiss(-30),
        np.stack([A, A]) + hiss(-5),
        np.stack([A, np.roll(A, 30)]),  # two microphones, 0.6 m apart
        np.stack([A + HUM, A]),
    ],
    ids=["mono", "inverted", "panned", "hiss", "delayed", "hum on one side"],
)
def test_one_scene_in_two_channels_correlates(x: NDArray[Any]) -> None:
    measured = correlation(x)
    assert measured is not None
    assert measured > 0.7


@pytest.mark.parametrize(
    "x",
    [hiss(0), np.zeros((2, N)), np.stack([A, np.zeros(N)]), np.stack([HUM, HUM]), np.zeros((2, 0)), hiss(0)[:, :9]],
    ids=["hiss", "silence", "one channel", "hum", "empty", "short"],
)
def test_without_signal_in_both_there_is_no_correlation(x: NDArray[Any]) -> None:
    assert correlation(x) is None


def test_excerpts_and_level_do_not_matter() -> None:
    whole = correlation(DELAYED, excerpt=N)
    assert whole is not None
    assert correlation(DELAYED) == pytest.approx(whole, abs=0.02)
    assert correlation(0.01 * DELAYED) == pytest.approx(correlation(DELAYED), abs=1e-6)


def separately(pipeline: AudioPipeline, x: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([np.concatenate([*pipeline.stream([channel[None]], RATE)], axis=1) for channel in x])


class TestFiles:
    def test_a_conversation_is_denoised_channel_by_channel(self, models: Models, tmp_path: Path) -> None:
        pipeline, x = AudioPipeline(models["causal-audio"]), (TURNS + hiss(-20)).astype(np.float32)
        soundfile.write(tmp_path / "a.wav", x.T, RATE, "FLOAT")
        result = pipeline.file(tmp_path / "a.wav", tmp_path / "b.wav")
        assert result.asdict()["channels"] == "separate"
        assert result.asdict()["channel_correlation"] == pytest.approx(correlation(x), abs=0.01)
        written = soundfile.read(tmp_path / "b.wav", dtype="float32")[0].T
        np.testing.assert_allclose(written, separately(pipeline, x), rtol=0, atol=1e-5)
        linked = pipeline.file(tmp_path / "a.wav", tmp_path / "c.wav", stereo="linked")
        assert linked.asdict()["channels"] == "linked"
        assert "channel_correlation" not in linked.asdict()
        assert np.abs(soundfile.read(tmp_path / "c.wav", dtype="float32")[0].T - written).max() > 1e-3

    def test_a_stereo_recording_shares_a_mask(self, models: Models, tmp_path: Path) -> None:
        pipeline, x = AudioPipeline(models["causal-audio"]), DELAYED.astype(np.float32)
        soundfile.write(tmp_path / "a.flac", x.T, RATE, "PCM_24")
        row = pipeline.file(tmp_path / "a.flac", tmp_path / "b.flac").asdict()
        assert row["channels"] == "linked"
        assert row["channel_correlation"] > MIN_CORRELATION
        row = pipeline.file(tmp_path / "a.flac", tmp_path / "c.flac", stereo="separate").asdict()
        assert row["channels"] == "separate"

    def test_other_numbers_of_channels(self, models: Models, tmp_path: Path) -> None:
        pipeline, x = AudioPipeline(models["causal-audio"]), np.stack([A, A, B])[:, :RATE].astype(np.float32)
        soundfile.write(tmp_path / "a.wav", x.T, RATE, "FLOAT")
        soundfile.write(tmp_path / "mono.wav", x[0], RATE, "FLOAT")
        assert pipeline.file(tmp_path / "a.wav", tmp_path / "b.wav").asdict()["channels"] == "separate"
        linked = pipeline.file(tmp_path / "a.wav", tmp_path / "c.wav", stereo="linked")
        assert linked.asdict()["channels"] == "linked"
        stream = denoise.AudioStream(pipeline, sample_rate=RATE, channels=3, linked=True)
        expected = np.concatenate([stream.push(x), stream.flush()], axis=1)
        np.testing.assert_allclose(soundfile.read(tmp_path / "c.wav")[0].T, expected, rtol=0, atol=1e-5)
        assert "channels" not in pipeline.file(tmp_path / "mono.wav", tmp_path / "d.wav").asdict()

    @pytest.mark.parametrize("name", ["causal-audio", "keep-audio"])
    def test_low_frequency_effects_pass_unchanged(self, name: str, models: Models, tmp_path: Path) -> None:
        x = (0.1 * np.random.default_rng(0).standard_normal((6, RATE))).astype(np.float32)
        soundfile.write(tmp_path / "a.wav", x.T, RATE, "FLOAT", format="WAVEX")  # FL FR FC LFE BL BR
        AudioPipeline(models[name]).file(tmp_path / "a.wav", tmp_path / "b.wav")
        written = soundfile.read(tmp_path / "b.wav", dtype="float32")[0].T
        np.testing.assert_array_equal(written[3], x[3])
        expected = separately(AudioPipeline(models[name]), x[[2, 4]])
        np.testing.assert_allclose(written[[2, 4]], expected, rtol=0, atol=1e-5)


def test_arrays_are_examined_too(models: Models) -> None:
    x = TURNS.astype(np.float32)
    pipeline = AudioPipeline(models["causal-audio"])
    apart = denoise.denoise_audio(x, RATE, model=models["causal-audio"])
    np.testing.assert_allclose(apart, separately(pipeline, x), rtol=0, atol=1e-6)
    linked = denoise.denoise_audio(x, RATE, model=models["causal-audio"], stereo="linked")
    stream = denoise.AudioStream(pipeline, sample_rate=RATE, channels=2)
    np.testing.assert_allclose(linked, np.concatenate([stream.push(x), stream.flush()], axis=1), rtol=0, atol=1e-6)


def test_speech_of_two_microphones_leaves_less_noise_apart() -> None:
    """The noise of a silent channel no longer passes while the other one speaks."""
    x, rate = soundfile.read("samples/speech.clean.wav", dtype="float32")
    half = len(x) // 2
    noise = 10 ** (-10 / 20) * x.std() * np.random.default_rng(0).standard_normal((2, len(x)))
    first, second = x.copy(), x.copy()
    first[half:], second[:half] = 0, 0
    noisy = (np.stack([first, second]) + noise).astype(np.float32)
    silent = slice(half + rate // 2, None)
    linked = denoise.denoise_audio(noisy, rate, stereo="linked")[0, silent]
    apart = denoise.denoise_audio(noisy, rate)[0, silent]
    assert 10 * np.log10(np.square(linked).mean() / np.square(apart).mean()) > 6


def test_invalid_options_are_refused(models: Models) -> None:
    with pytest.raises(ConfigError, match="stereo is 'wide'; expected auto, linked, separate"):
        DenoiseOptions(steps=1, stereo="wide")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="keep-audio denoises channels in groups of 1"):
        denoise.denoise_audio(np.zeros((2, 99)), RATE, model=models["keep-audio"], stereo="linked")
