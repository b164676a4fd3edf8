"""Adversarial losses against closed forms: the optimal discriminator, the value of the game, gradients, penalties."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from denoise.nn.bodies import BodyConfig
from denoise.nn.discriminator import Discriminator, DiscriminatorConfig
from denoise.training.losses.adversarial import accuracy, discriminator_loss, frozen, generator_loss, r1_penalty

GRID = torch.linspace(-12, 12, 4801, dtype=torch.float64)
STEP = float(GRID[1] - GRID[0])
CONV = BodyConfig("conv", widths=(4, 6), blocks=1, activation="leaky-relu")


def value(log_p: Tensor, log_q: Tensor, logits: Tensor) -> Tensor:
    """The loss of a discriminator by quadrature: each point of the grid counts with its density under p and under q."""
    real = torch.stack([discriminator_loss(x[None], torch.tensor([-1e4], dtype=x.dtype)) for x in logits])
    fake = torch.stack([discriminator_loss(torch.tensor([1e4], dtype=x.dtype), x[None]) for x in logits])
    return STEP * (log_p.exp() @ real + log_q.exp() @ fake)


def test_the_optimal_discriminator_is_the_ratio_of_densities() -> None:
    grid = GRID[::48]
    log_p, log_q = Normal(-1.0, 1.0).log_prob(grid), Normal(1.5, 2.0).log_prob(grid)
    logits = torch.zeros_like(grid, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 48 * value(log_p, log_q, logits)
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = log_p.exp() / (log_p.exp() + log_q.exp())
    is_probable = (log_p.exp() + log_q.exp()) > 1e-3
    torch.testing.assert_close(logits.detach().sigmoid()[is_probable], expected[is_probable], atol=1e-3, rtol=0)


@pytest.mark.parametrize("mean", [0.0, 2.0])
def test_the_value_of_the_game_is_minus_log_4_and_twice_the_divergence(mean: float) -> None:
    log_p, log_q = Normal(0.0, 1.0).log_prob(GRID), Normal(mean, 1.0).log_prob(GRID)
    log_mixture = torch.logaddexp(log_p, log_q) - math.log(2)
    divergences = [STEP * (log.exp() @ (log - log_mixture)) for log in (log_p, log_q)]
    jensen_shannon = 0.5 * (divergences[0] + divergences[1])
    least = value(log_p, log_q, log_p - log_q)
    assert float(-least) == pytest.approx(-math.log(4) + 2 * float(jensen_shannon), abs=1e-6)
    if mean == 0:
        assert float(-least) == pytest.approx(-math.log(4), abs=1e-6)
    assert value(log_p, log_q, log_p - log_q + 0.1) > least


@pytest.mark.parametrize(("loss", "gradient"), [("minimax", 0.0), ("non-saturating", -1.0), ("hinge", -1.0)])
def test_gradients_of_the_generator_where_the_discriminator_is_certain(loss: str, gradient: float) -> None:
    logits = torch.tensor([-30.0], requires_grad=True)  # D(G(z)) is 1e-13
    generator_loss(logits, loss).backward()  # type: ignore[arg-type]
    assert logits.grad is not None
    assert float(logits.grad) == pytest.approx(gradient, abs=1e-6)


def test_losses_are_those_of_their_formulas() -> None:
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    d_real, d_fake = real.double().sigmoid(), fake.double().sigmoid()
    cross_entropy = -d_real.log().mean() - (1 - d_fake).log().mean()
    for loss in ("minimax", "non-saturating"):
        assert float(discriminator_loss(real, fake, loss)) == pytest.approx(float(cross_entropy))  # type: ignore[arg-type]
    assert float(generator_loss(fake, "minimax")) == pytest.approx(float((1 - d_fake).log().mean()))
    assert float(generator_loss(fake, "non-saturating")) == pytest.approx(float(-d_fake.log().mean()))
    assert float(discriminator_loss(real, fake, "hinge")) == pytest.approx((0 + 2) / 2 + (1.5 + 0) / 2)
    assert float(generator_loss(fake, "hinge")) == pytest.approx(1.25)
    assert float(accuracy(real, fake)) == 0.5


def test_the_penalty_of_a_linear_discriminator_is_its_squared_norm() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(12, 1)
    x = torch.randn(5, 3, 4, requires_grad=True)
    penalty = r1_penalty(linear(x.flatten(1))[:, 0], x)
    assert float(penalty.detach()) == pytest.approx(float(linear.weight.detach().square().sum()), rel=1e-5)
    penalty.backward()
    torch.testing.assert_close(linear.weight.grad, 2 * linear.weight.detach())


def test_the_penalty_of_a_discriminator_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    body = BodyConfig("conv", widths=(4, 6), blocks=0, activation="leaky-relu")
    net = Discriminator(DiscriminatorConfig(body, 5), (1, 4, 4), classes=2).double()
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty(net(x, [0, None]), x)
    steps = 1e-6 * torch.eye(16, dtype=torch.float64).reshape(16, 1, 1, 4, 4)
    with torch.no_grad():
        slopes = torch.stack([(net(x + h, [0, None]) - net(x - h, [0, None])) / 2e-6 for h in steps])
    assert float(penalty.detach()) == pytest.approx(float(slopes.square().sum(dim=0).mean()), rel=1e-4)


def test_the_spectral_norm_of_every_layer_is_one() -> None:
    torch.manual_seed(0)
    net = Discriminator(DiscriminatorConfig(CONV, 5, spectral_norm=True), (1, 8, 8), classes=3)
    x = torch.randn(2, 1, 8, 8)
    for _ in range(200):  # a step of the power iteration each
        net(x, [0, 1])
    layers = {
        name.removesuffix(".parametrizations.weight.original") for name, p in net.named_parameters() if p.ndim > 1
    }
    assert len(layers) == 9  # two of each of the two residual blocks, patches, halving, features, logit, classes
    for name in layers:  # the matrices of all parameters: none is left out
        singular_values = torch.linalg.svdvals(net.get_submodule(name).weight.detach().flatten(1))  # type: ignore[operator]
        assert float(singular_values[0]) == pytest.approx(1, abs=1e-3)
    assert {name.rpartition(".")[2] for name, p in net.named_parameters() if p.ndim == 1} == {"bias"}
    plain = Discriminator(DiscriminatorConfig(CONV, 5), (1, 8, 8), classes=3)
    weights = [p.detach().flatten(1) for p in plain.parameters() if p.ndim > 1]
    assert any(abs(float(torch.linalg.matrix_norm(weight, 2)) - 1) > 0.1 for weight in weights)


def test_the_logit_is_linear_in_the_vector_of_its_condition() -> None:
    torch.manual_seed(0)
    net = Discriminator(DiscriminatorConfig(CONV, 5), (1, 8, 8), classes=3, timesteps=2)
    x = torch.randn(2, 1, 8, 8)
    features = nn.functional.leaky_relu(net.encoder(x), 0.2)
    vectors = net.projection.weight.reshape(2, 4, 5)  # type: ignore[union-attr]  # three classes and none, each timestep
    difference = net(x, [2, 0], torch.tensor([1, 0])) - net(x)
    expected = torch.stack(
        [features[0] @ (vectors[1, 2] - vectors[0, 3]), features[1] @ (vectors[0, 0] - vectors[0, 3])]
    )
    torch.testing.assert_close(difference, expected)
    for labels in ([3, 0], [-1, 0]):  # rows of another condition
        with pytest.raises(ValueError, match="classes from 0 to 2"):
            net(x, labels)


def test_a_frozen_discriminator_has_gradients_for_its_inputs_alone() -> None:
    torch.manual_seed(0)
    net = Discriminator(DiscriminatorConfig(CONV, 5, spectral_norm=True), (1, 8, 8))
    net.eval()
    x = torch.randn(2, 1, 8, 8, requires_grad=True)
    logits = frozen(net)(x)
    torch.testing.assert_close(logits, net(x))
    logits.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("loss", [discriminator_loss, generator_loss])
def test_unknown_losses_are_refused(loss: Any) -> None:
    logits = [torch.zeros(2)] * (2 if loss is discriminator_loss else 1)
    with pytest.raises(ValueError, match="loss is 'wasserstein'; expected one of non-saturating, minimax, hinge"):
        loss(*logits, "wasserstein")
