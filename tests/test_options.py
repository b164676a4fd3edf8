"""Options of a run are validated once, and their defaults are those of every interface."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from denoise.errors import ConfigError
from denoise.options import AudioRestoreOptions, DenoiseOptions, RestoreOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -0.1}, "strength is -0.1; expected 0"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"attenuation_limit": -1.0}, "attenuation limit is -1 dB"),
        ({"sigma": "loud"}, "sigma is 'loud'; expected auto"),
        ({"perception": 1.5}, "perception is 1.5; expected 0"),
        ({"perception": float("nan")}, "perception is nan"),
        ({"steps": 0}, "steps is 0; expected at least 1"),
        ({"noise_profile": (2.5, 1.0)}, "the noise profile is of 2.5 to 1 s; expected a start before the end"),
        ({"noise_profile": [3.0, 3.0]}, "the noise profile is of 3 to 3 s"),
        ({"noise_profile": (0.0, float("nan"))}, "the noise profile is of 0 to nan s"),
        (
            {"noise_profile": np.zeros((2, 4))},
            "noise_profile is array.*; expected start and end in seconds, or the path",
        ),
        ({"noise_profile": np.zeros(48_000)}, "noise_profile is array.*; expected start and end"),
        ({"noise_profile": 3}, "noise_profile is 3; expected start and end"),
        ({"strength": None}, "strength is None; expected a number"),
        ({"strength": "a"}, "strength is 'a'; expected a number"),
        ({"perception": [1]}, "perception is .1.; expected a number"),
        ({"sigma": [1, 2]}, "sigma is .1, 2.; expected a number"),
        ({"steps": 2.5}, "steps is 2.5; expected a whole number"),
        ({"seed": "x"}, "seed is 'x'; expected a whole number"),
        ({"seed": 1.5}, "seed is 1.5; expected a whole number"),
        ({"seed": -1}, "seed is -1; expected 0 to"),
        ({"seed": 1 << 63}, "seed is 9223372036854775808; expected 0 to"),
        ({"max_megapixels": 0.0}, "max_megapixels is 0"),
        ({"max_megapixels": float("inf")}, "max_megapixels is inf"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DenoiseOptions(**{"steps": 1, **options})


@pytest.mark.parametrize("name", ["luminance", "colour", "detail"])
@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan")])
def test_strengths_of_images_are_from_0_to_1(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=f"^{name} is .*; expected 0 to 1"):
        DenoiseOptions(steps=1, **options)


@pytest.mark.parametrize(
    ("perception", "seed", "mix_weight", "uses_posterior"),
    [(None, None, 0.0, False), (None, 0, 1.0, True), (0.0, 3, 0.0, True), (0.4, None, 0.4, True), (0.4, 3, 0.4, True)],
)
def test_seed_without_perception_is_a_whole_sample(
    perception: float | None, seed: int | None, mix_weight: float, uses_posterior: bool
) -> None:
    options = DenoiseOptions(steps=1, perception=perception, seed=seed)
    assert (options.mix_weight, options.uses_posterior) == (mix_weight, uses_posterior)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "deblur", "blur": "2"}, "blur is '2'; expected a number"),
        ({"task": "denoise", "steps": "2"}, "steps is '2'; expected a whole number"),
        ({"task": "denoise", "steps": 4.5}, "steps is 4.5; expected a whole number"),
        ({"task": "denoise", "samples": 2.5}, "samples is 2.5; expected a whole number"),
        ({"task": "denoise", "seed": None}, "seed is None; expected a whole number"),
        ({"task": "upscale", "factor": 2.5}, "factor is 2.5; expected a whole number"),
        ({"task": "dejpeg", "quality": 80.5}, "quality is 80.5; expected a whole number"),
        ({"task": "denoise", "max_megapixels": "1"}, "max_megapixels is '1'; expected a number"),
    ],
)
def test_restore_options_of_another_type_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RestoreOptions(**options)


@pytest.mark.parametrize(
    ("gaps", "message"),
    [
        ((0, 1), r"gaps is \(0, 1\); expected pairs"),
        (((0,),), "expected pairs of start and end in seconds"),
        ([("0", "1")], "expected pairs"),
        (3, "gaps is 3; expected pairs"),
        ([], "gaps is empty"),
        ([(1.0, 0.5)], "a gap is from 1 to 0.5 s"),
    ],
)
def test_gaps_are_pairs_of_seconds(gaps: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AudioRestoreOptions(task="inpaint", gaps=gaps)


def test_gaps_may_be_lists() -> None:
    options = AudioRestoreOptions(task="inpaint", gaps=[(0, 1), (2.0, 2.5)])
    assert options == AudioRestoreOptions(task="inpaint", gaps=((0, 1), (2.0, 2.5)))
    assert hash(options) is not None
    with pytest.raises(ConfigError, match=r"steps is 4\.5; expected a whole number"):
        AudioRestoreOptions(steps=4.5)  # type: ignore[arg-type]


def test_attenuation_limit_lowers_the_strength() -> None:
    assert DenoiseOptions(steps=1, attenuation_limit=20.0).limited_strength == pytest.approx(0.9)
    assert DenoiseOptions(steps=1, strength=0.5, attenuation_limit=20.0).limited_strength == 0.5
    assert DenoiseOptions(steps=1, attenuation_limit=0.0).limited_strength == 0


def test_import_does_not_load_torch() -> None:
    program = "import sys, denoise.options; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
