"""Positions of channels against those of files that FFmpeg wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from denoise.files.audio import channel_names, read_audio
from denoise.pipelines import AudioPipeline
from denoise.signals import AudioFormat, AudioMetadata
from tests.pipelines.test_media_tracks import RATE, decode, write_track

av = pytest.importorskip("av")


FORMATS = [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")]


def tones(n: int) -> NDArray[np.float64]:
    """Tones of levels 6 dB apart, (channels, time), which tell channels in whatever order."""
    return 0.5 ** np.arange(1, n + 1)[:, None] * np.sin(2 * np.pi * 80 / RATE * np.arange(RATE))


def check_names(path: Path) -> None:
    layout, decoded = decode(path)
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    audio = read_audio(path)
    by_level, expected = (np.argsort(np.square(x).mean(axis=1)) for x in (audio.samples, decoded))
    assert [channel_names(audio.format)[i] for i in by_level] == [names[i] for i in expected]


@pytest.mark.parametrize(
    ("container", "codec", "channels"),
    [
        *(("WAVEX", "PCM_16", n) for n in (6, 8)),  # libsndfile states no positions of seven
        *((container, codec, n) for container, codec in FORMATS for n in (6, 7, 8)),
    ],
)
def test_each_channel_has_the_name_that_ffmpeg_gives_it(
    container: str, codec: str, channels: int, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a", tones(channels).T, RATE, codec, format=container)
    check_names(tmp_path / "a")


@pytest.mark.parametrize("layout", ["5.1", "7.1(wide)"])
def test_each_channel_of_a_media_file_has_its_name(layout: str, tmp_path: Path) -> None:
    check_names(write_track(tmp_path / "a.m4a", "alac", layout, tones(av.AudioLayout(layout).nb_channels)))


def test_channels_without_positions_have_numbers() -> None:
    for container in ("WAV", "FLAC", "OGG"):
        assert channel_names(AudioFormat(RATE, 2, container)) == ["1", "2"]
    assert channel_names(AudioFormat(RATE, 6)) == [*"123456"]  # perhaps six microphones
    assert channel_names(AudioFormat(RATE, 6, metadata=AudioMetadata(channel_mask=0))) == [*"123456"]
    assert channel_names(AudioFormat(RATE, 4, metadata=AudioMetadata(channel_mask=0b1001))) == ["FL", "LFE", "3", "4"]


def test_a_stated_mask_is_stronger_than_that_of_flac(tmp_path: Path) -> None:
    path = tmp_path / "microphones.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (RATE, 6)), RATE, format="WAVEX")
    header = bytearray(path.read_bytes())
    header[40:44] = bytes(4)  # the mask
    path.write_bytes(header)
    AudioPipeline("speech").file(path, tmp_path / "microphones.flac", strength=0.0)
    assert channel_names(read_audio(tmp_path / "microphones.flac").format) == [*"123456"]
