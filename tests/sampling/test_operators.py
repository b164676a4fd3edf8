"""Laws of measurement operators: adjoints, inverses, orthonormal coordinates and singular values."""

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
MASK = (torch.rand(1, 1, 8, 12, generator=torch.Generator().manual_seed(0)) < 0.6).double()
OPERATORS: dict[str, Any] = {
    "mask": Mask(MASK),
    "blur": Blur(KERNEL),
    "downsample-2": Downsample(2),
    "downsample-4": Downsample(4),
    "downsample-1": Downsample(1),
}
AUDIO: dict[str, Any] = {
    "mask": Mask((torch.arange(24) % 3 > 0).double()),
    "blur": Blur(torch.tensor([0.1, 0.5, 0.4], dtype=torch.float64)),
    "downsample": Downsample(4, ndim=1),
    "low-pass": LowPass(0.2),
}
ALL = [(f"image-{k}", v, (2, 3, 8, 12)) for k, v in OPERATORS.items()]
ALL += [(f"audio-{k}", v, (2, 1, 24)) for k, v in AUDIO.items()]


@pytest.fixture(params=ALL, ids=[name for name, *_ in ALL])
def case(request: pytest.FixtureRequest) -> tuple[Any, Tensor]:
    _, operator, shape = request.param
    return operator, torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_adjoint_satisfies_its_definition(case: tuple[Any, Tensor]) -> None:
    operator, x = case
    y = torch.randn(operator.forward(x).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close((operator.forward(x) * y).sum(), (x * operator.adjoint(y)).sum())


@pytest.mark.parametrize("damping", [0.01, 2.0])
def test_solve_inverts_the_damped_normal_operator(case: tuple[Any, Tensor], damping: float) -> None:
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
    observed = torch.where(values > 1e-6, z, torch.zeros_like(z))
    torch.testing.assert_close(operator.pseudoinverse(operator.forward(x)), observed, atol=1e-6, rtol=1e-6)


def test_shapes_that_do_not_fit_are_refused() -> None:
    x = torch.zeros(1, 1, 9, 9)
    for operator in (Mask(torch.ones(1, 1, 8, 9)), Mask(torch.ones(3, 1, 9, 9)), Downsample(2), Blur(torch.ones(2, 2))):
        with pytest.raises(ConfigError):
            operator.forward(x)


TIME = torch.arange(400) / 400


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """The optimal denoiser of signals that are multiples of two tones, with a factor from N(0, 1)."""
    tones = torch.sin(2 * torch.pi * 5 * TIME) + 0.5 * torch.sin(2 * torch.pi * 90 * TIME)
    unit = tones / tones.norm()
    power = tones.square().sum()
    return power / (power + sigma[:, None, None] ** 2) * (x @ unit)[..., None] * unit


@pytest.mark.parametrize("loss", ["clipped", "narrow-band"])
def test_diffpir_restores_signals_of_a_one_dimensional_prior(loss: str) -> None:
    clean = denoiser(torch.sin(2 * torch.pi * 5 * TIME)[None, None], torch.zeros(1))
    y = clean.clamp(-0.7, 0.7) if loss == "clipped" else LowPass(40 / 400).forward(clean)
    assert (y - clean).square().mean() > 0.02 * clean.square().mean()
    operator: Any = Clipping(y, 0.7) if loss == "clipped" else LowPass(40 / 400)
    generator = torch.Generator().manual_seed(0)
    sigmas = karras_sigmas(40, 0.001, 2.0)
    start = 2 * torch.randn(clean.shape, generator=generator)
    restored = diffpir(denoiser, y, operator, 1e-3, sigmas, start=start, generator=generator)
    torch.testing.assert_close(restored, clean, atol=0.02, rtol=0)


def test_clipping_maps_consistent_signals_to_the_recording() -> None:
    x, clean = torch.randn(2, 2, 1, 100, generator=torch.Generator().manual_seed(0))
    y = clean.clamp(-0.5, 0.5)
    operator = Clipping(y, 0.5)
    assert torch.equal(operator.forward(clean), y)
    nearest = x + operator.adjoint(operator.solve(y - operator.forward(x), 0.0))
    torch.testing.assert_close(nearest.clamp(-0.5, 0.5), y)
    torch.testing.assert_close(operator.forward(nearest), y)
    is_consistent = (y.abs() == 0.5) & (x * y >= 0.25)
    assert is_consistent.any()
    assert torch.equal(nearest[is_consistent], x[is_consistent])
    with pytest.raises(ConfigError, match="diffpir"):
        ddrm(denoiser, y, operator, 0.1, karras_sigmas(2, 0.1, 1.0), start=y)
