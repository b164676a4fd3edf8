"""Multiscale flows: probabilities of levels, dequantisation, preprocessing, what a configuration refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from denoise.errors import ConfigError
from denoise.nn.invertible import InvertibleConv
from denoise.priors.multiscale_flow import (
    LEVELS,
    MultiscaleFlow,
    MultiscaleFlowConfig,
    build_multiscale_flow,
    seeded_probes,
)


def build(shape: tuple[int, ...], noise: float = 0.2, **settings: Any) -> Any:
    torch.manual_seed(0)
    settings = {"levels": 1, "steps": 2, "width": 8, "blocks": 1, "bins": 3} | settings
    flow = build_multiscale_flow(MultiscaleFlowConfig(shape, **settings))
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(noise * torch.randn(p.shape))
    return flow.eval()


@pytest.mark.parametrize("margin", [0.05, 0.0])
def test_probabilities_of_all_levels_sum_to_one(margin: float) -> None:
    flow = build((1, 2), 0.05, dequantisation="uniform", margin=margin, mean=0.5, scale=0.2)
    levels = torch.arange(LEVELS) / (LEVELS - 1)
    states = torch.cartesian_prod(levels, levels).view(-1, 1, 2)
    nats = flow.log_prob_bound(states, 1, generator=torch.Generator().manual_seed(0))
    assert float(nats.double().exp().sum()) == pytest.approx(float(_mass_within_levels(flow)), abs=0.01)


def test_variational_and_uniform_dequantisation_estimate_the_same_probability() -> None:
    flow = build((1, 2), 0.1, dequantisation="variational").double()
    x = torch.tensor([[[100, 57]]], dtype=torch.float64) / (LEVELS - 1)
    side = (torch.arange(60, dtype=torch.float64) + 0.5) / 60
    cell = torch.cartesian_prod(side, side).view(-1, 1, 2)
    with torch.no_grad():
        uniform = flow.density(((LEVELS - 1) * x + cell) / LEVELS).exp().mean()
        noise = 16 * cell - 8
        u, log_q = flow.dequantiser(x.expand(len(noise), 1, 2), noise)
        log_normal = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(dim=(1, 2))
        weights = flow.density(((LEVELS - 1) * x + u) / LEVELS) - log_q + log_normal
        variational = (16 / 60) ** 2 * weights.exp().sum()
    torch.testing.assert_close(variational, uniform, rtol=5e-3, atol=0)


def _mass_within_levels(flow: MultiscaleFlow) -> Tensor:
    """The mass of the density where the levels and their noise lie: a flow is not bound to it."""
    noise = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(1))
    v = ((LEVELS - 1) * flow.decode_noise(noise) + 0.5) / LEVELS
    return ((v >= 0) & (v < 1)).all(dim=(1, 2)).float().mean()


def test_more_draws_make_the_bound_tighter() -> None:
    flow = build((1, 4, 4), dequantisation="uniform", noise=0.5)
    x = (torch.rand(64, 1, 4, 4) * (LEVELS - 1)).round() / (LEVELS - 1)
    one, many = (float(flow.log_prob_bound(x, n, generator=torch.Generator().manual_seed(2)).mean()) for n in (1, 64))
    assert one < many


def test_the_noise_of_the_variational_dequantiser_has_its_density() -> None:
    flow = build((1, 2), 0.1, dequantisation="variational")
    x = torch.tensor([[[0.3, 0.7]]])
    noise = torch.randn(1, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dequantiser = flow.dequantiser.double()
    u, log_q = dequantiser(x.double(), noise)
    jacobian = torch.autograd.functional.jacobian(
        lambda flat: dequantiser(x.double(), flat.view(1, 1, 2))[0].flatten(), noise.flatten()
    )
    expected = -0.5 * noise.square().sum() - math.log(2 * math.pi) - torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(log_q[0], expected)
    assert ((u > 0) & (u < 1)).all()
    assert not torch.equal(u, dequantiser(1 - x.double(), noise)[0])


def test_the_logit_has_its_jacobian() -> None:
    flow = build((1, 2), margin=0.1, dequantisation="none")
    v = torch.rand(3, 1, 2, dtype=torch.float64)
    y, ladj = flow._to_reals(v)
    torch.testing.assert_close(y, torch.logit(0.1 + 0.8 * v))
    torch.testing.assert_close(flow._from_reals(y), v)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda a: flow._to_reals(a.view(1, 1, 2))[0].flatten(), v[i, 0])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], ladj[i])


@pytest.mark.parametrize("kind", ["affine", "residual"])
def test_the_level_of_noise_that_is_encoded_is_decoded(kind: Any) -> None:
    flow = build((3, 8, 8), 0.05, kind=kind, levels=2)
    x = torch.randint(LEVELS, (4, 3, 8, 8)) / (LEVELS - 1)
    torch.testing.assert_close(flow.decode_noise(flow.encode_noise(x)), x, atol=1e-4, rtol=0)


def test_estimates_follow_their_generator_and_leave_the_global_one_alone() -> None:
    flow = build((2, 64), kind="residual", dequantisation="none")
    x = torch.rand(3, 2, 64)

    def estimate(seed: int) -> Tensor:
        return flow.estimate_log_prob(x, generator=torch.Generator().manual_seed(seed))

    state = torch.get_rng_state()
    assert torch.equal(estimate(0), estimate(0))
    assert not torch.equal(estimate(0), estimate(1))
    assert torch.equal(state, torch.get_rng_state())
    with seeded_probes(None):
        torch.rand(1)
    exact = build((2, 16), kind="residual", dequantisation="none")
    y = torch.rand(3, 2, 16)
    reference = exact.estimate_log_prob(y)
    for layer in exact.modules():
        if hasattr(layer, "is_exact"):
            layer.is_exact = False
    draws = exact.estimate_log_prob(y.repeat(500, 1, 1), generator=torch.Generator().manual_seed(0)).view(500, 3)
    assert ((draws.mean(dim=0) - reference).abs() < 4 * draws.std(dim=0) / 500**0.5 + 1e-3).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (1, 28, 28), "levels": 3}, r"levels is 3, shape \(1, 28, 28\)"),
        ({"shape": (28,)}, "expected \\(channels, height, width\\)"),
        ({"shape": (1, 8), "margin": 0.5}, "margin is 0.5; expected 0, or 0.0001 to below 0.5"),
        ({"shape": (1, 8), "bins": 1}, "bins of 2 to 256"),
        ({"shape": (1, 8), "min_slope": 1.0}, "min_slope is 1; expected more than 0 and less than 1"),
        ({"shape": (1, 8), "steps": 0}, "steps of 1 to 1000"),
        ({"shape": (1, 8), "kind": "residual", "classes": 2}, "residual layers take no condition"),
    ],
)
def test_configurations_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MultiscaleFlowConfig(**({"levels": 1} | settings))


def test_invertible_convolutions_are_not_rounded_to_bfloat16() -> None:
    flow = build((2, 8, 8), 0.05, masks="channels", mixing=True, steps=4)
    for layer in flow.modules():
        if isinstance(layer, InvertibleConv):
            identity = torch.eye(layer.signs.numel())[..., None, None]
            with torch.autocast("cpu", torch.bfloat16):
                matrix, ladj = layer(None).call_and_ladj(identity)
                torch.testing.assert_close(layer(None).inv(matrix), identity)
            torch.testing.assert_close(torch.linalg.slogdet(matrix[..., 0, 0])[1], ladj[0])


def test_continuous_signals_are_not_clamped_by_default() -> None:
    flow = build((1, 8), 0.05, dequantisation="none")
    x = torch.linspace(-1, 1, 8).view(1, 1, 8)
    torch.testing.assert_close(flow.decode_noise(flow.encode_noise(x)), x)


def test_training_adds_the_dither_and_densities_do_not() -> None:
    flow = build((1, 8), 0.0, levels=1, dequantisation="none", dither=0.5, scale=2.0)
    x = torch.zeros(20_000, 1, 8)
    draws = flow.draw_log_prob(x, generator=torch.Generator().manual_seed(0))
    identity = flow.density(x[:1])  # of an untrained flow, which is linear: E x^2 / scale^2 = 1 / 16
    assert float((identity - draws.mean()).detach()) == pytest.approx(0.5 * 8 / 16, rel=0.05)
    with pytest.raises(ConfigError, match=r"dither is 0\.5; expected at least 0, and 0 of signals"):
        MultiscaleFlowConfig((1, 8), levels=1, dither=0.5)


def test_affine_couplings_scale_by_no_more_than_their_limit() -> None:
    flow = build((2, 8), 3.0, masks="channels", mixing=False, steps=1, dequantisation="none", min_slope=0.5)
    actnorm = float(next(p for name, p in flow.named_parameters() if name.endswith("log_scale")).detach().sum()) * 4
    x = torch.randn(50, 2, 8, generator=torch.Generator().manual_seed(0))
    ladj = flow.density(x).detach() + 0.5 * (flow.encode_noise(x).square() + math.log(2 * math.pi)).sum(dim=1)
    limit = 8 * math.log(2)  # of half of 16 entries
    assert (ladj - actnorm).abs().max() <= limit
    assert (ladj - actnorm).abs().max() > 0.8 * limit
