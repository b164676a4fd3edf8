"""Find the files of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from denoise.errors import ConfigError


def find_files(root: Path, folders: Sequence[str], extensions: frozenset[str]) -> list[Path]:
    """List files below ``root / folder`` for each folder; folders that are not there are passed over.

    Raises:
        ConfigError: nothing was found at all.
    """
    files = [
        path
        for folder in folders
        for path in sorted((root / folder).rglob("*"))
        if path.suffix.lower() in extensions and path.is_file()
    ]
    if not files:
        raise ConfigError(f"{root}: no files in {', '.join(folders)}. Give --data the folder that holds them.")
    return files
