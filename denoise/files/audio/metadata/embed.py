"""Carry what a file holds beside its sound into another file."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from typing import BinaryIO, Self, cast

from denoise.files.audio.metadata.chapters import split_comments
from denoise.files.audio.metadata.codec import MetadataCodec, ShiftedFile
from denoise.files.audio.metadata.flac import FlacMetadata
from denoise.files.audio.metadata.iff import Iff
from denoise.files.audio.metadata.ogg import OggMetadata
from denoise.files.audio.metadata.positions import FLAC_MASKS, MASK_TAG, channel_mask
from denoise.files.audio.metadata.registry import metadata_codec, read_tags
from denoise.files.audio.metadata.riff import Bw64, Riff
from denoise.files.audio.metadata.tags import Tags
from denoise.signals import AudioFormat, AudioMetadata

MEANT_MASKS = frozenset((*FLAC_MASKS.values(), 0x37, 0x3F))
"""Channel masks that FLAC and Vorbis mean by three to eight channels; both take surround channels for those at the
sides or at the back."""


def convert_metadata(
    format: AudioFormat, codec: MetadataCodec | None, *, frames: int | None = None, writes_tags: bool = False
) -> tuple[AudioFormat, list[str]]:
    """Convert the metadata of a recording to the blocks of a container.

    Args:
        format: format of the source.
        codec: codec of the metadata of the container to write, None if it has none.
        frames: number of samples of each channel, if known.
        writes_tags: whether a container without a codec writes `AudioFormat.tags` itself.

    Returns:
        The format, with the blocks themselves if the source is of the same container, or else with blocks of its text
        and pictures; and the names of what the container cannot hold.
    """
    if format.metadata is not None and codec is not None and codec.shares_blocks(metadata_codec(format.format, format)):
        return format, format.metadata.dropped
    tags, lost = read_tags(format)
    length_ms = None if frames is None else round(1000 * frames / format.sample_rate)
    tags = replace(tags.without_coding(), length_ms=length_ms)
    mask = channel_mask(format)
    if format.channels < 3 and not isinstance(codec, Riff):
        mask = None
    if format.metadata is None and not tags and mask is None:
        return format, []
    if mask is not None:
        tags = _without_mask(tags)
    if format.metadata is not None and format.metadata.pending_bytes:
        lost.append("what comes after the sound of a pipe")
    if codec is None and writes_tags:
        chapters, comments = split_comments(tags.comments)
        tags = replace(tags, comments=tuple(comments))
        text = {name.lower(): "; ".join(values) for name, values in tags.by_name().items()}
        unwritten = [*["chapters"] * bool(chapters), *["pictures"] * bool(tags.pictures)]
        kept = AudioMetadata(channel_mask=mask)  # the encoder takes its layout from it
        return replace(format, tags=text, metadata=kept), [*unwritten, *tags.id3_only, *lost]
    if mask and not isinstance(codec, Riff | Iff | FlacMetadata):
        lost += ["the channel mask"] * (mask not in MEANT_MASKS or not isinstance(codec, OggMetadata))
    if codec is None:
        return replace(format, metadata=AudioMetadata()), [*tags.names, *lost]
    if mask is not None and isinstance(codec, FlacMetadata | OggMetadata) and mask not in MEANT_MASKS:
        tags = replace(tags, comments=(*tags.comments, (MASK_TAG, f"0x{mask:04X}")), id3=b"")
    leading, more_lost = codec.from_tags(tags) if tags else ([], [])
    if mask and isinstance(codec, Iff):
        leading.append(codec.from_mask(mask))
    return replace(format, metadata=AudioMetadata(leading, channel_mask=mask)), [*lost, *more_lost]


def _without_mask(tags: Tags) -> Tags:
    return replace(tags, comments=tuple(pair for pair in tags.comments if pair[0] != MASK_TAG))


class Embedding:
    """A file with blocks around the sound that an encoder writes; a context manager.

    Args:
        target: path, or seekable file.
        codec: codec of the metadata of the container.
        metadata: blocks of the container; those after the sound may come while it is written.

    Attributes:
        coded: the file for the encoder of the sound.

    Raises:
        OSError: the target cannot be written.
    """

    def __init__(self, target: str | bytes | BinaryIO, codec: MetadataCodec, metadata: AudioMetadata) -> None:
        self._codec, self._metadata, self._leading = codec, metadata, tuple(metadata.leading)
        self._stack = ExitStack()
        if isinstance(target, str | bytes):
            target = self._stack.enter_context(open(target, "w+b"))
        self._file, gap_bytes = target, sum(map(len, self._leading))
        if codec.copies_sound:
            target, gap_bytes = cast(BinaryIO, self._stack.enter_context(tempfile.TemporaryFile())), 0
        self.coded = ShiftedFile(target, gap_bytes)

    def finish(self) -> None:
        """Write the blocks, once the encoder has finished."""
        self._codec.finish(self._file, self.coded, self._leading, self._metadata)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def embed(
    target: str | bytes | BinaryIO, codec: MetadataCodec | None, metadata: AudioMetadata | None
) -> Embedding | None:
    """Return an embedding of metadata in a file, None if there is nothing to embed.

    Args:
        target: path, or seekable file.
        codec: codec of the metadata of the container.
        metadata: blocks of the container.
    """
    if metadata is None and isinstance(codec, Bw64):
        metadata = AudioMetadata()  # its signature is written with the metadata
    if codec is None or metadata is None:
        return None
    is_needed = metadata.n_bytes > 0 or isinstance(codec, Riff)  # libsndfile guesses the channel mask
    return Embedding(target, codec, metadata) if is_needed else None
