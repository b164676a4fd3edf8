"""The denoising of one frame by a network: range -> tiles -> network -> overlap-add -> frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise.frames import Grid
from denoise.options import DenoiseOptions
from denoise.pipelines.float_range import find_float_range
from denoise.pipelines.noise_estimate import FrameNoise, channel_groups, to_network, uniform_noise
from denoise.pipelines.quantisation import MAX_SIGMA, has_8_bits, quantise_for
from denoise.pipelines.result import Diagnostics
from denoise.pipelines.tiles import TileDenoiser, frame_of, weigh
from denoise.protocols import ArrayNetwork, ArrayQuantisableNetwork, ArrayVariationalNetwork, Progress
from denoise.signals import Image

MIN_NOISE = 0.3  # levels, of integers: their rounding alone is as strong, so they stay as they are
MAX_DETAIL_LOSS = 0.5  # of sigma: what --detail 1 withholds


@dataclass(frozen=True)
class FrameDenoiser:
    """Denoises frames whose noise is known.

    Args:
        network: denoiser of tiles.
        grid: of the tiles, along both axes.
        batch: tiles that the network processes at a time.
        max_sigma: greatest standard deviation of noise that the network takes, full scale 1.0.
        estimate_noise: returns the noise of a frame.
    """

    network: ArrayNetwork
    grid: Grid
    batch: int
    max_sigma: float
    estimate_noise: Callable[[Image], FrameNoise]

    def denoise(
        self, image: Image, noise: FrameNoise | None, options: DenoiseOptions, progress: Progress | None
    ) -> tuple[Image, Diagnostics]:
        """Denoise the pixels within the range of a frame, and the brighter areas as an image of their own.

        Args:
            image: noisy frame.
            noise: its noise; None for blind networks.
            options: options of the run, supported by the network.
            progress: called with the finished fraction, 0 to 1.

        Returns:
            The denoised frame, and its diagnostics but for the noise levels.
        """
        pixel_range = find_float_range(image)
        if pixel_range is None:
            return self._denoise_in_range(image, noise, options, progress)
        inner_noise = None if noise is None else tuple(profile.in_units(pixel_range.scale) for profile in noise)
        inner = pixel_range.normalise(image)
        denoised, diagnostics = self._denoise_in_range(inner, inner_noise, options, progress)
        pixels = pixel_range.denormalise(denoised.pixels)
        pixels = np.where(pixel_range.contains(image)[..., None], pixels, image.pixels)
        bright = pixel_range.find_bright(image)
        if bright is not None:
            box = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(bright))
            bright_image = Image(image.pixels[box], bright[box].astype(np.float32))
            denoised, _ = self.denoise(bright_image, noise, options, None)
            pixels[box] = np.where(bright[box][..., None], denoised.pixels, pixels[box])
        return replace(image, pixels=pixels), diagnostics

    def _denoise_in_range(
        self, image: Image, noise: FrameNoise | None, options: DenoiseOptions, progress: Progress | None
    ) -> tuple[Image, Diagnostics]:
        """Frame -> rows -> frame."""
        strength = options.limited_strength
        is_variational = options.uses_posterior and isinstance(self.network, ArrayVariationalNetwork)
        if noise is not None:
            if options.estimates_sigma and _greatest_255(noise) <= _min_noise_255(image):
                return image, Diagnostics()
            noise = tuple(
                profile.scale(1 - MAX_DETAIL_LOSS * options.detail).clamp(self.max_sigma) for profile in noise
            )
        sigma = 0.0 if noise is None else noise[0].mean_sigma
        if options.mix_weight and sigma and not is_variational:
            from denoise.pipelines.perception import image_residual, sample_image  # the sampler is one of torch

            sample, rejected_fraction = sample_image(self.posterior_mean, image, sigma, options, progress)
            x = np.moveaxis(image.as_float().pixels, -1, 0)
            mixed = sample if strength == 1 else x + strength * (sample - x)  # exactly the sample at full strength
            if not options.luminance == options.colour == 1:
                mixed = x + np.concatenate([weigh((sample - x)[group], options) for group in channel_groups(len(x))])
            denoised = frame_of(iter([mixed]), image)
            residual = image_residual(image, denoised, strength * sigma)
            return denoised, Diagnostics(
                residual=residual,
                rejected_fraction=rejected_fraction,
                precision=self.network.precision,
            )
        network = self._prepare(image, noise)
        tiles = TileDenoiser(network, self.grid, noise, options, options.seed if is_variational else None, self.batch)
        denoised = frame_of(tiles.rows(image, progress), image)
        return denoised, Diagnostics(precision=network.precision)

    def posterior_mean(self, image: Image, sigma: float, progress: Progress | None = None) -> NDArray[Any]:
        """Return the output of the network for a whole frame with noise of a given level.

        Args:
            image: noisy frame.
            sigma: standard deviation of its noise, full scale 1.0.
            progress: called with the finished fraction, 0 to 1.

        Returns:
            (channels, height, width), full scale 1.0.
        """
        noise = uniform_noise(sigma, image.pixels.shape[2])
        tiles = TileDenoiser(self._prepare(image, noise), self.grid, noise, DenoiseOptions(steps=1), batch=self.batch)
        return np.concatenate([*tiles.rows(image, progress)], axis=1)

    def _prepare(self, image: Image, noise: FrameNoise | None) -> ArrayNetwork:
        """The network in the precision for a frame: int8 if it saves time and does no harm."""
        network = self.network
        if not isinstance(network, ArrayQuantisableNetwork) or not has_8_bits(image):
            return network
        if not network.should_quantise(image.pixels[..., 0].size):
            return network
        noise_255 = _greatest_255(self.estimate_noise(image) if noise is None else noise)
        if noise_255 > MAX_SIGMA:
            return network
        profile = None if noise is None else noise[0]

        def to_inputs(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
            return to_network(x[:, :3] / np.float32(image.full_scale), profile, network.facts)

        return quantise_for(network, image, to_inputs, noise_255) or network


def _min_noise_255(image: Image) -> float:
    """Estimated noise up to which a frame stays as it is."""
    return 0.0 if image.pixels.dtype == np.float32 else 255 * MIN_NOISE / image.full_scale


def _greatest_255(noise: FrameNoise) -> float:
    """Level of the noise of the noisiest group of channels in 8-bit steps."""
    return 255 * max(profile.mean_sigma for profile in noise)
