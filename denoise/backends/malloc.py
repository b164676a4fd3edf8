"""Settings of glibc's allocator for the memory of freed tensors. Other C libraries have no `mallopt` and need none."""

from __future__ import annotations

import contextlib
import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # of malloc.h


def return_freed_memory() -> None:
    """Return large freed blocks to the system at once, and all that `keep_freed_memory` has kept.

    By default, the threshold for that rises with use, and the memory of the process with it: for an hour of audio
    by a tenth.
    """
    _set_options({MMAP_MAX: 1 << 16, MMAP_THRESHOLD: 4 << 20, TRIM_THRESHOLD: 4 << 20, TOP_PAD: 128 << 10})
    _call("malloc_trim", 0)


def keep_freed_memory() -> None:
    """Keep freed blocks for reuse, since every training step and every tile of an image allocates the same ones.

    Fresh pages would take a quarter of the time of a training step and a third of that of a tile.
    """
    _set_options({MMAP_MAX: 0, TRIM_THRESHOLD: (1 << 31) - 1, TOP_PAD: 256 << 20})


def _set_options(options: dict[int, int]) -> None:
    for option, value in options.items():
        _call("mallopt", option, value)


def _call(name: str, *arguments: int) -> None:
    """Call a function of the C library, if it has it."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        getattr(ctypes.CDLL(None), name)(*arguments)
