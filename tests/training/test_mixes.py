"""Mixtures of speech and noise: every damage preserves time and length, and each setting has its effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denoise.config import parse
from denoise.errors import ConfigError
from denoise.files.audio import write_audio
from denoise.noise import generator_for
from denoise.signals import Audio, AudioFormat
from denoise.training.mixes import AudioMixes, Clips, bandwidth, opus, simulate_rooms
from denoise.training.recipe import AudioData

CLEAN = {"reverb": 0.0, "band_limit": 0.0, "clean": 0.0, "synthetic": 0.0, "snr_db": [5, 5], "level_db": [-20, -20]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech at 48 kHz of full bandwidth, at 48 kHz with nothing above 4 kHz, and at 16 kHz; a noise."""
    root = tmp_path_factory.mktemp("mixes")
    rng = np.random.default_rng(0)

    def write(name: str, rate: int, cutoff: float) -> None:
        spectrum = np.fft.rfft(rng.standard_normal(2 * rate))
        spectrum[np.fft.rfftfreq(2 * rate, 1 / rate) > cutoff] = 0
        x = 0.1 * np.fft.irfft(spectrum)
        (root / name).parent.mkdir(exist_ok=True)
        write_audio(root / name, Audio(x[None].astype(np.float32), AudioFormat(rate, 1, "WAV", "PCM_16")))

    write("speech/full.wav", 48_000, 20_000)
    write("speech/dull.wav", 48_000, 4_000)
    write("speech/wide.wav", 16_000, 7_900)
    write("noise/hiss.wav", 44_100, 22_050)
    return root


def mixes(data: Path, **settings: Any) -> AudioMixes:
    values = {"speech": ["speech"], "noise": ["noise"], "sample_rates": [16_000, 48_000], "seconds": 0.5}
    return AudioMixes(parse(AudioData, values | CLEAN | settings, "test"), data)


def test_bandwidth_is_the_end_of_the_spectrum(data: Path) -> None:
    clips = Clips(data, ["speech"], 48_000)
    bandwidths = sorted(round(float(b)) for b in clips.bandwidths)
    np.testing.assert_allclose(bandwidths, [4_000, 7_900, 20_000], atol=600)
    assert bandwidth(torch.zeros(5_000, dtype=torch.int16), 16_000) == 0


def test_speech_of_narrow_bandwidth_is_left_out_at_high_sample_rates(data: Path) -> None:
    source = mixes(data)
    assert (source.speech.weights_at(48_000) > 0).sum() == 1
    assert (source.speech.weights_at(16_000) > 0).sum() == 3
    rates = set()
    for step in range(12):
        noisy, clean, rate, *_ = source.batch(2, generator_for(0, step))
        assert rate is not None
        assert noisy.shape == clean.shape == (2, 1, rate // 2)
        rates.add(rate)
        if rate == 48_000:
            assert min(bandwidth(x[0] * 30_000, rate) for x in clean) > 15_000
    assert rates == {16_000, 48_000}


def test_a_corpus_without_full_bandwidth_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "speech").mkdir()
    (tmp_path / "speech/dull.wav").write_bytes((data / "speech/dull.wav").read_bytes())
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise/hiss.wav").write_bytes((data / "noise/hiss.wav").read_bytes())
    with pytest.raises(ConfigError, match="no speech of at least 14400 Hz"):
        mixes(tmp_path)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_opus_preserves_time_length_and_level(rate: int) -> None:
    time = rate // 2 + 77
    t = np.arange(time) / rate
    x = torch.from_numpy(1.5 * np.sin(2 * np.pi * (300 + 800 * t) * t)).float()[None]
    y = opus(x, rate)
    assert y.shape == x.shape
    lag = int(np.argmax(np.correlate(y[0].numpy(), x[0].numpy(), "full"))) - (time - 1)
    assert lag == 0
    assert not torch.equal(x, y)
    assert float((x - y).square().mean() / x.square().mean()) < 0.05


@pytest.mark.parametrize(
    "kind", ["synthetic", "babble", "disturbance", "impacts", "clipping", "coding", "reverb", "band_limit"]
)
def test_each_damage_is_seeded_and_preserves_the_length(data: Path, kind: str) -> None:
    source = mixes(data, **{kind: 1.0, "simulated_rooms": 2 if kind == "reverb" else 0}, sample_rates=[16_000])
    plain = mixes(data, sample_rates=[16_000])
    noisy, clean, *_ = source.batch(3, generator_for(0, 1))
    repeated, *_ = source.batch(3, generator_for(0, 1))
    assert torch.equal(noisy, repeated)
    assert torch.isfinite(noisy).all()
    assert noisy.shape == clean.shape == (3, 1, 8_000)
    assert not torch.equal(noisy, plain.batch(3, generator_for(0, 1)).noisy)


def test_simulated_rooms_have_a_direct_sound_and_reverberation() -> None:
    rooms = simulate_rooms(2, 16_000)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(rooms, simulate_rooms(2, 16_000), strict=True))
    for response, rate in rooms:
        assert rate == 16_000
        energy = response.double().square()
        direct = int(energy.argmax())
        assert direct < 0.05 * rate  # the largest room is nine metres long
        assert float(energy[direct + rate // 100 :].sum()) > 0  # reverberation
