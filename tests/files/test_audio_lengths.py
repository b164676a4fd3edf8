"""Every sample of MP3, OGG and FLAC is read, whatever the header declares and whatever lies between the parts."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.audio import AudioReader, AudioWriter

LAME_DELAY = 576 + 529  # samples of the encoder and the decoder before the first
V1_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
V2_KBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
JUNK = np.random.default_rng(7).bytes(5000)


def voice(n: int, channels: int = 1) -> NDArray[Any]:
    """Return a tone and noise whose loudness changes, so that a variable bit rate varies."""
    t = np.arange(n)[:, None]
    x = 0.3 * np.sin(t * (0.05 + 0.01 * np.arange(channels))) * np.sin(t / 9000) ** 4
    return x + np.random.default_rng(n).normal(0, 0.01, (n, channels)) * (np.sin(t / 20_000) > 0)


def encode(x: NDArray[Any], rate: int, container: str, subtype: str | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, x, rate, subtype, format=container, **options)
    return file.getvalue()


def decode(data: bytes) -> NDArray[Any]:
    """Return (channels, time) as libsndfile alone decodes it."""
    return soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T


def read(source: bytes | Path, block: int = 5000) -> tuple[NDArray[Any], list[str], int | None]:
    """Return the samples, the warnings and the number of samples that was announced."""
    with AudioReader(io.BytesIO(source) if isinstance(source, bytes) else source, name="in") as reader:
        frames, blocks = reader.frames, []
        while (x := reader.read(block)).shape[1]:
            blocks.append(x)
        return np.concatenate(blocks, axis=1), reader.warnings, frames


def assert_same(x: NDArray[Any], y: NDArray[Any]) -> None:
    """Check that samples are the same up to the rounding of libmpg123, which depends on how much is read at a time."""
    assert x.shape == y.shape
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-6)


def mp3_frames(data: bytes) -> Iterator[bytes]:
    """Split an MP3 by ISO 11172-3 and 13818-3, layer III; the first frame is the Info frame."""
    offset = 0
    while offset < len(data):
        word = int.from_bytes(data[offset : offset + 4], "big")
        assert word >> 21 == 0x7FF
        is_v1 = word >> 19 & 3 == 3
        rates = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
        rate = rates[word >> 19 & 3][word >> 10 & 3]
        kbits = (V1_KBITS if is_v1 else V2_KBITS)[word >> 12 & 15]
        n = (144_000 if is_v1 else 72_000) * kbits // rate + (word >> 9 & 1)
        yield data[offset : offset + n]
        offset += n


class TestMp3:
    @pytest.mark.parametrize("rate", [48_000, 44_100, 16_000, 8_000])
    @pytest.mark.parametrize("channels", [1, 2])
    @pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
    def test_length_without_info_frame(self, mode: str, channels: int, rate: int) -> None:
        """Hardware recorders and encoders into a pipe write none, and it is lost when a file is cut."""
        data = encode(voice(3 * rate, channels), rate, "MP3", bitrate_mode=mode, compression_level=0.5)
        frames = list(mp3_frames(data))[1:]
        samples, warnings, announced = read(b"".join(frames))
        assert warnings == []
        n = len(frames) * (1152 if rate >= 32_000 else 576)
        assert announced == samples.shape[1] == n
        # Info makes libmpg123 remove the delay of the encoder; the sound is the same
        whole = decode(data)
        assert_same(samples[:, LAME_DELAY:][:, : 3 * rate], whole[:, : n - LAME_DELAY])

    def test_variable_bit_rate_is_tested(self) -> None:
        """Frames of several lengths, of which libsndfile alone takes the first for the mean."""
        frames = list(mp3_frames(encode(voice(132_300), 44_100, "MP3", bitrate_mode="VARIABLE")))[1:]
        assert len({len(frame) for frame in frames}) > 3

    @pytest.mark.parametrize("n_lost", [1, 2, 40])
    def test_beginning_is_cut_off(self, n_lost: int) -> None:
        """The first frames take bits from others that are missing; libmpg123 makes them silent, or shorter."""
        frames = list(mp3_frames(encode(voice(132_300), 44_100, "MP3")))[1 + n_lost :]
        samples, warnings, _ = read(b"".join(frames))
        assert warnings == []
        assert samples.shape[1] == 1152 * len(frames)
        whole = decode(encode(voice(132_300), 44_100, "MP3"))[:, 1152 * n_lost - LAME_DELAY + 4 * 1152 :]
        n = 60_000
        np.testing.assert_allclose(samples[:, 4 * 1152 :][:, :n], whole[:, :n], atol=1e-6)

    @pytest.mark.parametrize("between", [b"", b"TAG" + bytes(125), b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)])
    @pytest.mark.parametrize("n_parts", [2, 3])
    def test_concatenated(self, n_parts: int, between: bytes) -> None:
        parts = [encode(voice(50_000 + 100 * k), 44_100, "MP3") for k in range(n_parts)]
        samples, warnings, announced = read(between.join(parts))
        assert warnings == []
        assert announced == samples.shape[1]
        assert_same(samples, np.concatenate([decode(part) for part in parts], axis=1))

    def test_concatenated_without_info_frames(self) -> None:
        parts = [b"".join(list(mp3_frames(encode(voice(50_000 + k), 44_100, "MP3")))[1:]) for k in range(2)]
        n = sum(1152 * len(list(mp3_frames(part))) for part in parts)
        samples, warnings, _ = read(b"".join(parts))
        assert (samples.shape[1], warnings) == (n, [])
        described = encode(voice(50_000), 44_100, "MP3")
        samples, warnings, _ = read(described + parts[1])
        assert (samples.shape[1], warnings) == (50_000 + 1152 * len(list(mp3_frames(parts[1]))), [])

    def test_other_number_of_channels(self) -> None:
        mono, stereo = encode(voice(50_000), 44_100, "MP3"), encode(voice(60_000, 2), 44_100, "MP3")
        expected = [np.repeat(decode(mono), 2, axis=0), decode(stereo)]
        for parts, order in (((mono, stereo), 1), ((stereo, mono), -1)):
            samples, warnings, _ = read(b"".join(parts))
            assert_same(samples, np.concatenate(expected[::order], axis=1))
            assert len(warnings) == 1
            assert f"from {1.1 if order == 1 else 1.4} s on" in warnings[0]

    def test_other_sample_rate(self) -> None:
        first, second = encode(voice(44_100), 44_100, "MP3"), encode(voice(32_000), 16_000, "MP3")
        samples, warnings, announced = read(first + second)
        assert len(warnings) == 1
        assert "the sample rate is 16000 Hz from 1.0 s on; resampled to 44100 Hz" in warnings[0]
        assert announced == samples.shape[1] == 3 * 44_100
        assert_same(samples[:, :44_100], decode(first))
        oracle = soxr.resample(decode(second)[0], 16_000, 44_100)
        np.testing.assert_allclose(samples[0, 44_100:], oracle, atol=1e-4)

    @pytest.mark.parametrize("junk", [JUNK, bytes(3000), b"\r\n\r\n", b"ICY 200 OK\r\nicy-name: radio\r\n\r\n"])
    def test_junk_before_the_first_frame(self, junk: bytes, tmp_path: Path) -> None:
        data = encode(voice(50_000), 44_100, "MP3")
        (tmp_path / "a.wav").write_bytes(junk + data)  # whatever the extension
        samples, warnings, _ = read(tmp_path / "a.wav")
        assert_same(samples, decode(data))
        assert warnings == []

    def test_id3_tag_of_another_length(self) -> None:
        data = encode(voice(50_000), 44_100, "MP3")
        for declared in (0, 100, 256, 300, 20_000, 1 << 27):
            size = bytes(declared >> shift & 0x7F for shift in (21, 14, 7, 0))
            samples, warnings, _ = read(b"ID3\x03\0\0" + size + bytes(256) + data)
            assert_same(samples, decode(data))
            assert warnings == []

    def test_id3_tag_with_a_footer(self) -> None:
        """The length of the tag is that without it, and libsndfile knows no footer."""
        data = encode(voice(50_000), 44_100, "MP3")
        head = b"ID3\x04\0\x10\0\0\0\x0e"
        samples, warnings, _ = read(head + b"TIT2\0\0\0\x04\0\0\0Tea" + b"3DI" + head[3:] + data)
        assert_same(samples, decode(data))
        assert warnings == []

    def test_description_by_fraunhofer(self) -> None:
        """A frame without sound, which libmpg123 plays as silence."""
        first, *frames = mp3_frames(encode(voice(50_000), 44_100, "MP3"))
        description = first[:4] + bytes(32) + b"VBRI" + struct.pack(">HHHII", 1, 0, 75, 9999, 40)
        samples, warnings, _ = read(description.ljust(len(first), b"\0") + b"".join(frames))
        assert_same(samples, read(b"".join(frames))[0])
        assert warnings == []

    def test_frame_that_is_cut_off(self, capfd: pytest.CaptureFixture[str]) -> None:
        data = encode(voice(50_000), 44_100, "MP3")
        for n in (4, 100, 300):
            with pytest.raises(InputError, match=r"^in: has no complete frame of MP3\. Get another copy\.$"):
                read(data[:n])
        assert capfd.readouterr() == ("", "")

    def test_text_tags_of_a_file_without_info_frame(self) -> None:
        frames = b"".join(list(mp3_frames(encode(voice(50_000), 44_100, "MP3")))[1:])
        title = b"TIT2" + struct.pack(">IH", 4, 0) + b"\0Tea"
        id3v2 = b"ID3\x03\0\0" + struct.pack(">I", len(title)) + title
        id3v1 = b"TAG" + bytes(30) + b"Ann".ljust(30, b"\0") + bytes(65)
        with AudioReader(io.BytesIO(id3v2 + frames + id3v1)) as reader:
            assert (reader.format.tags["title"], reader.format.tags["artist"]) == ("Tea", "Ann")
            assert reader.frames == 1152 * len(list(mp3_frames(frames)))

    def test_other_bytes_between_frames(self) -> None:
        frames = list(mp3_frames(encode(voice(132_300), 44_100, "MP3")))[1:]
        data = b"".join(frames[:40]) + JUNK + b"".join(frames[40:])
        samples, warnings, _ = read(data)
        assert_same(samples, read(b"".join(frames))[0])
        assert warnings == ["in: 5,000 bytes at 1.0 s are no MP3 and are left out."]
        samples, warnings, _ = read(b"".join(frames) + JUNK)
        assert samples.shape[1] == 1152 * len(frames)
        assert warnings == [f"in: 5,000 bytes at {1152 * len(frames) / 44_100:.1f} s are no MP3 and are left out."]

    def test_warning_of_a_file_that_is_cut_off(self, capfd: pytest.CaptureFixture[str]) -> None:
        data = encode(voice(132_300), 44_100, "MP3")
        samples, warnings, _ = read(data[: len(data) // 2])
        assert 20_000 < samples.shape[1] < 110_000
        assert warnings == [f"in: ends after {samples.shape[1]:,} of 132,300 samples."]
        assert_same(samples, decode(data)[:, : samples.shape[1]])
        assert capfd.readouterr().err == ""  # libmpg123 writes there

    def test_info_frame_of_fewer_frames(self) -> None:
        """The stream goes on: its frames take bits from those before them."""
        info, *frames = mp3_frames(encode(voice(132_300), 44_100, "MP3"))
        count = max(info.find(b"Xing"), info.find(b"Info")) + 8
        assert info[count : count + 4] == len(frames).to_bytes(4, "big")
        for declared in (0, 11, 60, len(frames) - 1):
            stale = info[:count] + declared.to_bytes(4, "big") + info[count + 4 :]
            samples, warnings, _ = read(stale + b"".join(frames))
            assert warnings == []
            assert samples.shape[1] > 1152 * len(frames) - 1500

    @pytest.mark.parametrize("layer", [1, 2, 3])
    @pytest.mark.parametrize(
        ("version", "rate_index", "rate"), [(3, 0, 44_100), (3, 2, 32_000), (2, 0, 22_050), (0, 2, 8000)]
    )
    def test_other_layers_and_versions(
        self, version: int, rate_index: int, rate: int, layer: int, tmp_path: Path
    ) -> None:
        """Silent frames of three bit rates by ISO 11172-3, 13818-3 and its extension to 8 kHz."""
        kbits = {
            **{(True, 1): (160, 288, 384), (True, 2): (80, 160, 256), (True, 3): (64, 128, 224)},
            **{(False, 1): (80, 144, 192), (False, 2): (40, 80, 128), (False, 3): (40, 80, 128)},
        }[version == 3, layer]
        data, n_samples = b"", 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
        for k in range(30):
            index, padding = (5, 9, 12)[k % 3], k % 2
            slots = n_samples // (32 if layer == 1 else 8) * 1000 * kbits[k % 3] // rate + padding
            word = 0x7FF << 21 | version << 19 | 4 - layer << 17 | 1 << 16 | index << 12 | rate_index << 10
            word |= padding << 9 | 3 << 6
            data += word.to_bytes(4, "big") + bytes(slots * (4 if layer == 1 else 1) - 4)
        (tmp_path / "a.mp3").write_bytes(data)
        samples, warnings, announced = read(tmp_path / "a.mp3")
        assert (announced, samples.shape[1], warnings) == (30 * n_samples, 30 * n_samples, [])
        with AudioReader(tmp_path / "a.mp3") as reader:
            assert (reader.format.sample_rate, reader.format.subtype) == (rate, "MPEG_LAYER_" + "I" * layer)
            with AudioWriter(tmp_path / "a.wav", reader.format) as writer:
                writer.write(reader.read(1000))
        assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_24"

    def test_random_bytes_are_no_mp3(self) -> None:
        frame = next(mp3_frames(encode(voice(50_000), 44_100, "MP3")))
        for data in (np.random.default_rng(3).bytes(300_000), JUNK + frame + JUNK):
            with pytest.raises(InputError, match="cannot be read as audio"):
                read(data)

    def test_long_file_is_scanned_quickly(self) -> None:
        frames = list(mp3_frames(encode(voice(132_300), 44_100, "MP3")))[1:]
        data = b"".join(frames) * 400  # 20 minutes
        start = time.process_time()
        with AudioReader(io.BytesIO(data)) as reader:
            assert reader.frames == 400 * 1152 * len(frames)
        assert time.process_time() - start < 5


class TestOgg:
    @pytest.mark.parametrize(("subtype", "rate"), [("VORBIS", 44_100), ("OPUS", 48_000), ("OPUS", 16_000)])
    @pytest.mark.parametrize("channels", [1, 2])
    def test_chained_links(self, channels: int, subtype: str, rate: int) -> None:
        links = [encode(voice(rate + 1000 * k, channels), rate, "OGG", subtype) for k in range(3)]
        samples, warnings, announced = read(b"".join(links))
        assert warnings == []
        assert announced == samples.shape[1] == 3 * rate + 3000
        assert_same(samples, np.concatenate([decode(link) for link in links], axis=1))

    def test_links_that_differ(self) -> None:
        links = [encode(voice(48_000), 48_000, "OGG", "OPUS"), encode(voice(16_000, 2), 16_000, "OGG", "VORBIS")]
        samples, warnings, _ = read(b"".join(links))
        assert samples.shape == (2, 96_000)
        assert_same(samples[:, :48_000], np.repeat(decode(links[0]), 2, axis=0))
        oracle = soxr.resample(decode(links[1]).T, 16_000, 48_000).T
        np.testing.assert_allclose(samples[:, 48_000:], oracle, atol=1e-4)
        assert [("1.0 s" in warning) for warning in warnings] == [True, True]

    def test_other_bytes_between_pages(self) -> None:
        link = encode(voice(32_000), 16_000, "OGG")
        samples, _, _ = read(link + JUNK + link)
        assert_same(samples, np.tile(decode(link), 2))

    def test_damaged_link(self) -> None:
        """A stream that is announced and has no sound."""
        link = encode(voice(32_000), 16_000, "OGG")
        second_page = link.index(b"OggS", 4)
        end = link.index(b"OggS", second_page + 4)
        samples, warnings, _ = read(link + link[:end] + link)
        assert_same(samples, np.tile(decode(link), 2))
        assert len(warnings) == 1
        assert warnings[0].startswith("in: a part from 2.0 s on is left out: ")

    def test_granule_positions_of_a_cut(self) -> None:
        """A recording of a broadcast has no last page; what decodes is counted and no end is missed."""
        link = encode(voice(160_000), 16_000, "OGG")
        samples, warnings, announced = read(link[: link.rindex(b"OggS")])
        assert announced == samples.shape[1] > 100_000
        assert warnings == []


class TestFlac:
    @pytest.mark.parametrize("tail", [b"TAG" + bytes(125), b"APETAGEX" + bytes(60), JUNK, bytes(5000)])
    @pytest.mark.parametrize("declared", [None, 0, 5000])
    def test_bytes_behind_the_last_frame(self, declared: int | None, tail: bytes) -> None:
        data = encode(voice(32_000), 16_000, "FLAC")
        samples, warnings, _ = read(with_length(data, declared) + tail)
        np.testing.assert_array_equal(samples, decode(data))
        assert warnings == []

    @pytest.mark.parametrize("channels", [1, 2])
    def test_concatenated(self, channels: int) -> None:
        parts = [encode(voice(30_000 + k, channels), 16_000, "FLAC", "PCM_24") for k in range(3)]
        samples, warnings, announced = read(b"".join(parts))
        assert (announced, warnings) == (90_003, [])
        np.testing.assert_array_equal(samples, np.concatenate([decode(part) for part in parts], axis=1))

    @pytest.mark.parametrize("declared", [1, 5000, 31_999, 32_000])
    def test_header_of_fewer_samples(self, declared: int) -> None:
        data = encode(voice(32_000), 16_000, "FLAC")
        samples, warnings, _ = read(with_length(data, declared))
        np.testing.assert_array_equal(samples, decode(data))
        assert warnings == []

    @pytest.mark.parametrize("declared", [None, 0, 5000])
    def test_id3_tag_before_flac(self, declared: int | None) -> None:
        data = encode(voice(32_000), 16_000, "FLAC")
        samples, warnings, _ = read(b"ID3\x04\0\0\0\0\1\0" + bytes(128) + with_length(data, declared))
        np.testing.assert_array_equal(samples, decode(data))
        assert warnings == []

    def test_metadata_that_hold_the_start_of_a_stream(self) -> None:
        data = encode(voice(32_000), 16_000, "FLAC")
        block = b"\x02\0\0\x68test" + data[:100]
        head = data[:4] + bytes((data[4] & 0x7F,)) + data[5:42]
        samples, warnings, _ = read(head + block + data[42:])
        np.testing.assert_array_equal(samples, decode(data))
        assert warnings == []

    @pytest.mark.parametrize("n", [8, 20, 25, 41, 60])
    def test_header_that_is_cut_off(self, n: int) -> None:
        with pytest.raises(InputError, match=r"^in: [^\n]*$"):
            read(encode(voice(32_000), 16_000, "FLAC")[:n])

    def test_header_of_more_samples(self) -> None:
        samples, warnings, _ = read(with_length(encode(voice(32_000), 16_000, "FLAC"), 40_000))
        assert samples.shape == (1, 32_000)
        assert warnings == ["in: ends after 32,000 of 40,000 samples."]


def with_length(flac: bytes, n: int | None) -> bytes:
    """Return a FLAC whose header declares ``n`` samples, None for the true number."""
    if n is None:
        return flac
    (field,) = struct.unpack(">Q", flac[18:26])
    return flac[:18] + struct.pack(">Q", field >> 36 << 36 | n) + flac[26:]
