"""The interface of what a container stores beside the sound."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import BinaryIO, ClassVar

from denoise.files.audio.metadata.tags import Tags
from denoise.signals import AudioMetadata


class MetadataCodec(ABC):
    """Reads the blocks of a container, and puts blocks around the sound that an encoder writes.

    Attributes:
        copies_sound: whether `finish` copies what the encoder wrote into the target; otherwise the encoder writes into
            the target, behind a gap for the blocks.
    """

    copies_sound: ClassVar[bool] = False

    @abstractmethod
    def read(self, source: BinaryIO) -> AudioMetadata:
        """Read the blocks of a file, without those that describe its coding.

        Args:
            source: the file, seekable.
        """

    def shares_blocks(self, other: MetadataCodec | None) -> bool:
        """Return whether blocks of another container are copied as they are.

        Args:
            other: codec of the other container, None if it has none.
        """
        return other is self

    @abstractmethod
    def to_tags(self, metadata: AudioMetadata) -> tuple[Tags, list[str]]:
        """Convert blocks to text and pictures.

        Args:
            metadata: as from `read`.

        Returns:
            The tags, and the names of the blocks that tags cannot hold.
        """

    @abstractmethod
    def from_tags(self, tags: Tags) -> tuple[list[bytes], list[str]]:
        """Convert text and pictures to blocks.

        Args:
            tags: tags of a file of another container.

        Returns:
            Blocks to write before the sound, and the names of what they cannot hold.
        """

    @abstractmethod
    def finish(self, file: BinaryIO, coded: ShiftedFile, leading: Sequence[bytes], metadata: AudioMetadata) -> None:
        """Write the blocks, once the encoder has finished.

        Args:
            file: the target.
            coded: what the encoder wrote.
            leading: blocks to write before the sound.
            metadata: metadata of the source, complete; ``trailing`` is written after the sound.
        """


class ShiftedFile:
    """A file in which all offsets are counted from a later byte, so that room is left for blocks of known size.

    Args:
        file: the file, seekable.
        start: offset of the first byte of the view.
    """

    def __init__(self, file: BinaryIO, start: int = 0) -> None:
        self._file, self.start = file, start
        file.seek(0)
        file.write(bytes(start))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset in the view, as of any file."""
        return self._file.seek(offset + (self.start if whence == os.SEEK_SET else 0), whence) - self.start

    def tell(self) -> int:
        """Return the offset in the view."""
        return self._file.tell() - self.start

    def write(self, data: bytes) -> int:
        """Write bytes."""
        return self._file.write(data)

    def read(self, n: int = -1) -> bytes:
        """Read bytes."""
        return self._file.read(n)


def move_header(file: BinaryIO, coded: ShiftedFile, n: int, leading: Sequence[bytes]) -> None:
    """Move the first bytes of a shifted file to the front and write the blocks behind them.

    Args:
        file: the file.
        coded: its view behind the gap for the blocks.
        n: length of the header in bytes.
        leading: the blocks.
    """
    coded.seek(0)
    header = coded.read(n)
    file.seek(0)
    file.write(header + b"".join(leading))
