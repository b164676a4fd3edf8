"""Markers, regions and loops, whose places are numbers of samples."""

from __future__ import annotations

from denoise.signals import AudioFormat

PLACES = (b"cue ", b"smpl", b"plst", b"MARK", b"INST", b"mark", b"regn")  # of RIFF, Wave64, AIFF and CAF
CUESHEET = 5  # of FLAC


def drop_places(format: AudioFormat) -> list[str]:
    """Remove from the metadata of a recording what would be misplaced at another sample rate.

    Args:
        format: format of the recording, whose metadata are changed.

    Returns:
        Names of what was removed.
    """
    if format.metadata is None:
        return []
    dropped = []
    for blocks in (format.metadata.leading, format.metadata.trailing):
        for block in [*blocks]:
            if (name := _place_name(block, format.format)) is not None:
                blocks.remove(block)
                dropped.append(name)
    return dropped


def _place_name(block: bytes, container: str) -> str | None:
    if container == "FLAC":
        return "cue sheet" if block[0] == CUESHEET else None
    if block[:4] == b"LIST" and block[8:12] == b"adtl":
        return "LIST-adtl"
    return block[:4].decode().strip() if block.startswith(PLACES) else None
