"""Generative adversarial training: two optimizers, several discriminator steps, a discriminator that is not shipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from denoise import registry
from denoise.config import parse
from denoise.errors import ConfigError
from denoise.priors.gan import GAN, GANConfig
from denoise.training.loop import train
from denoise.training.mode_coverage import mode_coverage
from denoise.training.objectives import make_objective
from denoise.training.recipe import Recipe

CRITIC_STEPS = 3  # for each step of the generator
MEAN, STD = 1.5, 0.3
DENSE = {"kind": "dense", "widths": [32]}


class StoppedError(Exception):
    """Raised in place of a kill."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "normal.npz", signals=rng.normal(MEAN, STD, (2000, 4)).astype(np.float32))
    return tmp_path


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    def make(**schedule: Any) -> Recipe:
        values = {
            "name": "gan",
            "architecture": "gan",
            "modality": "audio",
            "objective": "gan",
            "model": {"shape": [1, 4], "latent": 3, "output": "linear", "body": DENSE},
            "adversary": {
                "steps": CRITIC_STEPS,
                "rate_ratio": 2.0,
                "betas": (0.5, 0.9),
                "discriminator": {"body": DENSE},
            },
            "examples": {"files": ["normal.npz"], "sample_rate": 8000},
            "schedule": {"steps": 12, "batch": 64, "learning_rate": 1e-2, "warmup": 1, "log_every": 1}
            | {"weight_decay": 1.0}  # damps oscillations
            | schedule,
        }
        return parse(Recipe, values, "test")

    return make


def run(
    recipe: Recipe, data: Path, out: Path, report: Callable[[dict[str, Any]], None] | None = None, resume: bool = False
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    train(recipe, data, out, device="cpu", precision="32-true", report=report or rows.append, resume=resume)
    return rows


def test_a_gan_is_trained_by_the_loop_and_ships_its_generator(
    recipe: Callable[..., Recipe], data: Path, tmp_path: Path
) -> None:
    rows = run(recipe(steps=300, log_every=100, ema=0.95), data, tmp_path / "run")
    assert {"loss", "discriminator_accuracy", "generator_loss", "grad_norm"} <= rows[-1].keys()
    model, card = registry.load(tmp_path / "run/gan.safetensors")
    assert isinstance(model, GAN)  # which loading checks to be all of the file
    assert (card.kind, card.shape) == ("prior", (1, 4))
    assert card.parameters == sum(p.numel() for p in model.parameters())
    untrained = GAN(GANConfig((1, 4), latent=3, output="linear"))
    samples, others = (m.sample(2000, generator=Generator().manual_seed(0)) for m in (model, untrained))
    assert abs(float(samples.mean()) - MEAN) < 0.2 < abs(float(others.mean()) - MEAN)
    assert [path.suffix for path in (tmp_path / "run/samples").iterdir()] == [".wav"]


def test_the_generator_takes_one_step_after_several_of_the_critic(
    recipe: Callable[..., Recipe], data: Path, tmp_path: Path
) -> None:
    states = []
    for steps in range(1, CRITIC_STEPS + 2):

        def stop(row: dict[str, Any], last: int = steps) -> None:
            if row["step"] == last + 1:
                raise StoppedError

        out = tmp_path / str(steps)
        with pytest.raises(StoppedError):
            run(recipe(steps=100, checkpoint_every=steps), data, out, stop)
        states.append(torch.load(out / "checkpoint.pt", weights_only=True)["model"])
    changes = {name: [not torch.equal(a[name], b[name]) for a, b in pairwise(states)] for name in states[0]}
    for name, changed in changes.items():
        assert changed == ([True] * 3 if "discriminator" in name else [False, True, False]), name


def test_a_resumed_gan_has_every_bit_of_an_uninterrupted_one(
    recipe: Callable[..., Recipe], data: Path, tmp_path: Path
) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["step"] == 7:
            raise StoppedError

    schedule = {"steps": 12, "checkpoint_every": 5}
    rows = run(recipe(**schedule), data, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run(recipe(**schedule), data, tmp_path / "resumed", stop)
    resumed = run(recipe(**schedule), data, tmp_path / "resumed", resume=True)
    assert [row["loss"] for row in resumed] == [row["loss"] for row in rows[5:]]
    a, b = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "resumed"))
    assert {"model", "ema", "optimizer", "optimizer2", "step", "seconds", "recipe"} == a.keys()
    for key in ("model", "ema", "optimizer", "optimizer2"):
        assert numbers(a[key]) == numbers(b[key])


