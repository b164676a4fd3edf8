"""Tracks that FFmpeg and PyAV treat in their own way."""

from __future__ import annotations

import base64
import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from mutagen.oggflac import OggFLAC
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio import AUDIO_EXTENSIONS, read_audio
from denoise.pipelines import AudioPipeline
from denoise.pipelines.batch import plan
from denoise.pipelines.result import Result
from tests.pipelines.test_media import RATE, audio_on_clock, describe, lag, noise, write_film

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def pipeline() -> AudioPipeline:
    return AudioPipeline("speech")


def keep(pipeline: AudioPipeline, path: Path, name: str) -> tuple[Path, Result]:
    """The file through the pipeline at strength 0, so that the sound stays as it is."""
    target = path.parent / "out" / name
    return target, pipeline.file(path, target, strength=0.0)


def write_track(
    path: Path, codec: str, layout: str, x: NDArray[Any], rate: int = RATE, format: str | None = None
) -> Path:
    """Write one track with PyAV from packed 16-bit samples, which it converts to what the encoder takes."""
    with av.open(str(path), "w", format=format) as media:
        media.metadata["title"] = "Tälk"
        stream = media.add_stream(codec, rate=rate)
        stream.layout = layout
        if codec == "wavpack":
            stream.format = "s16p"
        if codec not in ("flac", "alac", "wavpack") and not codec.startswith(("pcm", "adpcm")):
            stream.bit_rate = min(96_000 * len(x), 640_000)
        for first in range(0, x.shape[1], 960):
            block = np.rint(x[:, first : first + 960].T.reshape(1, -1) * 2**15).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "s16", layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
            media.mux(stream.encode(frame))
        media.mux(stream.encode(None))
    return path


def decode(path: Path) -> tuple[str, NDArray[np.float64]]:
    """Decode a track to packed samples with PyAV alone; return its layout and (channels, time)."""
    blocks, resampler, layout = [], None, ""
    with av.open(str(path)) as media:
        for frame in media.decode(audio=0):
            layout = frame.layout.name
            resampler = resampler or av.AudioResampler("dbl", frame.layout, frame.sample_rate)
            blocks += [out.to_ndarray().reshape(-1, out.layout.nb_channels).T for out in resampler.resample(frame)]
    return layout, np.concatenate(blocks, axis=1)


SURROUND = [  # codec, extension, layout of the source, layout of the copy
    ("aac", ".m4a", "7.1", "7.1"),
    ("aac", ".mkv", "5.1", "5.1"),
    ("alac", ".m4a", "7.1(wide)", "7.1(wide)"),
    ("wavpack", ".wv", "7.1", "7.1"),
    ("flac", ".mka", "7.1", "7.1"),
    ("libopus", ".webm", "7.1", "7.1"),
    ("ac3", ".ac3", "5.1(side)", "5.1(side)"),
]


@pytest.mark.parametrize(("codec", "extension", "layout", "kept"), SURROUND)
def test_each_channel_of_surround_sound_stays_in_its_place(
    codec: str, extension: str, layout: str, kept: str, pipeline: AudioPipeline, tmp_path: Path
) -> None:
    x = noise(av.AudioLayout(layout).nb_channels)
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    path = write_track(tmp_path / f"a{extension}", codec, layout, x)
    target, _ = keep(pipeline, path, path.name)
    (_, before), (written, after) = decode(path), decode(target)
    assert written == kept
    for name, a, b in zip(names, before, after, strict=True):
        if name != "LFE":  # of which lossy codecs keep little
            assert abs(lag(a, b)) <= (256 if codec == "ac3" else 0), name
    if codec in ("alac", "wavpack", "flac"):
        assert np.array_equal(before, x)
        assert np.array_equal(after, x)


