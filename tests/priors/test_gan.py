"""Inversion of a generator, against the closed form of a linear one, and what a GAN refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from denoise.errors import ConfigError
from denoise.nn.bodies import BodyConfig
from denoise.nn.discriminator import DiscriminatorConfig
from denoise.priors.gan import GAN, GANConfig

SCALE = 0.5


@pytest.fixture
def linear() -> GAN:
    """A generator of 6 entries that is a linear map of 3 numbers."""
    torch.manual_seed(0)
    gan = GAN(GANConfig((6,), latent=3, output="linear", inversion_scale=SCALE))
    gan.body = nn.Sequential(nn.Linear(3, 6))
    return gan.requires_grad_(False)


def most_probable_noise(gan: GAN, x: Tensor, mask: Tensor) -> Tensor:
    """Ridge regression of the observed entries: the mean of the posterior of a linear Gaussian model."""
    layer: Any = gan.body[0]
    rows = []
    for signal, observed in zip(x, mask > 0, strict=True):
        w = layer.weight[observed].double()
        target = (signal - layer.bias)[observed].double()
        rows.append(torch.linalg.solve(w.T @ w + SCALE**2 * torch.eye(3, dtype=torch.float64), w.T @ target))
    return torch.stack(rows).float()


def test_the_noise_of_a_linear_generator_is_that_of_ridge_regression(linear: GAN) -> None:
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    expected = most_probable_noise(linear, x, torch.ones_like(x))
    torch.testing.assert_close(linear.encode_noise(x, steps=400), expected, atol=1e-3, rtol=0)


def test_a_completion_by_a_linear_generator_depends_on_the_observed_entries_alone(linear: GAN) -> None:
    generator = torch.Generator().manual_seed(1)
    x, mask = torch.randn(4, 6, generator=generator), (torch.rand(4, 6, generator=generator) < 0.6).float()
    noise, _ = linear.invert(x, mask, steps=400, generator=generator)
    torch.testing.assert_close(noise, most_probable_noise(linear, x, mask), atol=1e-3, rtol=0)
    hidden = torch.where(mask > 0, x, torch.nan)  # missing entries have any value
    completed = linear.complete(hidden, mask, generator=generator)
    expected = torch.where(mask > 0, x, linear.decode_noise(most_probable_noise(linear, x, mask)))
    torch.testing.assert_close(completed, expected, atol=1e-2, rtol=0)


def test_a_completion_without_a_class_is_of_the_class_that_fits() -> None:
    torch.manual_seed(0)
    gan = GAN(GANConfig((6,), latent=3, output="linear", classes=3, embedding=3, inversion_scale=SCALE))
    layer = nn.Linear(6, 6)
    with torch.no_grad():
        gan.condition.embedding.weight.copy_(4 * torch.eye(3))  # type: ignore[union-attr]
        layer.weight[:, 3:] = torch.randn(6, 3)  # the means of the classes are far from each other, and from none
    gan.body = nn.Sequential(layer)
    gan.requires_grad_(False)
    labels = [2, 0, 1, 2]
    x = gan(torch.randn(4, 3), labels)
    mask = torch.tensor([1.0, 1, 1, 1, 0, 0]).expand(4, 6)
    noise, found = gan.invert(x, mask, labels=range(3), steps=400, generator=torch.Generator().manual_seed(0))
    assert found == labels
    oracle = GAN(GANConfig((6,), latent=3, output="linear"))
    for row, label in enumerate(labels):  # a linear generator with the class as its bias
        oracle.body = nn.Sequential(nn.Linear(3, 6))
        oracle.body[0].weight, oracle.body[0].bias = (
            nn.Parameter(layer.weight[:, :3]),
            nn.Parameter(layer.bias + 4 * layer.weight[:, 3 + label]),
        )
        oracle.requires_grad_(False)
        expected = most_probable_noise(oracle, x[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(noise[row : row + 1], expected, atol=1e-3, rtol=0)
        completed = gan.complete(x[row : row + 1], mask[row : row + 1], generator=torch.Generator().manual_seed(0))
        expected_signal = torch.where(mask[:1] > 0, x[row : row + 1], oracle(expected))
        torch.testing.assert_close(completed, expected_signal, atol=1e-2, rtol=0)


def test_samples_are_found_again() -> None:
    torch.manual_seed(0)
    gan = GAN(GANConfig((1, 8, 8), 4, BodyConfig("conv", widths=(4, 6)), classes=2, inversion_scale=0.01))
    with torch.no_grad():
        for p in gan.parameters():
            p.mul_(2)
    x = gan.sample(6, label=1, generator=torch.Generator().manual_seed(0))
    found = gan.decode_noise(gan.encode_noise(x, label=1), label=1)
    assert float((found - x).square().mean()) < 0.01 * float((x - x.mean(dim=0)).square().mean())
    assert all(p.grad is None for p in gan.parameters())


def test_progress_reaches_one(linear: GAN) -> None:
    fractions: list[float] = []
    linear.invert(torch.zeros(1, 6), torch.ones(1, 6), steps=4, progress=fractions.append)
    assert fractions == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"shape": ()}, "expected sizes of at least 1"),
        ({"latent": 0}, "expected latent"),
        ({"classes": -1}, "classes of at least 0"),
        ({"classes": 1 << 40}, "classes of at least 0 and below 16384"),
        ({"inversion_scale": 0.0}, "expected more than 0"),
        ({"body": BodyConfig("conv", spatial=True)}, "leave body.spatial out"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        GANConfig(**{"shape": (4,)} | settings)
    assert "\n" not in str(error.value)


def test_labels_and_sizes_that_it_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match="no classes"):
        GAN(GANConfig((4,))).sample(1, label=0)
    with pytest.raises(ConfigError, match="multiples of 2"):
        GAN(GANConfig((1, 7, 8), body=BodyConfig("conv", widths=(4, 6))))
    with pytest.raises(ConfigError, match="features is 0"):
        DiscriminatorConfig(features=0)
