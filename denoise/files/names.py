"""Names of files: in messages, and of outputs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from denoise.errors import InputError, shorten

RAW_EXTENSIONS = (
    ".dng", ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".ptx", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip
"""Extensions of the raw files of cameras, which are only read."""
DEVELOPED_EXTENSION = ".tif"

READ_ONLY_AUDIO_EXTENSIONS = {".ape": ".flac", ".awb": ".m4a", ".dff": ".flac", ".dsf": ".flac"}
"""Extensions of the outputs by those of audio that is only read."""


OR_FOLDER = ", or a / at the end for a folder"  # of messages about an output without an extension
OUTPUT = "output"
"""Name of a file that is written and has none, such as one in memory."""


@runtime_checkable
class _HasName(Protocol):
    name: str


def file_name(file: object, default: str) -> str:
    """Return the name of a file in messages.

    Args:
        file: path or open file.
        default: name of an open file that has none.
    """
    if isinstance(file, str | Path):
        return str(file)
    return str(file.name) if isinstance(file, _HasName) else default


def check_file(file: object, what: Literal["source", "target"]) -> None:
    """Refuse what is neither a path nor a binary file that is open for its use.

    Args:
        file: any value.
        what: what it is.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(file, str | Path) and not hasattr(file, "read") and not hasattr(file, "write"):
        raise InputError(f"{what} is {shorten(file)}; expected a path or a binary file.")
    if getattr(file, "closed", False) is True:
        raise InputError(f"{what} is {shorten(file)}, which is closed; expected an open file.")
    mode, is_open_for_it = ("rb", "readable") if what == "source" else ("wb", "writable")
    if isinstance(file, io.TextIOBase) or not getattr(file, is_open_for_it, lambda: True)():
        raise InputError(f"{what} is {shorten(file)}; expected a binary file. Open it with mode {mode!r}.")


def open_bytes(data: bytes) -> io.BytesIO:
    """Return the content of a file as a binary file.

    Args:
        data: the content.

    Raises:
        InputError: it is no bytes.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InputError(f"data is {shorten(data)}; expected the bytes of a file. Of a path, use the method file.")
    return io.BytesIO(data)


def output_suffix(path: Path) -> str:
    """Return the extension of the default output for an input: its own, or another if such files are only read.

    Args:
        path: path of the input.
    """
    if path.suffix.lower() in RAW_EXTENSIONS:
        return DEVELOPED_EXTENSION
    return READ_ONLY_AUDIO_EXTENSIONS.get(path.suffix.lower(), path.suffix)
