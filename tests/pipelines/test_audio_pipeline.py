"""Laws of the audio pipeline with any model: alignment, length, level, channels, and independence of the blocks."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from denoise.errors import ConfigError, InputError
from denoise.files.audio import RawFormat
from denoise.pipelines import AudioPipeline, ImagePipeline, load
from denoise.pipelines.arrays import denoise_audio

Models = dict[str, Path]
RATES = [8_000, 11_025, 16_000, 22_050, 44_100, 44_101, 48_000, 96_000, 192_000]


def bursts(n: int, rate: int, channels: int = 1) -> NDArray[Any]:
    """White noise whose level alternates between high and low."""
    noise = np.random.default_rng(0).normal(0, 0.2, (channels, n))
    is_high = np.sin(2 * np.pi * 1.7 * np.arange(n) / rate) > 0
    return (noise * np.where(is_high, 1.0, 0.05)).astype(np.float32)


def tones(n: int, rate: int, channels: int) -> NDArray[Any]:
    """One chord per channel, below the Nyquist frequency of all `RATES`, silent at both ends."""
    t = np.arange(n) / rate
    rows = [sum(np.sin(2 * np.pi * f * (1 + 0.1 * c) * t) for f in (220, 997, 1800)) for c in range(channels)]
    return (0.2 * np.array(rows) * np.hanning(n)).astype(np.float32)


def run(pipeline: AudioPipeline, x: NDArray[Any], rate: int, chunk: int = 5000, **options: Any) -> NDArray[Any]:
    chunks = (x[:, i : i + chunk] for i in range(0, x.shape[1], chunk))
    return np.concatenate([*pipeline.stream(chunks, rate, **options)], axis=1)


class TestWarnings:
    def test_little_is_left(self, models: Models) -> None:
        def warnings(model: str, **options: Any) -> tuple[str, ...]:
            pipeline = AudioPipeline(models[model])
            return pipeline.file(io.BytesIO(wav), io.BytesIO(), **options).warnings

        wav = to_wav(tones(16_000, 16_000, 1), 16_000)
        assert len(warnings("mute-audio")) == 1
        assert "nothing is left. If that was more than noise" in warnings("mute-audio")[0]
        assert "the level fell by 26 dB" in warnings("mute-audio", strength=0.95)[0]
        assert not warnings("mute-audio", strength=0.85)  # 16 dB
        assert not warnings("keep-audio")

    @pytest.mark.parametrize("n", [1, 10, 799])
    def test_too_short(self, models: Models, n: int) -> None:
        out, x = io.BytesIO(), bursts(n, 8_000)
        result = AudioPipeline(models["mute-audio"]).file(io.BytesIO(to_wav(x, 8_000)), out)
        assert result.warnings == (f"stream: {n / 8:.3g} ms are too short to tell noise from sound: left unchanged.",)
        np.testing.assert_array_equal(soundfile.read(io.BytesIO(out.getvalue()), dtype="float32")[0], x[0])
        array = denoise_audio(x, 8_000, model=models["mute-audio"])
        np.testing.assert_array_equal(array, x)
        assert not np.shares_memory(array, x)
        assert not denoise_audio(bursts(800, 8_000), 8_000, model=models["mute-audio"]).any()


def to_wav(x: NDArray[Any], rate: int) -> bytes:
    """A WAV file of floats."""
    file = io.BytesIO()
    soundfile.write(file, x.T, rate, "FLOAT", format="WAV")
    return file.getvalue()


class TestAlignment:
    @pytest.mark.parametrize("rate", RATES)
    def test_identity_model_returns_its_input(self, models: Models, rate: int) -> None:
        """No delay, no missing end and no change of level at any rate, in several windows."""
        n = round(1.3 * rate) + 7
        x = tones(n, rate, 2)
        y = run(AudioPipeline(models["keep-audio"], block=0.1), x, rate)
        assert y.shape == x.shape
        np.testing.assert_allclose(y, x, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
    def test_identity_model_keeps_the_band_above_its_own(self, models: Models, rate: int) -> None:
        x = bursts(rate, rate)
        y = run(AudioPipeline(models["keep-audio"], block=0.3), x, rate)
        np.testing.assert_allclose(y, x, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("rate", [16_000, 48_000])
    def test_band_above_that_of_the_model_is_attenuated_alike(self, models: Models, rate: int) -> None:
        y = run(AudioPipeline(models["mute-audio"], block=0.3), bursts(rate, rate), rate)
        assert np.abs(y).max() < 1e-6

    @pytest.mark.parametrize("n", [1, 2, 255, 511, 512, 3001])
    @pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
    @pytest.mark.parametrize("model", ["keep-audio", "mask-audio", "swap-audio"])
    def test_short_recordings(self, models: Models, model: str, rate: int, n: int) -> None:
        y = run(AudioPipeline(models[model]), np.full((1, n), 0.25, np.float32), rate)
        assert y.shape == (1, n)
        assert np.isfinite(y).all()

    @pytest.mark.parametrize("chunk", [1, 7, 100_000])
    def test_chunks_of_any_length(self, models: Models, chunk: int) -> None:
        x = bursts(3000, 16_000)
        pipeline = AudioPipeline(models["mask-audio"])
        np.testing.assert_array_equal(run(pipeline, x, 16_000, chunk), run(pipeline, x, 16_000))


class TestBlocks:
    @pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
    def test_output_does_not_depend_on_the_block_length(self, models: Models, rate: int) -> None:
        n = round(7.3 * rate)
        x = bursts(n, rate, 2)
        whole = run(AudioPipeline(models["mask-audio"], block=100), x, rate)
        assert np.abs(whole - x).max() > 0.05  # the model changes the signal
        for block in (1.0, 3.3):
            y = run(AudioPipeline(models["mask-audio"], block=block), x, rate)
            np.testing.assert_allclose(y, whole, rtol=0, atol=1e-4)

    def test_silence_stays_silent(self, models: Models) -> None:
        for rate in (16_000, 48_000):
            assert not run(AudioPipeline(models["mask-audio"], block=0.5), np.zeros((2, rate), np.float32), rate).any()

    def test_memory_does_not_grow_with_the_recording(self, models: Models) -> None:
        """In another process, because tracemalloc does not see the memory of torch."""
        program = """
