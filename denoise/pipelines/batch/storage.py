"""Files of a batch on any storage: paths of this machine, and URLs by fsspec."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from denoise.errors import ConfigError, DenoiseError, InputError
from denoise.files.atomic import publish

STAGING = ".denoise-partial"  # folder in a local output folder that holds unfinished files
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"}


@dataclass(frozen=True)
class FileState:
    """What tells one version of a file from another.

    Args:
        size: bytes.
        version: time of the last change in nanoseconds, or tag of the content; None if the storage knows neither.
    """

    size: int
    version: str | None


def is_url(name: str) -> bool:
    """Return whether a name is a URL rather than a path of this machine."""
    return "://" in name and not name.startswith("file://")


def local_path(name: str) -> Path:
    """Return the path of a name that is no URL of another storage."""
    return Path(name.removeprefix("file://"))


def canonical(name: str) -> str:
    """Return one name for each file or folder: an absolute path without links, or the URL as its storage writes it.

    Args:
        name: path or URL.

    Raises:
        ConfigError: no such storage is known or installed.
    """
    if not is_url(name):
        return os.path.realpath(local_path(name))
    storage, path = open_storage(name)
    return str(storage.unstrip_protocol(path)).rstrip("/")


@contextmanager
def storage_errors(name: str, action: str) -> Iterator[None]:
    """Translate the exceptions of a storage; each has its own.

    Args:
        name: path or URL, for the message.
        action: what failed, as in ``"read"``.

    Raises:
        InputError: the storage failed.
    """
    try:
        yield
    except (DenoiseError, FileNotFoundError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")
        raise InputError(f"{name}: cannot be {action} ({reason}).") from None


def open_storage(name: str) -> tuple[Any, str]:
    """Return the file system of fsspec for a path or URL, and its path there.

    Args:
        name: path or URL.

    Raises:
        ConfigError: no such storage is known, installed or configured.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(name if is_url(name) else os.path.abspath(local_path(name)))
    except Exception as error:  # of the storage's package, too
        raise ConfigError(f"{name}: cannot be opened ({' '.join(str(error).split())}).") from None


def state_of(name: str) -> FileState | None:
    """Return the state of a file, None if there is none.

    Args:
        name: path or URL.

    Raises:
        InputError: the storage does not answer.
    """
    if not is_url(name):
        try:
            found = local_path(name).stat()
        except (OSError, ValueError):
            return None
        return FileState(found.st_size, str(found.st_mtime_ns))
    storage, path = open_storage(name)
    try:
        with storage_errors(name, "examined"):
            return state_of_entry(storage.info(path))
    except FileNotFoundError:
        return None


def state_of_entry(entry: Mapping[str, Any]) -> FileState:
    """Return the state of a file that a storage describes.

    Args:
        entry: facts by the names that fsspec and the storage have for them.
    """
    version = next((entry[key] for key in ("ETag", "etag", "md5Hash", "mtime", "created") if entry.get(key)), None)
    if isinstance(version, datetime):
        version = version.timestamp()  # as listings of some storages have it
    return FileState(int(entry["size"]), None if version is None else str(version))


def is_object_store(storage: Any) -> bool:
    """Return whether a file system of fsspec is an object store, where a file appears at once, or never.

    Args:
        storage: the file system.
    """
    protocol = storage.protocol if isinstance(storage.protocol, str) else storage.protocol[0]
    return protocol in OBJECT_STORES


