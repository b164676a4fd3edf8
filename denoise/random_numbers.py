"""The random numbers of torch's generator on CPUs, without torch: estimates made with them stay what they were."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

BLOCK = 16  # normal numbers that are made together


class TorchRandom:
    """A source of the numbers of ``torch.Generator().manual_seed(seed)``.

    Args:
        seed: seed, 0 to 2^32 - 1.

    Reference:
        Mersenne Twister, Matsumoto and Nishimura, 1998; A Note on the Generation of Random Normal Deviates, Box and
        Muller, 1958.
    """

    def __init__(self, seed: int) -> None:
        self._source = np.random.RandomState(seed)

    def integers(self, high: int, n: int) -> NDArray[np.int64]:
        """Return ``torch.randint(high, (n,))``, high at most 2^28."""
        return self._bits(n).astype(np.int64) % high

    def permutation(self, n: int) -> NDArray[np.int64]:
        """Return ``torch.randperm(n)``, n at most 2^27."""
        order = np.arange(n)
        for i, bits in enumerate(self._bits(max(0, n - 1)).tolist()):
            j = i + bits % (n - i)
            order[[i, j]] = order[[j, i]]
        return order

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return ``torch.randn(shape)``, which has 16 numbers or more; fewer are the first of 16."""
        n = max(BLOCK, math.prod(shape))
        whole = n // BLOCK * BLOCK
        x = self._normal(self._uniform(n)[:whole])
        if whole < n:  # the last block is made anew, and overlaps the one before
            x = np.concatenate([x[: n - BLOCK], self._normal(self._uniform(BLOCK))])
        return x[: math.prod(shape)].reshape(shape)

    @staticmethod
    def _normal(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn blocks of uniform into normal numbers."""
        first, second = np.moveaxis(uniform.reshape(-1, 2, BLOCK // 2), 1, 0)
        radius, angle = np.sqrt(-2 * np.log(1 - first)), np.float32(2 * np.pi) * second
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)

    def _uniform(self, n: int) -> NDArray[np.float32]:
        return (self._bits(n) & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)

    def _bits(self, n: int) -> NDArray[np.uint32]:
        return np.frombuffer(self._source.bytes(4 * n) if n else b"", "<u4")  # `bytes(0)` would take a number
