"""Luma and chroma of RGB images: the weights of ITU-R BT.601 and BT.709."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the weights are also used where torch is not loaded
    from torch import Tensor

LUMA_601 = (0.299, 0.587, 0.114)
"""Weights of gamma-encoded red, green and blue in the luma of BT.601, which JPEG and most grey images use."""

LUMA_709 = (0.2126, 0.7152, 0.0722)
"""Weights of linear red, green and blue in the luminance of BT.709 and sRGB."""

CHROMA_601 = (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081)
"""Weights of gamma-encoded red, green and blue in the two chroma channels of BT.601, Cb and Cr."""


def luma(x: Tensor) -> Tensor:
    """Return the luma of BT.601, repeated in three channels.

    Args:
        x: RGB images, (..., 3, H, W), floats.

    Returns:
        Grey images of the same shape.
    """
    weights = x.new_tensor(LUMA_601)[:, None, None]
    return (x * weights).sum(dim=-3, keepdim=True).expand_as(x)
