"""The noise floor and level of a recording against levels in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from denoise.pipelines.noise_floor import NoiseFloor, warn_of_loss

RATE = 16_000


def measured(x: NDArray[np.float32], size: int = 5_000) -> NoiseFloor:
    floor = NoiseFloor(RATE, len(x))
    blocks = [x[:, start : start + size] for start in range(0, x.shape[1], size)]
    np.testing.assert_array_equal(np.concatenate([*floor.measure(blocks)], axis=1), x)
    return floor


def tone(level_db: float, seconds: float = 2.0) -> NDArray[np.float32]:
    """A tone of 200 Hz, of whole periods in each frame of 50 ms."""
    t = np.arange(round(seconds * RATE)) / RATE
    return (math.sqrt(2) * 10 ** (level_db / 20) * np.sin(2 * np.pi * 200 * t))[None].astype(np.float32)


@given(level=st.floats(-60, -10), offset=st.floats(-0.5, 0.5), size=st.integers(1, 20_000))
def test_levels_do_not_depend_on_offsets_and_blocks(level: float, offset: float, size: int) -> None:
    floor = measured(tone(level, 0.5) + np.float32(offset), size)
    assert floor.level_db() == pytest.approx(level, abs=0.1)
    assert floor.mean_db() == pytest.approx(level, abs=0.02)


def test_the_floor_is_the_level_of_the_quietest_tenth() -> None:
    x = np.concatenate([tone(-20, 1.7), tone(-50, 0.3)], axis=1)
    assert measured(x).level_db() == pytest.approx(-50, abs=0.1)
    assert measured(x).mean_db() == pytest.approx(-20 + 10 * math.log10(0.85), abs=0.02)


def warnings(before: NDArray[np.float32], after: NDArray[np.float32], *names: str) -> list[str]:
    return warn_of_loss(measured(before), measured(after), names or ("1",))


def test_only_lost_sound_is_reported() -> None:
    offset = tone(-50) + np.float32(0.4)
    assert warnings(offset, tone(-50)) == []
    assert "the level fell by 25 dB" in warnings(offset, tone(-75))[0]
    assert "nothing is left" in warnings(offset, 0 * tone(0))[0]


def test_channels_that_lost_more_than_noise_are_named() -> None:
    """Not those of steady noise, or far below the others, as of a microphone whose speaker is silent."""
    voice, pause = tone(-25), tone(-60)
    burst, faint_burst = (np.concatenate([tone(level, 1.7), tone(-90, 0.3)], axis=1) for level in (-30, -55))
    before = np.concatenate([voice, burst, burst, burst, tone(-35), faint_burst])
    after = np.concatenate([voice, 0 * burst, 0.05 * burst, 0.2 * burst, pause, 0 * voice])
    assert warnings(before, after, *"ABCDEF")[0].startswith("channels B, C: the level fell by 20 dB or more. If")
    assert warnings(before[[0, 2]], after[[0, 2]], "FL", "LFE")[0].startswith("channel LFE: the level fell")
    assert warnings(before[[0, 3, 4, 5]], after[[0, 3, 4, 5]], *"ADEF") == []


def parts(*levels_and_seconds: tuple[float, float]) -> NDArray[np.float32]:
    return np.concatenate([tone(level, seconds) for level, seconds in levels_and_seconds], axis=1)


@pytest.mark.parametrize(("level", "is_reported"), [(-20, True), (-21.5, True), (-23, False)])
def test_loud_parts_that_are_lost_are_reported(level: float, is_reported: bool) -> None:
    before = parts((level, 5), (-20, 10), (level, 2), (-20, 75), (level, 4), (-20, 10))
    after = parts((-50, 5), (-20, 10), (-50, 2), (-20, 75), (-50, 4), (-20, 10))
    found = warnings(before, after)
    assert found == [] or found[0].startswith("0:00-0:05, 1:32-1:36: as loud as what is left, the level fell by 20 dB")
    assert bool(found) == is_reported
    assert warnings(before, parts((-38, 5), (-20, 10), (-50, 2), (-20, 75), (-38, 4), (-20, 10))) == []


def test_noise_that_leaves_around_little_sound_is_not_reported() -> None:
    sound, hiss = parts((-20, 3)), parts((-50, 40))
    assert warnings(np.concatenate([hiss, sound], axis=1), np.concatenate([1e-6 * hiss, sound], axis=1)) == []
    assert warnings(np.concatenate([hiss, 0 * hiss], axis=1), np.concatenate([0.5 * hiss, 0 * hiss], axis=1)) == []


def test_many_lost_parts_are_counted() -> None:
    before, after = parts(*[(-20, 4), (-20, 20)] * 6), parts(*[(-60, 4), (-20, 20)] * 6)
    assert "0:00-0:04, 0:24-0:28, 0:48-0:52 and 3 more: " in warnings(before, after)[0]


def test_silence_and_less_than_a_frame_have_no_level() -> None:
    assert measured(np.zeros((2, RATE), np.float32)).mean_db() is None
    assert measured(tone(-20)[:, :700]).level_db() is None
    assert warnings(tone(-20)[:, :700], tone(-90)[:, :700]) == []
