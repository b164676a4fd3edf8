"""The flow of patches: its densities, its noise and its denoiser."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from denoise.config import parse
from denoise.errors import ConfigError
from denoise.priors.patch_flow import PatchFlow, PatchFlowConfig
from denoise.protocols import PatchPrior


def patch_flow(transforms: int = 2, side: int = 3, channels: int = 3) -> PatchFlow:
    """A flow in double precision whose weights are random."""
    torch.manual_seed(0)
    flow = PatchFlow(PatchFlowConfig(side, channels, transforms, hidden=(24,), embedding=4)).double().eval()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return flow


def noisy_patches(flow: PatchFlow, n: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = 0.5 + 0.2 * torch.randn(n, *flow.event_shape, generator=generator, dtype=torch.float64)
    return x, torch.linspace(0.02, 0.3, n, dtype=torch.float64)


def test_the_basis_is_orthonormal_and_begins_with_the_mean() -> None:
    basis = PatchFlow(PatchFlowConfig(8, 3, 0)).basis
    torch.testing.assert_close(basis @ basis.T, torch.eye(192), atol=1e-5, rtol=0)
    torch.testing.assert_close(basis[0], torch.full((192,), 192**-0.5))


@pytest.mark.parametrize("channels", [1, 3])
def test_without_transforms_it_is_a_normal_distribution_and_a_wiener_filter(channels: int) -> None:
    flow = patch_flow(0, channels=channels)
    x, sigma = noisy_patches(flow)
    basis, eye = flow.basis, torch.eye(len(flow.basis), dtype=torch.float64)
    mean, covariance = flow.mean @ basis, basis.T @ (flow.log_variance.exp().diag() @ basis)
    log_prob, denoised = flow.noisy_log_prob(x, sigma), flow(x, sigma)
    for i, level in enumerate(sigma):
        noisy = covariance + level**2 * eye
        expected = MultivariateNormal(mean, noisy).log_prob(x[i].flatten())
        torch.testing.assert_close(log_prob[i], expected)
        wiener = mean + covariance @ torch.linalg.solve(noisy, x[i].flatten() - mean)
        torch.testing.assert_close(denoised[i].flatten(), wiener)


def test_the_density_is_that_of_the_noise_and_the_jacobian() -> None:
    flow = patch_flow()
    x, _ = noisy_patches(flow)
    noise = flow.encode_noise(x)
    torch.testing.assert_close(flow.decode_noise(noise), x, atol=1e-5, rtol=0)  # the basis is one of float32
    for i in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(lambda z: flow.from_noise(z[None], [None])[0], noise[i])
        log_det = jacobian.reshape(noise[i].numel(), -1).slogdet().logabsdet
        normal = -0.5 * noise[i].square().sum() - 0.5 * noise[i].numel() * math.log(2 * math.pi)
        torch.testing.assert_close(flow.log_prob(x[i : i + 1])[0], normal - log_det)


def test_the_score_is_the_gradient_of_the_density() -> None:
    flow = patch_flow()
    x, sigma = noisy_patches(flow)
    direction, step = torch.randn(x.shape, dtype=torch.float64), 1e-5
    with torch.inference_mode():
        rise = flow.noisy_log_prob(x + step * direction, sigma) - flow.noisy_log_prob(x - step * direction, sigma)
        score = flow.score(x, sigma)
    torch.testing.assert_close((score * direction).flatten(1).sum(dim=1), rise / (2 * step), rtol=1e-6, atol=1e-6)


def test_without_noise_the_denoiser_is_the_identity() -> None:
    flow = patch_flow()
    x, _ = noisy_patches(flow)
    assert torch.equal(flow(x, torch.zeros(len(x), dtype=torch.float64)), x)


def test_it_is_a_prior_of_patches_whose_levels_are_dequantised_by_the_smallest_noise() -> None:
    flow = patch_flow()
    assert isinstance(flow, PatchPrior)
    x, _ = noisy_patches(flow)
    smallest = torch.full((len(x),), flow.config.sigma[0], dtype=torch.float64)
    torch.testing.assert_close(flow.log_prob(x), flow.noisy_log_prob(x, smallest))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": 1}, "side is 1"),
        ({"channels": 2}, "channels 2"),
        ({"hidden": []}, "hidden"),
        ({"embedding": 3}, "embedding is 3"),
        ({"sigma": [0.0, 0.5]}, "sigma is"),
        ({"sigma": [0.5, 0.1]}, "the smaller first"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(PatchFlowConfig, settings, "model")
