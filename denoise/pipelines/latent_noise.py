"""Draws: what a variational network draws its latents from, window by window, and what cannot be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.distributions import Normal

from denoise.errors import ConfigError
from denoise.noise import noise_field
from denoise.registry import POSTERIOR_MODEL, SIGMA_MODEL


@dataclass(frozen=True)
class Draw:
    """Latents drawn from noise that has a place: windows that overlap draw the same there.

    ``start`` is where the window begins, in samples of the model, for each axis of space.
    """

    seed: int
    start: tuple[int, ...]

    def __call__(self, level: int, q: Normal, stride: int) -> Tensor:
        start = [at // stride for at in self.start]
        eps = noise_field(self.seed, level, q.loc.shape[1], start, q.loc.shape[2:])
        return q.loc + q.scale * eps.to(q.loc)


def check_draws(model: Any, name: str, draws: Any) -> None:
    """Refuse draws from a model that gives one answer, unless it is told sigma: one that is can be a prior."""
    if draws is not None and model.blind and not getattr(model, "variational", False):
        one = SIGMA_MODEL if model.ndim == 2 else POSTERIOR_MODEL
        raise ConfigError(f"model {name} gives one answer and draws no samples; take {one}.")


def check_dial(model: Any, name: str, draws: Any, perception: float | None, steps: int, *, goes: bool) -> None:
    """As `check_draws`; and refuse a dial that makes no sense, or one for a model that ``goes`` no way to a draw."""
    check_draws(model, name, draws if perception is None else perception)
    if perception is not None and not goes:
        raise ConfigError(f"model {name} draws whole answers; leave perception out.")
    if perception is not None and not 0 <= perception <= 1:
        raise ConfigError(f"perception is {perception:g}; expected 0 (the mean of what is likely) to 1 (one of it).")
    if steps < 1:
        raise ConfigError(f"steps is {steps}; expected at least 1.")
