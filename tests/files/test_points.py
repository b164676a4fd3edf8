"""Files of point clouds, written by hand: everything that is no changed coordinate keeps its bytes."""

from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from denoise.errors import InputError
from denoise.files.points import container, read_points, write_points

POINTS = [(0.5, -1.25, 2.0), (1e-3, 3.5, -7.0), (4.0, 5.0, 6.0)]
COLOURS = [(255, 0, 1), (2, 3, 4), (13, 10, 26)]  # with the bytes of line ends and of the end of text
NORMALS = [(0.0, 0.6, 0.8), (1.0, 0.0, 0.0), (0.0, -1.0, 0.0)]
FACES = [(0, 1, 2), (2, 1, 0)]


def header(kind: str, end: str = "\n", coordinate: str = "float", vertices: int = 3, faces: int = 2) -> bytes:
    lines = ["ply", f"format {kind} 1.0", "comment made by hand", f"element vertex {vertices}", "property uchar red"]
    lines += [f"property {coordinate} {name}" for name in "xyz"] + ["property uchar green"]
    lines += [f"property float32 n{name}" for name in "xyz"] + ["property uint8 blue", f"element face {faces}"]
    return end.join([*lines, "property list uchar int vertex_indices", "end_header", ""]).encode()


def binary(order: str, coordinate: str = "float") -> bytes:
    body = b""
    for point, normal, (red, green, blue) in zip(POINTS, NORMALS, COLOURS, strict=True):
        body += struct.pack(f"{order}B3{coordinate[0]}B3fB", red, *point, green, *normal, blue)
    for face in FACES:
        body += struct.pack(f"{order}B3i", 3, *face)
    kind = "little" if order == "<" else "big"
    return header(f"binary_{kind}_endian", coordinate=coordinate) + body


def text(end: str = "\n") -> bytes:
    rows = [
        f"{red} {x}  {y}\t{z} {green} {nx} {ny} {nz} {blue} "
        for (x, y, z), (nx, ny, nz), (red, green, blue) in zip(POINTS, NORMALS, COLOURS, strict=True)
    ]
    return header("ascii", end) + end.join([*rows, *(f"3 {a} {b} {c}" for a, b, c in FACES), ""]).encode()


def spaced(end: str = "\n") -> bytes:
    """Return the text file with blank lines before, among and after the vertices and faces."""
    start = text(end).index(b"end_header") + len("end_header" + end)
    blanks = [b"", b"  ", b"", b"\t", b"", b""]
    lines = [part for pair in zip(blanks, text(end)[start:].splitlines(), strict=False) for part in pair]
    return text(end)[:start] + end.encode().join([*lines, b"", b""])


