"""Draw pictures side by side, in columns, each with a part of it enlarged beneath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from denoise.signals import Image

MARGIN, GAP = 24, 16
TITLE, CAPTION = 22, 15  # heights of letters
PAPER, INK, PALE_INK = (255, 255, 255), (24, 24, 24), (96, 96, 96)
FRAME = ("white", "black")  # from the inside out: one of them is seen on any picture


@dataclass(frozen=True)
class Column:
    """A picture under its title, and above a part of it.

    Shape:
        whole, part: (height, width, 3), uint8, drawn pixel by pixel as they are.
    """

    title: str
    whole: NDArray[Any]
    part: NDArray[Any]


def draw_panel(columns: Sequence[Column], width: int, box: tuple[float, float, float, float], caption: str) -> Image:
    """A sheet of ``columns`` of ``width`` pixels; a thin frame shows where in each whole its part lies.

    ``box`` is (left, top, right, bottom) of the part in pixels of the drawn whole. The frame is drawn
    around it, not over it, so that no part is too small for it.

    Shape:
        result: (height, width, 3), uint8.
    """
    top = MARGIN + TITLE + GAP
    below = top + max(column.whole.shape[0] for column in columns) + GAP
    foot = below + max(column.part.shape[0] for column in columns) + GAP
    sheet = Pillow.new("RGB", (2 * MARGIN + len(columns) * (width + GAP) - GAP, foot + CAPTION + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, column in enumerate(columns):
        left = MARGIN + i * (width + GAP)
        pen.text((left, MARGIN), column.title, INK, ImageFont.load_default(TITLE))
        sheet.paste(Pillow.fromarray(column.whole), (left, top))
        sheet.paste(Pillow.fromarray(column.part), (left, below))
        for away, ink in enumerate(FRAME, 1):
            x0, y0 = (start + round(edge) - away for start, edge in zip((left, top), box[:2], strict=True))
            x1, y1 = (start + round(edge) - 1 + away for start, edge in zip((left, top), box[2:], strict=True))
            pen.rectangle((x0, y0, x1, y1), outline=ink)
    pen.text((MARGIN, foot), caption, PALE_INK, ImageFont.load_default(CAPTION))
    return Image(np.array(sheet))
