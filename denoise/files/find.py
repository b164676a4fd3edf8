"""Find the files of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from denoise.errors import ConfigError


def find_files(root: Path, folders: Sequence[str], extensions: frozenset[str]) -> list[Path]:
    """List the files in folders and their subfolders.

    Args:
        root: folder that holds the folders.
        folders: paths below ``root``.
        extensions: extensions to look for, lower case with the dot.

    Returns:
        Paths, sorted within each folder.

    Raises:
        ConfigError: a folder does not exist or holds no such file.
    """
    paths: list[Path] = []
    for name in folders:
        folder = root / name
        matches = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in extensions and path.is_file()]
        if not matches:
            problem = "holds no files of a known kind" if folder.is_dir() else "no such folder"
            raise ConfigError(f"{folder}: {problem}. Give the folder that holds them.")
        paths += matches
    return paths
