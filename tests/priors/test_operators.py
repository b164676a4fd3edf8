"""Operators against their laws: adjoints, inverses, orthonormal coordinates with the right singular values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from denoise.errors import ConfigError
from denoise.priors.operators import Blur, Mask, Reduce

KERNEL = torch.tensor([[0.0, 0.2, 0.0], [0.1, 0.4, 0.1], [0.0, 0.1, 0.1]], dtype=torch.float64)
HOLES = (torch.rand(1, 1, 8, 12, generator=torch.Generator().manual_seed(0)) < 0.6).double()
OPERATORS: dict[str, Any] = {
    "mask": Mask(HOLES),
    "blur": Blur(KERNEL),
    "reduce-2": Reduce(2),
    "reduce-4": Reduce(4),
    "reduce-1": Reduce(1),
}
SOUND: dict[str, Any] = {
    "mask": Mask((torch.arange(24) % 3 > 0).double()),
    "blur": Blur(torch.tensor([0.1, 0.5, 0.4], dtype=torch.float64)),
    "reduce": Reduce(4, ndim=1),
}
ALL = [(f"image-{k}", v, (2, 3, 8, 12)) for k, v in OPERATORS.items()]
ALL += [(f"sound-{k}", v, (2, 1, 24)) for k, v in SOUND.items()]


@pytest.fixture(params=ALL, ids=[name for name, *_ in ALL])
def case(request: pytest.FixtureRequest) -> tuple[Any, Tensor]:
    _, operator, shape = request.param
    return operator, torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_adjoint_is_one(case: tuple[Any, Tensor]) -> None:
    operator, x = case
    y = torch.randn(operator.forward(x).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close((operator.forward(x) * y).sum(), (x * operator.adjoint(y)).sum())


@pytest.mark.parametrize("damping", [0.01, 2.0])
def test_it_solves(case: tuple[Any, Tensor], damping: float) -> None:
    operator, x = case
    r = operator.forward(x)
    z = operator.solve(r, damping)
    torch.testing.assert_close(operator.forward(operator.adjoint(z)) + damping * z, r)


def test_coordinates_are_orthonormal_and_diagonal(case: tuple[Any, Tensor]) -> None:
    operator, x = case
    z = operator.spectral(x)
    torch.testing.assert_close(operator.signal(z), x)
    torch.testing.assert_close(z.abs().square().sum(), x.square().sum())
    values = operator.singular(z)
    torch.testing.assert_close(operator.spectral(operator.adjoint(operator.forward(x))), values**2 * z)
    seen = torch.where(values > 1e-6, z, torch.zeros_like(z))
    torch.testing.assert_close(operator.pseudoinverse(operator.forward(x)), seen, atol=1e-6, rtol=1e-6)


def test_what_does_not_fit_is_told() -> None:
    x = torch.zeros(1, 1, 9, 9)
    for operator in (Mask(torch.ones(1, 1, 8, 9)), Mask(torch.ones(3, 1, 9, 9)), Reduce(2), Blur(torch.ones(2, 2))):
        with pytest.raises(ConfigError):
            operator.forward(x)
