"""Invertible residual layers: x + g(x), where g is a contraction."""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.nn.invertible import InvertibleLayer

LIPSCHITZ = 0.9  # of each layer of g
EXACT_ENTRIES = 64  # of signals up to which the determinant is computed, not estimated
EXACT_TERMS = 4  # of the series before it is ended at random
CONTINUATION = 0.6  # probability of each further term; above LIPSCHITZ**6, the variance is finite
EVALUATION_TERMS = 40  # 0.9^40 / 40 is below 1e-3 of an entry
INVERSE_STEPS, TOLERANCE = 500, 1e-6
LogDet = Literal["series", "roulette"]


class LipschitzConv(nn.Module):
    """A convolution, or a linear layer, whose spectral norm is at most `LIPSCHITZ`.

    Args:
        ndim: axes of space, 0 for a linear layer.
        channels: channels of the input.
        outputs: channels of the output.
        space: sizes of the signals, for which the norm is estimated by power iteration.
        kernel: kernel size, odd.

    Reference:
        Spectral Normalization for Generative Adversarial Networks, 2018, arXiv:1802.05957; Regularisation of Neural
        Networks by Enforcing Lipschitz Continuity, 2018, arXiv:1804.04368 (of convolutions).
    """

    vector: Tensor

    def __init__(self, ndim: int, channels: int, outputs: int, space: tuple[int, ...], kernel: int) -> None:
        super().__init__()
        self.ndim = ndim
        self.weight = nn.Parameter(torch.empty(outputs, channels, *[kernel] * ndim))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.register_buffer(
            "vector", F.normalize(torch.randn(1, channels, *space).flatten(), dim=0).view(1, -1, *space)
        )
        for _ in range(30):
            self._iterate()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to signals, (batch, channels, *space)."""
        if self.training:
            self._iterate()
        norm = self._map(self.weight, self.vector.clone()).flatten().norm()
        weight = self.weight * (LIPSCHITZ / norm.clamp_min(LIPSCHITZ))
        return self._map(weight, x) + self.bias.view(-1, *[1] * self.ndim)

    @torch.no_grad()
    def _iterate(self) -> None:
        """Bring the vector closer to the first singular vector: apply the layer and its adjoint."""
        result = self._map(self.weight, self.vector)
        if self.ndim:
            transposed = {1: F.conv_transpose1d, 2: F.conv_transpose2d}[self.ndim]
            result = transposed(result, self.weight, padding=self.weight.shape[-1] // 2)
        else:
            result = result @ self.weight
        length = result.flatten().norm()
        # the vector stays where the weight is 0, or it would be 0 for ever
        self.vector.copy_(torch.where(length > 0, result.view_as(self.vector) / length, self.vector))

    def _map(self, weight: Tensor, x: Tensor) -> Tensor:
        if not self.ndim:
            return F.linear(x, weight)
        return {1: F.conv1d, 2: F.conv2d}[self.ndim](x, weight, padding=weight.shape[-1] // 2)


class LipSwish(nn.Module):
    """Swish, divided by 1.1 so that its slope is at most 1.

    Reference:
        Residual Flows, 2019, arXiv:1906.02735, section 3.3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.raw_beta = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Return activations of the shape of ``x``."""
        return x * torch.sigmoid(F.softplus(self.raw_beta) * x) / 1.1


class InvertibleResidual(InvertibleLayer):
    """x + g(x), where g has a Lipschitz constant below 1; inverted by iteration.

    The logarithm of the determinant of small signals is exact. Else it is the power series of the logarithm with one
    random probe of the traces: truncated, which is biased, or ended at random and reweighted (Russian roulette), which
    is not and whose variance is finite, as the probability to go on exceeds the squared Lipschitz constant of g.
    Evaluation takes `EVALUATION_TERMS`.

    Args:
        ndim: axes of space, 0 for vectors.
        channels: channels of the signals.
        space: sizes of the signals.
        width: features of g.
        log_det: estimate of the determinant in training.
        terms: terms of a truncated series.

    Reference:
        Invertible Residual Networks, 2018, arXiv:1811.00995 (the series); Residual Flows for Invertible Generative
        Modeling, 2019, arXiv:1906.02735 (the roulette).
    """

    def __init__(
        self, ndim: int, channels: int, space: tuple[int, ...], width: int, log_det: LogDet, terms: int = 8
    ) -> None:
        super().__init__(ndim)
        self.log_det, self.terms = log_det, terms
        self.is_exact = channels * prod(space) <= EXACT_ENTRIES
        self.g = nn.Sequential(
            LipSwish(),
            LipschitzConv(ndim, channels, width, space, 3),
            LipSwish(),
            LipschitzConv(ndim, width, width, space, 1),
            LipSwish(),
            LipschitzConv(ndim, width, channels, space, 3),
        )

    def to_noise(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x + g(x) and the logarithm of the determinant, or its estimate."""
        keeps_graph = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            x = x if x.requires_grad else x.detach().clone().requires_grad_()
            g = self.g(x)
            ladj = self._exact(x, g, keeps_graph) if self.is_exact else self._estimate(x, g, keeps_graph)
        return (x + g, ladj) if keeps_graph else ((x + g).detach(), ladj.detach())

    @torch.no_grad()
    def to_signal(self, y: Tensor, context: Tensor | None) -> Tensor:
        """Iterate x = y - g(x), which converges as g is a contraction."""
        x = y
        for _ in range(INVERSE_STEPS):
            previous, x = x, y - self.g(x)
            if (x - previous).abs().max() <= TOLERANCE * y.abs().max().clamp_min(1):
                break
        return x

    def _exact(self, x: Tensor, g: Tensor, keeps_graph: bool) -> Tensor:
        rows = [_vjp(entry.sum(), x, None, keeps_graph).flatten(1) for entry in g.flatten(1).unbind(1)]
        jacobian = torch.stack(rows, dim=1)
        return torch.linalg.slogdet(jacobian + torch.eye(len(rows)).to(jacobian))[1]

    def _estimate(self, x: Tensor, g: Tensor, keeps_graph: bool) -> Tensor:
        probe = torch.randn_like(x)
        vector, total = probe, x.new_zeros(len(x))
        for k, weight in enumerate(self._weights(), 1):
            vector = _vjp(g, x, vector, keeps_graph)
            total = total - weight * (-1) ** k / k * (vector * probe).flatten(1).sum(dim=1)
        return total

    def _weights(self) -> list[float]:
        """Return the weights of the terms of the series."""
        if not self.training:
            return [1.0] * EVALUATION_TERMS
        if self.log_det == "series":
            return [1.0] * self.terms
        weights = [1.0] * EXACT_TERMS
        while torch.rand(()) < CONTINUATION:
            weights.append(weights[-1] / CONTINUATION)  # one over the probability that the term is computed
        return weights


def _vjp(output: Tensor, x: Tensor, vector: Tensor | None, keeps_graph: bool) -> Tensor:
    return torch.autograd.grad(output, x, vector, create_graph=keeps_graph, retain_graph=True)[0]
