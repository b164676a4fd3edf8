"""Completion of signals with a prior that denoises."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from denoise.probability_path import karras_sigmas, standard_normal
from denoise.protocols import DEFAULT_OPTIONS, DenoisingPrior, Label, Progress, SamplingOptions
from denoise.sampling.inpainting import inpaint

STEPS = 40
COMPLETION_OPTIONS = frozenset({"steps"})
SIGMA_MIN, SIGMA_MAX = 0.004, 40.0  # in units of the standard deviation of the signals


@torch.no_grad()
def inpaint_with_prior(
    prior: DenoisingPrior,
    x: Tensor,
    mask: Tensor,
    *,
    label: Label = None,
    options: SamplingOptions = DEFAULT_OPTIONS,
    resamplings: int = 4,
    order: Literal[1, 2] = 1,
    generator: Generator | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Fill in missing entries by RePaint, on noise levels that suit the prior.

    Args:
        prior: denoiser at all noise levels.
        x: signals, (n, *event_shape); missing entries have any value.
        mask: 1 where entries are observed, 0 where they are missing, (n, *event_shape).
        label: condition of all signals.
        options: steps, 40 by default.
        resamplings: repetitions of each step, see `inpaint`.
        order: order of the steps, see `inpaint`.
        generator: source of the noise.
        progress: called with the fraction of the noise levels that are done.

    Returns:
        Signals that agree with x where the mask is 1, (n, *event_shape).

    Raises:
        ConfigError: another option than the steps is set.
    """
    options.check_supported(COMPLETION_OPTIONS, "inpainting")
    steps = options.steps or STEPS
    sigmas = karras_sigmas(steps, SIGMA_MIN * prior.data_std, SIGMA_MAX * prior.data_std)
    start = prior.data_mean + sigmas[0] * standard_normal(x.shape, generator)
    labels, done = [label] * len(x), 0.0

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal done
        if progress:
            done = max(done, float((sigmas > sigma[0].cpu()).sum()) / steps)  # steps of second order look ahead
            progress(done)
        return prior(x, sigma, labels)

    start = start.to(x)
    return inpaint(denoiser, x, mask, sigmas, start=start, resamplings=resamplings, order=order, generator=generator)
