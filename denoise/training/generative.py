"""The losses of codecs and priors: what an autoencoder, a flow, a diffusion and a flow matching are trained by.

Each takes a module, signals and labels and gives one number to minimise; nothing here knows of loops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Normal
from torch.func import functional_call
from torch.nn import functional as F

from denoise.nn.embeddings import Label
from denoise.probability_path import convert, like, linear, precondition

Estimator = Literal["A", "B", "score", "importance"]


def reconstruction(codec: Any, x: Tensor) -> Tensor:
    """Mean of -log p(x|z) per entry, in nats: half the squared error by ``scale``, or the cross-entropy.

    Shape:
        x: (batch, *event); returns ().
    """
    return -codec.likelihood(codec.encode(x)).log_prob(x).mean() / x[0].numel()


def negative_elbo(
    model: Any,
    x: Tensor,
    labels: Sequence[Label] | None = None,
    *,
    estimator: Estimator = "A",
    samples: int = 1,
    beta: float = 1.0,
    free_bits: float = 0.0,
) -> Tensor:
    """The negative evidence lower bound of a codec and a prior, in nats per event.

    Estimator A draws the whole of ``log p(x, z) - log q(z|x)``; B draws log p(x|z) alone and takes the
    Kullback-Leibler divergence in closed form, for a standard normal prior; "score" has the same value as A
    and the gradient of the score function, through which no gradient of the decoder's input flows; "importance" is the
    tighter bound of all ``samples`` together, which is A with one. ``beta``
    weighs the divergence; of it, the first ``free_bits`` nats of each latent cost nothing (B alone). ``labels``
    are told to the prior, not to the codec.

    Shape:
        x: (batch, *event); returns ().
    Reference:
        Auto-Encoding Variational Bayes, 2013, arXiv:1312.6114, eq. 6 and 7, and section 2.3 (the naive
        gradient); beta-VAE, Higgins et al., 2017; Improved Variational Inference with Inverse Autoregressive
        Flow, 2016, arXiv:1606.04934, appendix C.8 (free bits); Importance Weighted Autoencoders, 2015,
        arXiv:1509.00519, eq. 8.
    """
    q = model.codec.posterior(x)
    noise = torch.randn(samples, *q.loc.shape, device=x.device)
    z = q.loc + q.scale * noise
    if estimator == "score":
        z = z.detach()
    heard = model.codec.likelihood(z.flatten(0, 1)).log_prob(x.expand(samples, *x.shape).flatten(0, 1))
    heard = heard.unflatten(0, (samples, -1))
    if estimator == "B":
        return -heard.mean() + beta * divergence(q, free_bits)
    log_q = q.log_prob(z).flatten(2).sum(dim=2)
    told = None if labels is None else [*labels] * samples
    bound = heard + beta * (model.prior.log_prob(z.flatten(0, 1), told).unflatten(0, (samples, -1)) - log_q)
    if estimator == "A":
        return -bound.mean()
    if estimator == "importance":
        return math.log(samples) - bound.logsumexp(dim=0).mean()
    # d/dphi E_q[f] = E_q[f d log q / dphi]: the value of the bound, with that gradient
    return -(bound + bound.detach() * (log_q - log_q.detach())).mean()


def divergence(q: Normal, free_bits: float = 0.0) -> Tensor:
    """Kullback-Leibler divergence of q from the standard normal in nats per event, ``free_bits`` of each latent free.

    Shape:
        q: (batch, *latents); returns ().
    """
    each = 0.5 * (q.loc.square() + q.scale.square() - 1) - q.scale.log()
    return each.flatten(1).mean(dim=0).clamp_min(free_bits).sum() if free_bits else each.flatten(1).sum(dim=1).mean()


class Latents:
    """Draws the latents of a variational denoiser as its training does, and adds up what they tell in ``nats``."""

    def __init__(self, free_bits: float = 0.0) -> None:
        self.nats, self.free_bits = torch.zeros(()), free_bits

    def __call__(self, level: int, q: Normal, stride: int) -> Tensor:
        self.nats = self.nats.to(q.loc) + divergence(q, self.free_bits)
        return q.rsample()


def adversarial(model: Any, x: Tensor, weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """The loss of an adversarial autoencoder with its critic, in one sum, and the critic's share of right answers.

    The critic learns from latents that no gradient leaves; the encoder learns against a critic that stands
    still. So one optimiser serves both.

    Shape:
        x: (batch, *event); returns () twice.
    Reference:
        Adversarial Autoencoders, 2015, arXiv:1511.05644; Generative Adversarial Networks, 2014,
        arXiv:1406.2661 (the encoder's loss that does not saturate).
    """
    codec = model.codec
    z = codec.draw(x)
    heard = -codec.likelihood(z).log_prob(x).mean() / x[0].numel()
    real, critic = model.prior.sample(len(x)).to(z), codec.critic
    right, wrong = critic(real), critic(z.detach())
    judged = F.softplus(-right).mean() + F.softplus(wrong).mean()
    still = {name: p.detach() for name, p in critic.named_parameters()}
    fooled = F.softplus(-functional_call(critic, still, (z,))).mean()
    accuracy = 0.5 * ((right > 0).float().mean() + (wrong < 0).float().mean())
    return heard + weight * (judged + fooled), accuracy


def denoising_score_matching(prior: Any, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
    """The weighted squared error of a diffusion prior at drawn noise levels; about 1 for one that knows nothing.

    Shape:
        x: (batch, *event); returns ().
    Reference:
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364, table 1.
    """
    c = prior.config
    sigma = (c.log_sigma[0] + c.log_sigma[1] * torch.randn(len(x), device=x.device)).exp()
    weight = precondition(like(sigma, x), prior.sigma_data).out.square().reciprocal()
    noisy = x + like(sigma, x) * torch.randn_like(x)
    return (weight * (prior(noisy, sigma, labels) - x).square()).mean()


def flow_matching(prior: Any, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
    """The squared error of a velocity on the straight path, at times drawn where it is hardest.

    Shape:
        x: (batch, *event); returns ().
    Reference:
        Flow Matching for Generative Modeling, 2022, arXiv:2210.02747; Scaling Rectified Flow Transformers,
        2024, arXiv:2403.03206, section 3.1 (logit-normal times).
    """
    c = prior.config
    x0 = (x - c.mean) / c.sigma_data
    eps = torch.randn_like(x0)
    if c.coupling == "optimal-transport":
        eps = eps[transport(x0, eps)]
    at = linear(torch.randn(len(x), device=x.device).sigmoid())
    z = at.mix(x0, eps)
    wanted = convert(x0, z, at, "x0", "velocity")
    return (prior.velocity(z, at.sigma, labels) - wanted).square().mean()


def transport(x0: Tensor, eps: Tensor) -> Tensor:
    """Which noise goes to which signal so that all lines together are shortest. Shape: returns (batch,), indices.

    Reference:
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, 2023,
        arXiv:2302.00482.
    """
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(x0.flatten(1).double(), eps.flatten(1).double()).square()
    _, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.from_numpy(columns).to(x0.device)


def negative_log_likelihood(prior: Any, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
    """Mean of -log p(x) per entry, in nats. Shape: x (batch, *event); returns ()."""
    return -prior.log_prob(x, labels).mean() / x[0].numel()
