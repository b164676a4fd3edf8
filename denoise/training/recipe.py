"""The recipe of a training, ``recipe.toml``. It is stored with the weights, so that they can be trained again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Literal

from denoise.config import config, override, parse, read_toml
from denoise.errors import ConfigError
from denoise.migrations import migrate_recipe

DATA_KEYS = ("image.folders", "image.textures", "audio.speech", "audio.noise", "audio.rir", "examples.files")
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


@config
class AudioData:
    """Clean speech, noise and room impulse responses, and how they are mixed.

    Args:
        speech: folders of clean speech, relative to ``--data``.
        noise: folders of noise; priors are trained without.
        rir: folders of room impulse responses.
        sample_rates: sample rates in Hz; each batch has one of them.
        channels: channels of a segment.
        seconds: length of a segment.
        snr_db: range of the signal-to-noise ratio.
        level_db: range of the RMS level of the speech, dB of full scale.
        simulated_rooms: number of simulated room impulse responses beside the recorded ones.
        reverb: probability of a room.
        band_limit: probability of a limited bandwidth.
        clean: probability of no noise at all.
        clipping: probability of clipping.
        coding: probability of lossy coding.
        impacts: probability of loud impulsive noise.
        synthetic: probability that a noise is coloured Gaussian noise.
        babble: probability that it is babble.
        disturbance: probability that it is hum, clicks or wind. Other noises are recorded.
    """

    speech: tuple[str, ...]
    noise: tuple[str, ...] = ()
    rir: tuple[str, ...] = ()
    sample_rates: tuple[int, ...] = (16_000,)
    channels: int = 1
    seconds: float = 3.0
    snr_db: tuple[float, float] = (-8.0, 25.0)
    level_db: tuple[float, float] = (-45.0, -12.0)
    simulated_rooms: int = 0
    reverb: float = 0.2
    band_limit: float = 0.1
    clean: float = 0.03
    clipping: float = 0.0
    coding: float = 0.0
    impacts: float = 0.0
    synthetic: float = 0.2
    babble: float = 0.0
    disturbance: float = 0.0

    def __post_init__(self) -> None:
        if not self.sample_rates or min(self.sample_rates) < 8_000 or max(self.sample_rates) > 192_000:
            raise ConfigError(f"sample_rates are {list(self.sample_rates)}; expected 8000 to 192000 Hz.")
        if self.channels < 1 or not self.seconds > 0:
            raise ConfigError(f"channels is {self.channels}, seconds {self.seconds}; expected more than 0.")


@config
class Examples:
    """Signals of one shape from NumPy archives: the data of codecs and priors.

    Args:
        files: archives (``.npz``), relative to ``--data``.
        signals: name of the array of signals, (n, H, W), (n, H, W, C) or (n, time); integers of their full scale or
            floats of 1.0.
        labels: name of the array of class indices, (n,).
        class_names: name of the array of the names of the classes.
        sample_rate: sample rate of audio, Hz.
        hold_out_every: every so many examples, one is left out, 0 for none.
        binarise: draw each pixel as 0 or 1 with its value as probability, anew for each batch.
        flip: mirror half of the images horizontally.
        speed_perturbation: largest relative change of the speed of audio, which changes its pitch, too.
        time_shift_s: largest shift in time of audio, seconds.
        label_dropout: probability that the label of an example is left out, for classifier-free guidance.
        captions: templates of captions with ``{}`` for the name of the class. They replace the classes, or half of
            them if the network takes both.
    """

    files: tuple[str, ...]
    signals: str = "signals"
    labels: str | None = None
    class_names: str | None = None
    sample_rate: int | None = None
    hold_out_every: int = 0
    binarise: bool = False
    flip: bool = False
    speed_perturbation: float = 0.0
    time_shift_s: float = 0.0
    label_dropout: float = 0.1
    captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.label_dropout <= 1:
            raise ConfigError(f"label_dropout is {self.label_dropout}; expected 0 to 1.")
        if self.hold_out_every < 0 or self.hold_out_every == 1:
            raise ConfigError(f"hold_out_every is {self.hold_out_every}; expected 0 or more than 1.")
        if not (0 <= self.speed_perturbation <= 0.5 and 0 <= self.time_shift_s <= 10):
            raise ConfigError(
                f"speed_perturbation is {self.speed_perturbation}, time_shift_s {self.time_shift_s}; "
                "expected 0 to 0.5 and 0 to 10 seconds."
            )
        if (self.speed_perturbation or self.time_shift_s) and self.sample_rate is None:
            raise ConfigError(
                "speed_perturbation and time_shift_s are for audio; give examples.sample_rate or leave them out."
            )


@config
class Loss:
    """The loss function of a denoiser, and the weights and estimators of all objectives.

    Args:
        name: loss of a denoiser, a name in `denoise.training.losses.denoising.DENOISING_LOSSES`; None for the default
            of the modality.
        waveform: weight of the ratio of error to speech in the waveform, in units of 10 dB (speech).
        perceptual: weight of the disturbance of PESQ (speech).
        beta: weight of the Kullback-Leibler divergence of variational networks and codecs.
        free_bits: nats of each latent that the divergence leaves out.
        samples: samples of the latents for each signal, of the evidence lower bound.
        estimator: estimator of the evidence lower bound, see
            `denoise.training.losses.generative.negative_elbo`.
        adversarial: weight of the critic of adversarial autoencoders.
    """

    name: str | None = None
    waveform: float = 0.02
    perceptual: float = 0.0
    beta: float = 1.0
    free_bits: float = 0.0
    samples: int = 1
    estimator: Literal["A", "B", "score", "importance"] = "A"
    adversarial: float = 1.0

    def __post_init__(self) -> None:
        weights = (self.waveform, self.perceptual, self.beta, self.free_bits, self.adversarial)
        if min(weights) < 0 or self.samples < 1:
            raise ConfigError(
                f"weights of the loss are {weights}, samples {self.samples}; expected weights of at least 0 and "
                "samples of at least 1."
            )


@config
class Schedule:
    """Length, optimizer and learning rate of a training. With ``--minutes`` the schedule follows the clock instead.

    Args:
        steps: number of steps.
        batch: examples in a batch of one process.
        optimizer: ``"adamw"`` or ``"muon"``.
        learning_rate: learning rate after the warm-up; it decreases to 0 as a half cosine.
        weight_decay: weight decay.
        warmup: steps of the linear warm-up.
        grad_clip: largest norm of the gradient.
        ema: decay of the exponential moving average of the weights.
        seed: seed of weights, batches and losses.
        log_every: steps between rows of ``metrics.jsonl``.
        checkpoint_every: steps between checkpoints.
        sample_every: steps between samples and exports of the weights.
        keep_every: steps between exports that are kept, as ``NAME-STEP.safetensors``; 0 for none.
        workers: threads that prefetch batches.
    """

    steps: int
    batch: int = 16
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 200
    grad_clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 250
    sample_every: int = 1000
    keep_every: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and self.grad_clip > 0 and 0 <= self.ema < 1):
            raise ConfigError(
                f"learning_rate is {self.learning_rate}, weight_decay {self.weight_decay}, grad_clip {self.grad_clip}, "
                f"ema {self.ema}; expected learning_rate and grad_clip above 0, weight_decay at least 0, ema 0 to "
                "below 1."
            )
        intervals = (self.log_every, self.checkpoint_every, self.sample_every)
        if min(self.steps, self.batch, self.workers, *intervals) < 1 or min(self.seed, self.keep_every) < 0:
            raise ConfigError(
                f"steps is {self.steps}, batch {self.batch}, workers {self.workers}, log_every, checkpoint_every and "
                f"sample_every {intervals}, seed {self.seed}, keep_every {self.keep_every}; expected at least 1, of "
                "seed and keep_every at least 0."
            )


@config
class Recipe:
    """One training: architecture and its configuration, data, objective, schedule, and the texts of the card.

    Args:
        name: name of the weights file.
        architecture: name in `denoise.registry.ARCHITECTURES`.
        modality: ``"audio"`` or ``"image"``.
        model: configuration of the architecture.
        schedule: steps, optimizer, intervals.
        objective: name in `denoise.training.objectives.OBJECTIVES`.
        loss: loss function and weights.
        image: photographs, the data of image denoisers.
        audio: speech and noise, the data of audio denoisers; its speech also that of priors.
        examples: signals of one shape, the data of codecs and priors.
        codec: weights of a trained codec, a bundled name or a file. The prior is trained on its latents, and both are
            written together.
        init: weights to start from, a bundled name or a file. Tensors that they lack keep their initialisation. A
            channel of sigma is spread over ``sigma_maps``, and dropped for blind networks.
        stored_dtype: type of the numbers in the weights file.
        description: one line for the card.
        licence: licence of the weights.
        sources: origin and licence of the data.
    """

    name: str
    architecture: str
    modality: Literal["audio", "image"]
    model: dict[str, Any]
    schedule: Schedule
    objective: str = "denoising"
    loss: Loss = field(default_factory=Loss)
    image: ImageData | None = None
    audio: AudioData | None = None
    examples: Examples | None = None
    codec: str | None = None
    init: str | None = None
    stored_dtype: Literal["float16", "int8"] = "float16"
    description: str = ""
    licence: str = "MIT"
    sources: tuple[str, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if self.loss.perceptual and self.modality != "audio":
            raise ConfigError(f"recipe {self.name}: loss.perceptual is for audio; leave it out.")
        if self.examples and self.modality == "audio" and not self.examples.sample_rate:
            raise ConfigError(f"recipe {self.name}: audio needs examples.sample_rate, in Hz; add it.")
        if not self.name or set(self.name) & set("/\\"):
            raise ConfigError(f"recipe name {self.name!r}: files are named after it; leave slashes out.")

    @property
    def sample_rate(self) -> int | None:
        """Sample rate of the card in Hz, the highest of several; None for images."""
        if self.audio:
            return max(self.audio.sample_rates)
        return self.examples.sample_rate if self.examples else None

    def asdict(self) -> dict[str, Any]:
        """Return the recipe as nested tables."""
        return asdict(self)


def load_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply settings.

    A recipe with ``extends = PATH`` holds the differences from another one. Keys of earlier releases are accepted.

    Args:
        path: ``recipe.toml``.
        settings: ``key=value`` pairs with dotted keys, e.g. ``schedule.steps=2000``.

    Returns:
        The recipe. If a setting changes the data and none changes ``sources``, they are replaced by that setting,
        because they would no longer be true.

    Raises:
        ConfigError: the file or a setting is wrong.
    """
    values = migrate_recipe(override(_read(path, set()), settings))
    changed = [setting for setting in settings if setting.partition("=")[0].strip() in DATA_KEYS]
    if changed and not any(setting.startswith("sources=") for setting in settings):
        values["sources"] = [f"not the recipe's: {setting}" for setting in changed]
    return parse(Recipe, values, str(path))


def _check_jpeg_quality(quality: tuple[int, int]) -> None:
    if not 1 <= quality[0] <= quality[1] <= 100:
        raise ConfigError(f"jpeg_quality is {quality}; expected two numbers of 1 to 100, the smaller first.")


def _read(path: Path, extended_by: set[Path]) -> dict[str, Any]:
    """Return the values of a recipe over those of the one that it extends, with the keys of this release."""
    if path.resolve() in extended_by:
        raise ConfigError(f"{path}: extends itself. Fix `extends`.")
    values = read_toml(path)
    base = values.pop("extends", None)
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"{path}: extends is {base!r}; expected the path of another recipe.")
    values = migrate_recipe(values)
    return values if base is None else _merge(_read(path.parent / base, extended_by | {path.resolve()}), values)


def _merge(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return nested tables with ``values`` over ``base``."""
    merged = {**base, **values}
    for key in base.keys() & values.keys():
        if isinstance(base[key], dict) and isinstance(values[key], dict):
            merged[key] = _merge(base[key], values[key])
    return merged
