"""Autoregressive flows: the inverse, the determinant by finite differences, and mass 1."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch

from denoise.errors import ConfigError
from denoise.protocols import SamplingOptions
from denoise.registry import build as build_prior

LEVELS = 256


def build(shape: tuple[int, ...], architecture: str = "pixelcnn", scale: float = 0.3, **settings: Any) -> Any:
    """Build a random flow."""
    torch.manual_seed(0)
    network = {"architecture": architecture, "shape": shape, "features": 6, **settings}
    flow = build_prior("autoregressive-flow", {"network": network}).eval()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(scale * torch.randn_like(p))
    return flow.requires_grad_(False)


PIXELRNN = {"architecture": "pixelrnn", "hidden": 6, "layers": 1}


@pytest.mark.parametrize(
    ("shape", "settings"), [((1, 6, 5), {}), ((3, 4, 4), {"classes": 2}), ((1, 30), {}), ((1, 5, 5), PIXELRNN)]
)
def test_each_direction_undoes_the_other(shape: tuple[int, ...], settings: dict[str, Any]) -> None:
    flow = build(shape, **settings)
    label = 1 if flow.classes else None
    x = torch.randint(LEVELS, (20, *shape), generator=torch.Generator().manual_seed(1)) / (LEVELS - 1)
    decoded = flow.decode_noise(flow.encode_noise(x, label=label), label=label)
    torch.testing.assert_close(decoded, x, atol=1e-4, rtol=0)
    noise = torch.randn(20, *shape, generator=torch.Generator().manual_seed(2))
    encoded = flow.encode_noise(flow.double().decode_noise(noise.double(), label=label), label=label)
    torch.testing.assert_close(encoded, noise.double(), atol=1e-5, rtol=1e-5)


def test_the_probability_of_levels_is_the_determinant_times_the_density_of_the_noise() -> None:
    flow = build((1, 2, 3)).double()
    x = torch.randint(LEVELS, (1, 1, 2, 3), generator=torch.Generator().manual_seed(3)).double() / (LEVELS - 1)
    step = 1e-3 / (LEVELS - 1)  # stays within the level
    columns = []
    for i in range(6):
        shift = step * torch.eye(6, dtype=torch.float64)[i].view_as(x)
        columns.append((flow.encode_noise(x + shift) - flow.encode_noise(x - shift)).flatten() / (2 * step))
    jacobian = torch.stack(columns, dim=1)
    assert torch.equal(jacobian.triu(1), torch.zeros_like(jacobian))
    noise = flow.encode_noise(x).flatten()
    log_density = torch.distributions.Normal(0, 1).log_prob(noise).sum() + torch.linalg.slogdet(jacobian)[1]
    expected = log_density - 6 * math.log(LEVELS - 1)  # a level is 1 / 255 wide
    torch.testing.assert_close(flow.log_prob(x)[0], expected, rtol=1e-5, atol=1e-5)


def test_probabilities_of_all_signals_sum_to_one() -> None:
    flow = build((1, 1, 2)).double()
    x = torch.tensor([*product(range(LEVELS), repeat=2)], dtype=torch.float64).view(-1, 1, 1, 2) / (LEVELS - 1)
    assert float(flow.log_prob(x).exp().sum()) == pytest.approx(1, abs=1e-9)


def test_samples_have_the_probabilities_of_their_levels() -> None:
    flow, n = build((1, 1), scale=0.0), 20_000
    flow.network.head.bias.copy_(torch.randn(LEVELS, generator=torch.Generator().manual_seed(4)))
    samples = flow.sample(n, generator=torch.Generator().manual_seed(0)).flatten()
    counts = torch.bincount(flow.network.to_levels(samples), minlength=LEVELS)
    p = flow.log_prob((torch.arange(LEVELS) / (LEVELS - 1)).view(-1, 1, 1)).exp()
    chi_square = ((counts - n * p).square() / (n * p)).sum()
    assert abs(float(chi_square) - (LEVELS - 1)) < 4 * (2 * (LEVELS - 1)) ** 0.5


def test_rare_levels_are_kept_by_noise_in_float32() -> None:
    flow = build((1, 8), scale=0.0)
    flow.network.head.bias[100] = 60.0  # all other levels have the least probability
    x = torch.tensor([0, 255, 99, 101, 100, 1, 254, 180.0]).view(1, 1, 8) / (LEVELS - 1)
    decoded = flow.decode_noise(flow.encode_noise(x))
    torch.testing.assert_close(decoded, x, atol=0.5 / (LEVELS - 1), rtol=0)
    assert torch.equal(flow.network.to_levels(decoded), flow.network.to_levels(x))


def test_temperature_zero_takes_the_medians() -> None:
    flow = build((1, 4, 4))
    samples = flow.sample(2, options=SamplingOptions(temperature=0.0))
    torch.testing.assert_close(flow.encode_noise(samples), torch.zeros_like(samples), atol=1e-3, rtol=0)


@pytest.mark.parametrize("likelihood", ["bernoulli", "mu-law"])
def test_networks_of_other_levels_are_refused(likelihood: str) -> None:
    with pytest.raises(ConfigError, match="no pixelcnn or pixelrnn with 256 levels"):
        build((1, 8), likelihood=likelihood)


def test_other_priors_are_refused_as_networks() -> None:
    with pytest.raises(ConfigError, match="no pixelcnn or pixelrnn with 256 levels"):
        build_prior("autoregressive-flow", {"network": {"architecture": "flow", "shape": [2]}})
