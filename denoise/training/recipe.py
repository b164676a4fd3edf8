"""The recipe of a training, ``recipe.toml``. It is stored with the weights, so that they can be trained again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Literal

from denoise.config import config, override, parse, read_toml
from denoise.errors import ConfigError
from denoise.migrations import migrate_recipe
from denoise.training.audio_recipe import AudioData
from denoise.training.example_recipe import Examples, PointData
from denoise.training.gan_recipe import Adversary
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
        free_bits: nats of each latent that the divergence leaves out; of codecs with the estimator ``"B"`` alone.
        samples: samples of the latents for each signal, of the evidence lower bound.
        estimator: estimator of the evidence lower bound, see
            `denoise.training.losses.generative.negative_elbo`; ``"B"`` is for a standard normal prior.
        adversarial: weight of the critic of adversarial autoencoders.
        denoising: weight of the error of denoised patches relative to their noise, of priors of patches.
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
    denoising: float = 0.0
    reduction: Literal["entry", "dataset"] = "entry"

    def __post_init__(self) -> None:
        weights = (
            *(self.waveform, self.perceptual, self.over_attenuation),
            *(self.beta, self.free_bits, self.adversarial, self.denoising),
        )
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
        modality: ``"audio"``, ``"image"`` or ``"points"``.
        model: configuration of the architecture.
        schedule: steps, optimizer, intervals.
        objective: name in `denoise.training.objectives.OBJECTIVES`.
        loss: loss function and weights.
        image: photographs, the data of image denoisers; their clean patches also those of codecs and priors.
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
