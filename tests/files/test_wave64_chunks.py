"""Chunks of Wave64 come back byte for byte, or are named."""

from __future__ import annotations

import struct
from pathlib import Path

import mutagen.flac
import numpy as np
import pytest
import soundfile

from denoise.files.audio import AudioReader, AudioWriter

SOUND = np.random.default_rng(0).normal(0, 0.1, 4001)
GUID_END = bytes.fromhex("f3acd3118cd100c04f8edb8a")
MARKERS = bytes.fromhex("5662f7ab2d39d21186c700c04f8edb8a")
SUMMARY_LIST = bytes.fromhex("bc945f925a52d21186dc00c04f8edb8a")


def chunk(guid: bytes, body: bytes) -> bytes:
    return guid + struct.pack("<Q", 24 + len(body)) + body + bytes(-len(body) % 8)


def summary(**texts: str) -> bytes:
    entries = [(name.encode(), f"{text}\0".encode("utf-16-le")) for name, text in texts.items()]
    packed = b"".join(name + struct.pack("<I", len(text)) + text for name, text in entries)
    return chunk(SUMMARY_LIST, struct.pack("<I", len(entries)) + packed)


def parse(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return all chunks behind the head of 40 bytes, and require that the declared size is right."""
    assert struct.unpack_from("<Q", data, 16) == (len(data),)
    offset, found = 40, []
    while offset < len(data):
        guid, size = struct.unpack_from("<16sQ", data, offset)
        found.append((guid, data[offset + 24 : offset + size]))
        offset += -(-size // 8) * 8
    assert offset == len(data)
    return found


def write(path: Path, before: list[bytes], after: list[bytes], subtype: str = "PCM_16") -> None:
    """Write a file of libsndfile's sound with chunks before and behind it."""
    soundfile.write(path, SOUND, 48_000, subtype, format="W64")
    plain = path.read_bytes()
    data = plain[:40] + b"".join(before) + plain[40:] + bytes(-len(plain) % 8) + b"".join(after)
    path.write_bytes(data[:16] + struct.pack("<Q", len(data)) + data[24:])


def copy(source: Path, target: Path) -> list[str]:
    with AudioReader(source) as reader:
        with AudioWriter(target, reader.format, frames=reader.frames) as writer:
            while (x := reader.read(777)).shape[1]:
                writer.write(x)
        return [*reader.warnings, *writer.warnings]


BEFORE = [chunk(b"bext" + GUID_END, b"Scene 1" + bytes(595)), summary(INAM="Café", IART="Подкаст")]
AFTER = [
    chunk(MARKERS, b"odd"),
    chunk(b"acid" + GUID_END, bytes(24)),
    chunk(b"list" + bytes.fromhex("2f91cf11a5d628db04c10000"), b"labels"),
]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_chunks_byte_for_byte(subtype: str, tmp_path: Path) -> None:
    write(tmp_path / "a.w64", BEFORE, AFTER, subtype)
    assert copy(tmp_path / "a.w64", tmp_path / "b.w64") == []
    before, after = (parse((tmp_path / name).read_bytes()) for name in ("a.w64", "b.w64"))
    coding = {name + GUID_END for name in (b"fmt ", b"fact", b"data")}
    assert [pair for pair in after if pair[0] not in coding] == [pair for pair in before if pair[0] not in coding]
    assert dict(after)[b"data" + GUID_END] == dict(before)[b"data" + GUID_END]
    av = pytest.importorskip("av")
    with av.open(tmp_path / "b.w64") as file:
        assert (file.metadata["title"], file.metadata["artist"]) == ("Café", "Подкаст")
    samples = [soundfile.read(tmp_path / name, always_2d=True)[0][:4001] for name in ("a.w64", "b.w64")]
    np.testing.assert_array_equal(*samples)
    assert copy(tmp_path / "b.w64", tmp_path / "c.w64") == []
    assert (tmp_path / "c.w64").read_bytes() == (tmp_path / "b.w64").read_bytes()


def test_overviews_and_padding_are_left_out(tmp_path: Path) -> None:
    junk, levels = chunk(b"junk" + GUID_END, bytes(40)), chunk(b"levl" + GUID_END, bytes(100))
    write(tmp_path / "a.w64", [junk], [levels, AFTER[0]])
    (warning,) = copy(tmp_path / "a.w64", tmp_path / "b.w64")
    assert warning.endswith("W64 cannot hold all of the input; without levl.")
    names = [guid for guid, _ in parse((tmp_path / "b.w64").read_bytes())]
    assert names == [b"fmt " + GUID_END, b"data" + GUID_END, MARKERS]


def test_into_another_container(tmp_path: Path) -> None:
    write(tmp_path / "a.w64", BEFORE, AFTER)
    (warning,) = copy(tmp_path / "a.w64", tmp_path / "b.flac")
    assert warning.endswith("without bext, the chunk abf76256-392d-11d2-86c7-00c04f8edb8a, acid, list.")
    file = mutagen.flac.FLAC(tmp_path / "b.flac")
    assert (file["title"], file["artist"]) == (["Café"], ["Подкаст"])


def test_bytes_without_chunks_are_those_of_libsndfile(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.w64", SOUND, 48_000, "PCM_16", format="W64")
    assert copy(tmp_path / "a.w64", tmp_path / "b.w64") == []
    assert (tmp_path / "b.w64").read_bytes() == (tmp_path / "a.w64").read_bytes()


def test_channel_mask_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.w64", [], [])
    data = (tmp_path / "a.w64").read_bytes()
    fmt = struct.pack("<HHIIHHHHIH", 0xFFFE, 1, 48_000, 96_000, 2, 16, 22, 16, 4, 1) + bytes.fromhex(
        "000000001000800000aa00389b71"
    )
    data = data[:40] + chunk(b"fmt " + GUID_END, fmt) + data[80:]
    (tmp_path / "a.w64").write_bytes(data[:16] + struct.pack("<Q", len(data)) + data[24:])
    (warning,) = copy(tmp_path / "a.w64", tmp_path / "b.w64")
    assert warning.endswith("without the channel mask.")
