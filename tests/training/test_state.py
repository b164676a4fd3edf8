"""The averaged copy of the weights."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from denoise.training.recipe import Schedule
from denoise.training.state import TrainingState


def test_the_average_has_the_buffers_of_the_module() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ema = copy.deepcopy(module).requires_grad_(False)
    trainer: Any = SimpleNamespace(fabric=SimpleNamespace(world_size=1))
    state = TrainingState(trainer, module, ema, Schedule(steps=10, ema=0.9), None)
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
