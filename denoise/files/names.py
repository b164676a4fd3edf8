"""Names of files in messages."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable


@runtime_checkable
class _HasName(Protocol):
    name: str


def file_name(file: str | Path | BinaryIO, default: str) -> str:
    """Return the name of a file in messages.

    Args:
        file: path or open file.
        default: name of an open file that has none.
    """
    if isinstance(file, str | Path):
        return str(file)
    return str(file.name) if isinstance(file, _HasName) else default
