"""Chroma subsampling of lossy containers."""

from __future__ import annotations

from denoise.signals import ImageFormat

JPEG_SUBSAMPLINGS = {0: 444, 1: 422, 2: 420}  # by Pillow's numbers


def chroma_subsampling(source: ImageFormat) -> int:
    """Return the chroma subsampling of the source, so that coding it again loses as little as the file did.

    Args:
        source: format of the file that a frame comes from.

    Returns:
        444 (none, as for lossless sources), 422 or 420.
    """
    if "jpeg" in source.info:
        return JPEG_SUBSAMPLINGS.get(source.info["jpeg"].get("subsampling"), 444)
    return int(source.info.get("chroma", 444))
