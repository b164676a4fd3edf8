"""The recipes that use flows: closed forms of their integrals, spectra, ranks, code lengths and rounds of coding."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

RECIPES = Path(__file__).parents[2] / "recipes"


def script(path: str) -> Any:
    """Import a script of a recipe."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").replace("-", "_"), RECIPES / f"{path}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


integral = script("importance-sampling/integral")
spectrum = script("inversion/spectrum")
codec = script("flow-codec/codec")


# Importance sampling


def test_the_integral_of_the_camel_is_that_of_a_fine_grid() -> None:
    axis = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    values = integral.camel(torch.cartesian_prod(axis, axis))
    assert float(values.mean()) == pytest.approx(integral.camel_integral(2), rel=1e-4)
    assert float(integral.camel(torch.tensor([[1.1, 0.5], [-0.1, 0.5]])).sum()) == 0


def test_equal_weights_have_no_variance_and_one_weight_is_one_sample() -> None:
    equal = integral.estimate(torch.full((100,), 2.0))
    assert (equal.value, equal.variance, equal.standard_error) == (2.0, 0.0, 0.0)
    assert equal.effective_size == pytest.approx(1)
    single = integral.estimate(torch.tensor([1.0, 0, 0, 0]))
    assert single.value == pytest.approx(0.25)
    assert single.effective_size == pytest.approx(0.25)
    assert single.standard_error == pytest.approx(0.25)


def test_every_proposal_estimates_the_integral_and_the_flow_with_the_least_variance() -> None:
    torch.manual_seed(0)
    densities = {
        "uniform": None,
        "Gaussian": integral.fit_gaussian(2, 20_000),
        "flow": integral.fit_flow(2, 80, 500),
    }
    estimates = {}
    for name, density in densities.items():
        proposal = integral.Proposal(density, 2)
        estimates[name] = integral.estimate(proposal.weights(proposal.sample(20_000)))
        error = abs(estimates[name].value - integral.camel_integral(2))
        assert error < 4 * estimates[name].standard_error
    assert estimates["flow"].variance < 0.5 * estimates["Gaussian"].variance < 0.5 * estimates["uniform"].variance


# Bayesian inversion


def test_a_line_has_its_height_and_half_of_it_at_its_half_width() -> None:
    low, high = spectrum.WIDTHS
    width = 4 / spectrum.CHANNELS  # four channels
    quantile = math.log(width / low) / math.log(high / low)
    centre = 16.5 / spectrum.CHANNELS
    y = spectrum.simulate(torch.tensor([centre, 1e6, quantile]))  # the other line is far away
    torch.testing.assert_close(y[[12, 16, 20]], torch.tensor([0.5, 1.0, 0.5]) * spectrum.HEIGHTS[0], atol=1e-4, rtol=0)


def test_the_exact_posterior_of_a_clear_spectrum_is_that_of_the_linearised_model(monkeypatch: Any) -> None:
    monkeypatch.setattr(spectrum, "SIGMA", 0.15)
    monkeypatch.setattr(spectrum, "GRID", 100)
    theta = torch.tensor([0.3, 0.7, 0.5])
    exact = spectrum.marginals(spectrum.exact_posterior(spectrum.simulate(theta)))
    jacobian = torch.autograd.functional.jacobian(spectrum.simulate, theta.double())
    covariance = torch.linalg.inv(jacobian.T @ jacobian) * 0.15**2
    axis = (torch.arange(100) + 0.5) / 100
    for i, p in enumerate(exact):
        mean = float((p * axis).sum())
        std = float((p * (axis - mean).square()).sum().sqrt())
        assert mean == pytest.approx(float(theta[i]), abs=0.005)
        assert std == pytest.approx(float(covariance[i, i].sqrt()), rel=0.1)


