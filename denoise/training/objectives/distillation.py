"""Distillation of a prior with many steps into one with few."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from denoise.priors.consistency_model import ConsistencyModel
from denoise.priors.guided import GuidedPrior
from denoise.registry import build, load
from denoise.training.data import Batch
from denoise.training.losses import generative
from denoise.training.objectives.base import LossObjective, Metrics
from denoise.training.objectives.signals import SignalObjective, conditions


class StudentAndTeacher(nn.Module):
    """The student that is trained and its teacher, which is not.

    Args:
        student: model that is trained and shipped.
        teacher: prior that it is distilled from.
    """

    def __init__(self, student: ConsistencyModel, teacher: GuidedPrior) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher


class ConsistencyDistillation(SignalObjective, LossObjective):
    """Distil the prior that the recipe names as ``init``, which also initialises the student."""

    def build(self) -> StudentAndTeacher:
        """Build a student of the teacher's architecture and settings.

        Raises:
            ConfigError: there is no such teacher, it is of another kind, or the configuration is wrong.
        """
        recipe = self.recipe
        self.require(
            recipe.architecture == "consistency-model",
            f"architecture is {recipe.architecture!r}; expected consistency-model for this objective.",
        )
        self.require(recipe.init is not None, "no teacher; give init a prior of diffusion, ddpm or flow-matching.")
        teacher, card = load(str(recipe.init), kind="prior")
        self.require(
            isinstance(teacher, GuidedPrior),
            f"the teacher {recipe.init} is a {card.architecture}; expected diffusion, ddpm or flow-matching in init.",
        )
        denoiser = {"architecture": card.architecture, **asdict(teacher.config)}
        student = build(recipe.architecture, {**recipe.model, "denoiser": denoiser}, recipe.name)
        first, highest = student.config.sigmas[0], teacher.sigma_range[1]
        self.require(
            first <= highest,
            f"model.sigmas begin at {first:g}, the highest noise level of the teacher {recipe.init} is {highest:g}. "
            "Lower them.",
        )
        return StudentAndTeacher(student, teacher)

    def shipped(self, module: Any) -> Any:
        """Return the student.

        Args:
            module: module of `build`.
        """
        return module.student

    def loss(self, module: Any, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return the loss of the student.

        Args:
            module: module of `build`.
            batch: signals and labels.
        """
        labels = conditions(module.teacher, batch)
        return generative.consistency_distillation(module.student, module.teacher, batch.clean, labels), dict
