"""DDPM against closed forms: signals from a normal distribution, and the continuous model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from denoise.errors import ConfigError
from denoise.nn.unet import BackboneConfig
from denoise.priors.ddpm import DDPM, DDPMConfig
from denoise.priors.diffusion import Diffusion, DiffusionConfig
from denoise.protocols import SamplingOptions
from denoise.sampling.solvers import SOLVERS
from denoise.training.losses.generative import ddpm as ddpm_loss

NET = BackboneConfig("mlp", widths=(16,), blocks=1, embedding=8)
MEAN, STD = 0.7, 0.3
STEPS = dict.fromkeys(SOLVERS, 100) | {"ancestral": 1000, "euler": 200}


class GaussianDDPM(DDPM):
    """The optimal predictions for signals from N(0.7, 0.3^2), in units of 0.5 around 0.5."""

    gain = 1.0

    def predict_at(self, z: Tensor, timestep: Tensor, labels: Any = None, guidance: float = 1.0) -> Tensor:
        logs = np.interp(timestep, np.arange(1, self.config.timesteps + 1), self.ratios.log())
        ratio = torch.from_numpy(np.exp(logs)).reshape(-1, 1).to(z)
        alpha, sigma = 1 / (1 + ratio**2).sqrt(), ratio / (1 + ratio**2).sqrt()
        mean, variance = (MEAN - 0.5) / 0.5, (STD / 0.5) ** 2
        x0 = mean + alpha * variance / (alpha**2 * variance + sigma**2) * (z - alpha * mean)
        eps = (z - alpha * x0) / sigma
        return self.gain * {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0}[self.config.prediction]


def gaussian(**settings: Any) -> GaussianDDPM:
    settings = {"interval": (-10.0, 10.0)} | settings  # signals of a normal distribution have none
    return GaussianDDPM(DDPMConfig((3,), NET, mean=0.5, sigma_data=0.5, **settings))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_every_prediction_gives_the_same_denoiser(prediction: str, schedule: str) -> None:
    net = gaussian(prediction=prediction, schedule=schedule)
    x = torch.randn(5, 3, generator=seeded())
    sigma = torch.tensor([0.02, 0.1, 0.5, 1.0, 10.0])  # between the levels of the timesteps
    expected = MEAN + (STD**2 / (STD**2 + sigma**2))[:, None] * (x - MEAN)
    torch.testing.assert_close(net(x, sigma), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize(("solver", "steps"), STEPS.items())
def test_the_optimal_prediction_samples_its_distribution(
    schedule: str, prediction: str, solver: str, steps: int
) -> None:
    options = SamplingOptions(steps=steps, solver=solver)
    samples = gaussian(schedule=schedule, prediction=prediction).sample(5000, options=options, generator=seeded())
    torch.testing.assert_close(samples.mean(dim=0), torch.full((3,), MEAN), atol=0.02, rtol=0)
    torch.testing.assert_close(samples.std(dim=0), torch.full((3,), STD), atol=0.02, rtol=0)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("gain", [0.99, 1.01])
def test_an_error_of_the_prediction_changes_samples_little(
    schedule: str, prediction: str, solver: str, gain: float
) -> None:
    net = gaussian(schedule=schedule, prediction=prediction, interval=(-0.5, 1.9))  # four standard deviations
    options = SamplingOptions(steps=50, solver=solver)
    exact = net.sample(5000, options=options, generator=seeded())
    net.gain = gain
    samples = net.sample(5000, options=options, generator=seeded())
    torch.testing.assert_close(samples.mean(dim=0), exact.mean(dim=0), atol=0.04, rtol=0)
    torch.testing.assert_close(samples.std(dim=0), exact.std(dim=0), atol=0.04, rtol=0)


def test_estimates_from_eps_are_in_the_interval() -> None:
    net = gaussian(prediction="eps", interval=(0.0, 1.0))
    exact, x = gaussian(prediction="x0"), torch.tensor([[-1.0, 0.6, 1.5]])
    assert torch.equal(net(x, torch.tensor([0.01])), torch.tensor([[0.0, net(x, torch.tensor([0.01]))[0, 1], 1.0]]))
    torch.testing.assert_close(net(x, torch.tensor([0.3])), exact(x, torch.tensor([0.3])).clamp(0, 1))


def test_encoding_inverts_decoding_of_noise() -> None:
    net, noise = gaussian(schedule="linear"), torch.randn(16, 3, generator=seeded())
    x = net.decode_noise(noise, options=SamplingOptions(steps=1000))
    torch.testing.assert_close(net.encode_noise(x, steps=200), noise, atol=0.02, rtol=0)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_encoding_inverts_decoding_of_noise_by_default(prediction: str) -> None:
    net, noise = gaussian(prediction=prediction), torch.randn(16, 3, generator=seeded())
    torch.testing.assert_close(net.encode_noise(net.decode_noise(noise)), noise, atol=0.1, rtol=0)  # 50 steps of DDIM


@pytest.mark.parametrize("steps", [1, 7])
def test_a_step_of_encoding_takes_two_calls(steps: int) -> None:
    calls = []

    class Counting(GaussianDDPM):
        def predict_at(self, *args: Any, **kwargs: Any) -> Tensor:
            calls.append(args)
            return super().predict_at(*args, **kwargs)

    Counting(DDPMConfig((3,), NET)).encode_noise(torch.zeros(1, 3), steps=steps)
    assert len(calls) == 2 * steps


def test_v_is_the_output_of_the_continuous_model_with_the_opposite_sign() -> None:
    """At equal levels, both are the same function of the same network, which gets the level in another form."""

    def network(z: Tensor, ratio: Tensor) -> Tensor:
        return (3 * z + ratio.log()[:, None]).tanh()

    class Discrete(DDPM):
        def predict(self, x: Tensor, noise_level: Tensor, labels: Any, guidance: float = 1.0) -> Tensor:
            timestep = (noise_level * self.config.timesteps).round().long()
            return -network(x, self.ratios[timestep - 1])

    class Continuous(Diffusion):
        def predict(self, x: Tensor, noise_level: Tensor, labels: Any, guidance: float = 1.0) -> Tensor:
            return network(x, (4 * noise_level).exp() / self.config.sigma_data)  # c_noise is log(sigma) / 4

    discrete = Discrete(DDPMConfig((4,), NET, mean=0.3, sigma_data=0.4))
    continuous = Continuous(DiffusionConfig((4,), NET, mean=0.3, sigma_data=0.4))
    sigma = discrete.sigmas[[0, 100, 500, 900, 990]]
    x = 0.3 + sigma[:, None] * torch.randn(5, 4, generator=seeded())
    torch.testing.assert_close(discrete(x, sigma), continuous(x, sigma), rtol=1e-4, atol=1e-4)


def test_the_network_sees_the_timestep_of_a_level() -> None:
    net = gaussian(timesteps=40)
    timesteps = net.timestep(net.ratios)
    torch.testing.assert_close(timesteps, torch.arange(1.0, 41.0))
    between = net.timestep((net.ratios[:-1] * net.ratios[1:]).sqrt())
    torch.testing.assert_close(between, torch.arange(1.5, 40.0))
    torch.testing.assert_close(net.timestep(torch.tensor([0.0, 1e9])), torch.tensor([1.0, 40.0]))


def test_a_sampler_takes_evenly_spaced_timesteps() -> None:
    net = gaussian(timesteps=100)
    assert torch.equal(net.sampling_sigmas(100, "ancestral"), torch.cat([net.sigmas.flip(0), torch.zeros(1)]))
    assert torch.equal(net.sampling_sigmas(4, "euler")[:-1], net.sigmas[[99, 66, 33, 0]])
    with pytest.raises(ConfigError, match="steps is 101; expected at most 100"):
        net.sample(1, options=SamplingOptions(steps=101))


def test_likelihoods_are_of_the_nearest_levels() -> None:
    net, x = gaussian(timesteps=20, interval=(0.0, 1.0)), torch.tensor([[0.0, 0.33, 1.0]])
    levels = (x * 255).round() / 255
    assert not torch.equal(x, levels)
    expected = net.log_prob_bound(levels, 50, generator=seeded())
    assert torch.equal(net.log_prob_bound(x, 50, generator=seeded()), expected)
    assert torch.equal(net.log_prob_bound(x + 0.4 / 255 * torch.tensor([-1, 0, 1]), 50, generator=seeded()), expected)
    assert not torch.equal(net.log_prob_bound(x + 1 / 255 * torch.tensor([1, 1, 0]), 50, generator=seeded()), expected)


@pytest.mark.parametrize("x", [-0.01, 1.01, torch.nan])
def test_likelihoods_of_signals_outside_the_interval_are_refused(x: float) -> None:
    net = gaussian(timesteps=20, interval=(0.0, 1.0))
    with pytest.raises(ConfigError, match="expected 0 to 1, the interval of this DDPM"):
        net.log_prob_bound(torch.tensor([[0.5, 0.5, x]]), 50, generator=seeded())


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_the_optimal_prediction_has_the_least_loss(prediction: str) -> None:
    net = gaussian(prediction=prediction)
    x = MEAN + STD * torch.randn(20_000, 3, generator=seeded())
    losses = []
    for gain in (0.9, 1.0, 1.1):
        net.gain = gain
        torch.manual_seed(5)
        losses.append(float(ddpm_loss(net, x)))
    assert losses[1] < min(losses[0], losses[2])


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_the_loss_of_an_untrained_network_is_one(prediction: Any) -> None:
    net = DDPM(DDPMConfig((3,), NET, mean=MEAN, sigma_data=STD, prediction=prediction))
    x = MEAN + STD * torch.randn(20_000, 3, generator=seeded())
    torch.manual_seed(5)
    assert float(ddpm_loss(net, x).detach()) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"timesteps": 1}, "timesteps is 1"), ({"interval": (1.0, 0.0)}, "interval is"), ({"shape": ()}, "shape is")],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        DDPMConfig(**{"shape": (3,), **settings})


@pytest.mark.parametrize("options", [SamplingOptions(), SamplingOptions(steps=30, solver="heun")])
def test_few_timesteps_are_sampled_by_default(options: SamplingOptions) -> None:
    prior = DDPM(DDPMConfig((3,), NET, timesteps=20))
    assert prior.sample(2, options=options, generator=seeded()).isfinite().all()
