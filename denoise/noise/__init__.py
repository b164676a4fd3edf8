"""Degradations of clean signals: functions of tensors; all randomness comes from a generator."""

from denoise.noise.audio import (
    band_limit,
    clicks,
    clip,
    colour,
    hum,
    impacts,
    mu_law,
    reverberate,
    rms,
    scale_to_snr,
    set_level,
    wind,
)
from denoise.noise.common import gaussian, generator_for, uniform
from denoise.noise.field import noise_field
from denoise.noise.image import (
    coarse,
    colour_matrices,
    correlated_channels,
    demosaic,
    film_grain,
    salt_and_pepper,
    sensor,
    shot_and_read,
    white_balances,
)

__all__ = [
    "band_limit",
    "clicks",
    "clip",
    "coarse",
    "colour",
    "colour_matrices",
    "correlated_channels",
    "demosaic",
    "film_grain",
    "gaussian",
    "generator_for",
    "hum",
    "impacts",
    "mu_law",
    "noise_field",
    "reverberate",
    "rms",
    "salt_and_pepper",
    "scale_to_snr",
    "sensor",
    "set_level",
    "shot_and_read",
    "uniform",
    "white_balances",
    "wind",
]
