"""Random numbers without torch against torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from denoise.random_numbers import TorchRandom

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.lists(st.tuples(st.integers(1, 2**28 - 1), st.integers(0, 40)), min_size=1, max_size=4))
def test_integers(seed: int, draws: list[tuple[int, int]]) -> None:
    generator, source = torch.Generator().manual_seed(seed), TorchRandom(seed)
    for high, n in draws:
        np.testing.assert_array_equal(source.integers(high, n), torch.randint(high, (n,), generator=generator))


@given(SEEDS, st.lists(st.integers(0, 70), min_size=1, max_size=4))
def test_permutations(seed: int, lengths: list[int]) -> None:
    generator, source = torch.Generator().manual_seed(seed), TorchRandom(seed)
    for n in lengths:
        np.testing.assert_array_equal(source.permutation(n), torch.randperm(n, generator=generator))


@given(SEEDS, st.lists(st.integers(16, 100), min_size=1, max_size=4))
def test_normal_numbers(seed: int, lengths: list[int]) -> None:
    generator, source = torch.Generator().manual_seed(seed), TorchRandom(seed)
    for n in lengths:
        expected = torch.randn(n, generator=generator)
        np.testing.assert_allclose(source.normal((n,)), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("shape", [(3, 50, 7), (2, 3, 96, 96), (1,), (3, 5)])
def test_shapes(shape: tuple[int, ...]) -> None:
    x = TorchRandom(0).normal(shape)
    assert (x.shape, x.dtype) == (shape, np.float32)
