"""What audio files hold beside their sound comes back: tags, pictures, chapters, chunks, channel masks."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import mutagen
import mutagen.aiff
import mutagen.apev2
import mutagen.flac
import mutagen.oggvorbis
import numpy as np
import pytest
import soundfile
from mutagen import id3

from denoise.errors import InputError
from denoise.files.audio import AudioReader, AudioWriter, read_audio, write_audio
from denoise.files.audio import wav as wav_container
from denoise.files.audio.metadata import chunks
from denoise.signals import Audio, AudioFormat

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
TITLES = ("Café Müller, Folge 12: Gespräch", "父の声、第十二回、夏の思い出", "Подкаст о науке", "Café")
GUID = bytes.fromhex("000000001000800000aa00389b71")
SOUND = np.random.default_rng(0).normal(0, 0.1, 4001)


def all_frames() -> list[id3.Frame]:
    return [
        id3.TIT2(3, text=TITLES[0]),
        id3.TPE1(3, text=["A", "Б"]),
        id3.TPE2(3, text="Album artist"),
        id3.TCOM(3, text="C"),
        id3.TRCK(3, text="3/9"),
        id3.TPOS(3, text="1/2"),
        id3.TCON(3, text="Speech"),
        id3.TDRC(3, text="2024-05-06"),
        id3.COMM(3, lang="eng", desc="", text="remark"),
        id3.USLT(3, lang="eng", desc="", text="words\nand more"),
        id3.TXXX(3, desc="key", text="v"),
        id3.APIC(3, mime="image/png", type=3, desc="cover", data=PNG),
        id3.CHAP(element_id="c1", start_time=0, end_time=500, sub_frames=[id3.TIT2(3, text="Intro")]),
        id3.CTOC(element_id="toc", flags=3, child_element_ids=["c1"], sub_frames=[]),
        id3.PRIV(owner="me", data=b"\0\xff\0"),
    ]


def copy(source: Any, target: Any, block: int = 777) -> list[str]:
    """Copy a recording as `denoise audio` does, and return the warnings."""
    with AudioReader(source) as reader:
        with AudioWriter(target, reader.format, overwrite=True, frames=reader.frames) as writer:
            while (x := reader.read(block)).shape[1]:
                writer.write(x)
        return [*reader.warnings, *writer.warnings]


def write_tagged(path: Path, frames: list[id3.Frame] | None = None, channels: int = 1, **save: Any) -> None:
    """Write a file that mutagen tags: with ID3 where the container has it, or else with comments and a picture."""
    kind = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    soundfile.write(path, np.repeat(SOUND[:, None], channels, 1), 48_000, **kind)
    if path.suffix == ".mp3":
        tag = id3.ID3()
        for frame in frames or all_frames():
            tag.add(frame)
        tag.save(path, **save)
        return
    file = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    if path.suffix in (".wav", ".aiff"):
        for frame in frames or all_frames():
            file.tags.add(frame)
    else:
        picture = mutagen.flac.Picture()
        picture.type, picture.mime, picture.desc, picture.data = 3, "image/png", "cover", PNG
        comments = {"title": [TITLES[0]], "artist": ["A", "Б"], "albumartist": ["Album artist"], "lyrics": ["words"]}
        file.tags.update(comments | {"comment": ["remark"], "tracknumber": ["3"], "key": ["v"], "replaygain": ["0 dB"]})
        if path.suffix == ".flac":
            file.add_picture(picture)
        else:
            file.tags["metadata_block_picture"] = [base64.b64encode(picture.write()).decode()]
    file.save()


def read_tag(path: Path) -> bytes:
    """Return the ID3v2 tag at the start of a file."""
    data = path.read_bytes()
    return data[: 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))]


def with_footer(tag: bytes) -> bytes:
    """Return an ID3v2.4 tag with a second header behind it."""
    head = tag[:5] + b"\x10" + tag[6:10]
    return head + tag[10:] + b"3DI" + head[3:]


def chunk(name: bytes, body: bytes, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(body)) + body + b"\0" * (len(body) % 2)


def wav(*parts: bytes) -> bytes:
    body = b"WAVE" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def fmt(channels: int = 1, mask: int | None = None, bits: int = 16) -> bytes:
    align = channels * bits // 8
    body = struct.pack("<HHIIHH", 1 if mask is None else 0xFFFE, channels, 16_000, 16_000 * align, align, bits)
    return chunk(b"fmt ", body if mask is None else body + struct.pack("<HHIH", 22, bits, mask, 1) + GUID)


def parse(data: bytes, order: str = "<") -> list[tuple[bytes, bytes]]:
    """Return all chunks of a RIFF or IFF file and require that its size is right."""
    assert struct.unpack_from(f"{order}I", data, 4)[0] == len(data) - 8
    offset, found = 12, []
    while offset < len(data):
        name, size = struct.unpack_from(f"{order}4sI", data, offset)
        found.append((name, data[offset + 8 : offset + 8 + size]))
        offset += 8 + size + size % 2
    assert offset == len(data)
    return found


PCM = (SOUND * 32767).astype("<i2").tobytes()
BEFORE = (
    chunk(b"bext", b"Scene 1" + bytes(595) + b"A=PCM \r\n"),
    chunk(b"iXML", b"<BWFXML>\xc3\xa9</BWFXML>"),
    chunk(b"axml", b"odd"),
    chunk(b"LIST", b"INFO" + chunk(b"INAM", "Café".encode("cp1252") + b"\0")),
)
AFTER = (
    chunk(b"cue ", struct.pack("<III4sIII", 1, 1, 400, b"data", 0, 0, 400)),
    chunk(b"LIST", b"adtl" + chunk(b"labl", struct.pack("<I", 1) + b"Chapter\0")),
    chunk(b"smpl", struct.pack("<9I6I", 0, 0, 62500, 60, 0, 0, 0, 1, 0, 0, 0, 100, 3000, 0, 0)),
    chunk(b"inst", bytes(7)),
    chunk(b"id3 ", b"ID3\x04\0\0\0\0\0\0"),
    chunk(b"_PMX", b"<xmp/>"),
)


class TestSameContainer:
    @pytest.mark.parametrize("version", [3, 4])
    @pytest.mark.parametrize("v1", [0, 2])
    def test_all_frames_of_mp3(self, version: int, v1: int, tmp_path: Path) -> None:
        write_tagged(tmp_path / "a.mp3", v1=v1, v2_version=version, v23_sep=None)
        assert copy(tmp_path / "a.mp3", tmp_path / "b.mp3") == []
        before, after = (id3.ID3(tmp_path / name) for name in ("a.mp3", "b.mp3"))
        assert {key: repr(frame) for key, frame in after.items()} == {key: repr(frame) for key, frame in before.items()}
        assert after.version == before.version
        ends = [(tmp_path / name).read_bytes()[-128:] for name in ("a.mp3", "b.mp3")]
        assert (ends[0][:3] == b"TAG") == bool(v1)
        assert (ends[0] == ends[1]) == bool(v1)

    @pytest.mark.parametrize("title", TITLES)
    def test_short_titles_that_are_not_ascii(self, title: str, tmp_path: Path) -> None:
        write_tagged(tmp_path / "a.mp3", [id3.TIT2(3, text=title)])
        copy(tmp_path / "a.mp3", tmp_path / "b.mp3")
        assert id3.ID3(tmp_path / "b.mp3")["TIT2"].text == [title]
        with soundfile.SoundFile(tmp_path / "b.mp3") as file:
            assert (file.title, file.frames) == (title, 4001)

    def test_frames_on_the_stream_are_dropped(self, tmp_path: Path) -> None:
        gapless = id3.COMM(0, lang="eng", desc="iTunSMPB", text=" 00000000 00000210 00000A3C 0000000000000FA1")
        write_tagged(tmp_path / "a.mp3", [*all_frames(), id3.TLEN(3, text="99999"), gapless])
        assert copy(tmp_path / "a.mp3", tmp_path / "b.mp3") == []
        before, after = (id3.ID3(tmp_path / name) for name in ("a.mp3", "b.mp3"))
        assert before.keys() - after.keys() == {"TLEN", "COMM:iTunSMPB:eng"}
        assert {key: repr(frame) for key, frame in after.items()} == {key: repr(before[key]) for key in after}
        assert soundfile.info(tmp_path / "b.mp3").frames == 4001

    def test_unsynchronised_id3_of_version_3(self, tmp_path: Path) -> None:
        """A frame is dropped, so that the tag is written anew."""
        soundfile.write(tmp_path / "sound.mp3", SOUND, 48_000)
        body = b"".join(
            name + struct.pack(">IH", len(text), 0) + text
            for name, text in ((b"TIT2", b"\x01\xff\xfe\xe9\x00"), (b"TLEN", b"\x00123"), (b"TALB", b"\x00Caf\xe9"))
        ).replace(b"\xff\xfe", b"\xff\x00\xfe")
        size = bytes((0, 0, len(body) >> 7, len(body) & 127))
        (tmp_path / "a.mp3").write_bytes(b"ID3\x03\x00\x80" + size + body + (tmp_path / "sound.mp3").read_bytes())
        copy(tmp_path / "a.mp3", tmp_path / "b.mp3")
        tag = id3.ID3(tmp_path / "b.mp3")
        assert (tag["TIT2"].text, tag["TALB"].text, "TLEN" in tag) == (["é"], ["Café"], False)

    @pytest.mark.parametrize("declared", [20, 127, 5000, 1 << 20])
    def test_id3_tag_of_another_length(self, declared: int, tmp_path: Path) -> None:
        """The copy holds no sound of the source, and a tag whose length is right."""
        soundfile.write(tmp_path / "sound.mp3", SOUND, 48_000)
        sound = (tmp_path / "sound.mp3").read_bytes()
        size = bytes(declared >> shift & 0x7F for shift in (21, 14, 7, 0))
        (tmp_path / "a.mp3").write_bytes(b"ID3\x03\0\0" + size + b"TIT2\0\0\0\x04\0\0\0Tea" + sound)
        assert copy(tmp_path / "a.mp3", tmp_path / "b.mp3") == []
        after = (tmp_path / "b.mp3").read_bytes()
        assert sound[:500] not in after
        assert id3.ID3(tmp_path / "b.mp3")["TIT2"].text == ["Tea"]
        assert soundfile.info(tmp_path / "b.mp3").frames == 4001

    def test_id3_tag_with_a_footer(self, tmp_path: Path) -> None:
        """The copy has none, since libsndfile takes it for sound."""
        soundfile.write(tmp_path / "sound.mp3", SOUND, 48_000)
        head = b"ID3\x04\0\x10\0\0\0\x0e"
        tag = head + b"TIT2\0\0\0\x04\0\0\0Tea" + b"3DI" + head[3:]
        (tmp_path / "a.mp3").write_bytes(tag + (tmp_path / "sound.mp3").read_bytes())
        assert copy(tmp_path / "a.mp3", tmp_path / "b.mp3") == []
        assert id3.ID3(tmp_path / "b.mp3")["TIT2"].text == ["Tea"]
        assert soundfile.info(tmp_path / "b.mp3").frames == 4001

    @pytest.mark.parametrize("v1", [0, 2])
    @pytest.mark.parametrize("has_front", [True, False])
    def test_id3_tag_behind_the_sound(self, has_front: bool, v1: int, tmp_path: Path) -> None:
        """ID3v2.4 with a footer, found from the end of the file; it comes before the sound, where all programs look."""
        write_tagged(tmp_path / "a.mp3", [id3.TIT2(3, text="Front")], v1=0)
        sound = (tmp_path / "a.mp3").read_bytes()[len(front := read_tag(tmp_path / "a.mp3")) :]
        write_tagged(tmp_path / "end.mp3", v1=v1)
        end = with_footer(read_tag(tmp_path / "end.mp3"))
        last = (tmp_path / "end.mp3").read_bytes()[-128:] if v1 else b""
        (tmp_path / "a.mp3").write_bytes(front * has_front + sound + end + last)
        assert copy(tmp_path / "a.mp3", tmp_path / "b.mp3") == []
        before, after = id3.ID3(tmp_path / "end.mp3"), id3.ID3(tmp_path / "b.mp3")
        if has_front:
            assert after["TIT2"].text == ["Front"]
        kept = after.keys() - {"TIT2"} if has_front else after.keys()
        assert {key: repr(after[key]) for key in kept} == {key: repr(before[key]) for key in kept}
        assert after.keys() == before.keys()
        assert (tmp_path / "b.mp3").read_bytes()[-128:].startswith(b"TAG") == bool(v1)
        assert soundfile.info(tmp_path / "b.mp3").frames == 4001

    def test_id3_tag_that_another_one_points_to(self, tmp_path: Path) -> None:
        """SEEK states where it starts; it has no footer, and other bytes follow."""
        write_tagged(tmp_path / "a.mp3", [id3.TIT2(3, text="Front"), id3.SEEK(offset=0)])
        sound = (tmp_path / "a.mp3").read_bytes()[len(read_tag(tmp_path / "a.mp3")) :]
        write_tagged(tmp_path / "a.mp3", [id3.TIT2(3, text="Front"), id3.SEEK(offset=len(sound))])
        front = read_tag(tmp_path / "a.mp3")
        write_tagged(tmp_path / "end.mp3", [id3.TPE1(3, text="Д")])
        (tmp_path / "a.mp3").write_bytes(front + sound + read_tag(tmp_path / "end.mp3") + bytes(100))
        assert copy(tmp_path / "a.mp3", tmp_path / "b.mp3") == []
        tag = id3.ID3(tmp_path / "b.mp3")
        assert (tag["TIT2"].text, tag["TPE1"].text, "SEEK" in tag) == (["Front"], ["Д"], False)

    def test_ape_tag_of_mp3(self, tmp_path: Path) -> None:
        write_tagged(tmp_path / "a.mp3")
        ape = mutagen.apev2.APEv2()
        ape["Title"] = TITLES[1]
        ape.save(tmp_path / "a.mp3")
        assert copy(tmp_path / "a.mp3", tmp_path / "b.mp3") == []
        assert mutagen.apev2.APEv2(tmp_path / "b.mp3")["Title"] == TITLES[1]
        assert soundfile.info(tmp_path / "b.mp3").frames == 4001

    def test_lyrics3_of_mp3(self, tmp_path: Path) -> None:
        write_tagged(tmp_path / "a.mp3", v1=2)
        data = (tmp_path / "a.mp3").read_bytes()
        fields = b"LYRICSBEGIN" + b"IND0000210" + b"LYR00005words"
        lyrics = fields + b"%06d" % len(fields) + b"LYRICS200"
        (tmp_path / "a.mp3").write_bytes(data[:-128] + lyrics + data[-128:])
        assert copy(tmp_path / "a.mp3", tmp_path / "b.mp3") == []
        assert (tmp_path / "b.mp3").read_bytes().endswith(lyrics + data[-128:])
        (warning,) = copy(tmp_path / "a.mp3", tmp_path / "b.flac")
        assert "Lyrics3" in warning

    @pytest.mark.parametrize("is_padded", [True, False])
    @pytest.mark.parametrize("n", [3001, 3000])
    def test_chunks_behind_odd_sound(self, is_padded: bool, n: int, tmp_path: Path) -> None:
        """Some programs do not pad chunks; those that follow start at odd offsets."""
        sound = chunk(b"data", PCM[:n])
        data = wav(fmt(bits=8), sound if is_padded else sound[: 8 + n], *AFTER)
        (tmp_path / "a.wav").write_bytes(data)
        assert copy(tmp_path / "a.wav", tmp_path / "b.wav") == []
        assert parse((tmp_path / "b.wav").read_bytes())[1:] == [(b"data", PCM[:n]), *parse(wav(*AFTER))]

    @pytest.mark.parametrize("declared", [0, 7, 800, 0xFFFF_FFFF])
    def test_sound_of_stale_size_is_no_chunk(self, declared: int, tmp_path: Path) -> None:
        """Sound that looks like chunks where the header says that it ends."""
        sound = (b"abcd" + struct.pack("<I", 92) + bytes(92)) * 100 + b"\x01" * 5000
        data = wav(fmt(), b"data" + struct.pack("<I", declared) + sound)
        (tmp_path / "a.wav").write_bytes(data)
        copy(tmp_path / "a.wav", tmp_path / "b.wav")
        assert parse((tmp_path / "b.wav").read_bytes())[1:] == [(b"data", sound)]

    def test_chunks_behind_sound_whose_size_wrapped(self, tmp_path: Path) -> None:
        n = (1 << 32) + 4000
        with (tmp_path / "a.wav").open("wb") as file:
            file.write(wav(fmt(), b"data" + struct.pack("<I", 4000)))
            file.seek(44 + n)
            file.write(b"".join(AFTER))
        with AudioReader(tmp_path / "a.wav") as reader:
            assert (reader.frames, reader.format.metadata.trailing) == (n // 2, list(AFTER))

    def test_padding_is_not_kept(self, tmp_path: Path) -> None:
        (tmp_path / "a.wav").write_bytes(wav(chunk(b"JUNK", bytes(4000)), fmt(), chunk(b"data", PCM), AFTER[0]))
        assert copy(tmp_path / "a.wav", tmp_path / "b.wav") == []
        assert [name for name, _ in parse((tmp_path / "b.wav").read_bytes())] == [b"fmt ", b"data", b"cue "]

    def test_chunks_of_big_endian_wav(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "sound.wav", SOUND, 48_000, "PCM_16", "BIG")
        plain = (tmp_path / "sound.wav").read_bytes()
        added = (chunk(b"iXML", b"odd", ">"), chunk(b"LIST", b"INFO" + chunk(b"INAM", b"Tea\0", ">"), ">"))
        size = struct.pack(">I", len(plain) - 8 + len(added[0]) + len(added[1]))
        (tmp_path / "a.wav").write_bytes(b"RIFX" + size + b"WAVE" + added[0] + plain[12:] + added[1])
        assert copy(tmp_path / "a.wav", tmp_path / "b.wav") == []
        assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()
        out = Pipe()  # a pipe is little-endian
        (warning,) = copy(tmp_path / "a.wav", out)
        assert warning.endswith("without iXML.")
        assert dict(parse(out.getvalue()))[b"LIST"] == b"INFO" + chunk(b"INAM", b"Tea\0")

    def test_chunks_of_wav_byte_for_byte(self, tmp_path: Path) -> None:
        data = wav(*BEFORE[:2], fmt(), *BEFORE[2:], chunk(b"fact", bytes(4)), chunk(b"data", PCM), *AFTER)
        (tmp_path / "a.wav").write_bytes(data)
        assert copy(tmp_path / "a.wav", tmp_path / "b.wav") == []
        after = parse((tmp_path / "b.wav").read_bytes())
        assert [block for block in after if block[0] not in (b"fmt ", b"data")] == parse(wav(*BEFORE, *AFTER))
        assert dict(after)[b"data"] == PCM
        assert copy(tmp_path / "b.wav", tmp_path / "c.wav") == []
        assert (tmp_path / "c.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()

    def test_overviews_of_the_sound_are_dropped_with_a_warning(self, tmp_path: Path) -> None:
        (tmp_path / "a.wav").write_bytes(wav(fmt(), chunk(b"data", PCM), chunk(b"levl", bytes(100)), AFTER[0]))
        warning = f"{tmp_path / 'b.wav'}: WAV cannot hold all of the input; without levl."
        assert copy(tmp_path / "a.wav", tmp_path / "b.wav") == [warning]
        assert [name for name, _ in parse((tmp_path / "b.wav").read_bytes())] == [b"fmt ", b"data", b"cue "]

    def test_chunks_that_are_too_large_are_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunks, "MAX_BYTES", 1000)
        (tmp_path / "a.wav").write_bytes(wav(fmt(), chunk(b"data", PCM), chunk(b"axml", bytes(2000)), AFTER[0]))
        (warning,) = copy(tmp_path / "a.wav", tmp_path / "b.wav")
        assert warning.endswith("without axml.")

    def test_chunks_of_rf64(self, tmp_path: Path) -> None:
        data = [chunk(b"data", PCM)[:4] + b"\xff" * 4 + PCM, AFTER[0], BEFORE[1]]
        body = b"".join([BEFORE[0], fmt(), *data])
        ds64 = struct.pack("<4sIQQQI", b"ds64", 28, 4 + 36 + len(body), len(PCM), 4001, 0)
        (tmp_path / "a.wav").write_bytes(b"RF64\xff\xff\xff\xffWAVE" + ds64 + body)
        assert copy(tmp_path / "a.wav", tmp_path / "b.wav") == []
        after = (tmp_path / "b.wav").read_bytes()
        assert after[:16] == b"RF64\xff\xff\xff\xffWAVEds64"
        assert struct.unpack_from("<QQ", after, 20) == (len(after) - 8, len(PCM))
        assert after[48:].startswith(BEFORE[0] + b"fmt ")
        assert after.endswith(PCM + AFTER[0] + BEFORE[1])
        assert soundfile.info(tmp_path / "b.wav").frames == 4001

    def test_chunks_of_wav_that_becomes_rf64(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wav_container, "MAX_WAV_BYTES", 1000)
        (tmp_path / "a.wav").write_bytes(wav(*BEFORE, fmt(), chunk(b"data", PCM), *AFTER))
        assert copy(tmp_path / "a.wav", tmp_path / "b.wav") == []
        after = (tmp_path / "b.wav").read_bytes()
        assert after[:4] == b"RF64"
        assert all(block[8:] in after for block in (*BEFORE, *AFTER))
        samples = [soundfile.read(tmp_path / name, dtype="int16")[0] for name in ("a.wav", "b.wav")]
        assert (samples[0] == samples[1]).all()
        assert copy(tmp_path / "b.wav", tmp_path / "c.wav") == []
        assert (tmp_path / "c.wav").read_bytes() == after

    def test_chunks_of_aiff_byte_for_byte(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "sound.aiff", SOUND, 48_000, "PCM_16")
        sound = parse((tmp_path / "sound.aiff").read_bytes(), ">")
        added = [
            (b"NAME", "Café".encode()),
            (b"AUTH", b"me"),
            (b"ANNO", b"one"),
            (b"ANNO", b"three"),
            (b"MARK", struct.pack(">HHI", 1, 1, 400) + b"\x05Intro"),
            (b"INST", bytes(20)),
            (b"COMT", struct.pack(">HIHH", 1, 7, 0, 2) + b"hi"),
        ]
        blocks = [chunk(name, body, ">") for name, body in [*added[:3], *sound, *added[3:]]]
        body = b"AIFF" + b"".join(blocks)
        (tmp_path / "a.aiff").write_bytes(b"FORM" + struct.pack(">I", len(body)) + body)
        assert copy(tmp_path / "a.aiff", tmp_path / "b.aiff") == []
        after = parse((tmp_path / "b.aiff").read_bytes(), ">")
        assert [block for block in after if block[0] not in (b"COMM", b"SSND")] == added
        assert [block for block in after if block[0] in (b"COMM", b"SSND")] == sound

    @pytest.mark.parametrize("extension", ["wav", "aiff"])
    def test_id3_in_chunks(self, extension: str, tmp_path: Path) -> None:
        source, target = tmp_path / f"a.{extension}", tmp_path / f"b.{extension}"
        write_tagged(source)
        assert copy(source, target) == []
        before, after = mutagen.File(source).tags, mutagen.File(target).tags
        assert {key: repr(frame) for key, frame in after.items()} == {key: repr(frame) for key, frame in before.items()}
        assert soundfile.info(target).frames == 4001

    def test_chunks_of_caf(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "sound.caf", np.repeat(SOUND[:, None], 6, 1), 48_000, "PCM_24")
        plain = (tmp_path / "sound.caf").read_bytes()
        strings = b"info" + struct.pack(">qI", 16, 1) + b"title\0Caf\xc3\xa9\0"
        layout = b"chan" + struct.pack(">qIII", 12, 121 << 16 | 6, 0, 0)
        markers = b"mark" + struct.pack(">qII", 8, 0, 0)
        (tmp_path / "a.caf").write_bytes(plain[:52] + strings + layout + plain[52:] + markers)
        assert copy(tmp_path / "a.caf", tmp_path / "b.caf") == []
        after = (tmp_path / "b.caf").read_bytes()
        assert after == (tmp_path / "a.caf").read_bytes()

    def test_blocks_of_flac(self, tmp_path: Path) -> None:
        write_tagged(tmp_path / "a.flac", channels=2)
        file = mutagen.flac.FLAC(tmp_path / "a.flac")
        file.cuesheet = mutagen.flac.CueSheet(None)
        file.cuesheet.media_catalog_number = b"1234567890123"
        track = mutagen.flac.CueSheetTrack(1, 0)
        track.indexes.append(mutagen.flac.CueSheetTrackIndex(1, 0))
        file.cuesheet.tracks += [track, mutagen.flac.CueSheetTrack(170, 4001)]
        file.metadata_blocks += [file.cuesheet, mutagen.flac.MetadataBlock(b"riff" + bytes(20))]
        file.metadata_blocks[-1].code = 2
        file.save()
        assert copy(tmp_path / "a.flac", tmp_path / "b.flac") == []
        before, after = (mutagen.flac.FLAC(tmp_path / name) for name in ("a.flac", "b.flac"))
        kept = {2, 4, 5, 6}
        assert [(b.code, b.write()) for b in after.metadata_blocks if b.code in kept] == [
            (b.code, b.write()) for b in before.metadata_blocks if b.code in kept
        ]
        assert {b.code for b in before.metadata_blocks} >= kept
        samples = [soundfile.read(tmp_path / name, dtype="int32")[0] for name in ("a.flac", "b.flac")]
        assert (samples[0] == samples[1]).all()
        assert copy(tmp_path / "b.flac", tmp_path / "c.flac") == []
        assert (tmp_path / "c.flac").read_bytes() == (tmp_path / "b.flac").read_bytes()

    @pytest.mark.parametrize("extension", ["ogg", "opus"])
    @pytest.mark.parametrize("n_bytes", [10, 254, 255, 510, 64_770, 70_000, 300_000])
    def test_comments_of_ogg(self, extension: str, n_bytes: int, tmp_path: Path) -> None:
        """Comments of several pages, and of lengths around those of segments and pages."""
        source, target, plain = (tmp_path / f"{name}.{extension}" for name in "abc")
        soundfile.write(source, SOUND, 48_000, format="OGG", subtype="OPUS" if extension == "opus" else None)
        copy(source, plain)
        file = mutagen.File(source)
        file.tags.update(
            {"title": [TITLES[1]], "artist": ["A", "B"], "R128_TRACK_GAIN": ["-512"], "x": ["y" * n_bytes]}
        )
        file.save()
        assert copy(source, target) == []
        assert list(mutagen.File(target).tags) == list(mutagen.File(source).tags)
        samples = [soundfile.read(path)[0] for path in (plain, target)]
        assert (samples[0] == samples[1]).all()
        assert len(samples[1]) == 4001

    def test_comments_of_later_parts_are_named(self, tmp_path: Path) -> None:
        parts = []
        for title in ("one", "two"):
            write_tagged(tmp_path / "a.ogg")
            file = mutagen.File(tmp_path / "a.ogg")
            file["title"] = [title]
            file.save()
            parts.append((tmp_path / "a.ogg").read_bytes())
        (tmp_path / "a.ogg").write_bytes(b"".join(parts))
        warnings = copy(tmp_path / "a.ogg", tmp_path / "b.ogg")
        assert warnings[-1].endswith("without the comments of later parts.")
        assert mutagen.File(tmp_path / "b.ogg")["title"] == ["one"]

    def test_bytes_without_metadata_are_those_of_libsndfile(self, tmp_path: Path) -> None:
        for extension, subtype in (("wav", "PCM_16"), ("wav", "PCM_24"), ("aiff", "PCM_16"), ("flac", "PCM_24")):
            source, target = tmp_path / f"a.{extension}", tmp_path / f"b.{extension}"
            soundfile.write(source, SOUND, 48_000, subtype)
            assert copy(source, target) == []
            assert target.read_bytes() == source.read_bytes()


class TestChannelMasks:
    @pytest.mark.parametrize(
        ("channels", "mask"), [(8, 0x63F), (8, 0xFF), (6, 0x60F), (6, 0), (4, 0), (4, 0x107), (5, 0x37), (3, 7), (1, 0)]
    )
    def test_mask_of_wav(self, channels: int, mask: int, tmp_path: Path, pipe: Callable[..., BinaryIO]) -> None:
        data = wav(fmt(channels, mask), chunk(b"data", PCM[: len(PCM) // channels // 2 * channels * 2]))
        (tmp_path / "a.wav").write_bytes(data)
        assert copy(tmp_path / "a.wav", tmp_path / "b.wav") == []
        assert copy(pipe(data), tmp_path / "c.wav") == []
        for name in ("b.wav", "c.wav"):
            after = parse((tmp_path / name).read_bytes())
            assert [block for block in after if block[0] != b"fact"] == parse(data)
        out = Pipe()
        copy(tmp_path / "a.wav", out)
        assert out.getvalue() == data

    @pytest.mark.parametrize(("channels", "mask"), [(6, 0x60F), (6, 0), (4, 0x107), (8, 0xFF)])
    def test_mask_through_flac(self, channels: int, mask: int, tmp_path: Path) -> None:
        (tmp_path / "a.wav").write_bytes(wav(fmt(channels, mask), chunk(b"data", PCM[: 96 * channels])))
        assert copy(tmp_path / "a.wav", tmp_path / "b.flac") == []
        tags = mutagen.flac.FLAC(tmp_path / "b.flac").tags or {}
        expected = [] if mask == 0x60F else [f"0x{mask:04X}"]  # FLAC means 0x60F by six channels
        assert tags.get("WAVEFORMATEXTENSIBLE_CHANNEL_MASK", []) == expected
        assert copy(tmp_path / "b.flac", tmp_path / "c.wav") == []
        after = dict(parse((tmp_path / "c.wav").read_bytes()))
        assert after[b"fmt "] == fmt(channels, mask)[8:]

    def test_none_where_none_was(self, tmp_path: Path) -> None:
        data = wav(fmt(6), chunk(b"data", PCM[:6000]))
        (tmp_path / "a.wav").write_bytes(data)
        copy(tmp_path / "a.wav", tmp_path / "b.wav")
        assert (tmp_path / "b.wav").read_bytes() == data


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


class TestPipes:
    @pytest.mark.parametrize("n_bytes", [len(PCM) - 2, 4001])
    def test_chunks_through_pipes(self, n_bytes: int, tmp_path: Path, pipe: Callable[..., BinaryIO]) -> None:
        """Eight bits for an odd number of bytes."""
        form = fmt(bits=8) if n_bytes % 2 else fmt()
        data = wav(*BEFORE, form, chunk(b"data", PCM[:n_bytes]), *AFTER)
        (tmp_path / "a.wav").write_bytes(data)
        for source in (pipe(data), tmp_path / "a.wav", io.BytesIO(data)):
            out = Pipe()
            assert copy(source, out) == []
            assert out.getvalue() == data
        copy(pipe(data), tmp_path / "b.wav")
        assert (tmp_path / "b.wav").read_bytes() == data

    def test_pipe_of_unknown_length(self, pipe: Callable[..., BinaryIO]) -> None:
        data = bytearray(wav(*BEFORE, fmt(), chunk(b"data", PCM)))
        data[4:8] = b"\xff" * 4
        data[len(data) - len(PCM) - 4 : len(data) - len(PCM)] = b"\xff" * 4
        out = Pipe()
        assert copy(pipe(bytes(data)), out) == []
        assert out.getvalue() == data

    def test_tags_into_a_stream_of_another_kind(self, tmp_path: Path) -> None:
        write_tagged(tmp_path / "a.flac")
        out = Pipe()
        assert copy(tmp_path / "a.flac", out) == []
        out.seek(0)
        assert mutagen.flac.FLAC(io.BytesIO(out.getvalue()))["artist"] == ["A", "Б"]


SOURCES = ["mp3", "wav", "aiff", "flac", "ogg", "opus"]
PAIRS = [(a, b) for a in SOURCES for b in SOURCES if a != b and {a, b} != {"ogg", "opus"}]


class TestOtherContainers:
    @pytest.mark.parametrize(("source", "target"), PAIRS)
    def test_text_and_pictures(self, source: str, target: str, tmp_path: Path) -> None:
        write_tagged(tmp_path / f"a.{source}")
        warnings = copy(tmp_path / f"a.{source}", tmp_path / f"b.{target}")
        file = mutagen.File(tmp_path / f"b.{target}")
        if target in ("mp3", "wav", "aiff"):
            tag = {key: frame.text for key, frame in file.tags.items() if key[0] == "T"}
            assert (tag["TIT2"], tag["TPE1"], tag["TPE2"]) == ([TITLES[0]], ["A", "Б"], ["Album artist"])
            assert (tag.get("TXXX:KEY") or tag["TXXX:key"]) == ["v"]
            assert str(tag["TRCK"][0]).startswith("3")
            assert file.tags.getall("COMM")[0].text == ["remark"]
            assert file.tags.getall("USLT")[0].text.startswith("words")
            picture = file.tags.getall("APIC")[0]
        else:
            assert (file["title"], file["artist"], file["albumartist"]) == ([TITLES[0]], ["A", "Б"], ["Album artist"])
            assert (file["key"], file["comment"], file["tracknumber"]) == (["v"], ["remark"], ["3"])
            assert file["lyrics"][0].startswith("words")
            if target == "flac":
                (picture,) = file.pictures
            else:
                picture = mutagen.flac.Picture(base64.b64decode(file["metadata_block_picture"][0]))
        assert (picture.data, picture.mime, picture.type, picture.desc) == (PNG, "image/png", 3, "cover")
        if source not in ("mp3", "wav", "aiff"):
            assert warnings == []
        elif target in ("mp3", "wav", "aiff"):  # the whole tag is carried
            before = mutagen.File(tmp_path / f"a.{source}").tags
            assert {key: repr(f) for key, f in file.tags.items()} == {key: repr(f) for key, f in before.items()}
            assert warnings == []
        else:
            (warning,) = warnings
            assert set(warning.rstrip(".").partition("without ")[2].split(", ")) == {"PRIV"}
            assert (file["chapter001"], file["chapter001name"]) == (["00:00:00.000"], ["Intro"])

    @pytest.mark.parametrize("version", [3, 4])
    @pytest.mark.parametrize("target", ["flac", "ogg", "opus"])
    @pytest.mark.parametrize("source", ["mp3", "wav", "aiff"])
    def test_chapters_to_comments_and_back(self, source: str, target: str, version: int, tmp_path: Path) -> None:
        titles, starts = ["Intro", "Gespräch", "父の声", ""], [0, 250, 3_723_004, 3_800_000]
        frames = [
            id3.CHAP(
                element_id=f"c{i}",
                start_time=start,
                end_time=end,
                sub_frames=[id3.TIT2(1, text=title)] if title else [],
            )
            for i, (start, end, title) in enumerate(zip(starts, [*starts[1:], 4_000_000], titles, strict=True))
        ]
        write_tagged(tmp_path / f"a.{source}", [id3.TPE1(3, text="A"), *frames])
        if source == "mp3":
            id3.ID3(tmp_path / "a.mp3").save(v2_version=version)
        assert copy(tmp_path / f"a.{source}", tmp_path / f"b.{target}") == []
        file = mutagen.File(tmp_path / f"b.{target}")
        times = ["00:00:00.000", "00:00:00.250", "01:02:03.004", "01:03:20.000"]
        assert [file[f"chapter{i:03}"] for i in range(1, 5)] == [[time] for time in times]
        assert [file[f"chapter{i:03}name"] for i in range(1, 5)] == [[title] for title in titles]
        assert copy(tmp_path / f"b.{target}", tmp_path / f"c.{source}") == []
        tag = mutagen.File(tmp_path / f"c.{source}").tags
        (table,) = tag.getall("CTOC")
        chapters = [tag[f"CHAP:{element}"] for element in table.child_element_ids]
        assert [chapter.start_time for chapter in chapters] == starts
        assert [chapter.end_time for chapter in chapters] == [*starts[1:], starts[3]]  # the sound is shorter
        assert ["".join(map(str, chapter.sub_frames.getall("TIT2"))) for chapter in chapters] == titles
        assert (table.flags, tag["TPE1"].text, tag.getall("TXXX")) == (3, ["A"], [])

    def test_comments_that_are_no_chapters(self, tmp_path: Path) -> None:
        write_tagged(tmp_path / "a.flac")
        file = mutagen.flac.FLAC(tmp_path / "a.flac")
        file.tags.update(
            {"CHAPTER001": ["0:0:0.05"], "CHAPTER001NAME": ["I"], "CHAPTER002": ["soon"], "CHAPTERS": ["2"]}
        )
        file.save()
        assert copy(tmp_path / "a.flac", tmp_path / "b.mp3") == []
        tag = id3.ID3(tmp_path / "b.mp3")
        (chapter,) = tag.getall("CHAP")
        assert (chapter.start_time, chapter.end_time, chapter.sub_frames["TIT2"].text) == (50, 83, ["I"])
        assert (tag["TXXX:CHAPTER002"].text, tag["TXXX:CHAPTERS"].text) == (["soon"], ["2"])
        (warning,) = copy(tmp_path / "a.flac", tmp_path / "b.w64")
        assert "CHAPTER002, CHAPTERS, chapters, pictures" in warning

    def test_what_chapters_of_id3_lose(self, tmp_path: Path) -> None:
        picture = id3.APIC(3, mime="image/png", type=3, desc="", data=PNG)
        frames = [
            id3.CHAP(element_id="a", start_time=0, end_time=10, sub_frames=[picture]),
            id3.CHAP(element_id="b", start_time=20, end_time=30, sub_frames=[]),
            *(id3.CTOC(element_id=name, flags=3, child_element_ids=["a"], sub_frames=[]) for name in "xy"),
        ]
        write_tagged(tmp_path / "a.mp3", frames)
        (warning,) = copy(tmp_path / "a.mp3", tmp_path / "b.flac")
        assert warning.endswith("without CHAP-APIC, CTOC, the ends of chapters.")
        assert mutagen.flac.FLAC(tmp_path / "b.flac")["chapter002"] == ["00:00:00.020"]

    def test_text_that_wav_and_aiff_hold_without_id3(self, tmp_path: Path) -> None:
        write_tagged(tmp_path / "a.flac")
        copy(tmp_path / "a.flac", tmp_path / "b.wav")
        copy(tmp_path / "a.flac", tmp_path / "b.aiff")
        for name in ("b.wav", "b.aiff"):
            with soundfile.SoundFile(tmp_path / name) as file:
                assert (file.title, file.artist, file.comment) == (TITLES[0], "A; Б", "remark")

    @pytest.mark.parametrize("through", ["mp3", "wav", "aiff"])
    def test_names_of_comments_through_id3(self, through: str, tmp_path: Path) -> None:
        write_tagged(tmp_path / "a.flac")
        file = mutagen.flac.FLAC(tmp_path / "a.flac")
        names = {"REPLAYGAIN_TRACK_GAIN": ["-3 dB"], "MUSICBRAINZ_TRACKID": ["abc"], "TRACKTOTAL": ["9"]}
        file.tags.update({**names, "ENCODEDBY": ["me"], "COMMENT": ["one", "two"], "DESCRIPTION": ["three"], "E": [""]})
        file.save()
        assert copy(tmp_path / "a.flac", tmp_path / f"b.{through}") == []
        tag = id3.ID3(tmp_path / "b.mp3") if through == "mp3" else mutagen.File(tmp_path / f"b.{through}").tags
        assert [frame.text for frame in tag.getall("COMM")] == [["one\ntwo\nthree"]]
        assert "TXXX:E" not in tag
        assert copy(tmp_path / f"b.{through}", tmp_path / "c.flac") == []
        after = mutagen.flac.FLAC(tmp_path / "c.flac")
        assert {name: after[name] for name in names} == names
        assert (after["ENCODEDBY"], after["COMMENT"]) == (["me"], ["one\ntwo\nthree"])

    @pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
    def test_info_of_wav(self, encoding: str, tmp_path: Path) -> None:
        info = chunk(b"INAM", "Café".encode(encoding) + b"\0") + chunk(b"ISFT", b"Recorder\0\0")
        (tmp_path / "a.wav").write_bytes(wav(fmt(), chunk(b"data", PCM), chunk(b"LIST", b"INFO" + info)))
        assert copy(tmp_path / "a.wav", tmp_path / "b.flac") == []
        file = mutagen.flac.FLAC(tmp_path / "b.flac")
        assert (file["title"], file["software"]) == (["Café"], ["Recorder"])

    def test_what_is_lost_is_named_once(self, tmp_path: Path) -> None:
        (tmp_path / "a.wav").write_bytes(wav(*BEFORE, fmt(), chunk(b"data", PCM), *AFTER[:4]))
        (warning,) = copy(tmp_path / "a.wav", tmp_path / "b.flac")
        assert warning == (
            f"{tmp_path / 'b.flac'}: FLAC cannot hold all of the input; "
            "without bext, iXML, axml, cue, LIST-adtl, smpl, inst."
        )
        write_tagged(tmp_path / "a.flac")
        (warning,) = copy(tmp_path / "a.flac", tmp_path / "b.w64")
        assert "W64 cannot hold all of the input; without " in warning
        assert "TITLE, ARTIST, " in warning
        assert "pictures" in warning
        (warning,) = copy(tmp_path / "a.flac", tmp_path / "b.caf")
        assert warning.endswith("without pictures.")
        assert b"title\0" + TITLES[0].encode() + b"\0" in (tmp_path / "b.caf").read_bytes()
        assert copy(tmp_path / "b.caf", tmp_path / "c.flac") == []
        assert mutagen.flac.FLAC(tmp_path / "c.flac")["title"] == [TITLES[0]]

    def test_chunks_after_the_sound_of_a_pipe(self, tmp_path: Path, pipe: Callable[..., BinaryIO]) -> None:
        data = wav(BEFORE[3], fmt(), chunk(b"data", PCM), AFTER[0])
        (warning,) = copy(pipe(data), tmp_path / "b.flac")
        assert warning.endswith("without what comes after the sound of a pipe.")
        assert mutagen.flac.FLAC(tmp_path / "b.flac")["title"] == ["Café"]

    def test_tags_of_the_format(self, tmp_path: Path) -> None:
        format = AudioFormat(16_000, 1, "FLAC", "PCM_16", tags={"title": TITLES[1], "artist": "A"})
        write_audio(tmp_path / "a.mp3", Audio(np.zeros((1, 4000), np.float32), format))
        tag = id3.ID3(tmp_path / "a.mp3")
        assert (tag["TIT2"].text, tag["TPE1"].text) == ([TITLES[1]], ["A"])

    def test_ape_alone(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.mp3", SOUND, 48_000)
        ape = mutagen.apev2.APEv2()
        ape["Title"], ape["Artist"], ape["Year"] = TITLES[1], ["A", "Б"], "2024"
        ape.save(tmp_path / "a.mp3")
        assert copy(tmp_path / "a.mp3", tmp_path / "b.flac") == []
        file = mutagen.flac.FLAC(tmp_path / "b.flac")
        assert (file["title"], file["artist"], file["date"]) == ([TITLES[1]], ["A", "Б"], ["2024"])
        ape["Cover Art (Front)"] = mutagen.apev2.APEValue(PNG, mutagen.apev2.BINARY)
        ape.save(tmp_path / "a.mp3")
        (warning,) = copy(tmp_path / "a.mp3", tmp_path / "c.flac")
        assert warning.endswith("without APE.")
        assert mutagen.flac.FLAC(tmp_path / "c.flac")["title"] == [TITLES[1]]

    def test_id3v1_alone(self, tmp_path: Path) -> None:
        write_tagged(tmp_path / "a.mp3", [id3.TIT2(3, text="Tea")], v1=2)
        id3.delete(tmp_path / "a.mp3", delete_v1=False, delete_v2=True)
        assert copy(tmp_path / "a.mp3", tmp_path / "b.flac") == []
        assert mutagen.flac.FLAC(tmp_path / "b.flac")["title"] == ["Tea"]


class TestDamagedMetadata:
    @pytest.mark.parametrize("extension", SOURCES)
    def test_damage_never_stops_a_copy(self, extension: str, tmp_path: Path) -> None:
        """The metadata of a file are changed at random; what libsndfile still reads is copied."""
        source = tmp_path / f"a.{extension}"
        write_tagged(source)
        data = source.read_bytes()
        offsets = {"wav": (data.rfind(b"ID3"), len(data)), "aiff": (data.rfind(b"ID3"), len(data))}
        start, end = offsets.get(extension, (50 if extension != "mp3" else 3, 900))
        rng = np.random.default_rng(0)
        for _ in range(25):
            damaged = bytearray(data)
            for offset in rng.integers(start, end, 4):
                damaged[offset] = rng.integers(256)
            (tmp_path / f"b.{extension}").write_bytes(damaged)
            try:
                with AudioReader(tmp_path / f"b.{extension}") as reader:
                    reader.read(10)
            except InputError:
                continue
            for target in (f"c.{extension}", "c.flac", "c.mp3"):
                with suppress(InputError):
                    copy(tmp_path / f"b.{extension}", tmp_path / target)


def test_whole_recordings_keep_their_metadata(tmp_path: Path) -> None:
    write_tagged(tmp_path / "a.flac")
    write_audio(tmp_path / "b.flac", read_audio(tmp_path / "a.flac"))
    assert mutagen.flac.FLAC(tmp_path / "b.flac").pictures[0].data == PNG
