"""Muon: momentum whose updates are orthogonal matrices. Most networks here train several times faster than by AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# of Newton-Schulz; they lift small singular values fast and leave all of them near one, not at it
QUINTIC = (3.4445, -4.7750, 2.0315)
MIN_CHANNELS = 16


class Muon(torch.optim.AdamW):
    """Orthogonalised momentum for weights that mix channels, AdamW for all others, at one learning rate.

    ``torch.optim.Muon`` accepts matrices only. Here the weight of a convolution is the matrix of its first axis by all
    others. Weights with fewer than 16 channels on a side, as those of the outermost layers, and vectors are optimised
    by AdamW. Updates are scaled to the RMS of AdamW's.

    Args:
        params: parameters.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        momentum: momentum of the orthogonalised updates.

    Reference:
        Muon: An optimizer for hidden layers in neural networks, Jordan et al., 2024; Muon is Scalable for
        LLM Training, 2025, arXiv:2502.16982 (the scale).
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        groups: dict[bool, list[Tensor]] = {True: [], False: []}
        for p in params:
            groups[p.ndim >= 2 and min(p.shape[:2]) >= MIN_CHANNELS].append(p)
        named: list[dict[str, Any]] = [{"params": group, "matrices": key} for key, group in groups.items() if group]
        super().__init__(named, lr=lr, weight_decay=weight_decay)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters by their gradients.

        Args:
            closure: not supported.

        Raises:
            ValueError: there is a closure.
        """
        if closure is not None:
            raise ValueError("Muon takes no closure; compute the gradients before the step.")
        for group in self.param_groups:
            if group["matrices"]:
                for p in group["params"]:
                    if p.grad is not None:
                        self._orthogonal_step(p, group["lr"], group["weight_decay"])
                        p.grad = None  # so that AdamW skips this weight
        return super().step()

    def _orthogonal_step(self, p: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
            state["step"] = torch.tensor(0.0)  # AdamW expects it in every state that it loads
        buffer = state["momentum_buffer"]
        buffer.lerp_(p.grad, 1 - self.momentum)
        update = p.grad.lerp(buffer, self.momentum).movedim(1, -1)  # type: ignore[union-attr]  # a view of channels_last
        matrix = orthogonalise(update.reshape(len(p), -1))
        p.mul_(1 - lr * weight_decay)
        p.add_(matrix.reshape(update.shape).movedim(-1, 1), alpha=-lr * 0.2 * max(matrix.shape) ** 0.5)


def orthogonalise(x: Tensor, steps: int = 5) -> Tensor:
    """Return a matrix with the singular vectors of another one and singular values of about 0.5 to 1.5.

    Args:
        x: matrix, (rows, columns).
        steps: Newton-Schulz iterations, in bfloat16 on a GPU.

    Returns:
        Matrix of the same shape.
    """
    a, b, c = QUINTIC
    y = x.bfloat16() if x.is_cuda else x.float()  # few CPUs are faster in bfloat16
    y = y.T if len(y) > y.shape[1] else y
    y = y / y.norm().clamp_min(1e-7)
    for _ in range(steps):
        gram = y @ y.T
        y = torch.addmm(y, torch.addmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return (y.T if len(x) > x.shape[1] else y).to(x.dtype)
