"""The inverse problems of images: missing pixels, noise, blur, lost resolution, JPEG and clipping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from denoise.errors import ConfigError
from denoise.files.image import read_displayed
from denoise.files.image.jpeg import quantisation_of_quality, read_quantisation
from denoise.files.image.orientation import read_orientation, to_displayed, to_stored
from denoise.options import RestoreOptions
from denoise.pipelines.defects import MIN_CLIPPED, find_limits
from denoise.pipelines.float_range import find_float_range
from denoise.pipelines.image import ImagePipeline, sigma_255
from denoise.pipelines.perception import to_tensor
from denoise.pipelines.transparency import fill_hidden
from denoise.sampling.jpeg import QuantisationCells
from denoise.sampling.operators import Blur, Clipping, Cropped, Downsample, Mask, Operator
from denoise.signals import Image, ImageFormat

SIGMA_START = 1.0  # first noise level of the sampler, full scale 1.0
MARGIN = 64  # pixels around missing ones that the prior sees
MIN_SIGMA = 0.5 / 255  # of a measurement: the rounding of 8 bits
MISSING_THRESHOLD = 0.1  # grey level of a mask above which a pixel is missing, so that soft edges of strokes are
SIGMA_CLIPPED = 0.5  # first noise level for clipped highlights: about as much may be missing
SIGMA_JPEG = 0.1  # first noise level for JPEG artefacts: above those of all qualities
FULL_LIMIT, HEADROOM = 0.9, 2 / 3  # integers that are clipped above the one are multiplied by the other
BLUR_EXTENT = 4  # half the side of a Gaussian kernel in standard deviations


class ImageTask(NamedTuple):
    """An inverse problem of one image.

    Args:
        y: the measurement, (channels, height, width), full scale 1.0.
        operator: measurement operator.
        sigma: standard deviation of its noise.
        shape: shape of the solution, (channels, height, width).
        frame: image of the size of the result, whose pixels are replaced.
        finish: turns the solution into the pixels of the result.
        start: what the sampler starts near: grey of the mean of the measurement, or its pixels.
        sigma_start: how near, the first noise level.
        warnings: what the user must know about the result.
    """

    y: Tensor
    operator: Operator
    sigma: float
    shape: tuple[int, ...]
    frame: Image
    finish: Callable[[Tensor], Tensor]
    start: Tensor | float
    sigma_start: float = SIGMA_START
    warnings: tuple[str, ...] = ()

    def to_frame(self, pixels: NDArray[Any]) -> Image:
        """Return the result with pixels of floats, (height, width, channels); hidden ones stay as they were."""
        stored = self.frame.from_float(pixels)
        if self.frame.visible is not None:
            stored = np.where(self.frame.visible[..., None], stored, self.frame.pixels)
        return replace(self.frame, pixels=stored)


def prepare_task(
    image: Image, options: RestoreOptions, pipeline: ImagePipeline, source: ImageFormat | None = None
) -> ImageTask:
    """Return the inverse problem of an image.

    Args:
        image: measured image.
        options: task and settings.
        pipeline: estimates the noise.
        source: format of the file of the image, None of an image in memory.

    Raises:
        ConfigError: the mask or the kernel does not fit, the pixels are floats in units of their own, the image was not
            a JPEG that can be undone, or nothing of it is clipped.
    """
    if find_float_range(image) is not None:
        raise ConfigError("the pixels are floats in units of their own; expected about 0 to 1. Scale the image first.")
    x = to_tensor(image.as_float())
    if image.visible is not None:
        x = torch.from_numpy(fill_hidden(x.numpy(), image.visible))
    orientation = 1 if source is None else read_orientation(source)
    if options.task == "inpaint":
        return _inpaint(image, x, options, orientation)
    if options.task == "dejpeg":
        return remove_jpeg(image, x, options, source)
    if options.task == "declip":
        return _declip(image, x, options)
    sigma = options.sigma
    if sigma is None:
        sigma = sigma_255(pipeline.estimate_noise(image, by_intensity=False)) / 255
    sigma = max(sigma, MIN_SIGMA)
    if options.task == "denoise":
        return ImageTask(
            x, Mask(torch.ones(1, dtype=torch.float32)), sigma, tuple(x.shape), image, clamp, start=float(x.mean())
        )
    if options.task == "upscale":
        assert options.factor is not None
        megapixels = options.factor**2 * image.pixels[..., 0].size / 1e6
        if megapixels > options.max_megapixels:
            raise ConfigError(
                f"the result would have {megapixels:.0f} megapixels; expected at most {options.max_megapixels:g}. "
                "Raise the limit or lower the factor."
            )
        return _upscale(image, x, options.factor, sigma)
    return _deblur(image, x, _read_kernel(options, orientation), sigma)


def _inpaint(image: Image, x: Tensor, options: RestoreOptions, orientation: int) -> ImageTask:
    assert options.mask is not None
    mask_image = read_displayed(options.mask, max_megapixels=options.max_megapixels).as_float()
    mask = mask_image.pixels[..., :3].mean(axis=2)
    if mask_image.visible is not None:
        mask = mask * mask_image.visible
    shape = to_displayed(image.pixels, orientation).shape[:2]
    if mask.shape != shape:
        sizes = [f"{width} x {height}" for height, width in (mask.shape, shape)]
        upright, advice = ("", "Resize") if orientation == 1 else (" as displayed", "Resize or turn")
        raise ConfigError(
            f"{options.mask}: is of {sizes[0]} pixels, the image{upright} of {sizes[1]}. {advice} the mask."
        )
    missing = torch.from_numpy(to_stored(mask, orientation) > MISSING_THRESHOLD)
    if image.visible is not None:
        missing &= torch.from_numpy(image.visible)
    if not missing.any() or missing.all():
        kind = "pixel" if image.visible is None else "visible pixel"
        state = (
            f"no {kind} is white (at most {255 * mask.max():.0f} of 255)"
            if not missing.any()
            else f"every {kind} is white"
        )
        raise ConfigError(f"{options.mask}: {state}, which means missing; expected some of them.")
    box = tuple(slice(max(0, int(i.min()) - MARGIN), int(i.max()) + 1 + MARGIN) for i in missing.nonzero(as_tuple=True))
    inside, hole = x[:, *box], missing[box]

    def finish(solution: Tensor) -> Tensor:
        result = x.clone()
        result[:, *box] = torch.where(hole, clamp(solution), inside)
        return result

    observed = (~hole).float()
    operator = Mask(observed[None, None])
    sigma, grey = max(options.sigma or 0.0, MIN_SIGMA), float(inside[:, ~hole].mean())
    return ImageTask(inside * observed, operator, sigma, tuple(inside.shape), image, finish, start=grey)


def _declip(image: Image, x: Tensor, options: RestoreOptions) -> ImageTask:
    limit = options.limit
    if limit is None:
        visible = x if image.visible is None else x[:, torch.from_numpy(image.visible)]
        if not find_limits(lambda: [visible.reshape(1, -1)])[1].isfinite():
            top = float(visible.max())
            raise ConfigError(
                f"no clipping found: {int((visible == top).sum())} values are at the largest, {255 * top:.0f} of 255; "
                f"expected {MIN_CLIPPED} or more, and fewer a little below. If it is clipped, give --limit."
            )
        limit = float(visible.max())
    n_clipped = int((x >= limit).sum())
    if n_clipped in (0, x.numel()):
        state = f"no pixel is (at most {255 * float(x.max()):.0f})" if n_clipped == 0 else "every pixel is"
        raise ConfigError(
            f"highlights are clipped at {255 * limit:.0f} of 255, but {state}; expected some. Give a limit."
        )
    is_float = image.pixels.dtype == np.float32
    gain = 1.0 if is_float or limit < FULL_LIMIT else HEADROOM
    warning = f"multiplied by {gain:.2f}, so that what is brighter than white fits"
    return ImageTask(
        x,
        Clipping(x, limit),
        MIN_SIGMA,
        tuple(x.shape),
        image,
        (lambda y: y.clamp_min(0)) if is_float else (lambda y: clamp(gain * y)),
        start=x,
        sigma_start=SIGMA_CLIPPED,
        warnings=() if gain == 1 else (warning,),
    )


def _upscale(image: Image, x: Tensor, factor: int, sigma: float) -> ImageTask:
    def enlarge(pixels: NDArray[Any] | None) -> Any:
        return None if pixels is None else pixels.repeat(factor, axis=0).repeat(factor, axis=1)

    frame = replace(image, pixels=enlarge(image.pixels), alpha=enlarge(image.alpha))
    channels, height, width = x.shape
    shape = (channels, factor * height, factor * width)
    return ImageTask(x, Downsample(factor), sigma, shape, frame, clamp, start=float(x.mean()))


def _deblur(image: Image, x: Tensor, kernel: Tensor, sigma: float) -> ImageTask:
    """The filter is periodic, the image is not: it is taken to be part of a larger image that is."""
    _, height, width = x.shape
    if any(k > n for k, n in zip(kernel.shape, (height, width), strict=True)):
        raise ConfigError(
            f"the kernel is of {kernel.shape[1]} x {kernel.shape[0]} pixels, the image of {width} x {height}; expected "
            "one that is no larger. Give a smaller kernel or blur."
        )
    space = tuple(next_fast_len(n + k, real=False) for n, k in zip((height, width), kernel.shape, strict=True))

    operator = Cropped(Blur(kernel), (height, width), space)
    shape, grey = (len(x), *space), float(x.mean())
    return ImageTask(x, operator, sigma, shape, image, lambda y: clamp(y[:, :height, :width]), start=grey)


def remove_jpeg(image: Image, x: Tensor, options: RestoreOptions, source: ImageFormat | None) -> ImageTask:
    """Return the inverse problem of a decoded JPEG: coefficients of the image lie in the cells of those of the file.

    Args:
        image: decoded image, 8 bits.
        x: its pixels, (channels, height, width), full scale 1.0.
        options: quality, if the file tells no steps of the quantisation.
        source: format of the file.

    Raises:
        ConfigError: the steps are unknown, or the colours are stored in a way that is not supported.
    """
    if len(x) == 4 or image.pixels.dtype != np.uint8:
        raise ConfigError("the image has 4 colours or more than 8 bits; expected a grey or RGB image that was a JPEG.")
    if options.quality is not None:
        quantisation = quantisation_of_quality(options.quality)
    elif source is not None and (of_file := read_quantisation(source)) is not None:
        quantisation = of_file
    else:
        raise ConfigError("the image is no JPEG file of grey or YCbCr of 4:4:4, 4:2:2 or 4:2:0; give its quality.")
    cells = QuantisationCells(x[None], *quantisation)
    return ImageTask(x, cells, 0.0, tuple(x.shape), image, clamp, start=x, sigma_start=SIGMA_JPEG)


def clamp(x: Tensor) -> Tensor:
    """Return pixels within full scale."""
    return x.clamp(0, 1)


def _read_kernel(options: RestoreOptions, orientation: int) -> Tensor:
    """Return the kernel of a blur of the stored image, with odd sides and of sum 1."""
    if options.blur is not None:
        radius = max(1, round(BLUR_EXTENT * options.blur))
        gaussian = torch.exp(-torch.arange(-radius, radius + 1.0, dtype=torch.float32).square() / (2 * options.blur**2))
        kernel = gaussian[:, None] * gaussian
    else:
        assert options.kernel is not None
        image = read_displayed(options.kernel, max_megapixels=options.max_megapixels).as_float()
        grey = image.pixels[..., :3].mean(axis=2)
        grey = grey if image.opacity is None else grey * image.opacity  # as painted on black
        grey = np.pad(grey, [(0, 1 - n % 2) for n in grey.shape])  # before it is turned, which moves the middle of even
        kernel = torch.from_numpy(to_stored(grey, orientation))
    if not kernel.sum() > 0:
        raise ConfigError(f"{options.kernel}: is black; expected the kernel of a blur.")
    return kernel / kernel.sum()
