"""Options of one file of a batch, by the names that `denoise audio` and `denoise image` have for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from denoise.config import config, parse
from denoise.errors import ConfigError
from denoise.options import (
    AUDIO_STEPS,
    IMAGE_STEPS,
    MAX_MEGAPIXELS,
    DenoiseOptions,
    RestoreOptions,
    Stereo,
    parse_sigma,
)

Modality = Literal["audio", "image"]
Values = Mapping[str, Any]


@config
class AudioFileOptions:
    """Options of a recording; see ``denoise audio --help``.

    Args:
        model: name of a bundled model, or a weights file; None chooses `speech` or `general`.
        strength: 0 to 1.
        attenuation_limit: dB.
        perception: 0 to 1; selects `speech-flow`.
        steps: network calls per posterior sample.
        seed: seed of a posterior sample.
        channels: ``"auto"``, ``"linked"`` or ``"separate"``.
    """

    model: str | None = None
    strength: float = 1.0
    attenuation_limit: float | None = None
    perception: float | None = None
    steps: int = AUDIO_STEPS
    seed: int = 0
    channels: Stereo = "auto"

    def __post_init__(self) -> None:
        self.denoise_options()

    @property
    def models(self) -> list[str]:
        """The models that the file needs, those that are named."""
        return [self.model] if self.model is not None else []

    def denoise_options(self) -> DenoiseOptions:
        """Return the options of the pipeline, which replaces files: the batch decides about that.

        Raises:
            ConfigError: a value is out of range.
        """
        return DenoiseOptions(
            steps=self.steps,
            strength=self.strength,
            attenuation_limit=self.attenuation_limit,
            perception=self.perception,
            seed=None if self.perception is None else self.seed,
            stereo=self.channels,
            overwrite=True,
        )


@config
class ImageFileOptions:
    """Options of an image; see ``denoise image --help``.

    Args:
        model: name of a bundled model, or a weights file.
        prior: prior of a restoration, in place of the model.
        task: what is undone.
        mask: image that is white where pixels are missing, for the task inpaint.
        blur: standard deviation of a blur in pixels, for the task deblur.
        kernel: image of the kernel, for the task deblur.
        factor: of both sides, for the task upscale.
        strength: 0 to 1.
        luminance: 0 to 1, times ``strength``.
        colour: 0 to 1, times ``strength``.
        detail: 0 to 1.
        sigma: standard deviation of the noise, 0 to 255, or ``"auto"``.
        perception: 0 to 1; selects `gaussian`.
        steps: network calls for a posterior sample, or for a restoration; None is the default of either.
        seed: seed of a posterior sample or a restoration.
        max_megapixels: larger images are refused.
    """

    model: str | None = None
    prior: str | None = None
    task: str = "denoise"
    mask: str | None = None
    blur: float | None = None
    kernel: str | None = None
    factor: int | None = None
    strength: float = 1.0
    luminance: float = 1.0
    colour: float = 1.0
    detail: float = 0.0
    sigma: str | float | None = None
    perception: float | None = None
    steps: int | None = None
    seed: int = 0
    max_megapixels: float = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        if self.model is not None and self.prior is not None:
            raise ConfigError("both model and prior are given; expected one of them.")
        operator = {"mask": self.mask, "blur": self.blur, "kernel": self.kernel, "factor": self.factor}
        denoising = {
            "model": self.model,
            "perception": self.perception,
            "strength": None if self.strength == 1 else self.strength,
            "luminance": None if self.luminance == 1 else self.luminance,
            "colour": None if self.colour == 1 else self.colour,
            "detail": self.detail or None,
        }
        foreign = (operator if self.task == "denoise" else {}) | (denoising if self.restores else {})
        for name, value in foreign.items():
            if value is not None:
                raise ConfigError(
                    f"{name} is not for {'a prior' if self.restores else 'the task denoise'}. Leave it out."
                )
        if self.restores:
            self.restore_options()
        else:
            self.denoise_options()

    @property
    def restores(self) -> bool:
        """Whether a prior restores the image; by default, a model removes its noise."""
        return self.task != "denoise" or self.prior is not None

    @property
    def models(self) -> list[str]:
        """The models that the file needs, those that are named."""
        return [name for name in (self.model, self.prior) if name is not None]

    def denoise_options(self) -> DenoiseOptions:
        """Return the options of the task denoise; see `AudioFileOptions.denoise_options`."""
        return DenoiseOptions(
            steps=IMAGE_STEPS if self.steps is None else self.steps,
            strength=self.strength,
            luminance=self.luminance,
            colour=self.colour,
            detail=self.detail,
            sigma=parse_sigma(self.sigma),
            perception=self.perception,
            seed=None if self.perception is None else self.seed,
            overwrite=True,
            max_megapixels=self.max_megapixels,
        )

    def restore_options(self) -> RestoreOptions:
        """Return the options of a restoration by a prior.

        Raises:
            ConfigError: a value is out of range, or an option is missing or of another task.
        """
        sigma = parse_sigma(self.sigma)
        return RestoreOptions(
            task=self.task,  # type: ignore[arg-type]
            mask=self.mask,
            blur=self.blur,
            kernel=self.kernel,
            factor=self.factor,
            sigma=None if isinstance(sigma, str) else sigma,
            steps=self.steps,
            seed=self.seed,
            overwrite=True,
            max_megapixels=self.max_megapixels,
        )


KINDS: dict[Modality, type[AudioFileOptions] | type[ImageFileOptions]] = {
    "audio": AudioFileOptions,
    "image": ImageFileOptions,
}
NAMES: dict[Modality, frozenset[str]] = {
    modality: frozenset(field.name for field in fields(kind)) for modality, kind in KINDS.items()
}


def parse_file_options(values: Values, modality: Modality, where: str) -> AudioFileOptions | ImageFileOptions:
    """Parse the options of one file.

    Args:
        values: options by their names; text is converted to numbers.
        modality: modality of the file.
        where: prefix of error messages.

    Raises:
        ConfigError: an option is unknown or out of range.
    """
    return parse(KINDS[modality], values, where)


def check_shared_options(values: Values, modalities: set[Modality]) -> None:
    """Check options that all files of a batch share; each file takes those of its modality.

    Args:
        values: options by their names.
        modalities: modalities of the files.

    Raises:
        ConfigError: an option fits none of the modalities, or is out of range.
    """
    known = frozenset().union(*(NAMES[modality] for modality in modalities))
    for name in values:
        if name not in known:
            raise ConfigError(f"--set {name}: no such option of {' or '.join(sorted(modalities))} files.")
    for modality in modalities:
        parse_file_options(select_options(values, modality), modality, "--set")


def select_options(values: Values, modality: Modality) -> dict[str, Any]:
    """Return the options that files of a modality have.

    Args:
        values: options by their names.
        modality: modality of the files.
    """
    return {name: value for name, value in values.items() if name in NAMES[modality]}
