"""A panel shows each image as it is, in its column, with a frame around its crop."""

from __future__ import annotations

import numpy as np
import pytest

from denoise.files.image.panel import BACKGROUND, FRAME_COLOURS, GAP, MARGIN, TITLE_SIZE, Column, draw_panel

TOP = MARGIN + TITLE_SIZE + GAP
WHITE, BLACK = 255, 0
BOXES = [(10, 5, 30, 20), (0, 0, 40, 30), (20.4, 10.4, 20.6, 10.6), (39.6, 29.6, 40.0, 30.0)]


def test_pixels_of_overviews_and_crops() -> None:
    rng = np.random.default_rng(0)
    overviews, crops = (rng.integers(0, 255, (3, *shape, 3), np.uint8) for shape in ((30, 40), (50, 25)))
    columns = [Column(title, overview, crop) for title, overview, crop in zip("abc", overviews, crops, strict=True)]
    panel = draw_panel(columns, 60, (0, 0, 40, 30), "words").pixels
    assert panel.shape[1] == 2 * MARGIN + 3 * 60 + 2 * GAP
    for i, (overview, crop) in enumerate(zip(overviews, crops, strict=True)):
        left, crop_top = MARGIN + i * (60 + GAP), TOP + 30 + GAP
        assert (panel[TOP : TOP + 30, left : left + 40] == overview).all()
        assert (panel[crop_top : crop_top + 50, left : left + 25] == crop).all()
        assert (panel[MARGIN : MARGIN + TITLE_SIZE, left : left + 60] < 128).any()  # a title
    assert (panel[TOP + 30 + GAP + 50 + GAP :] < 128).any()  # the caption
    assert (panel[:MARGIN] == BACKGROUND).all()
    assert (panel[:, -MARGIN:] == BACKGROUND).all()


@pytest.mark.parametrize("box", BOXES)
def test_frame_surrounds_the_crop(box: tuple[float, float, float, float]) -> None:
    grey = np.full((30, 40, 3), 100, np.uint8)
    panel = draw_panel([Column("", grey, grey)], 60, box, "").pixels[..., 0]
    left, top, right, bottom = (round(edge) for edge in box)
    for distance, value in ((1, WHITE), (2, BLACK)):
        rows = slice(TOP + top - distance, TOP + bottom + distance)
        columns = slice(MARGIN + left - distance, MARGIN + right + distance)
        ring = panel[rows, columns]
        for side in (ring[0], ring[-1], ring[:, 0], ring[:, -1]):
            assert (side == value).all()
    inside = panel[TOP + top : TOP + bottom, MARGIN + left : MARGIN + right]
    assert (inside == 100).all()
    assert len(FRAME_COLOURS) == 2
    assert panel[TOP - 3, MARGIN + left] == WHITE or top > 0  # no third ring
