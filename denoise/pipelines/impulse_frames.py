"""Salt-and-pepper noise of frames, which is replaced before a network sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from denoise.impulses import find_impulses, replace_impulses
from denoise.options import DenoiseOptions
from denoise.pipelines.result import Diagnostics
from denoise.pipelines.transparency import fill_hidden
from denoise.signals import Image


def denoise_without_impulses(
    image: Image, options: DenoiseOptions, denoise: Callable[[Image], tuple[Image, Diagnostics]]
) -> tuple[Image, Diagnostics]:
    """Denoise a frame without its salt-and-pepper noise, if it has any and the noise is not told.

    Args:
        image: noisy frame.
        options: options of the run.
        denoise: denoises a frame.

    Returns:
        As ``denoise``.
    """
    if not options.estimates_sigma or options.limited_strength == 0:
        return denoise(image)
    x, visible = image.pixels, image.visible
    if visible is not None:
        x = np.moveaxis(fill_hidden(np.moveaxis(x, -1, 0), visible), 0, -1)
    impulses = find_impulses(x)
    if impulses is None:
        return denoise(image)
    x = replace_impulses(x, impulses)
    if visible is not None:
        x = np.where(visible[..., None], x, image.pixels)
        impulses &= visible[..., None]
    denoised, diagnostics = denoise(replace(image, pixels=x))
    return denoised, replace(diagnostics, impulse_fraction=float(impulses.any(axis=-1).mean()), no_noise_found=False)
