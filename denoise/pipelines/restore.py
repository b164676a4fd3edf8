"""Restoration of images by a prior: missing pixels, blur, lost resolution, JPEG and clipping, at any size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.errors import ConfigError
from denoise.files.atomic import require_free
from denoise.files.image import ImageReader, read_image, write_image
from denoise.files.image.exif import with_size
from denoise.files.image.jpeg import quantisation_of_quality, read_quantisation, with_default_quality
from denoise.options import INVERSION_STEPS, RESTORE_STEPS, DenoiseOptions, RestoreOptions
from denoise.pipelines.defects import MIN_CLIPPED, find_limits
from denoise.pipelines.float_range import find_float_range
from denoise.pipelines.image import ImagePipeline, sigma_255
from denoise.pipelines.perception import progress_of_part, to_tensor
from denoise.pipelines.precision import float_precision
from denoise.pipelines.result import IMAGE_UNITS, Diagnostics, Result
from denoise.pipelines.samples import STD_SCALE, Moments, SamplePaths, only_frame
from denoise.pipelines.transparency import fill_hidden
from denoise.priors.network import PatchNetwork, PriorNetwork
from denoise.probability_path import karras_sigmas
from denoise.protocols import DenoisingPrior, LatentVariablePrior, Progress
from denoise.registry import SIGMA_MODEL
from denoise.sampling.inversion import restore_by_inversion
from denoise.sampling.jpeg import QuantisationCells
from denoise.sampling.operators import Blur, Clipping, Cropped, Downsample, Mask, Operator
from denoise.sampling.posterior import diffpir, half_quadratic_splitting
from denoise.signals import Image, ImageFormat

SIGMA_START, SIGMA_END = 1.0, 0.01  # noise levels of the sampler, full scale 1.0
PATCH_SIGMA_START = 0.39  # of half-quadratic splitting with a prior of patches
MARGIN = 64  # pixels around missing ones that the prior sees
MIN_SIGMA = 0.5 / 255  # of a measurement: the rounding of 8 bits
MISSING_THRESHOLD = 0.1  # grey level of a mask above which a pixel is missing, so that soft edges of strokes are
SIGMA_CLIPPED = 0.5  # first noise level for clipped highlights: about as much may be missing
SIGMA_JPEG = 0.1  # first noise level for JPEG artefacts: above those of all qualities
FULL_LIMIT, HEADROOM = 0.9, 2 / 3  # integers that are clipped above the one are multiplied by the other
BLUR_EXTENT = 4  # half the side of a Gaussian kernel in standard deviations


class RestorePipeline:
    """A prior that restores images: it samples images that agree with the measured one.

    Noise is removed by one call of a denoiser, which is the posterior mean, unless samples are wanted. A prior with
    latents seeks the most probable ones for every task.

    Args:
        prior: a denoiser of white noise of a given sigma, or a prior that denoises or has latents: a name, or path of a
            weights file.
        device: ``"auto"``, or a device of torch.
        tile: as of `ImagePipeline`.

    Raises:
        ConfigError: there is no such prior, it is blind, or it was not trained at the noise levels of the sampler.
    """

    def __init__(self, prior: str | Path = SIGMA_MODEL, *, device: str = "auto", tile: int | None = None) -> None:
        self.pipeline = self.denoiser = ImagePipeline(prior, device=device, tile=tile)
        model = self.pipeline.model
        self.latent_prior: LatentVariablePrior | None = None
        if isinstance(model, PriorNetwork) and not isinstance(model.prior, DenoisingPrior):
            self.latent_prior = model.prior.to("cpu")  # as the operators
        sigma_start = SIGMA_START
        if isinstance(model, PatchNetwork):
            patches, sigma_start = model.prior, PATCH_SIGMA_START
            self.pipeline = copy(self.denoiser)
            self.pipeline.model = PatchNetwork(patches, patches.event_shape[-1] // 2, scales=1)
        if self.pipeline.model.blind or self.pipeline.model.sigma_maps != 1:
            raise ConfigError(f"model {self.pipeline.card.name} takes no single sigma; use {SIGMA_MODEL} or a prior.")
        sigmas = self.pipeline.card.sigma
        if sigmas is not None and sigmas[1] < sigma_start:
            raise ConfigError(
                f"model {self.pipeline.card.name} was trained up to sigma {255 * sigmas[1]:g} of 255; the sampler "
                f"needs {255 * sigma_start:g}. Use {SIGMA_MODEL} or a prior."
            )

    def check(self, options: RestoreOptions) -> None:
        """Refuse options that the prior does not support.

        Args:
            options: task and settings.

        Raises:
            ConfigError: there are no samples of patches, one call of the denoiser takes no steps, or sigma is out of
                the range of the prior.
        """
        name = self.pipeline.card.name
        if options.samples and isinstance(self.pipeline.model, PatchNetwork):
            raise ConfigError(
                f"prior {name} is of patches: it restores the most probable image and has no samples; leave samples "
                f"out or use {SIGMA_MODEL}."
            )
        if not self._is_mean(options):
            return
        if options.steps is not None:
            raise ConfigError(f"prior {name} removes noise in one call, which takes no steps. Leave steps out.")
        self.denoiser.check(_mean_options(options))

    def _is_mean(self, options: RestoreOptions) -> bool:
        """Whether the result is the output of the denoiser for the image as it is."""
        return options.task == "denoise" and not options.samples and self.latent_prior is None

    def file(
        self,
        source: str | Path | BinaryIO,
        target: str | Path | BinaryIO,
        options: RestoreOptions,
        *,
        progress: Progress | None = None,
        name: str | None = None,
    ) -> Result:
        """Restore an image file, in its format.

        Args:
            source: path or binary file of a single image.
            target: path or binary file; of several samples, a path that the `SamplePaths` are derived from.
            options: task and settings.
            progress: called with the finished fraction, 0 to 1.
            name: name of the source in messages, if it is no path.

        Returns:
            Time and warnings.

        Raises:
            InputError: the file cannot be read or holds several images, or the target cannot be written.
            ConfigError: the mask or the kernel does not fit the image.
        """
        self.check(options)
        if self._is_mean(options):
            return self.denoiser.denoise_file(source, target, _mean_options(options), progress=progress, name=name)
        started = time.perf_counter()
        with ImageReader(source, max_megapixels=options.max_megapixels, name=name) as reader:
            image, n = only_frame(reader), max(1, options.samples)
            paths = None
            if options.samples:
                if not isinstance(target, str | Path):
                    raise ConfigError("samples are written to several files; give a path.")
                paths = SamplePaths.for_target(target, n)
                paths.require_free(source, options.overwrite)
            elif isinstance(target, str | Path):
                require_free(target, overwrite=options.overwrite)
            try:
                task = prepare(image, options, self.pipeline, reader.format)
            except ConfigError as error:
                raise ConfigError(f"{reader.name}: {error}") from error
            targets = [target] if paths is None else [*paths.samples]
            target_format = with_default_quality(reader.format) if options.task == "dejpeg" else reader.format
            height, width = task.frame.pixels.shape[:2]
            if options.task == "upscale":
                target_format = with_size(target_format, width, height)

            def write(path: Any, pixels: NDArray[Any]) -> None:
                write_image(path, [task.to_frame(pixels)], target_format, overwrite=options.overwrite)

            moments = Moments()
            for i, path in enumerate(targets):
                x = self._sample(task, options, options.seed + i, progress_of_part(progress, i, n))
                pixels = x.permute(1, 2, 0).numpy()
                moments.add(pixels)
                write(path, pixels)
            if paths is not None:
                write(paths.mean, moments.mean)
                write(paths.std, STD_SCALE * moments.std())
            return Result.from_diagnostics(
                Diagnostics(precision=float_precision(self.pipeline.precision, self.pipeline.device)),
                IMAGE_UNITS,
                input=reader.name,
                output=str(target if paths is None else paths.mean),
                amount=n * image.pixels[..., 0].size / 1e6,
                seconds=time.perf_counter() - started,
                files=[] if paths is None else [str(path) for path in paths.all()],
                warnings=[*reader.warnings, *task.warnings],
            )

    def frame(self, image: Image, options: RestoreOptions, progress: Progress | None = None) -> Image:
        """Restore one frame.

        Args:
            image: measured image.
            options: task and settings.
            progress: called with the finished fraction, 0 to 1.

        Returns:
            The restored image, of the same dtype.

        Raises:
            ConfigError: the mask or the kernel does not fit the image, or several samples are wanted.
        """
        if options.samples:
            raise ConfigError("samples are written to files; use file, or leave samples out and vary the seed.")
        self.check(options)
        if self._is_mean(options):
            return self.denoiser.denoise_frame(image, _mean_options(options), progress)[0]
        task = prepare(image, options, self.pipeline)
        x = self._sample(task, options, options.seed, progress)
        return task.to_frame(x.permute(1, 2, 0).numpy())

    @torch.no_grad()
    def _sample(self, task: Task, options: RestoreOptions, seed: int, progress: Progress | None) -> Tensor:
        """Restore once: a posterior sample by DiffPIR, or the image of the most probable latents, near random starts.

        Of a prior of patches, it is the most probable image by half-quadratic splitting instead.

        Returns:
            (channels, height, width), full scale 1.0.
        """
        generator, n_done = Generator().manual_seed(seed), 0
        if self.latent_prior is not None:
            return self._invert(task, options.steps or INVERSION_STEPS, generator, progress)
        steps = options.steps or RESTORE_STEPS

        def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal n_done
            image = Image(np.ascontiguousarray(x[0].permute(1, 2, 0).numpy()))
            step_progress = progress_of_part(progress, n_done, steps)
            n_done += 1
            return self.pipeline.posterior_mean(image, float(sigma), step_progress)[None]

        if isinstance(self.pipeline.model, PatchNetwork):
            self.pipeline.model.generator = generator
            ends = math.log10(min(task.sigma_start, PATCH_SIGMA_START)), math.log10(SIGMA_END)
            start = task.start + torch.zeros(1, *task.shape)
            x = half_quadratic_splitting(
                denoiser, task.y[None], task.operator, task.sigma, torch.logspace(*ends, steps), start=start
            )
            return task.finish(x[0])
        sigmas = karras_sigmas(steps, SIGMA_END, task.sigma_start)
        start = task.start + task.sigma_start * torch.randn(1, *task.shape, generator=generator)
        x = diffpir(denoiser, task.y[None], task.operator, task.sigma, sigmas, start=start, generator=generator)
        return task.finish(x[0])

    def _invert(self, task: Task, steps: int, generator: Generator, progress: Progress | None) -> Tensor:
        prior, y, shape = self.latent_prior, task.y[None], task.shape
        assert prior is not None
        if not isinstance(task.operator, Mask | Cropped | Downsample):
            raise ConfigError(
                f"prior {self.pipeline.card.name} has latents, which are found for linear measurements alone; use a "
                f"denoising prior, such as {SIGMA_MODEL}."
            )
        if prior.event_shape[0] == 1:  # each colour is a grey image
            y, shape = y.transpose(0, 1), (1, *shape[1:])
        x = restore_by_inversion(
            prior, y, task.operator, task.sigma, shape, steps=steps, generator=generator, progress=progress
        )
        return task.finish(x.flatten(0, 1))


def _mean_options(options: RestoreOptions) -> DenoiseOptions:
    return DenoiseOptions(
        steps=1, sigma=options.sigma, overwrite=options.overwrite, max_megapixels=options.max_megapixels
    )


class Task(NamedTuple):
    """An inverse problem of one image.

    Args:
        y: the measurement, (channels, height, width), full scale 1.0.
        operator: measurement operator.
        sigma: standard deviation of its noise.
        shape: shape of the solution, (channels, height, width).
        frame: image of the size of the result, whose pixels are replaced.
        finish: turns the solution into the pixels of the result.
        start: what the sampler starts near.
        sigma_start: how near, the first noise level.
        warnings: what the user must know about the result.
    """

    y: Tensor
    operator: Operator
    sigma: float
    shape: tuple[int, ...]
    frame: Image
    finish: Callable[[Tensor], Tensor]
    start: Tensor | float = 0.5
    sigma_start: float = SIGMA_START
    warnings: tuple[str, ...] = ()

    def to_frame(self, pixels: NDArray[Any]) -> Image:
        """Return the result with pixels of floats, (height, width, channels); hidden ones stay as they were."""
        stored = self.frame.from_float(pixels)
        if self.frame.visible is not None:
            stored = np.where(self.frame.visible[..., None], stored, self.frame.pixels)
        return replace(self.frame, pixels=stored)


def prepare(image: Image, options: RestoreOptions, pipeline: ImagePipeline, source: ImageFormat | None = None) -> Task:
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
        x = fill_hidden(x, torch.from_numpy(image.visible))
    if options.task == "inpaint":
        return _inpaint(image, x, options)
    if options.task == "dejpeg":
        return remove_jpeg(image, x, options, source)
    if options.task == "declip":
        return _declip(image, x, options)
    sigma = options.sigma
    if sigma is None:
        sigma = sigma_255(pipeline.estimate_noise(image, by_intensity=False)) / 255
    sigma = max(sigma, MIN_SIGMA)
    if options.task == "denoise":
        return Task(x, Mask(torch.ones(1)), sigma, tuple(x.shape), image, clamp)
    if options.task == "upscale":
        assert options.factor is not None
        megapixels = options.factor**2 * image.pixels[..., 0].size / 1e6
        if megapixels > options.max_megapixels:
            raise ConfigError(
                f"the result would have {megapixels:.0f} megapixels; expected at most {options.max_megapixels:g}. "
                "Raise the limit or lower the factor."
            )
        return _upscale(image, x, options.factor, sigma)
    return _deblur(image, x, _read_kernel(options), sigma)


def _inpaint(image: Image, x: Tensor, options: RestoreOptions) -> Task:
    assert options.mask is not None
    mask_image = read_image(options.mask, max_megapixels=options.max_megapixels).as_float()
    mask = mask_image.pixels[..., :3].mean(axis=2)
    if mask_image.visible is not None:
        mask = mask * mask_image.visible
    if mask.shape != image.pixels.shape[:2]:
        sizes = [f"{width} x {height}" for height, width in (mask.shape, image.pixels.shape[:2])]
        raise ConfigError(f"{options.mask}: is of {sizes[0]} pixels, the image of {sizes[1]}. Resize the mask.")
    missing = torch.from_numpy(mask > MISSING_THRESHOLD)
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
    return Task(inside * observed, operator, max(options.sigma or 0.0, MIN_SIGMA), tuple(inside.shape), image, finish)


def _declip(image: Image, x: Tensor, options: RestoreOptions) -> Task:
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
    return Task(
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


def _upscale(image: Image, x: Tensor, factor: int, sigma: float) -> Task:
    def enlarge(pixels: NDArray[Any] | None) -> Any:
        return None if pixels is None else pixels.repeat(factor, axis=0).repeat(factor, axis=1)

    frame = replace(image, pixels=enlarge(image.pixels), alpha=enlarge(image.alpha))
    channels, height, width = x.shape
    return Task(x, Downsample(factor), sigma, (channels, factor * height, factor * width), frame, clamp)


def _deblur(image: Image, x: Tensor, kernel: Tensor, sigma: float) -> Task:
    """The filter is periodic, the image is not: it is taken to be part of a larger image that is."""
    _, height, width = x.shape
    if any(k > n for k, n in zip(kernel.shape, (height, width), strict=True)):
        raise ConfigError(
            f"the kernel is of {kernel.shape[1]} x {kernel.shape[0]} pixels, the image of {width} x {height}; expected "
            "one that is no larger. Give a smaller kernel or blur."
        )
    space = tuple(next_fast_len(n + k, real=False) for n, k in zip((height, width), kernel.shape, strict=True))

    operator = Cropped(Blur(kernel), (height, width), space)
    return Task(x, operator, sigma, (len(x), *space), image, lambda y: clamp(y[:, :height, :width]))


def remove_jpeg(image: Image, x: Tensor, options: RestoreOptions, source: ImageFormat | None) -> Task:
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
    return Task(x, cells, 0.0, tuple(x.shape), image, clamp, start=x, sigma_start=SIGMA_JPEG)


def clamp(x: Tensor) -> Tensor:
    """Return pixels within full scale."""
    return x.clamp(0, 1)


def _read_kernel(options: RestoreOptions) -> Tensor:
    """Return the kernel of a blur, with odd sides and of sum 1."""
    if options.blur is not None:
        radius = max(1, round(BLUR_EXTENT * options.blur))
        gaussian = torch.exp(-torch.arange(-radius, radius + 1.0).square() / (2 * options.blur**2))
        kernel = gaussian[:, None] * gaussian
    else:
        assert options.kernel is not None
        image = read_image(options.kernel, max_megapixels=options.max_megapixels).as_float()
        grey = image.pixels[..., :3].mean(axis=2)
        kernel = torch.from_numpy(grey if image.opacity is None else grey * image.opacity)  # as painted on black
        kernel = F.pad(kernel, (0, 1 - kernel.shape[1] % 2, 0, 1 - kernel.shape[0] % 2))
    if not kernel.sum() > 0:
        raise ConfigError(f"{options.kernel}: is black; expected the kernel of a blur.")
    return kernel / kernel.sum()
