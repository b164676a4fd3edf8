"""Diagnostics of denoised signals, and the result of one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from denoise.pipelines.choice import ModelChoice, StereoChoice
from denoise.protocols import Consistency

REJECTED_FRACTION_LIMIT = 0.1  # a posterior sample of which more is rejected is reported
MIN_RISE = 4.0  # of 255: noise after by noise before, where the estimate before was wrong


class Units(NamedTuple):
    """Units of the figures of a result, as in its JSON keys, and the digits of its speed."""

    speed: str
    noise: str
    speed_digits: int


AUDIO_UNITS = Units("times_real_time", "dbfs", 2)
IMAGE_UNITS = Units("megapixels_per_s", "sigma_255", 3)
POINT_UNITS = Units("points_per_s", "sigma_percent", 0)


@dataclass(frozen=True)
class Diagnostics:
    """What was measured of a denoised signal.

    Args:
        noise_before: noise level of the input, in the unit of the modality.
        noise_after: noise level of the output.
        residual: consistency of the residual of a posterior sample with noise; None of a posterior mean.
        rejected_fraction: fraction of a posterior sample that was replaced by the mean, 0 to 1.
        no_noise_found: whether no noise to speak of was found, so that the input is unchanged.
        precision: number format that the network was computed in, such as ``"float32"``.
        impulse_fraction: fraction of the pixels that were salt-and-pepper noise, and are replaced.
        models: models of an image, each once.
    """

    noise_before: float | None = None
    noise_after: float | None = None
    residual: Consistency | None = None
    rejected_fraction: float = 0.0
    no_noise_found: bool = False
    precision: str | None = None
    impulse_fraction: float = 0.0
    models: tuple[str, ...] = ()

    @classmethod
    def combine(cls, diagnostics: Sequence[Diagnostics]) -> Diagnostics:
        """Combine the diagnostics of several frames or posterior samples of one file.

        Args:
            diagnostics: any number of them.

        Returns:
            The means of the figures, each over those that have it; all precisions, separated by commas.
        """
        residuals = [d.residual for d in diagnostics if d.residual is not None]
        precisions = dict.fromkeys(d.precision for d in diagnostics if d.precision is not None)
        return cls(
            noise_before=_mean([d.noise_before for d in diagnostics]),
            noise_after=_mean([d.noise_after for d in diagnostics]),
            residual=Consistency(*np.mean(residuals, axis=0).tolist()) if residuals else None,
            rejected_fraction=_mean([d.rejected_fraction for d in diagnostics]) or 0.0,
            no_noise_found=bool(diagnostics) and all(d.no_noise_found for d in diagnostics),
            precision=", ".join(precisions) or None,
            impulse_fraction=_mean([d.impulse_fraction for d in diagnostics]) or 0.0,
            models=tuple(dict.fromkeys(model for d in diagnostics for model in d.models)),
        )


@dataclass(frozen=True)
class Result:
    """One finished file.

    Args:
        input: name of the file that was read.
        output: name of the file that was written; of posterior samples, that of their mean.
        seconds: wall-clock time.
        speed: amount of signal per second, in ``speed_unit``.
        speed_unit: ``"times_real_time"``, ``"megapixels_per_s"`` or ``"points_per_s"``.
        noise_before: noise level of the input, in ``noise_unit``.
        noise_after: noise level of the output, in ``noise_unit``.
        noise_unit: ``"dbfs"``, ``"sigma_255"``, or ``"sigma_percent"`` of the diagonal of a cloud.
        residual: consistency of the residual of a posterior sample with noise; None of a posterior mean.
        files: all files that were written, if they are several.
        warnings: one sentence each.
        precision: number format that the network was computed in.
        impulse_fraction: fraction of the pixels that were salt-and-pepper noise, and are replaced.
        model: model of a recording or an image, and why it was taken; None of a restoration.
        stereo: whether the channels of a recording shared one mask; None of a single one.
    """

    input: str
    output: str
    seconds: float
    speed: float
    speed_unit: str
    noise_before: float | None
    noise_after: float | None
    noise_unit: str
    residual: Consistency | None = None
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    precision: str | None = None
    impulse_fraction: float = 0.0
    model: ModelChoice | None = None
    stereo: StereoChoice | None = None

    @classmethod
    def from_diagnostics(
        cls,
        diagnostics: Diagnostics,
        units: Units,
        *,
        input: str,
        output: str,
        amount: float,
        seconds: float,
        files: Sequence[str] = (),
        warnings: Sequence[str] = (),
        model: ModelChoice | None = None,
        stereo: StereoChoice | None = None,
    ) -> Result:
        """Build the result of one file.

        Args:
            diagnostics: diagnostics of the whole file.
            units: `AUDIO_UNITS`, `IMAGE_UNITS` or `POINT_UNITS`.
            input: name of the file that was read.
            output: name of the file that was written.
            amount: seconds of audio, megapixels or points that were denoised.
            seconds: wall-clock time, above 0.
            files: all files that were written, if they are several.
            warnings: what reading, denoising and writing have to say, to which those of the diagnostics are added; one
                that names no file is given the name of the input.
            model: model, and why it was taken.
            stereo: whether the channels of a recording shared one mask.

        Returns:
            The result with rounded figures.
        """
        return cls(
            input=input,
            output=output,
            seconds=round(seconds, 3),
            speed=round(amount / seconds, units.speed_digits),
            speed_unit=units.speed,
            noise_before=_round(diagnostics.noise_before),
            noise_after=_round(diagnostics.noise_after),
            noise_unit=units.noise,
            residual=diagnostics.residual,
            files=tuple(files),
            warnings=(
                *(_name_file(warning, input, output, *files) for warning in warnings),
                *warn_rejected(input, diagnostics.rejected_fraction),
                *warn_no_noise(input, diagnostics.no_noise_found),
                *warn_impulses(input, diagnostics.impulse_fraction),
                *warn_some_speech(input, model),
            ),
            precision=diagnostics.precision,
            impulse_fraction=diagnostics.impulse_fraction,
            model=model,
            stereo=stereo,
        )

    @classmethod
    def combine_tracks(cls, tracks: Sequence[Result], output: str, seconds: float, warnings: Sequence[str]) -> Result:
        """Combine the results of the audio tracks of one file.

        Args:
            tracks: result of each track, at least one.
            output: name of the file that was written.
            seconds: wall-clock time of the whole file, above 0.
            warnings: warnings about the file as a whole.

        Returns:
            The mean noise levels, all models and all warnings; the treatment of the channels if all tracks share it.
        """
        amount = sum(track.speed * track.seconds for track in tracks)
        return replace(
            tracks[0],
            output=output,
            seconds=round(seconds, 3),
            speed=round(amount / seconds, AUDIO_UNITS.speed_digits),
            noise_before=_round(_mean([track.noise_before for track in tracks])),
            noise_after=_round(_mean([track.noise_after for track in tracks])),
            warnings=(*dict.fromkeys(warning for track in tracks for warning in track.warnings), *warnings),
            model=_combine_models([track.model for track in tracks if track.model is not None]),
            stereo=_combine_stereo([track.stereo for track in tracks]),
        )

    def asdict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the units in the keys."""
        row = asdict(self)
        speed_unit, noise_unit = row.pop("speed_unit"), row.pop("noise_unit")
        row[speed_unit] = row.pop("speed")
        row[f"noise_before_{noise_unit}"] = row.pop("noise_before")
        row[f"noise_after_{noise_unit}"] = row.pop("noise_after")
        del row["model"], row["stereo"]
        row |= _choices(self.model, self.stereo)
        residual, files, precision = row.pop("residual"), row.pop("files"), row.pop("precision")
        impulse_fraction = row.pop("impulse_fraction")
        if residual is not None:
            rms_key, correlation_key = ("noise", "with_answer") if noise_unit == "dbfs" else ("sigma", "correlation")
            row |= {
                f"residual_by_{rms_key}": round(residual[0], 3),
                f"residual_{correlation_key}": round(residual[1], 3),
            }
        if impulse_fraction:
            row["impulse_fraction"] = float(f"{impulse_fraction:.3g}")
        return row | ({"files": files} if files else {}) | ({"precision": precision} if precision else {})


