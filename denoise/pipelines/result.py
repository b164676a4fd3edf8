"""What a pipeline tells of one file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from denoise.errors import ConfigError
from denoise.priors.faithful import Consistency


@dataclass(frozen=True)
class Result:
    """One finished file. ``speed`` and ``noise_*`` are in the units beside them.

    ``residual`` is of what a drawn answer takes away. Of samples, ``output`` is the mean and ``files`` are all.
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
        row |= (
            {} if residual is None else dict(zip(("residual_by_sigma", "residual_correlation"), residual, strict=True))
        )
        return row | ({"files": files} if files else {})


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
