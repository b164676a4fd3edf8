"""Measures and preparation of recordings, against closed forms."""

import io

import numpy as np
import pytest
import recordings
import soundfile
from scipy.signal import firwin, lfilter


def tone(seconds: float, rate: int, frequency: float = 500.0, amplitude: float = 0.5) -> np.ndarray:
    """Return a sine, (time,)."""
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def test_level_range_is_that_of_voice_and_floor() -> None:
    rate, rng = 16_000, np.random.default_rng(0)
    floor = rng.standard_normal(4 * rate) * 10 ** (-70 / 20)
    x = floor.copy()
    x[rate : 3 * rate] += tone(2, rate, amplitude=np.sqrt(2) * 10 ** (-20 / 20))
    # a 5th percentile of chi-square noise levels of 320 samples lies 0.6 dB below their mean
    assert recordings.level_range(x, rate) == pytest.approx(50.6, abs=0.3)


@pytest.mark.parametrize(("edge", "expected"), [(3900, 16_000), (7500, 16_000), (11_000, 24_000), (21_000, 48_000)])
def test_a_rate_is_reduced_to_the_lowest_that_holds_the_band(edge: int, expected: int) -> None:
    rate = 48_000
    x = lfilter(
        firwin(2001, edge, fs=rate, window=("kaiser", 14)), 1, np.random.default_rng(1).standard_normal(3 * rate)
    )
    band = recordings.bandwidth(x, rate)
    assert edge - 50 <= band <= edge + 450  # half of the transition band of the filter and leakage
    reduced, new_rate = recordings.reduce_rate(x, rate, band)
    assert new_rate == expected
    assert len(reduced) / new_rate == pytest.approx(3, abs=1e-3)
    inner = slice(len(reduced) // 8, -len(reduced) // 8)
    assert np.std(reduced[inner]) == pytest.approx(np.std(x[len(x) // 8 : -len(x) // 8]), rel=0.02)


def test_a_rate_is_never_raised() -> None:
    x = np.zeros(800)
    assert recordings.reduce_rate(x, 8000, 3000.0) == (x, 8000)
    assert recordings.reduce_rate(x, 16_000, 3000.0) == (x, 16_000)


def test_clipped_fraction_tells_clipping_from_loudness() -> None:
    x = np.random.default_rng(2).standard_normal(50_000)
    smooth = lfilter(firwin(65, 0.1), 1, x)
    smooth *= 0.95 / np.abs(smooth).max()
    assert recordings.clipped_fraction(smooth) == 0
    clipped = np.clip(smooth, -0.3, 0.3)
    fraction = np.mean(np.abs(smooth) >= 0.3)
    assert 0.7 * fraction < recordings.clipped_fraction(clipped * 3) < fraction  # without the ends of the runs
    assert recordings.clipped_fraction(clipped) == 0  # quiet: some recorders limit on purpose


def test_speech_is_trimmed_to_a_fifth_of_a_second_and_faded() -> None:
    rate = 16_000
    x = np.concatenate([np.zeros(rate), tone(1.5, rate, amplitude=1.2), np.zeros(2 * rate)])
    speech = recordings.prepare_speech(x + 1e-5, rate)
    assert len(speech) == pytest.approx(1.9 * rate, abs=0.04 * rate)
    assert np.abs(speech).max() == pytest.approx(0.9, abs=1e-3)
    assert speech[0] == 0
    assert abs(speech[-1]) < 1e-3


def test_silence_holds_no_speech() -> None:
    assert len(recordings.prepare_speech(np.zeros(16_000), 16_000)) == 0


def test_noise_is_cut_into_pieces_and_quiet_noise_is_raised() -> None:
    rate = 8000
    x = 10 ** (-50 / 20) * np.random.default_rng(3).standard_normal(70 * rate)
    padded = np.concatenate([np.zeros(3 * rate), x, np.zeros(rate)])
    pieces = list(recordings.prepare_noise(padded, rate))
    assert len(pieces) == 3
    assert sum(map(len, pieces)) == pytest.approx(70 * rate, abs=10)
    for piece in pieces:
        assert len(piece) <= 30 * rate
        assert 20 * np.log10(np.sqrt(np.mean(piece**2))) == pytest.approx(-32, abs=0.2)
    assert list(recordings.prepare_noise(np.zeros(rate), rate)) == []


def test_a_room_begins_at_its_onset_and_ends_60_db_later() -> None:
    rate, tau = 48_000, 0.1
    decay = np.exp(-np.arange(rate) / rate / tau)
    response = recordings.prepare_room(np.concatenate([np.zeros(5000), decay]), rate)
    assert len(response) == pytest.approx(rate // 1000 + tau * np.log(1e6) / 2 * rate, rel=1e-3)
    assert np.argmax(response) == rate // 1000
    assert response.max() == pytest.approx(0.9)
    long = recordings.prepare_room(np.exp(-np.arange(4 * rate) / rate / 2), rate)
    assert len(long) == 2 * rate


def test_short_recordings_are_joined_until_four_seconds() -> None:
    words = [np.zeros(n) for n in (1500, 1500, 1500, 5000, 1000)]
    assert list(recordings.join(words, 1000)) == [[0, 1, 2], [3], [4]]


def test_decoding_takes_channels_and_lowers_high_rates() -> None:
    rate = 96_000
    stereo = np.stack([tone(1, rate, 1000), tone(1, rate, 1000, 0.1)], axis=1)
    file = io.BytesIO()
    soundfile.write(file, stereo, rate, format="WAV", subtype="PCM_24")
    mono, new_rate = recordings.decode(file.getvalue()) or (np.zeros(0), 0)
    assert new_rate == 48_000
    assert np.std(mono[4800:-4800]) == pytest.approx(0.3 / np.sqrt(2), rel=1e-3)
    first, _ = recordings.decode(file.getvalue(), channel=0) or (np.zeros(0), 0)
    assert np.std(first[4800:-4800]) == pytest.approx(0.5 / np.sqrt(2), rel=1e-3)
    assert recordings.decode(b"no audio") is None
