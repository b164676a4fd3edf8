"""Operators against their laws: adjoints, inverses, orthonormal coordinates with the right singular values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from denoise.errors import ConfigError
from denoise.probability_path import karras_sigmas
from denoise.sampling.operators import Blur, Clipping, Downsample, LowPass, Mask
from denoise.sampling.posterior import ddrm, diffpir

KERNEL = torch.tensor([[0.0, 0.2, 0.0], [0.1, 0.4, 0.1], [0.0, 0.1, 0.1]], dtype=torch.float64)
HOLES = (torch.rand(1, 1, 8, 12, generator=torch.Generator().manual_seed(0)) < 0.6).double()
OPERATORS: dict[str, Any] = {
    "mask": Mask(HOLES),
    "blur": Blur(KERNEL),
    "reduce-2": Downsample(2),
    "reduce-4": Downsample(4),
    "reduce-1": Downsample(1),
}
SOUND: dict[str, Any] = {
    "mask": Mask((torch.arange(24) % 3 > 0).double()),
    "blur": Blur(torch.tensor([0.1, 0.5, 0.4], dtype=torch.float64)),
    "reduce": Downsample(4, ndim=1),
    "band": LowPass(0.2),
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
    z = operator.to_spectral(x)
    torch.testing.assert_close(operator.from_spectral(z), x)
    torch.testing.assert_close(z.abs().square().sum(), x.square().sum())
    values = operator.singular_values(z)
    torch.testing.assert_close(operator.to_spectral(operator.adjoint(operator.forward(x))), values**2 * z)
    seen = torch.where(values > 1e-6, z, torch.zeros_like(z))
    torch.testing.assert_close(operator.pseudoinverse(operator.forward(x)), seen, atol=1e-6, rtol=1e-6)


def test_what_does_not_fit_is_told() -> None:
    x = torch.zeros(1, 1, 9, 9)
    for operator in (Mask(torch.ones(1, 1, 8, 9)), Mask(torch.ones(3, 1, 9, 9)), Downsample(2), Blur(torch.ones(2, 2))):
        with pytest.raises(ConfigError):
            operator.forward(x)


TIME = torch.arange(400) / 400


def tones(x: Tensor, sigma: Tensor) -> Tensor:
    """The mean of what noisy sounds may be, if all are of two tones in step, of an amplitude of about one."""
    both = torch.sin(2 * torch.pi * 5 * TIME) + 0.5 * torch.sin(2 * torch.pi * 90 * TIME)
    unit = both / both.norm()
    power = both.square().sum()
    return power / (power + sigma[:, None, None] ** 2) * (x @ unit)[..., None] * unit


@pytest.mark.parametrize("lost", ["clipped", "narrow"])
def test_what_a_recording_lost_comes_back(lost: str) -> None:
    """What is above a limit, or a band, follows from the rest, if the prior knows what sounds there are."""
    whole = tones(torch.sin(2 * torch.pi * 5 * TIME)[None, None], torch.zeros(1))
    y = whole.clamp(-0.7, 0.7) if lost == "clipped" else LowPass(40 / 400).forward(whole)
    assert (y - whole).square().mean() > 0.02 * whole.square().mean()
    operator: Any = Clipping(y, 0.7) if lost == "clipped" else LowPass(40 / 400)
    generator = torch.Generator().manual_seed(0)
    sigmas = karras_sigmas(40, 0.001, 2.0)
    start = 2 * torch.randn(whole.shape, generator=generator)
    found = diffpir(tones, y, operator, 1e-3, sigmas, start=start, generator=generator)
    torch.testing.assert_close(found, whole, atol=0.02, rtol=0)


def test_what_was_clipped_has_been_beyond() -> None:
    x, whole = torch.randn(2, 2, 1, 100, generator=torch.Generator().manual_seed(0))
    y = whole.clamp(-0.5, 0.5)
    operator = Clipping(y, 0.5)
    assert torch.equal(operator.forward(whole), y)
    nearest = x + operator.adjoint(operator.solve(y - operator.forward(x), 0.0))
    torch.testing.assert_close(nearest.clamp(-0.5, 0.5), y)
    torch.testing.assert_close(operator.forward(nearest), y)
    agrees = (y.abs() == 0.5) & (x * y >= 0.25)
    assert agrees.any()
    assert torch.equal(nearest[agrees], x[agrees])
    with pytest.raises(ConfigError, match="diffpir"):
        ddrm(tones, y, operator, 0.1, karras_sigmas(2, 0.1, 1.0), start=y)
