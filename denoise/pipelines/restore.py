"""Restoration of images by a prior: missing pixels, blur, lost resolution, JPEG and clipping, at any size."""

from __future__ import annotations

import math
import time
from copy import copy
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from denoise.backends.device import cpu_by_default
from denoise.backends.torch import TorchNetwork, adapt
from denoise.errors import ConfigError
from denoise.files.atomic import require_free
from denoise.files.image import ImageReader, write_image
from denoise.files.image.exif import with_size
from denoise.files.image.jpeg import with_default_quality
from denoise.files.names import OUTPUT, file_name
from denoise.options import INVERSION_STEPS, PRIOR_STEPS, RESTORE_STEPS, DenoiseOptions, RestoreOptions
from denoise.pipelines.arrays import as_frames
from denoise.pipelines.image import ImagePipeline
from denoise.pipelines.image_tasks import SIGMA_START, ImageTask, prepare_task
from denoise.pipelines.progress import progress_of_part
from denoise.pipelines.result import IMAGE_UNITS, Diagnostics, Result
from denoise.pipelines.samples import SamplePaths, only_frame, write_image_set
from denoise.priors.network import PatchNetwork, PriorNetwork
from denoise.probability_path import karras_sigmas, standard_normal
from denoise.protocols import DenoisingPrior, Device, LatentVariablePrior, Progress
from denoise.registry import RESTORERS, SIGMA_MODEL, locate
from denoise.sampling.inversion import restore_by_inversion
from denoise.sampling.operators import Cropped, Downsample, Mask
from denoise.sampling.posterior import diffpir, half_quadratic_splitting, sample_posterior
from denoise.signals import Image, require_image

