"""Noise profiles: of a part of the recording or of another recording, whatever its sample rate."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from denoise.errors import ConfigError, InputError
from denoise.files.audio import RawFormat
from denoise.pipelines.arrays import denoise_audio
from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.noise_segment import parse_noise_source, read_noise
from denoise.pipelines.stream import AudioStream

RATE = 16_000


@pytest.fixture
def noisy() -> NDArray[np.float32]:
    """A second of hiss, then a tone in it; (1, time)."""
    t = np.arange(2 * RATE) / RATE
    tone = 0.2 * np.sin(2 * np.pi * 440 * t) * (t >= 1)
    return (tone + 0.01 * np.random.default_rng(0).standard_normal(len(t)))[None].astype(np.float32)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:00-0:02.5", (0.0, 2.5)),
        ("12-14.5", (12.0, 14.5)),
        ("1:02:03-1:02:05", (3723.0, 3725.0)),
        ("0:00 - 0:00.6", (0.0, 0.6)),
        (" 0:00 -0:02.5 ", (0.0, 2.5)),
        ("room.wav", Path("room.wav")),
        ("a-b.wav", Path("a-b.wav")),
    ],
)
def test_ranges_and_paths_are_told_apart(text: str, expected: object) -> None:
    assert parse_noise_source(text) == expected


def test_several_ranges_are_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0-0\.6,5-6: is no file of noise; a single part"):
        read_noise(tmp_path / "in.wav", parse_noise_source("0-0.6,5-6"))


def test_file_array_and_stream_take_the_same_profile(
    models: dict[str, Path], tmp_path: Path, noisy: NDArray[np.float32]
) -> None:
    soundfile.write(tmp_path / "in.wav", noisy.T, RATE, "FLOAT")
    soundfile.write(tmp_path / "noise.wav", noisy[:, :RATE].T, RATE, "FLOAT")
    pipeline = AudioPipeline(models["floor-audio"])
    outputs = []
    for i, source in enumerate([(0.0, 1.0), tmp_path / "noise.wav"]):
        pipeline.file(tmp_path / "in.wav", tmp_path / f"{i}.wav", noise_profile=source)
        outputs.append(soundfile.read(tmp_path / f"{i}.wav", dtype="float32", always_2d=True)[0].T)
        outputs.append(denoise_audio(noisy, RATE, model=models["floor-audio"], noise_profile=source))
    profile = pipeline.measure_noise(noisy[:, :RATE], RATE)
    stream = AudioStream(pipeline, sample_rate=RATE, noise_profile=profile)
    outputs.append(np.concatenate([stream.push(noisy), stream.flush()], axis=1))
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], atol=1e-4)
    estimated = denoise_audio(noisy, RATE, model=models["floor-audio"])
    assert not np.allclose(estimated, outputs[0], atol=1e-3)


def test_a_profile_does_not_depend_on_the_sample_rate(models: dict[str, Path]) -> None:
    """White noise in the band that both rates have: the same power at the same frequency."""
    import soxr

    pipeline = AudioPipeline(models["floor-audio"])
    x = 0.1 * np.random.default_rng(0).standard_normal((1, 60 * RATE))
    low = pipeline.measure_noise(x, RATE)[0]
    high = pipeline.measure_noise(soxr.resample(x[0], RATE, 48_000)[None], 48_000)[0]
    half = len(low) // 2
    np.testing.assert_allclose(high[:half], low[:half], rtol=0.2)
    level = float(low[1:half].mean())
    assert level == pytest.approx(0.1**2 / (0.016 * RATE), rel=0.05)


def test_an_interval_after_the_start_is_read(
    models: dict[str, Path], tmp_path: Path, noisy: NDArray[np.float32]
) -> None:
    late = np.concatenate([noisy[:, RATE:], noisy[:, :RATE]], axis=1)
    file = io.BytesIO()
    soundfile.write(file, late.T, RATE, "FLOAT", format="WAV")
    AudioPipeline(models["floor-audio"]).file(file, tmp_path / "out.wav", noise_profile=(1.0, 2.0))
    expected = denoise_audio(late, RATE, model=models["floor-audio"], noise_profile=(1.0, 2.0))
    output = soundfile.read(tmp_path / "out.wav", dtype="float32", always_2d=True)[0].T
    np.testing.assert_allclose(output, expected, atol=1e-4)


def test_raw_pcm_is_read_twice(models: dict[str, Path], tmp_path: Path, noisy: NDArray[np.float32]) -> None:
    raw, target = RawFormat(RATE, 1, "f32le"), io.BytesIO()
    pipeline = AudioPipeline(models["floor-audio"])
    data = noisy.astype("<f4").tobytes()
    pipeline.file(io.BytesIO(data), target, raw=raw, noise_profile=(0.0, 1.0))
    assert pipeline.bytes(data, raw=raw, noise_profile=(0.0, 1.0)) == target.getvalue()
    expected = denoise_audio(noisy, RATE, model=models["floor-audio"], noise_profile=(0.0, 1.0))
    np.testing.assert_allclose(np.frombuffer(target.getvalue(), "<f4"), expected[0], atol=1e-4)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="a pipe cannot be read twice"):
        pipeline.file(tmp_path / "pipe", target, raw=raw, noise_profile=(0.0, 1.0))


def test_separate_channels_have_profiles_of_their_own(
    models: dict[str, Path], tmp_path: Path, noisy: NDArray[np.float32]
) -> None:
    """Those of two microphones: each comes back as it does alone."""
    pipeline = AudioPipeline(models["floor-audio"])
    x = np.concatenate([noisy, noisy[:, ::-1] - 20 * np.diff(noisy, append=0)])
    soundfile.write(tmp_path / "in.wav", x.T, RATE, "FLOAT")
    pipeline.file(tmp_path / "in.wav", tmp_path / "out.wav", noise_profile=(0.0, 0.5), stereo="separate")
    output = soundfile.read(tmp_path / "out.wav", dtype="float32")[0].T
    alone = [denoise_audio(row, RATE, model=models["floor-audio"], noise_profile=(0.0, 0.5)) for row in x]
    np.testing.assert_allclose(output, np.stack(alone), atol=1e-4)
    linked = pipeline.measure_noise(x[:, : RATE // 2], RATE).mean(axis=0, keepdims=True)
    profiles: Any = (linked, torch.from_numpy(linked))
    streams = [AudioStream(pipeline, sample_rate=RATE, channels=2, noise_profile=p) for p in profiles]
    for stream in streams:
        expected = denoise_audio(x, RATE, model=models["floor-audio"], noise_profile=(0.0, 0.5), stereo="linked")
        np.testing.assert_allclose(np.concatenate([stream.push(x), stream.flush()], axis=1), expected, atol=1e-4)


def test_unusable_profiles_are_refused(models: dict[str, Path], tmp_path: Path, noisy: NDArray[np.float32]) -> None:
    floor = models["floor-audio"]
    with pytest.raises(ConfigError, match="takes no noise profile; use general"):
        denoise_audio(noisy, RATE, model=models["causal-audio"], noise_profile=(0.0, 1.0))
    with pytest.raises(ConfigError, match="start before the end"):
        denoise_audio(noisy, RATE, model=floor, noise_profile=(1.0, 0.5))
    with pytest.raises(InputError, match=r"lasts 2\.0 s"):
        denoise_audio(noisy, RATE, model=floor, noise_profile=(1.0, 3.0))
    with pytest.raises(InputError, match=r"at least 0\.1 s"):
        denoise_audio(noisy, RATE, model=floor, noise_profile=(0.0, 0.05))
    for silence in (0 * noisy, 0 * noisy + np.float32(0.25)):
        with pytest.raises(InputError, match="silent"):
            denoise_audio(silence, RATE, model=floor, noise_profile=(0.0, 1.0))
    soundfile.write(tmp_path / "in.wav", noisy.T, RATE)
    soundfile.write(tmp_path / "silent.wav", 0 * noisy.T, RATE)
    for profile, message in (
        ((0.0, 0.05), r"in\.wav: the noise lasts 0\.05 s; expected at least 0\.1 s\."),
        (tmp_path / "silent.wav", r"silent\.wav: the noise is silent"),
        (
            "0:00-0:02,5",
            r"0:00-0:02,5: is no file of noise; .* given as 0:00-0:02\.5 on the command line, \(0, 2\.5\) in Python\.",
        ),
    ):
        with pytest.raises(InputError, match=message):
            AudioPipeline(floor).file(tmp_path / "in.wav", tmp_path / "out.wav", noise_profile=profile)
    for noise, message in (
        (noisy[0], r"float32 of shape \(32000,\)"),
        (np.int16(9000 * noisy), r"int16 of shape"),
        (np.nan * noisy, r"sample 0 of channel 0 is nan"),
    ):
        with pytest.raises(InputError, match=message):
            AudioPipeline(floor).measure_noise(noise, RATE)
    with pytest.raises(InputError, match=r"in\.wav: lasts 2\.0 s"):
        AudioPipeline(floor).file(tmp_path / "in.wav", tmp_path / "out.wav", noise_profile=(5.0, 6.0))
    with pytest.raises(InputError, match=r"none\.wav"):
        AudioPipeline(floor).file(tmp_path / "in.wav", tmp_path / "out.wav", noise_profile=tmp_path / "none.wav")
    with pytest.raises(ConfigError, match="takes no noise profile"):
        AudioStream(models["causal-audio"], sample_rate=RATE, noise_profile=torch.ones(1, 192))
    with pytest.raises(ConfigError, match=r"has shape \(1, 5\); expected \(1, 192\)"):
        AudioStream(floor, sample_rate=RATE, noise_profile=torch.ones(1, 5))
    with pytest.raises(ConfigError, match="model mask-audio takes no noise profile"):
        AudioPipeline(models["mask-audio"]).stream([noisy], RATE, noise_profile=torch.ones(1, 192))
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("channels", [1, 2])
def test_tones_of_the_noise_leave_whatever_the_network_takes_them_for(tmp_path: Path, channels: int) -> None:
    rate, t = 16_000, np.arange(10 * 16_000) / 16_000
    rng = np.random.default_rng(0)
    note = 0.2 * np.sin(2 * np.pi * 523.3 * t) * np.exp(-(t % 0.8) / 0.3) * (t > 3)
    tone, hiss = 0.05 * np.sin(2 * np.pi * 1234.5 * t), 1e-3 * rng.standard_normal((channels, len(t)))
    noisy = (note + tone + hiss).astype(np.float32)
    arrays = [denoise_audio(noisy, rate, noise_profile=(0.0, 3.0))]
    noise_file = tmp_path / "noise.wav"
    two_channels = np.stack([hiss[0], (tone + hiss)[-1]], axis=1)[: 3 * rate]  # the tone is in the second alone
    soundfile.write(noise_file, two_channels if channels == 1 else two_channels[:, 1], rate, subtype="FLOAT")
    arrays.append(denoise_audio(noisy, rate, noise_profile=noise_file))
    wave = np.exp(-2j * np.pi * 1234.5 * t[rate:])
    for denoised in arrays:
        for before, after in zip(noisy, denoised, strict=True):
            assert abs(after[rate:] @ wave) < 0.03 * abs(before[rate:] @ wave)
        assert np.square(denoised - note).mean() < 0.05 * np.square(tone).mean()
