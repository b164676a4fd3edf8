"""Video and audio that FFmpeg reads: tracks in step to the sample, everything else untouched, one line per error."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy.signal import correlate

from denoise.errors import InputError
from denoise.files.audio import AUDIO_EXTENSIONS, MediaTrack, read_audio, write_audio
from denoise.files.audio.registry import container_of_extension
from denoise.pipelines import AudioPipeline
from denoise.pipelines.batch import plan
from denoise.pipelines.noise_segment import read_noise
from denoise.signals import Audio, AudioFormat

av = pytest.importorskip("av")

FPS, SECONDS, RATE = 25, 3, 48_000
SUBTITLES = [(Fraction(1, 2), Fraction(1), "Hello"), (Fraction(2), Fraction(1, 2), "World")]
CHAPTERS = [(0, 1500, "one"), (1500, 3000, "two")]


def noise(channels: int, seconds: float = SECONDS, rate: int = RATE, seed: int = 0) -> NDArray[np.float32]:
    """White noise below 3 kHz, which lossy codecs keep, in 16 bits."""
    n = round(seconds * rate)
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(0, 1, (channels, n)))
    spectrum[:, round(3000 * seconds) :] = 0
    x = np.fft.irfft(spectrum, n)
    return (np.rint(0.3 * x / np.abs(x).max() * 2**15) / 2**15).astype(np.float32)


def encode(stream: Any, x: NDArray[Any], rate: int, start: Fraction, gap: tuple[int, int] | None) -> list[Any]:
    """Encode samples from a time on, with a gap of some samples after some."""
    packets = []
    kind = stream.codec_context.format
    for first in range(0, x.shape[1], 960):
        block = x[:, first : first + 960]
        if kind.packed.name in ("s16", "s32"):
            bits = 16 if kind.packed.name == "s16" else 32
            block = (block.astype(np.float64) * 2 ** (bits - 1)).astype(f"int{bits}")
        block = block if kind.is_planar else block.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), kind.name, stream.codec_context.layout.name)
        late = gap[1] if gap and first >= gap[0] else 0
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = round(start * rate) + first + late
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def write_film(
    path: Path,
    tracks: list[tuple[str, NDArray[Any]]],
    *,
    rate: int = RATE,
    start: Fraction = Fraction(0),
    gap: tuple[int, int] | None = None,
    video: str | None = "libx264",
    subtitles: str | None = None,
    chapters: bool = False,
    attachment: bool = False,
    bit_rate: int = 96_000,
) -> Path:
    """Write a media file with PyAV; the audio starts at a time after the video."""
    with av.open(str(path), "w", format={".m4v": "mp4", ".mpg": "vob"}.get(path.suffix)) as media:
        media.metadata.update({"title": "Tälk", "artist": "Zoë", "comment": "one; two"})
        packets = []
        if video:
            pictures = media.add_stream(video, rate=FPS, width=64, height=48, time_base=Fraction(1, FPS))
            pictures.pix_fmt = "yuv420p"
            pictures.metadata.update({"language": "jpn"})
        streams = []
        for i, (codec, x) in enumerate(tracks):
            stream = media.add_stream(codec, rate=rate)
            stream.layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(x)]
            if codec not in ("flac", "alac", "tta", "wavpack") and not codec.startswith("pcm"):
                stream.bit_rate = bit_rate
            if codec in ("tta", "wavpack"):
                stream.format = "s16" if codec == "tta" else "s16p"
            stream.metadata.update({"language": ("deu", "fra")[i]})
            stream.disposition = int(i == 0)
            streams.append(stream)
        if subtitles:
            text = media.add_mux_stream(subtitles)
            text.time_base = Fraction(1, 1000)
            text.metadata.update({"language": "eng"})
        if attachment:
            media.add_attachment("font.ttf", "application/x-truetype-font", bytes(range(256)))
        if chapters:
            media.set_chapters(
                [
                    {"id": i, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                    for i, (a, b, title) in enumerate(CHAPTERS)
                ]
            )
        if video:
            for i in range(FPS * SECONDS):
                level = np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8)
                frame = av.VideoFrame.from_ndarray(level, "rgb24")
                frame.pts, frame.time_base = i, Fraction(1, FPS)
                packets += pictures.encode(frame)
            packets += pictures.encode(None)
        for stream, (_, x) in zip(streams, tracks, strict=True):
            packets += encode(stream, x, rate, start, gap)
        if subtitles:
            for begin, duration, words in SUBTITLES:
                data = words.encode() if subtitles == "subrip" else len(words).to_bytes(2, "big") + words.encode()
                packet = av.Packet(data)
                packet.time_base, packet.stream = Fraction(1, 1000), text
                packet.pts = packet.dts = round(begin * 1000)
                packet.duration = round(duration * 1000)
                packets.append(packet)
        packets.sort(key=lambda packet: (packet.dts or 0) * packet.time_base)
        media.mux(packets)
    return path


def audio_on_clock(path: Path, track: int = 0, rate: int = RATE) -> NDArray[Any]:
    """Decode a track with PyAV alone, placed by its time stamps relative to those of the first picture, or to 0 s."""
    with av.open(str(path)) as media:
        start = Fraction(0)
        if media.streams.video:
            start = min(packet.pts * packet.time_base for packet in media.demux(video=0) if packet.size)
    with av.open(str(path)) as media:
        stream = media.streams.audio[track]
        end, y = -rate, np.zeros((stream.layout.nb_channels, round((SECONDS + 4) * rate)))
        for frame in media.decode(stream):
            x = frame.to_ndarray().astype(np.float64)
            x /= {"s16": 2**15, "s32": 2**31}.get(frame.format.packed.name, 1)
            x = x if frame.format.is_planar else x.reshape(-1, len(y)).T
            first = end if frame.pts is None else round((frame.pts * frame.time_base - start) * rate)
            if abs(first - end) < 0.005 * rate:  # a frame follows the one before it; its time stamp is rounded
                first = end
            end = first + x.shape[1]
            y[:, max(first, 0) : max(end, 0)] = x[:, max(-first, 0) :]
    return y


def lag(x: NDArray[Any], y: NDArray[Any]) -> int:
    """Samples by which ``y`` comes after ``x``, one channel each; asserts that they are alike."""
    correlation = correlate(y, x, method="fft")
    assert correlation.max() > 0.8 * np.sqrt((x**2).sum() * (y**2).sum())
    return int(correlation.argmax()) - len(x) + 1


def describe(path: Path) -> dict[str, Any]:
    """What PyAV reads of a file beside its sound."""
    with av.open(str(path)) as media:
        streams = [
            (
                stream.type,
                stream.codec_context.codec.canonical_name if stream.codec_context else None,
                stream.metadata.get("language"),
                int(stream.disposition),
                (stream.rate, stream.layout.name) if stream.type == "audio" else None,
                stream.data if stream.type == "attachment" else None,
            )
            for stream in media.streams
            if stream.type != "data"
        ]
        tags = {key.lower(): text for key, text in media.metadata.items()}
        chapters = [
            (item["start"] * item["time_base"], item["end"] * item["time_base"], item["metadata"])
            for item in media.chapters()
        ]
        packets: dict[int, list[Any]] = {}
        for packet in media.demux():
            is_cue = packet.stream.type == "subtitle" and bytes(packet) != b"\0\0"  # between cues, in MP4
            if packet.size and (packet.stream.type == "video" or is_cue):
                seconds = (packet.pts or 0) * packet.time_base
                packets.setdefault(packet.stream_index, []).append((seconds, bytes(packet), packet.is_keyframe))
    start = min((times[0][0] for times in packets.values()), default=Fraction(0))
    start = packets[0][0][0] if 0 in packets else start
    times = {i: [seconds - start for seconds, *_ in items] for i, items in packets.items()}
    return {
        "streams": streams,
        "tags": {key: tags.get(key) for key in ("title", "artist", "comment")},
        "chapters": chapters,
        "packets": {i: [rest for _, *rest in items] for i, items in packets.items()},
        "times": times,
    }


@pytest.fixture(scope="module")
def pipeline() -> AudioPipeline:
    return AudioPipeline("speech")


Copy = Callable[..., Path]


@pytest.fixture
def keep(pipeline: AudioPipeline, tmp_path: Path) -> Copy:
    """``keep(path, name)``: the file through the pipeline at strength 0, so that the sound stays as it is."""

    def run(path: Path, name: str | None = None, warnings: tuple[str, ...] = ()) -> Path:
        target = tmp_path / "out" / (name or path.name)
        result = pipeline.file(path, target, strength=0.0)
        assert len(result.warnings) == len(warnings)
        for warning, expected in zip(result.warnings, warnings, strict=True):
            assert expected in warning
        return target

    return run


FILMS = [
    ("a.mp4", "aac", {"subtitles": "mov_text", "chapters": True}),
    ("a.mp4", "alac", {}),
    ("a.mp4", "libmp3lame", {}),
    ("a.m4v", "ac3", {"bit_rate": 192_000}),
    ("a.mov", "pcm_s16le", {"chapters": True}),
    ("a.mov", "pcm_s24le", {}),
    ("a.3gp", "aac", {}),
    ("a.mkv", "flac", {"subtitles": "subrip", "chapters": True, "attachment": True}),
    ("a.mkv", "aac", {}),
    ("a.mkv", "libopus", {}),
    ("a.mkv", "pcm_s16le", {"start": Fraction(1, 4)}),
    ("a.webm", "libopus", {"video": "libvpx"}),
    ("a.ts", "aac", {}),
    ("a.m2ts", "ac3", {"bit_rate": 192_000}),
    ("a.mpg", "mp2", {"video": "mpeg2video", "bit_rate": 192_000}),
    ("a.avi", "pcm_s16le", {"video": "mpeg4"}),
    ("a.wmv", "wmav2", {"video": "mpeg4", "bit_rate": 128_000}),
    ("a.flv", "aac", {}),
    ("a.mp4", "aac", {"start": Fraction(1, 3)}),
    ("a.mov", "pcm_s16le", {"start": Fraction(1, 3)}),
]
LOSSLESS = ("alac", "flac", "pcm_s16le", "pcm_s24le")
MS_CONTAINERS = (".mkv", ".webm", ".flv", ".wmv")  # whose clocks tick in milliseconds


@pytest.mark.parametrize(("name", "codec", "options"), FILMS, ids=lambda value: str(value))
def test_films_keep_their_streams_and_the_sound_stays_in_step(
    name: str, codec: str, options: dict[str, Any], keep: Copy, tmp_path: Path
) -> None:
    path = write_film(tmp_path / name, [(codec, noise(2))], **options)
    out = keep(path)
    before, after = describe(path), describe(out)
    for key in ("streams", "tags", "packets"):
        assert after[key] == before[key], key
    tolerance = 0.0011 if out.suffix in MS_CONTAINERS else 0.05 if out.suffix == ".mpg" else 1e-6  # MPEG has few stamps
    for times, kept in zip(before["times"].values(), after["times"].values(), strict=True):
        assert np.allclose(np.array(times, float), np.array(kept, float), atol=tolerance)
    assert [chapter[2] for chapter in after["chapters"]] == [chapter[2] for chapter in before["chapters"]]
    assert [chapter[:2] for chapter in after["chapters"]] == [chapter[:2] for chapter in before["chapters"]]
    a, b = audio_on_clock(path), audio_on_clock(out)
    if codec in LOSSLESS and out.suffix not in MS_CONTAINERS:
        assert np.array_equal(a, b)
    else:
        assert abs(lag(a[0], b[0])) <= (round(0.0011 * RATE) if out.suffix in MS_CONTAINERS else 1)


def test_each_of_several_tracks_is_denoised(pipeline: AudioPipeline, tmp_path: Path) -> None:
    path = write_film(tmp_path / "talk.mp4", [("aac", noise(1, seed=1)), ("alac", noise(2, seed=2))])
    result = pipeline.file(path, tmp_path / "clean.mp4")
    before, after = describe(path), describe(tmp_path / "clean.mp4")
    assert after == before
    for track in (0, 1):
        x, y = audio_on_clock(path, track), audio_on_clock(tmp_path / "clean.mp4", track)
        assert (y[:, RATE:] ** 2).sum() < 0.1 * (x[:, RATE:] ** 2).sum()  # noise alone
    assert ["the level fell by" in warning for warning in result.warnings] == [True, True]
    assert result.speed > 0


def test_noise_profiles_are_of_the_track(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", [("flac", 0.01 * noise(1, seed=1)), ("flac", noise(1, seed=2))], video=None)
    with path.open("rb") as file:
        track = MediaTrack(file, "a.mkv", container_of_extension(".mkv"), 1)
        x, rate = read_noise(track, (0.5, 1.0))
    assert rate == RATE
    assert np.array_equal(x, noise(1, seed=2)[:, RATE // 2 : RATE])


def test_a_stream_has_the_container_of_the_source(pipeline: AudioPipeline, tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", [("flac", noise(2))], subtitles="subrip", chapters=True)
    target = io.BytesIO()
    options = {"strength": 0.0}
    with path.open("rb") as file:
        pipeline.file(file, target, **options)
    (tmp_path / "b.mkv").write_bytes(target.getvalue())
    assert describe(tmp_path / "b.mkv") == describe(path)
    (tmp_path / "c.mkv").write_bytes(pipeline.bytes(path.read_bytes(), **options))
    assert describe(tmp_path / "c.mkv") == describe(path)


def test_gaps_that_recorders_leave_become_silence(keep: Copy, tmp_path: Path) -> None:
    x = noise(1)
    path = write_film(tmp_path / "a.mkv", [("pcm_s16le", x)], gap=(48_000, 24_000))
    out = keep(path, warnings=("have gaps: 0.50 s of silence are inserted",))
    assert np.array_equal(audio_on_clock(out), audio_on_clock(path))
    y = read_audio(out).samples
    assert y.shape[1] == x.shape[1] + 24_000
    assert np.array_equal(y[:, :48_000], x[:, :48_000])
    assert not y[:, 48_000:72_000].any()
    assert np.array_equal(y[:, 72_000:], x[:, 48_000:])


def test_jumps_of_the_clock_are_refused(pipeline: AudioPipeline, tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mkv", [("pcm_s16le", noise(1))], gap=(48_000, 5000 * RATE))
    with pytest.raises(InputError, match=r"a.mkv: the time stamps of audio track 1 jump by 5,000.0 s after 1.0 s"):
        pipeline.file(path, tmp_path / "b.mkv", strength=0.0)
    assert not list(tmp_path.glob("*b*"))


def test_a_film_that_was_cut_without_encoding_stays_in_step(keep: Copy, tmp_path: Path) -> None:
    path = write_film(tmp_path / "whole.mp4", [("aac", noise(2))])
    cut = tmp_path / "cut.mp4"
    with av.open(str(path)) as media, av.open(str(cut), "w") as output:  # as phones cut: the edit list hides the start
        streams = [output.add_stream_from_template(stream, opaque=True) for stream in media.streams]
        for packet in media.demux():
            if packet.size:
                delay = round(Fraction(13, 10) / packet.time_base)
                packet.pts, packet.dts = packet.pts - delay, packet.dts - delay
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
    out = keep(cut)

    def pictures(path: Path) -> list[tuple[float, float]]:
        with av.open(str(path)) as media:
            return [(frame.time, float(frame.to_ndarray().mean())) for frame in media.decode(video=0)]

    assert pictures(out) == pictures(cut)
    with av.open(str(out)) as after, av.open(str(cut)) as before:
        assert after.duration == pytest.approx(before.duration, abs=50_000)
        assert 1_600_000 < after.duration < 1_800_000

    def sound(path: Path) -> NDArray[Any]:
        return np.concatenate([frame.to_ndarray() for frame in av.open(str(path)).decode(audio=0)], axis=1)[0]

    assert lag(sound(cut), sound(out)) == 0


RECORDINGS = [  # extension, FFmpeg's encoder, sample rate, channels, delay in samples that the file cannot state
    (".m4a", "aac", 44_100, 2, 0),
    (".m4a", "alac", 44_100, 2, 0),
    (".m4b", "aac", 22_050, 1, 0),
    (".mka", "flac", 96_000, 6, 0),
    (".mka", "libopus", 48_000, 1, 0),
    (".wma", "wmav2", 44_100, 2, 0),
    (".amr", "libopencore_amrnb", 8_000, 1, 160),
    (".ac3", "ac3", 48_000, 6, 256),
    (".eac3", "eac3", 48_000, 2, 256),
    (".aac", "aac", 44_100, 2, 1024),
    (".tta", "tta", 44_100, 2, 0),
    (".wv", "wavpack", 48_000, 2, 0),
]


@pytest.mark.parametrize(("extension", "codec", "rate", "channels", "delay"), RECORDINGS)
def test_recordings_keep_their_codec_and_stay_in_step(
    extension: str, codec: str, rate: int, channels: int, delay: int, keep: Copy, tmp_path: Path
) -> None:
    x = noise(channels, rate=rate)
    bit_rate = {"libopencore_amrnb": 12_200, "ac3": 384_000}.get(codec, 128_000)
    path = write_film(tmp_path / f"a{extension}", [(codec, x)], rate=rate, video=None, bit_rate=bit_rate)
    out = keep(path)
    assert describe(out) == describe(path)
    before, after = read_audio(path), read_audio(out)
    assert (after.format.sample_rate, after.format.channels) == (rate, channels)
    assert after.format.tags == before.format.tags
    if delay == 0:
        assert after.samples.shape == before.samples.shape
    if codec in ("alac", "flac", "tta", "wavpack"):
        assert np.array_equal(before.samples, x)
        assert np.array_equal(after.samples, x)
    assert abs(lag(before.samples[0], after.samples[0])) <= delay
    with av.open(str(path)) as a, av.open(str(out)) as b:
        if a.streams.audio[0].bit_rate:
            assert b.streams.audio[0].bit_rate == pytest.approx(a.streams.audio[0].bit_rate, rel=0.15)


def test_cover_pictures_stay(keep: Copy, tmp_path: Path) -> None:
    picture = io.BytesIO()
    with av.open(picture, "w", format="mjpeg") as media:
        stream = media.add_stream("mjpeg", rate=1, width=32, height=32)
        stream.pix_fmt = "yuvj420p"
        media.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 200, np.uint8), "rgb24")))
        media.mux(stream.encode(None))
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as media:
        sound = media.add_stream("aac", rate=RATE)
        cover = media.add_mux_stream("mjpeg", width=32, height=32)
        cover.time_base, cover.disposition = Fraction(1, 90_000), av.stream.Disposition.attached_pic
        packet = av.Packet(picture.getvalue())
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = cover, 0, 0, True
        packets = encode(sound, noise(2), RATE, Fraction(0), None)
        media.mux([packet, *packets])
    out = keep(path)
    assert describe(out) == describe(path)
    assert picture.getvalue() in out.read_bytes()
    assert b"M4A " in out.read_bytes()[:12]


@pytest.mark.parametrize("has_index_first", [False, True])
def test_mp4_keeps_the_place_of_its_index_and_the_tags_of_phones(
    has_index_first: bool, keep: Copy, tmp_path: Path
) -> None:
    path = tmp_path / "a.mov"
    flags = {"movflags": "use_metadata_tags" + "+faststart" * has_index_first}
    tags = {"com.apple.quicktime.make": "Äpple", "com.apple.quicktime.location.ISO6709": "+48.1+011.5/", "title": "T"}
    with av.open(str(path), "w", container_options=flags) as media:
        media.metadata.update(tags)
        stream = media.add_stream("aac", rate=RATE)
        media.mux(encode(stream, noise(2), RATE, Fraction(0), None))
    out = keep(path)
    with av.open(str(out)) as media:
        assert {key: media.metadata[key] for key in tags} == tags
    data = out.read_bytes()
    assert (data.index(b"moov") < data.index(b"mdat")) == has_index_first


def test_cover_pictures_of_matroska_stay(keep: Copy, tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mka", [("flac", noise(1))], video=None)
    picture = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")
    picture += bytes.fromhex("0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082")
    with av.open(str(path)) as media, av.open(str(tmp_path / "b.mka"), "w", format="matroska") as output:
        stream = output.add_stream_from_template(media.streams.audio[0])
        output.add_attachment("cover.png", "image/png", picture)
        for packet in media.demux(audio=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    out = keep(tmp_path / "b.mka")
    with av.open(str(out)) as media:
        (cover,) = media.streams.video
        assert cover.disposition & av.stream.Disposition.attached_pic
        assert (cover.metadata["filename"], cover.metadata["mimetype"]) == ("cover.png", "image/png")
        assert bytes(next(packet for packet in media.demux(cover) if packet.size)) == picture


@pytest.mark.parametrize("name", ["a.mkv", "a.mov"])
def test_large_files_are_read_from_where_each_reader_stands(name: str, keep: Copy, tmp_path: Path) -> None:
    codec = "flac" if name == "a.mkv" else "pcm_s24le"
    x = np.random.default_rng(0).uniform(-1, 1, (6, 3 * RATE)).astype(np.float32)
    path = write_film(tmp_path / name, [(codec, x), (codec, x[::-1])])
    assert path.stat().st_size > 3 << 20
    out = keep(path)
    assert describe(out) == describe(path)
    for track in (0, 1):
        assert np.array_equal(audio_on_clock(out, track), audio_on_clock(path, track))


def test_other_containers(pipeline: AudioPipeline, keep: Copy, tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", [("aac", noise(2))])
    out = keep(path, "b.mkv")
    assert describe(out)["packets"] == describe(path)["packets"]
    assert abs(lag(audio_on_clock(path)[0], audio_on_clock(out)[0])) <= 0.0011 * RATE
    with pytest.raises(InputError, match=r"c.webm: webm does not hold h264, and video is copied as it is"):
        pipeline.file(path, tmp_path / "c.webm", strength=0.0)
    assert not list(tmp_path.glob("*c.*"))


def test_tags_without_a_place_are_reported(keep: Copy, tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_film(path, [("aac", noise(1))], video=None)
    with av.open(str(path)) as media, av.open(str(tmp_path / "b.mkv"), "w") as output:
        output.metadata.update({"title": "T", "WEATHER": "rain"})
        stream = output.add_stream_from_template(media.streams.audio[0])
        for packet in media.demux(audio=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    keep(tmp_path / "b.mkv", "b.mp4", warnings=("MP4 does not hold the tags WEATHER; they are left out",))
    with av.open(str(keep(tmp_path / "b.mkv", "c.mkv"))) as media:
        assert media.metadata["WEATHER"] == "rain"


def test_sound_of_films_in_audio_files(pipeline: AudioPipeline, tmp_path: Path) -> None:
    x = noise(2, seed=1)
    path = write_film(tmp_path / "talk.mov", [("pcm_s16le", x), ("pcm_s16le", noise(2, seed=2))])
    for name in ("a.wav", "a.flac", "a.m4a", "a.ogg"):
        result = pipeline.file(path, tmp_path / name, strength=0.0)
        assert [warning for warning in result.warnings if "holds 2 audio tracks; the first is read" in warning]
        y = read_audio(tmp_path / name)
        if name in ("a.wav", "a.flac"):
            assert np.array_equal(y.samples, x)
            assert soundfile.info(tmp_path / name).subtype == "PCM_16"
        assert y.format.sample_rate == RATE
        assert abs(lag(x[0], y.samples[0])) <= 1
        assert y.format.tags["title"] == "Tälk"
    with av.open(str(tmp_path / "a.m4a")) as media:
        assert [stream.type for stream in media.streams] == ["audio"]


def test_codecs_without_an_encoder_are_replaced_with_a_warning(keep: Copy, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.ogg", noise(2).T, RATE, subtype="VORBIS", format="OGG")
    with av.open(str(tmp_path / "a.ogg")) as media, av.open(str(tmp_path / "a.webm"), "w") as output:
        stream = output.add_stream_from_template(media.streams.audio[0])
        for packet in media.demux(audio=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    out = keep(tmp_path / "a.webm", warnings=("vorbis has no encoder here; the sound is written as opus at 48,000 Hz",))
    x, y = (read_audio(path).samples[0] for path in (tmp_path / "a.webm", out))
    assert abs(lag(x, y)) <= 0.0021 * RATE


def test_wav_becomes_m4a(pipeline: AudioPipeline, tmp_path: Path) -> None:
    x = noise(2)
    write_audio(tmp_path / "a.wav", Audio(x, AudioFormat(RATE, 2, "WAV", "PCM_16", tags={"title": "Tälk"})))
    pipeline.file(tmp_path / "a.wav", tmp_path / "a.m4a", strength=0.0)
    with av.open(str(tmp_path / "a.m4a")) as media:
        assert media.streams.audio[0].codec_context.codec.canonical_name == "aac"
        assert media.metadata["title"] == "Tälk"
    y = read_audio(tmp_path / "a.m4a").samples
    assert y.shape == x.shape
    assert lag(x[0], y[0]) == 0


def dsf(seconds: float) -> bytes:
    """A tone of 1 kHz as DSD of 64 times 44.1 kHz in a DSF file, by a modulator of the second order."""
    rate = 64 * 44_100
    n = round(seconds * rate) // 32_768 * 32_768
    bits, first, second = np.empty(n, np.uint8), 0.0, 0.0
    for i, value in enumerate((0.5 * np.sin(2 * np.pi * 1000 * np.arange(n) / rate)).tolist()):
        output = 1.0 if second >= 0 else -1.0
        bits[i] = output > 0
        first += value - output
        second += first - 2 * output
    data = np.packbits(bits, bitorder="little").tobytes()
    chunk = struct.pack("<4sQIIIIIIQII", b"fmt ", 52, 1, 0, 1, 1, rate, 1, n, 4096, 0)
    chunk += struct.pack("<4sQ", b"data", 12 + len(data)) + data
    return struct.pack("<4sQQQ", b"DSD ", 28, 28 + len(chunk), 0) + chunk


def test_dsd_becomes_flac(pipeline: AudioPipeline, tmp_path: Path) -> None:
    (tmp_path / "a.dsf").write_bytes(dsf(0.3))
    ((_, target),) = plan([str(tmp_path / "a.dsf")], None, AUDIO_EXTENSIONS)
    assert target == str(tmp_path / "a.denoised.flac")
    result = pipeline.file(tmp_path / "a.dsf", target, strength=0.0)
    assert "read at 88,200 Hz" in result.warnings[0]
    info = soundfile.info(target)
    assert (info.samplerate, info.subtype) == (88_200, "PCM_24")
    x = soundfile.read(target)[0]
    t = np.arange(len(x)) / 88_200
    tone = 0.5 * np.sin(2 * np.pi * 1000 * t)
    low = np.fft.rfft(x)[: int(20_000 * len(x) / 88_200)]
    expected = np.fft.rfft(tone)[: len(low)]
    assert np.abs(low).argmax() == np.abs(expected).argmax()
    assert np.abs(low).max() == pytest.approx(np.abs(expected).max(), rel=0.02)


def test_folders_and_default_names(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mkv", "c.m4a", "d.txt", "e.denoised.mp4"):
        (tmp_path / name).touch()
    pairs = plan([str(tmp_path)], None, AUDIO_EXTENSIONS)
    assert [Path(target).name for _, target in pairs] == ["a.denoised.mp4", "b.denoised.mkv", "c.denoised.m4a"]
    assert plan(["talk.mp4"], None, AUDIO_EXTENSIONS) == [("talk.mp4", "talk.denoised.mp4")]


def rename_entry(path: Path, name: bytes, other: bytes) -> None:
    """Rename a sample entry of an MP4, as those of encrypted tracks are named."""
    data = path.read_bytes()
    assert data.count(name) >= 1
    path.write_bytes(data.replace(name, other, 1))


def encrypted(path: Path) -> Path:
    rename_entry(write_film(path, [("aac", noise(1))], video=None), b"mp4a", b"drms")
    return path


def without_index(path: Path) -> Path:
    data = write_film(path, [("aac", noise(1))]).read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    return path


def silent_film(path: Path) -> Path:
    return write_film(path, [])


def empty_track(path: Path) -> Path:
    return write_film(path, [("flac", noise(1)[:, :0])])


def changing_rate(path: Path) -> Path:
    parts = [
        write_film(path.with_name(f"{rate}.aac"), [("aac", noise(1, rate=rate))], rate=rate, video=None).read_bytes()
        for rate in (48_000, 32_000)
    ]
    path.write_bytes(parts[0] + parts[1])
    return path


BAD = [
    (encrypted, "a.m4a", r"its audio is encrypted \(drms, DRM\); expected an unprotected file"),
    (
        without_index,
        "a.mp4",
        r"is cut off after [\d,]+ bytes: its index \(moov box\), which is written last, is missing",
    ),
    (silent_film, "a.mp4", r"has no sound, only video; expected an audio track"),
    (empty_track, "a.mkv", r"audio track 1 has no samples; expected at least one"),
    (changing_rate, "a.aac", r"audio track 1 changes from 48000 Hz mono fltp to 32000 Hz mono fltp after 3.0 s"),
]


@pytest.mark.parametrize(("make", "name", "message"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_bad_files_are_one_line(
    make: Callable[[Path], Path],
    name: str,
    message: str,
    pipeline: AudioPipeline,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = make(tmp_path / name)
    capfd.readouterr()
    for target in (tmp_path / "out" / name, tmp_path / "out" / "a.wav"):
        with pytest.raises(InputError, match=f"^[^\n]*{name}: {message}[^\n]*$"):
            pipeline.file(path, target, strength=0.0)
    assert not list((tmp_path / "out").glob("*"))
    assert capfd.readouterr() == ("", "")  # nothing of FFmpeg's log


def test_encrypted_pictures_are_not_copied_but_the_sound_is_read(pipeline: AudioPipeline, tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", [("aac", noise(1))])
    rename_entry(path, b"avc1\0\0", b"encv\0\0")
    with pytest.raises(InputError, match=r"b.mp4: the video is encrypted, or of a codec that FFmpeg does not know"):
        pipeline.file(path, tmp_path / "b.mp4", strength=0.0)
    assert not list(tmp_path.glob("*b.*"))
    pipeline.file(path, tmp_path / "b.wav", strength=0.0)
    assert lag(noise(1)[0], read_audio(tmp_path / "b.wav").samples[0]) == 0


def test_damaged_packets_are_left_out_with_a_warning(
    keep: Copy, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_film(tmp_path / "a.mov", [("alac", noise(2))], video=None)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + 100_000
    data[middle : middle + 20_000] = np.random.default_rng(0).bytes(20_000)
    path.write_bytes(data)
    out = keep(path, warnings=("are damaged and left out", "of silence are inserted"))
    assert capfd.readouterr() == ("", "")
    x, y = noise(2)[0], read_audio(out).samples[0]
    assert np.array_equal(x[-RATE:], y[-RATE:])


def test_a_film_that_ends_early_is_reported(keep: Copy, tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    with av.open(str(path), "w", container_options={"movflags": "faststart"}) as media:
        stream = media.add_stream("pcm_s16le", rate=RATE)
        media.mux(encode(stream, noise(2), RATE, Fraction(0), None))
    path.write_bytes(path.read_bytes()[: -4 * RATE])  # the last second
    keep(path, warnings=("audio track 1 ends after 2.0 of 3.0 s",))


def test_formats_that_are_only_read(pipeline: AudioPipeline, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", Audio(noise(1), AudioFormat(RATE, 1)))
    with pytest.raises(
        InputError, match=r"b.dsf: DSF is only read. Choose another extension of the output, such as .flac."
    ):
        pipeline.file(tmp_path / "a.wav", tmp_path / "b.dsf")
    with pytest.raises(InputError, match=r"b.amr: amr cannot hold 1 channels at 48000 Hz \(tried libopencore_amrnb\)"):
        pipeline.file(tmp_path / "a.wav", tmp_path / "b.amr")
    assert not list(tmp_path.glob("*b.*"))


def test_without_pyav_the_extra_is_named(
    pipeline: AudioPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_film(tmp_path / "a.mp4", [("aac", noise(1))])
    write_audio(tmp_path / "a.wav", Audio(noise(1), AudioFormat(RATE, 1)))
    monkeypatch.setitem(sys.modules, "av", None)
    for source, target in (("a.mp4", "b.mp4"), ("a.mp4", "b.wav"), ("a.wav", "b.m4a")):
        with pytest.raises(InputError, match=r'needs FFmpeg.* pip install "denoise-toolkit\[media\]"'):
            pipeline.file(tmp_path / source, tmp_path / target)
    pipeline.file(tmp_path / "a.wav", tmp_path / "c.wav")
    assert read_audio(tmp_path / "c.wav").format.sample_rate == RATE
    assert path.exists()


@pytest.mark.parametrize("extension", [".m4a", ".mp4"])
def test_recordings_behind_each_other_are_named(extension: str, keep: Copy, tmp_path: Path) -> None:
    path = write_film(tmp_path / f"one{extension}", [("aac", noise(1))], video=None)
    keep(path)
    joined = tmp_path / f"two{extension}"
    joined.write_bytes(2 * path.read_bytes())
    keep(joined, warnings=("holds 2 recordings behind each other; only the first, of 3.0 s, is read",))


@pytest.mark.parametrize("extension", [".mkv", ".webm"])
@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_cut_matroska_is_named(extension: str, fraction: float, keep: Copy, tmp_path: Path) -> None:
    path = write_film(tmp_path / f"whole{extension}", [("libopus", noise(1))], video=None)
    data = path.read_bytes()
    keep(path)
    cut = tmp_path / f"cut{extension}"
    cut.write_bytes(data[: round(fraction * len(data))])
    keep(cut, warnings=(f"is cut off after {round(fraction * len(data)):,} of {len(data):,} bytes",))
    live = bytearray(cut.read_bytes())
    segment = data.index(b"\x18\x53\x80\x67") + 4
    live[segment : segment + 8] = b"\x01" + b"\xff" * 7  # a recording that is still written states no length
    path.write_bytes(live)
    keep(path, f"live{extension}")


def test_mp2_stays_mp2(keep: Copy, tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp2", [("mp2", noise(2))], video=None)
    out = keep(path)
    assert describe(out) == describe(path)
    assert abs(lag(read_audio(path).samples[0], read_audio(out).samples[0])) <= 481  # the delay of its filter bank


def test_a_file_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session description that begins as an AVI: FFmpeg would wait for its stream on the network."""
    address = b"IN IP4 127.0.0.1"
    lines = (b"v=0", b"s=xxAVI ", b"o=- 0 0 " + address, b"c=" + address, b"t=0 0", b"m=audio 15004 RTP/AVP 0", b"")
    (tmp_path / "a.avi").write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match=r"a\.avi: cannot be read"):
        read_audio(tmp_path / "a.avi")
