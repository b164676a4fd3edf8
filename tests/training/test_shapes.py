"""Shapes as sets of points, against closed forms of their surfaces; the training of a prior of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from denoise.config import parse
from denoise.errors import ConfigError
from denoise.registry import load
from denoise.training import shapes
from denoise.training.example_recipe import PointData
from denoise.training.recipe import Recipe
from denoise.training.shapes import SHAPES, STD, Shapes, random_rotation, sample_shape, sample_surface


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_normalised_and_follow_the_seed(name: str) -> None:
    x, again, other = (sample_shape(name, 500, seeded(seed)) for seed in (0, 0, 1))
    assert x.shape == (500, 3)
    assert torch.isfinite(x).all()
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(3), atol=1e-6, rtol=0)
    assert float(x.square().mean().sqrt()) == pytest.approx(STD)


def test_points_are_uniform_on_the_surface() -> None:
    n = 20_000
    sphere = sample_surface(SHAPES["sphere"](seeded()), n, seeded())
    torch.testing.assert_close(sphere.norm(dim=1), torch.ones(n))
    torch.testing.assert_close(sphere.square().mean(dim=0), torch.full((3,), 1 / 3), atol=0.01, rtol=0)
    torus = sample_surface(SHAPES["torus"](seeded()), n, seeded())
    from_circle = torch.stack([torus[:, :2].norm(dim=1) - 1, torus[:, 2]])
    tube = float(from_circle[:, 0].norm())
    torch.testing.assert_close(from_circle.norm(dim=0), torch.full((n,), tube))
    assert float(from_circle[0].mean()) == pytest.approx(tube**2 / 2, abs=0.01)  # more area on the outside
    box = sample_surface(SHAPES["box"](seeded()), n, seeded())
    assert float(box.abs().amax(dim=1).min()) == pytest.approx(1)
    for axis in range(3):
        for side in (-1, 1):
            assert float((box[:, axis] == side).float().mean()) == pytest.approx(1 / 6, abs=0.01)
    cone = sample_surface(SHAPES["cone"](seeded()), n, seeded())
    height = float(cone[:, 2].max()) / (1 - float(cone[cone[:, 2].argmax(), :2].norm()))
    base = float((cone[:, 2] == 0).float().mean())
    assert base == pytest.approx(1 / (1 + math.hypot(1, height)), abs=0.015)


def test_a_knot_is_a_tube_along_its_centre() -> None:
    for seed in range(5):
        surface, t, step = SHAPES["knot"](seeded(seed)), torch.rand(200, generator=seeded()), 1e-3
        opposite = [surface(t, 0 * t + v) for v in (0.0, 0.5, 0.25, 0.75)]
        centre = (opposite[0] + opposite[1]) / 2
        torch.testing.assert_close((opposite[2] + opposite[3]) / 2, centre, atol=1e-5, rtol=0)
        before, after = (sum(surface(s, 0 * t + v) for v in (0.0, 0.5)) / 2 for s in (t - step, t + step))
        tangent = (after - before) / (after - before).norm(dim=1, keepdim=True)
        tube = float((opposite[0] - centre).norm(dim=1).mean())
        assert 0.1 <= tube <= 0.3
        for point in opposite:
            torch.testing.assert_close((point - centre).norm(dim=1), torch.full((200,), tube), atol=1e-5, rtol=0)
            assert ((point - centre) * tangent).sum(dim=1).abs().max() < 0.01 * tube
        torch.testing.assert_close(surface(0 * t, t), surface(0 * t + 1, t), atol=1e-4, rtol=0)  # closed
        grid = torch.arange(1000) / 1000
        curve = (surface(grid, 0 * grid) + surface(grid, 0 * grid + 0.5)) / 2
        assert float(curve.square().sum(dim=1).mean()) == pytest.approx(1, rel=1e-4)


def test_superquadrics_satisfy_their_equation(monkeypatch: pytest.MonkeyPatch) -> None:
    u, v = torch.rand(2, 500, generator=seeded(), dtype=torch.float64)
    for p, q in ((2.0, 2.0), (4.0, 4.0), (2.0, 6.0), (1.2, 3.0)):
        exponents = iter((p, q))
        monkeypatch.setattr(shapes, "_uniform", lambda *_, exponents=exponents: next(exponents))
        x, y, z = SHAPES["superquadric"](seeded())(u, v).abs().T
        torch.testing.assert_close((x**p + y**p) ** (q / p) + z**q, torch.ones(500, dtype=torch.float64))


def test_batches_have_one_of_the_counts_and_the_classes_of_the_recipe() -> None:
    source = Shapes(PointData(("torus", "sphere"), counts=(64, 32), label_dropout=0.5))
    batches = [source.batch(8, seeded(seed)) for seed in range(8)]
    assert {tuple(batch.clean.shape) for batch in batches} == {(8, 3, 64), (8, 3, 32)}
    assert {label for batch in batches for label in batch.labels or ()} == {None, 0, 1}
    for batch in batches:  # a sphere is an ellipsoid: its points have one norm after whitening
        for cloud, label in zip(batch.clean, batch.labels or (), strict=True):
            if label == 1:
                quadratic = torch.cat([cloud**2, cloud.roll(1, 0) * cloud, cloud]).T
                ones = torch.ones(len(quadratic), 1)
                assert (quadratic @ torch.linalg.lstsq(quadratic, ones).solution - ones).abs().max() < 1e-3


def test_orientations_are_uniform() -> None:
    generator = seeded()
    rotations = torch.stack([random_rotation(generator) for _ in range(4000)])
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(4000, 3, 3), atol=1e-5, rtol=0)
    error = (1 / 3 / 4000) ** 0.5  # of the mean of an entry, whose variance is 1 / 3
    assert rotations.mean(dim=0).abs().max() < 4 * error
    assert abs(float(rotations.det().mean())) < 4 / 4000**0.5  # as many reflections


RECIPE: dict[str, Any] = {
    "name": "tiny",
    "architecture": "diffusion",
    "modality": "points",
    "objective": "diffusion",
    "model": {
        "shape": [3, 32],
        "classes": 2,
        "sigma_data": 0.25,
        "net": {"kind": "set", "widths": [16], "blocks": 1, "embedding": 8, "inducing": 4},
    },
    "points": {"shapes": ["torus", "sphere"], "counts": [32, 16]},
    "schedule": {"steps": 4, "batch": 4, "sample_every": 4, "log_every": 2},
}


def test_a_recipe_of_shapes_trains(tmp_path: Path) -> None:
    from denoise.training.loop import train

    path = train(parse(Recipe, RECIPE, "tiny"), tmp_path, tmp_path / "out", device="cpu", precision="32-true")
    prior, card = load(path, kind="prior", modality="points")
    assert (card.classes, card.shape, card.channels) == (("torus", "sphere"), (3, 32), 3)
    assert tuple(prior.event_shape) == (3, 32)
    assert (tmp_path / "out/samples/step-000004.png").is_file()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"points": {"shapes": ["torus", "pyramid"], "counts": [32]}}, "expected some of torus"),
        ({"points": {"shapes": ["torus"], "counts": [32]}}, "Fix model.classes"),
        ({"model": RECIPE["model"] | {"sigma_data": 0.5}}, "standard deviation of 0.25, .* Fix model.sigma_data"),
        ({"points": {"shapes": ["torus", "box"], "counts": [64]}}, "make \\(3, 64\\) at most"),
        ({"points": None}, "no \\[examples\\], \\[points\\], \\[image\\] or \\[audio\\] section"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    from denoise.training.loop import train

    with pytest.raises(ConfigError, match=reason):
        train(parse(Recipe, RECIPE | changes, "tiny"), tmp_path, tmp_path / "out", device="cpu", precision="32-true")
