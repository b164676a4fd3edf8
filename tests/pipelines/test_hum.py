"""Hum before models of speech: tones that stay the same leave, everything else comes back bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import iirnotch, lfilter

from denoise import AudioStream
from denoise.errors import ConfigError
from denoise.pipelines.hum import BANDWIDTH, HumFilter, Notch, Smoother, Tone, find_noise_tones, without_tones

Array = NDArray[Any]
RATE = 8000
FOUND_S = 8.0  # after which tones are measured


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, 0.01, round(seconds * rate)).astype(np.float32)


def tone(frequency: float, seconds: float, rate: int = RATE) -> Array:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def voice(seconds: float, rate: int = RATE, seed: int = 0) -> Array:
    """Harmonics of a pitch that moves as that of speech, in syllables."""
    rng, n = np.random.default_rng(seed), round(seconds * rate)
    t = np.arange(n) / rate
    anchors = np.arange(0, seconds + 0.2, 0.15)
    pitch = np.interp(t, anchors, 130 * np.exp(0.12 * rng.normal(size=len(anchors))))
    level = np.interp(t, anchors, rng.uniform(0, 1, len(anchors)) ** 2)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    return (0.1 * level * sum(np.sin(k * phase) / k for k in range(1, 9))).astype(np.float32)


def change_db(before: Array, after: Array, frequency: float, rate: int = RATE) -> float:
    """Change of the level of a tone by projection, once it has been found."""
    n = round(FOUND_S * rate)
    wave = np.exp(-2j * np.pi * frequency * np.arange(len(before)) / rate)[n:]
    return float(20 * np.log10(abs(after[n:] @ wave) / abs(before[n:] @ wave)))


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_hum_leaves_at_every_rate(rate: int) -> None:
    hum = sum(0.05 / k * tone(k * 50.02, 16, rate) for k in (1, 2, 3, 6))
    noisy = hum + noise(16, rate)
    filtering = HumFilter(rate, 1)
    out = filtering.push(noisy[None])[0]
    assert sorted(filtering.frequencies[0]) == pytest.approx([50.02, 100.04, 150.06, 300.12], abs=0.03)
    assert all(change_db(noisy, out, k * 50.02, rate) < -25 for k in (1, 2, 3, 6))
    rest = (out - noise(16, rate))[round(FOUND_S * rate) :]
    assert float(np.sqrt(np.mean(rest**2))) < 0.1 * float(np.sqrt(np.mean(hum**2)))


@pytest.mark.parametrize("frequency", [2100, 2900, 5900, 15_734, 23_900])
def test_whistles_above_the_range_open_no_notch(frequency: float) -> None:
    x = (0.1 * tone(frequency, 6, 48_000) + noise(6, 48_000))[None]
    filtering = HumFilter(48_000, 1)
    assert np.array_equal(filtering.push(x), x)
    assert filtering.frequencies == [[]]


def test_all_harmonics_of_a_rectifier_leave() -> None:
    buzz = sum(0.02 * tone(50 * k, 14) for k in range(1, 23))
    out = HumFilter(RATE, 1).push((buzz + voice(14))[None])[0] - voice(14)
    late = slice(round(FOUND_S * RATE), None)
    assert np.mean(out[late] ** 2) < np.mean(buzz[late] ** 2) / 50


@pytest.mark.parametrize("frequencies", [(100, 200, 300), (120, 240, 360), (60,), (733,)])
def test_hum_below_a_voice_leaves(frequencies: tuple[float, ...]) -> None:
    speech = voice(20)
    hum: Array = np.sum([0.02 / (k + 1) * tone(f, 20) for k, f in enumerate(frequencies)], axis=0)
    out = HumFilter(RATE, 1).push((speech + hum)[None])[0]
    assert all(change_db(hum, out - speech, f) < -15 for f in frequencies)


@pytest.mark.parametrize("seed", range(5))
def test_voices_and_noise_come_back_bit_by_bit(seed: int) -> None:
    for x in (voice(20, seed=seed) + noise(20, seed=seed), noise(20, seed=seed)):
        filtering = HumFilter(RATE, 1)
        np.testing.assert_array_equal(filtering.push(x[None])[0], x)
        assert filtering.frequencies == [[]]


def test_vibrato_glides_and_beeps_are_no_hum() -> None:
    t = np.arange(20 * RATE) / RATE
    vibrato = np.sin(2 * np.pi * (220 * t + 220 * 0.03 / (2 * np.pi * 5.5) * np.sin(2 * np.pi * 5.5 * t)))
    glide = np.sin(2 * np.pi * (200 * t + 5 * t**2))
    beeps = np.sin(2 * np.pi * 1000 * t) * (t % 1 < 0.5)
    for x in (vibrato, glide, beeps):
        noisy = (0.1 * x).astype(np.float32) + noise(20)
        np.testing.assert_array_equal(HumFilter(RATE, 1).push(noisy[None])[0], noisy)


def test_notches_follow_mains_that_drift() -> None:
    t = np.arange(40 * RATE) / RATE
    hum = 0.05 * np.sin(2 * np.pi * (50 * t + 0.002 / 2 * t**2))  # to 50.08 Hz
    out = HumFilter(RATE, 1).push((hum.astype(np.float32) + noise(40))[None])[0] - noise(40)
    n = round(FOUND_S * RATE)
    assert float(np.sqrt(np.mean(out[n:] ** 2) / np.mean(hum[n:] ** 2))) < 0.15


def test_notches_end_with_the_hum() -> None:
    filtering = HumFilter(RATE, 1)
    filtering.push((0.05 * tone(100, 10) + noise(10))[None])
    assert filtering.frequencies[0] == pytest.approx([100], abs=0.01)
    filtering.push(noise(8, seed=1)[None])
    assert filtering.frequencies == [[]]
    x = noise(2, seed=2)
    np.testing.assert_array_equal(filtering.push(x[None])[0], x)


def test_channels_are_apart() -> None:
    """Also where one is digital silence, or becomes it."""
    hum = noise(12, seed=1) + 0.05 * tone(180, 12)
    late = np.where(np.arange(len(hum)) < 7 * RATE, 0, hum)
    x = np.stack([noise(12), hum, 0 * hum, late[::-1], late])
    filtering = HumFilter(RATE, len(x))
    with np.errstate(invalid="raise", divide="raise"):
        out = filtering.push(x)
    np.testing.assert_array_equal(out[[0, 2]], x[[0, 2]])
    assert filtering.frequencies[0] == filtering.frequencies[2] == []
    assert filtering.frequencies[1] == pytest.approx([180], abs=0.01)
    for i, channel in enumerate(x):
        np.testing.assert_array_equal(HumFilter(RATE, 1).push(channel[None])[0], out[i])


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 30_000), max_size=8), st.sampled_from([np.float32, np.float64]))
def test_blocks_of_any_length_give_the_same(lengths: list[int], dtype: Any) -> None:
    x = (voice(10) + 0.02 * tone(120, 10))[None].astype(dtype)
    cuts = np.minimum(np.cumsum([0, *lengths]), x.shape[1])
    whole, filtering = HumFilter(RATE, 1).push(x), HumFilter(RATE, 1)
    pieces = [filtering.push(x[:, a:b]) for a, b in zip(cuts, [*cuts[1:], x.shape[1]], strict=True)]
    out = np.concatenate(pieces, axis=1)
    assert out.dtype == whole.dtype == dtype
    np.testing.assert_allclose(out, whole, atol=1e-6)
    assert not np.array_equal(out, x)


@pytest.mark.parametrize("frequency", [41.3, 120.0, 700.0])
def test_notches_are_those_of_scipy(frequency: float) -> None:
    x = noise(3) + tone(frequency, 3)
    weight = np.pi * BANDWIDTH / RATE
    smoother = Smoother(np.full(len(x), weight))
    out, behind = Notch(Tone(frequency, 0.5)).apply(x, RATE, smoother)
    b, a = iirnotch(frequency, frequency / BANDWIDTH, RATE)
    np.testing.assert_allclose(out, lfilter(b, a, x), atol=0.012)  # which has no image at the negative frequency
    whole, _ = Notch(Tone(frequency, 0.5)).apply(np.concatenate([x, x]), RATE, Smoother(np.full(2 * len(x), weight)))
    np.testing.assert_allclose(behind.apply(x, RATE, smoother)[0], whole[len(x) :], atol=1e-9)


def test_models_of_speech_remove_hum_and_others_keep_it() -> None:
    x = (0.05 * tone(150, 9) + noise(9))[None]
    for model, removes in (("speech", True), ("general", False)):
        default, with_hum, without = (
            np.concatenate([stream.push(x), stream.flush()], axis=1)
            for stream in (
                AudioStream(model, sample_rate=RATE),
                AudioStream(model, sample_rate=RATE, remove_hum=False),
                AudioStream(model, sample_rate=RATE, remove_hum=True),
            )
        )
        np.testing.assert_array_equal(default, without if removes else with_hum)
        assert not np.array_equal(with_hum, without)


def test_levels_do_not_matter() -> None:
    x = (0.05 * tone(150, 9) + noise(9)).astype(np.float64)[None]
    out = HumFilter(RATE, 1).push(x)
    for level in (1e-20, 1e20):  # the least that is heard, the greatest that is taken
        np.testing.assert_allclose(HumFilter(RATE, 1).push(level * x) / level, out, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(HumFilter(RATE, 1).push(np.zeros((1, 9 * RATE))), 0)


def test_notches_do_not_ring_after_a_voice() -> None:
    t = np.arange(24 * RATE) / RATE
    bursts = 3 * voice(24) * (t % 4 < 1)  # 20 dB louder
    hum = 0.02 * tone(130, 24)  # its usual pitch
    error = HumFilter(RATE, 1).push((bursts + hum + noise(24) / 100)[None])[0] - bursts
    pauses = (t > FOUND_S) & (t % 4 > 1.02)
    assert float(np.sqrt(np.mean(error[pauses] ** 2) / np.mean(hum[pauses] ** 2))) < 0.15


@pytest.mark.parametrize("seconds", [2, 5])
def test_tones_of_noise_alone_are_found_and_projected_out(seconds: int) -> None:
    hiss = np.stack([noise(seconds), noise(seconds, seed=1)])
    both = hiss + np.stack([0.02 * tone(29.7, seconds) + 0.01 * tone(2500.3, seconds), 0 * tone(1.0, seconds)])
    tones = find_noise_tones(both, RATE)
    assert [each.frequency for each in tones[0]] == pytest.approx([29.7, 2500.3], abs=0.05)
    assert [each.power for each in tones[0]] == pytest.approx([0.02**2 / 2, 0.01**2 / 2], rel=0.3)
    assert tones[1] == ()
    rest = without_tones(both, RATE, tones)
    assert np.square(rest[0] - hiss[0]).mean() < 0.01 * np.square(both[0] - hiss[0]).mean()
    np.testing.assert_array_equal(rest[1], both[1])


def test_hardly_any_tones_are_found_in_noise() -> None:
    assert sum(len(find_noise_tones(noise(2, seed=seed)[None], RATE)[0]) for seed in range(20)) <= 2
    assert find_noise_tones(tone(440, 1.9)[None], RATE) == ((),)


def test_known_tones_leave_from_the_beginning_and_no_others() -> None:
    hum, note, rest = 0.02 * tone(30, 12), 0.02 * tone(333, 12), noise(12)
    filtering = HumFilter(RATE, 1, find_noise_tones((hum + rest)[None, : 3 * RATE], RATE), finds=False)
    out = filtering.push((hum + note + rest)[None])[0]
    after = slice(RATE, None)
    assert np.square(out[after] - (note + rest)[after]).mean() < 0.03 * np.square(hum).mean()
    assert filtering.frequencies[0] == pytest.approx([30.0], abs=0.05)


def test_a_note_beside_a_known_tone_and_tones_above_the_nyquist_frequency_are_left_alone() -> None:
    known = [[Tone(440.0, 0.01**2 / 2), Tone(RATE - 2000.0, 0.01**2 / 2)]]
    filtering = HumFilter(RATE, 1, known, finds=False)
    x = 0.01 * tone(440, 20) + 0.1 * tone(441, 20) * (np.arange(20 * RATE) > 8 * RATE) + 0.1 * tone(2000, 20)
    out = filtering.push(x[None])[0]
    assert filtering.frequencies[0] == pytest.approx([440.0], abs=0.1)
    for frequency, at_most_db in ((441, 1.5), (2000, 0.1)):
        wave = np.exp(-2j * np.pi * frequency * np.arange(len(x)) / RATE)[12 * RATE :]
        assert abs(20 * np.log10(abs(out[12 * RATE :] @ wave) / abs(x[12 * RATE :] @ wave))) < at_most_db


def test_tones_of_other_channels_than_those_of_the_stream_are_refused() -> None:
    with pytest.raises(ConfigError, match="tones are of 2 channels; expected 1"):
        AudioStream("general", sample_rate=RATE, tones=[[Tone(100.0, 1.0)], []])
