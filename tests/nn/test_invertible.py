"""Invertible layers: inverses, determinants against autograd, and what each is by definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import distributed
from zuko.transforms import MonotonicAffineTransform

from denoise.nn.invertible import ActNorm, Coupling, InvertibleConv, Squeeze
from denoise.nn.residual_flow import LIPSCHITZ, InvertibleResidual, LipschitzConv


def coupling(ndim: int, mask: Any, *, is_odd: bool) -> Coupling:
    return Coupling(ndim, 4, mask, is_odd, MonotonicAffineTransform, [(), ()], width=6, blocks=1, embedding=3)


LAYERS = {
    "squeeze": Squeeze,
    "actnorm": lambda ndim: ActNorm(ndim, 4),
    "conv": lambda ndim: InvertibleConv(ndim, 4),
    "checkerboard": lambda ndim: coupling(ndim, "checkerboard", is_odd=False),
    "channels": lambda ndim: coupling(ndim, "channels", is_odd=True),
    "residual": lambda ndim: InvertibleResidual(ndim, 4, (4,) * ndim, 6, "roulette"),
}


def randomised(name: str, ndim: int) -> Any:
    torch.manual_seed(0)
    layer = LAYERS[name](ndim)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.2 * torch.randn(p.shape))
    if name == "residual":
        for _ in range(100):
            layer.g(torch.zeros(1, 4, *[4] * ndim))
    return layer.double().eval()


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_invertible_with_their_determinant(name: str, ndim: int) -> None:
    layer = randomised(name, ndim)
    x = torch.randn(3, 4, *[4] * ndim, dtype=torch.float64)
    context = torch.randn(3, 3, dtype=torch.float64)
    y, ladj = layer(context).call_and_ladj(x)
    torch.testing.assert_close(layer(context).inv(y), x, atol=1e-5, rtol=0)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(
            lambda flat, i=i: layer(context[i : i + 1])(flat.view(1, *x.shape[1:])).flatten(), x[i].flatten()
        )
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], ladj[i])


def test_squeeze_makes_channels_of_neighbours() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(Squeeze(2)(None)(x)[0, :, 0, 0], torch.tensor([0.0, 1.0, 4.0, 5.0]))
    assert torch.equal(Squeeze(1)(None)(x.view(1, 1, 16))[0, :, 1], torch.tensor([2.0, 3.0]))


@pytest.mark.parametrize("mask", ["checkerboard", "channels"])
@pytest.mark.parametrize("is_odd", [False, True])
def test_couplings_change_half_of_the_entries_by_the_others(mask: Any, is_odd: bool) -> None:
    torch.manual_seed(0)
    layer = coupling(2, mask, is_odd=is_odd)
    torch.nn.init.normal_(layer.net.last.weight)
    x, context = torch.randn(1, 4, 6, 6), torch.randn(1, 3)
    y = layer(context)(x)
    stays = y == x
    assert stays.float().mean() == 0.5
    other = torch.where(stays, x, torch.randn_like(x))
    scale = (layer(context)(other + 1) - layer(context)(other))[~stays]  # affine where the others are the same
    torch.testing.assert_close(scale.isfinite().all(), torch.tensor(True))
    moved = layer(context)(torch.where(stays, x + 0.3, x))
    assert not torch.equal(moved[~stays], y[~stays])
    torch.testing.assert_close(layer(context)(torch.where(stays, x, x + 1))[stays], x[stays])


def test_actnorm_standardises_its_first_batch_only() -> None:
    layer = ActNorm(2, 3).train()
    x = 5 + 3 * torch.randn(64, 3, 8, 8)
    y = layer(None)(x)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(dim=(0, 2, 3), correction=0), torch.ones(3))
    torch.testing.assert_close(layer(None)(2 * x), 2 * y - layer.shift * layer.log_scale.exp())


def test_actnorm_of_a_single_value_or_a_constant_is_bounded() -> None:
    for x in (torch.full((1, 4, 1), 3.0), torch.full((5, 4, 6), -2.0)):
        layer = ActNorm(1, 4)
        layer.to_noise(x, None)
        y, ladj = layer.to_noise(x + 0.1, None)
        assert y.abs().max() < 2.01  # a tenth, at most 20 times as large
        assert ladj.isfinite().all()


def test_actnorm_takes_the_first_batch_of_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [ActNorm(1, 4), ActNorm(1, 4)]
    sent: list[torch.Tensor] = []

    def broadcast(tensor: torch.Tensor, src: int) -> None:
        assert src == 0
        if len(sent) < 2:
            sent.append(tensor.clone())
        else:
            tensor.copy_(sent.pop(0))
            sent.append(tensor)

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "broadcast", broadcast)
    for layer in layers:
        layer.to_noise(torch.randn(8, 4, 6), None)
    for a, b in zip(*(layer.parameters() for layer in layers), strict=True):
        assert torch.equal(a, b)
        assert a.any()


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_the_inverse_of_a_residual_layer_converges_at_any_scale(scale: float) -> None:
    layer = randomised("residual", 1).float()
    x = scale * torch.randn(5, 4, 4)
    y = x + layer.g(x)
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    layer.g.register_forward_pre_hook(count)
    torch.testing.assert_close(layer.to_signal(y, None), x, atol=1e-5 * scale, rtol=0)
    assert calls < 200


def test_a_residual_layer_trains_after_the_batch_that_initialises_actnorm() -> None:
    torch.manual_seed(0)
    norm, layer = ActNorm(1, 4).train(), InvertibleResidual(1, 4, (4,), 6, "roulette").train()
    parameters = [*norm.parameters(), *layer.parameters()]
    for _ in range(2):
        y, ladj = norm.to_noise(3 + 5 * torch.randn(16, 4, 4), None)
        z, further_ladj = layer.to_noise(y, None)
        loss = (0.5 * z.square().flatten(1).sum(dim=1) - ladj - further_ladj).mean()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        assert all(g.isfinite().all() for g in gradients if g is not None)
        assert gradients[0].any()


def test_an_invertible_convolution_starts_as_a_rotation() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 3, 3)
    y, ladj = InvertibleConv(2, 6)(None).call_and_ladj(x)
    torch.testing.assert_close(y.square().sum(dim=1), x.square().sum(dim=1))
    torch.testing.assert_close(ladj, torch.zeros(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("ndim", [0, 1, 2])
def test_the_spectral_norm_is_bounded(ndim: int) -> None:
    torch.manual_seed(0)
    layer = LipschitzConv(ndim, 2, 3, (5,) * ndim, 3).double()
    torch.nn.init.normal_(layer.weight, std=2.0)
    layer.train()
    shape = (1, 2, *[5] * ndim)
    for _ in range(300):
        layer(torch.zeros(shape, dtype=torch.float64))
    jacobian = torch.autograd.functional.jacobian(
        lambda flat: layer.eval()(flat.view(shape)).flatten(), torch.zeros(2 * 5**ndim, dtype=torch.float64)
    )
    assert float(torch.linalg.matrix_norm(jacobian, 2)) == pytest.approx(LIPSCHITZ, rel=1e-4)


@pytest.mark.parametrize("log_det", ["series", "roulette"])
def test_estimates_of_the_determinant_are_unbiased(log_det: Any) -> None:
    torch.manual_seed(0)
    layer = InvertibleResidual(1, 2, (3,), 8, log_det, terms=40).double()
    for _ in range(50):
        layer.g(torch.zeros(1, 2, 3, dtype=torch.float64))
    for module in layer.g:
        module._iterate = lambda: None  # the layer stays as it is
    x = torch.randn(1, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        exact = layer(None).call_and_ladj(x)[1]
        layer.is_exact = False
        draws = layer(None).call_and_ladj(x.expand(20_000, -1, -1))[1] if log_det == "series" else None
        if draws is None:
            draws = torch.cat([layer(None).call_and_ladj(x.expand(100, -1, -1))[1] for _ in range(200)])
            standard_error = draws.view(200, 100).mean(dim=1).std() / 200**0.5
        else:
            standard_error = draws.std() / len(draws) ** 0.5
    assert abs(float(draws.mean() - exact)) < 4 * float(standard_error)
