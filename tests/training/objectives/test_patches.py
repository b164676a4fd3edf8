"""The objective of priors of patches: its loss on patches of photographs, and what it refuses."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from denoise.config import parse
from denoise.errors import ConfigError
from denoise.priors.patch_flow import PatchFlow, PatchFlowConfig
from denoise.registry import load
from denoise.training.data import Batch
from denoise.training.loop import train
from denoise.training.losses.generative import patch_likelihood
from denoise.training.objectives import make_objective
from denoise.training.recipe import Recipe

VALUES: dict[str, Any] = {
    "name": "tiny",
    "architecture": "patch-flow",
    "modality": "image",
    "objective": "patch-likelihood",
    "model": {"side": 4, "transforms": 1, "hidden": [8]},
    "image": {"folders": ["photos"], "patch": 8, "sigma": [0.01, 0.2], "high_sigma_fraction": 0.0, "jpeg": 0.0},
    "loss": {"denoising": 1.0},
    "schedule": {"steps": 40, "batch": 8, "warmup": 5, "log_every": 20, "workers": 1},
}


def recipe(**sections: Any) -> Recipe:
    return parse(Recipe, VALUES | sections, "tiny")


def test_the_loss_is_the_likelihood_and_the_error_of_the_denoiser() -> None:
    torch.manual_seed(0)
    prior = PatchFlow(PatchFlowConfig(4, 3, 1, hidden=(8,)))
    clean, sigma = torch.rand(5, 3, 4, 4), torch.linspace(0.02, 0.3, 5)
    noisy = clean + sigma[:, None, None, None] * torch.randn(clean.shape)
    nats = -prior.noisy_log_prob(noisy, sigma).mean() / 48
    error = ((prior(noisy, sigma) - clean) / sigma[:, None, None, None]).square().mean()
    loss, metrics = patch_likelihood(prior, noisy.clone(), clean, sigma, 3.0)
    torch.testing.assert_close(loss, nats + 3 * error)
    torch.testing.assert_close(metrics()["nats"], nats.detach())
    torch.testing.assert_close(metrics()["error"], error.detach())
    torch.testing.assert_close(patch_likelihood(prior, noisy.clone(), clean, sigma)[0], nats)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in prior.parameters())


def test_photographs_are_cut_into_patches_with_their_noise() -> None:
    objective, prior = make_objective(recipe()), PatchFlow(PatchFlowConfig(4, 3, 0))
    clean, sigma = torch.rand(2, 3, 8, 8), torch.tensor([0.02, 0.3])
    noisy = clean + sigma[:, None, None, None] * torch.randn(clean.shape)
    parts = []
    for i, row, column in product((0, 1), (0, 4), (0, 4)):
        patches = (x[i : i + 1, :, row : row + 4, column : column + 4].clone() for x in (noisy, clean))
        parts.append(patch_likelihood(prior, *patches, sigma[i : i + 1], 1.0)[0])
    loss, _ = objective.loss(prior, Batch(noisy, clean, sigma=sigma))  # type: ignore[attr-defined]
    torch.testing.assert_close(loss, torch.stack(parts).mean())


def test_a_training_makes_noisy_patches_likelier(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    y, x = np.mgrid[:64, :64]
    pixels = np.stack([90 + x, 60 + y, 100 + 30 * np.sin(x / 9)], axis=-1)
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / "a.png")
    rows: list[dict[str, Any]] = []
    narrow = recipe(image=VALUES["image"] | {"sigma": [0.1, 0.11]})  # so that batches compare
    path = train(narrow, tmp_path, tmp_path / "out", precision="32-true", report=rows.append)
    assert rows[-1]["nats"] < rows[0]["nats"]
    assert rows[-1]["error"] < rows[0]["error"] < 1
    prior, card = load(path, kind="prior", modality="image")
    assert card.sigma == (0.1, 0.11)
    assert prior.event_shape == (3, 4, 4)


def test_recipes_that_do_not_fit_are_refused() -> None:
    def refuse(message: str, **sections: Any) -> None:
        objective = make_objective(recipe(**sections))
        with pytest.raises(ConfigError, match=message):
            objective.validate(objective.build())

    refuse("needs a prior of patches, the recipe builds a Flow", architecture="flow", model={"shape": [2]})
    refuse(r"no \[image\] section", image=None)
    refuse("image.patch is 10 pixels; expected a multiple .* 4", image=VALUES["image"] | {"patch": 10})
    refuse("image.sigma starts at 0", image=VALUES["image"] | {"sigma": [0.0, 0.2]})
