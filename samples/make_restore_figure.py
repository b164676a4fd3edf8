"""Draw docs/assets/restore.webp: an image with scratches, a blurred and a small one, each with its restoration."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from denoise.files.image import read_image
from denoise.options import RestoreOptions
from denoise.pipelines.restore import RestorePipeline
from denoise.signals import Image as Frame

ROOT = Path(__file__).parents[1]
FIGURE, MASK = ROOT / "docs" / "assets" / "restore.webp", ROOT / "mask.png"
TOP, LEFT, SIDE, GAP = 100, 100, 256, 6
BLUR, SIGMA = 1.6, 2  # pixels, and noise of 255


def draw_mask() -> np.ndarray:
    """Text and scratches, white on black."""
    mask = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(mask)
    draw.text((20, 120), "SAMPLE TEXT ON IT", fill=255)
    draw.line((10, 10, 240, 200), fill=255, width=3)
    draw.line((200, 5, 30, 240), fill=255, width=4)
    return np.asarray(mask)


def main() -> None:
    photo = read_image(ROOT / "samples" / "photo.clean.png").pixels[..., :3].astype(float)
    box = slice(TOP, TOP + SIDE), slice(LEFT, LEFT + SIDE)
    clean, mask = photo[box], draw_mask()
    Image.fromarray(mask).save(MASK)
    blurred = np.stack([gaussian_filter(photo[..., i], BLUR) for i in range(3)], axis=-1)[box]
    blurred = blurred + np.random.default_rng(0).normal(0, SIGMA, blurred.shape)
    cases = [
        (np.where(mask[..., None] > 0, (255, 0, 0), clean), RestoreOptions(task="inpaint", mask=MASK)),
        (blurred, RestoreOptions(task="deblur", blur=BLUR, sigma=SIGMA / 255)),
        (clean.reshape(SIDE // 2, 2, SIDE // 2, 2, 3).mean(axis=(1, 3)), RestoreOptions(task="upscale", factor=2)),
    ]
    pipeline = RestorePipeline()
    sheet = Image.new("RGB", (3 * (SIDE + GAP) - GAP, 2 * SIDE + GAP), "white")
    for i, (pixels, options) in enumerate(cases):
        measured = pixels.round().clip(0, 255).astype(np.uint8)
        restored = pipeline.frame(Frame(measured), options).pixels
        for row, shown in enumerate((measured, restored)):
            picture = Image.fromarray(shown).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(picture, (i * (SIDE + GAP), row * (SIDE + GAP)))
        psnr = [
            10 * np.log10(255**2 / np.square(np.asarray(Image.fromarray(x).resize((SIDE, SIDE), 3)) - clean).mean())
            for x in (measured, restored)
        ]
        print(f"{options.task}: PSNR {psnr[0]:.2f} -> {psnr[1]:.2f} dB")
    MASK.unlink()
    sheet.save(FIGURE, quality=90)


if __name__ == "__main__":
    main()
