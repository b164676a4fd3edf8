"""Posterior samples of a variational network's latents, consistent across overlapping windows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.distributions import Normal

from denoise.noise import noise_field


@dataclass(frozen=True)
class NoiseFieldSampler:
    """A `denoise.protocols.LatentSampler` whose noise is a function of position: overlapping windows get the same.

    Args:
        seed: seed of the noise field.
        start: position of the window in the signal, in samples or pixels, for each axis of space.
    """

    seed: int
    start: tuple[int, ...]

    def __call__(self, level: int, q: Normal, stride: int) -> Tensor:
        """Return a sample of the latents of one level.

        Args:
            level: index of the latent level.
            q: posterior of the latents, (batch, channels, *space).
            stride: samples or pixels of the signal for each position of the latents.

        Returns:
            Latents, (batch, channels, *space).
        """
        start = [position // stride for position in self.start]
        eps = noise_field(self.seed, level, q.loc.shape[1], start, q.loc.shape[2:])
        return q.loc + q.scale * eps.to(q.loc)
