"""The table of metadata by container."""

from __future__ import annotations

from typing import BinaryIO

from denoise.files.audio.metadata.codec import MetadataCodec
from denoise.files.audio.metadata.flac import FlacMetadata
from denoise.files.audio.metadata.iff import Aiff, Caf
from denoise.files.audio.metadata.mp3 import Mp3Metadata
from denoise.files.audio.metadata.ogg import OggMetadata
from denoise.files.audio.metadata.riff import Bw64, Riff, Rifx
from denoise.files.audio.metadata.tags import Tags
from denoise.files.audio.metadata.wave64 import Wave64
from denoise.signals import AudioFormat, AudioMetadata

RIFF, RIFX, BW64 = Riff(), Rifx(), Bw64()
METADATA_CODECS: dict[str, MetadataCodec] = {
    "WAV": RIFF,
    "WAVEX": RIFF,
    "RF64": RIFF,
    "BW64": BW64,
    "AIFF": Aiff(),
    "CAF": Caf(),
    "W64": Wave64(),
    "FLAC": FlacMetadata(),
    "OGG": OggMetadata(),
    "MP3": Mp3Metadata(),
}
"""Metadata codecs by the names of containers, as in `AudioFormat.format`; those that share one share their blocks."""


def metadata_codec(container: str, format: AudioFormat) -> MetadataCodec | None:
    """Return the codec of the metadata of a file.

    Args:
        container: name of its container.
        format: its format, or that of the recording that is written into it.
    """
    is_big_endian = container == format.format == "WAV" and format.endian == "BIG"
    if is_big_endian:
        return RIFX
    return METADATA_CODECS.get("BW64" if container == "WAV" and format.format == "BW64" else container)


def read_metadata(source: BinaryIO, format: AudioFormat) -> AudioMetadata:
    """Read what a file holds beside its sound.

    Args:
        source: the file, seekable; its position is kept.
        format: its format; of other containers than those of `METADATA_CODECS` nothing is read.
    """
    codec = metadata_codec(format.format, format)
    if codec is None:
        return AudioMetadata()
    position = source.tell()
    metadata = codec.read(source)
    source.seek(position)
    return metadata


def read_tags(format: AudioFormat) -> tuple[Tags, list[str]]:
    """Return text and pictures of a recording, and the names of what they do not hold.

    Args:
        format: format of its file.
    """
    codec = metadata_codec(format.format, format)
    if codec is not None and format.metadata is not None:
        return codec.to_tags(format.metadata)
    return Tags(tuple((name.upper(), text) for name, text in format.tags.items())), []
