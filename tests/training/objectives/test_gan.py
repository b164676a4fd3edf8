"""A generative adversarial network as an objective: two optimizers, several critic steps, a critic that is not shipped.

The loop is not edited: the objective is a class and a line of `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from denoise import registry
from denoise.config import config, parse
from denoise.errors import ConfigError
from denoise.protocols import DEFAULT_OPTIONS, Label, SamplingOptions
from denoise.training.data import Batch
from denoise.training.loop import train
from denoise.training.objectives import OBJECTIVES, StepResult
from denoise.training.objectives.base import make_optimizer
from denoise.training.objectives.signals import SignalObjective
from denoise.training.recipe import Recipe, Schedule
from denoise.training.trainer import Trainer

CRITIC_STEPS = 3  # for each step of the generator
MEAN, STD = 1.5, 0.3


@config
class MLPGeneratorConfig:
    """Signals of (1, time) samples from noise of ``noise`` numbers."""

    time: int
    noise: int = 3


class MLPGenerator(nn.Module):
    """A generator of waveforms, as a `denoise.protocols.Prior`."""

    classes, text = 0, False
    sampling_options: frozenset[str] = frozenset()

    def __init__(self, config: MLPGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.event_shape = torch.Size([1, config.time])
        self.net = nn.Sequential(nn.Linear(config.noise, 32), nn.ELU(), nn.Linear(32, config.time))

    def forward(self, noise: Tensor) -> Tensor:
        return self.net(noise)[:, None]

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        return self(torch.randn(n, self.config.noise, generator=generator))


class GANModule(nn.Module):
    """Generator and critic."""

    def __init__(self, generator: MLPGenerator) -> None:
        super().__init__()
        self.generator = generator
        self.critic = nn.Sequential(nn.Flatten(), nn.Linear(generator.config.time, 32), nn.ELU(), nn.Linear(32, 1))

    def sample(self, n: int) -> Tensor:
        return self.generator(torch.randn(n, self.generator.config.noise))


class GAN(SignalObjective):
    """The non-saturating loss, with one step of the generator after `CRITIC_STEPS` of the critic."""

    partial_backward = True

    def build(self) -> nn.Module:
        generator = super().build()
        assert isinstance(generator, MLPGenerator)
        return GANModule(generator)

    def shipped(self, module: Any) -> Any:
        return module.generator

    def configure_optimizers(self, module: Any, schedule: Schedule) -> list[Optimizer]:
        rate, parameters = 2 * schedule.learning_rate, module.critic.parameters()
        critic = torch.optim.AdamW(parameters, lr=rate, betas=(0.5, 0.9), weight_decay=10.0)  # decay damps oscillations
        return [make_optimizer(module.generator, schedule), critic]

    def critic_loss(self, module: Any, batch: Batch) -> tuple[Tensor, Any]:
        real, fake = module.critic(batch.clean), module.critic(module.sample(len(batch.clean)).detach())
        accuracy = 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean())
        softplus = nn.functional.softplus
        return softplus(-real).mean() + softplus(fake).mean(), lambda: {"critic": accuracy}

    def generator_loss(self, module: Any, batch: Batch) -> Tensor:
        return nn.functional.softplus(-module.critic(module.sample(len(batch.clean)))).mean()

    def step(self, trainer: Trainer, batch: Batch) -> StepResult:
        loss, metrics = trainer.forward(lambda module: self.critic_loss(module, batch))
        norm = trainer.minimise(loss, optimizer=1)
        if trainer.step % CRITIC_STEPS == CRITIC_STEPS - 1:
            loss = trainer.forward(lambda module: self.generator_loss(module, batch))
            norm = trainer.minimise(loss, optimizer=0)
        return StepResult(loss, norm, metrics)


class StoppedError(Exception):
    """Raised in place of a kill."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "normal.npz", signals=rng.normal(MEAN, STD, (2000, 4)).astype(np.float32))
    return tmp_path


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    monkeypatch.setitem(OBJECTIVES, "gan", GAN)
    for table in (registry.PRIORS, registry.ARCHITECTURES):
        monkeypatch.setitem(table, "mlp-generator", (__name__, "MLPGenerator"))

    def make(**schedule: Any) -> Recipe:
        values = {
            "name": "gan",
            "architecture": "mlp-generator",
            "modality": "audio",
            "objective": "gan",
            "model": {"time": 4},
            "examples": {"files": ["normal.npz"], "sample_rate": 8000},
            "schedule": {"steps": 12, "batch": 64, "learning_rate": 1e-2, "warmup": 1, "log_every": 1} | schedule,
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
    assert {"loss", "critic", "grad_norm"} <= rows[-1].keys()
    model, card = registry.load(tmp_path / "run/gan.safetensors")
    assert isinstance(model, MLPGenerator)  # which loading checks to be all of the file
    assert (card.kind, card.shape) == ("prior", (1, 4))
    assert card.parameters == sum(p.numel() for p in model.parameters())
    untrained = MLPGenerator(MLPGeneratorConfig(4))
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
        assert changed == ([True] * 3 if "critic" in name else [False, True, False]), name


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
    assert {"model", "ema", "optimizer", "optimizer2", "step", "seconds"} == a.keys()
    for key in ("model", "ema", "optimizer", "optimizer2"):
        assert numbers(a[key]) == numbers(b[key])


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


def test_an_objective_of_another_module_is_refused(recipe: Callable[..., Recipe], data: Path, tmp_path: Path) -> None:
    wrong = parse(Recipe, recipe().asdict() | {"objective": "likelihood"}, "test")
    with pytest.raises(ConfigError, match="needs a prior of type HasLogProb"):
        run(wrong, data, tmp_path / "run")
