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
from denoise.training.audio_recipe import AudioData
from denoise.training.mixes import AudioMixes, Clips, bandwidth, opus, simulate_rooms

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


MUSIC = {"music": ["noise"], "sample_rates": [16_000], "seconds": 1.0}


def test_clean_signals_come_from_the_folders_of_music_as_often_as_stated(data: Path) -> None:
    """Speech ends at 20 kHz here, and the music at 22 kHz."""

    def reaches_21_khz(source: AudioMixes) -> float:
        clean = torch.cat([source.batch(8, generator_for(0, step)).clean for step in range(5)])[:, 0]
        power = torch.fft.rfft(clean * torch.hann_window(clean.shape[1])).abs().square()
        return float((power[:, 20_500:21_500].mean(dim=1) > 1e-3 * power.mean(dim=1)).float().mean())

    rate = {"sample_rates": [48_000]}
    assert reaches_21_khz(mixes(data, **MUSIC | rate)) == 0.0
    assert reaches_21_khz(mixes(data, **MUSIC | rate, music_fraction=1.0)) == 1.0
    assert 0.2 < reaches_21_khz(mixes(data, **MUSIC | rate, music_fraction=0.5)) < 0.8
    with pytest.raises(ConfigError, match=r"audio\.music"):
        mixes(data, music_fraction=0.5)


def test_layers_add_a_weaker_signal(data: Path) -> None:
    one, two = (mixes(data, **MUSIC, layers=p).batch(4, generator_for(0, 3)).clean for p in (0.0, 1.0))
    assert torch.allclose(one.square().mean(dim=-1), two.square().mean(dim=-1), rtol=1e-3)  # the level is set after it
    assert not torch.allclose(one, two, atol=1e-3)


def test_the_noise_profile_is_the_noise_within_its_error(data: Path) -> None:
    batch = mixes(data, profile=1.0).batch(8, generator_for(0, 0))
    assert batch.noise is not None
    added = batch.noisy - batch.clean
    gain_db = 20 * torch.log10((batch.noise * added).sum(dim=-1) / added.square().sum(dim=-1))
    correlation = torch.cosine_similarity(batch.noise, added, dim=-1)
    assert bool((correlation > 0.999).all())
    assert 0.3 < float(gain_db.std()) < 3.0
    half = mixes(data, profile=0.5).batch(64, generator_for(0, 0)).noise
    assert half is not None
    assert 0.2 < float(half.flatten(1).any(dim=1).float().mean()) < 0.8
    assert mixes(data).batch(2, generator_for(0, 0)).noise is None


def test_silence_leaves_the_noise_alone(data: Path) -> None:
    batch = mixes(data, silence=1.0).batch(4, generator_for(0, 0))
    assert not batch.clean.any()
    level_db = 10 * torch.log10(batch.noisy.square().mean(dim=-1))
    torch.testing.assert_close(level_db, torch.full_like(level_db, -25.0), atol=0.5, rtol=0)  # level -20, SNR 5 dB


@pytest.mark.parametrize("kind", ["tones", "beeps", "broadband"])
def test_kinds_of_synthetic_noise(data: Path, kind: str) -> None:
    source = mixes(data, sample_rates=[16_000], **{kind: 1.0})
    recorded = mixes(data, sample_rates=[16_000])
    noises = [s.random_noise(8_000, 16_000, generator_for(0, 1)) for s in (source, recorded)]
    assert all(x.shape == (8_000,) and bool(torch.isfinite(x).all()) for x in noises)
    assert not torch.allclose(*noises, atol=1e-2)


def test_crackle_is_sparse(data: Path) -> None:
    quiet = {"snr_db": [60, 60], "sample_rates": [16_000], "seconds": 1.0}
    batch = mixes(data, crackle=1.0, **quiet).batch(8, generator_for(0, 2))
    added = (batch.noisy - batch.clean).square().sort(dim=-1, descending=True).values[:, 0]
    assert bool((added[:, : added.shape[1] // 5].sum(dim=1) > 0.8 * added.sum(dim=1)).all())


def test_a_dc_offset_is_in_the_noisy_signal_alone(data: Path) -> None:
    batch = mixes(data, dc_offset=1.0, seconds=1.0, sample_rates=[16_000]).batch(8, generator_for(0, 4))
    offsets = (batch.noisy - batch.clean).mean(dim=-1) / batch.noisy.abs().amax(dim=-1)
    assert float(offsets.abs().mean()) > 0.05
    assert float(batch.clean.mean(dim=-1).abs().max()) < 0.01


def test_drive_adds_harmonics_to_the_clean_signal(data: Path) -> None:
    """The dull recording ends at 4 kHz; saturated it has power above."""
    quiet = {
        "seconds": 1.0,
        "sample_rates": [48_000],
        "music": ["speech"],
        "music_fraction": 1.0,
        "level_db": [-20, -20],
    }
    plain, driven = (mixes(data, drive=p, **quiet).batch(6, generator_for(0, 5)).clean for p in (0.0, 1.0))
    power = torch.fft.rfft(driven * torch.hann_window(48_000)).abs().square()
    assert bool((power[..., 21_000:23_000].mean(dim=-1) > 1e-6 * power.mean(dim=-1)).all())
    assert torch.allclose(plain.square().mean(dim=-1), driven.square().mean(dim=-1), rtol=1e-3)


def test_effects_on_voices_belong_to_the_clean_signal(data: Path) -> None:
    plain, changed = (mixes(data, voice_effects=p, seconds=1.0).batch(4, generator_for(0, 6)) for p in (0.0, 1.0))
    assert plain.sample_rate == changed.sample_rate
    assert not torch.allclose(plain.clean, changed.clean, atol=1e-3)
    assert torch.allclose(plain.clean.square().mean(dim=-1), changed.clean.square().mean(dim=-1), rtol=1e-3)
    power, error = changed.clean.square().mean(dim=-1), (changed.noisy - changed.clean).square().mean(dim=-1)
    assert torch.allclose(10 * (power / error).log10(), torch.tensor(5.0), atol=0.1)
