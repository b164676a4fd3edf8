"""Live audio: aligned with its input, and independent of the block lengths; invalid blocks are refused."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import denoise
from denoise.errors import ConfigError, InputError
from denoise.pipelines.arrays import denoise_audio
from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.stream import AudioStream
from denoise.registry import load


def noise(channels: int, time: int, seed: int = 0) -> NDArray[Any]:
    return (np.random.default_rng(seed).standard_normal((channels, time)) * 0.1).astype(np.float32)


def run(stream: AudioStream, x: NDArray[Any], lengths: list[int]) -> NDArray[Any]:
    outputs, start = [], 0
    for length in cycle(lengths):
        if start >= x.shape[1]:
            break
        outputs.append(stream.push(x[:, start : start + length]))
        start += length
    return np.concatenate([*outputs, stream.flush()], axis=1)


@pytest.mark.parametrize("size", [1, 160, 441, 480, 4096])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (48_000, 1), (8_000, 3)])
def test_stream_equals_offline_denoising_for_any_block_length(
    models: dict[str, Path], size: int, rate: int, channels: int
) -> None:
    x = noise(channels, rate // 10 if size == 1 else rate // 4 + 11)
    out = run(AudioStream(models["causal-audio"], sample_rate=rate, channels=channels), x, [size])
    offline = denoise_audio(x, rate, model=models["causal-audio"])
    assert out.shape == x.shape
    np.testing.assert_allclose(out, offline, atol=1e-4)
    network, _ = load(models["causal-audio"])
    if channels != 3:  # a stereo pair shares a mask, three channels do not
        import torch

        whole = network(torch.from_numpy(x)[None], sample_rate=rate)[0].numpy()
        np.testing.assert_allclose(out, whole, atol=1e-4)
    assert not np.allclose(out, x, atol=1e-2)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 3_000), min_size=1, max_size=6), time=st.integers(1, 6_000))
def test_samples_are_ready_within_the_latency(models: dict[str, Path], lengths: list[int], time: int) -> None:
    stream = AudioStream(models["causal-audio"], sample_rate=16_000)
    x, n_pushed, n_ready = noise(1, time), 0, 0
    for length in cycle(lengths):
        block = x[:, n_pushed : n_pushed + length]
        n_pushed += block.shape[1]
        n_ready += stream.push(block).shape[1]
        assert n_pushed - n_ready <= stream.latency
        if n_pushed == time:
            break
    assert n_ready + stream.flush().shape[1] == n_pushed


def test_the_network_gets_a_long_block_in_parts(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its running means compare all pairs of frames: memory would grow by the square of the length."""
    x, lengths = noise(2, 16_000 * 12), []
    stream = AudioStream(models["floor-audio"], sample_rate=16_000, channels=2, linked=False)
    step = stream.network.step
    monkeypatch.setattr(stream.network, "step", lambda x, state: (lengths.append(x.shape[2]), step(x, state))[1])
    out = np.concatenate([stream.push(x), stream.flush()], axis=1)
    assert max(lengths) <= 16_000 * 4
    blockwise = run(AudioStream(models["floor-audio"], sample_rate=16_000, channels=2, linked=False), x, [1_000])
    np.testing.assert_allclose(out, blockwise, atol=1e-4)


@pytest.mark.parametrize("size", [1, 700, 4_096, 100_000])
@pytest.mark.parametrize("time", [1, 5_000, 9_001])
def test_looking_ahead_does_not_depend_on_the_blocks(models: dict[str, Path], size: int, time: int) -> None:
    """The floor of this model is that of 16 frames of 16 ms."""
    x = noise(2, time) * np.exp(-np.arange(time) / 4_000).astype(np.float32)

    def stream() -> AudioStream:
        return AudioStream(models["floor-audio"], sample_rate=16_000, channels=2, look_ahead=True)

    out, n_ready = run(stream(), x, [size]), 0
    assert out.shape == x.shape
    np.testing.assert_allclose(out, run(stream(), x, [time]), atol=1e-5)
    offline = AudioPipeline(models["floor-audio"]).stream([x], 16_000, live=False)
    np.testing.assert_allclose(out, np.concatenate([*offline], axis=1), atol=1e-5)
    ready = stream()
    for n_pushed in range(min(500, time), time, 500):
        n_ready += ready.push(x[:, n_pushed - 500 : n_pushed]).shape[1]
        assert n_pushed - n_ready <= ready.latency


