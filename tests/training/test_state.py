"""The averaged copy of the weights."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from denoise.training.recipe import Schedule
from denoise.training.state import TrainingState, changed_settings


def test_the_average_has_the_buffers_of_the_module() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ema = copy.deepcopy(module).requires_grad_(False)
    trainer: Any = SimpleNamespace(fabric=SimpleNamespace(world_size=1))
    recipe: Any = SimpleNamespace(schedule=Schedule(steps=10, ema=0.9))
    state = TrainingState(trainer, module, ema, recipe, None)
    start = module[0].weight.detach().clone()
    module(5 + torch.randn(64, 3))
    with torch.no_grad():
        module[0].weight.add_(1.0)
    state.advance()
    statistics = dict(module.named_buffers())
    assert statistics["1.running_mean"].abs().max() > 0
    for name, buffer in ema.named_buffers():
        assert torch.equal(buffer, statistics[name])
    torch.testing.assert_close(ema[0].weight, start + 1 - 0.1)  # at the first step, the decay is 1 / 10


def test_changed_settings_name_what_differs() -> None:
    before = {"name": "a", "schedule": {"steps": 5, "batch": 2}, "image": None, "sources": ["x"], "former": 1}
    after = {"name": "a", "schedule": {"steps": 9, "batch": 2}, "image": {"patch": 24}, "sources": ["x"]}
    assert changed_settings(before, before) == []
    assert changed_settings(before, after) == [
        'image = {"patch": 24}, before null',
        "schedule.steps = 9, before 5",
    ]


def test_changed_settings_of_a_model_are_those_that_its_recipe_states() -> None:
    speech = {"snr_db": [0, 20]}
    before = {"model": {"net": {"widths": [8], "blocks": 2}, "guidance": 2.0}, "classes": {"speech": speech}}
    after = {"model": {"net": {"widths": [8]}, "classes": 3}, "classes": {"speech": speech | {"added": 1}, "music": {}}}
    assert changed_settings(before, after) == [
        "classes.music = {}, before null",
        "model.classes = 3, before null",
        "model.guidance = null, before 2.0",
        "model.net.blocks = null, before 2",
    ]


def test_a_checkpoint_with_the_keys_of_an_earlier_release_is_of_the_same_recipe(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    recipe = {"model": {"memory": 8}, "schedule": {"clip": 1.0}}
    stored = {"ema": module.state_dict(), "step": 3, "seconds": 1.0, "recipe": json.dumps(recipe)}
    fabric = SimpleNamespace(load=lambda *_, **__: stored, is_global_zero=True)
    trainer: Any = SimpleNamespace(fabric=fabric, stateful=dict)
    (tmp_path / "checkpoint.pt").touch()

    def resume(width: int) -> int:
        settings = {"model": {"full_hidden": width}, "schedule": {"grad_clip": 1.0}}
        recipe: Any = SimpleNamespace(schedule=Schedule(steps=10), asdict=lambda: settings)
        state = TrainingState(trainer, module, module, recipe, None)
        state.open(tmp_path / "checkpoint.pt", resume=True)
        return state.step

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resume(8) == 3
    with pytest.warns(UserWarning, match=r"another recipe: model\.full_hidden = 9, before 8\."):
        resume(9)
