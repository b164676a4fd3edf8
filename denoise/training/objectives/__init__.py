"""Objectives by name. An objective owns its step; the loop depends on neither networks nor losses.

To add one: subclass `Objective` (or `LossObjective`, if it minimises one loss) and add it to `OBJECTIVES`.
"""

from __future__ import annotations

from denoise.errors import ConfigError
from denoise.training.objectives.base import LossObjective, Objective, StepResult
from denoise.training.objectives.classification import Classification
from denoise.training.objectives.codec import Adversarial, Elbo, Reconstruction
from denoise.training.objectives.denoising import Denoising
from denoise.training.objectives.distillation import ConsistencyDistillation
from denoise.training.objectives.gan import GANObjective
from denoise.training.objectives.patches import PatchLikelihood
from denoise.training.objectives.prior import (
    DDPMObjective,
    DenoisingScoreMatching,
    FlowMatchingObjective,
    MaximumLikelihood,
)
from denoise.training.recipe import Recipe

__all__ = ["OBJECTIVES", "LossObjective", "Objective", "StepResult", "make_objective"]

OBJECTIVES: dict[str, type[Objective]] = {
    "denoising": Denoising,
    "reconstruction": Reconstruction,
    "elbo": Elbo,
    "adversarial": Adversarial,
    "diffusion": DenoisingScoreMatching,
    "ddpm": DDPMObjective,
    "flow-matching": FlowMatchingObjective,
    "consistency-distillation": ConsistencyDistillation,
    "likelihood": MaximumLikelihood,
    "patch-likelihood": PatchLikelihood,
    "gan": GANObjective,
    "classification": Classification,
}


def make_objective(recipe: Recipe) -> Objective:
    """Return the objective that a recipe names.

    Args:
        recipe: recipe of a training.

    Raises:
        ConfigError: there is no such objective.
    """
    if recipe.objective not in OBJECTIVES:
        raise ConfigError(
            f"recipe {recipe.name}: objective is {recipe.objective!r}; expected one of {', '.join(OBJECTIVES)}."
        )
    return OBJECTIVES[recipe.objective](recipe)
