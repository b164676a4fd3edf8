"""Writing audio files through libsndfile, block by block; pipes as the samples come."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.atomic import atomic_file
from denoise.files.audio.pcm import WIDTHS, RawFormat, encode, write_wav_header
from denoise.signals import Audio, AudioFormat

CONTAINERS = {
    ".wav": "WAV",
    ".wave": "WAV",
    ".rf64": "RF64",
    ".w64": "W64",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
    ".aif": "AIFF",
    ".aiff": "AIFF",
    ".aifc": "AIFF",
    ".caf": "CAF",
}
WAV_FAMILY = ("WAV", "WAVEX", "RF64")
LOSSY_LEVEL = 0.2  # of libsndfile's scale from 0, the best, to 1: above what most sources were coded with
MAX_WAV_BYTES = 0xFFFF_0000


class AudioWriter:
    """The twin of a recording, written block by block; it appears when the ``with`` block ends well.

    A path gets the container of its extension, with the nearest subtype that it can hold; a stream gets
    the container of ``format``, WAV as the samples come. ``frames``, if known, lets a WAV beyond 4 GiB
    become RF64. Integers clip at full scale.

    Raises:
        InputError: the target exists or cannot be written; nothing is left behind.
    """

    def __init__(
        self,
        target: str | Path | BinaryIO,
        format: AudioFormat,
        *,
        overwrite: bool = False,
        raw: RawFormat | None = None,
        frames: int | None = None,
    ) -> None:
        self.name = str(target) if isinstance(target, str | Path) else "output stream"
        self._stack = ExitStack()
        self._pipe: BinaryIO | None = None
        self._copy_to: BinaryIO | None = None
        self._file: Any = None
        self.format = format
        self._target, self._overwrite, self._raw, self._frames = target, overwrite, raw, frames

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _open(self) -> None:
        f, target = self.format, self._target
        if isinstance(target, str | Path):
            path = Path(target)
            container = CONTAINERS.get(path.suffix.lower())
            if container is None:
                known = ", ".join(sorted(CONTAINERS))
                raise InputError(f"{path}: extension {path.suffix or 'none'!r} is no audio format; expected {known}.")
            if container == "WAV" and f.format in WAV_FAMILY:
                container = f.format
            opus = path.suffix.lower() == ".opus"
            place: Any = self._stack.enter_context(atomic_file(path, overwrite=self._overwrite))
            if os.name != "nt":  # soundfile would refuse a name that is not text, which only bytes can hold
                place = os.fsencode(place)
        else:
            if self._raw is not None or (f.format in WAV_FAMILY and f.subtype in WIDTHS and not target.seekable()):
                self._pipe = target
                if self._raw is None:
                    with self._blame_stream():
                        target.write(write_wav_header(f, self._frames))
                return
            container, opus = f.format, f.subtype == "OPUS"
            place = self._copy_to = self._stack.enter_context(cast(BinaryIO, tempfile.TemporaryFile()))
        subtype = _nearest_subtype(container, f.subtype, opus)
        data = (self._frames or 0) * f.channels * WIDTHS.get(subtype, 0)
        if container in ("WAV", "WAVEX") and data > MAX_WAV_BYTES:
            container = "RF64"
        lossy = subtype in ("VORBIS", "OPUS", "MPEG_LAYER_III")
        try:
            self._file = soundfile.SoundFile(
                place,
                "w",
                f.sample_rate,
                f.channels,
                subtype,
                f.endian if container == f.format else "FILE",
                container,
                compression_level=LOSSY_LEVEL if lossy else None,
            )
        except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{self.name}: {container} cannot hold {f.channels} channels of {subtype} at {f.sample_rate} Hz "
                f"({error}). Choose another extension with -o."
            ) from None
        self._stack.callback(self._close_file)
        for tag, text in f.tags.items():
            with suppress(soundfile.LibsndfileError):  # a container that knows no such tag, W64 for instance
                setattr(self._file, tag, text.removesuffix(f" (libsndfile-{soundfile.__libsndfile_version__})"))

    def write(self, x: NDArray[Any]) -> None:
        """Append samples. Shape: (channels, time), full scale 1.0."""
        if self._pipe is not None:
            with self._blame_stream():
                self._pipe.write(encode(x, self.format.subtype))
                self._pipe.flush()
            return
        try:
            for start in range(0, x.shape[1], 32_768):  # libsndfile's Vorbis encoder overflows on long blocks
                self._file.write(np.ascontiguousarray(x[:, start : start + 32_768].T))
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise InputError(f"{self.name}: cannot be written ({error}). Free space or choose another -o.") from None

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._copy_to is not None:
                self._close_file()
                self._copy_to.seek(0)
                with self._blame_stream():
                    shutil.copyfileobj(self._copy_to, cast(BinaryIO, self._target))
        except BaseException as mine:
            self._stack.__exit__(type(mine), mine, mine.__traceback__)
            raise
        self._stack.__exit__(kind, error, traceback)

    @contextmanager
    def _blame_stream(self) -> Iterator[None]:
        """Name an output stream that refuses, a full disk behind it for instance; a reader that left is no error."""
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(f"{self.name}: cannot be written ({error.strerror or error}). Free space.") from None


def write_audio(target: str | Path | BinaryIO, audio: Audio, *, overwrite: bool = False) -> None:
    """Write a whole recording."""
    frames = audio.samples.shape[1]
    with AudioWriter(target, audio.format, overwrite=overwrite, frames=frames) as writer:
        writer.write(audio.samples)


def _nearest_subtype(container: str, subtype: str, opus: bool) -> str:
    """The subtype that a container holds with the least loss."""
    if container == "OGG":
        return "OPUS" if opus or subtype == "OPUS" else "VORBIS"
    if soundfile.check_format(container, subtype):
        return subtype
    if container == "MP3":
        return "MPEG_LAYER_III"
    eight_bits = {"PCM_U8": "PCM_S8", "PCM_S8": "PCM_U8"}.get(subtype, "")
    return eight_bits if soundfile.check_format(container, eight_bits or None) and eight_bits else "PCM_24"
