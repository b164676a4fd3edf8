"""Denoising diffusion GANs: with a generator that samples p(x0 | x) exactly, few steps sample the signals exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from denoise.errors import ConfigError
from denoise.nn.unet import BackboneConfig
from denoise.priors.ddgan import DDGAN, DDGANConfig
from denoise.protocols import Label, SamplingOptions
from denoise.sampling.solvers import posterior_step
from denoise.training.gan_modules import DDGANModule
from denoise.training.gan_recipe import Adversary

NET = BackboneConfig("mlp", widths=(16,), blocks=1, embedding=8)
MEAN, STD = 0.7, 0.3


class ExactDDGAN(DDGAN):
    """A generator of signals from N(0.7, 0.3^2), given what they are with noise."""

    def generate_clean(self, x: Tensor, timestep: Tensor, z: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        variance = self.levels[timestep].square()[:, None]
        gain = STD**2 / (STD**2 + variance)
        return MEAN + gain * (x - MEAN) + (gain * variance).sqrt() * z


class ExactTwoPoints(DDGAN):
    """A generator of signals that are 0.4 or 1.0 with equal probability, given what they are with noise."""

    def generate_clean(self, x: Tensor, timestep: Tensor, z: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
        log_odds = 2 * STD * (x - MEAN) / self.levels[timestep].square()[:, None]
        is_upper = torch.distributions.Normal(0, 1).cdf(z) < log_odds.sigmoid()
        return torch.where(is_upper, MEAN + STD, MEAN - STD)


def settings(timesteps: int, **changes: Any) -> DDGANConfig:
    return DDGANConfig((3,), NET, latent=3, timesteps=timesteps, mean=MEAN, sigma_data=STD, **changes)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("timesteps", [2, 4])
@pytest.mark.parametrize("exact", [ExactDDGAN, ExactTwoPoints])
def test_a_generator_that_is_exact_samples_its_distribution_in_few_steps(
    exact: type[DDGAN], timesteps: int, schedule: str
) -> None:
    net = exact(settings(timesteps, schedule=schedule))
    x = net.sample(8000, generator=Generator().manual_seed(0))
    torch.testing.assert_close(x.mean(dim=0), torch.full((3,), MEAN), atol=0.02, rtol=0)
    torch.testing.assert_close(x.std(dim=0), torch.full((3,), STD), atol=0.02, rtol=0)
    torch.testing.assert_close(x.T.corrcoef(), torch.eye(3), atol=0.05, rtol=0)
    if exact is ExactTwoPoints:
        assert float((x - MEAN).abs().sub(STD).abs().max()) < 1e-6
    else:  # its mean in place of a random signal, as a denoiser gives it, loses variance
        noise = torch.randn(2000, *net.noise_shape, generator=Generator().manual_seed(0))
        noise[:, :, 3:] = 0
        assert float(net.decode_noise(noise).std()) < 0.8 * STD


def test_the_noise_has_a_row_for_each_timestep() -> None:
    net = ExactDDGAN(settings(2))
    noise = torch.randn(5, 2, 6, generator=Generator().manual_seed(0))
    levels = net.levels
    x = MEAN + (levels[2] ** 2 + STD**2).sqrt() * noise[:, 0, :3]
    for row, t in enumerate((2, 1)):
        x0 = net.generate_clean(x, torch.full((5,), t), noise[:, row, 3:])
        kept = (levels[t - 1] / levels[t]) ** 2
        x = x0 + kept * (x - x0) + (levels[1] * (1 - kept).sqrt() * noise[:, 1, :3] if t == 2 else 0)
    torch.testing.assert_close(net.decode_noise(noise), x)


@pytest.mark.parametrize(
    ("shape", "net"), [((6,), NET), ((2, 8, 6), BackboneConfig("unet", widths=(8, 16), blocks=1, embedding=8))]
)
def test_an_untrained_generator_depends_on_its_noise_timestep_and_class(
    shape: tuple[int, ...], net: BackboneConfig
) -> None:
    torch.manual_seed(0)
    generator = DDGAN(DDGANConfig(shape, net, latent=3, classes=2, output="linear"))
    x = torch.randn(1, *shape).expand(200, *shape)
    timestep, z, labels = torch.full((200,), 3), torch.randn(200, 3), [0] * 200

    def change(timestep: Tensor, z: Tensor, labels: list[int]) -> float:
        return float((generator.generate_clean(x, timestep, z, labels) - signals).square().mean().sqrt())

    with torch.no_grad():
        signals = generator.generate_clean(x, timestep, z, labels)
        scale = float(signals.square().mean().sqrt())
        assert change(timestep, torch.randn(200, 3), labels) > 0.1 * scale
        assert change(timestep - 1, z, labels) > 0.01 * scale
        assert change(timestep, z, [1] * 200) > 0.1 * scale


def test_training_pairs_are_of_one_step_of_the_diffusion() -> None:
    torch.manual_seed(0)
    net = DDGAN(settings(4))
    for t in range(1, 5):
        x0 = MEAN + STD * torch.randn(20_000, 3)
        pair = net.training_pair(x0, torch.full((20_000,), t))
        joined = torch.stack([x0[:, 0], pair[0][:, 0], pair[1][:, 0]]).double()
        low, high = float(net.levels[t - 1]), float(net.levels[t])
        variances = [STD**2, STD**2 + low**2, STD**2 + high**2]
        expected = torch.tensor([[variances[min(i, j)] for i in range(3)] for j in range(3)], dtype=torch.float64)
        scale = expected.diagonal().sqrt()
        torch.testing.assert_close(joined.cov() / scale.outer(scale), expected / scale.outer(scale), atol=0.03, rtol=0)
        for x, step in zip(pair, (t - 1, t), strict=True):
            assert float(net.standardise(x, torch.full((20_000,), step)).std()) == pytest.approx(1, abs=0.02)


def test_an_exact_generator_deceives_every_discriminator() -> None:
    """What the discriminator is given has the same second moments, real or generated, at every timestep."""
    torch.manual_seed(0)
    module = DDGANModule(ExactDDGAN(settings(4)), Adversary())
    x0 = MEAN + STD * torch.randn(80_000, 3)
    real, condition = module.real_inputs(x0, None)
    fake = module.fake_inputs(condition, len(x0))
    timestep = condition[1]
    pairs = [module.logits(lambda pair, labels, index: pair, x, condition) for x in (real, fake)]
    for t in range(1, 5):
        moments = [pair[timestep == t].T.cov() for pair in pairs]
        torch.testing.assert_close(*moments, atol=0.04, rtol=0)


def test_steps_of_each_signal_are_those_of_one_level() -> None:
    generator = Generator().manual_seed(0)
    x0, x, noise = (torch.randn(3, 2, 4, generator=generator) for _ in range(3))
    sigma, sigma_next = torch.tensor([2.0, 1.0, 0.5]), torch.tensor([1.0, 0.0, 0.4])
    steps = posterior_step(x0, x, sigma, sigma_next, noise)
    for i in range(3):
        expected = posterior_step(x0[i], x[i], sigma[i], sigma_next[i], noise[i])
        torch.testing.assert_close(steps[i], expected)
    assert torch.equal(steps[1], x0[1])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"shape": ()}, "expected sizes of at least 1"),
        ({"latent": 0}, "expected latent of 1"),
        ({"classes": -1}, "classes of at least 0"),
        ({"timesteps": 1}, "expected 2 to 1000"),
        ({"sigma_data": 0.0}, "expected more than 0"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        DDGANConfig(**{"shape": (4,)} | changes)
    assert "\n" not in str(error.value)


def test_steps_cannot_be_chosen() -> None:
    with pytest.raises(ConfigError, match="a denoising diffusion GAN takes no steps"):
        DDGAN(settings(4)).trajectory(1, options=SamplingOptions(steps=8))
