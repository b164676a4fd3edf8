"""Maps of sigma against the true noise, and their errors within their bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from denoise import noise
from denoise.training.conditioning import draw_sigma_maps, sigma_maps
from denoise.training.image_recipe import Conditioning

EXACT = {"max_error": 0.0, "floor": 0.0, "too_high": 0.0, "too_high_textures": 0.0, "too_low_jpeg": 0.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(side: int = 128) -> Tensor:
    """An image whose channels have all intensities, (3, side, side)."""
    x = torch.linspace(0, 1, side).expand(side, -1)
    return torch.stack([x, x.T, 1 - x])


def draws(n: int, noisy: Tensor, clean: Tensor, s: Conditioning, **facts: object) -> Tensor:
    return torch.stack([draw_sigma_maps(noisy, clean, s, seeded(i), **facts) for i in range(n)])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["uniform", "local", "intensity"])
def test_maps_of_white_noise_are_its_sigma_at_both_scales(kind: str) -> None:
    sigma = torch.tensor([0.05, 0.1, 0.2])[:, None, None]
    clean = ramp()
    noisy = noise.gaussian(clean, sigma, seeded())
    maps = sigma_maps(noisy, clean, kind, 39)  # type: ignore[arg-type]
    assert maps.shape == (6, 128, 128)
    tolerance = {"uniform": 0.03, "local": 0.2, "intensity": 0.1}[kind]
    torch.testing.assert_close(maps, sigma.repeat(2, 1, 1).expand_as(maps), rtol=tolerance, atol=0)


def test_the_second_half_is_the_noise_of_means_of_2_x_2_pixels_times_2() -> None:
    clean = ramp()
    noisy = noise.coarse(clean[None], torch.tensor([0.1]), 3.0, seeded())[0]
    maps = sigma_maps(noisy, clean, "uniform")
    blocks = (noisy - clean).unfold(1, 2, 1).unfold(2, 2, 1).mean(dim=(3, 4))
    torch.testing.assert_close(maps[:3, 0, 0], (noisy - clean).square().mean(dim=(1, 2)).sqrt())
    torch.testing.assert_close(maps[3:, 0, 0], 2 * blocks.square().mean(dim=(1, 2)).sqrt(), rtol=0.01, atol=0)
    assert float((maps[3:] / maps[:3]).min()) > 1.7


def test_maps_by_intensity_follow_the_curve_of_the_noise() -> None:
    clean = ramp(192)
    noisy = noise.intensity_dependent(clean[None], torch.tensor([0.02]), torch.tensor([0.1]), generator=seeded())[0]
    expected = (0.02**2 + (0.1**2 - 0.02**2) * clean).sqrt()
    maps = sigma_maps(noisy, clean, "intensity")
    inner = (slice(None), slice(20, -20), slice(20, -20))  # the curve is constant beyond its ends
    error = (maps / expected.repeat(2, 1, 1)).log()[inner]
    assert float(error.abs().mean()) < 0.05
    assert float(error.abs().max()) < 0.3


def test_local_maps_follow_the_position() -> None:
    clean = ramp()
    sigma = noise.smooth_field(torch.tensor([0.02]), torch.tensor([0.2]), (128, 128), seeded(4))
    noisy = noise.position_dependent(clean[None], sigma, seeded())[0]
    maps = sigma_maps(noisy, clean, "local", 15)
    correlation = np.corrcoef(maps[0].flatten().numpy(), sigma.flatten().numpy())[0, 1]
    assert correlation > 0.9


@pytest.mark.parametrize("kind", ["uniform", "local", "intensity"])
def test_maps_of_flat_images_and_of_no_noise_are_finite(kind: str) -> None:
    flat = torch.full((1, 24, 24), 0.3)
    assert float(sigma_maps(flat, flat, kind).abs().max()) == 0  # type: ignore[arg-type]
    assert torch.isfinite(sigma_maps(flat + 0.1 * torch.eye(24), flat, kind)).all()  # type: ignore[arg-type]


def test_without_errors_the_maps_are_those_of_the_truth() -> None:
    clean = ramp(64)
    noisy = noise.gaussian(clean, torch.tensor([0.05, 0.1, 0.2])[:, None, None], seeded())
    truth = sigma_maps(noisy, clean, "uniform")
    maps = draws(100, noisy, clean, Conditioning(uniform=1.0, local=0.0, **EXACT), is_jpeg=True, is_texture=True)
    is_common = (maps - truth).abs().flatten(1).amax(dim=1) > 1e-6
    assert 0 < float(is_common.float().mean()) < 0.25  # a tenth has the mean power in all channels
    expected = truth.view(2, 3, 64, 64).square().mean(dim=1, keepdim=True).sqrt().expand(-1, 3, -1, -1).flatten(0, 1)
    torch.testing.assert_close(maps[is_common], expected.expand(int(is_common.sum()), -1, -1, -1))


def test_relative_errors_have_their_bounds() -> None:
    clean = ramp(32)
    noisy = noise.gaussian(clean, 0.1, seeded())
    s = Conditioning(**(EXACT | {"max_error": 0.2, "uniform": 1.0, "local": 0.0}))
    error = (draws(400, noisy, clean, s)[..., 0, 0] / sigma_maps(noisy, clean, "uniform")[:, 0, 0]).log()
    common = error.mean(dim=1)  # of the six maps; the noise of the three channels is equal
    good = common.abs() < 0.035
    assert 0.5 < float(good.float().mean()) < 0.75  # a half, and those of the others that are small by chance
    assert float(common.abs().max()) < 0.2 + 4 * 0.08 / math.sqrt(6)
    assert float(common.abs().max()) > 0.15
    separate = error.std(dim=1)
    assert 0.15 < float((separate > 0.03).float().mean()) < 0.35  # a quarter
    assert float(separate[separate > 0.03].square().mean().sqrt()) == pytest.approx(0.08, rel=0.15)


def test_a_floor_is_found_in_clean_images() -> None:
    clean = ramp(32)
    maps = draws(200, clean, clean, Conditioning(too_high=0.0), kind="clean")
    assert float(maps.max()) <= 1 / 255 + 1e-6
    largest = maps.flatten(1).amax(dim=1)
    assert 0.2 < float((largest == 0).float().mean()) < 0.4
    assert float(largest.max()) > 0.7 / 255
    without = draws(200, clean, clean, Conditioning(too_high=0.0))
    assert 0.1 < float((without.flatten(1).amax(dim=1) > 0).float().mean()) < 0.3  # 0.3 of the draws, 0.7 of them > 0


def test_noise_of_jpeg_is_underestimated_and_structure_of_textures_overestimated() -> None:
    clean = ramp(32)
    noisy = noise.gaussian(clean, 0.1, seeded())
    s = Conditioning(**(EXACT | {"too_low_jpeg": 0.5, "too_high_textures": 0.5, "uniform": 1.0, "local": 0.0}))
    truth = sigma_maps(noisy, clean, "uniform").mean()

    def ratios(**facts: object) -> Tensor:
        return draws(200, noisy, clean, s, **facts).mean(dim=(1, 2, 3)) / truth

    low, high = ratios(is_jpeg=True), ratios(is_texture=True)
    assert 0.35 < float((low < 0.98).float().mean()) < 0.6
    assert 0.14 < float(low.min()) < 0.3
    assert 0.1 < float((high > 1.02).float().mean()) < 0.5  # levels far below sigma change little
    assert float(high.max()) <= math.hypot(0.1, 60 / 255) / 0.1 + 0.1
    for facts in ({"is_jpeg": True, "kind": "clean"}, {}):
        torch.testing.assert_close(ratios(**facts), torch.ones(200), rtol=0.02, atol=0)
