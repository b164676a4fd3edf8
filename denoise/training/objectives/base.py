"""Base classes of objectives, which define everything that differs between trainings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from denoise.errors import ConfigError
from denoise.priors.latent import LatentPrior, LatentPriorConfig, build_latent_prior
from denoise.protocols import Codec
from denoise.registry import build, kind_of, load
from denoise.training.data import Batch, Source
from denoise.training.optimizer import Muon
from denoise.training.recipe import Recipe, Schedule
from denoise.training.trainer import Trainer

Metrics = Callable[[], dict[str, Tensor]]
"""Numbers of a row of the log, computed only for steps that are logged."""

OPTIMIZERS = {"adamw": torch.optim.AdamW, "muon": Muon}


@dataclass(frozen=True)
class StepResult:
    """What a step reports.

    Args:
        loss: the loss that the row of the log names, a scalar.
        grad_norm: norm of its gradient before clipping.
        metrics: further numbers.
    """

    loss: Tensor
    grad_norm: float
    metrics: Metrics = dict


class Objective(ABC):
    """A way to train a module: its data, its optimizers, its step, and what of the module is shipped.

    To add one, subclass it and add the class to `denoise.training.objectives.OBJECTIVES`.

    Args:
        recipe: recipe of the training.
    """

    partial_backward = False
    """Whether one backward pass may leave out parameters of the module, as with several optimizers."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def build(self) -> nn.Module:
        """Build the module that is trained, with every submodule that only the training needs.

        Raises:
            ConfigError: the architecture is unknown or its configuration is wrong.
        """
        return build_recipe(self.recipe)

    def shipped(self, module: Any) -> Any:
        """Return the submodule that is averaged, sampled from and exported: the network, codec or prior itself.

        Args:
            module: module of `build`.
        """
        return module

    @abstractmethod
    def validate(self, module: Any) -> None:
        """Check that recipe and module fit each other and the objective.

        Args:
            module: module of `build`.

        Raises:
            ConfigError: they do not.
        """

    @abstractmethod
    def open_data(self, root: Path, module: Any) -> Source:
        """Load the training data.

        Args:
            root: folder that the paths of the recipe are relative to.
            module: module of `build`.

        Raises:
            ConfigError: there are none, or they do not fit the module.
        """

    def configure_optimizers(self, module: nn.Module, schedule: Schedule) -> list[Optimizer]:
        """Return the optimizers of the module, at their learning rates after the warm-up.

        Args:
            module: module of `build`.
            schedule: schedule of the recipe.
        """
        return [make_optimizer(module, schedule)]

    @abstractmethod
    def step(self, trainer: Trainer, batch: Batch) -> StepResult:
        """Take one step: forward, backward, clipping and optimizer, perhaps several times.

        PyTorch's global generator is seeded for each step, so that a resumed training repeats it.

        Args:
            trainer: the module and its optimizers; `Trainer.step` counts the steps before this one.
            batch: batch of the data of `open_data`, on the device.
        """

    @abstractmethod
    def write_samples(self, out: Path, step: int, shipped: Any, source: Source) -> None:
        """Write examples of what the averaged weights do.

        Args:
            out: folder of the training.
            step: number of the step, for the name of the file.
            shipped: averaged copy of the shipped submodule, in evaluation mode.
            source: training data.
        """

    def class_names(self, shipped: Any, source: Source) -> tuple[str, ...]:
        """Return the names of the classes for the card.

        Args:
            shipped: shipped submodule.
            source: training data.
        """
        return ()

    def require(self, condition: bool, problem: str) -> None:
        """Refuse a recipe.

        Args:
            condition: what must be true.
            problem: what is wrong and what to do, for the message.

        Raises:
            ConfigError: it is not true.
        """
        if not condition:
            raise ConfigError(f"recipe {self.recipe.name}: {problem}")


class LossObjective(Objective):
    """An objective that minimises one loss by one optimizer."""

    @abstractmethod
    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return the loss of a batch, a scalar, and further numbers.

        Args:
            module: module of `build`.
            batch: batch on the device of the module.
        """

    def step(self, trainer: Trainer, batch: Batch) -> StepResult:
        """Take one step down the gradient of the loss.

        Args:
            trainer: the module and its optimizer.
            batch: batch on the device of the module.
        """
        loss, metrics = trainer.forward(lambda module: self.loss(module, batch))
        return StepResult(loss, trainer.minimise(loss), metrics)


def make_optimizer(module: nn.Module, schedule: Schedule) -> Optimizer:
    """Return the optimizer of a schedule for the parameters of a module that require gradients.

    Args:
        module: module, or submodule.
        schedule: name of the optimizer, learning rate, weight decay.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    return OPTIMIZERS[schedule.optimizer](trained, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)


def build_recipe(recipe: Recipe) -> Any:
    """Build the module that a recipe names; with ``codec``, the prior joined with a trained codec.

    Args:
        recipe: recipe of the training.

    Returns:
        A network, codec or prior.

    Raises:
        ConfigError: there is no such architecture or codec, or they do not fit.
    """
    module = build(recipe.architecture, recipe.model, recipe.name)
    if recipe.codec is None:
        return module
    if kind_of(module) != "prior":
        raise ConfigError(f"recipe {recipe.name}: a codec is for priors; leave it out.")
    model, card = load(recipe.codec)
    if isinstance(model, LatentPrior):
        assert model.config is not None  # weights files hold it
        codec, codec_config = model.codec, model.config.codec
    else:
        codec, codec_config = model, {"architecture": card.architecture, **asdict(model.config)}
    if not isinstance(codec, Codec):
        raise ConfigError(f"recipe {recipe.name}: {recipe.codec} is a {card.kind} without a codec; give one with it.")
    if tuple(codec.latent_shape) != tuple(module.event_shape):
        raise ConfigError(
            f"recipe {recipe.name}: the shape of the prior is {tuple(module.event_shape)}, the codec's latents are "
            f"{tuple(codec.latent_shape)}. Fix `model.shape`."
        )
    prior_config = {"architecture": recipe.architecture, **asdict(module.config)}
    return build_latent_prior(codec, module, LatentPriorConfig(codec_config, prior_config))
