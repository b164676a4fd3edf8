"""The recipe of a training, ``recipe.toml``. It is stored with the weights, so that they can be trained again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Literal

from denoise.config import config, override, parse, read_toml
from denoise.errors import ConfigError
from denoise.migrations import migrate_recipe
from denoise.nn.bodies import BodyConfig
from denoise.priors.gan import DiscriminatorConfig
from denoise.training.image_recipe import ImageData

DATA_KEYS = (
    "image.folders",
    "image.textures",
    "audio.speech",
    "audio.music",
    "audio.noise",
    "audio.rir",
    "examples.files",
)


@config
class AudioData:
    """Clean speech and music, noise and room impulse responses, and how they are mixed.

    Args:
        speech: folders of clean speech, relative to ``--data``; of a class, of its recordings.
        music: folders of other sounds to keep: music, animals, machines.
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
        disturbance: probability that it is hum, clicks or wind.
        tones: probability that it is a steady tone of 50 to 500 Hz with harmonics.
        beeps: probability that it is the beeps of a device.
        broadband: probability that it is hiss of a random smooth spectrum. Other noises are recorded.
        crackle: probability of clicks beside the noise.
        music_fraction: probability that the clean signal is of the folders of ``music``.
        layers: probability of another clean signal with the ones before.
        drive: probability of an overdriven amplifier, whose distortion belongs to the clean signal.
        silence: probability of noise alone.
        dc_offset: probability of a constant offset of the noisy signal, as of cheap sound cards.
        profile: probability that networks that take a noise profile get one.
    """

    speech: tuple[str, ...]
    music: tuple[str, ...] = ()
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
    tones: float = 0.0
    beeps: float = 0.0
    broadband: float = 0.0
    crackle: float = 0.0
    music_fraction: float = 0.0
    layers: float = 0.0
    drive: float = 0.0
    silence: float = 0.0
    dc_offset: float = 0.0
    profile: float = 0.0

    def __post_init__(self) -> None:
        if not self.sample_rates or min(self.sample_rates) < 8_000 or max(self.sample_rates) > 192_000:
            raise ConfigError(f"sample_rates are {list(self.sample_rates)}; expected 8000 to 192000 Hz.")
        if self.channels < 1 or not self.seconds > 0:
            raise ConfigError(f"channels is {self.channels}, seconds {self.seconds}; expected more than 0.")
        if self.music_fraction and not self.music:
            raise ConfigError("music_fraction is above 0; name the folders in audio.music, or leave it out.")


@config
class Examples:
    """Signals of one shape from NumPy archives: the data of codecs and priors.

    Args:
        files: archives (``.npz``), relative to ``--data``; or binary files of CIFAR-10 (``.bin``) with the arrays
            ``images`` and ``labels``.
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
class PointData:
    """Points on shapes that are made anew for each batch: the data of priors of shapes.

    Args:
        shapes: names in `denoise.training.shapes.SHAPES`, the classes of the prior.
        counts: numbers of points; each batch has one of them, drawn with equal probability.
        aspect: largest logarithm of the factors of the three axes.
        label_dropout: probability that the class of a shape is left out, for classifier-free guidance.
    """

    shapes: tuple[str, ...]
    counts: tuple[int, ...] = (2048,)
    aspect: float = 0.4
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not self.counts or not 1 <= min(self.counts) <= max(self.counts) <= 1 << 16:
            raise ConfigError(f"counts are {list(self.counts)}; expected 1 to {1 << 16} points.")
        if not (0 <= self.aspect <= 2 and 0 <= self.label_dropout <= 1):
            raise ConfigError(
                f"aspect is {self.aspect}, label_dropout {self.label_dropout}; expected 0 to 2 and 0 to 1."
            )


