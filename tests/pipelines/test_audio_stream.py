"""Live audio: aligned with its input, the same for any cut, and never silently wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import denoise
from denoise.errors import ConfigError, InputError
from denoise.pipelines.audio import AudioPipeline, denoise_audio
from denoise.pipelines.stream import AudioStream
from denoise.registry import load


def sound(channels: int, time: int, seed: int = 0) -> NDArray[Any]:
    return (np.random.default_rng(seed).standard_normal((channels, time)) * 0.1).astype(np.float32)


def through(stream: AudioStream, x: NDArray[Any], sizes: list[int]) -> NDArray[Any]:
    outs, at, turn = [], 0, 0
    while at < x.shape[1]:
        n = sizes[turn % len(sizes)]
        outs.append(stream.push(x[:, at : at + n]))
        at, turn = at + n, turn + 1
    return np.concatenate([*outs, stream.flush()], axis=1)


@pytest.mark.parametrize("size", [1, 160, 441, 480, 4096])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (48_000, 1), (8_000, 3)])
def test_any_block_size_gives_what_the_file_gives(models: dict[str, Path], size: int, rate: int, channels: int) -> None:
    x = sound(channels, 2_000 if size == 1 else rate // 4 + 11)
    out = through(AudioStream(models["causal-audio"], sample_rate=rate, channels=channels), x, [size])
    offline = denoise_audio(x, rate, model=models["causal-audio"])
    assert out.shape == x.shape
    np.testing.assert_allclose(out, offline, atol=1e-4)
    network, _ = load(models["causal-audio"])
    if channels != 3:  # stereo shares a mask; three microphones do not
        import torch

        whole = network(torch.from_numpy(x)[None], sample_rate=rate)[0].numpy()
        np.testing.assert_allclose(out, whole, atol=1e-4)
    assert not np.allclose(out, x, atol=1e-2)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 3_000), min_size=1, max_size=6), time=st.integers(1, 6_000))
def test_what_is_ready_is_never_later_than_the_latency(models: dict[str, Path], sizes: list[int], time: int) -> None:
    stream = AudioStream(models["causal-audio"], sample_rate=16_000)
    x, taken, given_back = sound(1, time), 0, 0
    for turn in range(1_000):
        block = x[:, taken : taken + sizes[turn % len(sizes)]]
        taken += block.shape[1]
        given_back += stream.push(block).shape[1]
        assert taken - given_back <= stream.latency
        if taken == time:
            break
    assert given_back + stream.flush().shape[1] == taken


def test_the_latency_is_what_the_network_says(models: dict[str, Path]) -> None:
    assert AudioStream(models["causal-audio"], sample_rate=48_000).latency == 1_536  # 32 ms


def test_channels_of_no_stereo_pair_are_denoised_each_for_itself(models: dict[str, Path]) -> None:
    x = sound(3, 5_000)
    out = through(AudioStream(models["causal-audio"], sample_rate=16_000, channels=3), x, [700])
    alone = [through(AudioStream(models["causal-audio"], sample_rate=16_000), row[None], [5_000])[0] for row in x]
    np.testing.assert_allclose(out, np.stack(alone), atol=1e-6)


def test_double_precision_and_strength(models: dict[str, Path]) -> None:
    x = sound(1, 5_000).astype(np.float64)

    def run(strength: float) -> NDArray[Any]:
        return through(AudioStream(models["causal-audio"], sample_rate=16_000, strength=strength), x, [333])

    assert run(1.0).dtype == np.float64
    assert np.array_equal(run(0.0), x)
    np.testing.assert_allclose(run(0.5), (x + run(1.0)) / 2, atol=1e-7)


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
def test_a_bad_block_is_refused_and_forgotten(models: dict[str, Path], bad: NDArray[Any], reason: str) -> None:
    x = sound(1, 3_000)
    stream = AudioStream(models["causal-audio"], sample_rate=16_000)
    first = stream.push(x[:, :1_000])
    with pytest.raises(InputError, match=reason):
        stream.push(bad)
    out = np.concatenate([first, stream.push(x[:, 1_000:]), stream.flush()], axis=1)
    expected = through(AudioStream(models["causal-audio"], sample_rate=16_000), x, [1_000])
    np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("size", [1, 160, 256, 700])
def test_a_sound_card_gets_as_much_as_it_gives_one_latency_late(models: dict[str, Path], size: int) -> None:
    x = sound(2, 4_200)
    stream, other = (AudioStream(models["causal-audio"], sample_rate=16_000, channels=2) for _ in range(2))
    out = [stream.process(x[:, i : i + size]) for i in range(0, x.shape[1], size)]
    assert [block.shape[1] for block in out] == [x[:, i : i + size].shape[1] for i in range(0, x.shape[1], size)]
    late, expected = np.concatenate(out, axis=1), through(other, x, [size])
    assert not late[:, : stream.latency].any()
    np.testing.assert_array_equal(late[:, stream.latency :], expected[:, : -stream.latency])


def test_a_draw_is_streamed_with_the_dial(models: dict[str, Path]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 20_000)).astype(np.float32) * 0.1
    stream = AudioStream(models["flow-audio"], sample_rate=16_000, channels=2, perception=0.5, steps=2, seed=3)
    mean = AudioStream(models["flow-audio"], sample_rate=16_000, channels=2, perception=0.0)
    assert stream.latency > mean.latency
    parts = [stream.push(part) for part in np.array_split(x, 33, axis=1)] + [stream.flush()]
    whole = denoise_audio(x, 16_000, model=models["flow-audio"], perception=0.5, steps=2, seed=3)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-4)
    assert stream.judged() is not None
    assert mean.judged() is None
    with pytest.raises(ConfigError, match="gives one answer"):
        AudioStream(models["causal-audio"], sample_rate=16_000, perception=1.0)


def test_a_limit_of_attenuation_is_a_strength_everywhere(models: dict[str, Path]) -> None:
    x, model, limit = sound(1, 3_000), models["causal-audio"], {"attenuation_limit": 6.0}
    expected = through(AudioStream(model, sample_rate=16_000, strength=1 - 10 ** (-6 / 20)), x, [500])
    stream = AudioStream(denoise.load(model), sample_rate=16_000, **limit)
    np.testing.assert_allclose(through(stream, x, [500]), expected, atol=1e-6)
    np.testing.assert_allclose(denoise.denoise_audio(x, 16_000, model=model, **limit), expected, atol=1e-6)


def test_the_end_is_the_end(models: dict[str, Path]) -> None:
    stream = AudioStream(models["causal-audio"], sample_rate=16_000)
    assert stream.flush().shape == (1, 0)
    with pytest.raises(InputError, match="flushed"):
        stream.push(sound(1, 5))
    with pytest.raises(InputError, match="flushed"):
        stream.flush()


def test_what_cannot_stream_is_told(models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="cannot stream"):
        AudioStream(models["mask-audio"], sample_rate=16_000)
    with pytest.raises(ConfigError, match="denoiser for image"):
        AudioStream(models["keep-image"], sample_rate=16_000)
    with pytest.raises(ConfigError, match="strength"):
        AudioStream(models["causal-audio"], sample_rate=16_000, strength=2)
    with pytest.raises(InputError):
        AudioStream(models["causal-audio"], sample_rate=1_000)


def test_a_pipeline_of_a_causal_model_keeps_every_chunk(models: dict[str, Path]) -> None:
    pipeline = AudioPipeline(models["causal-audio"])
    x = sound(2, 30_000)
    chunks = [x[:, :1], x[:, 1:20_000], x[:, 20_000:]]
    out = np.concatenate([*pipeline.stream(chunks, 44_100)], axis=1)
    np.testing.assert_allclose(out, denoise_audio(x, 44_100, model=models["causal-audio"]), atol=1e-5)
