"""PLY, the polygon file format: text, or binary of either byte order; only coordinates of vertices are interpreted."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.points.container import Lines, PointFile

MAGIC = re.compile(rb"ply[ \t]*[\r\n]")
MAX_HEADER = 1 << 20  # bytes
DAMAGED = "The file is damaged; export the cloud again."
UNSUPPORTED = "Such files are not supported; export the vertices alone."
BYTE_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


@dataclass
class Element:
    """An element of the header: its number of rows and its properties as (name, type), with the type of a list's count.

    Args:
        name: name of the element.
        count: number of rows.
        properties: pairs of name and type.
        lists: types of the counts of the properties that are lists, by name.
    """

    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)
    lists: dict[str, str] = field(default_factory=dict)

    @property
    def row_bytes(self) -> int:
        """Size of a row in binary files; with lists, the least that it can be."""
        return sum(int(self.lists.get(name, kind)[1]) for name, kind in self.properties)

    def find_end(self, data: bytes, start: int, order: str) -> int:
        """Return where the rows end in a binary file, or an offset behind the data, which ends before.

        Args:
            data: contents of the file.
            start: offset of the first row.
            order: byte order.
        """
        if not self.lists:
            return start + self.count * self.row_bytes
        counts = {name: np.dtype(order + kind) for name, kind in self.lists.items()}
        for _ in range(self.count):
            for name, kind in self.properties:
                n = 1
                if name in counts:
                    if start + counts[name].itemsize > len(data):
                        return len(data) + 1
                    n = int(np.frombuffer(data, counts[name], 1, start)[0])
                    start += counts[name].itemsize
                start += max(n, 0) * int(kind[1])
            if start > len(data):
                break
        return start


class PlyFile(PointFile):
    """A PLY file whose vertices come first and have coordinates in floating point."""

    suffix = ".ply"

    def _read(self) -> NDArray[np.float64]:
        self.start, self.order = self._read_header()
        vertex = self.elements[0] if self.elements else None
        if vertex is None or vertex.name != "vertex" or vertex.lists:
            elements = ", ".join(f"{e.name}{' with lists' if e.lists else ''}" for e in self.elements) or "none"
            self._fail(f"the elements are {elements}", "element vertex first, without lists", UNSUPPORTED)
        types = dict(vertex.properties)
        if len(types) < len(vertex.properties):
            self._fail("a property is declared twice", "one of each name")
        if any(types.get(axis) not in ("f4", "f8") for axis in "xyz"):
            self._fail(f"the vertices have {', '.join(types)}", "x, y and z of type float or double", UNSUPPORTED)
        if not self.order:
            return self._read_text(vertex)
        if not vertex.count:
            return np.empty((0, 3))
        self.vertex_type = np.dtype([(name, self.order + kind) for name, kind in vertex.properties])
        expected, stored = self._expected_bytes(), len(self.data) - self.start
        has_lists = any(element.lists for element in self.elements)
        if stored < expected or (stored > expected and not has_lists):
            least = "at least " if has_lists else ""
            self._fail(
                f"{stored:,} bytes follow the header", f"{least}{expected:,} for {vertex.count:,} vertices and the rest"
            )
        end = self.start
        for element in self.elements:
            end = element.find_end(self.data, end, self.order)
        if end != len(self.data):
            what = "are missing at the end" if end > len(self.data) else "follow the last element"
            self._fail(f"bytes {what}", f"those of {', '.join(f'{e.count:,} {e.name}' for e in self.elements)}")
        vertices = self._vertices(self.data)
        return np.stack([vertices[axis] for axis in "xyz"], axis=1).astype(np.float64)

    def replace(self, points: NDArray[np.float64]) -> bytes:
        """Return the file with other coordinates; see `PointFile.replace`."""
        if not self.order:
            return self.data[: self.start] + self.text.replace(self.points, points)
        data = bytearray(self.data)
        vertices = self._vertices(data)
        for i, axis in enumerate("xyz"):
            is_changed = points[:, i] != self.points[:, i]
            vertices[axis][is_changed] = points[is_changed, i]
        return bytes(data)

    def _vertices(self, data: bytes | bytearray) -> NDArray[np.void]:
        return np.frombuffer(data, self.vertex_type, self.elements[0].count, self.start)

    def _expected_bytes(self) -> int:
        return sum(element.count * element.row_bytes for element in self.elements)

    def _read_header(self) -> tuple[int, str]:
        """Return where the header ends, and the byte order, which is empty for text."""
        self.elements: list[Element] = []
        if self.data[:MAX_HEADER].splitlines(keepends=True)[0].endswith(b"\r"):
            self._fail("the lines of the header end with CR alone", "LF or CR LF", UNSUPPORTED)
        order, position = None, self.data.find(b"\n") + 1
        while (end := self.data.find(b"\n", position, MAX_HEADER)) >= 0:
            words = self.data[position:end].decode("latin-1").split()
            position = end + 1
            try:
                match words:
                    case ["end_header"] if order is not None:
                        return position, order
                    case ["format", kind, "1.0"] if order is None:
                        order = BYTE_ORDERS[kind]
                    case ["element", name, count] if count.isdecimal() and len(count) < 16:
                        self.elements.append(Element(name, int(count)))
                    case ["property", "list", count_kind, kind, name]:
                        self.elements[-1].properties.append((name, TYPES[kind]))
                        self.elements[-1].lists[name] = TYPES[count_kind]
                    case ["property", kind, name]:
                        self.elements[-1].properties.append((name, TYPES[kind]))
                    case [] | ["comment" | "obj_info", *_]:
                        pass
                    case _:
                        raise LookupError
            except LookupError:
                self._fail(f"the header has the line {' '.join(words)[:60]!r}", "format, element, property, comment")
        self._fail("the header has no end", "a line end_header after format and elements")

    def _read_text(self, vertex: Element) -> NDArray[np.float64]:
        names = [name for name, _ in vertex.properties]
        columns = (names.index("x"), names.index("y"), names.index("z"))
        first = self.data.count(b"\n", 0, self.start) + 1
        self.text = Lines(self.data[self.start :], columns, len(names), self.name, first=first)
        expected, stored = sum(element.count for element in self.elements), len(self.text.rows)
        if stored != expected:
            self._fail(f"{stored:,} lines follow the header", f"{expected:,}, one for each row of the elements")
        return self.text.read(vertex.count)

    def _fail(self, what: str, expected: str, remedy: str = DAMAGED) -> NoReturn:
        raise InputError(f"{self.name}: {what}; expected {expected}. {remedy}")


def encode_ply(points: NDArray[np.float64]) -> bytes:
    """Return a new file of points, (n, 3), in float of little-endian byte order."""
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    return header.encode() + points.astype("<f4").tobytes()
