"""Base of the objectives of codecs and priors: clean signals of one shape, with labels."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from denoise.protocols import DenoisingPrior, Label, Prior
from denoise.rendering import render_points
from denoise.training.data import Batch, ImagePatches, Source
from denoise.training.examples import LabelledExamples
from denoise.training.mixes import AudioMixes
from denoise.training.objectives.base import Objective
from denoise.training.samples import write_signals
from denoise.training.shapes import STD, Shapes


def conditions(prior: Prior, batch: Batch) -> tuple[Label, ...] | None:
    """Return the labels of a batch as a prior takes them: None without classes and text.

    Args:
        prior: prior.
        batch: signals, perhaps with labels.
    """
    return batch.labels if prior.classes or prior.text else None


class SignalObjective(Objective):
    """An objective on clean signals of one shape: ``[examples]``, ``[points]``, ``[image]``, or speech of ``[audio]``.

    Of ``[image]`` it takes clean patches, of ``[audio]`` the speech.

    The data are checked against the shipped codec or prior. Derive from `LossObjective`, too, if there is one loss.
    """

    def validate(self, module: Any) -> None:
        """Check that the data have the shape of the module's signals.

        Args:
            module: codec or prior.

        Raises:
            ConfigError: they do not.
        """
        recipe = self.recipe
        sections = (recipe.examples, recipe.points, recipe.image, recipe.audio)
        self.require(
            any(section is not None for section in sections),
            "no [examples], [points], [image] or [audio] section; add one.",
        )
        if recipe.points is not None:
            shape, counts = tuple(self.shipped(module).event_shape), recipe.points.counts
            self.require(
                shape == (3, max(counts)),
                f"the shape of the signals is {shape}, points.counts make (3, {max(counts)}) at most. Fix one of them.",
            )
        if recipe.image is not None and recipe.examples is None:
            shape, sides = tuple(self.shipped(module).event_shape), set(recipe.image.sides)
            self.require(
                len(shape) == 3 and shape[0] in (1, 3) and {shape[1], shape[2]} == sides,
                f"the shape of the signals is {shape}, image.patch and further_patches make squares of "
                f"{sorted(sides)} pixels, in 1 or 3 channels. Fix one of them.",
            )
        if recipe.audio is None:
            return
        rates, channels = recipe.audio.sample_rates, recipe.audio.channels
        self.require(
            len(rates) == 1 and channels == 1,
            f"audio.sample_rates are {list(rates)}, audio.channels is {channels}; codecs and priors are trained on "
            "mono signals of one sample rate.",
        )
        time, shape = round(recipe.audio.seconds * rates[0]), tuple(self.shipped(module).event_shape)
        self.require(
            recipe.examples is not None or shape == (1, time),
            f"the shape of the signals is {shape}, audio.seconds makes (1, {time}). Fix one of them.",
        )

    def open_data(self, root: Path, module: Any) -> Source:
        """Load examples with the labels that a prior can be conditioned on, photographs, or speech.

        Args:
            root: folder that the paths of the recipe are relative to.
            module: codec or prior.

        Raises:
            ConfigError: there are none, or the labels do not fit the prior.
        """
        shipped = self.shipped(module)
        if self.recipe.examples is not None:
            conditions = (shipped.classes, shipped.text) if isinstance(shipped, Prior) else ()
            examples = LabelledExamples(self.recipe.examples, root, *conditions)
            stored, expected = tuple(examples.signals.shape[1:]), tuple(shipped.event_shape)
            keys = " or ".join(_keys_of([*expected], self.recipe.model, "model")) or "[model]"
            self.require(
                stored == expected, f"the examples have shape {stored}, the model expects {expected}. Fix {keys}."
            )
            self._warn_unused_labels(shipped)
            return examples
        if self.recipe.points is not None:
            shapes = Shapes(self.recipe.points)
            self.require(
                isinstance(shipped, Prior) and shipped.classes == len(shapes.class_names),
                f"points.shapes are {len(shapes.class_names)} classes, the model has others. Fix model.classes.",
            )
            self.require(
                not isinstance(shipped, DenoisingPrior) or math.isclose(shipped.data_std, STD),
                f"the points have a standard deviation of {STD}, the model expects others. Fix model.sigma_data.",
            )
            return shapes
        if self.recipe.image is not None:
            return ImagePatches(self.recipe.image, root, shipped.event_shape[0])
        assert self.recipe.audio is not None
        return AudioMixes(replace(self.recipe.audio, clean=1.0), root)

    def _warn_unused_labels(self, shipped: Any) -> None:
        """Warn of labels that neither the model nor the metrics of the training take."""
        recipe = self.recipe
        is_unconditional = isinstance(shipped, Prior) and not (shipped.classes or shipped.text)
        has_labels = recipe.examples is not None and recipe.examples.labels is not None
        if has_labels and is_unconditional and not (recipe.adversary and recipe.adversary.coverage):
            warnings.warn(
                f"recipe {recipe.name}: examples.labels are not used, as the model has no classes; set model.classes, "
                "or leave them out.",
                stacklevel=3,
            )

    def write_samples(self, out: Path, step: int, shipped: Any, source: Source) -> None:
        """Write samples of a prior.

        Args:
            out: folder of the training.
            step: number of the step.
            shipped: prior.
            source: training data.
        """
        n = 32 if self.recipe.points is None else 8  # a cloud takes seconds
        samples = shipped.sample(n, generator=torch.Generator().manual_seed(self.recipe.schedule.seed)).float().cpu()
        signals = samples if self.recipe.points is None else render_points(samples)
        write_signals(out, step, signals, self.recipe.sample_rate)

    def class_names(self, shipped: Any, source: Source) -> tuple[str, ...]:
        """Return the names of the classes that a prior can be conditioned on.

        Args:
            shipped: codec or prior.
            source: training data.
        """
        is_conditional = isinstance(shipped, Prior) and shipped.classes > 0
        return source.class_names if is_conditional and isinstance(source, LabelledExamples | Shapes) else ()


def _keys_of(value: Any, table: dict[str, Any], prefix: str) -> list[str]:
    """Return the dotted keys of a recipe's table, and of the tables in it, that have a value."""
    keys = []
    for key, item in table.items():
        name = f"{prefix}.{key}"
        keys += _keys_of(value, item, name) if isinstance(item, dict) else [name] * (item == value)
    return keys
