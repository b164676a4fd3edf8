"""Forward and backward passes of an objective's step: precision, several processes, gradients and optimizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

T = TypeVar("T")


class Trainer:
    """A module and its optimizers under Lightning Fabric.

    Args:
        fabric: device, precision and processes.
        module: module that is trained, with all its submodules, shipped or not.
        optimizers: optimizers of its parameters, at their learning rates after the warm-up.
        grad_clip: largest norm of the gradient of one optimizer's parameters.
    """

    def __init__(self, fabric: Fabric, module: nn.Module, optimizers: Sequence[Optimizer], grad_clip: float) -> None:
        self.fabric, self.grad_clip = fabric, grad_clip
        self.module: Any = module
        self._base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        self._forward, *self._optimizers = fabric.setup(_Forward(module), *optimizers)
        self.step = 0
        self.has_skipped = False

    def forward(self, function: Callable[[Any], T]) -> T:
        """Evaluate a function of the module, at the precision of the training.

        Everything that a loss takes from the module must be computed in ``function``, because gradients of several
        processes are synchronised for what is computed here. Tensors that it returns are float32.

        Args:
            function: function of the module. It closes over the batch, whose numbers are not rounded.
        """
        return self._forward(function)

    def minimise(self, loss: Tensor, optimizer: int = 0) -> float:
        """Take a step of one optimizer down the gradient of a loss.

        The step is skipped if the gradient is not finite: one overflowing batch must not end a long training.
        ``has_skipped`` is then true until the loop resets it.

        Args:
            loss: scalar computed by `forward`.
            optimizer: index in the objective's optimizers.

        Returns:
            The norm of the gradient before clipping.
        """
        chosen = self._optimizers[optimizer]
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(self._forward, chosen, max_norm=self.grad_clip, error_if_nonfinite=False)
        if norm is not None and torch.isfinite(norm):
            chosen.step()
        else:
            self.has_skipped = True
        for each in self._optimizers:  # the loss of one network leaves gradients in the others, too
            each.zero_grad()
        return float(norm) if norm is not None else 0.0

    def set_learning_rates(self, anneal: Callable[[float], float]) -> float:
        """Set the learning rate of every parameter group to a function of its rate after the warm-up.

        Args:
            anneal: function of the rate after the warm-up that returns the rate of this step.

        Returns:
            The learning rate of the first group of the first optimizer.
        """
        for optimizer, rates in zip(self._optimizers, self._base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = anneal(rate)
        return float(self._optimizers[0].param_groups[0]["lr"])

    def stateful(self) -> dict[str, Any]:
        """Return the module and the optimizers by their names in a checkpoint."""
        names = ["optimizer", *(f"optimizer{n}" for n in range(2, len(self._optimizers) + 1))]
        return {"model": self._forward, **dict(zip(names, self._optimizers, strict=True))}


class _Forward(nn.Module):
    """A module whose forward pass is any function of it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[[Any], T]) -> T:
        return function(self.module)
