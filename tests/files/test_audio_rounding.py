"""Integers are rounded to the nearest, come back bit by bit, and get dither only where the depth falls."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from denoise.files.audio import AudioReader, AudioWriter, read_audio, write_audio
from denoise.files.audio.pcm import INTEGER_BITS
from denoise.signals import Audio, AudioFormat

INTEGERS = [
    *[("wav", "WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32")],
    *[("aiff", "AIFF", subtype) for subtype in ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32")],
    *[
        ("caf", "CAF", subtype)
        for subtype in ("PCM_S8", "PCM_16", "PCM_24", "ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32")
    ],
    *[("w64", "W64", subtype) for subtype in ("PCM_U8", "PCM_16")],
    *[("flac", "FLAC", subtype) for subtype in ("PCM_S8", "PCM_16", "PCM_24")],
]


def noise(n: int = 40_000) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(0, 0.1, (1, n))


def read_steps(path: Path, bits: int) -> NDArray[np.float64]:
    """Return the stored integers, as libsndfile alone reads them."""
    integers = soundfile.read(path, dtype="int32", always_2d=True)[0].T
    assert not (integers & ((1 << 32 - bits) - 1)).any()
    return (integers >> 32 - bits).astype(np.float64)


@pytest.mark.parametrize(("extension", "container", "subtype"), INTEGERS)
def test_integers_are_rounded(extension: str, container: str, subtype: str, tmp_path: Path) -> None:
    bits = INTEGER_BITS[subtype]
    path = tmp_path / f"a.{extension}"
    write_audio(path, Audio(noise(), AudioFormat(16_000, 1, container, subtype)))
    assert soundfile.info(path).subtype == subtype
    np.testing.assert_array_equal(read_steps(path, bits), np.rint(noise() * 2 ** (bits - 1)))


@pytest.mark.parametrize(("extension", "container", "subtype"), INTEGERS)
def test_integers_come_back(extension: str, container: str, subtype: str, tmp_path: Path) -> None:
    source, target = tmp_path / f"a.{extension}", tmp_path / f"b.{extension}"
    x = np.random.default_rng(1).integers(-(2**31), 2**31, (3000, 2)).astype(np.int32)
    if subtype.startswith("ALAC"):
        x //= 64  # libsndfile damages louder noise in two channels of ALAC itself
    soundfile.write(source, x, 16_000, subtype, format=container)
    with AudioReader(source) as reader, AudioWriter(target, reader.format, frames=3000) as writer:
        writer.write(reader.read(3000))
    before, after = (soundfile.read(path, dtype="int32")[0] for path in (source, target))
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE", "PCM_32"])
def test_dither_where_the_depth_falls(subtype: str, tmp_path: Path) -> None:
    """The error of triangular dither has the variance of three roundings, whatever the signal is."""
    fraction = 0.3  # of a step
    x = np.where(np.arange(100_000) % 2, 0.25, -0.25)[None] + fraction / 2**23
    write_audio(tmp_path / "a.flac", Audio(x, AudioFormat(16_000, 1, "WAV", subtype)))
    assert soundfile.info(tmp_path / "a.flac").subtype == "PCM_24"
    error = read_steps(tmp_path / "a.flac", 24) - x * 2**23
    assert error.mean() == pytest.approx(0, abs=0.01)
    assert error.var() == pytest.approx(3 / 12, rel=0.03)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE", "PCM_32"])
def test_samples_that_fit_get_no_dither(subtype: str, tmp_path: Path) -> None:
    x = np.rint(noise() * 2**23) / 2**23
    x[:, 5000:9000] = 0
    write_audio(tmp_path / "a.flac", Audio(x, AudioFormat(16_000, 1, "WAV", subtype)))
    np.testing.assert_array_equal(read_steps(tmp_path / "a.flac", 24), x * 2**23)


@pytest.mark.parametrize("subtype", ["ULAW", "IMA_ADPCM", "GSM610", "VORBIS"])
def test_no_dither_where_the_depth_rises(subtype: str, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.flac", Audio(noise(), AudioFormat(16_000, 1, "WAV", subtype)))
    assert soundfile.info(tmp_path / "a.flac").subtype == "PCM_24"
    np.testing.assert_array_equal(read_steps(tmp_path / "a.flac", 24), np.rint(noise() * 2**23))


def test_file_and_pipe_are_the_same(tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32"):
        audio = Audio(noise() * 8, AudioFormat(16_000, 1, "WAV", subtype))  # which clips
        pipe = Pipe()
        write_audio(pipe, audio)
        write_audio(tmp_path / f"{subtype}.wav", audio)
        piped, filed = read_audio(io.BytesIO(pipe.getvalue())), read_audio(tmp_path / f"{subtype}.wav")
        np.testing.assert_array_equal(piped.samples, filed.samples)


@pytest.mark.parametrize("format", ["MP3", "OGG"])
def test_lossy_to_wav(format: str, tmp_path: Path) -> None:
    """24 bits, so that neither rounding nor dither adds to the sound that was decoded."""
    soundfile.write(tmp_path / "a", noise().T, 44_100, format=format)
    audio: Any = read_audio(tmp_path / "a")
    write_audio(tmp_path / "a.wav", audio)
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_24"
    np.testing.assert_array_equal(read_steps(tmp_path / "a.wav", 24), np.rint(audio.samples.astype(float) * 2**23))