@pytest.mark.parametrize("extension", [".m4a", ".webm"])
def test_layouts_with_side_channels_become_those_that_the_codec_names(
    extension: str, pipeline: AudioPipeline, tmp_path: Path
) -> None:
    x = noise(6)
    path = write_track(tmp_path / "a.wv", "wavpack", "5.1(side)", x)
    layout, y = decode(keep(pipeline, path, f"b{extension}")[0])
    assert layout == "5.1"
    for i in (0, 1, 2, 4, 5):
        assert lag(x[i], y[i]) == 0


@pytest.mark.parametrize(("layout", "channels"), [("5.0", 5), ("6.1", 7)])
def test_opus_with_channels_in_another_order_is_not_written(
    layout: str, channels: int, pipeline: AudioPipeline, tmp_path: Path
) -> None:
    x = noise(channels)
    path = write_track(tmp_path / "a.mka", "flac", layout, x)
    with pytest.raises(InputError, match=f"b.webm: webm cannot hold {channels} channels at 48000 Hz"):
        keep(pipeline, path, "b.webm")
    opus = write_track(tmp_path / "c.mkv", "libopus", layout, x)
    _, result = keep(pipeline, opus, "c.mkv")
    assert "opus has no encoder here; the sound is written as aac" in result.warnings[0]