SIGMA_END = 0.01  # last noise level of the sampler, full scale 1.0
NOISY_TASKS = ("denoise", "deblur", "upscale")  # whose noise is estimated
PATCH_SIGMA_START = 0.39  # of half-quadratic splitting with a prior of patches


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

    def __init__(self, prior: str | Path = SIGMA_MODEL, *, device: Device = "auto", tile: int | None = None) -> None:
        locate(prior, "prior", "image", RESTORERS["image"])  # a message that lists what restores, not all denoisers
        self.pipeline = self.denoiser = ImagePipeline(prior, device=device, tile=tile, backend="torch")
        model = self._module
        self.latent_prior: LatentVariablePrior | None = None
        if isinstance(model, PriorNetwork) and not isinstance(model.prior, DenoisingPrior):
            self.latent_prior = model.prior.to("cpu")  # as the operators
        sigma_start = SIGMA_START
        if isinstance(model, PatchNetwork):
            patches, sigma_start = model.prior, PATCH_SIGMA_START
            self.pipeline = copy(self.denoiser)
            coarse = PatchNetwork(patches, patches.event_shape[-1] // 2, scales=1)
            self.pipeline.network = adapt(coarse, self.pipeline.precision)
        if self.pipeline.network.facts.blind or self.pipeline.network.facts.sigma_maps != 1:
            raise ConfigError(f"model {self.pipeline.card.name} takes no single sigma; use {SIGMA_MODEL} or a prior.")
        sigmas = self.pipeline.card.sigma
        if sigmas is not None and sigmas[1] < sigma_start:
            raise ConfigError(
                f"model {self.pipeline.card.name} was trained up to sigma {255 * sigmas[1]:g} of 255; the sampler "
                f"needs {255 * sigma_start:g}. Use {SIGMA_MODEL} or a prior."
            )

    @property
    def _module(self) -> Any:
        """The network, which is one of torch, as the samplers are."""
        assert isinstance(self.pipeline.network, TorchNetwork)
        return self.pipeline.network.module

    def check(self, options: RestoreOptions) -> None:
        """Refuse options that the prior does not support.

        Args:
            options: task and settings.

        Raises:
            ConfigError: there are no samples of patches, one call of the denoiser takes no steps, or sigma is out of
                the range of the prior.
        """
        name = self.pipeline.card.name
        if options.samples and isinstance(self._module, PatchNetwork):
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

    @cpu_by_default()
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
                task = prepare_task(image, options, self.pipeline, reader.format)
            except ConfigError as error:
                raise ConfigError(f"{reader.name}: {error}") from error
            target_format = with_default_quality(reader.format) if options.task == "dejpeg" else reader.format
            height, width = task.frame.pixels.shape[:2]
            if options.task == "upscale":
                target_format = with_size(target_format, width, height)

            def write(path: Any, pixels: NDArray[Any]) -> None:
                write_image(path, [task.to_frame(pixels)], target_format, overwrite=options.overwrite)

            def draw(i: int) -> NDArray[Any]:
                x = self._sample(task, options, options.seed + i, progress_of_part(progress, i, n))
                return x.permute(1, 2, 0).numpy()

            if paths is None:
                write(target, draw(0))
            else:
                write_image_set(paths, draw, write)
            return Result.from_diagnostics(
                Diagnostics(
                    noise_before=255 * task.sigma if options.task in NOISY_TASKS else None,
                    precision=self.pipeline.network.precision,
                ),
                IMAGE_UNITS,
                input=reader.name,
                output=file_name(target if paths is None else paths.mean, OUTPUT),
                amount=n * image.pixels[..., 0].size / 1e6,
                seconds=time.perf_counter() - started,
                files=[] if paths is None else [str(path) for path in paths.all()],
                warnings=[*reader.warnings, *task.warnings],
            )

    @cpu_by_default()
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
        require_image(image, "array")
        if options.samples:
            raise ConfigError("samples are written to files; use file, or leave samples out and vary the seed.")
        self.check(options)
        if self._is_mean(options):
            return self.denoiser.denoise_frame(image, _mean_options(options), progress)[0]
        task = prepare_task(image, options, self.pipeline)
        x = self._sample(task, options, options.seed, progress)
        return task.to_frame(x.permute(1, 2, 0).numpy())

    def array(self, pixels: NDArray[Any], options: RestoreOptions, progress: Progress | None = None) -> NDArray[Any]:
        """Restore an image in memory.

        Args:
            pixels: (height, width) or (height, width, 1 or 3); uint8 and uint16 of their full scale, or floats of 1.0.
            options: task and settings.
            progress: called with the finished fraction, 0 to 1.

        Returns:
            Restored pixels of the same dtype and axes; upscaling makes them larger.

        Raises:
            InputError: shape, dtype or values do not fit.
            ConfigError: as of `frame`.
        """
        x = np.asarray(pixels)
        native = x.astype(x.dtype.newbyteorder("="), copy=False)
        (frame,) = as_frames(native)
        is_float = np.issubdtype(x.dtype, np.floating)
        image = Image(np.ascontiguousarray(frame, np.float32 if is_float else None))
        restored = self.frame(image, options, progress).pixels
        return restored.reshape(*restored.shape[:2], *x.shape[2:]).astype(x.dtype)

    @torch.no_grad()
    def _sample(self, task: ImageTask, options: RestoreOptions, seed: int, progress: Progress | None) -> Tensor:
        """Restore once: a posterior sample where noise alone is removed, else an image by DiffPIR.

        Of a prior with latents, it is the image of the most probable ones, near random starts, and of a prior of
        patches the most probable image, by half-quadratic splitting.

        Returns:
            (channels, height, width), full scale 1.0.
        """
        generator, n_done = Generator().manual_seed(seed), 0
        if self.latent_prior is not None:
            return self._invert(task, options.steps or INVERSION_STEPS, generator, progress)
        steps = options.steps or (PRIOR_STEPS if isinstance(self._module, PriorNetwork) else RESTORE_STEPS)

        def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal n_done
            image = Image(np.ascontiguousarray(x[0].permute(1, 2, 0).numpy()))
            step_progress = progress_of_part(progress, n_done, steps)
            n_done += 1
            return torch.from_numpy(self.pipeline.posterior_mean(image, float(sigma), step_progress))[None]

        if isinstance(self._module, PatchNetwork):
            self._module.generator = generator
            ends = math.log10(min(task.sigma_start, PATCH_SIGMA_START)), math.log10(SIGMA_END)
            start = task.start + torch.zeros(1, *task.shape, dtype=torch.float32)
            levels = torch.logspace(*ends, steps, dtype=torch.float32)
            x = half_quadratic_splitting(denoiser, task.y[None], task.operator, task.sigma, levels, start=start)
            return task.finish(x[0])
        if options.task == "denoise":
            return task.finish(sample_posterior(denoiser, task.y[None], task.sigma, steps, generator=generator)[0][0])
        sigmas = karras_sigmas(steps, SIGMA_END, task.sigma_start)
        start = task.start + task.sigma_start * standard_normal((1, *task.shape), generator)
        x = diffpir(denoiser, task.y[None], task.operator, task.sigma, sigmas, start=start, generator=generator)
        return task.finish(x[0])

    def _invert(self, task: ImageTask, steps: int, generator: Generator, progress: Progress | None) -> Tensor:
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
