"""What is filled in, where the answer is known."""

from __future__ import annotations

import torch
from torch import Tensor

from denoise.priors.posterior import coarse_mask, impute, inpaint
from denoise.probability_path import karras_sigmas

MEAN = torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.8, 0.3], [0.8, 1.0, 0.5], [0.3, 0.5, 0.7]], dtype=torch.float64)


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """The best there is for signals of N(MEAN, COVARIANCE)."""
    gain = COVARIANCE @ torch.linalg.inv(COVARIANCE + sigma[0] ** 2 * torch.eye(3, dtype=torch.float64))
    return MEAN + (x - MEAN) @ gain.T


def test_what_is_missing_is_drawn_from_what_the_known_part_leaves_open() -> None:
    generator = torch.Generator().manual_seed(0)
    n, known = 4000, torch.tensor([1.5, 0.0, 0.0], dtype=torch.float64)
    mask = torch.tensor([1.0, 0.0, 0.0]).expand(n, 3)
    sigmas = karras_sigmas(150, 0.01, 20.0).double()
    start = 20 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    out = inpaint(denoiser, known.expand(n, 3), mask, sigmas, start=start, again=10, generator=generator)
    assert torch.equal(out[:, 0], known[:1].expand(n))
    slope = COVARIANCE[1:, 0] / COVARIANCE[0, 0]
    mean = MEAN[1:] + slope * (known[0] - MEAN[0])
    covariance = COVARIANCE[1:, 1:] - torch.outer(slope, COVARIANCE[0, 1:])
    torch.testing.assert_close(out[:, 1:].mean(dim=0), mean, atol=0.08, rtol=0)
    torch.testing.assert_close(out[:, 1:].T.cov(), covariance, atol=0.08, rtol=0)


class Copying:
    """A codec of pairs whose entries are nearly equal: it remembers their mean, and draws around it."""

    def draw(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x.mean(dim=1, keepdim=True) + 0.01 * torch.randn(len(x), 1, generator=generator)

    def decode(self, z: Tensor) -> Tensor:
        return z.expand(-1, 2)


def test_a_codec_remembers_what_goes_with_the_known_part() -> None:
    known = torch.tensor([[0.8, 0.0]]).expand(500, 2)
    mask = torch.tensor([[1.0, 0.0]]).expand(500, 2)
    out = impute(Copying(), known, mask, generator=torch.Generator().manual_seed(0))
    assert (out[:, 0] == 0.8).all()
    assert (out[:, 1] - 0.8).abs().mean() < 0.03
    assert out[:, 1].std() > 0.005


def test_latents_are_known_where_all_is_known() -> None:
    mask = torch.ones(1, 1, 8, 8)
    mask[..., 5:, 3] = 0
    expected = torch.ones(1, 1, 4, 4)
    expected[..., 2:, 1] = 0
    assert torch.equal(coarse_mask(mask, (4, 4)), expected)
    assert torch.equal(coarse_mask(mask[..., 0, :], (4,)), torch.ones(1, 1, 4))
