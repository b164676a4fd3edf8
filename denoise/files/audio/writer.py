"""Write audio files block by block, and pipes as the samples come."""

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
from numpy.typing import NDArray

from denoise.errors import InputError
from denoise.files.atomic import atomic_file, is_pipe_or_device
from denoise.files.audio.container import AudioContainer, AudioEncoder, ReportingEncoder
from denoise.files.audio.media_track import EncodedTrack
from denoise.files.audio.metadata import (
    METADATA_CODECS,
    Embedding,
    MetadataCodec,
    convert_metadata,
    embed,
    metadata_codec,
)
from denoise.files.audio.pcm import PcmEncoder, RawFormat
from denoise.files.audio.registry import container_named, container_of_extension
from denoise.signals import Audio, AudioFormat


class AudioWriter:
    """A recording in the format of another one, written block by block.

    The file appears when the ``with`` block ends without an error; otherwise nothing is left behind. A path gets the
    container of its extension, with the nearest subtype that it can hold. A stream gets the container of ``format``,
    and so does a named pipe or a device without an extension; WAV is written as the samples come. Integers clip at
    full scale.

    Args:
        target: path, audio track of a media file, or binary stream.
        format: format of the source, as in `AudioReader.format`.
        overwrite: replace a file that exists.
        raw: write headerless PCM into a stream, in the subtype of ``format``.
        frames: number of samples of each channel, if known; lets a WAV beyond 4 GiB become RF64.

    Attributes:
        n_over: number of samples over full scale that were written, and clipped.
        peak: the largest sample that was written, at least 1.

    Raises:
        InputError: on entering or leaving the block: the target exists or cannot be written, its extension is
            unknown, or its container cannot hold the format.
    """

    def __init__(
        self,
        target: str | Path | BinaryIO | EncodedTrack,
        format: AudioFormat,
        *,
        overwrite: bool = False,
        raw: RawFormat | None = None,
        frames: int | None = None,
    ) -> None:
        self.name = target_name(target)
        self.format = format
        self._target, self._overwrite, self._raw, self._frames = target, overwrite, raw, frames
        self._stack = ExitStack()
        self._spool: BinaryIO | None = None
        self._embedding: Embedding | None = None
        self._lost: list[str] = []
        self.n_over, self.peak = 0, 1.0

    def __enter__(self) -> Self:
        try:
            if isinstance(self._target, str | Path):
                self._encoder = self._create_file(Path(self._target))
            elif isinstance(self._target, EncodedTrack):
                with self._translate_errors():
                    self._encoder = self._target.create(self.format)
            else:
                with self._translate_errors():
                    self._stream = self._target
                    self._encoder = self._create_in_stream(self._stream, container_named(self.format.format))
            self._stack.callback(self._encoder.close)
        except BaseException as error:
            self._leave(error)
            raise
        return self

    def _create_file(self, path: Path) -> AudioEncoder:
        with self._translate_errors():
            if is_pipe_or_device(path):
                container = container_of_extension(path.suffix) if path.suffix else container_named(self.format.format)
                self._stream = self._stack.enter_context(path.open("wb"))
                return self._create_in_stream(self._stream, container)
            container = container_of_extension(path.suffix)
        file = self._stack.enter_context(atomic_file(path, overwrite=self._overwrite))
        # soundfile refuses names that are not Unicode text, but takes bytes
        name = str(file) if os.name == "nt" else os.fsencode(file)
        with self._translate_errors():
            return self._create(container, name)

    def _create_in_stream(self, target: BinaryIO, container: AudioContainer) -> AudioEncoder:
        if self._raw is not None:
            return PcmEncoder(target, self.format.subtype)
        if not target.seekable():
            format = self._convert_metadata(container, METADATA_CODECS.get(container.name))
            encoder = container.create_in_pipe(target, format, self._frames)
            if encoder is not None:
                return encoder
        self._spool = self._stack.enter_context(cast(BinaryIO, tempfile.TemporaryFile()))
        return self._create(container, self._spool)

    def _create(self, container: AudioContainer, target: str | bytes | BinaryIO) -> AudioEncoder:
        """Create a seekable file, with the metadata of the source around the sound."""
        codec = metadata_codec(container.name, self.format)
        format = self._convert_metadata(container, codec)
        self._embedding = embed(target, codec, format.metadata)
        if self._embedding is None:
            return container.create(target, format, self._frames)
        self._stack.enter_context(self._embedding)
        return container.create(cast(BinaryIO, self._embedding.coded), format, self._frames)

    def _convert_metadata(self, container: AudioContainer, codec: MetadataCodec | None) -> AudioFormat:
        format, self._lost = convert_metadata(
            self.format, codec, frames=self._frames, writes_tags=container.writes_tags
        )
        self._container = container.name
        return format

    def write(self, x: NDArray[Any]) -> None:
        """Append samples.

        Args:
            x: (channels, time), full scale 1.0.

        Raises:
            InputError: the target cannot be written.
        """
        if self.clips_as and (peak := float(np.abs(x).max(initial=0))) > 1:
            self.n_over += int((np.abs(x) > 1).sum())
            self.peak = max(self.peak, peak)
        with self._translate_errors():
            self._encoder.write(x)

    @property
    def clips_as(self) -> str:
        """Name of the coding of the target if it clips at full scale, empty if it does not."""
        return self._encoder.clips_as

    @property
    def warnings(self) -> list[str]:
        """What the target cannot hold: changes of the coding, and what the source holds beside its sound."""
        warnings = list(self._encoder.warnings) if isinstance(self._encoder, ReportingEncoder) else []
        if names := ", ".join(dict.fromkeys(self._lost)):
            warnings.append(f"{self._container} cannot hold all of the input; without {names}.")
        return [f"{self.name}: {warning}" for warning in warnings]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with self._translate_errors():
                    self._finish()
        except BaseException as finish_error:
            self._leave(finish_error)
            raise
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        """Close and remove what is open; after an error, a full disk refuses what is still buffered, too."""
        if error is None:
            self._stack.close()
            return
        with suppress(OSError):
            self._stack.__exit__(type(error), error, error.__traceback__)

    def _finish(self) -> None:
        self._encoder.close()
        if self._embedding is not None:
            self._embedding.finish()
        if self._spool is not None:
            self._spool.seek(0)
            shutil.copyfileobj(self._spool, self._stream)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Name the target in errors, of a full disk for instance; a reader that closed the pipe is no error here."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(f"{self.name}: cannot be written ({error.strerror or error}). Free space.") from None


def target_name(target: str | Path | BinaryIO | EncodedTrack) -> str:
    """Return the name of a target in messages.

    Args:
        target: as of `AudioWriter`.
    """
    if isinstance(target, EncodedTrack):
        return target.name
    return str(target) if isinstance(target, str | Path) else "output stream"


def write_audio(target: str | Path | BinaryIO, audio: Audio, *, overwrite: bool = False) -> None:
    """Write a whole recording.

    Args:
        target: path or binary stream.
        audio: recording, with the format to write.
        overwrite: replace a file that exists.

    Raises:
        InputError: as `AudioWriter`.
    """
    frames = audio.samples.shape[1]
    with AudioWriter(target, audio.format, overwrite=overwrite, frames=frames) as writer:
        writer.write(audio.samples)
