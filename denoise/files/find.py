"""Find the files of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from denoise.errors import ConfigError


def find_files(root: Path, folders: Sequence[str], extensions: frozenset[str]) -> list[Path]:
    """List files below ``root / folder`` for each folder.

    Raises:
        ConfigError: a folder holds none, or is not there.
    """
    files: list[Path] = []
    for folder in folders:
        place = root / folder
        found = [path for path in sorted(place.rglob("*")) if path.suffix.lower() in extensions and path.is_file()]
        if not found:
            wrong = "holds no files of a known kind" if place.is_dir() else "no such folder"
            raise ConfigError(f"{place}: {wrong}. Give the folder that holds them.")
        files += found
    return files