@config
class Loss:
    """The loss function of a denoiser, and the weights and estimators of all objectives.

    Args:
        name: loss of a denoiser, a name in `denoise.training.losses.denoising.DENOISING_LOSSES`; None for the default
            of the modality.
        waveform: weight of the ratio of error to clean signal in the waveform, in units of 10 dB (audio).
        waveform_floor_db: ratio in dB below which it hardly counts (audio).
        perceptual: weight of the disturbance of PESQ (audio).
        over_attenuation: further weight of compressed magnitudes that are too small (audio).
        beta: weight of the Kullback-Leibler divergence of variational networks and codecs.
        free_bits: nats of each latent that the divergence leaves out.
        samples: samples of the latents for each signal, of the evidence lower bound.
        estimator: estimator of the evidence lower bound, see
            `denoise.training.losses.generative.negative_elbo`.
        adversarial: weight of the critic of adversarial autoencoders.
        reduction: what the evidence lower bound is of, ``"entry"`` for nats for each entry, ``"dataset"`` for nats of
            all N examples, estimated as N/M times the sum of a batch of M. The factor matters to `Schedule.grad_clip`.
    """

    name: str | None = None
    waveform: float = 0.02
    waveform_floor_db: float = -30.0
    perceptual: float = 0.0
    over_attenuation: float = 0.0
    beta: float = 1.0
    free_bits: float = 0.0
    samples: int = 1
    estimator: Literal["A", "B", "score", "importance"] = "A"
    adversarial: float = 1.0
    reduction: Literal["entry", "dataset"] = "entry"

    def __post_init__(self) -> None:
        weights = (self.waveform, self.perceptual, self.over_attenuation, self.beta, self.free_bits, self.adversarial)
        if min(weights) < 0 or self.samples < 1:
            raise ConfigError(
                f"weights of the loss are {weights}, samples {self.samples}; expected weights of at least 0 and "
                "samples of at least 1."
            )


@config
class Coverage:
    """The classifier that measures which classes the samples of a GAN reach.

    Args:
        classes: number of classes of the labels.
        body: layers of the classifier.
    """

    classes: int
    body: BodyConfig = field(default_factory=BodyConfig)

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= 1 << 14:
            raise ConfigError(f"classes is {self.classes}; expected 2 to {1 << 14}.")


@config
class Adversary:
    """The discriminator of a GAN and how it is trained.

    Args:
        discriminator: layers of the discriminator.
        loss: ``"non-saturating"``, ``"minimax"`` or ``"hinge"``.
        steps: steps of the discriminator for each one of the generator; `Schedule.steps` counts those of the
            discriminator.
        r1: weight gamma of the gradient penalty on real examples; 0 for none.
        rate_ratio: learning rate of the discriminator, relative to that of the generator.
        betas: decays of the moments of AdamW.
        coverage: classifier that measures mode coverage; None for no measurement.
    """

    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: Literal["non-saturating", "minimax", "hinge"] = "non-saturating"
    steps: int = 1
    r1: float = 0.0
    rate_ratio: float = 1.0
    betas: tuple[float, float] = (0.0, 0.99)
    coverage: Coverage | None = None

    def __post_init__(self) -> None:
        if not (self.steps >= 1 and self.r1 >= 0 and self.rate_ratio > 0):
            raise ConfigError(
                f"steps is {self.steps}, r1 {self.r1}, rate_ratio {self.rate_ratio}; expected steps of at least 1, r1 "
                "of at least 0, rate_ratio above 0."
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas are {self.betas}; expected 0 to below 1.")


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
        modality: ``"audio"``, ``"image"`` or ``"points"``.
        model: configuration of the architecture.
        schedule: steps, optimizer, intervals.
        objective: name in `denoise.training.objectives.OBJECTIVES`.
        loss: loss function and weights.
        image: photographs, the data of image denoisers.
        audio: speech and noise, the data of audio denoisers; its speech also that of priors.
        examples: signals of one shape, the data of codecs and priors.
        points: shapes as sets of points, the data of priors of shapes.
        classes: recordings of each class and how they are mixed, the data of classifiers; their length is that of the
            model.
        adversary: discriminator of a GAN and how it is trained.
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
    modality: Literal["audio", "image", "points"]
    model: dict[str, Any]
    schedule: Schedule
    objective: str = "denoising"
    loss: Loss = field(default_factory=Loss)
    image: ImageData | None = None
    audio: AudioData | None = None
    examples: Examples | None = None
    points: PointData | None = None
    classes: dict[str, AudioData] = field(default_factory=dict)
    adversary: Adversary | None = None
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
        rates = [rate for data in (self.audio, *self.classes.values()) if data for rate in data.sample_rates]
        if rates:
            return max(rates)
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
    changed = [setting for setting in settings if _changes_data(setting)]
    if changed and not any(setting.startswith("sources=") for setting in settings):
        values["sources"] = [f"not the recipe's: {setting}" for setting in changed]
    return parse(Recipe, values, str(path))


def _changes_data(setting: str) -> bool:
    key = setting.partition("=")[0].strip()
    return key in DATA_KEYS or key.startswith("classes.")


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
