"""The state of a training, and its checkpoint."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from denoise.errors import ConfigError
from denoise.migrations import migrate_recipe, migrate_tensor_name
from denoise.training.recipe import Recipe
from denoise.training.trainer import Trainer

FREE_TABLES = ("model.", "classes.", "image.degrade.jpeg.", "image.degrade.resized.")
"""Tables of a recipe that hold what its file states, without the defaults of a release."""


class TrainingState:
    """Steps and seconds so far, and the moving average of the shipped weights.

    A checkpoint holds them with the weights and the state of the optimizers, so a resumed training has every bit of an
    uninterrupted one.

    Args:
        trainer: module and optimizers.
        shipped: submodule of the trainer's module that is averaged.
        ema: copy of ``shipped``, for the average.
        recipe: recipe of the training.
        minutes: budget of time; None for none.
    """

    def __init__(
        self, trainer: Trainer, shipped: nn.Module, ema: nn.Module, recipe: Recipe, minutes: float | None
    ) -> None:
        self.trainer, self.shipped, self.ema = trainer, shipped, ema
        self.recipe, self.schedule, self.minutes = recipe, recipe.schedule, minutes
        self.step, self.seconds = 0, 0.0
        self._clock = 0.0

    @property
    def progress(self) -> float:
        """Fraction of the schedule that is complete, by steps or by the clock; 1 or more at the end."""
        by_clock = self.seconds / (60 * self.minutes) if self.minutes else 0.0
        return max(self.step / self.schedule.steps, by_clock)

    def start_clock(self) -> None:
        """Count seconds from now on, in addition to those before a resumption."""
        self._clock = time.monotonic() - self.seconds

    @torch.no_grad()
    def advance(self) -> None:
        """Count a step, update the averaged weights and copy the buffers."""
        decay = min(self.schedule.ema, (self.step + 1) / (self.step + 10))
        for average, current in zip(self.ema.parameters(), self.shipped.parameters(), strict=True):
            average.lerp_(current, 1 - decay)
        for copied, buffer in zip(self.ema.buffers(), self.shipped.buffers(), strict=True):
            copied.copy_(buffer)  # e.g. running statistics, which are averages already
        fabric, seconds = self.trainer.fabric, time.monotonic() - self._clock
        self.step += 1
        # all processes use one clock, otherwise they would disagree on which step is the last
        self.seconds = fabric.broadcast(seconds) if fabric.world_size > 1 else seconds

    def is_due(self, every: int) -> bool:
        """Return whether the last step is a multiple of ``every``; False for 0."""
        return every > 0 and self.step % every == 0

    def open(self, checkpoint: Path, resume: bool) -> None:
        """Restore a checkpoint, perhaps of an earlier release, or check that there is none.

        A changed recipe continues, e.g. with more steps, and a warning names the changes. Another one states that no
        steps remain.

        Args:
            checkpoint: file of the checkpoint.
            resume: whether to restore it.

        Raises:
            ConfigError: there is none to restore, it is of another network, or it would be overwritten.
        """
        if not resume and checkpoint.exists():
            raise ConfigError(
                f"{checkpoint.parent}: holds a training already. Give --resume to continue, or another --out."
            )
        if not resume:
            return
        if not checkpoint.exists():
            raise ConfigError(f"{checkpoint}: nothing to resume. Leave --resume out to start anew.")
        try:
            stored = self.trainer.fabric.load(checkpoint, weights_only=True)
            for key, item in self._stateful().items():
                is_module = isinstance(item, nn.Module)
                values = {migrate_tensor_name(k): v for k, v in stored[key].items()} if is_module else stored[key]
                item.load_state_dict(values)
        except (KeyError, RuntimeError, ValueError):
            raise ConfigError(f"{checkpoint}: is of another network than this recipe's. Give another --out.") from None
        self.step, self.seconds = stored["step"], stored["seconds"]
        before = json.loads(stored.get("recipe", "null")) or self._settings()
        changes = changed_settings(migrate_recipe(before), self._settings())
        if changes and self.trainer.fabric.is_global_zero:
            warnings.warn(f"{checkpoint.parent}: resumes with another recipe: {'; '.join(changes)}.", stacklevel=2)
        if self.progress >= 1 and self.trainer.fabric.is_global_zero:
            has_all_steps = self.step >= self.schedule.steps
            budget = f"{self.schedule.steps} steps" if has_all_steps else f"{self.minutes:g} minutes"
            remedy = "--set schedule.steps=N with more" if has_all_steps else "a larger --minutes"
            warnings.warn(
                f"{checkpoint.parent}: all {budget} are done, none remain. To train longer, give {remedy}.",
                stacklevel=2,
            )

    def save(self, checkpoint: Path) -> None:
        """Replace the checkpoint atomically: a process that is killed while writing leaves the previous one.

        Args:
            checkpoint: file of the checkpoint.
        """
        fabric, partial = self.trainer.fabric, checkpoint.with_suffix(".partial")
        counters = {"step": self.step, "seconds": self.seconds, "recipe": json.dumps(self._settings())}
        fabric.save(partial, self._stateful() | counters)
        if fabric.is_global_zero:
            partial.replace(checkpoint)
        fabric.barrier()

    def _stateful(self) -> dict[str, Any]:
        return self.trainer.stateful() | {"ema": self.ema}

    def _settings(self) -> dict[str, Any]:
        """The recipe as a checkpoint holds it."""
        settings: dict[str, Any] = json.loads(json.dumps(self.recipe.asdict()))
        return settings


def changed_settings(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the differences of two recipes, e.g. ``["schedule.steps = 9000, before 20000"]``.

    Keys that only one of them has are those of another release, except in `FREE_TABLES`.

    Args:
        before: recipe as nested tables.
        after: another one.
        prefix: dotted key of both, with a dot behind.
    """
    changes: list[str] = []
    is_free = prefix in FREE_TABLES or prefix.startswith("model.")
    for key in sorted(before.keys() | after.keys() if is_free else before.keys() & after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            changes += changed_settings(old, new, f"{prefix}{key}.")
        elif old != new:
            changes.append(f"{prefix}{key} = {json.dumps(new)}, before {json.dumps(old)}")
    return changes
