"""The backbone of sets of points, against a naive loop and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from denoise.errors import ConfigError
from denoise.nn import sets
from denoise.nn.sets import BANDWIDTHS, SetTransformer, local_statistics
from denoise.nn.unet import BackboneConfig


def network(width: int = 16) -> SetTransformer:
    torch.manual_seed(0)
    net = SetTransformer(width, blocks=2, inducing=4, embedding=8, channels=3)
    with torch.no_grad():  # output layers are initialised with zeros
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return net


def cloud(n: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, n, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("block", [1, 24, 60, 1000])
def test_local_statistics_are_those_of_a_naive_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "BLOCK", block)  # 1, 2, 5 and all 12 points at a time
    points = cloud(12, 1)[0].T.double()
    features, directions = local_statistics(points)
    for i, point in enumerate(points):
        expected, vectors = [], []
        for h in BANDWIDTHS:
            weights = torch.stack([torch.exp(-(q - point).square().sum() / (2 * h**2)) for q in points])
            mean = (weights[:, None] * points).sum(dim=0) / weights.sum()
            rows = [w * torch.outer(q - mean, q - mean) for w, q in zip(weights, points, strict=True)]
            covariance = torch.stack(rows).sum(dim=0) / weights.sum() / h**2
            offset = (mean - point) / h
            expected += [(weights.sum() / len(points)).log()[None], offset, covariance.flatten()]
            vectors += [offset, covariance @ offset, covariance @ covariance @ offset]
        torch.testing.assert_close(features[i], torch.cat(expected), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(directions[i], torch.stack(vectors), atol=1e-5, rtol=1e-5)


def test_a_permutation_of_the_points_permutes_the_output() -> None:
    net, level, condition = network(), torch.tensor([0.1, -0.5]), torch.randn(2, 8)
    for n in (1, 7, 50):
        x, order = cloud(n), torch.randperm(n)
        output = net(x, level, condition)
        assert output.shape == x.shape
        torch.testing.assert_close(net(x[:, :, order], level, condition), output[:, :, order], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(net(x[:, :, :40], level, condition), output[:, :, :40])  # points depend on each other


def test_gradients_are_those_of_finite_differences() -> None:
    net, level, condition = network(8), torch.zeros(1), torch.zeros(1, 8)
    x, direction = cloud(9, 1), cloud(9, 2)[1:]
    x, step, weights = x.requires_grad_(), 1e-3, cloud(9, 3)[2:]
    (gradient,) = torch.autograd.grad((weights * net(x, level, condition)).sum(), x)
    with torch.no_grad():
        difference = net(x + step * direction, level, condition) - net(x - step * direction, level, condition)
    slope = float((weights * difference).sum()) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=5e-3)


class LargestTensor(TorchDispatchMode):
    """Records the number of entries of the largest result of an operation."""

    size = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.size = max(self.size, result.numel())
        return result


def test_memory_is_not_quadratic_in_the_number_of_points() -> None:
    net, x = network(8), cloud(1500, 1).requires_grad_()
    with LargestTensor() as largest:
        net(x, torch.zeros(1), torch.zeros(1, 8)).square().sum().backward()
    assert 1500 * 8 < largest.size <= sets.BLOCK < 1500**2 / 10
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(("width", "heads"), [(8, 1), (40, 1), (64, 2), (96, 3), (104, 2), (200, 5)])
def test_heads_divide_any_width(width: int, heads: int) -> None:
    net, x = network(width), cloud(5)
    assert net(x, torch.zeros(2), torch.zeros(2, 8)).shape == x.shape
    assert [block.heads for block in net.blocks] == [heads, heads]


@pytest.mark.parametrize("settings", [{"widths": (32, 64)}, {"patch": 2}, {"dropout": 0.1}])
def test_settings_without_effect_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="a set has one width, no patches and no dropout"):
        BackboneConfig(**{"kind": "set", "widths": (32,)} | settings)