class PriorAsPosterior:
    """A posterior that ignores the measurement: the prior, which is calibrated, too; or a part of it, which is not."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def sample(self, y: Tensor, n: int) -> Tensor:
        return 0.5 + self.factor * (torch.rand(n, len(y), 3) - 0.5)


def test_ranks_are_uniform_for_a_calibrated_posterior_alone() -> None:
    torch.manual_seed(0)
    for factor, is_calibrated in ((1.0, True), (0.8, False)):
        rank = spectrum.ranks(PriorAsPosterior(factor), 2000, 99)
        assert rank.shape == (2000, 3)
        assert ((rank >= 0) & (rank <= 99)).all()
        p = [spectrum.chi_square(torch.bincount(r // 5, minlength=20).float())[1] for r in rank.T]
        assert (min(p) > 1e-3) == is_calibrated


def test_the_chi_square_test_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    counts = torch.tensor([12.0, 9, 8, 15, 6, 10])
    expected = stats.chisquare(counts.numpy())
    assert spectrum.chi_square(counts) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-4)


def test_the_density_of_the_flow_integrates_to_one() -> None:
    torch.manual_seed(0)
    posterior = spectrum.Posterior().eval().requires_grad_(False)
    axis = (torch.arange(40) + 0.5) / 40
    grid = torch.cartesian_prod(axis, axis, axis)
    y = torch.randn(1, spectrum.CHANNELS).expand(len(grid), -1)
    assert float(posterior.log_prob(grid, y).exp().mean()) == pytest.approx(1, abs=0.02)


def test_training_learns_more_than_the_prior() -> None:
    torch.manual_seed(0)
    posterior = spectrum.fit(60, 128)
    theta = spectrum.sample_prior(500)
    assert float(posterior.log_prob(theta, spectrum.measure(theta)).mean()) > 0.5  # the prior has 0


# The codec


@pytest.mark.parametrize("kind", ["flow", "autoencoder"])
def test_code_lengths_are_those_of_probabilities_that_sum_to_one(kind: str) -> None:
    torch.manual_seed(0)
    net = codec.CODECS[kind](32)
    with torch.no_grad():
        net.loc.normal_()
    net.channel = net.channel[-1:]  # of one latent
    probabilities = 2 ** -net.bits(torch.arange(-400.0, 401)[:, None]).detach()
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-3)  # rare integers have at least 2^-24


def test_the_latents_of_the_flow_are_as_many_as_pixels_and_in_their_channels() -> None:
    torch.manual_seed(0)
    net = codec.CODECS["flow"](32).eval().requires_grad_(False)
    x = torch.rand(2, 1, 32, 32)
    assert net.encode(x).shape == net.channel[None].expand(2, -1).shape == (2, 32 * 32)
    torch.testing.assert_close(net.decode(net.encode(x)), x, atol=1e-4, rtol=0)
    before = net.encode(x)
    net.log_gain[3] += math.log(2)
    torch.testing.assert_close(net.encode(x) / before, 1.0 + (net.channel == 3).expand(2, -1), atol=1e-3, rtol=0)
    assert torch.bincount(net.channel).tolist() == [256] * 2 + [64] * 4 + [16] * 16


def test_the_untrained_flow_is_an_orthonormal_wavelet() -> None:
    net = codec.CODECS["flow"](16).eval().requires_grad_(False)
    x = torch.rand(1, 1, 16, 16)
    y = net.encode(x) * math.exp(-codec.FIRST_LOG_GAIN)
    assert float(y.square().sum()) == pytest.approx(float((x - 0.5).square().sum()), rel=1e-4)
    assert float(y[0, net.channel == 6][0]) == pytest.approx(float((x[..., :8, :8] - 0.5).sum()) / 8, abs=1e-4)


def test_weights_of_patches_code_larger_images() -> None:
    torch.manual_seed(0)
    for kind in ("flow", "autoencoder"):
        small, large = codec.CODECS[kind](32), codec.CODECS[kind](64)
        large.load_state_dict(small.state_dict())
        assert large.eval().round_trip(torch.rand(1, 1, 64, 64)).shape == (1, 1, 64, 64)


def test_a_flow_codes_its_own_result_without_a_change() -> None:
    torch.manual_seed(0)
    net = codec.CODECS["flow"](32)
    x = codec.to_8_bit(smooth(torch.rand(4, 1, 32, 32)))
    codec.fit(net, lambda step: x, 2)
    net.log_gain.fill_(2.5)  # cells that are much larger than rounding to 8 bits
    first, *others = codec.repeat([net.round_trip] * 5, x)
    assert (first - x).abs().max() > 2 / 255
    assert torch.equal(codec.to_8_bit(first), first)
    for other in others:
        assert float((other - first).square().mean()) <= (0.3 / 255) ** 2


def smooth(x: Tensor) -> Tensor:
    return 0.2 + 0.6 * torch.nn.functional.avg_pool2d(x, 5, stride=1, padding=2)


def test_shifted_rounds_move_the_image_and_return_it() -> None:
    x = torch.rand(1, 1, 8, 8)
    seen: list[Tensor] = []

    def step(y: Tensor) -> Tensor:
        seen.append(y)
        return y

    results = codec.repeat(codec.shifted(step, 3), x)
    assert all(torch.equal(result, x) for result in results)
    assert torch.equal(seen[2], x.roll((2, 2), dims=(2, 3)))


def test_jpeg_codes_grey_images() -> None:
    x = codec.to_8_bit(torch.linspace(0, 1, 64).expand(1, 1, 64, 64))
    y, bits = codec.jpeg(x, 95)
    assert (x - y).abs().max() < 6 / 255
    assert bits < 8 * x.numel()