def test_latency_of_a_look_ahead_is_the_longest_wait(models: dict[str, Path]) -> None:
    stream = AudioStream(models["floor-audio"], sample_rate=16_000, look_ahead=True)
    waits, n_ready = [], 0
    for i, sample in enumerate(noise(1, 9_001).T):
        n_ready += stream.push(sample[None]).shape[1]
        waits.append(i + 1 - n_ready)
    assert max(waits) == stream.latency - 1


@pytest.mark.parametrize("level", [1e-4, 1e-3])
def test_a_sound_that_dies_away_is_no_noise_in_a_recording(level: float) -> None:
    """A bell from the first sample on has no pause before it of noise alone."""
    rate, rng = 16_000, np.random.default_rng(0)
    t = np.arange(5 * rate) / rate
    partials = ((0.5, 0.7), (1.0, 1.1), (1.2, 1.5), (2.0, 1.9), (2.74, 2.3), (3.76, 2.7))
    bell = sum(0.1 * np.exp(-decay * t) * np.sin(2 * np.pi * 440 * ratio * t) for ratio, decay in partials)
    noisy = (bell + level * rng.standard_normal(len(t)))[None].astype(np.float32)
    pipeline = AudioPipeline("general")
    live, recorded = (
        np.concatenate([*pipeline.stream([noisy], rate, live=live)], axis=1)[0] - bell for live in (True, False)
    )
    assert 10 * np.log10(np.mean(bell**2) / np.mean(recorded**2)) > 35
    assert np.mean(recorded**2) < np.mean(live**2) / 100
    np.testing.assert_allclose(denoise_audio(noisy, rate, model="general")[0] - bell, recorded, atol=1e-6)


@pytest.mark.parametrize(("end", "gain"), [(8.0, np.linspace(1, 0, 16_000)), (7.5, 1e-3), (7.5, 0.0)])
def test_hiss_does_not_come_back_before_a_fade_or_a_gap(end: float, gain: float | NDArray[Any]) -> None:
    rate = 16_000
    x = 0.01 * np.random.default_rng(0).standard_normal((1, 8 * rate)).astype(np.float32)
    x[:, 7 * rate : round(end * rate)] *= gain
    y = np.concatenate([*AudioPipeline("general").stream([x], rate, live=False)], axis=1)
    assert np.mean(y[:, rate : 7 * rate] ** 2) < np.mean(x[:, rate : 7 * rate] ** 2) / 1e6


def test_models_without_a_noise_floor_cannot_look_ahead(models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="takes no noise profile"):
        AudioStream(models["causal-audio"], sample_rate=16_000, look_ahead=True)


def test_latency_is_that_of_the_network(models: dict[str, Path]) -> None:
    assert AudioStream(models["causal-audio"], sample_rate=48_000).latency == 1_536  # 32 ms


def test_channels_of_no_stereo_pair_are_independent(models: dict[str, Path]) -> None:
    x = noise(3, 5_000)
    out = run(AudioStream(models["causal-audio"], sample_rate=16_000, channels=3), x, [700])
    separate = [run(AudioStream(models["causal-audio"], sample_rate=16_000), row[None], [5_000])[0] for row in x]
    np.testing.assert_allclose(out, np.stack(separate), atol=1e-6)


