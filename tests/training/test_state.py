"""The averaged copy of the weights."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

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
