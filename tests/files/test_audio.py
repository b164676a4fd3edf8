"""Reading and writing keeps samples, rate, channels, length, format and tags of recordings."""

from __future__ import annotations

import errno
import io
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio import AudioReader, AudioWriter, RawFormat, read_audio, write_audio
from denoise.files.audio import wav as wav_container
from denoise.signals import Audio, AudioFormat

PCM = {"PCM_U8": (1, 8), "PCM_16": (1, 16), "PCM_24": (1, 24), "PCM_32": (1, 32), "FLOAT": (3, 32), "DOUBLE": (3, 64)}
GUID = bytes.fromhex("000000001000800000aa00389b71")
TAGS = {"title": "Tea", "artist": "Zoë", "comment": "one, two", "date": "2024", "album": "Cups", "genre": "Talk"}


def random_frames(subtype: str, n: int, channels: int = 1) -> bytes:
    """Return random samples as a WAV file stores them, with both ends of the range among them."""
    rng = np.random.default_rng(n + channels)
    if subtype in ("FLOAT", "DOUBLE"):
        x = rng.normal(0, 2, (n, channels))  # floats may leave [-1, 1]
        return x.astype("<f4" if subtype == "FLOAT" else "<f8").tobytes()
    width = PCM[subtype][1] // 8
    data = bytearray(rng.bytes(n * channels * width))
    data[:width] = bytes(width - 1) + (b"\x00" if width == 1 else b"\x80")
    data[-width:] = b"\xff" * (width - 1) + (b"\xff" if width == 1 else b"\x7f")
    return bytes(data)


