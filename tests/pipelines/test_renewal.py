"""Recurrences that begin anew in pauses: when, from what, and to what end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from denoise.backends import load_network
from denoise.pipelines.renewal import PERIOD_S, WARM_UP_S, Renewal, Resumption
from denoise.pipelines.stream import AudioStream

RATE = 16_000
SPEECH = Path(__file__).parents[2] / "samples" / "speech.clean.wav"


@pytest.fixture(scope="module")
def speech() -> NDArray[np.float32]:
    samples, rate = soundfile.read(SPEECH, dtype="float32")
    return np.asarray(soxr.resample(samples, rate, RATE), np.float32)


def noise(seconds: float, level_db: float = -40.0) -> NDArray[np.float32]:
    x = np.random.default_rng(0).standard_normal(round(seconds * RATE))
    return (10 ** (level_db / 20) * x).astype(np.float32)


def si_sdr(estimate: NDArray[Any], target: NDArray[Any]) -> float:
    scaled = (estimate @ target) / (target @ target) * target
    return float(10 * np.log10((scaled @ scaled) / np.square(estimate - scaled).sum()))


@pytest.mark.parametrize("model", ["speech", "speech-best"])
def test_speech_after_a_long_pause_is_as_good_as_at_the_beginning(model: str, speech: NDArray[np.float32]) -> None:
    first = int(np.argmax(np.abs(speech) > 0.02))
    word = slice(first, first + RATE // 4)
    x = np.concatenate([speech, np.zeros(45 * RATE, np.float32), speech])
    x += noise(len(x) / RATE)

    def quality(*, renews: bool) -> tuple[float, float]:
        stream = AudioStream(model, sample_rate=RATE)
        if not renews:
            stream._renewal = None
        y = np.concatenate([stream.push(x[None]), stream.flush()], axis=1)[0]
        return si_sdr(y[: len(speech)][word], speech[word]), si_sdr(y[-len(speech) :][word], speech[word])

    begin, after = quality(renews=True)
    assert after > begin - 2.5
    assert after > quality(renews=False)[1] + 2


def test_blocks_of_any_length_give_the_same_pauses(speech: NDArray[np.float32]) -> None:
    x = np.concatenate([noise(9), speech[: 2 * RATE] + noise(2), noise(5)])[None]
    outputs = []
    for size in (x.shape[1], 1_111, 160):
        stream = AudioStream("speech", sample_rate=RATE)
        blocks = [stream.push(x[:, i : i + size]) for i in range(0, x.shape[1], size)]
        outputs.append(np.concatenate([*blocks, stream.flush()], axis=1))
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], atol=2e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_speech_beside_noise_of_another_channel_is_no_pause(scale: float, speech: NDArray[np.float32]) -> None:
    voice = 0.1 * np.tile(speech[np.abs(speech) > 0.002], 4)[: 12 * RATE] + noise(12, -60)[: 12 * RATE]
    length = len(voice)
    x = scale * np.stack([voice, 10 * noise(length / RATE, -30)[:length]]).astype(np.float32)
    together, alone = (AudioStream("speech", sample_rate=RATE, channels=n, linked=False) for n in (2, 1))
    y, expected = (np.concatenate([s.push(each), s.flush()], axis=1) for s, each in ((together, x), (alone, x[:1])))
    np.testing.assert_allclose(y[0], expected[0], atol=1e-4 * scale)


class CountingNetwork:
    """What a `Renewal` takes of a network: states are the number of renewals."""

    renewed_from: list[NDArray[Any]]

    def __init__(self) -> None:
        self.renewed_from = []

    def hop(self, sample_rate: int) -> int:
        return sample_rate // 100

    def renew(self, state: int, recent: NDArray[Any]) -> int:
        self.renewed_from.append(recent)
        return state + 1


def test_recurrences_are_renewed_after_periods_without_speech_alone() -> None:
    network: Any = CountingNetwork()
    renewal, hop, state = Renewal(network, RATE), RATE // 100, 0
    period = renewal.period * hop
    assert period / RATE == pytest.approx(PERIOD_S, rel=0.05)
    x = noise(4 * period / RATE)[None, None]
    y = 0.01 * x
    y[..., period + 3_000 : period + 3_400] = x[..., period + 3_000 : period + 3_400]  # 25 ms of the second period
    x[..., 2 * period :] = y[..., 2 * period :] = 0  # digital silence
    counts = []
    for start in range(0, x.shape[2], hop):
        state = renewal.push(x[..., start : start + hop], y[..., start : start + hop], state)
        counts.append(state)
    per_period = np.array(counts).reshape(4, -1)
    np.testing.assert_array_equal(per_period[:, -1], [1, 1, 2, 3])
    np.testing.assert_array_equal(per_period[:, -2], [0, 1, 1, 2])
    warm_up = round(WARM_UP_S * RATE)
    np.testing.assert_array_equal(network.renewed_from[0], x[..., period - warm_up : period])


@pytest.mark.parametrize(("model", "silence"), [("speech", 0), ("general", 100)])
def test_exported_networks_renew_as_those_of_torch(model: str, silence: int, speech: NDArray[np.float32]) -> None:
    """From the last samples, or from nothing after hops of digital silence."""
    outputs = []
    for backend in ("torch", "onnx"):
        network: Any = load_network(model, modality="audio", device="cpu", backend=backend)[0]
        hop = network.hop(RATE)
        x = (speech + noise(len(speech) / RATE))[None, None, : len(speech) // hop * hop]
        before = np.concatenate([x, np.zeros((1, 1, silence * hop), np.float32)], axis=2)
        _, state = network.step(before, network.initial_state(1, 1, RATE))
        state = network.renew(state, None if silence else before[..., -30 * hop :])
        outputs.append(network.step(x[..., : 60 * hop], state)[0])
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-4)


@pytest.mark.parametrize(
    ("model", "look_ahead"), [("speech", False), ("speech-best", False), ("general", False), ("general", True)]
)
def test_a_stream_after_digital_silence_is_a_new_stream(
    model: str, look_ahead: bool, speech: NDArray[np.float32]
) -> None:
    network = load_network(model, modality="audio")[0]
    silence = 300 * network.hop(RATE)  # 4.8 s: the noise floor has forgotten what was before
    x = (speech + noise(len(speech) / RATE, -50))[None]
    outputs = []
    for pieces in ([x], [np.zeros((1, silence), np.float32), x], [0.3 * x, np.zeros((1, 2 * silence), np.float32), x]):
        stream = AudioStream(model, sample_rate=RATE, look_ahead=look_ahead)
        y = np.concatenate([stream.push(np.concatenate(pieces, axis=1)), stream.flush()], axis=1)
        outputs.append(y[0, -x.shape[1] :])
    for output in outputs[1:]:  # the hop grid of the third differs from that of the first
        assert si_sdr(output, outputs[0]) > 30
    assert si_sdr(outputs[1], outputs[0]) > 50


@given(st.lists(st.sampled_from([0, 0, 0, 1e-9, 1e-4, 0.5]), min_size=1, max_size=40), st.integers(0, 40))
def test_sounds_after_a_second_of_silence_are_resumptions(hops: list[float], at: int) -> None:
    network: Any = CountingNetwork()
    length = RATE // 10  # of each value, ten hops
    x = np.repeat(np.array(hops, np.float32), length)[None, None]
    resumption, begun, parts = Resumption(network, RATE), [], []
    for block in (x[..., : at * length], x[..., at * length :]):
        for part, begins in resumption.split(block):
            if begins:
                begun.append(sum(each.shape[2] for each in parts) / length)
            parts.append(part)
    np.testing.assert_array_equal(np.concatenate(parts, axis=2), x)
    before = [max(hops[max(0, i - 10) : i], default=0) for i in range(len(hops))]
    expected = [i for i, value in enumerate(hops) if value > 1e-8 and value > 30 * before[i]]
    assert begun == expected
