"""The measurement of recipe gan-mode-collapse, on points whose modes are known."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "recipes/gan-mode-collapse"))
import ring


def test_modes_are_covered_within_three_standard_deviations() -> None:
    angles = torch.arange(8) * math.pi / 4
    modes = 0.8 * torch.stack([angles.cos(), angles.sin()], dim=1)
    assert ring.mode_coverage(modes.repeat(10, 1)) == (8, 1.0)
    assert ring.mode_coverage(modes[:3].repeat(10, 1)) == (3, 1.0)
    outwards = modes / 0.8
    inside, outside = modes + 2.9 * 0.02 * outwards, modes + 3.1 * 0.02 * outwards
    assert ring.mode_coverage(torch.cat([inside, outside])) == (8, pytest.approx(0.5))
    assert ring.mode_coverage(torch.zeros(100, 2)) == (0, 0.0)


def test_points_of_the_ring_reach_every_mode(tmp_path: Path) -> None:
    ring.make(tmp_path / "ring.npz")
    with ring.np.load(tmp_path / "ring.npz") as archive:
        modes, good = ring.mode_coverage(torch.from_numpy(archive["signals"]))
    assert modes == 8
    assert good == pytest.approx(1 - math.exp(-4.5), abs=2e-3)  # of a normal distribution in the plane
