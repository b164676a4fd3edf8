"""Excerpts cover short recordings whole, and long ones sparsely, without decoding them."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio import AudioReader, RawFormat
from denoise.pipelines.excerpts import EXCERPT_S, excerpt_starts, read_excerpts, slice_excerpts
from denoise.signals import require_finite_samples

RATE = 8_000


def recording(seconds: float) -> NDArray[Any]:
    n = round(seconds * RATE)
    return (0.5 * np.sin(np.arange(n) ** 1.3)[None] * np.array([[1.0], [0.5]])).astype(np.float32)


@given(duration=st.floats(0.001, 40_000), can_seek=st.booleans())
def test_excerpts_are_few_and_within_the_recording(duration: float, can_seek: bool) -> None:
    starts = excerpt_starts(duration, can_seek=can_seek)
    assert starts[0] == 0
    assert all(b - a >= EXCERPT_S - 1e-9 for a, b in pairwise(starts))
    assert starts[-1] < duration
    assert len(starts) <= 22
    if duration <= 20:
        assert duration - (starts[-1] + EXCERPT_S) <= 0.5
    else:
        assert starts[-1] + EXCERPT_S <= duration + 1e-6
    assert can_seek or starts[-1] < 60
    if can_seek and duration > 120:
        assert starts[-1] > 0.9 * duration


@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("AIFF", "PCM_24")])
@pytest.mark.parametrize("seconds", [0.3, 5.0, 23.0, 150.0])
def test_excerpts_of_a_file_are_those_of_its_samples(container: str, subtype: str, seconds: float) -> None:
    file, x = io.BytesIO(), recording(seconds)
    soundfile.write(file, x.T, RATE, subtype, format=container)
    with AudioReader(file) as reader:
        assert reader.can_seek
        read = [*read_excerpts(reader)]
    expected = [*slice_excerpts(x, RATE)]
    assert len(read) == len(expected)
    for a, b in zip(read, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_codecs_are_near_enough() -> None:
    file, x = io.BytesIO(), recording(150.0)
    soundfile.write(file, x.T, RATE, "VORBIS", format="OGG")
    with AudioReader(file) as reader:
        for a, b in zip(read_excerpts(reader), slice_excerpts(x, RATE), strict=True):
            assert np.corrcoef(a[0], b[0])[0, 1] > 0.9


def test_without_seeking_the_first_minute_is_read(pipe: Callable[..., BinaryIO]) -> None:
    x = recording(90.0)
    stream = pipe(np.rint(x.T * 32767).astype("<i2").tobytes(), 100_000)
    with AudioReader(stream, raw=RawFormat(RATE, 2)) as reader:
        assert not reader.can_seek
        read = [*read_excerpts(reader)]
        assert reader.read(99 * RATE).shape == (2, 30 * RATE)
    assert len(read) == 30
    np.testing.assert_allclose(np.concatenate(read, axis=1), x[:, : 60 * RATE], rtol=0, atol=1e-4)


def test_most_of_a_long_file_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(3600 * RATE, np.int16), RATE)
    n_read, read = [], soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, n, **kw: (n_read.append(n), read(self, n, **kw))[1])
    with AudioReader(tmp_path / "long.flac") as reader:
        assert sum(x.shape[1] for x in read_excerpts(reader)) == 44 * RATE
    assert sum(n_read) <= 45 * RATE


def test_reading_goes_on_where_it_was_sought(tmp_path: Path) -> None:
    x = recording(2.0)
    x[0, 9000] = np.nan
    soundfile.write(tmp_path / "a.wav", x.T, RATE, "FLOAT")
    with AudioReader(tmp_path / "a.wav") as reader:
        reader.seek(4000)
        np.testing.assert_array_equal(reader.read(1000), x[:, 4000:5000])
        with pytest.raises(InputError) as error:
            reader.read(8000)
    with pytest.raises(InputError) as expected:
        require_finite_samples(x)
    assert str(error.value) == f"{tmp_path / 'a.wav'}: {expected.value}"
