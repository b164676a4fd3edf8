"""Pictures of point clouds."""

from __future__ import annotations

import torch

from denoise.rendering import render_points


def test_points_are_drawn_where_they_are_seen() -> None:
    up = torch.tensor([[[0.0], [0.0], [0.5]]])
    centre, above = render_points(torch.zeros(1, 3, 1), 48)[0, 0], render_points(up, 48)[0, 0]
    assert centre[24, 24] > 0
    assert (centre > 0).sum() == 5  # a disc of radius 1
    rows, columns = above.nonzero().T
    assert (rows < 20).all()
    assert (columns - 24).abs().max() <= 1


def test_nearer_points_are_brighter_and_in_front() -> None:
    views = [render_points(torch.tensor([[[0.0], [y], [0.0]]]), 48) for y in (-0.3, 0.3)]
    near, far = (view.max() for view in views)
    assert near > far  # the viewer looks along y
    line = torch.stack([torch.zeros(200), torch.linspace(-0.3, 0.3, 200), torch.zeros(200)])[None]
    both = render_points(torch.cat([line, line.flip(2)]), 48)
    assert torch.equal(both[0], both[1])  # whatever the order
    assert both[0].max() == near


def test_points_outside_are_not_drawn() -> None:
    assert not render_points(torch.full((1, 3, 4), 9.0) * torch.tensor([1.0, -1.0, 0.0])[:, None], 48).any()
