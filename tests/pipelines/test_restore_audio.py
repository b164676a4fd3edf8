"""Restoration of recordings: consistency with what was recorded, joints of windows, files and bad input."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from denoise import AudioRestoreOptions, AudioRestorePipeline
from denoise.errors import ConfigError, InputError
from denoise.pipelines import restore_audio
from denoise.sampling import linear_prediction
from denoise.sampling.operators import Mask

RATE = 16_000
Array = NDArray[Any]


def voice(seconds: float, rate: int = RATE, channels: int = 1) -> Array:
    """A harmonic tone whose pitch glides, with syllables; channels differ."""
    t = np.arange(round(seconds * rate)) / rate
    rows = []
    for channel in range(channels):
        phase = 2 * np.pi * ((230 + 40 * channel) * t + np.sin(2 * t))
        tone = sum(np.sin(k * phase + 0.4 * k**2) / k for k in range(1, 12))
        rows.append(0.1 * tone * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t)))
    return np.stack(rows).astype(np.float32)


def snr_db(x: Array, clean: Array) -> float:
    return float(10 * np.log10(np.square(clean).sum() / np.square(x - clean).sum()))


@pytest.fixture(scope="module")
def classical() -> AudioRestorePipeline:
    return AudioRestorePipeline()


@pytest.fixture(scope="module")
def prior() -> AudioRestorePipeline:
    return AudioRestorePipeline("speech-prior", device="cpu")


def test_declipping_keeps_what_was_not_clipped_and_only_raises_the_rest(classical: AudioRestorePipeline) -> None:
    clean = voice(1.5, channels=2)
    limits = np.array([[0.08], [np.inf]])  # the second channel is not clipped
    clipped = clean.clip(-limits, limits).astype(np.float32)
    result = classical.array(clipped, RATE, AudioRestoreOptions(task="declip"))
    is_clipped = np.abs(clipped) >= 0.999 * limits
    assert result.dtype == clipped.dtype
    np.testing.assert_array_equal(result[~is_clipped], clipped[~is_clipped])
    assert (np.abs(result[is_clipped]) >= 0.999 * 0.08).all()
    assert (result[is_clipped] * clipped[is_clipped] > 0).all()
    assert snr_db(result[0], clean[0]) > snr_db(clipped[0], clean[0]) + 3
    told = classical.array(clipped[:1], RATE, AudioRestoreOptions(task="declip", limit=0.08))
    np.testing.assert_array_equal(told, result[:1])


def test_the_level_of_clipping_is_that_of_the_recording(
    classical: AudioRestorePipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(restore_audio, "BLOCK_S", 1.0)
    clean = voice(6.0)
    quiet, loud = 0.5 * clean[:, : 3 * RATE].clip(-0.1, 0.1), clean[:, 3 * RATE :].clip(-0.09, 0.09)
    recording = np.concatenate([quiet, loud], axis=1)  # the quiet part looks clipped at 0.05 beside no other
    result = classical.array(recording, RATE, AudioRestoreOptions(task="declip"))
    np.testing.assert_allclose(result[:, : 3 * RATE], quiet, atol=1e-7)
    assert snr_db(result[:, 3 * RATE :], clean[:, 3 * RATE :]) > snr_db(loud, clean[:, 3 * RATE :]) + 3
    soundfile.write(tmp_path / "in.wav", recording.T, RATE, subtype="FLOAT")
    classical.file(tmp_path / "in.wav", tmp_path / "out.wav", AudioRestoreOptions(task="declip"))
    np.testing.assert_array_equal(soundfile.read(tmp_path / "out.wav", dtype="float32")[0], result[0])


def test_the_band_is_that_of_the_recording(prior: AudioRestorePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_audio, "BLOCK_S", 2.0)
    clean, rng = voice(12.0), np.random.default_rng(0)
    clean[:, 8 * RATE :] += 0.01 * rng.standard_normal(4 * RATE).astype(np.float32)  # only the end has a full band
    with pytest.raises(InputError, match="the band does not end"):
        prior.array(clean, RATE, AudioRestoreOptions(task="extend", steps=2))


def test_what_lasts_long_is_filled_by_a_longer_model(
    classical: AudioRestorePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, t = np.random.default_rng(0), np.arange(RATE) / RATE
    chord = sum(np.sin(2 * np.pi * (220 + 41.3 * k) * t + k**2) for k in range(30)) / 60
    clean = chord[None] + 0.001 * rng.standard_normal((1, RATE))
    gap = slice(RATE // 2, RATE // 2 + RATE // 50)
    damaged = clean.copy()
    damaged[:, gap] = 0

    def fill() -> float:
        result = classical.array(damaged, RATE, AudioRestoreOptions(task="inpaint", gaps=((0.5, 0.52),)))
        return snr_db(result[:, gap], clean[:, gap])

    chosen = fill()
    monkeypatch.setattr(linear_prediction, "MODELS_S", linear_prediction.MODELS_S[:1])
    assert chosen > fill() + 3


@pytest.mark.parametrize("gaps", ["found", "ranges", "mask"])
def test_gaps_are_filled_and_nothing_else_changes(classical: AudioRestorePipeline, gaps: str, tmp_path: Path) -> None:
    clean = voice(1.2)
    missing = np.zeros(clean.shape[1], bool)
    missing[8000:8160] = missing[12000:12320] = True
    damaged = np.where(missing, 0, clean)
    options: dict[str, Any] = {"found": None, "ranges": ((0.5, 0.51), (0.75, 0.77)), "mask": tmp_path / "mask.wav"}
    soundfile.write(tmp_path / "mask.wav", missing.astype(np.float32), RATE)
    result = classical.array(damaged, RATE, AudioRestoreOptions(task="inpaint", gaps=options[gaps]))
    np.testing.assert_array_equal(result[:, ~missing], clean[:, ~missing])
    assert snr_db(result[:, missing], clean[:, missing]) > 8


def test_clicks_are_found_and_removed_but_voices_are_none(classical: AudioRestorePipeline) -> None:
    clean = voice(1.2)
    damaged = clean.copy()
    damaged[0, [5000, 9000, 14_000]] += [0.5, -0.4, 0.6]
    result = classical.array(damaged, RATE, AudioRestoreOptions(task="inpaint"))
    assert (result != damaged).sum() < 150
    assert snr_db(result, clean) > snr_db(damaged, clean) + 15
    with pytest.raises(InputError, match="no gap and no click"):
        classical.array(clean, RATE, AudioRestoreOptions(task="inpaint"))


@pytest.mark.parametrize("decay", [60, 200, 800])
def test_onsets_of_sounds_that_decay_are_no_clicks(decay: int, classical: AudioRestorePipeline) -> None:
    rate, rng = 48_000, np.random.default_rng(0)
    t = np.arange(rate)
    x = 1e-3 * rng.standard_normal(len(t)) + 0.05 * np.sin(2 * np.pi * 220 * t / rate)
    tick = 0.6 * np.sin(2 * np.pi * 1500 * t / rate) * np.exp(-t / decay)
    for start in range(2000, len(x) - 5000, 9600):
        x[start:] += tick[: len(x) - start]
    with pytest.raises(InputError, match="no gap and no click"):
        classical.array(x[None], rate, AudioRestoreOptions(task="inpaint"))


@pytest.mark.parametrize("distance", [96, 144, 200])
@pytest.mark.parametrize("silent", [0, 23_990])
def test_clicks_near_each_other_or_near_silence_are_no_onsets(
    distance: int, silent: int, classical: AudioRestorePipeline
) -> None:
    clean = 0.01 * gaussian_filter1d(np.random.default_rng(0).standard_normal(48_000), 1.0)
    clean[:silent] = 0
    damaged = clean.copy()
    damaged[[24_000, 24_000 + distance]] += [0.8, -0.8]
    result = classical.array(damaged[None], 48_000, AudioRestoreOptions(task="inpaint"))
    assert np.abs(result - clean).max() < 0.1


def test_what_was_replaced_is_stated(
    classical: AudioRestorePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_audio, "BLOCK_S", 1.0)  # windows overlap at gaps
    x = voice(3.5, channels=2)
    for start in range(4000, 50_000, 7000):
        x[:, start : start + 200] = 0
    soundfile.write(tmp_path / "a.wav", x.T, RATE, subtype="FLOAT")
    result = classical.file(tmp_path / "a.wav", tmp_path / "b.wav", AudioRestoreOptions(task="inpaint"))
    assert "gaps and clicks were found and replaced: 7, of 87.5 ms in total" in result.warnings[0]
    told = AudioRestoreOptions(task="inpaint", gaps=[(0.25, 0.2625)])
    assert not classical.file(tmp_path / "a.wav", tmp_path / "c.wav", told).warnings


@pytest.mark.parametrize("task", ["declip", "inpaint"])
def test_windows_join_without_a_trace(
    classical: AudioRestorePipeline, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = voice(3.5)
    options = AudioRestoreOptions(task=task, limit=0.09) if task == "declip" else AudioRestoreOptions(task=task)
    damaged = clean.clip(-0.09, 0.09) if task == "declip" else clean.copy()
    if task == "inpaint":
        for start in range(4000, 50_000, 7000):
            damaged[:, start : start + 200] = 0
    whole = classical.array(damaged, RATE, options)
    monkeypatch.setattr(restore_audio, "BLOCK_S", 1.0)
    np.testing.assert_allclose(classical.array(damaged, RATE, options), whole, atol=1e-5)


def test_the_prior_denoises_and_its_windows_join(prior: AudioRestorePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = voice(5.0)
    noisy = clean + 0.03 * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    options = AudioRestoreOptions(sigma=0.03)
    whole = prior.array(noisy, RATE, options)
    assert snr_db(whole, clean) > snr_db(noisy, clean) + 5
    monkeypatch.setattr(restore_audio, "BLOCK_S", 2.0)
    parts = prior.array(noisy, RATE, options)
    assert snr_db(parts, whole) > 20


@pytest.mark.parametrize("rate", [8000, 12_000, 24_000])
def test_white_noise_of_a_given_level_is_removed_at_any_rate(prior: AudioRestorePipeline, rate: int) -> None:
    clean = voice(2.0, rate)
    noise = 0.03 * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    alone = prior.array(noise, rate, AudioRestoreOptions(sigma=0.03))
    assert snr_db(noise - alone, noise) > 25  # what is left of noise without a voice
    by_sigma = [
        snr_db(prior.array(clean + noise, rate, AudioRestoreOptions(sigma=sigma)), clean)
        for sigma in (0.03 / 2**0.5, 0.03, 0.03 * 2**0.5)
    ]
    assert by_sigma[1] == max(by_sigma) > snr_db(clean + noise, clean) + 8


def test_samples_of_a_section_are_those_of_the_whole(prior: AudioRestorePipeline) -> None:
    windows = prior.prior
    assert windows is not None
    x = 0.3 * torch.randn(1, 1, 3 * windows.hop, generator=torch.Generator().manual_seed(0)) * windows.level
    mask = torch.ones_like(x)
    mask[..., 2 * windows.hop + 4000 : 2 * windows.hop + 4200] = 0
    settings: dict[str, Any] = {"sigma": 1.0, "sigma_y": 1e-4, "steps": 2}

    def sample(first: int, seed: int) -> torch.Tensor:
        y, observed = x[..., first:], mask[..., first:]
        return windows.sample(y, y * observed, Mask(observed), seed=seed, at=first, **settings)[mask[..., first:] == 0]

    whole = sample(0, 1)
    torch.testing.assert_close(sample(windows.hop, 1), whole, atol=0.02 * windows.level, rtol=0.05)
    assert (sample(0, 2) - whole).abs().max() > 0.1 * whole.abs().max()


def test_extension_keeps_the_band_and_raises_the_rate(prior: AudioRestorePipeline) -> None:
    narrow = voice(2.1, rate=8000)
    wide = prior.array(narrow, 8000, AudioRestoreOptions(task="extend", band=3600, steps=10))
    assert wide.shape == (1, 2 * narrow.shape[1])
    spectrum = np.abs(np.fft.rfft(wide[0])) ** 2
    frequency = np.fft.rfftfreq(wide.shape[1], 1 / RATE)
    assert spectrum[frequency > 4200].sum() > 5e-5 * spectrum.sum()
    import soxr

    plain = soxr.resample(narrow[0], 8000, RATE)
    below = frequency < 3300
    np.testing.assert_allclose(
        np.fft.rfft(wide[0])[below], np.fft.rfft(plain)[below], atol=0.02 * np.sqrt(spectrum.max())
    )


def test_markers_are_dropped_at_another_rate(prior: AudioRestorePipeline, tmp_path: Path) -> None:
    pcm = (8000 * voice(1.1, rate=8000)[0]).astype("<i2").tobytes()
    chunks = [
        (b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16_000, 2, 16)),
        (b"data", pcm),
        (b"cue ", struct.pack("<III4sIII", 1, 1, 400, b"data", 0, 0, 400)),
        (b"LIST", b"adtl" + b"labl" + struct.pack("<II", 6, 1) + b"A\0"),
        (b"smpl", struct.pack("<9I6I", 0, 0, 125_000, 60, 0, 0, 0, 1, 0, 0, 0, 100, 3000, 0, 0)),
        (b"iXML", b"<BWFXML/>x"),
    ]
    body = b"WAVE" + b"".join(name + struct.pack("<I", len(each)) + each for name, each in chunks)
    data = b"RIFF" + struct.pack("<I", len(body)) + body
    options = AudioRestoreOptions(task="extend", band=3600, steps=2)
    (tmp_path / "in.wav").write_bytes(data)
    for source in (tmp_path / "in.wav", Pipe(data)):
        result = prior.file(source, tmp_path / "out.wav", replace(options, overwrite=True), name="in.wav")
        assert "in.wav: places are not kept at 16000 Hz; without cue, LIST-adtl, smpl." in result.warnings
        written = (tmp_path / "out.wav").read_bytes()
        assert b"<BWFXML/>x" in written
        assert not any(name in written for name in (b"cue ", b"adtl", b"smpl"))


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


def test_files_keep_their_format(classical: AudioRestorePipeline, tmp_path: Path) -> None:
    clean = voice(1.0, rate=44_100, channels=2)
    soundfile.write(tmp_path / "in.flac", clean.clip(-0.1, 0.1).T, 44_100, subtype="PCM_24")
    result = classical.file(tmp_path / "in.flac", tmp_path / "out.flac", AudioRestoreOptions(task="declip"))
    before, after = soundfile.info(tmp_path / "in.flac"), soundfile.info(tmp_path / "out.flac")
    fields = ("samplerate", "channels", "frames", "format", "subtype")
    assert [getattr(after, name) for name in fields] == [getattr(before, name) for name in fields]
    assert result.output.endswith("out.flac")


def test_several_samples_are_written_with_mean_and_deviation(prior: AudioRestorePipeline, tmp_path: Path) -> None:
    x = voice(1.2)
    x[0, 8000:8200] = 0
    soundfile.write(tmp_path / "in.wav", x.T, RATE, subtype="FLOAT")
    result = prior.file(
        tmp_path / "in.wav", tmp_path / "out.wav", AudioRestoreOptions(task="inpaint", samples=2, steps=2)
    )
    first, second, mean, std = (soundfile.read(path)[0] for path in result.files)
    np.testing.assert_allclose(mean, (first + second) / 2, atol=1e-6)
    np.testing.assert_allclose(std, np.abs(first - second) / 2**0.5, atol=1e-6)
    assert std[8000:8200].any()
    assert not std[:8000].any()


def test_long_recordings_are_not_held_in_memory(
    classical: AudioRestorePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_audio, "BLOCK_S", 1.0)
    block = voice(1.0).clip(-0.09, 0.09)
    n_read = n_done = ahead = 0

    def blocks() -> Iterator[Array]:
        nonlocal n_read
        for _ in range(12):
            n_read += block.shape[1]
            yield block

    options = AudioRestoreOptions(task="inpaint", gaps=((0.5, 0.51),))
    for restored in classical._blocks(blocks(), RATE, 1, classical._task(RATE, options, "pipe")):
        n_done += restored.shape[1]
        ahead = max(ahead, n_read - n_done)
    assert n_done == 12 * RATE
    assert ahead < 5 * RATE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "denoise"}, "the task denoise needs a prior"),
        ({"task": "extend"}, "the task extend needs a prior"),
        ({"task": "declip", "samples": 2}, "samples need a prior"),
        ({"task": "declip"}, "no samples are clipped"),
        ({"task": "declip", "limit": 0.9}, "no samples are above the limit"),
        ({"task": "declip", "limit": 0.0001}, "100 % of the samples are clipped"),
        ({"task": "inpaint", "gaps": ((0.1, 0.4),)}, "a gap lasts 300 ms; expected at most 100 ms"),
        ({"task": "inpaint", "gaps": ((0.9, 1.2),)}, "the recording lasts 1 s; a gap ends at 1.2 s"),
        ({"task": "inpaint", "gaps": "short.wav"}, "expected a mask of the same length"),
        ({"task": "inpaint", "gaps": "long.wav"}, "is longer than the recording"),
        ({"task": "inpaint", "gaps": "none.wav"}, "cannot be opened"),
        ({"task": "inpaint", "gaps": "stereo.wav"}, "array: 1 channels, 16000 Hz; the mask stereo.wav has 2, 16000 Hz"),
        ({"task": "inpaint", "gaps": "slow.wav"}, "array: 1 channels, 16000 Hz; the mask slow.wav has 1, 8000 Hz"),
        ({"task": "inpaint", "gaps": ()}, "gaps is empty"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    classical: AudioRestorePipeline,
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, n in (("short.wav", 1000), ("long.wav", 20_000), ("slow.wav", RATE)):
        soundfile.write(name, np.zeros(n), 8000 if name == "slow.wav" else RATE)
    soundfile.write("stereo.wav", np.zeros((RATE, 2)), RATE)
    x = voice(1.0) + 0.001
    with pytest.raises((ConfigError, InputError), match=re.escape(message)) as error:
        classical.array(x, RATE, AudioRestoreOptions(**options))
    assert "\n" not in str(error.value)


def test_recordings_that_are_empty_or_not_finite_leave_no_file(classical: AudioRestorePipeline, tmp_path: Path) -> None:
    options = AudioRestoreOptions(task="declip")
    for name, x, message in (
        ("empty", np.zeros(0), "no samples"),
        ("nan", np.full(10, np.nan), "sample 0 of channel 0 is nan"),
    ):
        soundfile.write(tmp_path / f"{name}.wav", x, RATE, subtype="FLOAT")
        with pytest.raises(InputError, match=message):
            classical.file(tmp_path / f"{name}.wav", tmp_path / "out.wav", options)
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist-diffusion", "mnist-diffusion is a prior for image; expected a prior for audio"),
        ("speech", "speech is a denoiser for audio; expected a prior for audio"),
        ("digits-audio", "prior digits-audio is no denoiser of mono waveforms"),
        ("nothing", "'nothing' is unknown"),
    ],
)
def test_other_priors_are_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        AudioRestorePipeline(name)


@pytest.mark.parametrize(("name", "is_lowered"), [("out.flac", True), ("out.wav", False)])
def test_floats_are_lowered_where_the_target_holds_integers(
    name: str, is_lowered: bool, classical: AudioRestorePipeline, tmp_path: Path
) -> None:
    clean = 8 * voice(1.5)
    soundfile.write(tmp_path / "in.wav", clean.clip(-1, 1).T, RATE, subtype="FLOAT")
    result = classical.file(tmp_path / "in.wav", tmp_path / name, AudioRestoreOptions(task="declip"))
    assert ["lowered by 6 dB" in warning for warning in result.warnings] == [True] * is_lowered
    restored = soundfile.read(tmp_path / name)[0] * 10 ** (6 / 20 * is_lowered)
    assert snr_db(restored, clean[0]) > snr_db(clean[0].clip(-1, 1), clean[0]) + 3


def test_one_channel_needs_no_axis(classical: AudioRestorePipeline) -> None:
    clipped, options = voice(0.5).clip(-0.08, 0.08), AudioRestoreOptions(task="declip")
    np.testing.assert_array_equal(
        classical.array(clipped[0], RATE, options), classical.array(clipped, RATE, options)[0]
    )


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (voice(0.5), "48000", r"sample rate is '48000'; expected a whole number"),
        (voice(0.5), 44100.5, r"sample rate is 44100\.5; expected a whole number"),
        (voice(0.5).T, RATE, r"samples have shape \(8000, 1\); expected \(time,\), or \(channels, time\)"),
        (voice(0.5)[:, :0], RATE, r"samples have shape \(1, 0\)"),
        (np.zeros((1, 1, 9)), RATE, r"samples have shape \(1, 1, 9\)"),
        (np.zeros((1, 900), np.int16), RATE, r"samples are int16; expected float32 or float64"),
    ],
)
def test_wrong_arrays_are_refused(classical: AudioRestorePipeline, samples: Array, rate: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        classical.array(samples, rate, AudioRestoreOptions(task="declip"))
