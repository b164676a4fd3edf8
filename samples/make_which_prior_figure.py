"""Draw docs/assets/which-prior.webp: a digit with missing strokes by priors of every family, and a JPEG.

python samples/make_which_prior_figure.py mnist.npz
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from denoise.files.image import read_image
from denoise.options import RestoreOptions
from denoise.pipelines.restore import RestorePipeline
from denoise.signals import Image as Frame

ROOT = Path(__file__).parents[1]
FIGURE, MASK = ROOT / "docs" / "assets" / "which-prior.webp", ROOT / "mask.png"
DIGITS, SIDE, GAP = (0, 1, 2), 128, 6
PRIORS = "mnist-vae", "mnist-flow", "mnist-matching", "mnist-diffusion"


def enlarge(pixels: np.ndarray) -> Image.Image:
    """Return grey or RGB pixels as a square of the figure."""
    return Image.fromarray(pixels.squeeze()).convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)


def main() -> None:
    digits = np.load(sys.argv[1])["test_images"]
    hole = np.zeros((28, 28), np.uint8)
    hole[10:16] = hole[:, 12:15] = 255
    Image.fromarray(hole).save(MASK)
    options = RestoreOptions(task="inpaint", mask=MASK)
    rows = []
    pipelines = [RestorePipeline(prior) for prior in PRIORS]
    for i in DIGITS:
        damaged = np.where(hole > 0, np.uint8(90), digits[i])[..., None]
        restored = [pipeline.frame(Frame(damaged), options).pixels for pipeline in pipelines]
        rows.append([digits[i], damaged, *restored])
    MASK.unlink()
    clean = read_image(ROOT / "samples" / "photo.clean.png").pixels[100 : 100 + SIDE, 100 : 100 + SIDE, :3]
    file = io.BytesIO()
    Image.fromarray(clean).save(file, "JPEG", quality=10)
    decoded = np.asarray(Image.open(file).convert("RGB"))
    clipped = np.minimum(clean, 170)
    gaussian = RestorePipeline()
    cases = ((decoded, RestoreOptions(task="dejpeg", quality=10)), (clipped, RestoreOptions(task="declip")))
    shown = [clean]
    for measured, task in cases:
        restored = gaussian.frame(Frame(measured), task).pixels
        psnr = [10 * np.log10(255**2 / np.square(x.astype(float) - clean).mean()) for x in (measured, restored)]
        print(f"{task.task}: PSNR {psnr[0]:.2f} -> {psnr[1]:.2f} dB")
        shown += [measured, restored]
    rows.append(shown)
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * (SIDE + GAP) - GAP, len(rows) * (SIDE + GAP) - GAP), "white")
    for i, row in enumerate(rows):
        for j, pixels in enumerate(row):
            sheet.paste(enlarge(pixels), (j * (SIDE + GAP), i * (SIDE + GAP)))
    sheet.save(FIGURE, quality=80)


if __name__ == "__main__":
    main()
