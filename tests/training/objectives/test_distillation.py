"""Distillation of a prior into few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denoise.config import parse
from denoise.errors import ConfigError
from denoise.protocols import SamplingOptions
from denoise.registry import load
from denoise.training.loop import train
from denoise.training.objectives import make_objective
from denoise.training.recipe import Recipe

NET = {"kind": "mlp", "widths": [64], "blocks": 2, "embedding": 32}
RINGS = {"files": ["rings.npz"], "signals": "signals", "labels": "labels", "sample_rate": 8000}
SCHEDULE = {"batch": 256, "learning_rate": 3e-3, "warmup": 5, "log_every": 50, "ema": 0.98}
PRIOR = {"shape": [1, 2], "net": NET, "sigma_data": 0.6, "classes": 2}


def recipe(**values: Any) -> Recipe:
    common = {"name": "tiny", "modality": "audio", "examples": RINGS, "sources": ["made here"]}
    return parse(Recipe, common | values, "test")


def signals(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on two rings, whose label is that of the ring."""
    generator = np.random.default_rng(seed)
    labels, angle = generator.integers(0, 2, n), generator.uniform(0, 2 * np.pi, n)
    radius = np.where(labels == 1, 0.9, 0.4)
    return (radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32), labels


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rings")
    points, labels = signals(5000, 0)
    np.savez(root / "rings.npz", signals=points, labels=labels)
    teacher = recipe(architecture="diffusion", objective="diffusion", model=PRIOR, schedule=SCHEDULE | {"steps": 500})
    train(teacher, root, root / "teacher", device="cpu", precision="32-true")
    return root


def distance_to_rings(x: torch.Tensor, label: int) -> float:
    return float((x.flatten(1).norm(dim=1) - (0.9 if label else 0.4)).abs().mean())


def test_a_student_of_two_steps_is_nearer_to_the_signals_than_its_teacher_in_two_steps(
    trained: Path, tmp_path: Path
) -> None:
    student = recipe(
        architecture="consistency-model",
        objective="consistency-distillation",
        init=str(trained / "teacher/tiny.safetensors"),
        model={"sigmas": [80.0, 0.8], "substeps": 5},
        schedule=SCHEDULE | {"steps": 300, "learning_rate": 1e-3},
    )
    train(student, trained, tmp_path, device="cpu", precision="32-true")
    model, card = load(tmp_path / "tiny.safetensors")
    teacher, _ = load(trained / "teacher/tiny.safetensors")
    assert (card.architecture, card.kind, len(card.classes)) == ("consistency-model", "prior", 2)
    two_steps = SamplingOptions(steps=2, solver="euler")
    for label in (0, 1):
        x = model.sample(500, label=label, generator=torch.Generator().manual_seed(0))
        y = teacher.sample(500, label=label, options=two_steps, generator=torch.Generator().manual_seed(0))
        assert distance_to_rings(x, label) < 0.5 * distance_to_rings(y, label)
        noise = torch.randn(500, 1, 2, generator=torch.Generator().manual_seed(1))
        jumped, solved = model.decode_noise(noise, label=label), teacher.decode_noise(noise, label=label)
        assert float((jumped - solved).square().mean()) < 0.1 * float(solved.square().mean())  # the same flow


def test_the_student_begins_as_its_teacher(trained: Path, tmp_path: Path) -> None:
    student = recipe(
        architecture="consistency-model",
        objective="consistency-distillation",
        init=str(trained / "teacher/tiny.safetensors"),
        model={"sigmas": [80.0, 0.8]},
        schedule=SCHEDULE | {"steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0},
    )
    train(student, trained, tmp_path, device="cpu", precision="32-true")
    model, _ = load(tmp_path / "tiny.safetensors")
    teacher, _ = load(trained / "teacher/tiny.safetensors")
    x, sigma = torch.randn(4, 1, 2), torch.tensor([0.1, 0.5, 2.0, 40.0])
    torch.testing.assert_close(model.denoiser(x, sigma), teacher(x, sigma), rtol=1e-2, atol=1e-2)  # float16


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"architecture": "diffusion", "model": PRIOR}, "expected consistency-model"),
        ({"init": None}, "no teacher"),
        ({"init": "mnist-vae"}, "the teacher mnist-vae is a latent-prior"),
        ({"init": "speech"}, "expected a prior"),
        ({"model": {"sigmas": [20.5, 2.0]}}, "begin at 20.5, .* mnist-diffusion is 20. Lower"),
    ],
)
def test_teachers_and_levels_that_do_not_fit_are_refused(values: dict[str, Any], reason: str) -> None:
    settings = {"architecture": "consistency-model", "init": "mnist-diffusion", "model": {}} | values
    schedule = SCHEDULE | {"steps": 1}
    with pytest.raises(ConfigError, match=reason):
        make_objective(recipe(objective="consistency-distillation", schedule=schedule, **settings)).build()


@pytest.mark.parametrize(("teacher", "sigmas"), [("mnist-diffusion", [20.0, 1.5]), ("mnist-matching", [1e3, 1.5])])
def test_students_begin_at_levels_of_their_teachers(teacher: str, sigmas: list[float]) -> None:
    settings = {"architecture": "consistency-model", "init": teacher, "model": {"sigmas": sigmas}}
    objective = make_objective(
        recipe(objective="consistency-distillation", schedule=SCHEDULE | {"steps": 1}, **settings)
    )
    assert objective.shipped(objective.build()).config.sigmas == tuple(sigmas)
