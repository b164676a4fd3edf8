"""Classifiers of recordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from denoise.noise import generator_for
from denoise.protocols import Classifier
from denoise.training.audio_recipe import AudioData
from denoise.training.data import Batch, Source
from denoise.training.mixes import AudioMixes
from denoise.training.objectives.base import LossObjective, Metrics

SAMPLES = 256  # examples of the confusion matrix


class ClassMixes:
    """Recordings of several classes, each mixed with noise and damaged as its section of the recipe says.

    Args:
        classes: settings of the recordings, by the name of the class. All have the sample rates of the first.
        root: folder that the paths are relative to.
        seconds: length of a recording.

    Raises:
        ConfigError: a folder is missing.
    """

    def __init__(self, classes: dict[str, AudioData], root: Path, seconds: float) -> None:
        self.mixes = [AudioMixes(replace(settings, seconds=seconds), root) for settings in classes.values()]
        for mixes in self.mixes:
            mixes.speech.weights = mixes.speech.weights.sqrt()  # favours many recordings over many minutes of one
        self.sample_rates = next(iter(classes.values())).sample_rates

    def batch(self, size: int, generator: Generator) -> Batch:
        """Return recordings of one of the sample rates and the indices of their classes, which are equally probable.

        Args:
            size: number of recordings.
            generator: source of randomness.
        """
        rate = self.sample_rates[int(torch.randint(len(self.sample_rates), (), generator=generator))]
        labels = torch.randint(len(self.mixes), (size,), generator=generator).tolist()
        x = torch.stack([self.mixes[label].mixture(rate, generator)[0] for label in labels])
        return Batch(x, x, rate, labels=tuple(labels))


class Classification(LossObjective):
    """Train a `denoise.protocols.Classifier` by cross-entropy, on the recordings of ``[classes]``."""

    def validate(self, module: Any) -> None:
        """Check that module and data have the same classes.

        Args:
            module: classifier.

        Raises:
            ConfigError: they do not.
        """
        self.require(
            isinstance(module, Classifier),
            f"{self.recipe.architecture} is no classifier; fix objective or architecture.",
        )
        names = tuple(self.recipe.classes)
        self.require(
            names == module.class_names,
            f"model.class_names are {list(module.class_names)}, [classes] has {list(names)}; make them equal.",
        )
        rates = {settings.sample_rates for settings in self.recipe.classes.values()}
        self.require(len(rates) == 1, "the classes have different sample_rates, which would tell them apart.")

    def open_data(self, root: Path, module: Any) -> Source:
        """Load the recordings of all classes.

        Args:
            root: folder that the paths of the recipe are relative to.
            module: classifier.

        Raises:
            ConfigError: a folder is missing.
        """
        return ClassMixes(self.recipe.classes, root, module.window_s)

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return the cross-entropy of a batch; the metric is the accuracy.

        Args:
            module: classifier.
            batch: recordings with the indices of their classes.
        """
        labels = _labels(batch)
        logits = module(batch.noisy, sample_rate=batch.sample_rate).float()
        return F.cross_entropy(logits, labels), lambda: {"accuracy": (logits.argmax(dim=1) == labels).float().mean()}

    def write_samples(self, out: Path, step: int, shipped: Any, source: Source) -> None:
        """Write the confusion matrix of some examples, a row for each true class.

        Args:
            out: folder of the training.
            step: number of the step.
            shipped: classifier.
            source: training data.
        """
        batch = source.batch(SAMPLES, generator_for(self.recipe.schedule.seed, -1 % (1 << 31)))
        n = len(shipped.class_names)
        moved = batch.map(lambda x: x.to(next(shipped.parameters()).device))
        predicted = shipped(moved.noisy, sample_rate=batch.sample_rate).argmax(dim=1).cpu()
        counts = torch.bincount(n * _labels(batch).cpu() + predicted, minlength=n * n).reshape(n, n)
        rows = [",".join(["true", *shipped.class_names])]
        rows += [
            ",".join([name, *map(str, row)]) for name, row in zip(shipped.class_names, counts.tolist(), strict=True)
        ]
        (out / "samples").mkdir(exist_ok=True)
        (out / f"samples/step-{step:06d}.csv").write_text("\n".join(rows) + "\n")


def _labels(batch: Batch) -> Tensor:
    return torch.tensor(batch.labels, device=batch.noisy.device)
