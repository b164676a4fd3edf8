"""WAV, RF64, BW64, Wave64, AIFF, CAF and AU are read to the end of the sound, whatever sizes they declare."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio import AudioReader, AudioWriter, read_audio

CODECS = ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610")
JUNK = np.random.default_rng(7).bytes(900)
UNKNOWN, UNKNOWN_64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
INFO = b"LIST" + struct.pack("<I", 16) + b"INFOINAM" + struct.pack("<I", 4) + b"Tea\0"


def voice(n: int = 16_000, channels: int = 1) -> NDArray[Any]:
    return np.random.default_rng(n).normal(0, 0.1, (n, channels))


def encode(container: str, subtype: str = "PCM_16", n: int = 16_000, rate: int = 8000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, voice(n, channels), rate, subtype, format=container)
    return file.getvalue()


def decode(data: bytes) -> NDArray[Any]:
    """Return (channels, time) as libsndfile alone decodes it."""
    return soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T


def read(source: bytes | BinaryIO | Path, block: int = 3000) -> tuple[NDArray[Any], list[str], int | None]:
    """Return the samples, the warnings and the number of samples that was announced."""
    with AudioReader(io.BytesIO(source) if isinstance(source, bytes) else source, name="in") as reader:
        frames, blocks = reader.frames, []
        while (x := reader.read(block)).shape[1]:
            blocks.append(x)
        return np.concatenate(blocks, axis=1), reader.warnings, frames


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def wav(data: bytes, bits: int = 16, align: int = 2, code: int = 1, rate: int = 8000, extra: bytes = b"") -> bytes:
    """Return a mono WAV by the specification."""
    fmt = chunk(b"fmt ", struct.pack("<HHIIHH", code, 1, rate, rate * align, align, bits) + extra)
    body = b"WAVE" + fmt + chunk(b"data", data)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def with_size(data: bytes, name: bytes, format: str, size: int) -> bytes:
    """Return a file with another size of the chunk ``name``, whose size is written as ``format``."""
    offset = data.index(name) + len(name)
    return data[:offset] + struct.pack(format, size) + data[offset + struct.calcsize(format) :]


SIZES = [
    ("WAV", b"data", "<I", (0, 2, 8000, UNKNOWN, 0x7FFF_F000, 1 << 20)),
    ("WAVEX", b"data", "<I", (0, 2, 8000, UNKNOWN)),
    ("RF64", b"ds64\x1c\0\0\0" + struct.pack("<Q", 32_000 + 96), "<Q", (0, 8000, UNKNOWN_64, 1 << 20)),
    ("W64", b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a", "<Q", (0, 24, 8024, UNKNOWN_64, 1 << 20)),
    ("AIFF", b"SSND", ">I", (0, 8, 8008, UNKNOWN, 1 << 20)),
    ("CAF", b"data", ">q", (-1, 0, 4, 8004, 1 << 20)),
    ("AU", b".snd\0\0\0\x18", ">I", (0, 8000, 1 << 20)),
]


@pytest.mark.parametrize(
    ("container", "name", "format", "size"),
    [(container, name, format, size) for container, name, format, sizes in SIZES for size in sizes],
)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_sizes_of_a_recorder_that_was_stopped(
    subtype: str, container: str, name: bytes, format: str, size: int, tmp_path: Path
) -> None:
    data = encode(container, subtype)
    if container == "RF64":
        name = name[:8] + data[data.index(b"ds64") + 8 :][:8]  # the size of the file stands before that of the sound
    (tmp_path / "in").write_bytes(with_size(data, name, format, size))
    samples, warnings, announced = read(tmp_path / "in")
    np.testing.assert_array_equal(samples, decode(data))
    assert announced == 16_000
    assert len(warnings) == 1
    assert "the header declares" in warnings[0]
    assert "2.0 s are used" in warnings[0]


@pytest.mark.parametrize("size", [0, 8000, UNKNOWN, 1 << 20])
def test_sizes_of_big_endian_wav(size: int) -> None:
    file = io.BytesIO()
    soundfile.write(file, voice(), 8000, "PCM_16", "BIG", format="WAV")
    data = file.getvalue()
    samples, warnings, announced = read(with_size(data, b"data", ">I", size))
    np.testing.assert_array_equal(samples, decode(data))
    assert announced == 16_000
    assert len(warnings) == 1
    assert read(data)[1] == []


@pytest.mark.parametrize("size", [0, 4000, UNKNOWN, 1 << 20])
@pytest.mark.parametrize("codec", CODECS)
def test_sizes_of_other_codecs(codec: str, size: int) -> None:
    data = encode("WAV", codec)
    samples, warnings, _ = read(with_size(data, b"data", "<I", size))
    assert abs(samples.shape[1] - decode(data).shape[1]) <= 320  # of a block of GSM that is padded
    np.testing.assert_array_equal(samples[:, :16_000], decode(data)[:, :16_000])
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("container", "tail"),
    [
        ("WAV", INFO),
        ("WAV", INFO[:-3]),  # cut off
        ("WAV", b"cart\0\x08\0\0" + JUNK),
        ("WAV", INFO + JUNK),
        ("WAV", b"TAG" + b"x" * 125),
        ("WAV", bytes(500)),
        ("WAV", INFO + bytes(500)),
        ("WAV", b"abc"),
        ("WAVEX", chunk(b"iXML", b"<x/>")),
        ("RF64", INFO),
        ("AIFF", b"NAME\0\0\0\x04Song"),
        ("AIFF", b"ID3 \0\0\0\x03abc\0"),
        ("CAF", b"info" + struct.pack(">q", 8) + bytes(8)),
        ("W64", b"levl\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a" + struct.pack("<Q", 24 + 800) + b"abcd" * 200),
    ],
)
@pytest.mark.parametrize("n", [16_000, 16_001])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_chunks_behind_the_sound_are_no_sound(subtype: str, n: int, container: str, tail: bytes) -> None:
    data = encode(container, subtype, n)
    samples, warnings, announced = read(data + tail)
    assert (announced, warnings) == (n, [])
    np.testing.assert_array_equal(samples, decode(data))


@pytest.mark.parametrize("n", [1001, 1000])
@pytest.mark.parametrize("is_padded", [True, False])
def test_odd_number_of_bytes(is_padded: bool, n: int) -> None:
    """Many programs forget the byte that pads a chunk."""
    samples = np.random.default_rng(0).integers(1, 255, n, np.uint8).tobytes()
    head = wav(samples, 8, 1).removesuffix(b"\0" * (n % 2))
    result, warnings, _ = read(head + b"\0" * (n % 2 * is_padded) + INFO)
    assert (result.shape, warnings) == ((1, n), [])


def test_sizes_that_wrapped(tmp_path: Path) -> None:
    """More than 4 GiB in a sparse file, with a chunk behind them."""
    n_bytes = (1 << 32) + 64_000
    for code, bits, subtype in ((1, 16, "PCM_16"), (7, 8, "ULAW")):
        head = with_size(wav(b"", bits, bits // 8, code), b"data", "<I", n_bytes & UNKNOWN)
        path = tmp_path / subtype
        with path.open("wb") as file:
            file.write(head + b"\1\2" * 8000)
            file.truncate(len(head) + n_bytes)
            file.seek(0, os.SEEK_END)
            file.write(INFO)
        with AudioReader(path) as reader:
            assert reader.frames == n_bytes // (bits // 8)
            assert (reader.format.format, reader.format.subtype) == ("WAV", subtype)
            assert reader.format.tags["title"] == "Tea"
            assert np.abs(reader.read(8000)).max() > 0
            assert len(reader.warnings) == 1


def test_no_samples() -> None:
    for data in (with_size(wav(b""), b"data", "<I", 0) + INFO, encode("AIFF", n=0), encode("CAF", n=0)):
        with pytest.raises(InputError, match="has no samples"):
            read(data)


@pytest.mark.parametrize("has_chunk", [True, False])
def test_aiff_without_sound(has_chunk: bool, capfd: pytest.CaptureFixture[str]) -> None:
    comm = b"COMM" + struct.pack(">Ihih", 18, 1, 8000 * (not has_chunk), 16) + bytes.fromhex("400bfa00000000000000")
    body = b"AIFF" + comm + (b"SSND\0\0\0\x08" + bytes(8)) * has_chunk
    with pytest.raises(InputError, match="in: has no samples") as caught:
        read(b"FORM" + struct.pack(">I", len(body)) + body)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "CAF", "FLAC", "OGG", "MP3"])
def test_damage_prints_no_traceback(container: str, capfd: pytest.CaptureFixture[str]) -> None:
    """In some of these files libsndfile seeks before the start, which must not print a traceback."""
    rng = np.random.default_rng(0)
    whole = encode(container, "PCM_16" if container not in ("OGG", "MP3") else None, 2000)  # type: ignore[arg-type]
    for _ in range(60):
        data = bytearray(whole[: rng.integers(12, len(whole))])
        for offset in rng.integers(4, min(200, len(data)), 4):
            data[offset] = rng.integers(256)
        with suppress(InputError):
            read(bytes(data))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("is_piped", [True, False])
def test_bw64(is_piped: bool, tmp_path: Path, pipe: Callable[..., BinaryIO]) -> None:
    """ITU-R BS.2088: an RF64 of another name, with the description of its channels in further chunks."""
    data = encode("RF64", "PCM_24", channels=2)
    chna = chunk(b"chna", struct.pack("<HH", 1, 1) + bytes(40))
    fmt = data.index(b"fmt ")
    bw64 = b"BW64" + data[4:fmt] + chna + data[fmt:] + chunk(b"axml", b"<?xml?>")
    samples, warnings, _ = read(pipe(bw64) if is_piped else bw64)
    np.testing.assert_array_equal(samples, decode(data))
    assert warnings == []
    (tmp_path / "in.wav").write_bytes(bw64)
    with AudioReader(tmp_path / "in.wav") as reader:
        assert (reader.format.format, reader.format.subtype) == ("BW64", "PCM_24")
        with AudioWriter(tmp_path / "out.wav", reader.format, frames=reader.frames) as writer:
            writer.write(reader.read(20_000))
    written = (tmp_path / "out.wav").read_bytes()
    assert written[:4] == b"BW64"
    np.testing.assert_array_equal(decode(b"RF64" + written[4:]), decode(data))


class _Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("is_output_piped", [True, False])
@pytest.mark.parametrize("is_piped", [True, False])
def test_chunks_of_bw64(is_piped: bool, is_output_piped: bool, tmp_path: Path, pipe: Callable[..., BinaryIO]) -> None:
    """Sizes by the standard: 64 bits in `ds64`, -1 where they would stand in a WAV; chunks byte for byte."""
    sound = np.random.default_rng(0).integers(-3000, 3000, 2000).astype("<i2").tobytes()
    before = [chunk(b"bext", bytes(603)), chunk(b"chna", struct.pack("<HH", 1, 1) + bytes(40))]
    after = [chunk(b"axml", b"<?xml?>"), chunk(b"note", b"x")]
    whole = wav(sound)
    body = b"".join([*before, whole[12:36], whole[36:40] + b"\xff" * 4 + sound, *after])
    ds64 = struct.pack("<4sIQQQI", b"ds64", 28, 40 + len(body), len(sound), 2000, 0)
    data = b"BW64" + b"\xff" * 4 + b"WAVE" + ds64 + body
    (tmp_path / "in.wav").write_bytes(data)
    out = _Pipe()
    with AudioReader(pipe(data) if is_piped else tmp_path / "in.wav") as reader:
        target = out if is_output_piped else tmp_path / "out.wav"
        with AudioWriter(target, reader.format, frames=reader.frames) as writer:
            while (x := reader.read(700)).shape[1]:
                writer.write(x)
        assert [*reader.warnings, *writer.warnings] == []
    written = out.getvalue() if is_output_piped else (tmp_path / "out.wav").read_bytes()
    if is_output_piped:
        assert written == data
    assert written[:8] == b"BW64\xff\xff\xff\xff"
    assert struct.unpack_from("<4sIQQQI", written, 12) == (b"ds64", 28, len(written) - 8, len(sound), 2000, 0)
    assert written[48:].startswith(b"".join(before) + b"fmt ")
    assert written.endswith(b"data\xff\xff\xff\xff" + sound + b"".join(after))


def test_wav_becomes_bw64_and_back(tmp_path: Path) -> None:
    data = wav(np.random.default_rng(0).bytes(8000)) + INFO
    (tmp_path / "a.wav").write_bytes(data)
    for source, target in (("a.wav", "b.bw64"), ("b.bw64", "c.rf64")):
        with AudioReader(tmp_path / source) as reader:
            with AudioWriter(tmp_path / target, reader.format, frames=reader.frames) as writer:
                writer.write(reader.read(4000))
            assert writer.warnings == []
        written = (tmp_path / target).read_bytes()
        assert written[:4] == target[2:].upper().encode()
        assert written.endswith(data[44:])


TEXT_CHUNKS = [(b"LIST", b"INFOINAM" + struct.pack("<I", 3) + b"Tea"), (b"bext", b"s" * 603)]
OTHER_CHUNKS = [(b"LGWV", bytes(7)), (b"note", b"x" * 100_001), (b"odd ", b"")]


@pytest.mark.parametrize("signature", [b"RIFF", b"RF64", b"BW64"])
@pytest.mark.parametrize("padding", [b"", b"\0", b" ", b"d"])
@pytest.mark.parametrize("n", [97, 8000, 0x6100, 0x7461])  # whose lowest byte may be a letter
def test_chunks_of_odd_size_before_the_sound(
    n: int, padding: bytes, signature: bytes, tmp_path: Path, pipe: Callable[..., BinaryIO]
) -> None:
    """Some programs leave out the byte that pads them, or do not set it to 0."""
    sound = np.random.default_rng(0).integers(-3000, 3000, n // 2).astype("<i2").tobytes()
    added = TEXT_CHUNKS + OTHER_CHUNKS * (padding in (b"", b"\0"))  # else a name might as well start with the padding
    chunks = b"".join(name + struct.pack("<I", len(body)) + body + padding * (len(body) % 2) for name, body in added)
    whole = wav(sound)
    body = whole[12:36] + chunks + whole[36:]
    if signature == b"RIFF":
        data = whole[:4] + struct.pack("<I", 4 + len(body)) + whole[8:12] + body
    else:
        ds64 = struct.pack("<4sIQQQI", b"ds64", 28, 40 + len(body), len(sound), n // 2, 0)
        data = signature + whole[4:12] + ds64 + body
    (tmp_path / "in.wav").write_bytes(data)
    for source in (tmp_path / "in.wav", pipe(data)):
        samples, warnings, _ = read(source)
        assert (samples.shape, warnings) == ((1, n // 2), [])
        np.testing.assert_array_equal(samples[0] * 2**15, np.frombuffer(sound, "<i2"))
    with AudioReader(tmp_path / "in.wav") as reader:
        with AudioWriter(tmp_path / "out.wav", reader.format, frames=reader.frames) as writer:
            writer.write(reader.read(n))
        assert writer.warnings == []
    written = (tmp_path / "out.wav").read_bytes()
    assert all(body in written for _, body in added)
    if signature == b"RIFF":
        assert b"".join(chunk(*pair) for pair in added) in written


def test_text_of_odd_size_without_padding(tmp_path: Path) -> None:
    """In a list of texts, as in the file, the byte may be left out."""
    info = b"INFO" + b"".join(
        name + struct.pack("<I", len(text)) + text for name, text in ((b"INAM", b"Tea"), (b"IART", b"Me"))
    )
    whole = wav(np.random.default_rng(0).bytes(8000))
    (tmp_path / "in.wav").write_bytes(whole + b"LIST" + struct.pack("<I", len(info)) + info)
    with AudioReader(tmp_path / "in.wav") as reader, AudioWriter(tmp_path / "out.flac", reader.format) as writer:
        writer.write(reader.read(4000))
    with soundfile.SoundFile(tmp_path / "out.flac") as file:
        assert (file.title, file.artist) == ("Tea", "Me")


class TestPipes:
    @pytest.mark.parametrize("codec", CODECS)
    def test_codecs_of_telephones(self, codec: str, pipe: Callable[..., BinaryIO]) -> None:
        data = encode("WAV", codec)
        samples, warnings, _ = read(pipe(data))
        np.testing.assert_array_equal(samples, decode(data))
        assert warnings == []
        with AudioReader(pipe(data)) as reader:
            assert (reader.format.format, reader.format.subtype) == ("WAV", codec)

    @pytest.mark.parametrize(("bits", "align"), [(12, 2), (20, 3)])
    def test_bits_that_fill_no_byte(self, bits: int, align: int, pipe: Callable[..., BinaryIO]) -> None:
        """They are the upper bits of their bytes."""
        integers = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), 2000)
        upper = (integers << (8 * align - bits)).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :align]
        data = wav(upper.tobytes(), bits, align)
        for source in (data, pipe(data)):
            samples, warnings, _ = read(source)
            np.testing.assert_array_equal(samples[0] * 2 ** (bits - 1), integers)
            assert warnings == []

    @pytest.mark.parametrize("is_low", [True, False])
    @pytest.mark.parametrize("bits", [20, 24])
    @pytest.mark.parametrize("n_silent", [0, 5000])
    def test_24_bits_in_4_bytes(
        self, n_silent: int, bits: int, is_low: bool, tmp_path: Path, pipe: Callable[..., BinaryIO]
    ) -> None:
        integers = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), 2000)
        integers[:n_silent] = 0
        integers = np.r_[np.zeros(n_silent, int), integers]
        stored = integers if is_low else integers << (32 - bits)
        data = wav(stored.astype("<i4").tobytes(), bits, 4)
        for source in (data, pipe(data)):
            samples, warnings, _ = read(source, 700)
            np.testing.assert_array_equal(samples[0] * 2 ** (bits - 1), integers)
            assert warnings == []
        (tmp_path / "in.wav").write_bytes(data)
        with AudioReader(tmp_path / "in.wav") as reader, AudioWriter(tmp_path / "out.wav", reader.format) as writer:
            writer.write(reader.read(10_000))
        assert soundfile.info(tmp_path / "out.wav").subtype == "PCM_24"
        written = soundfile.read(tmp_path / "out.wav", dtype="int32")[0] >> 8
        np.testing.assert_array_equal(written, integers << (24 - bits))

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("tail", [b"", INFO])
    @pytest.mark.parametrize("n_bytes", [8000, 8001])
    def test_writer_that_stays_open(self, n_bytes: int, tail: bytes) -> None:
        """The declared sound and chunks are all that is read: the end of the pipe is not waited for."""
        sound = np.random.default_rng(0).integers(0, 256, n_bytes, np.uint8).tobytes()
        whole = wav(sound, 8, 1)
        data = whole[:4] + struct.pack("<I", len(whole) + len(tail) - 8) + whole[8:] + tail
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", buffering=0) as open_end:
            open_end.write(data)
            samples, warnings, _ = read(source)
            assert (samples.shape, warnings) == ((1, n_bytes), [])

    @pytest.mark.timeout(20)
    def test_more_data_of_a_writer_that_stays_open(self) -> None:
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", buffering=0) as open_end:
            open_end.write(wav(bytes(2000)) + bytes(30_000))
            assert "more data follow" in read(source)[1][0]

    def test_more_data_than_declared(self, pipe: Callable[..., BinaryIO]) -> None:
        data = wav(np.random.default_rng(0).bytes(32_000))
        samples, warnings, _ = read(pipe(with_size(data, b"data", "<I", 16_000)))
        assert samples.shape == (1, 8000)
        assert warnings == ["in: more data follow the declared 1.0 s. Give it as a file."]
        for tail in (b"", INFO, b"\0" + INFO):
            assert read(pipe(data + tail))[1] == []


@pytest.mark.parametrize("code", [0x55, 0x50])
def test_mp3_in_wav(code: int, tmp_path: Path) -> None:
    """By its frames, as from an MP3: here two recordings, one after the other."""
    mp3 = encode("MP3", "MPEG_LAYER_III", rate=16_000)
    extra = struct.pack("<HHIHHH", 12, 1, 2, 418, 1, 1393)
    (tmp_path / "in.wav").write_bytes(wav(mp3 + mp3, 0, 1, code, 16_000, extra))
    audio = read_audio(tmp_path / "in.wav")
    assert audio.format.format == "WAV"
    np.testing.assert_allclose(audio.samples, np.tile(decode(mp3), 2), atol=1e-6)
