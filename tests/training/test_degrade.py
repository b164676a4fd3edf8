"""Degradations of photographs: each kind has its probability and its properties."""

import numpy as np
import pytest
import torch
from torch import Tensor

from denoise.errors import ConfigError
from denoise.training.degrade import KINDS, degrade
from denoise.training.image_recipe import Degradations

SIGMA = torch.full((200,), 0.08)


def patches(n: int = 200, side: int = 32) -> tuple[Tensor, Tensor]:
    """Smooth images, and with white noise, (n, 3, side, side)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 4, 4, generator=generator) * 0.6 + 0.2
    clean = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return clean, clean + 0.08 * torch.randn(clean.shape, generator=generator)


def degraded(**probabilities: object) -> tuple[Tensor, Tensor, Tensor]:
    clean, noisy = patches()
    return clean, noisy, degrade(clean, noisy, SIGMA, Degradations(**probabilities), seeded(1)).noisy  # type: ignore[arg-type]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(noisy: Tensor, out: Tensor) -> float:
    """Fraction of the patches that differ."""
    return float((noisy != out).flatten(1).any(dim=1).float().mean())


def neighbour_correlation(x: Tensor) -> float:
    a, b = x[..., :-1].flatten(), x[..., 1:].flatten()
    return float(np.corrcoef(a.numpy(), b.numpy())[0, 1])


def test_probabilities_of_zero_change_nothing() -> None:
    _, noisy, out = degraded()
    assert torch.equal(noisy, out)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("white", "clean")])
def test_each_kind_has_its_probability(kind: str) -> None:
    clean, noisy, out = degraded(**{kind: 0.5})
    assert 0.35 < changed(noisy, out) < 0.65
    clean, noisy, out = degraded(**{kind: 1.0})
    assert changed(noisy, out) == 1
    error = out - clean
    assert torch.isfinite(error).all()
    assert 0.01 < float(error.std()) < 0.2
    if kind in ("sensor", "film", "coarse", "camera"):
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


@pytest.mark.parametrize(
    "wrong",
    [
        {"sensor": 0.7, "film": 0.7},
        {"jpeg": -0.1},
        {"jpeg_quality": (0, 50)},
        {"jpeg": {"rain": 0.5}},
        {"resized": {"film": 2.0}},
    ],
)
def test_probabilities_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Degradations(**wrong)  # type: ignore[arg-type]


def test_kinds_are_reported_and_have_probabilities_of_jpeg_of_their_own() -> None:
    clean, noisy = patches()
    s = Degradations(clean=0.4, film=0.3, jpeg={"clean": 1.0, "white": 0.5})
    out = degrade(clean, noisy, SIGMA, s, seeded(1))
    kinds = np.array(out.kinds)
    assert {kind: round(float((kinds == kind).mean()), 1) for kind in set(out.kinds)} == {
        "clean": 0.4,
        "film": 0.3,
        "white": 0.3,
    }
    assert out.is_jpeg[kinds == "clean"].all()
    assert not out.is_jpeg[kinds == "film"].any()
    assert 0.3 < float(out.is_jpeg[kinds == "white"].float().mean()) < 0.7
    white = (kinds == "white") & ~out.is_jpeg.numpy()
    assert torch.equal(out.noisy[white], noisy[white])
    again = degrade(clean, noisy, SIGMA, s, seeded(1))
    assert torch.equal(again.noisy, out.noisy)
    assert again.kinds == out.kinds


def test_patches_without_noise_stay_as_they_are() -> None:
    clean, _, out = degraded(clean=1.0)
    assert torch.equal(clean, out)


def test_unequal_noise_differs_between_channels_alone() -> None:
    clean, _, out = degraded(unequal=1.0)
    sigma = (out - clean).std(dim=(2, 3))
    spread = (sigma / 0.08).log()
    assert float(spread.std()) == pytest.approx(0.5, abs=0.05)
    assert abs(float(spread.mean())) < 0.06
    assert abs(float(np.corrcoef(spread.T.numpy())[0, 1])) < 0.2


def test_uneven_noise_is_at_most_as_strong_as_white_noise() -> None:
    clean, _, out = degraded(uneven=1.0)
    rms = (out - clean).square().mean(dim=(1, 2, 3)).sqrt()
    assert float(rms.max()) < 0.08 * 1.05
    assert 0.03 < float(rms.mean()) < 0.07


def test_camera_noise_is_varied_and_weaker_in_black_and_white() -> None:
    """Photon noise grows with the light, gamma and clipping damp it near white."""
    clean = torch.full((60, 3, 32, 32), 0.5)
    noisy = degrade(clean, clean, SIGMA[:60], Degradations(camera=1.0), seeded(0)).noisy
    sigma = (noisy - clean).std(dim=(1, 2, 3))
    assert float(sigma.max()) > 10 * float(sigma.min())
    assert float(sigma.median()) < 0.15
    white = degrade(clean + 0.5, clean, SIGMA[:60], Degradations(camera=1.0), seeded(0)).noisy
    assert float((white - clean - 0.5).std()) < float((noisy - clean).std())


def test_resized_noise_is_correlated_and_the_scene_stays() -> None:
    clean, _, out = degraded(resized={"white": 1.0})
    assert neighbour_correlation(out - clean) > 0.1
    assert changed(clean, out) == 1
    clean, _, out = degraded(clean=1.0, resized=1.0)
    assert torch.equal(clean, out)


@pytest.mark.parametrize("offsets", [8, 16])
def test_chroma_blocks_start_at_all_offsets(offsets: int) -> None:
    """At lowest quality, chroma has steps between its blocks of 16 pixels alone."""
    _, _, stored = degraded(jpeg=1.0, jpeg_quality=(2, 2), jpeg_offsets=offsets)
    chroma = stored[:, 0] - stored[:, 2]
    steps = chroma.diff(dim=2).abs().mean(dim=1)  # (n, 31), between column i and i + 1
    phases = (steps[:, :16].argmax(dim=1) + 1) % 16
    assert len(phases.unique()) > (12 if offsets == 16 else 1)


def test_recipes_of_release_0_2_draw_the_same_noise() -> None:
    """Standard deviations of the noise as that release drew them, so that its trainings can be repeated."""
    kinds = {"sensor": 0.3, "film": 0.1, "coarse": 0.1, "correlated": 0.1}
    clean, _, out = degraded(**kinds, salt_and_pepper=0.1, rounded=0.5)
    expected = [0.01569, 0.0807, 0.0522, 0.07979, 0.02582, 0.07902, 0.08107, 0.05585, 0.01039, 0.08212]
    torch.testing.assert_close((out - clean).std(dim=(1, 2, 3))[::20], torch.tensor(expected), atol=1e-4, rtol=0)
