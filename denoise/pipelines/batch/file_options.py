"""Options of one file of a batch, by the names that `denoise audio` and `denoise image` have for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Literal

from denoise.config import config, parse
from denoise.errors import ConfigError
from denoise.options import (
    AUDIO_STEPS,
    IMAGE_STEPS,
    MAX_MEGAPIXELS,
    RESTORE_STEPS,
    AudioRestoreOptions,
    DenoiseOptions,
    RestoreOptions,
    Stereo,
    parse_limit,
    parse_sigma,
)
from denoise.pipelines.noise_segment import parse_gaps, parse_noise_source
from denoise.registry import SIGMA_MODEL

Modality = Literal["audio", "image"]
Values = Mapping[str, Any]


@config
class AudioFileOptions:
    """Options of a recording; see ``denoise audio --help``.

    Args:
        model: name of a bundled model, or a weights file; None chooses `speech` or `general`.
        prior: prior of a restoration, in place of the model.
        task: what is undone.
        limit: level of the clipping, full scale 1, for the task declip; None finds it.
        gain: dB, for the task declip.
        mask: time ranges as in ``0:01.2-0:01.25,0:03-0:03.02``, or a recording, for the task inpaint; None finds gaps.
        band: Hz, for the task extend; None finds it.
        strength: 0 to 1.
        attenuation_limit: dB.
        noise_profile: time range as in ``0:00-0:02.5``, or a recording of noise; selects `general`.
        perception: 0 to 1; selects `speech-flow`.
        steps: network calls per posterior sample, or per window of a restoration; None is the default of either.
        seed: seed of a posterior sample or a restoration.
        channels: ``"auto"``, ``"linked"`` or ``"separate"``.
    """

    model: str | None = None
    prior: str | None = None
    task: str = "denoise"
    limit: float | None = None
    gain: float | None = None
    mask: str | None = None
    band: float | None = None
    strength: float = 1.0
    attenuation_limit: float | None = None
    noise_profile: str | None = None
    perception: float | None = None
    steps: int | None = None
    seed: int = 0
    channels: Stereo = "auto"

    def __post_init__(self) -> None:
        _refuse_both(self.model, self.prior)
        if self.restores:
            denoising = ("model", "strength", "attenuation_limit", "noise_profile", "perception", "channels")
            _refuse(self, denoising, "a prior" if self.task == "denoise" else f"the task {self.task}")
            self.restore_options()
            if self.task == "extend" and self.prior is None:
                raise ConfigError("the task extend needs a prior, such as speech-prior; give it.")
        else:
            _refuse(self, ("limit", "gain", "mask", "band"), "the task denoise")
            self.denoise_options()

    @property
    def restores(self) -> bool:
        """Whether the recording is restored; by default, a model removes its noise."""
        return self.task != "denoise" or self.prior is not None

    @property
    def chosen_model(self) -> str | None:
        """The model or the prior of the pipeline; None for a restoration without one."""
        from denoise.pipelines.audio import default_model

        return self.prior if self.restores else self.model or str(default_model(self.denoise_options()))

    @property
    def models(self) -> list[str]:
        """The weights that the file may need."""
        from denoise.pipelines.choice import AUTO, AUTO_MODELS

        chosen = self.chosen_model
        if chosen == AUTO:
            return [*AUTO_MODELS]
        return [] if chosen is None else [chosen]

    def denoise_options(self) -> DenoiseOptions:
        """Return the options of the pipeline, which replaces files: the batch decides about that.

        Raises:
            ConfigError: a value is out of range.
        """
        return DenoiseOptions(
            steps=AUDIO_STEPS if self.steps is None else self.steps,
            strength=self.strength,
            attenuation_limit=self.attenuation_limit,
            noise_profile=None if self.noise_profile is None else parse_noise_source(self.noise_profile),
            perception=self.perception,
            seed=None if self.perception is None else self.seed,
            stereo=self.channels,
            overwrite=True,
        )

    def restore_options(self) -> AudioRestoreOptions:
        """Return the options of a restoration; see `denoise_options`.

        Raises:
            ConfigError: a value is out of range, or an option is of another task.
        """
        return AudioRestoreOptions(
            task=self.task,  # type: ignore[arg-type]
            limit=self.limit,
            gain_db=self.gain,
            gaps=None if self.mask is None else parse_gaps(self.mask),
            band=self.band,
            steps=RESTORE_STEPS if self.steps is None else self.steps,
            seed=self.seed,
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
        quality: of JPEG, 1 to 100, for the task dejpeg.
        limit: level of clipped highlights, 2.55 to 255, for the task declip; None finds it.
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
    quality: int | None = None
    limit: float | None = None
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
        _refuse_both(self.model, self.prior)
        if self.task == "denoise":
            _refuse(self, ("mask", "blur", "kernel", "factor", "quality", "limit"), "the task denoise")
        if self.restores:
            _refuse(self, ("model", "perception", "strength", "luminance", "colour", "detail"), "a prior")
            self.restore_options()
        else:
            self.denoise_options()

    @property
    def restores(self) -> bool:
        """Whether a prior restores the image; by default, a model removes its noise."""
        return self.task != "denoise" or self.prior is not None

    @property
    def chosen_model(self) -> str:
        """The model or the prior of the pipeline."""
        from denoise.pipelines.image import default_model

        return self.prior or SIGMA_MODEL if self.restores else self.model or default_model(self.denoise_options())

    @property
    def models(self) -> list[str]:
        """The weights that the file may need."""
        from denoise.pipelines.choice import AUTO
        from denoise.pipelines.image import AUTO_MODELS

        return [*AUTO_MODELS] if self.chosen_model == AUTO else [self.chosen_model]

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
            quality=self.quality,
            limit=parse_limit(self.limit),
            sigma=None if isinstance(sigma, str) else sigma,
            steps=self.steps,
            seed=self.seed,
            overwrite=True,
            max_megapixels=self.max_megapixels,
        )


def _refuse_both(model: str | None, prior: str | None) -> None:
    if model is not None and prior is not None:
        raise ConfigError("both model and prior are given; expected one of them.")


def _refuse(options: AudioFileOptions | ImageFileOptions, names: Iterable[str], mode: str) -> None:
    """Refuse options that differ from their defaults."""
    for field in fields(options):
        if field.name in names and getattr(options, field.name) != field.default:
            raise ConfigError(f"{field.name} is not for {mode}. Leave it out.")


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
            raise ConfigError(f"option {name}: no such option of {' or '.join(sorted(modalities))} files.")
    for modality in modalities:
        parse_file_options(select_options(values, modality), modality, "options")


def select_options(values: Values, modality: Modality) -> dict[str, Any]:
    """Return the options that files of a modality have.

    Args:
        values: options by their names.
        modality: modality of the files.
    """
    return {name: value for name, value in values.items() if name in NAMES[modality]}


def named_files(values: Values) -> dict[str, str]:
    """Return the files that options name, without weights and time ranges, by the names of the options.

    Args:
        values: options by their names.

    >>> named_files({"mask": "0:01-0:02", "noise_profile": "hiss.wav", "model": "speech"})
    {'noise_profile': 'hiss.wav'}
    """
    given = {name: values.get(name) for name in ("mask", "kernel", "noise_profile")}
    return {name: value for name, value in given.items() if isinstance(value, str) and parse_gaps(value) == value}


def named_weights(values: Values) -> dict[str, str]:
    """Return the weights files that options name, without bundled names, by the names of the options.

    Args:
        values: options by their names.

    >>> named_weights({"model": "mine.onnx", "prior": "speech-prior"})
    {'model': 'mine.onnx'}
    """
    given = {name: values.get(name) for name in ("model", "prior")}
    suffixes = (".safetensors", ".onnx")
    return {name: value for name, value in given.items() if isinstance(value, str) and value.endswith(suffixes)}
