"""Degradations of photographs: each kind has its probability and its properties."""

import numpy as np
import pytest
import torch
from torch import Tensor

from denoise.errors import ConfigError
from denoise.training.degrade import KINDS, degrade
from denoise.training.recipe import Degradations

SIGMA = torch.full((200,), 0.08)


def patches(n: int = 200, side: int = 32) -> tuple[Tensor, Tensor]:
    """Smooth images, and with white noise, (n, 3, side, side)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 4, 4, generator=generator) * 0.6 + 0.2
    clean = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return clean, clean + 0.08 * torch.randn(clean.shape, generator=generator)


def degraded(**probabilities: object) -> tuple[Tensor, Tensor, Tensor]:
    clean, noisy = patches()
    return clean, noisy, degrade(clean, noisy, SIGMA, Degradations(**probabilities), torch.Generator().manual_seed(1))  # type: ignore[arg-type]


def changed(noisy: Tensor, out: Tensor) -> float:
    """Fraction of the patches that differ."""
    return float((noisy != out).flatten(1).any(dim=1).float().mean())


def neighbour_correlation(x: Tensor) -> float:
    a, b = x[..., :-1].flatten(), x[..., 1:].flatten()
    return float(np.corrcoef(a.numpy(), b.numpy())[0, 1])


def test_probabilities_of_zero_change_nothing() -> None:
    _, noisy, out = degraded()
    assert torch.equal(noisy, out)


@pytest.mark.parametrize("kind", [kind.__name__ for kind in KINDS])
def test_each_kind_has_its_probability(kind: str) -> None:
    clean, noisy, out = degraded(**{kind: 0.5})
    assert 0.35 < changed(noisy, out) < 0.65
    clean, noisy, out = degraded(**{kind: 1.0})
    assert changed(noisy, out) == 1
    error = out - clean
    assert torch.isfinite(error).all()
    assert 0.01 < float(error.std()) < 0.2
    if kind in ("sensor", "film", "coarse"):
        assert neighbour_correlation(error) > 0.1
    else:
        assert abs(neighbour_correlation(error)) < 0.03


def test_rounding_and_jpeg_give_integers_and_jpeg_correlates_the_noise() -> None:
    clean, _, rounded = degraded(rounded=1.0)
    _, _, stored = degraded(jpeg=1.0, jpeg_quality=(40, 60))
    for out in (rounded, stored):
        assert torch.equal(out * 255, (out * 255).round().clamp(0, 255))
    assert abs(neighbour_correlation(rounded - clean)) < 0.03
    assert neighbour_correlation(stored - clean) > 0.1


def test_blocks_of_jpeg_start_at_random_positions() -> None:
    """At low quality there are steps between blocks, in half of the patches at multiples of 8."""
    _, _, stored = degraded(jpeg=1.0, jpeg_quality=(3, 3))
    steps = stored.diff(dim=3).abs().mean(dim=(1, 2))  # between column i and i + 1
    phase = steps[:, :24].reshape(len(steps), 3, 8).sum(dim=1).argmax(dim=1)
    counts = torch.bincount((phase + 1) % 8, minlength=8) / len(phase)
    assert 0.4 < counts[0] < 0.75
    assert (counts > 0.01).all()


def test_defective_pixels_are_black_or_white() -> None:
    _, noisy, out = degraded(salt_and_pepper=1.0, salt_and_pepper_fraction=0.2)
    hit = noisy != out
    assert 0.05 < float(hit.float().mean()) < 0.15  # uniformly distributed up to 0.2
    assert set(out[hit].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("wrong", [{"sensor": 0.7, "film": 0.7}, {"jpeg": -0.1}, {"jpeg_quality": (0, 50)}])
def test_probabilities_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Degradations(**wrong)  # type: ignore[arg-type]
