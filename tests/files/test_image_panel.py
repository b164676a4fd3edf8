"""A sheet of pictures: each in its place as it is, and a frame around its part."""

from __future__ import annotations

import numpy as np
import pytest

from denoise.files.image.panel import FRAME, GAP, MARGIN, PAPER, TITLE, Column, draw_panel

TOP = MARGIN + TITLE + GAP
WHITE, BLACK = 255, 0
BOXES = [(10, 5, 30, 20), (0, 0, 40, 30), (20.4, 10.4, 20.6, 10.6), (39.6, 29.6, 40.0, 30.0)]


def test_each_picture_is_in_its_place() -> None:
    rng = np.random.default_rng(0)
    wholes, parts = (rng.integers(0, 255, (3, *shape, 3), np.uint8) for shape in ((30, 40), (50, 25)))
    columns = [Column(name, whole, part) for name, whole, part in zip("abc", wholes, parts, strict=True)]
    sheet = draw_panel(columns, 60, (0, 0, 40, 30), "words").pixels
    assert sheet.shape[1] == 2 * MARGIN + 3 * 60 + 2 * GAP
    for i, (whole, part) in enumerate(zip(wholes, parts, strict=True)):
        left, below = MARGIN + i * (60 + GAP), TOP + 30 + GAP
        assert (sheet[TOP : TOP + 30, left : left + 40] == whole).all()
        assert (sheet[below : below + 50, left : left + 25] == part).all()
        assert (sheet[MARGIN : MARGIN + TITLE, left : left + 60] < 128).any()  # a title
    assert (sheet[TOP + 30 + GAP + 50 + GAP :] < 128).any()  # the caption
    assert (sheet[:MARGIN] == PAPER).all()
    assert (sheet[:, -MARGIN:] == PAPER).all()


@pytest.mark.parametrize("box", BOXES)
def test_the_frame_is_around_the_part_and_not_over_it(box: tuple[float, float, float, float]) -> None:
    grey = np.full((30, 40, 3), 100, np.uint8)
    sheet = draw_panel([Column("", grey, grey)], 60, box, "").pixels[..., 0]
    left, top, right, bottom = (round(edge) for edge in box)
    for away, value in ((1, WHITE), (2, BLACK)):
        ring = sheet[TOP + top - away : TOP + bottom + away, MARGIN + left - away : MARGIN + right + away]
        for side in (ring[0], ring[-1], ring[:, 0], ring[:, -1]):
            assert (side == value).all()
    inside = sheet[TOP + top : TOP + bottom, MARGIN + left : MARGIN + right]
    assert (inside == 100).all()
    assert len(FRAME) == 2
    assert sheet[TOP - 3, MARGIN + left] == WHITE or top > 0  # and no further
