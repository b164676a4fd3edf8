"""Progress of work that consists of parts."""

from __future__ import annotations

from denoise.protocols import Progress


def progress_of_part(progress: Progress | None, index: int, n: int) -> Progress | None:
    """Return the callback of one of several equal parts of the work.

    Args:
        progress: callback of the whole work, or None.
        index: index of the part.
        n: number of parts.

    Returns:
        A callback that takes the finished fraction of the part, or None.
    """
    return None if progress is None else lambda fraction: progress((index + fraction) / max(1, n))
