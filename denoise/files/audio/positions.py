"""Loudspeaker positions of the channels of a recording."""

from __future__ import annotations

from denoise.files.audio.ffmpeg import import_av
from denoise.files.audio.media_format import MediaFormat
from denoise.files.audio.metadata.embed import parse_mask
from denoise.files.audio.metadata.registry import read_tags
from denoise.signals import AudioFormat

MASK_NAMES = "FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL TFC TFR TBL TBC TBR"  # of the bits of a mask
FLAC_MASKS = {6: 0x60F, 7: 0x70F, 8: 0x63F}  # that FLAC means by so many channels
VORBIS_NAMES = {6: "FL FC FR BL BR LFE", 7: "FL FC FR SL SR BC LFE", 8: "FL FC FR SL SR BL BR LFE"}  # and Opus
LFE = "LFE"  # low-frequency effects


def channel_names(format: AudioFormat) -> list[str]:
    """Return the positions of the channels as FFmpeg abbreviates them, and numbers from 1 where the file has none.

    Args:
        format: format of a recording.
    """
    n = format.channels
    names: list[str] = []
    if isinstance(format, MediaFormat):
        names = [channel.name for channel in import_av().AudioLayout(format.layout).channels] if format.layout else []
    elif format.format == "OGG":
        names = VORBIS_NAMES.get(n, "").split()
    else:
        mask = None if format.metadata is None else format.metadata.channel_mask
        if format.format == "FLAC":
            stated = parse_mask(read_tags(format)[0])
            mask = FLAC_MASKS.get(n) if stated is None else stated
        names = [name for bit, name in enumerate(MASK_NAMES.split()) if (mask or 0) >> bit & 1]
    return [*names[:n], *map(str, range(len(names) + 1, n + 1))]