import resource, sys
import numpy as np
from denoise.pipelines.audio import AudioPipeline
second = np.full((1, 48_000), 0.1, np.float32)
n_read = n_written = max_buffered = 0
def chunks():
    global n_read
    for _ in range(int(sys.argv[2])):
        n_read += 48_000
        yield second
for out in AudioPipeline(sys.argv[1], block=2).stream(chunks(), 48_000):
    n_written += out.shape[1]
    max_buffered = max(max_buffered, n_read - n_written)
print(n_written, max_buffered, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
        peaks = []
        for seconds in (20, 420):
            command = [sys.executable, "-c", program, str(models["keep-audio"]), str(seconds)]
            process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
            n_written, max_buffered, peak = map(int, process.stdout.split())
            assert n_written == 48_000 * seconds
            assert max_buffered < 6 * 48_000
            peaks.append(peak)
        assert peaks[1] - peaks[0] < 40_000  # KiB; 400 seconds are 75,000


class TestChunks:
    @pytest.mark.parametrize(
        ("bad", "reason"),
        [
            (np.zeros(100, np.float32), "shape"),
            (np.zeros((3, 100), np.float32), r"expected \(2, time\)"),
            (np.zeros((2, 100), np.int16), "int16"),
            (np.full((2, 100), np.nan, np.float32), "finite"),
        ],
    )
    def test_invalid_chunks_are_refused(self, models: Models, bad: NDArray[Any], reason: str) -> None:
        chunks = [np.zeros((2, 5000), np.float32), bad]
        with pytest.raises(InputError, match=reason):
            [*AudioPipeline(models["keep-audio"]).stream(chunks, 16_000)]


class TestChannels:
    @pytest.mark.parametrize("channels", [1, 3, 8])
    def test_channels_are_independent(self, models: Models, channels: int) -> None:
        x = bursts(6000, 16_000, channels)
        pipeline = AudioPipeline(models["mask-audio"])
        together = run(pipeline, x, 16_000)
        for c in range(channels):
            np.testing.assert_allclose(together[c], run(pipeline, x[c : c + 1], 16_000)[0], rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        ("channels", "order"), [(1, [0]), (2, [1, 0]), (3, [1, 0, 2]), (4, [1, 0, 3, 2]), (5, [1, 0, 3, 2, 4])]
    )
    def test_stereo_model_takes_channels_in_pairs(self, models: Models, channels: int, order: list[int]) -> None:
        x = tones(4000, 16_000, channels)
        y = run(AudioPipeline(models["swap-audio"]), x, 16_000)
        np.testing.assert_allclose(y, x[order], rtol=0, atol=1e-6)


class TestStrength:
    @pytest.mark.parametrize("options", [{"strength": 0.0}, {"attenuation_limit": 0.0}])
    def test_what_is_unchanged_does_not_share_the_memory_of_the_caller(
        self, models: Models, options: dict[str, float]
    ) -> None:
        x = bursts(9_000, 16_000)

        def read() -> Iterator[NDArray[Any]]:
            buffer = np.empty((1, 3_000), np.float32)
            for start in range(0, x.shape[1], 3_000):
                buffer[:] = x[:, start : start + 3_000]
                yield buffer

        blocks = [*AudioPipeline(models["mute-audio"]).stream(read(), 16_000, **options)]  # type: ignore[arg-type]
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), x)

    @pytest.mark.parametrize(
        ("subtype", "dtype"),
        [("PCM_U8", "int16"), ("PCM_16", "int16"), ("PCM_24", "int32"), ("PCM_32", "int32"), ("DOUBLE", "float64")],
    )
    def test_zero_keeps_the_samples_of_a_file(self, models: Models, subtype: str, dtype: str, tmp_path: Path) -> None:
        x = np.random.default_rng(0).uniform(-1, 1, (30_000, 3))
        soundfile.write(tmp_path / "a.wav", x, 44_100, subtype)
        AudioPipeline(models["mute-audio"]).file(tmp_path / "a.wav", tmp_path / "b.wav", strength=0)
        before, after = (soundfile.read(tmp_path / f"{name}.wav", dtype=dtype)[0] for name in "ab")
        assert (before == after).all()

    @pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float16, np.float32, np.float64])
    def test_zero_keeps_an_array(self, models: Models, dtype: Any) -> None:
        x = (np.random.default_rng(0).uniform(-1, 1, (2, 900)) * (1 if np.dtype(dtype).kind == "f" else 30_000)).astype(
            dtype
        )
        y = denoise_audio(x, 48_000, model=models["mute-audio"], strength=0)
        assert y.dtype == dtype
        assert (y == x).all()
        assert y is not x

    @pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
    def test_half_is_the_mean_of_input_and_output(self, models: Models, rate: int) -> None:
        x = bursts(rate, rate)
        y = run(AudioPipeline(models["mute-audio"]), x, rate, strength=0.5)
        np.testing.assert_allclose(2 * y, x, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("strength", [-0.01, 1.01, float("nan")])
    def test_out_of_range_is_refused(self, models: Models, strength: float, tmp_path: Path) -> None:
        pipeline = AudioPipeline(models["keep-audio"])
        x = np.zeros((1, 100), np.float32)
        with pytest.raises(ConfigError, match="strength is"):
            denoise_audio(x, 16_000, model=models["keep-audio"], strength=strength)
        with pytest.raises(ConfigError, match="strength is"):
            run(pipeline, x, 16_000, strength=strength)
        with pytest.raises(ConfigError, match="strength is"):
            pipeline.file("missing.wav", tmp_path / "a.wav", strength=strength)


class TestFiles:
    def test_result_of_a_file(self, models: Models, tmp_path: Path) -> None:
        x = bursts(40_000, 16_000, 2)
        soundfile.write(tmp_path / "a.flac", x.T, 16_000, "PCM_24")
        fractions: list[float] = []
        result = AudioPipeline(models["keep-audio"], block=0.5).file(
            tmp_path / "a.flac", tmp_path / "b.flac", progress=fractions.append
        )
        assert (result.input, result.output) == (str(tmp_path / "a.flac"), str(tmp_path / "b.flac"))
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
        assert result.noise_before == pytest.approx(result.noise_after, abs=0.3)
        assert result.noise_unit == "dbfs"
        assert -45 < result.noise_before < -35  # the weak bursts: 0.2 * 0.05 is -40 dBFS
        assert result.seconds > 0
        assert set(result.asdict()) == {
            "input",
            "output",
            "seconds",
            "times_real_time",
            "noise_before_dbfs",
            "noise_after_dbfs",
            "warnings",
            "model",
            "model_reason",
        }
        muted = AudioPipeline(models["mute-audio"]).file(tmp_path / "a.flac", tmp_path / "c.flac")
        assert muted.noise_before == result.noise_before
        assert muted.noise_after == -200

    @pytest.mark.parametrize(
        ("container", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]
    )
    def test_bytes_keep_the_format(self, models: Models, container: str, subtype: str) -> None:
        data = io.BytesIO()
        soundfile.write(data, bursts(20_001, 22_050, 2).T, 22_050, subtype, format=container)
        out = AudioPipeline(models["mask-audio"]).bytes(data.getvalue())
        written = AudioPipeline(models["mask-audio"]).file(io.BytesIO(data.getvalue()), io.BytesIO())
        assert written.output == "output"
        before, after = soundfile.info(io.BytesIO(data.getvalue())), soundfile.info(io.BytesIO(out))
        for key in ("format", "subtype", "samplerate", "channels", "frames"):
            assert getattr(after, key) == getattr(before, key), key
        with pytest.raises(InputError, match=r"^audio bytes: is empty"):
            AudioPipeline(models["mask-audio"]).bytes(b"")

    def test_raw_floats_in_memory(self, models: Models) -> None:
        x = bursts(20_001, 16_000)
        out = AudioPipeline(models["mask-audio"]).bytes(x.astype("<f4").tobytes(), raw=RawFormat(16_000, 1, "f32le"))
        expected = denoise_audio(x, 16_000, model=models["mask-audio"])
        np.testing.assert_array_equal(np.frombuffer(out, "<f4"), expected[0])

    def test_invalid_sample_leaves_no_file(self, models: Models, tmp_path: Path) -> None:
        x = bursts(60_000, 16_000)
        x[0, 55_000] = np.nan
        soundfile.write(tmp_path / "a.wav", x.T, 16_000, "FLOAT")
        with pytest.raises(InputError, match=r"a\.wav: sample 55,000 of channel 0 is nan"):
            AudioPipeline(models["keep-audio"], block=0.5).file(tmp_path / "a.wav", tmp_path / "b.wav")
        assert os.listdir(tmp_path) == ["a.wav"]

    def test_floats_beyond_full_scale_are_kept(self, models: Models, tmp_path: Path) -> None:
        x = 1e20 * bursts(20_000, 16_000)
        soundfile.write(tmp_path / "a.wav", x.T, 16_000, "FLOAT")
        result = AudioPipeline(models["keep-audio"]).file(tmp_path / "a.wav", tmp_path / "b.wav")
        assert (soundfile.read(tmp_path / "b.wav", dtype="float32")[0] == x[0]).all()
        assert np.isfinite([result.noise_before, result.noise_after]).all()

    @pytest.mark.parametrize("model", ["speech", "general", "speech-best"])
    def test_floats_that_overflow_are_one_line(self, model: str, tmp_path: Path) -> None:
        x = np.sin(0.05 * np.arange(48_000)) + 0.05 * bursts(48_000, 48_000)[0]
        for scale in (1e9, 9e19):
            soundfile.write(tmp_path / "a.wav", scale * x, 48_000, "FLOAT")
            if scale == 1e9:
                AudioPipeline(model).file(tmp_path / "a.wav", tmp_path / "b.wav")
                continue
            with pytest.raises(InputError, match=r"a\.wav: samples are too large for the network"):
                AudioPipeline(model).file(tmp_path / "a.wav", tmp_path / "c.wav")
        assert not (tmp_path / "c.wav").exists()

    def test_output_of_a_pipe_starts_before_its_input_ends(self, models: Models) -> None:
        """The first seconds of a live WAV pipe are written while the rest is not yet there."""
        (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
        pipeline = AudioPipeline(models["keep-audio"], block=0.5)
        header = io.BytesIO()
        with wave.open(header, "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
        live = bytearray(header.getvalue())
        live[4:8] = live[40:44] = b"\xff" * 4
        samples = np.random.default_rng(0).integers(-9000, 9000, 80_000, np.int16)

        first_part_read = threading.Event()

        def denoise() -> None:
            with os.fdopen(in_read, "rb") as source, os.fdopen(out_write, "wb") as target:
                pipeline.file(source, target, strength=0.5)

        def write() -> None:  # in a thread, because a pipe may hold as little as one page
            with os.fdopen(in_write, "wb") as pipe:
                pipe.write(live + samples[:40_000].tobytes())
                pipe.flush()
                first_part_read.wait()
                pipe.write(samples[40_000:].tobytes())

        with ThreadPoolExecutor() as pool, os.fdopen(out_read, "rb") as out:
            tasks = [pool.submit(denoise), pool.submit(write)]
            first_part = out.read(44 + 2 * 20_000)  # a deadlock if the pipeline waited for the end
            first_part_read.set()
            second_part = out.read()
            for task in tasks:
                task.result()
        assert first_part[:4] == b"RIFF"
        denoised = np.frombuffer((first_part + second_part)[44:], "<i2")
        assert denoised.shape == samples.shape
        assert np.abs(denoised[2000:-2000].astype(int)).max() <= 9000 * 1.7

    def test_speed_is_relative_to_the_duration(self, models: Models, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.wav", np.zeros(80_000), 8000)
        pipeline, started = AudioPipeline(models["keep-audio"]), time.perf_counter()
        result = pipeline.file(tmp_path / "a.wav", tmp_path / "b.wav")
        assert 0 < result.seconds <= time.perf_counter() - started + 0.001  # rounded
        assert result.speed == pytest.approx(10 / result.seconds, rel=0.2)  # of seconds that are rounded


class TestArrays:
    @pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("shape", [(4000,), (1, 4000), (2, 4000)])
    def test_numpy(self, models: Models, dtype: Any, shape: tuple[int, ...]) -> None:
        is_float = np.dtype(dtype).kind == "f"
        full = 1 if is_float else np.iinfo(dtype).max
        x = (tones(4000, 16_000, shape[0] if len(shape) > 1 else 1).reshape(shape) * full).astype(dtype)
        y = denoise_audio(x, 16_000, model=models["keep-audio"])
        assert (type(y), y.dtype, y.shape) == (np.ndarray, dtype, shape)
        np.testing.assert_allclose(y, x, rtol=0, atol=1e-3 if dtype == np.float16 else 1e-6 * full)

    @pytest.mark.parametrize("dtype", [torch.int16, torch.float16, torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("shape", [(2, 3000), (4, 2, 3000), (1, 1, 3000)])
    def test_tensors(self, models: Models, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        x = (torch.from_numpy(tones(3000, 16_000, 8))[: int(np.prod(shape[:-1]))].reshape(shape) * 20_000).to(dtype)
        x = x if dtype == torch.int16 else x / 20_000
        y = denoise_audio(x, 16_000, model=models["keep-audio"])
        assert (y.dtype, y.shape) == (dtype, x.shape)
        torch.testing.assert_close(y, x, rtol=0, atol=1e-2 if dtype == torch.bfloat16 else 1e-3)

    def test_items_of_a_batch_are_independent(self, models: Models) -> None:
        x = torch.from_numpy(bursts(4000, 16_000, 6)).reshape(3, 2, 4000)
        y = denoise_audio(x, 16_000, model=models["mask-audio"])
        for denoised, item in zip(y, x, strict=True):
            torch.testing.assert_close(denoised, denoise_audio(item, 16_000, model=models["mask-audio"]))

    def test_integers_are_clipped_and_floats_are_not(self, models: Models) -> None:
        loud = np.full((1, 1000), 7.5, np.float32)
        assert (denoise_audio(loud, 16_000, model=models["keep-audio"]) == loud).all()
        edge = np.array([[-32768, 32767] * 500], np.int16)
        assert (denoise_audio(edge, 16_000, model=models["keep-audio"]) == edge).all()
        assert np.sign(denoise_audio(edge, 44_100, model=models["keep-audio"])).tolist() == np.sign(edge).tolist()

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (np.zeros((4000, 2), np.float32), "at most 8 channels, then time"),
            (np.zeros((2, 2, 2), np.float32), "expected .time,. or"),
            (np.float32(0.5), "expected"),
            (np.zeros(0, np.float32), "none of them 0"),
            (np.zeros((9, 400), np.float32), "at most 8 channels"),
            (np.zeros(400, np.uint8), "uint8; expected int16"),
            (np.zeros(400, np.int64), "int64; expected int16"),
            (np.zeros(400, bool), "bool; expected int16"),
            (np.zeros(400, np.complex64), "complex64; expected int16"),
            (np.array([0.0, np.inf]), "sample 1 of channel 0 is inf"),
            (torch.zeros(400), r"expected \(channels, time\)"),
            (torch.zeros(1, 1, 1, 400), r"expected \(channels, time\)"),
            (torch.zeros(400, 2), "at most 8 channels, then time"),
        ],
    )
    def test_invalid_arrays_are_refused(self, models: Models, x: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            denoise_audio(x, 16_000, model=models["keep-audio"])

    @pytest.mark.parametrize("rate", [float("nan"), float("inf"), 44_100.5, "a", None])
    def test_sample_rates_that_are_no_whole_numbers_are_refused(self, models: Models, rate: Any) -> None:
        with pytest.raises(InputError, match=r"sample rate is .*; expected a whole number"):
            denoise_audio(np.zeros(400, np.float32), rate, model=models["keep-audio"])

    def test_masked_arrays_are_refused(self, models: Models) -> None:
        with pytest.raises(InputError, match="the array is masked"):
            denoise_audio(np.ma.masked_less(np.zeros(400, np.float32), 1), 16_000, model=models["keep-audio"])

    @pytest.mark.parametrize("rate", [0, -1, 4000, 400_000])
    def test_sample_rates_out_of_range_are_refused(self, models: Models, rate: int) -> None:
        with pytest.raises(InputError, match="sample rate is"):
            denoise_audio(np.zeros(400, np.float32), rate, model=models["keep-audio"])
        with pytest.raises(InputError, match="sample rate is"):
            run(AudioPipeline(models["keep-audio"]), np.zeros((1, 400), np.float32), rate)


class TestSettings:
    @pytest.mark.parametrize("block", [0, -1, float("nan"), float("inf")])
    def test_block_lengths_out_of_range_are_refused(self, models: Models, block: float) -> None:
        with pytest.raises(ConfigError, match="block is"):
            AudioPipeline(models["keep-audio"], block=block)

    def test_unknown_device_and_wrong_modality_are_refused(self, models: Models) -> None:
        with pytest.raises(ConfigError, match="device 'tpu' is not available"):
            AudioPipeline(models["keep-audio"], device="tpu")
        with pytest.raises(ConfigError, match="is a denoiser for image; expected a denoiser for audio"):
            AudioPipeline(models["keep-image"])
        assert type(load(models["keep-audio"])) is AudioPipeline
        assert type(load(models["keep-image"])) is ImagePipeline


@pytest.mark.parametrize(
    ("source", "name", "clips_as"),
    [("FLOAT", "b.flac", "PCM_24"), ("FLOAT", "b.m4a", ""), ("FLOAT", "b.wav", ""), ("DOUBLE", "b.aiff", "")],
)
def test_samples_over_full_scale_that_integers_clip_are_counted(
    source: str, name: str, clips_as: str, tmp_path: Path
) -> None:
    x = 2.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    soundfile.write(tmp_path / "a.wav", x, 16_000, source)
    result = AudioPipeline("speech").file(tmp_path / "a.wav", tmp_path / name, strength=0.0)
    stored = soundfile.read(tmp_path / "a.wav")[0]
    expected = (
        f"clips {int((np.abs(stored) > 1).sum()):,} samples over full scale, by at most 8 dB, as {clips_as} has to. "
        "Choose .wav"
    )
    assert [expected in warning for warning in result.warnings] == [True] * bool(clips_as)
    if name in ("b.flac", "b.wav", "b.aiff"):
        assert (soundfile.read(tmp_path / name)[0].max() > 1) != bool(clips_as)
