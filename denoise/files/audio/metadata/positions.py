"""Loudspeaker positions of the channels of a recording, whose order is that of WAV everywhere in the toolkit.

Reference:
    Vorbis I specification, 2020, section 4.3.9.
    Ogg Encapsulation for the Opus Audio Codec, 2016, RFC 7845, section 5.1.1.
"""

from __future__ import annotations

import re

from denoise.files.audio.ffmpeg import import_av
from denoise.files.audio.media_format import MediaFormat
from denoise.files.audio.metadata.registry import read_tags
from denoise.files.audio.metadata.tags import Tags
from denoise.signals import AudioFormat

NAMES = [
    "FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR", "TC", "TFL", "TFC", "TFR", "TBL", "TBC", "TBR",
]  # fmt: skip
"""Positions of the bits of a mask."""

FLAC_MASKS = {3: 0x7, 4: 0x33, 5: 0x607, 6: 0x60F, 7: 0x70F, 8: 0x63F}  # that FLAC means by so many channels
VORBIS_NAMES = {
    3: ["FL", "FC", "FR"],
    4: ["FL", "FR", "BL", "BR"],
    5: ["FL", "FC", "FR", "BL", "BR"],
    6: ["FL", "FC", "FR", "BL", "BR", "LFE"],
    7: ["FL", "FC", "FR", "SL", "SR", "BC", "LFE"],
    8: ["FL", "FC", "FR", "SL", "SR", "BL", "BR", "LFE"],
}
"""Channels of Vorbis, and of Opus, in their order."""
LFE = "LFE"  # low-frequency effects
MASK_TAG = "WAVEFORMATEXTENSIBLE_CHANNEL_MASK"  # as the reference encoder of FLAC writes it


def channel_names(format: AudioFormat) -> list[str]:
    """Return the positions of the channels as FFmpeg abbreviates them, and numbers from 1 where the file has none.

    Args:
        format: format of a recording.
    """
    names = _layout_names(format) if isinstance(format, MediaFormat) else mask_names(channel_mask(format))
    n = format.channels
    return [*names[:n], *map(str, range(len(names) + 1, n + 1))]


def channel_mask(format: AudioFormat) -> int | None:
    """Return the positions of the channels as the mask of a WAV, None if the file states none, or no mask can.

    Args:
        format: format of a recording.
    """
    n = format.channels
    if isinstance(format, MediaFormat):
        names = _layout_names(format)
        mask = sum(1 << NAMES.index(name) for name in names if name in NAMES)
        return mask if n > 2 and names and mask_names(mask) == names else None
    stated = None if format.metadata is None else format.metadata.channel_mask
    if stated is None:
        stated = parse_mask(read_tags(format)[0])
    if stated is None and format.format == "FLAC":
        return FLAC_MASKS.get(n)
    if stated is None and format.format == "OGG" and n in VORBIS_NAMES:
        return sum(1 << NAMES.index(name) for name in VORBIS_NAMES[n])
    return stated


def mask_names(mask: int | None) -> list[str]:
    """Return the positions of a mask in the order of its bits.

    Args:
        mask: mask of a WAV, or None.
    """
    return [name for bit, name in enumerate(NAMES) if (mask or 0) >> bit & 1]


def parse_mask(tags: Tags) -> int | None:
    """Return the channel mask that tags state, None if they state none.

    Args:
        tags: tags of a file.
    """
    values = [value for name, value in tags.comments if name == MASK_TAG]
    return int(values[0], 16) if values and re.fullmatch("0x[0-9A-Fa-f]{1,8}", values[0]) else None


def _layout_names(format: MediaFormat) -> list[str]:
    return [channel.name for channel in import_av().AudioLayout(format.layout).channels] if format.layout else []
