"""Photographs that are not just under white noise: each kind is drawn as often as it is said to be."""

import numpy as np
import pytest
import torch
from torch import Tensor

from denoise.errors import ConfigError
from denoise.training.degrade import KINDS, degrade
from denoise.training.recipe import Degradations

SIGMA = torch.full((200,), 0.08)


def patches(n: int = 200, side: int = 32) -> tuple[Tensor, Tensor]:
    """Smooth pictures, and with white noise. Shape: (n, 3, side, side)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 4, 4, generator=generator) * 0.6 + 0.2
    clean = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return clean, clean + 0.08 * torch.randn(clean.shape, generator=generator)


def degraded(**chances: object) -> tuple[Tensor, Tensor, Tensor]:
    clean, noisy = patches()
    return clean, noisy, degrade(clean, noisy, SIGMA, Degradations(**chances), torch.Generator().manual_seed(1))  # type: ignore[arg-type]


def changed(noisy: Tensor, out: Tensor) -> float:
    """The share of the patches that are not as they were."""
    return float((noisy != out).flatten(1).any(dim=1).float().mean())


def neighbours(x: Tensor) -> float:
    a, b = x[..., :-1].flatten(), x[..., 1:].flatten()
    return float(np.corrcoef(a.numpy(), b.numpy())[0, 1])


def test_nothing_drawn_is_nothing_done() -> None:
    _, noisy, out = degraded()
    assert torch.equal(noisy, out)


@pytest.mark.parametrize("kind", [kind.__name__ for kind in KINDS])
def test_each_kind_takes_its_share(kind: str) -> None:
    clean, noisy, out = degraded(**{kind: 0.5})
    assert 0.35 < changed(noisy, out) < 0.65
    clean, noisy, out = degraded(**{kind: 1.0})
    assert changed(noisy, out) == 1
    error = out - clean
    assert torch.isfinite(error).all()
    assert 0.01 < float(error.std()) < 0.2
    if kind in ("sensor", "film", "coarse"):
        assert neighbours(error) > 0.1
    else:
        assert abs(neighbours(error)) < 0.03


def test_what_a_file_stores_has_whole_numbers_and_jpeg_spreads_the_noise() -> None:
    clean, _, rounded = degraded(rounded=1.0)
    _, _, stored = degraded(jpeg=1.0, jpeg_quality=(40, 60))
    for out in (rounded, stored):
        assert torch.equal(out * 255, (out * 255).round().clamp(0, 255))
    assert abs(neighbours(rounded - clean)) < 0.03
    assert neighbours(stored - clean) > 0.1


def test_blocks_of_jpeg_begin_anywhere() -> None:
    """A step lies between the blocks of a file of low quality: in half of the patches at multiples of 8."""
    _, _, stored = degraded(jpeg=1.0, jpeg_quality=(3, 3))
    steps = stored.diff(dim=3).abs().mean(dim=(1, 2))  # between column i and i + 1
    phase = steps[:, :24].reshape(len(steps), 3, 8).sum(dim=1).argmax(dim=1)
    counts = torch.bincount((phase + 1) % 8, minlength=8) / len(phase)
    assert 0.4 < counts[0] < 0.75
    assert (counts > 0.01).all()


def test_faulty_pixels_are_black_or_white() -> None:
    _, noisy, out = degraded(salt=1.0, salt_share=0.2)
    hit = noisy != out
    assert 0.05 < float(hit.float().mean()) < 0.15  # at most 0.2, as likely as any less
    assert set(out[hit].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("wrong", [{"sensor": 0.7, "film": 0.7}, {"jpeg": -0.1}, {"jpeg_quality": (0, 50)}])
def test_chances_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Degradations(**wrong)  # type: ignore[arg-type]
