"""The choice of the model for a frame: that of white noise where the noise is white and its risk is lower."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise.noise_level import estimate_sigma
from denoise.noise_profile import NoiseProfile
from denoise.pipelines.float_range import find_float_range
from denoise.pipelines.noise_estimate import FrameNoise, cut_patches, montage, to_network
from denoise.protocols import ArrayNetwork
from denoise.random_numbers import TorchRandom
from denoise.signals import Image

MIN_SIGMA = 8 / 255  # what is weaker may be texture
MAX_MEAN_RATIO = 1.25  # of the noise of the mean of channels by that of independent ones: fine structure raises it
MAX_RISK_RATIO = 0.995  # of the model of white noise by the default: estimates that are as near say nothing
MAX_PATCHES = 16  # on which the risks are estimated
EPS = 0.1  # of sigma: the step of the finite difference

Array = NDArray[Any]


def suits_model_of_white_noise(
    image: Image, noise: FrameNoise, by_default: ArrayNetwork, load_of_white_noise: Callable[[], ArrayNetwork]
) -> bool:
    """Tell whether a frame has white noise, and the model of white noise the lower risk.

    Noise that the channels share, as film grain, is not white. Drawings and text may be better kept by the default.

    Args:
        image: noisy frame.
        noise: its noise, in the units of the frame.
        by_default: the network that is taken otherwise.
        load_of_white_noise: returns the network for white noise.
    """
    pixel_range = find_float_range(image)
    if pixel_range is not None:
        image = pixel_range.normalise(image)
        noise = tuple(profile.in_units(pixel_range.scale) for profile in noise)
    sigma = noise[0].mean_sigma
    if not all(profile.is_white and profile.mean_sigma > MIN_SIGMA for profile in noise):
        return False
    patches = cut_patches(image)
    assert patches is not None
    patches = patches[:, :3]
    mean_sigma = estimate_sigma(montage(patches.mean(axis=1, keepdims=True)))
    if mean_sigma > MAX_MEAN_RATIO * sigma / math.sqrt(patches.shape[1]):
        return False
    networks = by_default, load_of_white_noise()
    default_risk, risk = estimate_risks(patches[:: -(-len(patches) // MAX_PATCHES)], sigma, networks)
    return 0 < risk < MAX_RISK_RATIO * default_risk


def estimate_risks(patches: Array, sigma: float, networks: Sequence[ArrayNetwork]) -> list[float]:
    """Estimate the mean squared errors of denoisers for white noise, without the clean image.

    Args:
        patches: noisy patches, (n, 1 or 3, height, width), full scale about 1.0.
        sigma: standard deviation of their noise, which is independent in all pixels and channels.
        networks: denoisers.

    Returns:
        Estimated error of each. Differences of them are more exact than they are.

    Reference:
        Estimation of the Mean of a Multivariate Normal Distribution, Stein, 1981; Monte-Carlo SURE, Ramani et al.,
        2008.
    """
    noise = NoiseProfile.uniform(sigma, patches.shape[1])
    probe = TorchRandom(0).normal(patches.shape)

    def denoise(network: ArrayNetwork, x: Array) -> Array:
        y = network.denoise(*to_network(x, noise, network.facts)).reshape(len(x), -1, *x.shape[2:])
        return y.mean(axis=1, keepdims=True) if x.shape[1] < y.shape[1] else y

    risks = []
    for network in networks:
        denoised = denoise(network, patches)
        divergence = (probe * (denoise(network, patches + EPS * sigma * probe) - denoised)).mean() / (EPS * sigma)
        risks.append(float(np.square(patches - denoised).mean() + sigma**2 * (2 * divergence - 1)))
    return risks
