"""Media files whose audio tracks are processed one by one, while everything else is copied."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self, cast

from denoise.errors import InputError
from denoise.files.atomic import atomic_file, is_pipe_or_device
from denoise.files.audio.ffmpeg import audio_stream, open_media
from denoise.files.audio.media import MediaContainer
from denoise.files.audio.media_copy import copy_media
from denoise.files.audio.media_track import EncodedTrack, MediaTrack
from denoise.files.audio.pcm import read_bytes
from denoise.files.audio.registry import HEAD_BYTES, container_of_extension, detect_container
from denoise.files.audio.track_decoder import is_picture

DOC_TYPE_BYTES = 64  # of a Matroska file, which name its kind


class MediaFile:
    """A media file that is written anew with other audio tracks; a context manager.

    The target appears when the ``with`` block ends without an error; otherwise nothing is left behind.

    Args:
        source: the file, seekable.
        name: its name in messages.
        source_container: its container.
        target: path or binary stream.
        target_container: container to write.
        overwrite: replace a file that exists.

    Attributes:
        tracks: source and target of each audio track, in the order of the file. All of them must be written.
        n_tracks: number of audio tracks.

    Raises:
        InputError: on entering or leaving the block: the file has no sound, or the target cannot be written.
    """

    def __init__(
        self,
        source: BinaryIO,
        name: str,
        source_container: MediaContainer,
        target: str | Path | BinaryIO,
        target_container: MediaContainer,
        overwrite: bool,
    ) -> None:
        self.name, self.target_name = name, str(target) if isinstance(target, str | Path) else "output stream"
        self._source, self._source_container = source, source_container
        self._target, self._target_container, self._overwrite = target, target_container, overwrite
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            with _prefix_errors(self.name), open_media(self._source) as media:
                audio_stream(media, 0)  # is there
                self.n_tracks = len(media.streams.audio)
            suffix = self._target_container.extensions[0]
            if isinstance(self._target, str | Path):
                self._path = stack.enter_context(atomic_file(Path(self._target), overwrite=self._overwrite))
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".", dir=self._path.parent))
            else:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                self._path = Path(folder) / f"copy{suffix}"
            self.tracks = [
                (
                    MediaTrack(self._source, self.name, self._source_container, i),
                    EncodedTrack(Path(folder) / f"{i}{suffix}", self.target_name, self._target_container),
                )
                for i in range(self.n_tracks)
            ]
            self._stack = stack.pop_all()
        return self

    def copy(self) -> list[str]:
        """Join the tracks that were written with everything else of the source.

        Returns:
            Warnings, one for each stream that the container of the target does not hold.

        Raises:
            InputError: the target cannot be written.
        """
        with _prefix_errors(self.target_name):
            encoded = [track for _, track in self.tracks]
            warnings = copy_media(self._source, self._path, self._target_container, encoded)
            if not isinstance(self._target, str | Path):
                with self._path.open("rb") as file:
                    shutil.copyfileobj(file, self._target)
        return [f"{self.target_name}: {warning}" for warning in warnings]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)


class OpenedSource(NamedTuple):
    """A source after a look at its first bytes.

    Args:
        media: the media file, or None if source or target holds a single recording and nothing else.
        source: the source, from its first byte on.
        name: its name in messages; None takes the path.
    """

    media: MediaFile | None
    source: str | Path | BinaryIO
    name: str | None


@contextmanager
def open_media_file(
    source: str | Path | BinaryIO, target: str | Path | BinaryIO, *, overwrite: bool, name: str | None
) -> Iterator[OpenedSource]:
    """Open a media file to be written anew with other audio tracks.

    Args:
        source: path or binary stream.
        target: path or binary stream; a stream takes the container of the source, and so does a named pipe or a device
            without an extension.
        overwrite: as in `MediaFile`.
        name: name of the source in messages; None takes the path.

    Yields:
        The source, perhaps as a media file.
    """
    with ExitStack() as stack:
        if isinstance(source, str | Path):
            try:
                file: BinaryIO = stack.enter_context(Path(source).open("rb"))
            except OSError:
                yield OpenedSource(None, source, name)  # its reader reports the error
                return
            name = name or str(source)
        else:
            file = source
        head, file = _read_head(file)
        container = detect_container(head[:HEAD_BYTES])
        if isinstance(container, MediaContainer):
            if not file.seekable():
                spool = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, spool)
                file = cast(BinaryIO, spool)
            written = _target_container(file, name or "stream", container, head, target)
            if written is not None:
                media = MediaFile(file, name or "stream", container, target, written, overwrite)
                yield OpenedSource(stack.enter_context(media), source, name)
                return
        yield OpenedSource(None, source if isinstance(source, str | Path) and file.seekable() else file, name)


def _read_head(file: BinaryIO) -> tuple[bytes, BinaryIO]:
    """Return the first bytes of a file, and the file with them."""
    if file.seekable():
        file.seek(0)
        head = read_bytes(file, DOC_TYPE_BYTES)
        file.seek(0)
        return head, file
    head = read_bytes(file, HEAD_BYTES)  # no more: the next ones of a live recording may be seconds away
    return head, cast(BinaryIO, _Rejoined(head, file))


def _target_container(
    file: BinaryIO, name: str, container: MediaContainer, head: bytes, target: str | Path | BinaryIO
) -> MediaContainer | None:
    """Return the container to write, or None if it holds a single track and nothing else."""
    if isinstance(target, str | Path) and (Path(target).suffix or not is_pipe_or_device(Path(target))):
        with _prefix_errors(str(target)):
            written = container_of_extension(Path(target).suffix)
    else:
        written = container_of_extension(".webm") if b"webm" in head else container
    if not isinstance(written, MediaContainer) or written.content == "track":
        return None
    if written.content == "video":
        return written
    with _prefix_errors(name), open_media(file) as media:
        has_video = any(not is_picture(stream) for stream in media.streams.video)
    return None if has_video else written


@contextmanager
def _prefix_errors(name: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


class _Rejoined:
    """A pipe that starts with bytes that have been read already."""

    def __init__(self, head: bytes, pipe: BinaryIO) -> None:
        self._head, self._pipe = head, pipe

    def read(self, n: int = -1) -> bytes:
        if not self._head:
            return self._pipe.read(n)
        end = len(self._head) if n < 0 else n
        data, self._head = self._head[:end], self._head[end:]
        return data

    def seekable(self) -> bool:
        return False
