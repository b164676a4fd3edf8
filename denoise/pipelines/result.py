"""What a pipeline tells of one file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from denoise.errors import ConfigError
from denoise.sampling.consistency import Consistency

MUCH = 0.1  # of a draw


@dataclass(frozen=True)
class Result:
    """One finished file. ``speed`` and ``noise_*`` are in the units beside them.

    ``residual`` is of what a drawn answer takes away: of a picture by sigma and from pixel to pixel, of a recording by
    its noise, as judged by the mean, and with what is left. Of samples, ``output`` is the mean and ``files`` are all.
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

    def asdict(self) -> dict[str, Any]:
        """Plain values for JSON, with the units in the keys."""
        row = asdict(self)
        speed_unit, noise_unit = row.pop("speed_unit"), row.pop("noise_unit")
        row[speed_unit] = row.pop("speed")
        row[f"noise_before_{noise_unit}"] = row.pop("noise_before")
        row[f"noise_after_{noise_unit}"] = row.pop("noise_after")
        residual, files = row.pop("residual"), row.pop("files")
        if residual is not None:
            by, with_ = ("noise", "with_answer") if noise_unit == "dbfs" else ("sigma", "correlation")
            row |= {f"residual_by_{by}": round(residual[0], 3), f"residual_{with_}": round(residual[1], 3)}
        return row | ({"files": files} if files else {})


def doubted_much(name: str, share: float) -> tuple[str, ...]:
    """A warning where much of a draw did not fit what was measured."""
    if share < MUCH:
        return ()
    return (
        f"{name}: {100 * share:.0f} % of the draw changed more than there is noise and gave way to the mean; there is "
        "hardly any noise, or it is stronger or of another kind than the model was told or taught.",
    )


def found_silent(name: str, silent: bool) -> tuple[str, ...]:
    """A warning where a sigma of nothing was found, and so nothing was done."""
    if not silent:
        return ()
    return (f"{name}: no noise was found, or too little is seen to tell; give sigma if there is some.",)


def check_strength(strength: float) -> None:
    """Refuse a strength outside [0, 1]."""
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength is {strength:g}; expected 0 (untouched) to 1 (all that the model does).")


def limited_strength(strength: float, attenuation_limit: float | None) -> float:
    """The strength at which nothing is attenuated by more than ``attenuation_limit`` dB; None sets no limit.

    >>> limited_strength(1.0, 20.0)
    0.9
    """
    check_strength(strength)
    if attenuation_limit is None:
        return strength
    if not attenuation_limit >= 0:
        raise ConfigError(f"attenuation limit is {attenuation_limit:g} dB; expected 0 or more.")
    return min(strength, 1 - 10 ** (-attenuation_limit / 20))
