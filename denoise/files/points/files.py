"""Read and write point clouds."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.atomic import atomic_file
from denoise.files.names import OR_FOLDER, file_name
from denoise.files.points.container import PointFile
from denoise.files.points.ply import MAGIC, PlyFile, encode_ply
from denoise.files.points.xyz import XyzFile, encode_xyz

ENCODERS = {".ply": encode_ply, ".xyz": encode_xyz}
POINT_EXTENSIONS = frozenset(ENCODERS)
MAX_BYTES = 1 << 31


def read_points(source: str | Path | BinaryIO, name: str | None = None) -> PointFile:
    """Read a point cloud; PLY is detected by its first line, anything else is read as XYZ.

    Args:
        source: path or stream.
        name: name of the source in messages; None for its path.

    Returns:
        The file with its coordinates.

    Raises:
        InputError: the file cannot be read, is damaged, or has points that are not finite.
    """
    name = name or file_name(source, "input")
    try:
        if isinstance(source, str | Path):
            with Path(source).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        else:
            data = source.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}. Give a .ply or .xyz file.") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{name}: larger than {MAX_BYTES >> 30} GiB; expected a smaller cloud. Split it.")
    return (PlyFile if MAGIC.match(data) else XyzFile)(data, name)


def write_points(path: str | Path, points: NDArray[np.float64], *, overwrite: bool = False) -> None:
    """Write a new point cloud, .ply in single precision, .xyz with 7 significant digits.

    Coordinates of millions, as of maps, lose their decimals: subtract an offset first.

    Args:
        path: file, .ply or .xyz.
        points: coordinates, (n, 3).
        overwrite: whether an existing file may be replaced.

    Raises:
        InputError: the extension is another one, or the file exists or cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in ENCODERS:
        raise InputError(f"{path}: expected {' or '.join(ENCODERS)}{'' if suffix else OR_FOLDER}. Give another name.")
    with atomic_file(Path(path), overwrite=overwrite) as partial:
        partial.write_bytes(ENCODERS[suffix](points))
