"""Effects on voices against closed forms and SciPy's filters."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoise.noise import generator_for
from denoise.training.voice_effects import EFFECTS, delayed, modulate, random_voice, repeat, transpose

RATE = 16_000


def tone(hz: float, seconds: float = 1.0, rate: int = RATE) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hz * torch.arange(round(seconds * rate), dtype=torch.float64) / rate).float()


def peaks_hz(x: torch.Tensor, n: int = 1) -> list[int]:
    """Frequencies of the n strongest local maxima of the spectrum, sorted, to the Hertz."""
    power = torch.fft.rfft(x.double() * torch.hann_window(len(x), dtype=torch.float64)).abs()
    inner = torch.where((power[1:-1] > power[:-2]) & (power[1:-1] >= power[2:]), power[1:-1], 0.0)
    return sorted(round((int(i) + 1) * RATE / len(x)) for i in inner.topk(n).indices)


@pytest.mark.parametrize("ratio", [0.56, 0.75, 1.0, 1.26])
def test_transposed_tones_have_the_other_frequency(ratio: float) -> None:
    """The heads start again (1 - ratio) / 0.05 s times a second: no other line is further from the wanted frequency."""
    x = transpose(tone(800, 2.0), ratio, RATE)[RATE // 2 :]
    assert abs(peaks_hz(x)[0] - 800 * ratio) <= abs(1 - ratio) / 0.05 + 1
    assert float(x.square().mean()) == pytest.approx(0.5, rel=0.7)


def test_ring_modulation_gives_sum_and_difference() -> None:
    assert peaks_hz(modulate(tone(1000), 150.0, 1.0, RATE), 2) == [850, 1150]
    assert torch.equal(modulate(tone(1000), 150.0, 0.0, RATE), tone(1000))


@given(delay_s=st.floats(1e-3, 0.1), feedback=st.floats(0.0, 0.85), seed=st.integers(0, 100))
def test_repetition_is_a_feedback_comb_filter(delay_s: float, feedback: float, seed: int) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal(3000).astype(np.float32))
    delay = max(1, round(delay_s * RATE))
    oracle = scipy.signal.lfilter([1.0], [1.0] + [0.0] * (delay - 1) + [-feedback], x.double().numpy())
    np.testing.assert_allclose(repeat(x, delay_s, feedback, RATE).numpy(), oracle, atol=1e-3)


@given(samples=st.floats(0.0, 50.0))
def test_delays_move_a_ramp(samples: float) -> None:
    ramp = torch.arange(200, dtype=torch.float64)
    result = delayed(ramp, torch.full((200,), samples, dtype=torch.float64))
    np.testing.assert_allclose(result[60:].numpy(), ramp[60:].numpy() - samples, atol=1e-9)
    assert not result[: int(samples)].any()


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("effect", list(dict.fromkeys(EFFECTS)))
def test_effects_keep_length_and_silence(effect: object, rate: int) -> None:
    assert callable(effect)
    x = tone(440, 0.5, rate)
    results = [effect(x, rate, generator_for(0, 1)) for _ in range(2)]
    assert results[0].shape == x.shape
    assert results[0].dtype == torch.float32
    assert torch.equal(*results)
    assert bool(results[0].isfinite().all())
    assert not torch.allclose(results[0], x, atol=1e-2)
    assert not effect(torch.zeros(1000), rate, generator_for(0, 2)).any()


def test_random_voices_differ() -> None:
    x = tone(440, 0.3) + tone(660, 0.3)
    voices = [random_voice(x, RATE, generator_for(0, step)) for step in range(8)]
    assert all(voice.shape == x.shape and not torch.allclose(voice, x, atol=1e-3) for voice in voices)
    assert len({round(float(voice.square().sum()), 3) for voice in voices}) == 8