XYZ = b"# scan 7\n0.5 -1.25 2.0 255 0 1\n\n1e-3,3.5,-7.0,2,3,4\r\n  4 5 6\n"
FILES = {
    "little.ply": binary("<"),
    "big.ply": binary(">"),
    "double.ply": binary(">", "double"),
    "text.ply": text(),
    "windows.ply": text("\r\n"),
    "spaced.ply": spaced(),
    "scan.xyz": XYZ,
    "marked.xyz": b"\xef\xbb\xbf" + XYZ.replace(b"\n\n", b"\n  # indented\n // also\n"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_round_trip_keeps_every_byte(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    file = read_points(tmp_path / name)
    np.testing.assert_allclose(file.points, POINTS, rtol=1e-7)
    assert file.replace(file.points.copy()) == FILES[name]
    assert read_points(io.BytesIO(FILES[name]), "standard input").replace(file.points) == FILES[name]
    assert file.suffix == Path(name).suffix


@pytest.mark.parametrize("name", FILES)
def test_changed_coordinates_are_the_only_change(name: str) -> None:
    file = read_points(io.BytesIO(FILES[name]), name)
    moved = file.points.copy()
    moved[1] = (0.125, -2.5, 1000.0)
    data = file.replace(moved)
    np.testing.assert_allclose(read_points(io.BytesIO(data), name).points, moved, atol=1e-4)
    if b"binary" in data:  # the three numbers of the second vertex, at their offset
        size = 8 if name == "double.ply" else 4
        kind = ("<" if name == "little.ply" else ">") + ("3d" if size == 8 else "3f")
        offset = data.index(b"end_header\n") + 11 + (3 * size + 3 + 12) + 1
        assert data[offset : offset + 3 * size] == struct.pack(kind, *moved[1])
        assert data[:offset] + data[offset + 3 * size :] == FILES[name][:offset] + FILES[name][offset + 3 * size :]
        return
    old, new = FILES[name].splitlines(keepends=True), data.splitlines(keepends=True)
    (row,) = (i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
    for token, value in ((b"0.001" if b"0.001" in old[row] else b"1e-3", 0.125), (b"3.5", -2.5), (b"-7.0", 1000.0)):
        written = next(t for t in new[row].replace(b",", b" ").split() if float(t) == value)
        new[row] = new[row].replace(written, token, 1)
    assert new[row] == old[row]


@pytest.mark.parametrize("name", ["a.ply", "a.xyz"])
def test_new_files(tmp_path: Path, name: str) -> None:
    points = np.random.default_rng(0).normal(size=(50, 3))
    write_points(tmp_path / name, points)
    np.testing.assert_allclose(read_points(tmp_path / name).points, points, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="exists already"):
        write_points(tmp_path / name, points)
    with pytest.raises(InputError, match=r"expected .ply or .xyz"):
        write_points(tmp_path / "a.obj", points)


def nan_in(data: bytes) -> bytes:
    return data.replace(struct.pack(">f", 3.5), struct.pack(">f", np.nan))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (binary("<")[:-30], "77 bytes follow the header; expected at least"),
        *((binary("<")[:-n], "bytes are missing at the end; expected those of 3 vertex, 2 face") for n in (1, 5, 13)),
        (binary(">") + b"\0", "bytes follow the last element"),
        (binary("<")[:200], "the header has"),
        (b"ply\n", "the header has no end"),
        (
            binary("<").replace(b"\n", b"\r"),
            "end with CR alone; expected LF or CR LF. Such files are not",
        ),
        (header("ascii") + text()[len(header("ascii")) : -20], "3 lines follow the header; expected 5"),
        (header("binary_little_endian", vertices=10**14), "expected at least"),
        (header("binary_little_endian", vertices=10**30), "the header has the line 'element vertex 1000"),
        (header("ascii", vertices=10**14), "expected 100,000,000,000,002"),
        (header("binary_big_endian", vertices=0, faces=0), "holds no points"),
        (header("ascii", vertices=0, faces=0), "holds no points"),
        (header("ascii", coordinate="int"), "expected x, y and z of type float or double"),
        (binary("<").replace(b"binary_little_endian", b"binary_middle_endian"), "the line 'format binary_middle"),
        (binary("<").replace(b"uchar red", b"quark red"), "the line 'property quark red'"),
        (
            binary("<").replace(b"uchar red", b"list uchar int red"),
            "are vertex with lists, face with lists; expected element vertex",
        ),
        (binary("<").replace(b"element vertex", b"element camera"), "expected element vertex first"),
        (binary("<").replace(b"uchar green", b"uchar red"), "declared twice"),
        (b"ply\nproperty float x\n", "the line 'property float x'"),
        (nan_in(binary(">")), "y of point 1 is nan; coordinates must be finite"),
        (text().replace(b"-1.25", b"inf"), "y of point 0 is inf"),
        (text().replace(b"-1.25", b"one"), "line 17 is"),
        (b"", "holds no points"),
        (b"# nothing\n", "holds no points"),
        (b"1 2 3\n4 5\n", "line 2 is '4 5'; expected 3 numbers"),
        (b"1 2 3\n# comment\n\n4 5\n", "line 4 is '4 5'; expected 3 numbers"),
        (b"1 2 3\n1_0 2 3\n", "line 2 is '1_0 2 3'"),
        (spaced().replace(b"-1.25", b"one"), "line 18 is"),
        (b"plymouth 1 2 3\n", "line 1 is 'plymouth 1 2 3'; expected 3 numbers"),
        (text().replace(b"comment", b"ply"), "the header has the line 'ply made by hand'"),
        (text().replace(b"comment made by hand", b"format ascii 1.0"), "the header has the line 'format ascii 1.0'"),
        (b"3\nwater\nO 0 0 0\n", "line 1 is '3'"),
        (b"1 2 nan\n", "z of point 0 is nan"),
        (bytes(range(256)), "expected 3 numbers"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "bad.ply"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_points(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert reason in message


def test_text_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert container.MAX_TEXT == 512 << 20
    monkeypatch.setattr(container, "MAX_TEXT", 3 << 20)
    line = b"0.123456 0.123456 0.123456\n"
    assert len(read_points(io.BytesIO(line * ((3 << 20) // len(line))), "a.xyz").points) > 100_000
    with pytest.raises(InputError, match=r"^a.xyz: holds 3 MiB of text; expected 3 at most. Convert it"):
        read_points(io.BytesIO(b"# 3 MiB\n" + line * ((3 << 20) // len(line) + 1)), "a.xyz")


def test_memory_of_text_is_a_small_multiple_of_its_size() -> None:
    data = b"".join(b"%d.25 %d.5 0.125\n" % (i, -i) for i in range(50_000))
    tracemalloc.start()
    try:
        file = read_points(io.BytesIO(data), "a.xyz")
        reading = tracemalloc.get_traced_memory()[1]
        file.replace(file.points + 1)
        writing = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reading < 8 * len(data)
    assert writing < 14 * len(data)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.ply: No such file"):
        read_points(tmp_path / "none.ply")
    with pytest.raises(InputError, match="directory"):
        read_points(tmp_path)
