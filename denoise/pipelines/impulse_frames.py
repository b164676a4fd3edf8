"""Salt-and-pepper noise of frames, which is replaced before a network sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from denoise.impulses import Mask, find_impulses, replace_impulses
from denoise.options import DenoiseOptions
from denoise.pipelines.result import Diagnostics
from denoise.signals import Image


def denoise_without_impulses(
    image: Image, options: DenoiseOptions, denoise: Callable[[Image], tuple[Image, Diagnostics]]
) -> tuple[Image, Diagnostics]:
    """Replace the salt-and-pepper noise of a frame, if its noise is estimated, and denoise the rest.

    Args:
        image: noisy frame.
        options: options of the run, of which ``luminance`` and ``colour`` do not matter for the impulses.
        denoise: denoises a frame.

    Returns:
        As ``denoise``.
    """
    if not options.estimates_sigma or options.limited_strength == 0:
        return denoise(image)
    repaired, impulses = remove_impulses(image)
    if impulses is None:
        return denoise(image)
    denoised, diagnostics = denoise(repaired)
    if options.limited_strength < 1:
        x, y = (frame.as_float().pixels for frame in (image, denoised))
        mixed = image.from_float(x + options.limited_strength * (y - x))
        denoised = replace(denoised, pixels=np.where(impulses, mixed, denoised.pixels))
    return denoised, replace(diagnostics, impulse_fraction=fraction(impulses), no_noise_found=False)


def remove_impulses(image: Image) -> tuple[Image, Mask | None]:
    """Replace the salt-and-pepper noise of a frame.

    Frames with hidden pixels, whose values mean nothing, and with a further channel stay as they are.

    Args:
        image: noisy frame.

    Returns:
        The frame without it, and the mask of the impulses of each channel; None if there are none.
    """
    is_plain = image.visible is None and (image.alpha is None or image.is_alpha_opacity)
    impulses = find_impulses(image.pixels) if is_plain else None
    if impulses is None:
        return image, None
    return replace(image, pixels=replace_impulses(image.pixels, impulses)), impulses


def fraction(impulses: Mask | None) -> float:
    """Return the fraction of the pixels with an impulse in any channel.

    Args:
        impulses: as of `remove_impulses`.
    """
    return 0.0 if impulses is None else float(impulses.any(axis=-1).mean())
