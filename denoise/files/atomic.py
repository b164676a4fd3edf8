"""Write files completely or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from denoise.errors import InputError

MAX_STEM = 40  # characters of a temporary name: 160 bytes at most, of the 255 that a name may have


def require_free(path: str | Path, *, overwrite: bool) -> None:
    """Refuse a path of a file that exists, unless it may be replaced.

    Args:
        path: path that will be written.
        overwrite: whether a file that exists is replaced.

    Raises:
        InputError: the file exists.
    """
    if os.path.exists(path) and not overwrite:  # unlike Path.exists, for any name, even one that is too long
        raise InputError(f"{path}: exists already. Give --overwrite (overwrite=True) to replace it.")


@contextlib.contextmanager
def atomic_file(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Provide a temporary file that replaces ``target`` when the block ends without an error.

    If the block fails, the temporary file is removed and ``target`` stays as it was. Of a symbolic link, the file
    behind it is replaced. The bytes are written into a named pipe or a device, which is not replaced.

    Args:
        target: path of the file to write; missing folders are created.
        overwrite: replace a file that exists.

    Yields:
        Path of an empty file in the same folder, with the same extension.

    Raises:
        InputError: the target exists, is a folder or a dangling link, or cannot be written.
    """
    if is_pipe_or_device(target):
        with _spool(target) as spool:
            yield spool
        return
    try:
        real = _follow(target) if target.is_symlink() else target
        if target.is_dir():
            raise InputError(f"{target}: is a folder. Give a file name.")
        require_free(target, overwrite=overwrite)
        partial = real.with_name(f".{real.stem[:MAX_STEM]}.{secrets.token_hex(4)}.part{target.suffix}")
        real.parent.mkdir(parents=True, exist_ok=True)
        # with the permissions that the user's umask gives to any new file
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}). Choose another folder.") from None
    try:
        yield partial
        publish(partial, real, overwrite=overwrite)
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror or error}). Free space, or choose another folder."
        ) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def is_pipe_or_device(path: Path) -> bool:
    """Return whether bytes written to a path go to a reader or a device, so that it must not be replaced.

    Args:
        path: any path; links are followed.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _follow(link: Path) -> Path:
    if not link.exists():
        raise InputError(f"{link}: is a link to {os.readlink(link)}, which does not exist. Remove or repair the link.")
    return link.resolve()


@contextlib.contextmanager
def _spool(target: Path) -> Iterator[Path]:
    """Provide a temporary file, and write its bytes into a pipe or a device when the block ends without an error."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Path(folder) / f"spool{target.suffix}"
        spool.touch()
        yield spool
        try:
            with spool.open("rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(f"{target}: cannot be written ({error.strerror or error}).") from None


def publish(partial: Path, target: Path, *, overwrite: bool) -> None:
    """Move a complete file to its place, all at once, when its bytes are on the disk.

    Args:
        partial: file on the same file system as the target.
        target: its place.
        overwrite: replace a file that exists; the new one takes its permissions.

    Raises:
        InputError: the target exists and may not be replaced.
        OSError: the file system refuses.
    """
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    if overwrite:
        with contextlib.suppress(FileNotFoundError):
            partial.chmod(stat.S_IMODE(target.stat().st_mode))
        partial.replace(target)
        return
    try:
        os.link(partial, target)  # unlike a rename, this never replaces a file that was created meanwhile
    except FileExistsError:
        raise InputError(f"{target}: was created meanwhile. Give --overwrite (overwrite=True) to replace it.") from None
    except OSError:  # a file system without hard links
        if target.exists():
            raise InputError(
                f"{target}: was created meanwhile. Give --overwrite (overwrite=True) to replace it."
            ) from None
        partial.replace(target)
