"""Losses of codecs and priors whose minimum, gradient or value is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from denoise.models.autoencoder import AAE, VAE, AAEConfig, VAEConfig
from denoise.nn.bodies import BodyConfig
from denoise.nn.unet import BackboneConfig
from denoise.priors.diffusion import Diffusion, DiffusionConfig
from denoise.priors.flow_matching import FlowMatching, FlowMatchingConfig
from denoise.priors.flows import Flow, FlowConfig
from denoise.priors.latent import build_latent_prior
from denoise.protocols import Support
from denoise.training.losses.generative import (
    adversarial,
    denoising_score_matching,
    divergence,
    flow_matching,
    negative_elbo,
    negative_log_likelihood,
    reconstruction,
    transport,
)

NET = BackboneConfig("mlp", widths=(16,), blocks=1, embedding=8)
DEVIATION = 0.5


class Linear(nn.Module):
    """Probabilistic PCA, whose evidence is known: x = w z + 0.5 noise, z standard normal.

    ``shift`` is the distance of its posterior from the true one.
    """

    support = Support((3,))

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.event_shape, self.latent_shape = torch.Size([3]), torch.Size([2])
        self.weight = nn.Parameter(torch.tensor([[1.0, 0.5], [-0.3, 0.8], [0.2, 0.1]], dtype=torch.float64))
        self.shift = nn.Parameter(torch.tensor(shift, dtype=torch.float64))

    def posterior(self, x: Tensor) -> Any:
        """Return the true posterior without its correlation, so that the bound has a gap, and shifted."""
        precision = torch.eye(2) + self.weight.T @ self.weight / DEVIATION**2
        mean = x @ self.weight @ torch.linalg.inv(precision) / DEVIATION**2
        return Normal(mean + self.shift, precision.diagonal().rsqrt().expand(mean.shape))

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x).mean

    def sample_posterior(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        q = self.posterior(x)
        return q.loc + q.scale * torch.randn(q.loc.shape, generator=generator, dtype=q.loc.dtype)

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.weight.T

    def likelihood(self, z: Tensor) -> Any:
        return Independent(Normal(z @ self.weight.T, DEVIATION), 1)

    def evidence(self, x: Tensor) -> Tensor:
        covariance = self.weight @ self.weight.T + DEVIATION**2 * torch.eye(3)
        return torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance).log_prob(x)


def linear_model(shift: float = 0.0) -> Any:
    return build_latent_prior(Linear(shift), Flow(FlowConfig((2,), "normal"))).double()


def signals(n: int = 6) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_estimators_a_b_and_score_have_the_value_of_the_bound() -> None:
    model, x = linear_model(0.2), signals()
    torch.manual_seed(0)
    values = {e: negative_elbo(model, x, estimator=e, samples=20_000).item() for e in ("A", "B", "score")}  # type: ignore[arg-type]
    q, prior = model.codec.posterior(x), Normal(0.0, 1.0)
    divergence = torch.distributions.kl_divergence(q, prior).sum(dim=1)
    mean, variance = q.loc @ model.codec.weight.T, (q.scale**2) @ (model.codec.weight.T**2)
    log_likelihood = -((x - mean) ** 2 + variance) / (2 * DEVIATION**2)
    log_likelihood = log_likelihood - math.log(DEVIATION) - 0.5 * math.log(2 * math.pi)
    exact = (divergence - log_likelihood.sum(dim=1)).mean().item()
    for value in values.values():
        assert value == pytest.approx(exact, abs=0.02)


def test_importance_estimator_with_many_samples_has_the_value_of_the_evidence() -> None:
    model, x = linear_model(0.2), signals()
    torch.manual_seed(0)
    many = negative_elbo(model, x, estimator="importance", samples=50_000)
    assert -many.item() == pytest.approx(model.codec.evidence(x).mean().item(), abs=0.02)
    one = [negative_elbo(model, x, estimator="importance") for _ in range(2000)]
    bound = negative_elbo(model, x, samples=20_000)
    assert torch.stack(one).mean().item() == pytest.approx(bound.item(), abs=0.05)
    assert bound > many + 0.02


def test_the_divergence_is_not_rounded_to_the_precision_of_the_network() -> None:
    torch.manual_seed(0)
    codec, x = VAE(VAEConfig((1, 28, 28), 32, BodyConfig("dense", (64,)))), torch.rand(16, 1, 28, 28)
    with torch.autocast("cpu", torch.bfloat16):
        q = codec.posterior(x)
        value = divergence(q)
    exact = Normal(q.loc.double(), q.scale.double())
    prior = Normal(torch.zeros_like(exact.loc), torch.ones_like(exact.loc))
    expected = torch.distributions.kl_divergence(exact, prior).sum(dim=1).mean().item()
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_labels_condition_the_prior() -> None:
    torch.manual_seed(0)
    model, x, labels = linear_model(), signals(), [0, 1, None, 1, 0, 0]
    model.prior = Flow(FlowConfig((2,), "maf", transforms=1, hidden=(8,), classes=2, embedding=4)).double()
    torch.manual_seed(1)
    value = negative_elbo(model, x, labels, samples=2)
    torch.manual_seed(1)
    q = model.codec.posterior(x)
    z = q.loc + q.scale * torch.randn(2, *q.loc.shape)
    bounds = [
        model.codec.likelihood(row).log_prob(x) + model.prior.log_prob(row, labels) - q.log_prob(row).sum(dim=1)
        for row in z
    ]
    torch.testing.assert_close(value, -torch.stack(bounds).mean())
    unconditional = negative_elbo(model, x, samples=2)
    assert abs(float((value - unconditional).detach())) > 1e-4


def test_the_bound_approaches_the_evidence_with_more_samples() -> None:
    model, x = linear_model(0.3), signals()
    exact = model.codec.evidence(x).detach()
    loose, tight = (model.log_prob_bound(x, n, generator=torch.Generator().manual_seed(0)) for n in (1, 5000))
    assert (tight - exact).abs().max() < 0.05
    assert loose.mean() < tight.mean() - 0.1
    assert model.log_prob_bound(x, 250, generator=torch.Generator().manual_seed(0), batch=100).shape == (6,)


def test_score_function_gradient_is_unbiased_with_a_larger_variance() -> None:
    """Its mean is that of the reparametrised gradient, its variance many times as large."""
    model, x = linear_model(0.5), signals()

    def gradients(estimator: Any, n: int) -> Tensor:
        rows = []
        for seed in range(n):
            torch.manual_seed(seed)
            model.zero_grad()
            negative_elbo(model, x, estimator=estimator).backward()
            rows.append(model.codec.shift.grad.clone())
        return torch.stack(rows)

    a, b, naive = (gradients(e, 600) for e in ("A", "B", "score"))
    error = float(naive.std() / len(naive) ** 0.5)
    assert float(naive.mean()) == pytest.approx(float(a.mean()), abs=4 * error)
    assert float(b.mean()) == pytest.approx(float(a.mean()), abs=0.1)
    assert naive.var() > 20 * a.var()


def test_free_bits_are_left_out_of_the_divergence() -> None:
    model, x = linear_model(), signals()
    torch.manual_seed(0)
    free = negative_elbo(model, x, estimator="B", free_bits=100.0, samples=2000)
    model.zero_grad()
    torch.manual_seed(0)
    none = negative_elbo(model, x, estimator="B", beta=0.0, samples=2000)
    assert free.item() == pytest.approx(none.item() + 200.0)


def small(kind: str) -> Any:
    torch.manual_seed(0)
    body = BodyConfig("dense", widths=(16,))
    normal = Flow(FlowConfig((2,), "normal"))
    if kind == "vae":
        return build_latent_prior(VAE(VAEConfig((1, 4, 4), 2, body, "bernoulli")), normal)
    return build_latent_prior(AAE(AAEConfig((1, 4, 4), 2, body, posterior=kind, critic=(16,))), normal)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["deterministic", "gaussian", "universal"])
def test_critic_and_encoder_have_opposite_gradients(kind: str) -> None:
    model = small(kind)
    x = torch.rand(64, 1, 4, 4)
    loss, accuracy = adversarial(model, x)
    loss.backward()
    assert 0 <= float(accuracy) <= 1
    assert all(p.grad is not None for p in model.parameters())

    def rejection(model: Any) -> float:
        """Return how clearly the critic separates latents from samples of the prior."""
        torch.manual_seed(1)
        return nn.functional.softplus(-model.codec.critic(model.codec.sample_posterior(x))).mean().item()

    def rejection_after_step(is_updated: Callable[[str], bool], size: float) -> float:
        """Return the rejection after a step of some of the parameters down the gradient."""
        other = small(kind)
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            for (name, p), q in zip(other.named_parameters(), model.parameters(), strict=True):
                if is_updated(name):
                    p.sub_(size * q.grad)
            return rejection(other)

    initial = rejection(model)
    assert rejection_after_step(lambda name: "critic" in name, 0.05) > initial
    model.zero_grad()
    torch.manual_seed(0)
    (adversarial(model, x, weight=1e4)[0]).backward()
    assert rejection_after_step(lambda name: "encoder" in name or "mixer" in name, 5e-6) < initial


def test_the_optimal_denoiser_and_velocity_have_the_least_loss() -> None:
    x = 0.7 + 0.3 * torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))

    class OptimalDenoiser(Diffusion):
        gain = 1.0

        def forward(self, x: Tensor, sigma: Tensor, labels: Any = None, guidance: float = 1.0) -> Tensor:
            return 0.7 + self.gain * (0.09 / (0.09 + sigma**2)).reshape(-1, 1) * (x - 0.7)

    class OptimalVelocity(FlowMatching):
        gain = 1.0

        def velocity(self, z: Tensor, t: Tensor, labels: Any = None, guidance: float = 1.0) -> Tensor:
            t = t.reshape(-1, 1)
            return self.gain * (2 * t - 1) / ((1 - t) ** 2 + t**2) * z

    for net, loss in (
        (OptimalDenoiser(DiffusionConfig((3,), NET, mean=0.7, sigma_data=0.3)), denoising_score_matching),
        (OptimalVelocity(FlowMatchingConfig((3,), NET, mean=0.7, sigma_data=0.3)), flow_matching),
    ):
        values = []
        for gain in (0.9, 1.0, 1.1):
            net.gain = gain  # type: ignore[union-attr]
            torch.manual_seed(5)
            values.append(loss(net, x).item())
        assert values[1] < min(values[0], values[2])


def test_the_loss_of_an_untrained_diffusion_prior_is_one() -> None:
    net = Diffusion(DiffusionConfig((3,), NET, mean=0.7, sigma_data=0.3))
    x = 0.7 + 0.3 * torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    assert denoising_score_matching(net, x).item() == pytest.approx(1.0, rel=0.05)


def test_transport_is_the_shortest_assignment() -> None:
    x0, eps = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).unbind()
    best = transport(x0, eps)
    assert sorted(best.tolist()) == [0, 1, 2, 3, 4]
    from itertools import permutations

    costs = [float((x0 - eps[[*p]]).square().sum()) for p in permutations(range(5))]
    assert float((x0 - eps[best]).square().sum()) == pytest.approx(min(costs))


def test_losses_are_per_entry() -> None:
    prior = Flow(FlowConfig((2, 2), "normal"))
    x = torch.zeros(3, 2, 2)
    assert negative_log_likelihood(prior, x).item() == pytest.approx(0.5 * math.log(2 * math.pi))
    model = small("vae")
    loss = reconstruction(model.codec, torch.ones(2, 1, 4, 4))
    expected = nn.functional.binary_cross_entropy(model.codec(torch.ones(2, 1, 4, 4)), torch.ones(2, 1, 4, 4))
    torch.testing.assert_close(loss, expected)