def test_double_precision_and_strength(models: dict[str, Path]) -> None:
    x = noise(1, 5_000).astype(np.float64)

    def denoise_with(strength: float) -> NDArray[Any]:
        return run(AudioStream(models["causal-audio"], sample_rate=16_000, strength=strength), x, [333])

    assert denoise_with(1.0).dtype == np.float64
    assert np.array_equal(denoise_with(0.0), x)
    np.testing.assert_allclose(denoise_with(0.5), (x + denoise_with(1.0)) / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.zeros((2, 100), np.float32), r"shape \(2, 100\)"),
        (np.zeros(100, np.float32), "shape"),
        (np.zeros((1, 100), np.int16), "int16"),
        (np.full((1, 100), np.nan, np.float32), "finite"),
        (np.full((1, 100), np.inf, np.float32), "finite"),
    ],
)
def test_invalid_block_is_refused_and_leaves_the_stream_unchanged(
    models: dict[str, Path], bad: NDArray[Any], reason: str
) -> None:
    x = noise(1, 3_000)
    stream = AudioStream(models["causal-audio"], sample_rate=16_000)
    first = stream.push(x[:, :1_000])
    with pytest.raises(InputError, match=reason):
        stream.push(bad)
    out = np.concatenate([first, stream.push(x[:, 1_000:]), stream.flush()], axis=1)
    expected = run(AudioStream(models["causal-audio"], sample_rate=16_000), x, [1_000])
    np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("size", [1, 160, 256, 700])
def test_process_returns_as_many_samples_late_by_the_latency(models: dict[str, Path], size: int) -> None:
    x = noise(2, 4_200)
    stream, other = (AudioStream(models["causal-audio"], sample_rate=16_000, channels=2) for _ in range(2))
    out = [stream.process(x[:, i : i + size]) for i in range(0, x.shape[1], size)]
    assert [block.shape[1] for block in out] == [x[:, i : i + size].shape[1] for i in range(0, x.shape[1], size)]
    delayed, expected = np.concatenate(out, axis=1), run(other, x, [size])
    assert not delayed[:, : stream.latency].any()
    np.testing.assert_array_equal(delayed[:, stream.latency :], expected[:, : -stream.latency])
    np.testing.assert_array_equal(stream.flush(), expected[:, -stream.latency :])


def test_push_and_process_of_one_stream_are_refused(models: dict[str, Path]) -> None:
    x = noise(1, 1_000)
    for first, second in (("push", "process"), ("process", "push")):
        stream, other = (AudioStream(models["causal-audio"], sample_rate=16_000) for _ in range(2))
        out = [getattr(each, first)(x) for each in (stream, other)]
        with pytest.raises(InputError, match=f"has returned samples by {first}; use either push or process"):
            getattr(stream, second)(x)
        out = [np.concatenate([block, each.flush()], axis=1) for block, each in zip(out, (stream, other), strict=True)]
        np.testing.assert_array_equal(*out)


def test_posterior_sample_is_streamed(models: dict[str, Path]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 20_000)).astype(np.float32) * 0.1
    stream = AudioStream(models["flow-audio"], sample_rate=16_000, channels=2, perception=0.5, steps=2, seed=3)
    mean = AudioStream(models["flow-audio"], sample_rate=16_000, channels=2, perception=0.0)
    assert stream.latency > mean.latency
    blocks = [stream.push(block) for block in np.array_split(x, 33, axis=1)] + [stream.flush()]
    offline = denoise_audio(x, 16_000, model=models["flow-audio"], perception=0.5, steps=2, seed=3)
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), offline, atol=1e-4)
    assert stream.diagnostics().residual is not None
    assert mean.diagnostics().residual is None
    with pytest.raises(ConfigError, match="no posterior samples"):
        AudioStream(models["causal-audio"], sample_rate=16_000, perception=1.0)


def test_attenuation_limit_limits_the_strength(models: dict[str, Path]) -> None:
    x, model, limit = noise(1, 3_000), models["causal-audio"], 6.0
    expected = run(AudioStream(model, sample_rate=16_000, strength=1 - 10 ** (-6 / 20)), x, [500])
    stream = AudioStream(denoise.load(model), sample_rate=16_000, attenuation_limit=limit)
    np.testing.assert_allclose(run(stream, x, [500]), expected, atol=1e-6)
    np.testing.assert_allclose(
        denoise.denoise_audio(x, 16_000, model=model, attenuation_limit=limit), expected, atol=1e-6
    )


