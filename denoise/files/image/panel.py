"""Draw images side by side, in columns, each with an enlarged crop below it."""

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
TITLE_SIZE, CAPTION_SIZE = 22, 15  # heights of letters
BACKGROUND, TEXT_COLOUR, CAPTION_COLOUR = (255, 255, 255), (24, 24, 24), (96, 96, 96)
FRAME_COLOURS = ("white", "black")  # from the inside out: one of them is visible on any image


@dataclass(frozen=True)
class Column:
    """An image under its title, with a crop of it below.

    Args:
        title: text above the image.
        overview: the image, (height, width, 3), uint8, drawn pixel by pixel.
        crop: the crop, (height, width, 3), uint8, drawn pixel by pixel.
    """

    title: str
    overview: NDArray[Any]
    crop: NDArray[Any]


def draw_panel(columns: Sequence[Column], width: int, box: tuple[float, float, float, float], caption: str) -> Image:
    """Draw columns with a thin frame in each overview around its crop.

    The frame is drawn around the crop, not over it, so that no crop is too small for it.

    Args:
        columns: at least one.
        width: width of a column in pixels.
        box: (left, top, right, bottom) of the crop in pixels of the drawn overview.
        caption: text below the columns.

    Returns:
        Image of (height, width, 3), uint8.
    """
    overview_top = MARGIN + TITLE_SIZE + GAP
    crop_top = overview_top + max(column.overview.shape[0] for column in columns) + GAP
    caption_top = crop_top + max(column.crop.shape[0] for column in columns) + GAP
    panel_width = 2 * MARGIN + len(columns) * (width + GAP) - GAP
    panel = Pillow.new("RGB", (panel_width, caption_top + CAPTION_SIZE + MARGIN), BACKGROUND)
    canvas = ImageDraw.Draw(panel)
    for i, column in enumerate(columns):
        left = MARGIN + i * (width + GAP)
        canvas.text((left, MARGIN), column.title, TEXT_COLOUR, ImageFont.load_default(TITLE_SIZE))
        panel.paste(Pillow.fromarray(column.overview), (left, overview_top))
        panel.paste(Pillow.fromarray(column.crop), (left, crop_top))
        origin = (left, overview_top)
        for distance, colour in enumerate(FRAME_COLOURS, 1):
            x0, y0 = (start + round(edge) - distance for start, edge in zip(origin, box[:2], strict=True))
            x1, y1 = (start + round(edge) - 1 + distance for start, edge in zip(origin, box[2:], strict=True))
            canvas.rectangle((x0, y0, x1, y1), outline=colour)
    canvas.text((MARGIN, caption_top), caption, CAPTION_COLOUR, ImageFont.load_default(CAPTION_SIZE))
    return Image(np.array(panel))
