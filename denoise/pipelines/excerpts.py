"""Excerpts of a recording, short parts of its first minute and of the rest, read without decoding all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise.files.atomic import is_pipe_or_device
from denoise.files.audio import AudioReader, AudioSource, MediaTrack, RawFormat

EXCERPT_S = 2.0
MIN_EXCERPT_S = 0.5  # the last one of a short recording may be as short
FIRST_S = 60.0
FIRST_EXCERPTS, REST_EXCERPTS = 10, 12
SPACING_S = FIRST_S / FIRST_EXCERPTS


def is_pipe(source: AudioSource) -> bool:
    """Return whether a source can be read only once: a named pipe, a device, or a stream that cannot seek."""
    if isinstance(source, str | Path):
        return is_pipe_or_device(Path(source))
    return not isinstance(source, MediaTrack) and not source.seekable()


@contextmanager
def open_preview(
    source: AudioSource, *, raw: RawFormat | None = None, name: str | None = None
) -> Iterator[AudioReader]:
    """Open a recording that is read again afterwards: a file object is left at the position that it had.

    Args:
        source: path, audio track, or binary file that can seek.
        raw: format of headerless PCM.
        name: name of the source in messages, if it is no path.

    Yields:
        Reader of the recording, at its start.

    Raises:
        InputError: as `AudioReader`.
    """
    if isinstance(source, str | Path | MediaTrack):
        with AudioReader(source, raw=raw, name=name) as reader:
            yield reader
        return
    position = source.tell()
    try:
        with AudioReader(source, raw=raw, name=name) as reader:
            yield reader
    finally:
        source.seek(position)


def read_excerpts(reader: AudioReader) -> Iterator[NDArray[Any]]:
    """Read the excerpts of a recording.

    Args:
        reader: reader of the recording, at its start. Where it cannot seek, the first minute is read alone.

    Returns:
        Excerpts, (channels, time), in order.
    """
    rate, position = reader.format.sample_rate, 0
    duration_s = None if reader.frames is None else reader.frames / rate
    for start_s in excerpt_starts(duration_s, can_seek=reader.can_seek):
        start = round(start_s * rate)
        if reader.can_seek and start > position:
            reader.seek(start)
        else:
            reader.read(start - position)
        excerpt = reader.read(round(EXCERPT_S * rate))
        if not excerpt.shape[1]:
            return
        yield excerpt
        position = start + excerpt.shape[1]


def slice_excerpts(x: NDArray[Any], sample_rate: int) -> Iterator[NDArray[Any]]:
    """Return the excerpts of a recording in memory.

    Args:
        x: recording, (channels, time).
        sample_rate: its rate in Hz.

    Returns:
        Excerpts, (channels, time), in order.
    """
    for start_s in excerpt_starts(x.shape[1] / sample_rate, can_seek=True):
        start = round(start_s * sample_rate)
        yield x[:, start : start + round(EXCERPT_S * sample_rate)]


def excerpt_starts(duration_s: float | None, *, can_seek: bool) -> list[float]:
    """Return the starts of the excerpts: all of 20 s, a third of what is longer, at most 44 s altogether.

    Args:
        duration_s: duration of the recording in seconds; None if it is unknown.
        can_seek: whether excerpts from behind the first minute are possible.

    Returns:
        Times in seconds, increasing.

    >>> excerpt_starts(5.0, can_seek=True)
    [0.0, 2.0, 4.0]
    >>> excerpt_starts(72.0, can_seek=True)[-3:]
    [58.0, 62.0, 68.0]
    """
    if duration_s is None:
        return np.arange(0, FIRST_S, EXCERPT_S).tolist()
    first_s, rest_s = min(duration_s, FIRST_S), duration_s - FIRST_S
    if first_s <= FIRST_EXCERPTS * EXCERPT_S:
        return np.arange(0, max(first_s - MIN_EXCERPT_S, EXCERPT_S / 2), EXCERPT_S).tolist()
    starts = np.linspace(0, first_s - EXCERPT_S, FIRST_EXCERPTS).tolist()
    n_rest = min(REST_EXCERPTS, int(rest_s // SPACING_S)) if can_seek else 0
    centres = FIRST_S + rest_s * (np.arange(n_rest) + 0.5) / max(1, n_rest)
    return starts + (centres - EXCERPT_S / 2).tolist()
