"""What a ``recipe.toml`` may say. The recipe is stored with the weights, so they can be made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Literal

from denoise.config import config, override, parse, read_toml
from denoise.errors import ConfigError
from denoise.migrations import migrate_recipe

DATA = ("image.folders", "audio.speech", "audio.noise", "audio.rir", "examples.files")


@config
class Degradations:
    """What the noisy patches suffer, in chances: of each kind of noise (the rest is white and Gaussian) ...

    ... and then, of all patches, of faulty pixels, of being stored as JPEG, and else of being rounded to 8 bits.
    """

    sensor: float = 0.0
    film: float = 0.0
    coarse: float = 0.0
    correlated: float = 0.0
    salt: float = 0.0
    salt_share: float = 0.1  # of the pixels, at most
    jpeg: float = 0.0
    jpeg_quality: tuple[int, int] = (30, 98)
    rounded: float = 0.0

    def __post_init__(self) -> None:
        kinds = (self.sensor, self.film, self.coarse, self.correlated)
        others = (self.salt, self.salt_share, self.jpeg, self.rounded)
        if min(kinds + others) < 0 or sum(kinds) > 1 or max(others) > 1:
            raise ConfigError("chances of degradation must be 0 to 1, those of the kinds of noise together at most 1.")
        if not 1 <= self.jpeg_quality[0] <= self.jpeg_quality[1] <= 100:
            raise ConfigError(f"jpeg_quality {self.jpeg_quality} is out of range; expected two of 1 to 100.")


@config
class ImageData:
    """Folders (below ``--data``) of clean photographs, and the noise that is added to their patches.

    ``scales`` are the sizes, 1.0 as stored, at which each is seen: whole scenes as well as details of them.
    ``jpeg`` is the share of patches that are first stored as cameras do: most photographs that anyone has
    hold colour at half the resolution, which reduced ones do not, and a network can make much of it.
    ``strong`` is the share whose sigma lies beyond the second of ``sigma``, up to ``strongest``, evenly over its
    logarithm: a denoiser at all levels is a prior.
    """

    folders: tuple[str, ...]
    patch: int = 96
    scales: tuple[float, ...] = (1.0,)
    sigma: tuple[float, float] = (0.0, 55 / 255)
    strong: float = 0.0
    strongest: float = 4.0
    grey: float = 0.1  # share of patches that are grey with the same noise in all channels
    saturation: tuple[float, float] = (1.0, 1.0)  # times that of the photograph: those of today are vivid
    jpeg: float = 0.0
    jpeg_quality: tuple[int, int] = (75, 98)
    degrade: Degradations = field(default_factory=Degradations)

    def __post_init__(self) -> None:
        if not 1 <= self.patch <= 1 << 14 or not 0 <= self.sigma[0] <= self.sigma[1]:
            raise ConfigError(f"patch {self.patch} or sigma {self.sigma} is out of range.")
        if self.degrade.jpeg and self.patch < 8:
            raise ConfigError(f"patch is {self.patch}; expected at least 8, the side of a block, with degrade.jpeg.")
        if not 0 <= self.strong <= 1 or (self.strong and not 0 < self.sigma[1] <= self.strongest):
            raise ConfigError(f"strong {self.strong} or strongest {self.strongest} is out of range.")
        if not self.scales or not 0.05 <= min(self.scales) <= max(self.scales) <= 1:
            raise ConfigError(f"scales {self.scales} are out of range; expected some of 0.05 to 1.")
        if not 0 <= self.saturation[0] <= self.saturation[1] <= 4:
            raise ConfigError(f"saturation {self.saturation} is out of range; expected two of 0 to 4.")
        if not 1 <= self.jpeg_quality[0] <= self.jpeg_quality[1] <= 100:
            raise ConfigError(f"jpeg_quality {self.jpeg_quality} is out of range; expected two of 1 to 100.")


@config
class AudioData:
    """Folders (below ``--data``) of clean speech, noise and room responses, and how they are mixed."""

    speech: tuple[str, ...]
    noise: tuple[str, ...] = ()  # priors learn without
    rir: tuple[str, ...] = ()
    sample_rates: tuple[int, ...] = (16_000,)  # Hz; each batch has one of them
    channels: int = 1
    seconds: float = 3.0
    snr_db: tuple[float, float] = (-8.0, 25.0)
    level_db: tuple[float, float] = (-45.0, -12.0)
    rooms: int = 0  # simulated ones beside the recorded
    # chances, of the segments
    reverb: float = 0.2
    band_limit: float = 0.1
    clean: float = 0.03
    clipping: float = 0.0
    coding: float = 0.0
    impacts: float = 0.0
    # and of the noises: coloured hiss; many voices; hum, clicks or wind; the rest is recorded
    synthetic: float = 0.2
    babble: float = 0.0
    disturbance: float = 0.0

    def __post_init__(self) -> None:
        if not self.sample_rates or min(self.sample_rates) < 8_000 or max(self.sample_rates) > 192_000:
            raise ConfigError(f"sample_rates are {list(self.sample_rates)}; expected 8000 to 192000 Hz.")
        if self.channels < 1 or not self.seconds > 0:
            raise ConfigError("channels and seconds must be more than 0.")


@config
class Examples:
    """Signals of one shape from NumPy archives (below ``--data``): what codecs and priors learn.

    ``signals`` names the array, (n, height, width[, channels]) or (n, time), integers of their full scale or
    floats of 1.0; ``labels`` that of their classes and ``names`` that of the classes' names. Every
    ``hold_out``-th example is left out. ``binary`` draws each pixel as black or white, by its grey, anew each
    time. Sounds are played faster or slower by up to the share ``speed`` and begin up to ``shift_s`` earlier or later.
    A share ``label_dropout`` of the labels is not told; ``captions`` ("a photo of a {}") are told in place of
    classes, half of the time if the network knows both.
    """

    files: tuple[str, ...]
    signals: str = "signals"
    labels: str | None = None
    names: str | None = None
    sample_rate: int | None = None  # Hz, of sounds
    hold_out: int = 0
    binary: bool = False
    flip: bool = False  # left and right
    speed: float = 0.0
    shift_s: float = 0.0
    label_dropout: float = 0.1
    captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.label_dropout <= 1 or self.hold_out < 0 or self.hold_out == 1:
            raise ConfigError("label_dropout must be 0 to 1, hold_out 0 or more than 1.")
        if not (0 <= self.speed <= 0.5 and 0 <= self.shift_s <= 10):
            raise ConfigError("speed must be 0 to 0.5, shift_s 0 to 10 seconds.")
        if (self.speed or self.shift_s) and self.sample_rate is None:
            raise ConfigError("speed and shift_s are for sounds; give their sample_rate or leave them out.")


@config
class Loss:
    """What is asked for: weights of terms, and how gradients are drawn.

    Denoised speech: beside the nearness of compressed spectra, ``waveform`` is for every ten decibels between
    speech and error, ``perceptual`` for the disturbance in PESQ's model of hearing. Codecs: ``beta`` weighs
    their divergence, of which ``free_bits`` nats of each latent are free; ``samples`` draws by ``estimator``
    (see `denoise.training.generative.negative_elbo`); ``adversarial`` weighs the critic.
    """

    waveform: float = 0.02
    perceptual: float = 0.0
    beta: float = 1.0
    free_bits: float = 0.0
    samples: int = 1
    estimator: Literal["A", "B", "score", "importance"] = "A"
    adversarial: float = 1.0

    def __post_init__(self) -> None:
        if min(self.waveform, self.perceptual, self.beta, self.free_bits, self.adversarial) < 0 or self.samples < 1:
            raise ConfigError("weights of the loss must be 0 or more, samples at least 1.")


@config
class Schedule:
    """How long and how fast. With ``--minutes`` the schedule follows the clock instead of the steps.

    ``workers`` threads make batches ahead. Every ``keep_every`` steps (0: never) the weights of that moment
    are kept beside the last ones, as ``NAME-STEP.safetensors``, to choose among.
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
        often = (self.log_every, self.checkpoint_every, self.sample_every)
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and self.grad_clip > 0 and 0 <= self.ema < 1):
            raise ConfigError("learning_rate and grad_clip must be above 0, weight_decay at least 0, ema 0 to below 1.")
        if min(self.steps, self.batch, self.workers, *often) < 1 or min(self.seed, self.keep_every) < 0:
            raise ConfigError("steps, batch, workers and the *_every settings must be at least 1, seed at least 0.")


