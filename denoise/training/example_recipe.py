"""Settings of the examples that codecs and priors are trained on: ``[examples]`` and ``[points]`` of a recipe."""

from __future__ import annotations

from denoise.config import config
from denoise.errors import ConfigError


@config
class Examples:
    """Signals of one shape from NumPy archives: the data of codecs and priors.

    Args:
        files: archives (``.npz``), relative to ``--data``; or binary files of CIFAR-10 (``.bin``) with the arrays
            ``images`` and ``labels``.
        signals: name of the array of signals, (n, H, W), (n, H, W, C) or (n, time); uint8 or int16 of their full scale,
            or floats from 0 to 1, of audio from -1 to 1.
        labels: name of the array of class indices, (n,).
        class_names: name of the array of the names of the classes, in the order of their indices. Classes of several
            archives are joined by name.
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
        if (self.class_names or self.captions) and not self.labels:
            raise ConfigError("class_names and captions are of labels; give examples.labels or leave them out.")
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
