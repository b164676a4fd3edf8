"""The interface of an audio container: how to detect, read and write it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, Protocol, runtime_checkable

from numpy.typing import NDArray

from denoise.signals import AudioFormat


class AudioDecoder(Protocol):
    """An open recording, decoded from its first sample to its last.

    Attributes:
        format: how the recording is stored.
        frames: number of samples of each channel; None where only the end of a stream shows it.
        warnings: remarks about the file; more may come while it is read.
        is_live: whether the samples come from a pipe, perhaps while they are recorded.
    """

    format: AudioFormat
    frames: int | None
    warnings: list[str]
    is_live: bool

    def read(self, n: int) -> NDArray[Any]:
        """Return the next samples.

        Args:
            n: number of samples of each channel.

        Returns:
            (channels, up to n), fewer at the end; float32, or float64 where float32 would lose bits; full scale 1.0.
        """
        ...

    def close(self) -> None:
        """Release the decoder; the source stays open."""
        ...


@runtime_checkable
class SeekableDecoder(AudioDecoder, Protocol):
    """A recording that is decoded from any sample on, unless it is live."""

    def seek(self, position: int) -> None:
        """Continue at a sample; what is read there is as good as what plays there, perhaps not the same to the bit.

        Args:
            position: index of the sample, at most the number of samples.

        Raises:
            InputError: the file is damaged.
        """
        ...


class AudioEncoder(Protocol):
    """A recording that is being written.

    Attributes:
        clips_as: name of the coding if it clips at full scale, empty if it does not.
    """

    clips_as: str

    def write(self, x: NDArray[Any]) -> None:
        """Append samples.

        Args:
            x: (channels, time), full scale 1.0.
        """
        ...

    def close(self) -> None:
        """Finish the file; a second call does nothing."""
        ...


@runtime_checkable
class ReportingEncoder(AudioEncoder, Protocol):
    """An encoder that may have to change the format.

    Attributes:
        warnings: remarks about it.
    """

    warnings: list[str]


@dataclass(frozen=True)
class AudioContainer(ABC):
    """A container: how it is detected, read and written.

    To add a container, derive a class in a file of its own and append it to
    `denoise.files.audio.registry.CONTAINERS`. A class that needs an optional package imports it in its methods and
    raises `InputError` with the extra to install where the package is missing.

    Args:
        name: name of the container, as in `AudioFormat.format`.
        extensions: extensions of its files, lower case with the dot.

    Attributes:
        writes_tags: whether `create` writes the text of `AudioFormat.tags`; that of other containers is written around
            the sound by `denoise.files.audio.metadata`.
    """

    name: str = ""
    extensions: tuple[str, ...] = ()
    writes_tags: ClassVar[bool] = False

    @abstractmethod
    def matches(self, head: bytes) -> bool:
        """Return whether a file is of this container.

        Args:
            head: the first 12 bytes of the file, fewer if it is shorter.
        """

    @abstractmethod
    def open(self, source: BinaryIO) -> AudioDecoder:
        """Open a file for reading.

        Args:
            source: the file, seekable.

        Raises:
            InputError: the file is damaged, of an unsupported kind, or outside the limits of `AudioFormat`.
        """

    def open_pipe(self, source: BinaryIO) -> AudioDecoder | None:
        """Open a stream without seeking.

        Args:
            source: the stream, at its first byte.

        Returns:
            The decoder, or None if the container, or its codec, cannot be read without seeking.

        Raises:
            InputError: as `open`.
        """
        return None

    @abstractmethod
    def create(self, target: str | bytes | BinaryIO, format: AudioFormat, frames: int | None) -> AudioEncoder:
        """Create a file.

        Args:
            target: path, or seekable file.
            format: format of the source, perhaps of another container; the nearest subtype is used.
            frames: number of samples of each channel, if known.

        Raises:
            InputError: the container cannot hold the format.
        """

    def create_in_pipe(self, target: BinaryIO, format: AudioFormat, frames: int | None) -> AudioEncoder | None:
        """Create a file without seeking.

        Args:
            target: the stream.
            format: format of the source, of this container.
            frames: number of samples of each channel, if known.

        Returns:
            The encoder, or None if the container cannot be written without seeking.
        """
        return None
