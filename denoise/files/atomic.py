"""Write files completely or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from denoise.errors import InputError

MAX_STEM = 40  # characters of a temporary name: 160 bytes at most, of the 255 that a name may have


@contextlib.contextmanager
def atomic_file(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Provide a temporary file that replaces ``target`` when the block ends without an error.

    If the block fails, the temporary file is removed and ``target`` stays as it was.

    Args:
        target: path of the file to write; missing folders are created.
        overwrite: replace a file that exists.

    Yields:
        Path of an empty file in the same folder, with the same extension.

    Raises:
        InputError: the target exists, is a folder, or cannot be written.
    """
    try:
        if target.is_dir():
            raise InputError(f"{target}: is a folder. Give a file name.")
        if target.exists() and not overwrite:
            raise InputError(f"{target}: exists already. Give --overwrite to replace it.")
        partial = target.with_name(f".{target.stem[:MAX_STEM]}.{secrets.token_hex(4)}.part{target.suffix}")
        target.parent.mkdir(parents=True, exist_ok=True)
        # with the permissions that the user's umask gives to any new file
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}). Choose another folder with -o.") from None
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        _move(partial, target, overwrite)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error}). Free space or choose -o.") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def _move(partial: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        with contextlib.suppress(FileNotFoundError):
            partial.chmod(stat.S_IMODE(target.stat().st_mode))
        partial.replace(target)
        return
    try:
        os.link(partial, target)  # unlike a rename, this never replaces a file that was created meanwhile
    except FileExistsError:
        raise InputError(f"{target}: was created meanwhile. Give --overwrite to replace it.") from None
    except OSError:  # a file system without hard links
        if target.exists():
            raise InputError(f"{target}: was created meanwhile. Give --overwrite to replace it.") from None
        partial.replace(target)
