"""Losses of a discriminator, which tells real examples from generated ones, and of its generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

AdversarialLoss = Literal["non-saturating", "minimax", "hinge"]


def discriminator_loss(real: Tensor, fake: Tensor, loss: AdversarialLoss = "non-saturating") -> Tensor:
    """Return the loss of a discriminator.

    The minimax loss, and the non-saturating one that differs from it for the generator alone, is the binary
    cross-entropy ``-E[log D(x)] - E[log(1 - D(G(z)))]`` of D, the sigmoid of the logits. Its least value is
    ``log 4 - 2 JSD(real, generated)``.

    Args:
        real: logits of real examples, (B,).
        fake: logits of generated examples, (B,).
        loss: ``"non-saturating"``, ``"minimax"`` or ``"hinge"``.

    Returns:
        Scalar.

    Raises:
        ValueError: there is no such loss.

    Reference:
        Generative Adversarial Networks, 2014, arXiv:1406.2661, eq. 1 and theorem 1; Geometric GAN, 2017,
        arXiv:1705.02894 (hinge).
    """
    _check(loss)
    if loss == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor, loss: AdversarialLoss = "non-saturating") -> Tensor:
    """Return the loss of a generator.

    ``E[log(1 - D(G(z)))]`` (minimax), ``-E[log D(G(z))]`` (non-saturating) or the mean of the negative logits (hinge).
    Where the discriminator rejects examples with certainty, the gradient of minimax vanishes, that of the others is -1.

    Args:
        fake: logits of generated examples, (B,).
        loss: as for `discriminator_loss`.

    Returns:
        Scalar.

    Raises:
        ValueError: there is no such loss.

    Reference:
        Generative Adversarial Networks, 2014, arXiv:1406.2661, section 3.
    """
    _check(loss)
    if loss == "minimax":
        return -F.softplus(fake).mean()
    return -fake.mean() if loss == "hinge" else F.softplus(-fake).mean()


def r1_penalty(logits: Tensor, x: Tensor) -> Tensor:
    """Return the mean squared norm of the gradient of logits by the examples, differentiably.

    Args:
        logits: logits of real examples, (B,), each of which depends on its example alone.
        x: the examples, (B, *event), which require gradients.

    Returns:
        Scalar; half of it is weighted by gamma.

    Reference:
        Which Training Methods for GANs do actually Converge?, 2018, arXiv:1801.04406, eq. 9.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


def accuracy(real: Tensor, fake: Tensor) -> Tensor:
    """Return the fraction of examples that a discriminator classifies correctly; 0.5 if it is deceived.

    Args:
        real: logits of real examples.
        fake: logits of as many generated ones.

    Returns:
        Scalar.
    """
    return 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean())


def frozen(module: nn.Module) -> Callable[..., Tensor]:
    """Return the function of a module with its parameters as constants: gradients flow to its inputs alone.

    Args:
        module: module, e.g. the discriminator in the loss of the generator.
    """
    constants = {name: p.detach() for name, p in module.named_parameters()}

    def call(*args: object) -> Tensor:
        return functional_call(module, constants, args)

    return call


def _check(loss: str) -> None:
    if loss not in get_args(AdversarialLoss):
        raise ValueError(f"loss is {loss!r}; expected one of {', '.join(get_args(AdversarialLoss))}.")