def test_tags_of_codecs_that_are_no_text(pipeline: AudioPipeline, tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.avi", [("aac", noise(2))], video="mpeg4")
    with av.open(str(path)) as media, pytest.raises(UnicodeDecodeError):
        _ = media.streams.audio[0].codec_context.codec_tag
    target, result = keep(pipeline, path, "a.avi")
    assert not result.warnings
    assert describe(target)["packets"] == describe(path)["packets"]


@pytest.mark.parametrize("name", ["b.wv", "b.mka", "b.wav"])
def test_damage_that_ffmpeg_cannot_pass_ends_the_sound_with_a_warning(
    name: str, pipeline: AudioPipeline, tmp_path: Path
) -> None:
    x = noise(2)
    path = write_track(tmp_path / "a.wv", "wavpack", "stereo", x)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    target, result = keep(pipeline, path, name)
    (warning, *others) = result.warnings
    assert "a.wv: is damaged after 1.0 s (Invalid data found when processing input); what follows is left" in warning
    assert all("b.mka: the input is damaged after 1.0 s" in other for other in others)
    y = read_audio(target).samples
    assert RATE <= y.shape[1] < 2 * RATE
    assert np.array_equal(y, x[:, : y.shape[1]])


def test_the_first_sound_of_wma_is_kept(pipeline: AudioPipeline, tmp_path: Path) -> None:
    x = noise(2)
    path = write_track(tmp_path / "a.mka", "flac", "stereo", x)
    _, y = decode(keep(pipeline, path, "a.wma")[0])
    assert y.shape[1] >= x.shape[1]
    assert lag(x[0], y[0]) == 0
    assert lag(x[0, :1024], y[0, :1024]) == 0


OTHER_CODECS = [  # extension, FFmpeg's codec and format, codec of the copy, whether it is kept bit for bit
    (".ogg", "flac", "ogg", "flac", True),
    (".oga", "flac", "oga", "flac", True),
    (".caf", "alac", "caf", "alac", True),
    (".caf", "flac", "caf", "pcm_s16be", True),
    (".wav", "ac3", "wav", "pcm_s24le", False),
]


@pytest.mark.parametrize(("extension", "codec", "format", "kept", "is_exact"), OTHER_CODECS)
def test_codecs_that_libsndfile_does_not_know_in_its_containers(
    extension: str, codec: str, format: str, kept: str, is_exact: bool, pipeline: AudioPipeline, tmp_path: Path
) -> None:
    x = noise(2)
    path = write_track(tmp_path / f"a{extension}", codec, "stereo", x, format=format)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.info(path)
    target, result = keep(pipeline, path, path.name)
    assert not result.warnings
    with av.open(str(target)) as media:
        (stream,) = media.streams
        assert stream.codec_context.codec.canonical_name == kept
        assert {**media.metadata, **stream.metadata}.get("title") == "Tälk" or extension == ".wav"
    for y in (decode(target)[1], decode(keep(pipeline, path, "b.flac")[0])[1]):
        if is_exact:
            assert np.array_equal(y, x)
        else:
            assert lag(x[0], y[0]) == 256  # the delay of the codec, which WAV does not state


def test_comments_and_pictures_of_flac_in_ogg_stay(pipeline: AudioPipeline, tmp_path: Path) -> None:
    path = write_track(tmp_path / "a.ogg", "flac", "stereo", noise(2), format="ogg")
    picture = bytes(range(256)) * 400
    comments = {"artist": ["Zoë", "Ann"], "metadata_block_picture": [base64.b64encode(picture_block(picture)).decode()]}
    tagged = OggFLAC(path)
    tagged.update(comments)
    tagged.save()
    target, _ = keep(pipeline, path, "b.ogg")
    written = OggFLAC(target)
    assert {name: written[name] for name in comments} == comments
    assert np.array_equal(decode(target)[1], noise(2))


def picture_block(data: bytes) -> bytes:
    """A FLAC picture: front cover, MIME type, no description, 1 x 1 pixel of 24 bits."""
    kind = b"image/jpeg"
    return struct.pack(">II", 3, len(kind)) + kind + struct.pack(">IIIIII", 0, 1, 1, 24, 0, len(data)) + data


def test_without_pyav_the_first_error_remains(
    pipeline: AudioPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_track(tmp_path / "a.caf", "alac", "stereo", noise(2))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"^[^\n]*a.caf: cannot be read as audio \(Supported file format but uns"):
        keep(pipeline, path, "b.caf")


def test_amr_wb_becomes_m4a(pipeline: AudioPipeline, tmp_path: Path) -> None:
    no_data = bytes([15 << 3 | 1 << 2])  # RFC 4867, section 5.3: frame type 15, of good quality, 20 ms
    path = tmp_path / "a.awb"
    path.write_bytes(b"#!AMR-WB\n" + 100 * no_data)
    ((_, target),) = plan([str(path)], None, AUDIO_EXTENSIONS)
    assert target == str(tmp_path / "a.denoised.m4a")
    pipeline.file(path, target)
    assert read_audio(target).format.sample_rate == 16_000
    assert read_audio(target).samples.shape == (1, 100 * 320)
    with pytest.raises(InputError, match=r"b.awb: AWB is only read. Choose another extension of the output"):
        pipeline.file(path, tmp_path / "b.awb")


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes are files on POSIX alone")
@pytest.mark.parametrize("name", ["pipe", "pipe.mkv"])
def test_films_are_written_into_named_pipes(name: str, pipeline: AudioPipeline, tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", [("flac", noise(2))], subtitles="subrip", chapters=True)
    os.mkfifo(tmp_path / name)
    with ThreadPoolExecutor() as pool:
        received = pool.submit((tmp_path / name).read_bytes)
        pipeline.file(path, tmp_path / name, strength=0.0)
        (tmp_path / "b.mkv").write_bytes(received.result(timeout=10))
    assert (tmp_path / name).is_fifo()
    assert describe(tmp_path / "b.mkv") == describe(path)
    assert np.array_equal(decode(tmp_path / "b.mkv")[1], noise(2))


@pytest.mark.parametrize("name", ["b.wav", "b.mka"])
def test_a_target_without_space_is_one_line(name: str, pipeline: AudioPipeline, tmp_path: Path) -> None:
    path = write_track(tmp_path / "a.mka", "flac", "stereo", noise(2))
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError, match=rf"^[^\n]*{name}: cannot be written \(File too large\)[^\n]*$"):
            pipeline.file(path, tmp_path / name, strength=0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mka"]


def test_mp3_in_avi_stays_in_step(pipeline: AudioPipeline, tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.avi", [("libmp3lame", noise(1))], video="mpeg4")
    target, _ = keep(pipeline, path, "b.avi")
    before, after = audio_on_clock(path), audio_on_clock(target)
    assert abs(lag(before[0], after[0])) <= RATE // 1000