def test_flushed_stream_refuses_more(models: dict[str, Path]) -> None:
    stream = AudioStream(models["causal-audio"], sample_rate=16_000)
    assert stream.flush().shape == (1, 0)
    with pytest.raises(InputError, match="flushed"):
        stream.push(noise(1, 5))
    with pytest.raises(InputError, match="flushed"):
        stream.flush()


def test_models_and_settings_that_cannot_stream_are_refused(models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="cannot stream"):
        AudioStream(models["mask-audio"], sample_rate=16_000)
    with pytest.raises(ConfigError, match="denoiser for image"):
        AudioStream(models["keep-image"], sample_rate=16_000)
    with pytest.raises(ConfigError, match="strength"):
        AudioStream(models["causal-audio"], sample_rate=16_000, strength=2)
    with pytest.raises(InputError):
        AudioStream(models["causal-audio"], sample_rate=1_000)


def test_pipeline_of_a_causal_model_takes_chunks_of_any_length(models: dict[str, Path]) -> None:
    pipeline = AudioPipeline(models["causal-audio"])
    x = noise(2, 30_000)
    chunks = [x[:, :1], x[:, 1:20_000], x[:, 20_000:]]
    out = np.concatenate([*pipeline.stream(chunks, 44_100)], axis=1)
    np.testing.assert_allclose(out, denoise_audio(x, 44_100, model=models["causal-audio"]), atol=1e-5)


@pytest.mark.parametrize(("rate", "channels"), [(44_100.5, 1), (float("inf"), 1), (44_100, 1.5)])
def test_whole_numbers_of_any_type_are_taken(models: dict[str, Path], rate: Any, channels: Any) -> None:
    whole: dict[str, Any] = {"sample_rate": 44_100.0, "channels": np.float32(1)}
    stream = AudioStream(models["causal-audio"], remove_hum=True, **whole)
    assert (stream.sample_rate, stream.channels) == (44_100, 1)
    with pytest.raises(InputError, match="expected a whole number"):
        AudioStream(models["causal-audio"], sample_rate=rate, channels=channels)


def test_process_takes_lists_and_loses_nothing_that_it_refuses(models: dict[str, Path]) -> None:
    """A refused block leaves the stream as it was: what follows is that of a stream which never got it."""
    x = noise(1, 600)
    stream, undisturbed = (AudioStream(models["causal-audio"], sample_rate=16_000) for _ in range(2))
    np.testing.assert_array_equal(stream.process(x.astype(np.float64).tolist()), undisturbed.process(x.astype(float)))
    for wrong in (x[0], x.astype(np.int16), "x", [[np.nan]]):
        with pytest.raises(InputError):
            stream.process(wrong)  # type: ignore[arg-type]
    np.testing.assert_array_equal(stream.process(x), undisturbed.process(x))


def test_noise_profile_that_is_no_array_is_refused(models: dict[str, Path]) -> None:
    wrong: Any
    for wrong in ("x.wav", np.zeros(3), ()):
        with pytest.raises(ConfigError, match=r"noise_profile is .*; expected an array \(channels, positions\)"):
            AudioStream(models["floor-audio"], sample_rate=16_000, noise_profile=wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"linked": "separate"}, "linked is 'separate'; expected True, False, or None"),
        ({"linked": 1}, "linked is 1; expected True"),
        ({"unchanged": [5]}, r"unchanged is \[5\]; expected numbers of channels, 0 to 1"),
        ({"unchanged": [-1]}, r"unchanged is \[-1\]"),
        ({"unchanged": [True, False]}, r"unchanged is \[True, False\]"),
        ({"unchanged": 1}, r"unchanged is 1"),
        ({"unchanged": "LFE"}, r"unchanged is 'LFE'"),
    ],
)
def test_wrong_channels_are_refused(models: dict[str, Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AudioStream(models["causal-audio"], sample_rate=16_000, channels=2, **options)
