"""Posterior samples of images, with the sigma-conditioned denoiser as the prior, mixed with the posterior mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from denoise.backends.device import cpu_by_default
from denoise.options import DenoiseOptions
from denoise.pipelines.progress import progress_of_part
from denoise.protocols import Consistency, Progress
from denoise.sampling.consistency import consistency, residual_check
from denoise.sampling.posterior import sample_posterior
from denoise.signals import Image

PosteriorMean = Callable[[Image, float, Progress | None], NDArray[Any]]
"""Returns the denoised image (channels, height, width), given a sigma, full scale 1.0."""


@cpu_by_default()
def sample_image(
    posterior_mean: PosteriorMean, image: Image, sigma: float, options: DenoiseOptions, progress: Progress | None = None
) -> tuple[NDArray[Any], float]:
    """Mix a posterior sample with the posterior mean, by the weight of the options.

    The squared error is 1 + weight^2 times that of the mean. Where a sample removes more than noise of ``sigma``, the
    mean replaces it. Each step needs the whole image of the step before.

    Args:
        posterior_mean: the sigma-conditioned denoiser.
        image: noisy image.
        sigma: standard deviation of its noise, full scale 1.0.
        options: options of the run: steps, seed and weight of the sample.
        progress: called with the finished fraction, 0 to 1.

    Returns:
        Pixels, (channels, height, width), full scale 1.0; and the fraction of the sample that was rejected.

    Reference:
        A Theory of the Distortion-Perception Tradeoff in Wasserstein Space, 2021, arXiv:2107.02555 (mixing, there
        with the estimator of least error that has natural statistics, which a posterior sample is not).
    """
    image, n_done = image.as_float(), 0

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal n_done
        step_progress = progress_of_part(progress, n_done, options.steps)
        n_done += 1
        step_image = Image(np.ascontiguousarray(x[0].permute(1, 2, 0).numpy()), image.alpha)
        return torch.from_numpy(posterior_mean(step_image, float(sigma), step_progress))[None]

    noisy = to_tensor(image)[None]
    generator = torch.Generator().manual_seed(options.seed or 0)
    sample, mean = sample_posterior(denoiser, noisy, sigma, options.steps, generator=generator)
    observed = noisy if image.visible is None else torch.where(torch.from_numpy(image.visible), noisy, sample)
    rejected = residual_check(observed, sample, sigma)
    mixed = torch.lerp(mean, torch.lerp(sample, mean, rejected), options.mix_weight)
    return mixed[0].numpy(), float(rejected.mean())


def image_residual(noisy: Image, denoised: Image, sigma: float) -> Consistency:
    """Compare the residual of the visible pixels with white noise.

    Args:
        noisy: input of the pipeline.
        denoised: its output, of the same dtype.
        sigma: standard deviation of the noise, full scale 1.0.

    Returns:
        Level relative to ``sigma``, and correlation between neighbouring pixels.
    """
    residual = (noisy.pixels.astype(np.float32) - denoised.pixels) / noisy.full_scale
    # the residual of hidden pixels is 0
    fraction = 1.0 if noisy.visible is None else max(1e-9, float(noisy.visible.mean()))
    return consistency(torch.from_numpy(residual).permute(2, 0, 1), sigma * fraction**0.5)


def to_tensor(image: Image) -> Tensor:
    """Return the pixels of a float image.

    Args:
        image: image in float32.

    Returns:
        A view, (channels, height, width).
    """
    return torch.from_numpy(image.pixels).permute(2, 0, 1)
