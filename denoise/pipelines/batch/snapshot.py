"""Files as they are while a batch is planned: remote folders are listed once, and each file is hashed once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from denoise.pipelines.batch.storage import (
    FileState,
    is_object_store,
    is_url,
    open_storage,
    sha256_of,
    state_of,
    state_of_entry,
    storage_errors,
)

T = TypeVar("T")


class Once(Generic[T]):
    """A function that is evaluated once for each argument, also by several threads; errors are kept, too.

    Args:
        function: the function.
    """

    def __init__(self, function: Callable[[str], T]) -> None:
        self.function, self.lock = function, Lock()
        self.futures: dict[str, Future[T]] = {}

    def __call__(self, argument: str) -> T:
        """Return the value of the function.

        Args:
            argument: its argument.
        """
        with self.lock:
            is_new = argument not in self.futures
            future = self.futures.setdefault(argument, Future())
        if is_new:
            try:
                future.set_result(self.function(argument))
            except Exception as error:
                future.set_exception(error)
        return future.result()


class Snapshot:
    """States and hashes of files.

    Of an object store, whose listings have the tags of the contents, one listing of a folder tells the states of all
    files in it. Other storages are asked for each file.
    """

    def __init__(self) -> None:
        self._hash = Once(lambda path: sha256_of(Path(path)))
        self._list = Once(list_states)

    def state_of(self, name: str) -> FileState | None:
        """Return the state of a file, None if there is none.

        Args:
            name: path or URL.

        Raises:
            InputError: the storage does not answer.
        """
        if not is_url(name):
            return state_of(name)
        storage, path = open_storage(name)
        if not is_object_store(storage):
            return state_of(name)
        return self._list(name.rpartition("/")[0]).get(str(path))

    def sha256_of(self, path: Path) -> str:
        """Return the hash of a file of this machine, in hexadecimal digits.

        Args:
            path: the file.

        Raises:
            OSError: it cannot be read.
        """
        return self._hash(str(path))


def list_states(folder: str) -> dict[str, FileState]:
    """Return the states of the files in a folder of another storage by their paths there; none if there is no folder.

    Args:
        folder: URL.

    Raises:
        InputError: the storage does not answer.
    """
    storage, path = open_storage(folder)
    try:
        with storage_errors(folder, "listed"):
            storage.invalidate_cache(path)  # of an earlier batch of this process
            entries = storage.ls(path, detail=True)
    except FileNotFoundError:
        return {}
    return {entry["name"]: state_of_entry(entry) for entry in entries if entry["type"] == "file"}