Objective = Literal["denoising", "reconstruction", "elbo", "adversarial", "diffusion", "flow-matching", "likelihood"]


@config
class Recipe:
    """One training, whole: architecture and its settings, data, schedule, and what the card will say.

    ``objective`` is denoising, of ``image`` or ``audio`` data, or what codecs and priors learn from ``examples`` or
    from the clean speech of ``audio``.
    With ``codec``, weights of a trained one, a prior learns the codec's latents, and both are written together.
    The file holds numbers of type ``stored``.
    """

    name: str
    architecture: str
    modality: Literal["audio", "image"]
    model: dict[str, Any]
    schedule: Schedule
    objective: Objective = "denoising"
    loss: Loss = field(default_factory=Loss)
    image: ImageData | None = None
    audio: AudioData | None = None
    examples: Examples | None = None
    codec: str | None = None
    init: str | None = None  # weights to start from, perhaps of fewer blocks: a bundled name or a file
    stored: Literal["float16", "int8"] = "float16"
    description: str = ""
    licence: str = "MIT"
    sources: tuple[str, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        sections = (self.modality,) if self.objective == "denoising" else ("examples", "audio")
        if all(getattr(self, section) is None for section in sections):
            raise ConfigError(f"recipe {self.name}: no [{'] or ['.join(sections)}] section; add it.")
        if (
            self.objective != "denoising"
            and self.audio
            and (len(self.audio.sample_rates), self.audio.channels) != (1, 1)
        ):
            raise ConfigError(f"recipe {self.name}: a prior learns mono sounds of one sample rate; give one.")
        if self.objective == "denoising" and self.audio and not self.audio.noise:
            raise ConfigError(f"recipe {self.name}: audio.noise names no folder; speech alone teaches no denoising.")
        if self.codec and self.objective == "denoising":
            raise ConfigError(f"recipe {self.name}: a codec is for priors; leave it out.")
        if self.loss.perceptual and self.modality != "audio":
            raise ConfigError(f"recipe {self.name}: loss.perceptual is for audio; leave it out.")
        if self.examples and self.modality == "audio" and not self.examples.sample_rate:
            raise ConfigError(f"recipe {self.name}: sounds need examples.sample_rate, in Hz; add it.")
        if not self.name or set(self.name) & set("/\\"):
            raise ConfigError(f"recipe name {self.name!r}: files are named after it; leave slashes out.")

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


def load_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe and put ``key=value`` settings over it; one that ``extends`` another says what differs.

    Raises:
        ConfigError: the file or a setting is wrong.
    """
    values = migrate_recipe(override(migrate_recipe(_read(path, set())), settings))
    changed = [setting for setting in settings if setting.partition("=")[0].strip() in DATA]
    if changed and not any(setting.startswith("sources=") for setting in settings):
        values["sources"] = [f"not the recipe's: {setting}" for setting in changed]  # or the card would lie
    return parse(Recipe, values, str(path))


def _read(path: Path, seen: set[Path]) -> dict[str, Any]:
    """The values of a recipe over those of the one that it extends."""
    if path.resolve() in seen:
        raise ConfigError(f"{path}: extends itself. Mend this setting.")
    values = read_toml(path)
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: extends is {base!r}; expected the path of another recipe.")
    return _over(_read(path.parent / base, seen | {path.resolve()}), values)


def _over(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    merged = {**base, **values}
    for key in base.keys() & values.keys():
        if isinstance(base[key], dict) and isinstance(values[key], dict):
            merged[key] = _over(base[key], values[key])
    return merged
