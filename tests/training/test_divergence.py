"""Steps whose gradients are not finite are skipped and counted; a training of nothing else ends with an error."""

from __future__ import annotations

import itertools
import json
import sys
import tomllib
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denoise import cli
from denoise.config import parse
from denoise.errors import TrainingError
from denoise.training.loop import train
from denoise.training.objectives.prior import MaximumLikelihood
from denoise.training.recipe import Recipe

RECIPE = """
name = "tiny"
architecture = "flow"
modality = "image"
objective = "likelihood"
examples = {files = ["a.npz"]}
model = {shape = [1, 4, 4], kind = "maf"}
schedule = {steps = 30, batch = 4, warmup = 1, log_every = 10, checkpoint_every = 10}
"""
Diverge = Callable[[Container[int]], None]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "a.npz", signals=np.random.default_rng(0).random((40, 4, 4), np.float32))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def diverge(monkeypatch: pytest.MonkeyPatch) -> Diverge:
    """Make the loss of steps, counted from 1, NaN."""
    right = MaximumLikelihood.loss

    def apply(steps: Container[int]) -> None:
        count = itertools.count(1)

        def loss(self: MaximumLikelihood, module: Any, batch: Any) -> Any:
            value, metrics = right(self, module, batch)
            return value * (float("nan") if next(count) in steps else 1.0), metrics

        monkeypatch.setattr(MaximumLikelihood, "loss", loss)

    return apply


def run(data: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    recipe = parse(Recipe, tomllib.loads(RECIPE), "test")
    train(recipe, data, data / "out", device="cpu", precision="32-true", report=rows.append)
    return rows


def strict_rows(out: Path) -> list[dict[str, Any]]:
    """Rows of the log as a parser of JSON reads it that takes no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_skipped_steps_are_counted_in_the_log(data: Path, diverge: Diverge) -> None:
    diverge({1, 4, 20, 22, *range(23, 30)})
    rows = run(data)
    assert [row.get("skipped_steps") for row in rows] == [2, 1, 8]
    stored = strict_rows(data / "out")
    assert [row.get("skipped_steps") for row in stored] == [2, 1, 8]
    assert [row["loss"] is None for row in stored] == [False, True, False]  # steps 10, 20 and 30
    assert stored[1]["grad_norm"] is None
    assert (data / "out/tiny.safetensors").exists()


@pytest.mark.parametrize("steps", [range(1, 100), range(22, 100)], ids=["all", "nine of the last ten"])
def test_a_training_that_diverged_writes_no_weights(steps: range, data: Path, diverge: Diverge) -> None:
    diverge(steps)
    with pytest.raises(TrainingError, match=r"not finite in \d+ of the last 10 steps.*learning_rate") as error:
        run(data)
    assert "\n" not in str(error.value)
    assert not [*(data / "out").glob("*.safetensors")]
    assert len(strict_rows(data / "out")) == 3


def test_the_command_then_ends_with_exit_code_1(
    data: Path, diverge: Diverge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diverge(range(1, 100))
    words = ["train", str(data / "recipe.toml"), "--data", str(data), "-o", str(data / "out"), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["denoise", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert "denoise: recipe tiny: the loss or its gradient was not finite in 10 of the last 10 steps" in printed.err
    assert "skipped_steps 10" in printed.out + printed.err
