"""The part of a recipe about images: photographs, noise, and the maps of it that networks are given."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from denoise.config import config
from denoise.errors import ConfigError

NOISE_KINDS = ("sensor", "film", "coarse", "correlated", "unequal", "uneven", "camera", "clean", "white")
"""Kinds of noise of ``[image.degrade]``, white noise last: it has what the others leave."""


@config
class Degradations:
    """Probabilities of noise and damage other than white Gaussian noise, for each patch of an image.

    At most one kind of noise replaces the white noise of a patch. Defective pixels, JPEG and rounding are applied
    after it. The probability of ``jpeg`` and ``resized`` is a number for all kinds of noise, or a table of numbers by
    the names of the kinds below and ``white``; it is 0 for those that are left out.

    Args:
        sensor: probability of the noise of a camera sensor.
        film: probability of film grain.
        coarse: probability of noise that was enlarged with its image.
        correlated: probability of white noise with correlated channels.
        unequal: probability of white noise of another strength in each channel.
        uneven: probability of white noise whose strength depends on intensity or position.
        camera: probability of the noise of a camera sensor of any exposure, with row noise, in any phase of the mosaic,
            after noise reduction and sharpening.
        clean: probability of no noise.
        resized: probability that the noise is that of an image that was smaller or larger.
        salt_and_pepper: probability of defective pixels, black or white.
        salt_and_pepper_fraction: largest fraction of defective pixels.
        jpeg: probability of JPEG compression.
        jpeg_quality: range of the quality of JPEG, 1 to 100.
        jpeg_offsets: number of rows and of columns by which blocks may be shifted: 8, or 16 for every phase of chroma
            at half the resolution.
        rounded: probability of rounding to 8 bits where the patch is not stored as JPEG.
    """

    sensor: float = 0.0
    film: float = 0.0
    coarse: float = 0.0
    correlated: float = 0.0
    unequal: float = 0.0
    uneven: float = 0.0
    camera: float = 0.0
    clean: float = 0.0
    resized: float | dict[str, float] = 0.0
    salt_and_pepper: float = 0.0
    salt_and_pepper_fraction: float = 0.1
    jpeg: float | dict[str, float] = 0.0
    jpeg_quality: tuple[int, int] = (30, 98)
    jpeg_offsets: Literal[8, 16] = 8
    rounded: float = 0.0

    def __post_init__(self) -> None:
        kinds = tuple(getattr(self, kind) for kind in NOISE_KINDS[:-1])
        others: tuple[float, ...] = (self.salt_and_pepper, self.salt_and_pepper_fraction, self.rounded)
        for name, value in (("resized", self.resized), ("jpeg", self.jpeg)):
            table = value if isinstance(value, dict) else {}
            if unknown := table.keys() - set(NOISE_KINDS):
                raise ConfigError(f"{name} names the noise {min(unknown)!r}; expected {', '.join(NOISE_KINDS)}.")
            others += tuple(value.values()) if isinstance(value, dict) else (value,)
        if min(kinds + others) < 0 or sum(kinds) > 1 + 1e-9 or max(others) > 1:
            raise ConfigError(
                f"probabilities of degradations are {kinds} for the kinds of noise and {others} for other damage; "
                "expected 0 to 1, and a sum of at most 1 for the kinds of noise."
            )
        _check_jpeg_quality(self.jpeg_quality)


@config
class SigmaRange:
    """A range of sigma that a fraction of the patches has.

    Args:
        fraction: fraction of the patches, 0 to 1.
        sigma: smallest and largest standard deviation, full scale 1.0.
        logarithmic: whether the logarithm is uniformly distributed.
    """

    fraction: float
    sigma: tuple[float, float]
    logarithmic: bool = False

    def __post_init__(self) -> None:
        low, high = self.sigma
        if not 0 <= self.fraction <= 1 or not 0 <= low <= high or (self.logarithmic and not low):
            raise ConfigError(
                f"sigma is {self.sigma}, fraction {self.fraction}; expected two numbers of at least 0, the smaller "
                "first (above 0 if logarithmic), and a fraction of 0 to 1."
            )


@config
class Conditioning:
    """What networks with maps of sigma are given in training: maps of the true noise with the errors of an estimate.

    The maps are one number for each channel, local means, or otherwise a function of intensity, as in
    `denoise.noise_profile.NoiseProfile`. Their logarithms err by up to 0.15 of ``max_error`` in half of the patches
    and by up to ``max_error`` in the others, and each map by a further random error.

    Args:
        uniform: probability of maps with one number for each channel.
        local: probability of maps of local means of the power.
        max_error: largest error of the logarithm of all maps.
        floor: largest sigma that is found where there is no noise, full scale 1.0.
        too_low_jpeg: probability that the noise of a patch stored as JPEG is underestimated, by a factor of up to 7.
        too_high: probability that structure of a photograph is taken for noise of sigma 2 to 60 of 255.
        too_high_textures: the same of textures.
    """

    uniform: float = 0.4
    local: float = 0.15
    max_error: float = 0.2
    floor: float = 1 / 255
    too_low_jpeg: float = 0.35
    too_high: float = 0.05
    too_high_textures: float = 0.3

    def __post_init__(self) -> None:
        probabilities = (self.uniform, self.local, self.too_low_jpeg, self.too_high, self.too_high_textures)
        if min(probabilities) < 0 or max(probabilities) > 1 or self.uniform + self.local > 1:
            raise ConfigError(
                f"probabilities of maps of sigma are {probabilities}; expected 0 to 1, and a sum of at most 1 for "
                "uniform and local."
            )
        if not (0 <= self.max_error <= 2 and 0 <= self.floor <= 1):
            raise ConfigError(f"max_error is {self.max_error}, floor {self.floor}; expected 0 to 2 and 0 to 1.")


@config
class ImageData:
    """Clean photographs, and the noise that is added to their patches.

    Args:
        folders: folders of images, relative to ``--data``.
        textures: folders of rendered images (`recipes/data/textures.py`), relative to ``--data``. Half of their patches
            keep their orientation, and saturation and ``jpeg`` are for photographs alone.
        texture_fraction: fraction of the patches that is taken from ``textures``.
        patch: side of a patch, pixels.
        further_patches: further sides. Each batch has one of all, drawn with equal probability, and as many patches as
            have the pixels of a batch of ``patch``. A side that is repeated is drawn more often.
        scales: sizes at which each image is used, 1.0 as stored.
        sigma: range of the standard deviation of the noise, uniformly distributed, full scale 1.0.
        high_sigma_fraction: fraction of the patches whose sigma lies above that range, up to ``max_sigma``, with
            uniformly distributed logarithm. A denoiser at all noise levels is a prior.
        max_sigma: largest standard deviation of the noise, full scale 1.0.
        sigma_mixture: further ranges of sigma, each with its fraction of the patches, instead of
            ``high_sigma_fraction``.
        grey: probability of a grey patch with the same noise in all channels.
        saturation: range of factors of the saturation.
        channel_order: probability of a random order of the channels.
        exposure: probability of a darker patch, by a factor of 0.15 to 1.
        jpeg: probability that the clean patch is compressed first, as cameras do. Most photographs have chroma at
            half the resolution, which images that were reduced in size do not have.
        jpeg_quality: range of the quality of that compression, 1 to 100.
        degrade: probabilities of other noise and damage.
        conditioning: errors of the maps of sigma, for networks with ``sigma_maps`` of more than 1.
    """

    folders: tuple[str, ...]
    textures: tuple[str, ...] = ()
    texture_fraction: float = 0.0
    patch: int = 96
    further_patches: tuple[int, ...] = ()
    scales: tuple[float, ...] = (1.0,)
    sigma: tuple[float, float] = (0.0, 55 / 255)
    high_sigma_fraction: float = 0.0
    max_sigma: float = 4.0
    sigma_mixture: tuple[SigmaRange, ...] = ()
    grey: float = 0.1
    saturation: tuple[float, float] = (1.0, 1.0)
    channel_order: float = 0.0
    exposure: float = 0.0
    jpeg: float = 0.0
    jpeg_quality: tuple[int, int] = (75, 98)
    degrade: Degradations = field(default_factory=Degradations)
    conditioning: Conditioning = field(default_factory=Conditioning)

    def __post_init__(self) -> None:
        if not 1 <= self.patch <= 1 << 14:
            raise ConfigError(f"patch is {self.patch}; expected 1 to {1 << 14}.")
        if not all(1 <= side <= 1 << 14 for side in self.further_patches):
            raise ConfigError(f"further_patches are {self.further_patches}; expected 1 to {1 << 14}.")
        if not 0 <= self.texture_fraction <= 1 or bool(self.texture_fraction) != bool(self.textures):
            raise ConfigError(
                f"texture_fraction is {self.texture_fraction}, textures are {self.textures}; expected a fraction above "
                "0 and at most 1 with folders, and 0 without."
            )
        if not (0 <= self.channel_order <= 1 and 0 <= self.exposure <= 1):
            raise ConfigError(f"channel_order is {self.channel_order}, exposure {self.exposure}; expected 0 to 1.")
        if not 0 <= self.sigma[0] <= self.sigma[1]:
            raise ConfigError(f"sigma is {self.sigma}; expected two numbers of at least 0, the smaller first.")
        if self.degrade.jpeg and min(self.sides) < self.degrade.jpeg_offsets:
            raise ConfigError(
                f"patch is {min(self.sides)}; expected at least {self.degrade.jpeg_offsets}, the side of a block, with "
                "degrade.jpeg."
            )
        fractions = [part.fraction for part in self.sigma_mixture]
        if sum(fractions) > 1 + 1e-9 or (fractions and self.high_sigma_fraction):
            raise ConfigError(
                f"fractions of sigma_mixture are {fractions}; expected a sum of at most 1, and no high_sigma_fraction."
            )
        if not 0 <= self.high_sigma_fraction <= 1:
            raise ConfigError(f"high_sigma_fraction is {self.high_sigma_fraction}; expected 0 to 1.")
        if self.high_sigma_fraction and not 0 < self.sigma[1] <= self.max_sigma:
            raise ConfigError(
                f"max_sigma is {self.max_sigma}, sigma {self.sigma}; with high_sigma_fraction the range of sigma must "
                "end above 0 and at most at max_sigma."
            )
        if not self.scales or not 0.05 <= min(self.scales) <= max(self.scales) <= 1:
            raise ConfigError(f"scales are {self.scales}; expected numbers of 0.05 to 1.")
        if not 0 <= self.saturation[0] <= self.saturation[1] <= 4:
            raise ConfigError(f"saturation is {self.saturation}; expected two numbers of 0 to 4, the smaller first.")
        _check_jpeg_quality(self.jpeg_quality)

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest standard deviation of the noise, full scale 1.0."""
        largest = self.max_sigma if self.high_sigma_fraction else self.sigma[1]
        ranges = [(self.sigma[0], largest), *(part.sigma for part in self.sigma_mixture)]
        return min(low for low, _ in ranges), max(high for _, high in ranges)

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the patches, pixels."""
        return self.patch, *self.further_patches


def _check_jpeg_quality(quality: tuple[int, int]) -> None:
    if not 1 <= quality[0] <= quality[1] <= 100:
        raise ConfigError(f"jpeg_quality is {quality}; expected two numbers of 1 to 100, the smaller first.")
