"""Inversion of priors with latents: closed forms of linear generators, and windows without seams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from denoise.errors import ConfigError
from denoise.nn.bodies import BodyConfig
from denoise.priors.gan import GAN, GANConfig
from denoise.priors.multiscale_flow import MultiscaleFlowConfig, build_multiscale_flow
from denoise.protocols import DEFAULT_OPTIONS, Label, LatentVariablePrior, SamplingOptions
from denoise.sampling.inversion import Windows, restore_by_inversion
from denoise.sampling.operators import Blur, Downsample, Mask, Operator

SCALE = 0.3


class LinearGaussian:
    """x = W z + b + noise of SCALE: a probabilistic principal component analysis of 4 x 4 pixels."""

    event_shape, latent_shape = torch.Size([1, 4, 4]), torch.Size([3])
    classes, text, residual_std = 0, False, SCALE
    sampling_options: frozenset[str] = frozenset()

    def __init__(self) -> None:
        generator = Generator().manual_seed(0)
        self.weight = torch.randn(16, 3, generator=generator, dtype=torch.float64)
        self.bias = torch.randn(16, generator=generator, dtype=torch.float64)

    def sample(
        self,
        n: int,
        *,
        label: Label = None,
        options: SamplingOptions = DEFAULT_OPTIONS,
        generator: Generator | None = None,
    ) -> Tensor:
        return self.decode_latents(self.sample_latents(n, generator))

    def sample_latents(self, n: int, generator: Generator | None = None) -> Tensor:
        return torch.randn(n, 3, generator=generator, dtype=torch.float64)

    def latent_log_prob(self, z: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        return -0.5 * z.square().sum(dim=1)

    def decode_latents(self, z: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        return (z @ self.weight.T + self.bias).view(-1, 1, 4, 4)


class EncodedLinearGaussian(LinearGaussian):
    """The same with an encoder."""

    def encode_latents(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - self.bias) @ torch.linalg.pinv(self.weight).T


def posterior_mean(
    prior: LinearGaussian, y: Tensor, operator: Operator, sigma: float, shape: tuple[int, ...]
) -> Tensor:
    """The mean of a joint normal distribution, by dense matrices."""
    windows = Windows(tuple(prior.event_shape), shape)
    n_latents, n = 3 * windows.count, torch.Size(shape).numel()

    def decode(z: Tensor) -> Tensor:
        return windows.join(prior.decode_latents(z.view(-1, 3))).flatten()

    b = decode(torch.zeros(n_latents, dtype=torch.float64))
    w = torch.stack([decode(unit) - b for unit in torch.eye(n_latents, dtype=torch.float64)], dim=1)
    a = torch.stack([operator.forward(u.view(1, *shape)).flatten() for u in torch.eye(n, dtype=torch.float64)], dim=1)
    covariance = w @ w.T + SCALE**2 * torch.eye(n, dtype=torch.float64)
    gain = covariance @ a.T @ torch.linalg.inv(a @ covariance @ a.T + sigma**2 * torch.eye(len(a), dtype=torch.float64))
    return (b + gain @ (y.flatten() - a @ b)).view(1, *shape)


def operators() -> dict[str, Operator]:
    mask = torch.ones(4, 4, dtype=torch.float64)
    mask[1:3] = 0
    kernel = torch.tensor([[0.0, 0.1, 0.0], [0.1, 0.5, 0.2], [0.0, 0.1, 0.0]], dtype=torch.float64)
    return {"noise": Mask(torch.ones(1)), "mask": Mask(mask), "blur": Blur(kernel), "reduced": Downsample(2)}


@pytest.mark.parametrize("prior", [LinearGaussian(), EncodedLinearGaussian()], ids=["plain", "encoder"])
@pytest.mark.parametrize("name", operators())
def test_of_a_linear_generator_it_is_the_posterior_mean(prior: LinearGaussian, name: str) -> None:
    operator, generator, sigma = operators()[name], Generator().manual_seed(1), 0.2
    assert isinstance(prior, LatentVariablePrior)
    clean = prior.sample(2, generator=generator)
    y = operator.forward(clean)
    y = operator.forward(clean) + sigma * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    if name == "mask":
        y = operator.forward(y)
    x = restore_by_inversion(prior, y, operator, sigma, (1, 4, 4), steps=500, generator=generator)
    for i in range(2):
        expected = posterior_mean(prior, y[i : i + 1], operator, sigma, (1, 4, 4))
        torch.testing.assert_close(x[i : i + 1], expected, rtol=0, atol=1e-3)


def test_all_windows_of_a_large_image_are_fitted_together() -> None:
    prior, operator, shape = EncodedLinearGaussian(), Downsample(2), (1, 6, 8)
    y = torch.randn(1, 1, 3, 4, generator=Generator().manual_seed(0), dtype=torch.float64)
    x = restore_by_inversion(prior, y, operator, 0.1, shape, steps=1500, generator=Generator().manual_seed(0))
    torch.testing.assert_close(x, posterior_mean(prior, y, operator, 0.1, shape), rtol=0, atol=2e-3)


@pytest.mark.parametrize("family", ["gan", "flow"])
def test_the_observed_pixels_of_a_sample_are_found_again(family: str) -> None:
    torch.manual_seed(0)
    prior: Any = GAN(GANConfig((1, 8, 8), 4, BodyConfig("conv", widths=(4, 6)), classes=2, inversion_scale=0.01))
    if family == "flow":
        prior = build_multiscale_flow(MultiscaleFlowConfig((1, 8, 8), steps=2, width=8, blocks=1))
    prior = prior.eval().requires_grad_(False)
    clean, mask = prior.sample(1, generator=Generator().manual_seed(1)), torch.ones(8, 8)
    mask[:, 4:] = 0
    operator, generator = Mask(mask), Generator().manual_seed(2)
    x = restore_by_inversion(prior, clean * mask, operator, 0.002, (1, 8, 8), steps=200, generator=generator)
    assert clean.std() > 0.01
    assert (x - clean)[..., :4].abs().max() < 0.01
    assert x.isfinite().all()


@pytest.mark.parametrize("space", [(4, 6), (5, 9), (2, 3), (12, 13)])
def test_windows_that_are_split_are_joined_again(space: tuple[int, int]) -> None:
    windows = Windows((2, 4, 6), (2, *space))
    x = torch.randn(3, 2, *space)
    parts = windows.split(x)
    assert parts.shape == (3 * windows.count, 2, 4, 6)
    torch.testing.assert_close(windows.join(parts), x)


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="the prior is of 3 channels, the image of 1"):
        Windows((3, 4, 4), (1, 4, 4))
    with pytest.raises(ConfigError, match="99 x 99 pixels, 2401 windows of the prior; expected at most 1024"):
        Windows((1, 4, 4), (1, 99, 99))