def sha256_of(path: Path) -> str:
    """Return the hash of the bytes of a file, in hexadecimal digits.

    Args:
        path: file of this machine.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def join(folder: str, path: PurePosixPath) -> str:
    """Return the name of a file below a folder; neither may lead out of it.

    Args:
        folder: path or URL.
        path: relative path.

    Raises:
        ConfigError: the path leads out of the folder, perhaps by a link.
    """
    if path.is_absolute() or ".." in path.parts or not path.name or (os.name == "nt" and "\\" in str(path)):
        raise ConfigError(f"{path}: is outside of {folder}. Give a path relative to it.")
    if path.parts[0] == STAGING:
        raise ConfigError(f"{path}: is in the folder of unfinished outputs. Give another path.")
    if is_url(folder):
        return f"{folder.rstrip('/')}/{path}"
    root = local_path(folder)
    if not (root / path).resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{root / path}: leads out of {folder} by a link. Remove the link.")
    return str(root / path)


@contextmanager
def local_copy(name: str, scratch: Path) -> Iterator[Path]:
    """Provide a file of any storage as a file of this machine.

    Args:
        name: path or URL.
        scratch: folder of temporary copies.

    Yields:
        The path itself, or that of a temporary copy.

    Raises:
        InputError: the file cannot be read.
    """
    if not is_url(name):
        yield local_path(name)
        return
    copy = download(name, scratch)
    try:
        yield copy
    finally:
        shutil.rmtree(copy.parent)


def download(url: str, scratch: Path) -> Path:
    """Copy a file of another storage into a new folder.

    Args:
        url: URL of the file.
        scratch: folder of that folder.

    Returns:
        The copy, under its own name.

    Raises:
        InputError: the file cannot be read.
    """
    storage, path = open_storage(url)
    scratch.mkdir(parents=True, exist_ok=True)
    copy = Path(tempfile.mkdtemp(dir=scratch)) / PurePosixPath(path).name
    try:
        with storage_errors(url, "read"):
            storage.get_file(path, str(copy))
    except BaseException as error:
        shutil.rmtree(copy.parent)
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{url}: cannot be read (no such file).") from None
        raise
    return copy


class Staged:
    """An output that is complete, but not at its place yet.

    Args:
        path: where it is written first.
        target: path or URL of its place.
        overwrite: whether it replaces a file there.
    """

    def __init__(self, path: Path, target: str, overwrite: bool) -> None:
        self.path, self.target, self.overwrite = path, target, overwrite

    def state(self) -> FileState:
        """Return the state that the file will have at its place on this machine."""
        found = self.path.stat()
        return FileState(found.st_size, str(found.st_mtime_ns))

    def publish(self) -> None:
        """Move the file to its place, all at once.

        Raises:
            InputError: the place is taken, or cannot be written.
        """
        if not is_url(self.target):
            with storage_errors(self.target, "written"):
                publish(self.path, local_path(self.target).resolve(), overwrite=self.overwrite)
            return
        storage, path = open_storage(self.target)
        with storage_errors(self.target, "written"):
            if is_object_store(storage):
                storage.put_file(str(self.path), path)
                return
            partial = f"{path}.{secrets.token_hex(4)}.part"
            storage.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            try:
                storage.put_file(str(self.path), partial)
                storage.mv(partial, path)
            except BaseException:
                with suppress(Exception):
                    storage.rm_file(partial)
                raise


@contextmanager
def stage(target: str, folder: str, scratch: Path, *, overwrite: bool) -> Iterator[Staged]:
    """Provide a place for an unfinished output; what is left there at the end is removed.

    Args:
        target: path or URL of the output.
        folder: folder or URL of all outputs; unfinished ones of a local folder are in its folder `STAGING`.
        scratch: folder of the unfinished outputs of other storages.
        overwrite: whether an existing output is replaced.

    Raises:
        InputError: the output exists, or its folder cannot be written.
    """
    if not overwrite and state_of(target) is not None:
        raise InputError(f"{target}: exists already. Give --overwrite (overwrite=True) to replace it.")
    parent = scratch if is_url(target) else local_path(folder) / STAGING
    try:
        if not is_url(target):
            local_path(target).parent.mkdir(parents=True, exist_ok=True)
        parent.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(dir=parent)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error}).") from None
    with staging as name:
        yield Staged(Path(name) / PurePosixPath(target).name, target, overwrite)
