"""A DC offset is removed before the network, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import denoise
from denoise.pipelines.offset import OffsetFilter

RATE, HOP = 16_000, 256


def speech() -> NDArray[np.float32]:
    """Speech after a pause, in noise that has nothing below 40 Hz."""
    x = soundfile.read("samples/speech.clean.wav", dtype="float32")[0][: 2 * RATE]
    x = np.concatenate([np.zeros(RATE // 2, np.float32), x])
    spectrum = np.fft.rfft(x + 0.002 * np.random.default_rng(0).standard_normal(len(x)))
    spectrum[: 40 * len(x) // RATE] = 0
    return np.fft.irfft(spectrum, len(x))[None].astype(np.float32)


def run(model: Any, x: NDArray[Any], sizes: list[int], **options: Any) -> NDArray[Any]:
    stream = denoise.AudioStream(model, sample_rate=RATE, channels=len(x), **options)
    ends = np.cumsum(np.resize(sizes, x.shape[1]))
    blocks = np.split(x, ends[ends < x.shape[1]], axis=1)
    return np.concatenate([*map(stream.push, blocks), stream.flush()], axis=1)


@pytest.mark.parametrize(("name", "options"), [("speech", {}), ("general", {}), ("general", {"look_ahead": True})])
def test_the_output_is_that_of_the_recording_without_offset(name: str, options: dict[str, Any]) -> None:
    x = np.concatenate([speech(), speech()])
    offsets = np.array([[0.2], [-0.05]], np.float32)
    expected = run(name, x, [RATE], linked=True, **options)
    denoised = run(name, x + offsets, [RATE], linked=True, **options)
    assert 10 * np.log10(np.square(expected).mean() / np.square(denoised - expected).mean()) > 30
    assert np.abs(denoised.mean(axis=1)).max() < 1e-3


def test_blocks_of_any_length_give_the_same(models: dict[str, Any]) -> None:
    x = np.pad(speech() + np.float32(0.1), ((0, 0), (500, 1000)))
    once, often = (run(models["causal-audio"], x, sizes) for sizes in ([x.shape[1]], [100, 3_000]))
    assert once.shape == x.shape
    np.testing.assert_allclose(often, once, rtol=0, atol=1e-5)


@settings(max_examples=50)
@given(hz=st.floats(40, 7_000), phase=st.floats(0, 2 * np.pi), gain=st.sampled_from([1e-6, 0.5, 1e19]))
def test_sound_passes_unchanged(hz: float, phase: float, gain: float) -> None:
    """Also where it starts with the recording, behind silence, and ends."""
    x = np.sin(2 * np.pi * hz / RATE * np.arange(40 * HOP) + phase)
    x = np.stack([gain * x, np.where(np.arange(len(x)) // HOP % 20 < 5, 0, x)]).astype(np.float32)
    np.testing.assert_array_equal(OffsetFilter(RATE, 2, HOP).push(x), x)


def test_an_offset_alone_becomes_silence_and_silence_stays() -> None:
    x = np.full((1, 20 * HOP), 0.3, np.float32)
    x[:, : 5 * HOP], x[:, 15 * HOP :] = 0, 0
    filter_ = OffsetFilter(RATE, 1, HOP)
    y = filter_.push(x)
    assert np.abs(y[:, : 15 * HOP]).max() < 1e-7
    assert not y[:, 16 * HOP :].any()
