"""Losses of codecs and priors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Normal

from denoise.priors.consistency_model import ConsistencyModel
from denoise.priors.guided import GuidedPrior
from denoise.priors.multiscale_flow import MultiscaleFlow
from denoise.probability_path import convert, expand_like, linear, precondition, preserving
from denoise.protocols import HasLogProb, Label, PatchPrior
from denoise.sampling.solvers import ddim_step, ddim_target, heun_step
from denoise.training.losses.adversarial import accuracy, discriminator_loss, frozen, generator_loss

Estimator = Literal["A", "B", "score", "importance"]


def reconstruction(codec: Any, x: Tensor) -> Tensor:
    """Return the mean of -log p(x|z) for each entry: the reconstruction error of an autoencoder.

    Args:
        codec: autoencoder with ``encode`` and ``likelihood``.
        x: signals, (B, *event).

    Returns:
        Scalar, nats.
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
    """Return the negative evidence lower bound of a variational codec and a prior.

    Args:
        model: latent prior with a variational codec and a prior that has a density.
        x: signals, (B, *event).
        labels: B conditions of the prior, or None.
        estimator: "A" samples the whole of ``log p(x, z) - log q(z|x)``. "B" samples log p(x|z) alone, with the
            Kullback-Leibler divergence in closed form, for a standard normal prior. "score" has the value of A and the
            gradient of the score function, without one through z. "importance" is the tighter bound of all samples
            together, which equals A for one sample.
        samples: samples of z for each signal.
        beta: weight of the divergence.
        free_bits: nats of each latent that the divergence leaves out (B alone).

    Returns:
        Scalar, nats for each event.

    Reference:
        Auto-Encoding Variational Bayes, 2013, arXiv:1312.6114, eq. 6 and 7, and section 2.2 (the naive
        gradient); beta-VAE, Higgins et al., 2017; Improved Variational Inference with Inverse Autoregressive
        Flow, 2016, arXiv:1606.04934, appendix C.8 (free bits); Importance Weighted Autoencoders, 2015,
        arXiv:1509.00519, eq. 8.
    """
    q = model.codec.posterior(x)
    noise = torch.randn(samples, *q.loc.shape, device=x.device)
    z = q.loc + q.scale * noise
    if estimator == "score":
        z = z.detach()
    log_likelihood = model.codec.likelihood(z.flatten(0, 1)).log_prob(x.expand(samples, *x.shape).flatten(0, 1))
    log_likelihood = log_likelihood.unflatten(0, (samples, -1))
    if estimator == "B":
        return -log_likelihood.mean() + beta * divergence(q, free_bits)
    log_q = q.log_prob(z).flatten(2).sum(dim=2)
    repeated_labels = None if labels is None else [*labels] * samples
    log_prior = model.prior.log_prob(z.flatten(0, 1), repeated_labels).unflatten(0, (samples, -1))
    bound = log_likelihood + beta * (log_prior - log_q)
    if estimator == "A":
        return -bound.mean()
    if estimator == "importance":
        return math.log(samples) - bound.logsumexp(dim=0).mean()
    # d/dphi E_q[f] = E_q[f d log q / dphi]: the value of the bound, with that gradient
    return -(bound + bound.detach() * (log_q - log_q.detach())).mean()


def divergence(q: Normal, free_bits: float = 0.0) -> Tensor:
    """Return the Kullback-Leibler divergence of a posterior from the standard normal distribution.

    Args:
        q: posterior, (B, *latents).
        free_bits: nats of each latent that are left out.

    Returns:
        Scalar, nats for each event.
    """
    each = 0.5 * (q.loc.square() + q.scale.square() - 1) - q.scale.log()
    return each.flatten(1).mean(dim=0).clamp_min(free_bits).sum() if free_bits else each.flatten(1).sum(dim=1).mean()


class KLSampler:
    """A `denoise.protocols.LatentSampler` for training: it samples latents and adds up their divergence.

    Args:
        free_bits: nats of each latent that the divergence leaves out.
    """

    def __init__(self, free_bits: float = 0.0) -> None:
        self.nats, self.free_bits = torch.zeros(()), free_bits

    def __call__(self, level: int, q: Normal, stride: int) -> Tensor:
        """Return samples of one latent level.

        Args:
            level: index of the level.
            q: posterior of its latents, (B, channels, *space).
            stride: samples or pixels of the signal for each position.
        """
        self.nats = self.nats.to(q.loc) + divergence(q, self.free_bits)
        return q.rsample()


