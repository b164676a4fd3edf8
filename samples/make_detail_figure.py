"""Draw docs/assets/detail.webp: a page, a matrix code and a fabric, clean, noisy and denoised by `photo`."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from denoise import denoise_image

FIGURE = Path(__file__).parents[1] / "docs" / "assets" / "detail.webp"
SIZE, SCALE, GAP = 144, 2, 6
SIGMA = 20  # of 255
TEXT = """Noise has no pattern that
repeats. Letters do: each
stroke has the same width,
each edge the same contrast.
A network that has seen such
pages keeps both, if it knows
how strong the noise is. So
the level is measured first:
1.5 of 255, or 15, or 50.
PSNR = 10 log(255^2 / MSE)"""


def draw_page() -> np.ndarray:
    """Text of 10 pixels."""
    image = Image.new("L", (SIZE, SIZE), 250)
    ImageDraw.Draw(image).multiline_text((6, 4), TEXT, fill=25, font=ImageFont.load_default(10), spacing=4)
    return np.asarray(image)[..., None].repeat(3, axis=2)


def draw_code(rng: np.random.Generator) -> np.ndarray:
    """A matrix code of modules of 3 pixels with a finder pattern; it encodes nothing."""
    modules = rng.integers(0, 2, (SIZE // 3, SIZE // 3))
    modules[:9, :9] = 0
    modules[1:8, 1:8] = 1
    modules[2:7, 2:7] = 0
    modules[3:6, 3:6] = 1
    pixels = np.where(np.kron(modules, np.ones((3, 3))), 20, 245).astype(np.uint8)
    return pixels[..., None].repeat(3, axis=2)


def draw_fabric() -> np.ndarray:
    """Twill of blue and pale yarns of 4 pixels in uneven light."""
    v, u = np.mgrid[:SIZE, :SIZE]
    is_warp_on_top = (u // 4 + v // 4) % 3 < 2
    yarn = np.abs(np.sin(np.pi * np.where(is_warp_on_top, u, v) / 4 + 0.4))
    colour = np.where(is_warp_on_top[..., None], (62, 88, 140), (168, 166, 158))
    light = 0.9 + 0.18 * np.sin(u / 31) * np.cos(v / 23)
    return (colour * ((0.72 + 0.28 * yarn) * light)[..., None]).round().astype(np.uint8)


def main() -> None:
    rng = np.random.default_rng(1)
    rows = [draw_page(), draw_code(rng), draw_fabric()]
    side, step = SIZE * SCALE, SIZE * SCALE + GAP
    sheet = Image.new("RGB", (3 * step - GAP, len(rows) * step - GAP), "white")
    for i, clean in enumerate(rows):
        noisy = np.rint(clean + SIGMA * rng.standard_normal(clean.shape)).clip(0, 255).astype(np.uint8)
        for j, pixels in enumerate((clean, noisy, denoise_image(noisy))):
            tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (j * step, i * step))
    sheet.save(FIGURE, quality=80, method=6)


if __name__ == "__main__":
    main()
