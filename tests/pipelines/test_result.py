"""Diagnostics are combined over frames and samples, and every result is built from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from denoise.pipelines.choice import ModelChoice, StereoChoice
from denoise.pipelines.result import AUDIO_UNITS, IMAGE_UNITS, Diagnostics, Result, Units, warn_underestimated
from denoise.protocols import Consistency


def build(diagnostics: Diagnostics, units: Units = IMAGE_UNITS) -> Result:
    return Result.from_diagnostics(
        diagnostics, units, input="a", output="b", amount=3.0, seconds=1.5, warnings=["damaged"]
    )


def test_combination_averages_what_is_present() -> None:
    first = Diagnostics(noise_before=4.0, residual=Consistency(1.0, 0.2), rejected_fraction=0.4, precision="float32")
    second = Diagnostics(noise_before=2.0, noise_after=1.0, no_noise_found=True, precision="int8")
    combined = Diagnostics.combine([first, second])
    assert combined == Diagnostics(3.0, 1.0, Consistency(1.0, 0.2), 0.2, False, "float32, int8")
    assert Diagnostics.combine([second, second]).no_noise_found
    assert Diagnostics.combine([]) == Diagnostics()
    assert Diagnostics.combine([first]) == first


@pytest.mark.parametrize(("units", "suffix"), [(AUDIO_UNITS, "dbfs"), (IMAGE_UNITS, "sigma_255")])
def test_units_are_in_the_keys(units: Units, suffix: str) -> None:
    row = build(Diagnostics(noise_before=1.2345), units).asdict()
    assert row[f"noise_before_{suffix}"] == 1.23
    assert row[f"noise_after_{suffix}"] is None
    assert row[units.speed] == 2.0
    assert not {"residual", "files", "precision", "speed", "noise_before"} & set(row)


def test_residual_and_precision_are_in_the_row_if_present() -> None:
    diagnostics = Diagnostics(residual=Consistency(1.23456, -0.1), precision="int8")
    row = build(diagnostics).asdict()
    assert (row["residual_by_sigma"], row["residual_correlation"], row["precision"]) == (1.235, -0.1, "int8")
    row = build(diagnostics, AUDIO_UNITS).asdict()
    assert (row["residual_by_noise"], row["residual_with_answer"]) == (1.235, -0.1)


def test_warnings_of_the_diagnostics_follow_those_of_the_reader() -> None:
    assert build(Diagnostics(rejected_fraction=0.09)).warnings == ("a: damaged",)
    damaged, rejected, no_noise = build(Diagnostics(rejected_fraction=0.25, no_noise_found=True)).warnings
    assert damaged == "a: damaged"
    assert rejected.startswith("a: 25 % of the posterior sample was replaced")
    assert no_noise.startswith("a: no noise was found")


def test_warnings_name_their_file_once() -> None:
    given = ["a: is damaged.", "b: has no tags.", "holds 3 images.", "ab: is no name here."]
    result = Result.from_diagnostics(
        Diagnostics(), AUDIO_UNITS, input="a", output="b", amount=1.0, seconds=1.0, warnings=given
    )
    assert result.warnings == (*given[:2], "a: holds 3 images.", "a: ab: is no name here.")


def test_noise_that_rises_is_reported() -> None:
    (warning,) = warn_underestimated("a.png", 1.3, 9.2)
    assert warning.startswith("a.png: the noise is estimated at 1.3 of 255 before and 9.2 after; expected less.")
    assert not warn_underestimated("a.png", 9.2, 1.3)
    assert not warn_underestimated("a.png", 1.3, 1.9)  # within the errors of two estimates
    assert not warn_underestimated("a.png", None, 9.2)


def test_tracks_are_combined_with_their_choices() -> None:
    speech, general = ModelChoice("speech", "speech in 90 % of the excerpts", 0.9), ModelChoice("general", "music", 0.1)
    linked, separate = StereoChoice(True, 0.8), StereoChoice(False, 0.1)
    base = replace(build(Diagnostics(), AUDIO_UNITS), model=speech, stereo=linked)
    both = [base, replace(base, model=general, stereo=StereoChoice(True, 0.6))]
    row = Result.combine_tracks(both, "out", 4.0, ["cut"]).asdict()
    assert (row["model"], row["speech_fraction"]) == ("speech, general", 0.5)
    assert row["model_reason"] == "speech in 90 % of the excerpts, music"
    assert (row["channels"], row["channel_correlation"]) == ("linked", 0.7)
    assert row["times_real_time"] == 1.5
    for other in (None, separate):
        assert "channels" not in Result.combine_tracks([base, replace(base, stereo=other)], "out", 4.0, []).asdict()
    same = Result.combine_tracks([base, base], "out", 4.0, []).asdict()
    assert (same["model"], same["model_reason"]) == (speech.model, speech.reason)
