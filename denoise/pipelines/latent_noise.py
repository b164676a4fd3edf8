"""Draws: what a variational network draws its latents from, window by window."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.distributions import Normal

from denoise.noise import noise_field


@dataclass(frozen=True)
class Draw:
    """Latents drawn from noise that has a place: windows that overlap draw the same there.

    ``start`` is where the window begins, in samples of the model, for each axis of space.
    """

    seed: int
    start: tuple[int, ...]

    def __call__(self, level: int, q: Normal, stride: int) -> Tensor:
        start = [at // stride for at in self.start]
        eps = noise_field(self.seed, level, q.loc.shape[1], start, q.loc.shape[2:])
        return q.loc + q.scale * eps.to(q.loc)