def encode_wav(
    data: bytes,
    subtype: str = "PCM_16",
    channels: int = 1,
    rate: int = 16_000,
    *,
    size: int | None = None,
    variant: str = "WAV",
    trailing_chunks: bytes = b"",
) -> bytes:
    """Return a WAV file by the specification, without a library; ``size`` is what its header declares."""
    code, bits = PCM[subtype]
    align = channels * bits // 8
    fmt = struct.pack("<HHIIHH", code if variant != "WAVEX" else 0xFFFE, channels, rate, rate * align, align, bits)
    if variant == "WAVEX":
        fmt += struct.pack("<HHIH", 22, bits, 0, code) + GUID
    chunks = struct.pack("<4sI", b"fmt ", len(fmt)) + fmt
    size = len(data) if size is None else size
    body = data + b"\0" * (len(data) % 2) + trailing_chunks
    if variant == "RF64":
        total = 4 + 36 + len(chunks) + 8 + len(body)
        ds64 = struct.pack("<4sIQQQI", b"ds64", 28, total, size, len(data) // max(1, align), 0)
        return b"RF64\xff\xff\xff\xffWAVE" + ds64 + chunks + b"data\xff\xff\xff\xff" + body
    total = min(4 + len(chunks) + 8 + size + len(trailing_chunks), 0xFFFFFFFF)
    return struct.pack("<4sI4s", b"RIFF", total, b"WAVE") + chunks + struct.pack("<4sI", b"data", size) + body


def read_chunk(file: bytes, name: bytes) -> bytes:
    """Return the contents of a chunk of a WAV file with correct sizes."""
    offset = 12
    while offset < len(file):
        chunk_name, size = struct.unpack_from("<4sI", file, offset)
        if chunk_name == name:
            return file[offset + 8 : offset + 8 + size] if size != 0xFFFFFFFF else file[offset + 8 :]
        offset += 8 + size + size % 2
    raise AssertionError(f"no {name!r} chunk")


def copy(source: Any, target: Any, block: int = 777, **options: Any) -> AudioReader:
    with AudioReader(source, raw=options.get("raw")) as reader:
        with AudioWriter(target, reader.format, frames=reader.frames, **options) as writer:
            while (x := reader.read(block)).shape[1]:
                writer.write(x)
        return reader


def copy_to_bytes(data: bytes | BinaryIO) -> bytes:
    out = io.BytesIO()
    copy(io.BytesIO(data) if isinstance(data, bytes) else data, out)
    return out.getvalue()


def encode(data: NDArray[Any], rate: int, container: str, subtype: str, **tags: str) -> bytes:
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", rate, data.shape[1], subtype, format=container) as file:
        for tag, text in tags.items():
            setattr(file, tag, text)
        file.write(data)
    return out.getvalue()


def noise_bursts(n: int, channels: int = 1) -> NDArray[Any]:
    """Return bursts of noise, of different levels in each channel, that can be located in time to a sample."""
    x = np.random.default_rng(1).normal(0, 0.1, (n, channels))
    smooth = np.apply_along_axis(lambda c: np.convolve(c, np.hanning(16) / 4, "same"), 0, x)
    envelope = np.abs(np.sin(np.arange(n) / 900))[:, None] ** 2
    return smooth * envelope * np.linspace(1, 0.5, channels)


def measure_delay(before: NDArray[Any], after: NDArray[Any]) -> int:
    """Return the delay of ``after`` in samples, at the maximum of the correlation."""
    size = 2 * len(before)
    product = np.fft.rfft(after, size) * np.conj(np.fft.rfft(before, size))
    lag = int(np.argmax(np.fft.irfft(product)))
    return lag if lag < size // 2 else lag - size


class TestLosslessCopies:
    @pytest.mark.parametrize("channels", [1, 2, 3, 8])
    @pytest.mark.parametrize("subtype", PCM)
    def test_wav_keeps_all_bits(self, subtype: str, channels: int) -> None:
        data = random_frames(subtype, 2001, channels)
        copied_file = copy_to_bytes(encode_wav(data, subtype, channels, 44_100))
        assert read_chunk(copied_file, b"data") == data
        assert struct.unpack_from("<HHIIHH", read_chunk(copied_file, b"fmt ")) == struct.unpack_from(
            "<HHIIHH", read_chunk(encode_wav(data, subtype, channels, 44_100), b"fmt ")
        )

    @pytest.mark.parametrize("variant", ["WAVEX", "RF64"])
    @pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
    def test_variants_of_wav_are_kept(self, variant: str, subtype: str, tmp_path: Path) -> None:
        data = random_frames(subtype, 500, 2)
        (tmp_path / "in.wav").write_bytes(encode_wav(data, subtype, 2, variant=variant))
        reader = copy(tmp_path / "in.wav", tmp_path / "out.wav")
        assert (reader.format.format, reader.format.subtype, reader.warnings) == (variant, subtype, [])
        copied_file = (tmp_path / "out.wav").read_bytes()
        assert read_chunk(copied_file, b"data")[: len(data)] == data
        assert copied_file[:4] == (b"RF64" if variant == "RF64" else b"RIFF")
        if variant == "WAVEX":
            assert read_chunk(copied_file, b"fmt ")[:2] == b"\xfe\xff"

    @pytest.mark.parametrize(
        ("extension", "container", "subtype"),
        [
            ("flac", "FLAC", "PCM_16"),
            ("flac", "FLAC", "PCM_24"),
            ("flac", "FLAC", "PCM_S8"),
            ("aiff", "AIFF", "PCM_16"),
            ("aif", "AIFF", "PCM_24"),
            ("aiff", "AIFF", "FLOAT"),
            ("caf", "CAF", "PCM_32"),
            ("caf", "CAF", "ALAC_16"),
            ("w64", "W64", "PCM_16"),
            ("wav", "WAV", "ULAW"),
        ],
    )
    @pytest.mark.parametrize("channels", [1, 2])
    def test_other_containers_keep_all_samples(
        self, extension: str, container: str, subtype: str, channels: int, tmp_path: Path
    ) -> None:
        x = np.random.default_rng(0).integers(-(2**31), 2**31 - 1, (3000, channels), np.int32)
        source, target = tmp_path / f"in.{extension}", tmp_path / f"out.{extension}"
        source.write_bytes(encode(x, 22_050, container, subtype))
        copy(source, target)
        before, after = soundfile.info(source), soundfile.info(target)
        for key in ("format", "subtype", "samplerate", "channels", "frames", "endian"):
            assert getattr(after, key) == getattr(before, key), key
        assert (soundfile.read(target, dtype="int32")[0] == soundfile.read(source, dtype="int32")[0]).all()

    def test_python_reads_written_files(self, tmp_path: Path) -> None:
        data = random_frames("PCM_24", 1234, 5)
        (tmp_path / "in.wav").write_bytes(encode_wav(data, "PCM_24", 5, 192_000))
        copy(tmp_path / "in.wav", tmp_path / "out.wav")
        with wave.open(str(tmp_path / "out.wav")) as file:
            assert file.getparams()[:4] == (5, 3, 192_000, 1234)
            assert file.readframes(2000) == data

    def test_byte_order_and_trailing_chunks(self, tmp_path: Path) -> None:
        x = np.arange(-500, 500, dtype=np.int16)[:, None]
        soundfile.write(tmp_path / "in.caf", x, 48_000, "PCM_16", "LITTLE")
        copy(tmp_path / "in.caf", tmp_path / "out.caf")
        assert soundfile.info(tmp_path / "out.caf").endian == "LITTLE"
        info = b"LIST" + struct.pack("<I", 16) + b"INFOINAM" + struct.pack("<I", 4) + b"Tea\0"
        copied_file = copy_to_bytes(encode_wav(random_frames("PCM_16", 9), trailing_chunks=info))
        assert read_chunk(copied_file, b"data") == random_frames("PCM_16", 9)
        assert b"Tea" in copied_file

    def test_one_sample(self) -> None:
        assert read_chunk(copy_to_bytes(encode_wav(b"\x01\x02")), b"data") == b"\x01\x02"

    def test_whole_recordings(self, tmp_path: Path) -> None:
        x = np.linspace(-1, 0.9, 600, dtype=np.float32).reshape(2, 300)
        write_audio(tmp_path / "a.wav", Audio(x, AudioFormat(8000, 2)))
        result = read_audio(tmp_path / "a.wav")
        assert (result.samples == x).all()
        assert result.format.sample_rate == 8000
        with pytest.raises(InputError, match="shape"):
            Audio(x[0], AudioFormat(8000, 1))

    def test_integers_clip_at_full_scale_and_floats_do_not(self, tmp_path: Path) -> None:
        too_loud = np.array([[-3.0, -1.0, 0.0, 1.0, 3.0]], np.float32)
        for subtype in ("PCM_16", "FLOAT"):
            write_audio(tmp_path / f"{subtype}.wav", Audio(too_loud, AudioFormat(8000, 1, "WAV", subtype)))
        with wave.open(str(tmp_path / "PCM_16.wav")) as file:
            assert np.frombuffer(file.readframes(5), "<i2").tolist() == [-32768, -32768, 0, 32767, 32767]
        assert (read_audio(tmp_path / "FLOAT.wav").samples == too_loud).all()

    def test_wav_beyond_four_gib_becomes_rf64(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wav_container, "MAX_WAV_BYTES", 1000)
        (tmp_path / "in.wav").write_bytes(encode_wav(random_frames("PCM_16", 501)))
        copy(tmp_path / "in.wav", tmp_path / "out.wav")
        assert (tmp_path / "out.wav").read_bytes()[:4] == b"RF64"
        assert (read_audio(tmp_path / "out.wav").samples == read_audio(tmp_path / "in.wav").samples).all()


class TestLossyCopies:
    @pytest.mark.parametrize(
        ("extension", "subtype", "rate"),
        [
            ("ogg", "VORBIS", 44_100),
            ("ogg", "VORBIS", 22_050),
            ("opus", "OPUS", 48_000),
            ("opus", "OPUS", 16_000),
            ("mp3", "MPEG_LAYER_III", 44_100),
            ("mp3", "MPEG_LAYER_III", 16_000),
        ],
    )
    @pytest.mark.parametrize("channels", [1, 2])
    def test_length_delay_and_level_are_kept(
        self, extension: str, subtype: str, rate: int, channels: int, tmp_path: Path
    ) -> None:
        source, target = tmp_path / f"in.{extension}", tmp_path / f"out.{extension}"
        container = "MP3" if extension == "mp3" else "OGG"
        source.write_bytes(encode(noise_bursts(40_001, channels), rate, container, subtype))
        copy(source, target, block=70_000)
        before, after = soundfile.info(source), soundfile.info(target)
        for key in ("format", "subtype", "samplerate", "channels", "frames"):
            assert getattr(after, key) == getattr(before, key), key
        x, y = (soundfile.read(path, always_2d=True)[0] for path in (source, target))
        for channel in range(channels):
            assert measure_delay(x[:, channel], y[:, channel]) == 0
        # coding again changes the samples, but neither their level nor much of their shape
        assert np.sqrt(np.mean(y**2) / np.mean(x**2)) == pytest.approx(1, abs=0.05)
        assert 10 * np.log10(np.mean(x**2) / np.mean((y - x) ** 2)) > 8

    def test_vorbis_of_eight_channels_and_long_blocks(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "in.ogg", noise_bursts(90_000, 8) * 0.5, 44_100)
        copy(tmp_path / "in.ogg", tmp_path / "out.ogg", block=90_000)
        assert soundfile.info(tmp_path / "out.ogg").channels == 8
        assert soundfile.info(tmp_path / "out.ogg").frames == 90_000


class TestTags:
    @pytest.mark.parametrize(
        ("extension", "container", "subtype"), [("flac", "FLAC", "PCM_16"), ("ogg", "OGG", "VORBIS")]
    )
    def test_all_tags(self, extension: str, container: str, subtype: str, tmp_path: Path) -> None:
        tags = {**TAGS, "copyright": "me", "license": "CC0", "tracknumber": "3"}
        source, target = tmp_path / f"in.{extension}", tmp_path / f"out.{extension}"
        source.write_bytes(encode(noise_bursts(5000), 16_000, container, subtype, **tags))
        copy(source, target)
        with soundfile.SoundFile(target) as file:
            assert {tag: getattr(file, tag) for tag in tags} == tags

    @pytest.mark.parametrize(("extension", "container"), [("wav", "WAV"), ("mp3", "MP3"), ("aiff", "AIFF")])
    def test_tags_that_the_container_supports(self, extension: str, container: str, tmp_path: Path) -> None:
        subtype = "MPEG_LAYER_III" if extension == "mp3" else "PCM_16"
        tags = {"title": "Tea", "artist": "Zoe", "comment": "one"}
        source, target = tmp_path / f"in.{extension}", tmp_path / f"out.{extension}"
        source.write_bytes(encode(noise_bursts(5000), 16_000, container, subtype, **tags))
        copy(source, target)
        with soundfile.SoundFile(target) as file:
            assert {tag: getattr(file, tag) for tag in tags} == tags

    def test_software_tag_does_not_grow(self, tmp_path: Path) -> None:
        (tmp_path / "0.wav").write_bytes(encode(noise_bursts(100), 16_000, "WAV", "PCM_16", software="Recorder 5"))
        copy(tmp_path / "0.wav", tmp_path / "1.wav")
        with soundfile.SoundFile(tmp_path / "0.wav") as source, soundfile.SoundFile(tmp_path / "1.wav") as target:
            assert source.software == target.software
            assert target.software.startswith("Recorder 5")

    @pytest.mark.parametrize("extension", ["wav", "aiff", "caf", "w64", "rf64", "mp3", "ogg", "opus", "flac"])
    def test_unsupported_tags_are_dropped(self, extension: str, tmp_path: Path) -> None:
        tags = {**TAGS, "copyright": "me", "license": "CC0", "tracknumber": "3", "software": "x"}
        (tmp_path / "in.flac").write_bytes(encode(noise_bursts(5000), 16_000, "FLAC", "PCM_16", **tags))
        copy(tmp_path / "in.flac", tmp_path / f"out.{extension}")
        assert soundfile.info(tmp_path / f"out.{extension}").frames == 5000


class TestConversions:
    @pytest.mark.parametrize(
        ("extension", "subtype", "expected"),
        [
            ("flac", "FLOAT", "PCM_24"),
            ("flac", "PCM_U8", "PCM_S8"),
            ("aiff", "PCM_16", "PCM_16"),
            ("opus", "PCM_16", "OPUS"),
            ("mp3", "PCM_16", "MPEG_LAYER_III"),
            ("ogg", "DOUBLE", "VORBIS"),
        ],
    )
    def test_nearest_subtype(self, extension: str, subtype: str, expected: str, tmp_path: Path) -> None:
        (tmp_path / "in.wav").write_bytes(encode_wav(random_frames("PCM_16", 4000), "PCM_16", 1, 16_000))
        with AudioReader(tmp_path / "in.wav") as reader:
            target = tmp_path / f"out.{extension}"
            with AudioWriter(target, AudioFormat(16_000, 1, "WAV", subtype), frames=4000) as writer:
                writer.write(reader.read(4000) * 0.5)
        assert soundfile.info(target).subtype == expected
        assert soundfile.info(target).frames == 4000

    @pytest.mark.parametrize("extension", ["wav", "rf64", "w64", "flac", "aiff", "caf"])
    @pytest.mark.parametrize(("container", "subtype"), [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS")])
    def test_lossy_sources_become_pcm(self, container: str, subtype: str, extension: str, tmp_path: Path) -> None:
        source, target = tmp_path / "in", tmp_path / f"out.{extension}"
        source.write_bytes(encode(noise_bursts(4000), 16_000, container, subtype))
        copy(source, target)
        assert soundfile.info(target).subtype == "PCM_24"
        assert soundfile.info(target).frames == 4000

    def test_unsupported_formats_are_refused(self, tmp_path: Path) -> None:
        with (
            pytest.raises(InputError, match="MP3 cannot hold 8 channels"),
            AudioWriter(tmp_path / "a.mp3", AudioFormat(44_100, 8)),
        ):
            pass
        with (
            pytest.raises(InputError, match="OPUS at 44100 Hz"),
            AudioWriter(tmp_path / "a.opus", AudioFormat(44_100, 1)),
        ):
            pass
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["a.txt", "a", "a.jpg"])
    def test_unknown_extensions(self, name: str, tmp_path: Path) -> None:
        with (
            pytest.raises(InputError, match=r"no audio format; expected .*wav"),
            AudioWriter(tmp_path / name, AudioFormat(8000, 1)),
        ):
            pass

    def test_a_missing_extension_may_mean_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError) as caught, AudioWriter(tmp_path / "clean", AudioFormat(8000, 1)):
            pass
        assert "clean: without an extension" in str(caught.value)
        assert str(caught.value).endswith(", or a / at the end for a folder.")
        with pytest.raises(InputError) as caught, AudioWriter(tmp_path / "clean.txt", AudioFormat(8000, 1)):
            pass
        assert "folder" not in str(caught.value)


class TestPipes:
    @pytest.mark.parametrize("size", [None, 0, 0xFFFFFFFF])
    @pytest.mark.parametrize("subtype", PCM)
    def test_wav_of_known_and_unknown_length(
        self, subtype: str, size: int | None, pipe: Callable[..., BinaryIO]
    ) -> None:
        data = random_frames(subtype, 3000, 2)
        with AudioReader(pipe(encode_wav(data, subtype, 2, 48_000, size=size))) as reader:
            x = reader.read(5000)
            assert reader.read(1).shape == (2, 0)
            assert reader.warnings == []
        dtype = np.float64 if subtype in ("PCM_32", "DOUBLE") else np.float32
        assert x.dtype == dtype
        oracle = soundfile.read(io.BytesIO(encode_wav(data, subtype, 2, 48_000)), dtype=np.dtype(dtype).name)[0]
        assert (oracle == x.T).all()

    def test_chunks_after_the_data(self, pipe: Callable[..., BinaryIO]) -> None:
        data = random_frames("PCM_16", 300)
        tail = b"LIST\x04\x00\x00\x00INFO"
        for file in (
            encode_wav(data, variant="RF64", trailing_chunks=tail),
            encode_wav(data, trailing_chunks=tail),
            encode_wav(data, variant="WAVEX", trailing_chunks=tail),
        ):
            with AudioReader(pipe(file)) as reader:
                assert reader.read(1000).shape == (1, 300)

    def test_chunks_before_the_data(self, pipe: Callable[..., BinaryIO]) -> None:
        data = random_frames("PCM_16", 300)
        file = encode_wav(data)
        odd_chunk = b"junk\x05\x00\x00\x00abcde\x00"  # chunks start at even offsets
        with AudioReader(pipe(file[:12] + odd_chunk + file[12:36] + odd_chunk + file[36:])) as reader:
            assert (reader.read(1000)[0] * 32768).astype("<i2").tobytes() == data

    def test_truncated_pipe(self, pipe: Callable[..., BinaryIO]) -> None:
        with AudioReader(pipe(encode_wav(random_frames("PCM_16", 300, 2), channels=2)[:-5]), name="mic") as reader:
            assert reader.read(1000).shape == (2, 298)
            assert len(reader.warnings) == 1
            assert reader.warnings[0].startswith("mic: the data end 5 bytes")

    @pytest.mark.parametrize("container", ["FLAC", "OGG", "AIFF", "MP3"])
    def test_other_containers_are_spooled(self, container: str, pipe: Callable[..., BinaryIO]) -> None:
        data = encode(noise_bursts(5000), 16_000, container, soundfile.default_subtype(container))
        with AudioReader(pipe(data)) as reader:
            x = reader.read(6000)
        oracle = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0]
        np.testing.assert_allclose(x.T, oracle, rtol=0, atol=1e-6)  # libmpg123 rounds differently after a seek

    def test_flac_of_unknown_length(self, pipe: Callable[..., BinaryIO], tmp_path: Path) -> None:
        """Encoders that write into a pipe leave the number of samples 0, which means unknown."""
        data = bytearray(encode(noise_bursts(50_000), 16_000, "FLAC", "PCM_16"))
        oracle = soundfile.read(io.BytesIO(bytes(data)), dtype="float32")[0]
        assert data[:4] == b"fLaC"
        data[21] &= 0xF0
        data[22:26] = bytes(4)
        (tmp_path / "in.flac").write_bytes(data)
        for source in (pipe(bytes(data)), tmp_path / "in.flac"):
            with AudioReader(source) as reader:
                blocks = []
                while (x := reader.read(16_000)).shape[1]:
                    blocks.append(x[0])
                assert (np.concatenate(blocks) == oracle).all()
                assert reader.warnings == []
        assert read_audio(tmp_path / "in.flac").samples.shape == (1, 50_000)

    @pytest.mark.parametrize(
        ("encoding", "subtype"),
        [
            ("u8", "PCM_U8"),
            ("s16le", "PCM_16"),
            ("s24le", "PCM_24"),
            ("s32le", "PCM_32"),
            ("f32le", "FLOAT"),
            ("f64le", "DOUBLE"),
        ],
    )
    def test_raw_pcm_keeps_all_bits(self, encoding: str, subtype: str, pipe: Callable[..., BinaryIO]) -> None:
        data = random_frames(subtype, 2001, 2)
        out = io.BytesIO()
        copy(pipe(data), out, raw=RawFormat(11_025, 2, encoding))
        assert out.getvalue() == data

    def test_raw_pcm_into_a_file(self, pipe: Callable[..., BinaryIO], tmp_path: Path) -> None:
        data = random_frames("PCM_16", 100, 2)
        copy(pipe(data), tmp_path / "a.wav", raw=RawFormat(11_025, 2, "s16le"))
        with wave.open(str(tmp_path / "a.wav")) as file:
            assert file.getparams()[:4] == (2, 2, 11_025, 100)
            assert file.readframes(100) == data

    @pytest.mark.parametrize(("rate", "channels", "encoding"), [(4000, 1, "u8"), (8000, 9, "u8"), (8000, 1, "mp3")])
    def test_invalid_raw_formats(self, rate: int, channels: int, encoding: str) -> None:
        with pytest.raises(InputError, match="expected"):
            RawFormat(rate, channels, encoding)

    @pytest.mark.parametrize("subtype", PCM)
    def test_wav_is_streamed_into_a_pipe(self, subtype: str) -> None:
        data = random_frames(subtype, 500, 2)
        out = Unseekable()
        with (
            AudioReader(io.BytesIO(encode_wav(data, subtype, 2))) as reader,
            AudioWriter(out, reader.format) as writer,
        ):
            writer.write(reader.read(200))
            assert out.getvalue().endswith(data[: len(data) * 2 // 5])
            writer.write(reader.read(300))
        file = out.getvalue()
        assert read_chunk(file, b"data") == data
        samples = soundfile.read(io.BytesIO(file), dtype="float64")[0]
        assert (samples == soundfile.read(io.BytesIO(encode_wav(data, subtype, 2)), dtype="float64")[0]).all()

    def test_empty_pipe(self, pipe: Callable[..., BinaryIO]) -> None:
        with pytest.raises(InputError, match=r"mic: is empty \(0 bytes\)"):
            AudioReader(pipe(b""), name="mic")
        with (
            AudioReader(pipe(b""), raw=RawFormat(8000, 1, "u8")) as reader,
            pytest.raises(InputError, match="no samples"),
        ):
            reader.read(10)


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation("seek")

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")


class TestTruncatedFiles:
    @pytest.mark.parametrize("size", [0, 2000, 0xFFFFFFFF, 0xFFFFFFF0])
    @pytest.mark.parametrize("is_piped", [False, True])
    def test_existing_samples_are_used(
        self, size: int, is_piped: bool, tmp_path: Path, pipe: Callable[..., BinaryIO]
    ) -> None:
        data = random_frames("PCM_16", 800)
        truncated = encode_wav(data, rate=8000, size=size)
        (tmp_path / "in.wav").write_bytes(truncated)
        reader = copy(pipe(truncated) if is_piped else tmp_path / "in.wav", tmp_path / "out.wav")
        with wave.open(str(tmp_path / "out.wav")) as file:
            assert file.readframes(10_000) == data
        if not is_piped:  # a pipe of unknown length is normal
            assert len(reader.warnings) == 1
            assert "in.wav: the header declares" in reader.warnings[0]
            assert "0.1 s are used" in reader.warnings[0]

    def test_truncated_flac(self, tmp_path: Path) -> None:
        data = encode(noise_bursts(100_000), 16_000, "FLAC", "PCM_16")
        (tmp_path / "in.flac").write_bytes(data[: len(data) // 2])
        with AudioReader(tmp_path / "in.flac") as reader:
            n = 0
            while (x := reader.read(16_000)).shape[1]:
                n += x.shape[1]
            assert 20_000 < n < 80_000
            assert any("ends after" in warning for warning in reader.warnings)


class TestInvalidFiles:
    @pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
    @pytest.mark.parametrize("fraction", [0, 0.6])
    def test_a_disk_that_fails(self, container: str, fraction: float, capfd: pytest.CaptureFixture[str]) -> None:
        """Half a recording is no recording, and libsndfile takes an exception for the end of the file."""
        file = io.BytesIO()
        soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 200_000), 16_000, format=container)
        data = file.getvalue()

        class Disk(io.BytesIO):
            def read(self, n: int | None = -1) -> bytes:
                if self.tell() > fraction * len(data):
                    raise OSError(errno.EIO, "Input/output error")
                return super().read(n)

        with pytest.raises(InputError, match=r"^stream: cannot be read \(Input/output error\)\. Try again\.$"):
            read_audio(Disk(data))
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"", "is empty (0 bytes)"),
            (b"hello, this is a text\n" * 50, "cannot be read as audio"),
            (encode_wav(b""), "has no samples"),
            (encode_wav(b"")[:20], "cannot be read as audio"),
            (encode_wav(random_frames("PCM_16", 9), channels=0), "Channel count is zero"),
            (encode_wav(random_frames("PCM_16", 90, 9), channels=9), "9 channels; expected 1 to 8"),
            (encode_wav(random_frames("PCM_16", 90), rate=4000), "sample rate is 4000 Hz; expected 8000 to 192000"),
            (
                encode_wav(random_frames("PCM_16", 90), rate=400_000),
                "sample rate is 400000 Hz; expected 8000 to 192000",
            ),
            (b"fLaC" + bytes(200), "cannot be read as audio"),
            (b"OggS" + bytes(200), "cannot be read as audio"),
            (b"\x00" * 4096, "cannot be read as audio"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    @pytest.mark.parametrize("is_piped", [False, True])
    def test_files_that_are_no_audio(
        self, data: bytes, expected: str, is_piped: bool, tmp_path: Path, pipe: Callable[..., BinaryIO]
    ) -> None:
        path = tmp_path / "in.wav"
        path.write_bytes(data)
        with (
            pytest.raises(InputError) as caught,
            AudioReader(pipe(data) if is_piped else path, name=str(path)) as reader,
        ):
            reader.read(10)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        if not is_piped:
            assert expected in message
        assert ("--rate" in message) == (is_piped and "cannot be read as audio" in message)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            *((value, "audio must be finite") for value in (np.nan, np.inf, -np.inf)),
            (-1e22, r"expected at most 1e\+20"),
        ],
    )
    @pytest.mark.parametrize("is_piped", [False, True])
    def test_samples_out_of_range(
        self, value: float, expected: str, is_piped: bool, tmp_path: Path, pipe: Callable[..., BinaryIO]
    ) -> None:
        x = np.zeros((2000, 2), "<f4")
        x[1203, 1] = value
        data = encode_wav(x.tobytes(), "FLOAT", 2)
        path = tmp_path / "voice.wav"
        path.write_bytes(data)
        with AudioReader(pipe(data) if is_piped else path, name="voice.wav") as reader:
            assert reader.read(1000).shape == (2, 1000)
            with pytest.raises(
                InputError, match=rf"^voice.wav: sample 1,203 of channel 1 is -?[.e+0-9nainf]+; {expected}"
            ):
                reader.read(1000)

    def test_invalid_paths(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"nowhere\.wav: cannot be opened \(No such file"):
            AudioReader(tmp_path / "nowhere.wav")
        with pytest.raises(InputError, match="is a folder; expected an audio file"):
            AudioReader(tmp_path)
        with pytest.raises(InputError, match="cannot be opened"):
            AudioReader(tmp_path / ("a" * 300 + ".wav"))

    @pytest.mark.parametrize("n", range(0, 60, 3))
    def test_truncated_headers(self, n: int, pipe: Callable[..., BinaryIO]) -> None:
        data = encode_wav(random_frames("PCM_24", 5), "PCM_24", variant="WAVEX")[:n]
        for source in (io.BytesIO(data), pipe(data)):
            with pytest.raises(InputError), AudioReader(source) as reader:
                reader.read(1)

    def test_damaged_headers(self, pipe: Callable[..., BinaryIO]) -> None:
        rng = np.random.default_rng(0)
        for variant in ("WAV", "WAVEX", "RF64"):
            for _ in range(60):
                data = bytearray(encode_wav(random_frames("PCM_16", 50), variant=variant))
                for offset in rng.integers(0, len(data) - 100, 3):
                    data[offset] = rng.integers(256)
                for source in (io.BytesIO(bytes(data)), Unseekable(bytes(data))):
                    try:
                        with AudioReader(source) as reader:
                            while reader.read(100).shape[1]:
                                pass
                    except InputError:
                        pass