def _combine_models(models: Sequence[ModelChoice]) -> ModelChoice | None:
    """Return the models of several tracks as one choice: their names and reasons, each once."""
    if not models:
        return None
    names = dict.fromkeys(choice.model for choice in models)
    reasons = dict.fromkeys(choice.reason for choice in models)
    return ModelChoice(", ".join(names), ", ".join(reasons), _mean([choice.speech_fraction for choice in models]))


def _combine_stereo(choices: Sequence[StereoChoice | None]) -> StereoChoice | None:
    """Return the treatment of the channels if it is that of all tracks, with the mean correlation."""
    present = [choice for choice in choices if choice is not None]
    if len(present) < len(choices) or len({choice.is_linked for choice in present}) != 1:
        return None
    return StereoChoice(present[0].is_linked, _mean([choice.correlation for choice in present]))


def _choices(model: ModelChoice | None, stereo: StereoChoice | None) -> dict[str, Any]:
    """Return the keys of the choices for JSON, without those that were not measured."""
    keys: dict[str, Any] = {}
    if model is not None:
        keys |= {"model": model.model, "model_reason": model.reason, "speech_fraction": _round(model.speech_fraction)}
    if stereo is not None:
        keys |= {"channels": "linked" if stereo.is_linked else "separate"}
        keys |= {"channel_correlation": _round(stereo.correlation)}
    return {key: value for key, value in keys.items() if value is not None}


