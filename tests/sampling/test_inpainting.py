"""Samplers of missing entries against conditional distributions in closed form."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from denoise.probability_path import karras_sigmas
from denoise.sampling.inpainting import coarse_mask, elliptical_slice, gibbs_inpaint, inpaint
from tests.sampling.normal import COVARIANCE, MEAN, denoiser


@pytest.mark.parametrize(("order", "steps", "resamplings"), [(1, 150, 10), (2, 80, 10)])
def test_inpainting_samples_the_conditional_distribution(order: Literal[1, 2], steps: int, resamplings: int) -> None:
    generator = torch.Generator().manual_seed(0)
    n, observed = 4000, torch.tensor([1.5, 0.0, 0.0], dtype=torch.float64)
    mask = torch.tensor([1.0, 0.0, 0.0]).expand(n, 3)
    sigmas = karras_sigmas(steps, 0.01, 20.0).double()
    start = 20 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    out = inpaint(
        denoiser,
        observed.expand(n, 3),
        mask,
        sigmas,
        start=start,
        resamplings=resamplings,
        order=order,
        generator=generator,
    )
    assert torch.equal(out[:, 0], observed[:1].expand(n))
    slope = COVARIANCE[1:, 0] / COVARIANCE[0, 0]
    mean = MEAN[1:] + slope * (observed[0] - MEAN[0])
    covariance = COVARIANCE[1:, 1:] - torch.outer(slope, COVARIANCE[0, 1:])
    torch.testing.assert_close(out[:, 1:].mean(dim=0), mean, atol=0.08, rtol=0)
    torch.testing.assert_close(out[:, 1:].T.cov(), covariance, atol=0.08, rtol=0)


def test_steps_of_order_2_keep_the_variance_that_ancestral_steps_lose() -> None:
    """With few steps, as in `denoise complete`, and an entry that the observed one says nothing about."""
    generator, n = torch.Generator().manual_seed(0), 4000

    def unit(x: Tensor, sigma: Tensor) -> Tensor:
        return x / (1 + sigma[0] ** 2)

    mask, observed = torch.tensor([1.0, 0.0]).expand(n, 2), torch.zeros(n, 2, dtype=torch.float64)
    sigmas = karras_sigmas(40, 0.004, 40.0).double()
    start = 40 * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    first = inpaint(unit, observed, mask, sigmas, start=start, generator=generator)
    second = inpaint(unit, observed, mask, sigmas, start=start, resamplings=2, order=2, generator=generator)
    assert first[:, 1].std() < 0.93
    assert 0.97 < second[:, 1].std() < 1.03


def test_elliptical_slice_sampling_has_the_posterior_of_a_normal_likelihood() -> None:
    """Noise z from N(0, I) and y = A z + 0.5 noise: the posterior is normal, with the precision I + A'A / 0.25."""
    generator, n = torch.Generator().manual_seed(0), 3000
    matrix = torch.tensor([[1.0, 0.5], [-0.3, 0.8], [0.2, 1.5]], dtype=torch.float64)
    y = torch.tensor([1.2, -0.4, 0.9], dtype=torch.float64)
    start = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    z = elliptical_slice(
        lambda z: -(y - z @ matrix.T).square().sum(dim=1) / (2 * 0.25), start, iterations=40, generator=generator
    )
    covariance = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + matrix.T @ matrix / 0.25)
    torch.testing.assert_close(z.mean(dim=0), covariance @ matrix.T @ y / 0.25, atol=0.03, rtol=0)
    torch.testing.assert_close(z.T.cov(), covariance, atol=0.02, rtol=0)


class PairMeanCodec:
    """A codec of pairs whose entries are nearly equal: the latent is their mean plus noise."""

    def sample_posterior(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x.mean(dim=1, keepdim=True) + 0.01 * torch.randn(len(x), 1, generator=generator)

    def decode(self, z: Tensor) -> Tensor:
        return z.expand(-1, 2)


def test_gibbs_inpainting_converges_to_signals_of_the_codec() -> None:
    observed = torch.tensor([[0.8, 0.0]]).expand(500, 2)
    mask = torch.tensor([[1.0, 0.0]]).expand(500, 2)
    out = gibbs_inpaint(
        PairMeanCodec(), observed, mask, start=torch.zeros_like(observed), generator=torch.Generator().manual_seed(0)
    )
    assert (out[:, 0] == 0.8).all()
    assert (out[:, 1] - 0.8).abs().mean() < 0.03
    assert out[:, 1].std() > 0.005


def test_latents_are_observed_where_all_entries_are() -> None:
    mask = torch.ones(1, 1, 8, 8)
    mask[..., 5:, 3] = 0
    expected = torch.ones(1, 1, 4, 4)
    expected[..., 2:, 1] = 0
    assert torch.equal(coarse_mask(mask, (4, 4)), expected)
    assert torch.equal(coarse_mask(mask[..., 0, :], (4,)), torch.ones(1, 1, 4))
