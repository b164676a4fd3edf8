"""Few-step samplers: a consistency model for each of a few steps, distilled from a prior that denoises."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from denoise.config import config
from denoise.errors import ConfigError
from denoise.priors.guided import GuidedPrior
from denoise.priors.noise import NoiseDecoding
from denoise.probability_path import karras_sigmas
from denoise.protocols import Label
from denoise.sampling.solvers import euler


@config
class ConsistencyModelConfig:
    """Settings of a consistency model.

    Args:
        denoiser: ``architecture`` of the teacher and its settings, which the student shares.
        sigmas: noise levels at which the steps begin, in signal units, decreasing; each step ends at the next level,
            the last at 0. One level is the consistency model of the first paper.
        sigma_min: last level above 0 of the teacher.
        substeps: steps of the teacher for each step of the student.
    """

    denoiser: dict[str, Any]
    sigmas: tuple[float, ...] = (80.0, 2.0, 0.5)
    sigma_min: float = 0.002
    substeps: int = 6

    def __post_init__(self) -> None:
        levels = (*self.sigmas, self.sigma_min, 0.0)
        if not self.sigmas or not all(high > low for high, low in pairwise(levels)):
            raise ConfigError(f"sigmas are {list(self.sigmas)}; expected decreasing levels above sigma_min.")
        if not 1 <= self.substeps <= 1000:
            raise ConfigError(f"substeps is {self.substeps}; expected 1 to 1000.")


class ConsistencyModel(NoiseDecoding):
    """A network that jumps along the probability flow of its teacher, one call for each step.

    From any level within a step, its estimate points to where the flow of the teacher reaches the end of the step, not
    to the posterior mean: it samples, but it is no denoising prior. The guidance of the teacher is distilled with it,
    so that guided samples take one call, too.

    Args:
        config: settings.
        denoiser: a prior of the teacher's architecture, as the network.

    Reference:
        Consistency Models, 2023, arXiv:2303.01469 (one step); Multistep Consistency Models, 2024, arXiv:2403.06807,
        algorithm 1 (training, see `denoise.training.losses.generative.consistency_distillation`) and 2 (sampling).
    """

    family = "a consistency model"

    def __init__(self, config: ConsistencyModelConfig, denoiser: GuidedPrior) -> None:
        super().__init__()
        if not isinstance(denoiser, GuidedPrior):
            raise ConfigError(
                f"denoiser is a {type(denoiser).__name__}; expected architecture diffusion, ddpm or flow-matching."
            )
        self.config, self.denoiser = config, denoiser
        self.event_shape, self.noise_shape = denoiser.event_shape, denoiser.noise_shape
        self.classes, self.text = denoiser.classes, denoiser.text

    def training_sigmas(self) -> Tensor:
        """Return the levels of the teacher, (steps * substeps + 1,), decreasing to 0; `substeps` are in each step."""
        c = self.config
        steps = [karras_sigmas(c.substeps + 1, low, high)[:-2] for high, low in pairwise(c.sigmas)]
        return torch.cat([*steps, karras_sigmas(c.substeps, c.sigma_min, c.sigmas[-1])])

    def from_noise(self, noise: Tensor, labels: Sequence[Label]) -> Tensor:
        """Return the signals of noise, with one network call for each step and the guidance of the teacher."""
        denoiser, sigmas = self.denoiser, torch.tensor([*self.config.sigmas, 0.0], dtype=torch.float32)
        std = (sigmas[0].square() + denoiser.data_std**2).sqrt()
        x = denoiser.data_mean + std * noise
        return euler(lambda x, sigma: denoiser(x, sigma, labels), x, sigmas)