def _name_file(warning: str, input: str, *outputs: str) -> str:
    """Return a warning that begins with the file it is about, without which nobody finds the file in a folder."""
    names_file = warning.startswith(tuple(f"{name}: " for name in (input, *outputs)))
    return warning if names_file else f"{input}: {warning}"


def warn_rejected(name: str, rejected_fraction: float) -> tuple[str, ...]:
    """Return a warning if much of a posterior sample was replaced by the mean.

    Args:
        name: name of the file.
        rejected_fraction: fraction of the posterior sample that was rejected, 0 to 1.

    Returns:
        One warning or none.
    """
    if rejected_fraction < REJECTED_FRACTION_LIMIT:
        return ()
    return (
        f"{name}: {100 * rejected_fraction:.0f} % of the posterior sample was replaced by the posterior mean, because "
        "it removed more than the noise. The noise is very weak, stronger than the given or estimated sigma, or of a "
        "kind that the model was not trained on.",
    )


def warn_no_noise(name: str, no_noise_found: bool) -> tuple[str, ...]:
    """Return a warning if no noise was found in any frame, so that the input is unchanged.

    Args:
        name: name of the file.
        no_noise_found: whether that is so.

    Returns:
        One warning or none.
    """
    if not no_noise_found:
        return ()
    return (f"{name}: no noise was found, and the image is unchanged. Give sigma if it is noisy.",)


def warn_impulses(name: str, impulse_fraction: float) -> tuple[str, ...]:
    """Return a warning if pixels were taken for salt-and-pepper noise.

    Args:
        name: name of the file.
        impulse_fraction: fraction of the pixels, 0 to 1.

    Returns:
        One warning or none.
    """
    if not impulse_fraction:
        return ()
    return (
        f"{name}: {100 * impulse_fraction:.2g} % of the pixels are salt-and-pepper noise, and are replaced by the mean "
        "of those around. Give sigma to keep them.",
    )


def warn_underestimated(name: str, noise_before: float | None, noise_after: float | None) -> tuple[str, ...]:
    """Return a warning if more noise is estimated in a denoised image than before, so that the first estimate is wrong.

    Args:
        name: name of the file.
        noise_before: standard deviation before, of 255; None if it is unknown.
        noise_after: the same after.

    Returns:
        One warning or none.
    """
    if noise_before is None or noise_after is None or noise_after < noise_before + MIN_RISE:
        return ()
    return (
        f"{name}: the noise is estimated at {noise_before:.1f} of 255 before and {noise_after:.1f} after; expected "
        "less. Coarse grain may be left, which the colour channels show one by one, as grey images.",
    )


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def warn_some_speech(name: str, model: ModelChoice | None) -> tuple[str, ...]:
    """Return a warning if another model than that of speech was chosen, although there is some speech.

    Args:
        name: name of the file.
        model: model, and why it was taken.

    Returns:
        One warning or none.
    """
    if model is None or not model.may_be_speech:
        return ()
    return (f"{name}: {model.model} was chosen ({model.reason}). If it is of a voice, give --model speech.",)