def adversarial(model: Any, x: Tensor, weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the loss of an adversarial autoencoder and of its critic, as one sum.

    The loss of the critic has no gradient for the encoder, and the adversarial loss of the encoder none for the critic.
    So one optimizer serves both.

    Args:
        model: latent prior whose codec has a critic.
        x: signals, (B, *event).
        weight: weight of both adversarial losses.

    Returns:
        The loss in nats for each entry and the accuracy of the critic, scalars.

    Reference:
        Adversarial Autoencoders, 2015, arXiv:1511.05644; Generative Adversarial Networks, 2014,
        arXiv:1406.2661 (the non-saturating loss of the encoder).
    """
    codec, critic = model.codec, model.codec.critic
    z = codec.sample_posterior(x)
    reconstruction_loss = -codec.likelihood(z).log_prob(x).mean() / x[0].numel()
    real = model.prior.sample(len(x)).to(z)
    real_logits, fake_logits = critic(real), critic(z.detach())
    losses = discriminator_loss(real_logits, fake_logits) + generator_loss(frozen(critic)(z))
    return reconstruction_loss + weight * losses, accuracy(real_logits, fake_logits)


def denoising_score_matching(prior: Any, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
    """Return the weighted squared error of a diffusion prior at random noise levels, about 1 before training.

    Args:
        prior: `denoise.priors.diffusion.Diffusion`.
        x: signals or latents, (B, *event).
        labels: B conditions, or None.

    Returns:
        Scalar.

    Reference:
        Elucidating the Design Space of Diffusion-Based Generative Models, 2022, arXiv:2206.00364, table 1.
    """
    c = prior.config
    sigma = (c.log_sigma[0] + c.log_sigma[1] * torch.randn(len(x), device=x.device)).exp()
    weight = precondition(expand_like(sigma, x), prior.sigma_data).c_out.square().reciprocal()
    noisy = x + expand_like(sigma, x) * torch.randn_like(x)
    return (weight * (prior(noisy, sigma, labels) - x).square()).mean()


def ddpm(prior: Any, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
    """Return the squared error of what a DDPM predicts, at uniformly distributed timesteps.

    Args:
        prior: `denoise.priors.ddpm.DDPM`.
        x: signals or latents, (B, *event).
        labels: B conditions, or None.

    Returns:
        Scalar, 1 for the prediction 0.

    Reference:
        Denoising Diffusion Probabilistic Models, 2020, arXiv:2006.11239, eq. 14 (eps); Progressive Distillation for
        Fast Sampling of Diffusion Models, 2022, arXiv:2202.00512, section 4 (x0 and v).
    """
    c = prior.config
    x0 = (x - c.mean) / c.sigma_data
    index = torch.randint(c.timesteps, (len(x),), device=x.device)
    point = preserving(prior.ratios[index])
    z = point.mix(x0, torch.randn_like(x0))
    target = convert(x0, z, point, "x0", c.prediction)
    return (prior.predict_at(z, index + 1, labels) - target).square().mean()


def consistency_distillation(
    student: ConsistencyModel, teacher: GuidedPrior, x: Tensor, labels: Sequence[Label] | None = None
) -> Tensor:
    """Return the weighted squared error of a consistency model, for a random step of its teacher.

    The teacher takes one of its steps, guided, by Heun's method. From there the student, without a gradient, leads to
    the end of its own step; from the start it must lead there, too.

    Args:
        student: model that is trained.
        teacher: prior that it is distilled from.
        x: signals, (B, *event).
        labels: B conditions, or None.

    Returns:
        Scalar.

    Reference:
        Multistep Consistency Models, 2024, arXiv:2403.06807, algorithm 1; Consistency Models, 2023, arXiv:2303.01469,
        algorithm 2, for one step.
    """
    substeps, sigmas = student.config.substeps, student.training_sigmas().to(x)
    index = torch.randint(len(sigmas) - 1, (len(x),), device=x.device)
    sigma, sigma_next, sigma_end = sigmas[index], sigmas[index + 1], sigmas[(index // substeps + 1) * substeps]
    noisy = x + expand_like(sigma, x) * torch.randn_like(x)

    def guided_teacher(x: Tensor, sigma: Tensor) -> Tensor:
        return teacher(x, sigma, labels, teacher.config.guidance)

    with torch.no_grad():
        x_next = heun_step(guided_teacher, noisy, sigma, sigma_next)
        positive = sigma_next.clamp_min(student.config.sigma_min)  # at 0 the step ends and the student has no part
        x_end = ddim_step(student.denoiser(x_next, positive, labels), x_next, positive, sigma_end)
        x_end = torch.where(expand_like(sigma_next, x) > expand_like(sigma_end, x), x_end, x_next)
        target = ddim_target(x_end, noisy, sigma, sigma_end)
    weight = precondition(expand_like(sigma, x), teacher.data_std).c_out.square().reciprocal()
    return (weight * (student.denoiser(noisy, sigma, labels) - target).square()).mean()


def flow_matching(prior: Any, x: Tensor, labels: Sequence[Label] | None = None) -> Tensor:
    """Return the squared error of a velocity on straight paths, at times of a logit-normal distribution.

    Args:
        prior: `denoise.priors.flow_matching.FlowMatching`.
        x: signals or latents, (B, *event).
        labels: B conditions, or None.

    Returns:
        Scalar.

    Reference:
        Flow Matching for Generative Modeling, 2022, arXiv:2210.02747; Scaling Rectified Flow Transformers,
        2024, arXiv:2403.03206, section 3.1 (logit-normal times).
    """
    c = prior.config
    x0 = (x - c.mean) / c.sigma_data
    eps = torch.randn_like(x0)
    if c.coupling == "optimal-transport":
        eps = eps[transport(x0, eps)]
    point = linear(torch.randn(len(x), device=x.device).sigmoid())
    z = point.mix(x0, eps)
    target = convert(x0, z, point, "x0", "velocity")
    return (prior.velocity(z, point.sigma, labels) - target).square().mean()


def transport(x0: Tensor, eps: Tensor) -> Tensor:
    """Return the assignment of noise to signals with the least sum of squared distances.

    Args:
        x0: signals, (B, *event).
        eps: noise, as `x0`.

    Returns:
        Index of the noise of each signal, (B,).

    Reference:
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, 2023,
        arXiv:2302.00482.
    """
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(x0.flatten(1).double(), eps.flatten(1).double()).square()
    _, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.from_numpy(columns).to(x0.device)


def patch_likelihood(
    prior: PatchPrior, noisy: Tensor, clean: Tensor, sigma: Tensor, weight: float = 0.0
) -> tuple[Tensor, Callable[[], dict[str, Tensor]]]:
    """Return the negative log-likelihood of noisy patches, and the error of their denoiser.

    In expectation, both are least for the density of the data; of a model that cannot represent it, the second one
    draws the gradient towards that of the data.

    Args:
        prior: prior of patches.
        noisy: noisy patches, (B, *event).
        clean: clean patches, of the same shape.
        sigma: standard deviation of the noise, (B,).
        weight: weight of the squared error relative to sigma^2.

    Returns:
        Scalar, nats for each entry, and a function that returns both parts.

    Reference:
        A connection between score matching and denoising autoencoders, Vincent, 2011, eq. 11.
    """
    noisy = noisy.requires_grad_(weight > 0)
    log_prob = prior.noisy_log_prob(noisy, sigma).sum()
    nats = -log_prob / noisy.numel()
    if not weight:
        return nats, lambda: {"nats": nats.detach()}
    (score,) = torch.autograd.grad(log_prob, noisy, create_graph=True)
    error = (expand_like(sigma, noisy) * score - (clean - noisy) / expand_like(sigma, noisy)).square().mean()
    return nats + weight * error, lambda: {"nats": nats.detach(), "error": error.detach()}


def negative_log_likelihood(
    prior: HasLogProb | MultiscaleFlow, x: Tensor, labels: Sequence[Label] | None = None
) -> Tensor:
    """Return the mean of -log p(x) for each entry; of one draw of the dequantisation noise, which bounds it.

    Args:
        prior: prior with a density.
        x: signals or latents, (B, *event).
        labels: B conditions, or None.

    Returns:
        Scalar, nats.
    """
    log_prob = prior.draw_log_prob if isinstance(prior, MultiscaleFlow) else prior.log_prob
    return -log_prob(x, labels).mean() / x[0].numel()