def test_what_is_logged_does_not_change_the_weights(recipe: Callable[..., Recipe], data: Path, tmp_path: Path) -> None:
    states = []
    for log_every in (1, 12):
        values = recipe(log_every=log_every).asdict()
        values["adversary"]["discriminator"]["spectral_norm"] = True
        out = tmp_path / str(log_every)
        run(parse(Recipe, values, "test"), data, out)
        states.append(torch.load(out / "checkpoint.pt", weights_only=True)["model"])
    assert any(name.endswith("._u") for name in states[0])
    assert numbers(states[0]) == numbers(states[1])


def numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: numbers(inner) for key, inner in value.items()}
    return value.tolist() if isinstance(value, Tensor) else value


def test_each_optimizer_keeps_its_own_learning_rate(recipe: Callable[..., Recipe], data: Path, tmp_path: Path) -> None:
    rows = run(recipe(steps=4), data, tmp_path / "run")
    state = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    generator, critic = (state[key]["param_groups"][0]["lr"] for key in ("optimizer", "optimizer2"))
    assert generator == rows[-1]["lr"]
    assert critic == pytest.approx(2 * generator)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no section": ({"adversary": None}, "needs an .adversary. section"),
    "another prior": ({"architecture": "flow", "model": {"shape": [1, 4]}}, "builds a Flow"),
    "another objective": ({"objective": "likelihood"}, "needs a prior of type HasLogProb"),
    "muon": ({"schedule": {"steps": 1, "optimizer": "muon"}}, "trained by adamw"),
    "no labels": ({"model": {"shape": [1, 4], "classes": 2}}, "need examples.labels"),
    "another shape": ({"model": {"shape": [1, 5]}}, r"examples have shape .* Fix model\.shape\."),
    "blocks under R1": (
        {
            "model": {"shape": [1, 4, 4]},
            "adversary": {"r1": 1.0, "discriminator": {"body": {"kind": "conv", "widths": [4], "blocks": 1}}},
        },
        "differentiates twice",
    ),
    "a loss that it lacks": ({"adversary": {"loss": "wasserstein"}}, "adversary.loss"),
    "no steps": ({"adversary": {"steps": 0}}, "expected steps of at least 1"),
    "betas": ({"adversary": {"betas": [0.5, 1.0]}}, "expected 0 to below 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_recipes_that_do_not_fit_are_refused_in_one_line(
    name: str, recipe: Callable[..., Recipe], data: Path, tmp_path: Path
) -> None:
    changes, reason = REFUSED[name]
    with pytest.raises(ConfigError, match=reason) as error:
        run(parse(Recipe, recipe().asdict() | changes, "test"), data, tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("classes", [0, 3])
def test_classes_that_the_classifier_lacks_are_refused(
    classes: int, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    np.savez(tmp_path / "normal.npz", signals=np.zeros((9, 4), np.float32), labels=np.arange(9) % 6)
    values = recipe().asdict()
    values["examples"]["labels"], values["model"]["classes"] = "labels", classes
    values["adversary"]["coverage"] = {"classes": 3, "body": DENSE}
    with pytest.raises(ConfigError, match="6 classes") as error:
        run(parse(Recipe, values, "test"), tmp_path, tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 2000)
    signals = np.where(labels, 1.0, -1.0)[:, None] + rng.normal(0, 0.1, (2000, 4))
    np.savez(tmp_path / "normal.npz", signals=signals.astype(np.float32), labels=labels)
    return tmp_path


DIFFUSION = {"timesteps": 2, "net": {"kind": "mlp", "widths": [32], "blocks": 1, "embedding": 16}}


@pytest.mark.parametrize(
    ("loss", "stabiliser", "diffusion"),
    [
        ("minimax", {}, {}),
        ("non-saturating", {"r1": 0.1}, {}),
        ("hinge", {"spectral_norm": True}, {}),
        ("non-saturating", {"r1": 0.1}, DIFFUSION),
    ],
)
def test_a_conditional_gan_learns_its_classes_with_each_loss(
    loss: str,
    stabiliser: dict[str, Any],
    diffusion: dict[str, Any],
    recipe: Callable[..., Recipe],
    two_classes: Path,
    tmp_path: Path,
) -> None:
    values = recipe(steps=400, log_every=400, learning_rate=3e-3, weight_decay=0.0, ema=0.9).asdict()
    values["model"] |= {"classes": 2}
    if diffusion:
        del values["model"]["body"]
        values |= {"architecture": "ddgan", "model": values["model"] | diffusion}
    values["examples"]["labels"] = "labels"
    r1 = stabiliser.get("r1", 0.0)
    discriminator = {"body": DENSE, "spectral_norm": "spectral_norm" in stabiliser}
    coverage = {"classes": 2, "body": DENSE}
    values["adversary"] = {"loss": loss, "r1": r1, "discriminator": discriminator, "coverage": coverage}
    rows = run(parse(Recipe, values, "test"), two_classes, tmp_path / "run")
    assert (rows[-1]["modes"], rows[-1]["entropy_bits"]) == (2, pytest.approx(1, abs=0.02))
    assert rows[-1]["recognised"] > 0.95
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["modes"] == 2
    model, card = registry.load(tmp_path / "run/gan.safetensors")
    assert card.classes == ("0", "1")
    samples = [model.sample(200, label=i, generator=Generator().manual_seed(0)) for i in (0, 1)]
    assert [float(x.mean()) for x in samples] == pytest.approx([-1, 1], abs=0.3)
    assert min(float(x.std(dim=0).mean()) for x in samples) > 0.03  # of 0.1: no class has collapsed to a point


class Constant(nn.Module):
    """A generator whose signals are all alike: its modes have collapsed."""

    classes, noise_shape = 0, torch.Size([1])

    def forward(self, noise: Tensor, labels: Any) -> Tensor:
        return torch.ones(len(noise), 4)


class Uniform(Constant):
    """A generator of unit vectors of four kinds, which follow from the noise."""

    def forward(self, noise: Tensor, labels: Any) -> Tensor:
        quarter = (4 * torch.distributions.Normal(0, 1).cdf(noise[:, 0])).long().clamp(0, 3)
        return 9 * torch.eye(4)[quarter]


class Conditional(Constant):
    """A generator of unit vectors of the requested class, but for the last two of its four classes, which it swaps."""

    classes = 4

    def forward(self, noise: Tensor, labels: Any) -> Tensor:
        return 9 * torch.eye(4)[[0, 1, 3, 2]][torch.tensor(labels)]


@pytest.mark.parametrize(
    ("generator", "modes", "bits", "recognised"),
    [(Constant(), 1, 0.0, 0.0), (Uniform(), 4, 2.0, 1.0), (Conditional(), 4, 2.0, 0.5)],  # equal logits are no class
)
def test_mode_coverage_tells_collapse_from_diversity(
    generator: nn.Module, modes: int, bits: float, recognised: float
) -> None:
    torch.manual_seed(0)

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prior, self.classifier = generator, nn.Linear(4, 4)
            with torch.no_grad():
                self.classifier.weight.copy_(torch.eye(4))
                self.classifier.bias.copy_(torch.tensor([1e-3, 0, 0, 0]))

        def generate(self, labels: Any, n: int) -> Tensor:
            return self.prior(torch.randn(n, 1), labels)

    coverage = mode_coverage(Module(), 4)
    assert int(coverage["modes"]) == modes
    assert float(coverage["entropy_bits"]) == pytest.approx(bits, abs=0.02)
    assert float(coverage["recognised"]) == recognised


def test_the_recipes_of_gans_are_read_and_fit(tmp_path: Path) -> None:
    from denoise.training.recipe import load_recipe

    folder = Path(__file__).parents[3] / "recipes"
    for file in (
        "mnist-gan/recipe.toml",
        "gan-mode-collapse/recipe.toml",
        "gan-mode-collapse/cure.toml",
        "mnist-ddgan/recipe.toml",
    ):
        objective = make_objective(load_recipe(folder / file))
        module = objective.build()
        objective.validate(module)
        assert 2 * sum(p.numel() for p in objective.shipped(module).parameters()) < 1 << 20  # bytes in float16
