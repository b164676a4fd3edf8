"""Positions of channels against those of files that FFmpeg wrote."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from denoise.files.audio import AudioWriter, channel_names, read_audio
from denoise.files.audio.ogg_pages import read_pages
from denoise.pipelines import AudioPipeline
from denoise.signals import AudioFormat, AudioMetadata
from tests.pipelines.test_media import RATE
from tests.pipelines.test_media_tracks import decode, keep, write_track

av = pytest.importorskip("av")


FORMATS = [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")]
LAYOUTS = {3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
TONES = {"FL": 300, "FR": 600, "FC": 900, "LFE": 60, "BL": 1200, "BR": 1500, "BC": 1800, "SL": 2100, "SR": 2400}


@pytest.fixture(scope="module")
def pipeline() -> AudioPipeline:
    return AudioPipeline("speech")


def sines(frequencies: list[int]) -> NDArray[np.float64]:
    """A tone for each channel, (channels, time)."""
    return 0.2 * np.sin(2 * np.pi * np.array(frequencies)[:, None] * np.arange(RATE) / RATE)


def find_tones(path: Path) -> dict[str, int]:
    """The tone of each channel by FFmpeg's name of its position; FLAC and AC-3 call those at the back of 5.1 side."""
    layout, x = decode(path)
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    if "BL" not in names and len(names) < 7:
        names = [name.replace("S", "B") for name in names]
    assert min(np.abs(x).max(axis=1)) > 0.1
    return dict(zip(names, peak_frequencies(x), strict=True))


def peak_frequencies(x: NDArray[np.float64]) -> list[int]:
    """The frequency of each channel in Hz, of half a second in the middle."""
    spectra = np.fft.rfft(x[:, RATE // 4 : RATE * 3 // 4] * np.hanning(RATE // 2))
    return [2 * int(i) for i in np.abs(spectra).argmax(axis=1)]


@pytest.mark.parametrize("channels", LAYOUTS)
def test_each_loudspeaker_of_a_wav_keeps_its_sound(channels: int, pipeline: AudioPipeline, tmp_path: Path) -> None:
    names = [channel.name for channel in av.AudioLayout(LAYOUTS[channels]).channels]
    x = sines([TONES[name] for name in names])
    path = write_track(tmp_path / "a.wav", "pcm_s16le", LAYOUTS[channels], x)
    for extension in (".ogg", ".opus", ".wav", ".flac", ".m4a", ".caf", ".aiff"):
        if (extension, channels) == (".m4a", 7):  # FFmpeg's AAC of 6.1 states no names
            continue
        target, result = keep(pipeline, path, f"b{extension}")
        assert find_tones(target) == {name: TONES[name] for name in names}, extension
        assert not [warning for warning in result.warnings if "mask" in warning]
        if extension in (".caf", ".aiff"):
            assert find_tones(keep(pipeline, target, f"{extension[1:]}.wav")[0]) == find_tones(target), extension


@pytest.mark.parametrize("channels", LAYOUTS)
@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_each_loudspeaker_of_an_ogg_keeps_its_sound(
    codec: str, channels: int, pipeline: AudioPipeline, tmp_path: Path
) -> None:
    frequencies = [300, 600, 900, 1200, 1500, 1800, 2100, 60][: channels - (channels > 5)] + [60] * (channels > 5)
    path = tmp_path / "a.ogg"
    soundfile.write(path, sines(frequencies).T, RATE, codec, format="OGG")  # in whatever order the specification has
    expected = find_tones(path)
    assert sorted(expected.values()) == sorted(frequencies)
    for name in ("b.ogg", "b.opus", "b.wav", "b.flac"):
        assert find_tones(keep(pipeline, path, name)[0]) == expected, name


def test_channels_of_opus_without_positions_keep_their_order(pipeline: AudioPipeline, tmp_path: Path) -> None:
    frequencies = [300, 600, 900, 1200, 1500, 60]
    soundfile.write(tmp_path / "a.opus", sines(frequencies).T, RATE, "OPUS", format="OGG")
    data = bytearray((tmp_path / "a.opus").read_bytes())
    head = data.index(b"OpusHead")
    data[head + 18] = 255  # the family of channels that are no loudspeakers
    page = next(read_pages(io.BytesIO(bytes(data))))
    path = tmp_path / "b.opus"
    path.write_bytes(page.pack() + data[len(page.pack()) :])
    assert channel_names(read_audio(path).format) == [*"123456"]
    layout, x = decode(keep(pipeline, path, "c.wav")[0])
    assert layout == "6 channels"
    assert peak_frequencies(x) == frequencies


def test_positions_that_a_container_does_not_hold_are_named(pipeline: AudioPipeline, tmp_path: Path) -> None:
    path = write_track(tmp_path / "a.wav", "pcm_s16le", "3.1", sines([300, 600, 900, 60]))
    for extension in (".ogg", ".w64"):
        _, result = keep(pipeline, path, f"b{extension}")
        assert [warning for warning in result.warnings if "without the channel mask" in warning]


@pytest.mark.parametrize(("extension", "channels", "mask"), [(".m4a", 6, 0x30F), (".ac3", 6, 0x633)])
def test_positions_that_an_encoder_does_not_know_are_named(
    extension: str, channels: int, mask: int, tmp_path: Path
) -> None:
    form = AudioFormat(RATE, channels, format="WAV", metadata=AudioMetadata(channel_mask=mask))
    with AudioWriter(tmp_path / f"a{extension}", form) as writer:
        writer.write(sines([300] * channels).astype(np.float32))
    assert any("does not know the loudspeakers" in warning for warning in writer.warnings)
    assert len(decode(tmp_path / f"a{extension}")[1]) == channels


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
