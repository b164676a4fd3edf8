"""Generate procedural images that train a denoiser not to take fine texture for noise.

    python recipes/data/textures.py DIR [--count N] [--size PIXELS] [--seed SEED] [--fonts FOLDER ...] [--held-out]

Photographs hold few pages of text, screens, line art, maps, plots, matrix codes, halftone and dither, fabrics, star
fields and saturated colours; this script renders them. They need no licence: each image is computed from random
numbers, nothing is copied from existing works. Use fonts with free licences only.

The kinds of HELD_OUT_KINDS (herringbone, music, barcode, spokes) are for model selection and are not to be trained
on; they are written with --held-out only.

An image is determined by its kind, seed and size, and, where it contains text, by the installed fonts: all TrueType
and OpenType files in /usr/share/fonts and the folders given with --fonts, e.g. DejaVu; without any, the default font of
Pillow. Needs NumPy, SciPy and Pillow only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

Rng = np.random.Generator
Renderer = Callable[[Rng, int], np.ndarray]  # (generator, size) to pixels (size, size, 3), about [0, 1]

font_folders = [Path("/usr/share/fonts")]  # extended by --fonts

LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
LETTER_FREQUENCIES = np.array([12, 9, 8, 8, 7, 7, 6, 6, 6, 4, 4, 3, 3, 2, 2, 2, 2, 2, 1, 1.5, 2, 1, 0.5, 0.5, 0.5, 0.5])


# --- colours ---------------------------------------------------------------------------------------------------------


def draw_colour(rng: Rng) -> np.ndarray:
    """Return a random colour (3,) in [0, 1]: uniform in RGB, saturated, or grey."""
    kind = rng.random()
    if kind < 0.4:
        return rng.random(3)
    if kind < 0.8:
        return draw_saturated_colour(rng)
    return np.full(3, rng.random())


def draw_saturated_colour(rng: Rng) -> np.ndarray:
    """Return a random saturated colour (3,), uniform in hue."""
    hue, saturation, value = rng.random() * 6, rng.uniform(0.6, 1), rng.uniform(0.35, 1)
    ramp = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return value * (1 - saturation + saturation * ramp)


def draw_colour_pair(rng: Rng, min_distance: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Return background and foreground: dark on light, black on white, their inverses, or any two colours.

    Args:
        rng: generator.
        min_distance: minimum L1 distance of two arbitrary colours; a fifth of the pairs may be of low contrast.
    """
    kind = rng.random()
    if kind < 0.4:
        background, foreground = np.full(3, rng.uniform(0.85, 1)), np.full(3, rng.uniform(0, 0.3))
        background = background * (1 - rng.uniform(0, 0.12, 3) * (rng.random() < 0.4))
        return (background, foreground) if rng.random() < 0.8 else (foreground, background)
    if kind < 0.5:
        return (np.ones(3), np.zeros(3)) if rng.random() < 0.6 else (np.zeros(3), np.ones(3))
    min_distance = min_distance if rng.random() < 0.8 else 0.08
    background = draw_colour(rng)
    for _ in range(50):
        foreground = draw_colour(rng)
        if np.abs(background - foreground).sum() > min_distance:
            break
    return background, foreground


def colour_mask(rng: Rng, mask: np.ndarray) -> np.ndarray:
    """Interpolate between the colours of a random pair by a mask (size, size) in [0, 1]."""
    background, foreground = draw_colour_pair(rng)
    return background + (foreground - background) * mask[..., None]


def to_rgb8(colour: np.ndarray) -> tuple[int, int, int]:
    """Convert a colour in [0, 1] to 8 bits per channel, as Pillow expects it."""
    r, g, b = (round(255 * float(v)) for v in np.clip(colour, 0, 1))
    return r, g, b


# --- coordinates and fields ------------------------------------------------------------------------------------------


def pixel_grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates x and y of all pixels, each (size, size)."""
    y, x = np.mgrid[:size, :size].astype(float)
    return x, y


def rotated_grid(rng: Rng, size: int, axis_aligned: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Return pixel coordinates rotated by a random angle, or, with probability ``axis_aligned``, shifted only."""
    x, y = pixel_grid(size)
    if rng.random() < axis_aligned:
        return x + rng.uniform(0, 64), y + rng.uniform(0, 64)
    angle = rng.uniform(0, np.pi)
    return x * np.cos(angle) + y * np.sin(angle) + 512, -x * np.sin(angle) + y * np.cos(angle) + 512


def smooth_field(rng: Rng, size: int, scale: float | None = None) -> np.ndarray:
    """Return smooth random values (size, size) in [0, 1] with features of about ``scale`` pixels."""
    scale = scale or rng.uniform(size / 12, size / 2.5)
    nodes = max(3, int(size / scale) + 3)
    coarse = Image.fromarray(rng.random((nodes, nodes)).astype(np.float32))
    field = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), float)
    return (field - field.min()) / max(1e-6, np.ptp(field))


def power_law_noise(rng: Rng, size: int, exponent: float) -> np.ndarray:
    """Return noise (size, size) in [0, 1] with the amplitude spectrum 1 / f**exponent."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency**exponent
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (size, size))
    return np.clip(0.5 + noise / noise.std() * rng.uniform(0.1, 0.3), 0, 1)


def continuous_tone(rng: Rng, size: int) -> np.ndarray:
    """Return a grey image (size, size) in [0, 1] of continuous tones, the input of halftone and dither."""
    kind = rng.random()
    if kind < 0.5:
        return smooth_field(rng, size)
    if kind < 0.75:
        return power_law_noise(rng, size, rng.uniform(1.2, 2.2))
    u, _ = rotated_grid(rng, size)
    return np.clip((u - u.min()) / np.ptp(u) * rng.uniform(0.5, 1.2), 0, 1)


def warp_coordinates(rng: Rng, size: int, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add smooth displacements to coordinates, as of cloth that does not lie flat."""
    amplitude = rng.uniform(0, 12) * (rng.random() < 0.5)
    return u + amplitude * smooth_field(rng, size, size / 2), v + amplitude * smooth_field(rng, size, size / 2)


# --- text ------------------------------------------------------------------------------------------------------------


@lru_cache(1)
def font_files() -> tuple[str, ...]:
    """Return the paths of all usable fonts."""
    paths = {p for folder in font_folders for p in folder.rglob("*") if p.suffix.lower() in (".ttf", ".otf")}
    # Fonts of mathematical symbols lack letters.
    return tuple(sorted(str(p) for p in paths if "MathTeX" not in p.name and p.parent.name != "cmap"))


@lru_cache(1)
def font_families() -> dict[str, list[str]]:
    """Return the paths of the fonts of each family, i.e. with the same file name before the hyphen."""
    families: dict[str, list[str]] = {}
    for path in font_files():
        families.setdefault(Path(path).stem.split("-")[0], []).append(path)
    return families or {"": [""]}


@lru_cache(4000)
def load_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """Load a font at a size in pixels; an empty path is the default font of Pillow."""
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def draw_font(rng: Rng, size: int) -> ImageFont.FreeTypeFont:
    """Return a random face of a random family; 15 % are of non-Latin scripts where such fonts are installed."""
    is_other_script = rng.random() < 0.15
    names = [n for n in font_families() if n.startswith(tuple(SCRIPTS)) == is_other_script]
    names = names or [*font_families()]
    faces = font_families()[names[rng.integers(len(names))]]
    return load_font(faces[rng.integers(len(faces))], size)


SCRIPTS = {  # families of non-Latin scripts, with a range of code points: first, last + 1
    "NotoSansDevanagari": (0x905, 0x93A), "NotoSansArabic": (0x628, 0x64A), "NotoNaskhArabic": (0x628, 0x64A),
    "NotoSansThai": (0xE01, 0xE2F), "NotoSansHebrew": (0x5D0, 0x5EB), "NotoSerifHebrew": (0x5D0, 0x5EB),
    "NotoSansTamil": (0xB85, 0xBB9), "NotoSansBengali": (0x985, 0x9B9), "NotoSansGeorgian": (0x10D0, 0x10F1),
    "NotoSansArmenian": (0x561, 0x587), "NotoSansEthiopic": (0x1200, 0x1247), "NotoSansKhmer": (0x1780, 0x17B3),
    "NotoSansTelugu": (0xC05, 0xC39), "NotoMusic": (0x1D100, 0x1D1DD), "NotoSansSymbols2": (0x1F7E0, 0x1FB00),
    "DroidSansFallback": (0x4E00, 0x9FA0),
}  # fmt: skip
CYRILLIC_AND_GREEK = ("DejaVu", "OpenSans", "Roboto", "Liberation", "NotoSans-", "NotoSerif-", "Hack", "FiraCode")


def draw_alphabet(rng: Rng, font: ImageFont.FreeTypeFont) -> list[str] | None:
    """Return letters of the script of a font, sometimes Cyrillic or Greek, or None for Latin letters."""
    stem = Path(font.path).stem if isinstance(font.path, str) else ""
    for name, (first, last) in SCRIPTS.items():
        if stem.startswith(name):
            return [chr(c) for c in rng.integers(first, last, 60)]
    if stem.startswith(CYRILLIC_AND_GREEK) and rng.random() < 0.15:
        return [chr(c) for c in (range(0x410, 0x450) if rng.random() < 0.7 else range(0x3B1, 0x3CA))]
    return None


def draw_words(rng: Rng, length: int, alphabet: list[str] | None = None) -> str:
    """Return random words, numbers and punctuation; the letters have the frequencies of English."""
    words: list[str] = []
    while sum(map(len, words)) + len(words) < length:
        word_length = int(rng.integers(1, 11))
        if rng.random() < 0.12:
            words.append("".join(rng.choice(list("0123456789.,:/-%$"), word_length)))
            continue
        if alphabet:
            words.append("".join(rng.choice(alphabet, word_length)))
            continue
        word = "".join(rng.choice(list(LETTERS), word_length, p=LETTER_FREQUENCIES / LETTER_FREQUENCIES.sum()))
        kind = rng.random()
        word = word.capitalize() if kind < 0.15 else word.upper() if kind < 0.2 else word
        words.append(word + ("" if rng.random() < 0.85 else str(rng.choice(list(".,;:!?)(]")))))
    return " ".join(words)


def write_paragraph(
    canvas: ImageDraw.ImageDraw, rng: Rng, box: tuple[float, float, float, float], size: int, fill: object
) -> None:
    """Draw lines of random text into a box (left, top, right, bottom) with a font of ``size`` pixels."""
    font, (left, top, right, bottom) = draw_font(rng, size), box
    alphabet = draw_alphabet(rng, font)
    y, step = top, size * rng.uniform(1.05, 1.7)
    while y < bottom:
        text = draw_words(rng, int((right - left) / (0.5 * size)) + 1, alphabet)
        canvas.text((left, y), text[: max(1, int((right - left) / (0.42 * size)))], fill=fill, font=font)
        y += step * (1 if rng.random() < 0.93 else 2)


def render_text_mask(rng: Rng, size: int, font_size: int) -> np.ndarray:
    """Return the coverage of a page of text, (size, size, 3) in [0, 1].

    Most is antialiased, some is bilevel, some has subpixel rendering, where red and blue are a third of a pixel apart.

    Args:
        rng: generator.
        size: height and width in pixels.
        font_size: size of the font in pixels.
    """
    kind = rng.random()
    has_subpixels = kind > 0.85
    image = Image.new("1" if kind < 0.15 else "L", (size, size), 0)
    canvas = ImageDraw.Draw(image)
    columns = 1 if rng.random() < 0.7 else 2
    for column in range(columns):
        left = column * size / columns + rng.uniform(-8, 6)
        box = (left, rng.uniform(-font_size, font_size), (column + 1) * size / columns - 2, size)
        write_paragraph(canvas, rng, box, font_size, 255)
    if rng.random() < 0.2:
        for y in rng.integers(0, size, 3):
            canvas.line([(0, int(y)), (size, int(y))], fill=255, width=int(rng.integers(1, 3)))
    mask = np.asarray(image, float)
    mask = mask / max(1.0, mask.max())
    if has_subpixels:
        stretched = Image.fromarray((255 * mask).astype(np.uint8)).resize((3 * size, size), Image.Resampling.BICUBIC)
        mask = np.asarray(stretched, float) / 255
        return np.stack([np.roll(mask, s, 1)[:, 1::3] for s in (1, 0, -1)], -1)
    return mask[..., None].repeat(3, -1)


def render_page(rng: Rng, size: int) -> np.ndarray:
    """Render text on a background of one colour, sometimes unevenly lit."""
    font_size = int(rng.choice([*range(6, 16), *range(7, 14), *range(8, 13), *range(16, 40, 2)]))
    background, foreground = draw_colour_pair(rng)
    x = background + (foreground - background) * render_text_mask(rng, size, font_size)
    if rng.random() < 0.15:
        x = x * (0.6 + 0.4 * smooth_field(rng, size)[..., None])
    return x


def render_caption(rng: Rng, size: int) -> np.ndarray:
    """Render text, sometimes with a shadow, over a textured background."""
    x = KINDS[str(rng.choice(["blobs", "leaves", "clouds", "gradient"]))](rng, size)
    mask = render_text_mask(rng, size, int(rng.integers(9, 48)))
    if rng.random() < 0.4:
        shadow = gaussian_filter(mask, (rng.uniform(0.5, 2),) * 2 + (0,))
        x = x * (1 - 0.8 * np.roll(shadow, (1, 1), (0, 1)))
    return x + (draw_colour(rng) - x) * mask


def render_screen(rng: Rng, size: int) -> np.ndarray:
    """Render a graphical user interface: windows, buttons, lists, tables, text."""
    is_dark = rng.random() < 0.35
    base = rng.uniform(0.02, 0.2) if is_dark else rng.uniform(0.85, 1)
    image = Image.new("RGB", (size, size), to_rgb8(np.full(3, base) + rng.uniform(-0.03, 0.03, 3)))
    canvas = ImageDraw.Draw(image)
    text_colour = np.full(3, rng.uniform(0.7, 1) if is_dark else rng.uniform(0, 0.3))
    for _ in range(int(rng.integers(3, 14))):
        w, h = rng.integers(12, size // 2 + 20, 2)
        x, y = rng.integers(-10, size - 8, 2)
        kind, fill = rng.random(), draw_colour(rng)
        box = [int(x), int(y), int(x + w), int(y + h * (0.3 if kind < 0.4 else 1))]
        radius = int(rng.integers(0, 7))
        outline = to_rgb8(draw_colour(rng)) if rng.random() < 0.6 else None
        if kind < 0.7:
            canvas.rounded_rectangle(
                box, radius, fill=to_rgb8(fill if rng.random() < 0.6 else np.full(3, base)), outline=outline
            )
        elif kind < 0.8:
            for i in range(0, int(w), max(2, int(rng.integers(2, 24)))):
                canvas.line([box[0] + i, box[1], box[0] + i, box[3]], fill=to_rgb8(fill))
        else:
            canvas.ellipse(
                [box[0], box[1], box[0] + int(h) // 2 + 3, box[1] + int(h) // 2 + 3],
                fill=to_rgb8(fill),
                outline=outline,
            )
        if rng.random() < 0.8:
            fill = text_colour if rng.random() < 0.6 else draw_colour(rng)
            write_paragraph(
                canvas, rng, (box[0] + 3, box[1] + 2, box[2], box[3] - 4), int(rng.integers(8, 18)), to_rgb8(fill)
            )
    if rng.random() < 0.5:
        write_paragraph(
            canvas, rng, (4, rng.uniform(0, size), size, size), int(rng.integers(8, 15)), to_rgb8(text_colour)
        )
    return np.asarray(image, float) / 255


def render_supersampled(
    rng: Rng, size: int, draw: Callable[[ImageDraw.ImageDraw, int], None], background: np.ndarray
) -> np.ndarray:
    """Render vector graphics on a background, most with antialiasing by a factor of 4.

    Args:
        rng: generator.
        size: height and width in pixels.
        draw: function of a canvas and the factor by which its coordinates are to be multiplied.
        background: colour (3,).
    """
    scale = 4 if rng.random() < 0.75 else 1
    image = Image.new("RGB", (size * scale, size * scale), to_rgb8(background))
    draw(ImageDraw.Draw(image), scale)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX), float) / 255


def random_path(rng: Rng, size: int, num_points: int, step_sigma: float) -> np.ndarray:
    """Return a smooth random path (8 num_points, 2) whose control points are a random walk."""
    points_xy = np.cumsum(rng.normal(0, step_sigma, (num_points, 2)), 0) + rng.uniform(0, size, 2)
    t, fine = np.arange(num_points), np.linspace(0, num_points - 1, 8 * num_points)
    return np.stack([gaussian_filter(np.interp(fine, t, points_xy[:, i]), 4, mode="nearest") for i in (0, 1)], 1)


def render_line_art(rng: Rng, size: int) -> np.ndarray:
    """Render hatching, or strokes and curves as of handwriting."""
    background, foreground = draw_colour_pair(rng)
    is_multicoloured, kind = rng.random() < 0.25, rng.random()

    def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        if kind < 0.3:  # hatching
            for _ in range(int(rng.integers(3, 12))):
                p, angle, step = rng.uniform(0, size, 2), rng.uniform(0, np.pi), rng.uniform(2, 9)
                n, length, width = int(rng.integers(5, 50)), rng.uniform(10, 120), rng.uniform(0.5, 2)
                along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
                for i in range(n):
                    q = p + i * step * across
                    canvas.line(
                        [*(scale * q), *(scale * (q + length * along))],
                        fill=to_rgb8(foreground),
                        width=max(1, int(scale * width)),
                    )
            return
        for _ in range(int(rng.integers(8, 90))):
            path = scale * random_path(rng, size, int(rng.integers(2, 14)), rng.uniform(3, 40))
            width = max(1, int(scale * rng.uniform(0.4, 3)))
            canvas.line(
                [tuple(q) for q in path],
                fill=to_rgb8(draw_colour(rng) if is_multicoloured else foreground),
                width=width,
            )

    return render_supersampled(rng, size, draw, background)


def render_fibres(rng: Rng, size: int) -> np.ndarray:
    """Render many thin curves in shades of one colour: hair, grass, needles."""
    base, spread, angle = draw_colour(rng), rng.uniform(0.05, 0.4), rng.uniform(0, np.pi)
    curl, count, length = rng.uniform(0.02, 0.5), int(rng.integers(300, 1200)), rng.uniform(10, 90)

    def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        for _ in range(count):
            direction = angle + rng.normal(0, curl)
            start, bend = rng.uniform(-20, size + 20, 2), rng.normal(0, curl)
            middle = start + length * np.array([np.cos(direction), np.sin(direction)])
            end = middle + length * np.array([np.cos(direction + bend), np.sin(direction + bend)])
            fibre_colour = base + rng.normal(0, spread) + rng.normal(0, 0.03, 3)
            canvas.line(
                [*(scale * start), *(scale * middle), *(scale * end)],
                fill=to_rgb8(fibre_colour),
                width=max(1, int(scale * rng.uniform(0.4, 1.6))),
            )

    return render_supersampled(rng, size, draw, base * 0.5)


def render_icons(rng: Rng, size: int) -> np.ndarray:
    """Render small flat shapes in rows and columns."""
    background, cell = draw_colour_pair(rng)[0], int(rng.choice([12, 16, 24, 32, 48, 64]))
    palette = [draw_colour(rng) for _ in range(int(rng.integers(1, 6)))]

    def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        for top in range(0, size, cell):
            for left in range(0, size, cell):
                for _ in range(int(rng.integers(1, 4))):
                    p = scale * (np.array([left, top] * 2) + rng.uniform(0.05, 0.95, 4) * cell)
                    x0, x1, y0, y1 = *sorted(p[::2]), *sorted(p[1::2])
                    fill, kind = to_rgb8(palette[rng.integers(len(palette))]), rng.integers(5)
                    if kind == 0:
                        canvas.ellipse([x0, y0, x1, y1], fill=fill)
                    elif kind == 1:
                        canvas.rounded_rectangle([x0, y0, x1, y1], rng.uniform(0, 4) * scale, fill=fill)
                    elif kind == 2:
                        corners = np.array([left, top]) + rng.uniform(0, cell, (int(rng.integers(3, 7)), 2))
                        canvas.polygon([tuple(scale * q) for q in corners], fill=fill)
                    elif kind == 3:
                        canvas.arc(
                            [x0, y0, x1, y1], rng.uniform(0, 360), rng.uniform(0, 360), fill=fill, width=max(1, scale)
                        )
                    else:
                        canvas.line([x0, y0, x1, y1], fill=fill, width=max(1, int(scale * rng.uniform(0.7, 3))))

    return render_supersampled(rng, size, draw, background)


def render_map(rng: Rng, size: int) -> np.ndarray:
    """Render a map: regions of flat colours, contour lines, roads with casings, labels."""
    height = smooth_field(rng, size, rng.uniform(16, 70))
    levels = int(rng.integers(2, 7))
    palette = np.array([1 - 0.5 * rng.random() * (1 - draw_colour(rng)) for _ in range(levels)])
    x = palette[np.minimum((height * levels).astype(int), levels - 1)]
    if rng.random() < 0.6:  # contour lines
        contours = rng.uniform(6, 30)
        slope = np.hypot(*np.gradient(height * contours))
        distance = np.abs((height * contours) % 1 - 0.5) / np.maximum(slope, 1e-3)
        mask = np.clip(rng.uniform(0.8, 1.4) - distance, 0, 1)[..., None]
        x = x + (draw_colour(rng) * 0.7 - x) * mask
    image = Image.fromarray((255 * np.clip(x, 0, 1)).round().astype(np.uint8)).resize(
        (2 * size, 2 * size), Image.Resampling.NEAREST
    )
    canvas = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 12))):
        path = [tuple(q) for q in 2 * random_path(rng, size, int(rng.integers(3, 12)), rng.uniform(10, 50))]
        width, fill = int(rng.integers(1, 9)), to_rgb8(draw_colour(rng))
        if rng.random() < 0.6:
            canvas.line(path, fill=to_rgb8(draw_colour(rng) * 0.5), width=width + 3)
        canvas.line(path, fill=fill, width=width)
    x = image.resize((size, size), Image.Resampling.BOX)
    canvas = ImageDraw.Draw(x)
    for _ in range(int(rng.integers(0, 14))):
        canvas.text(
            tuple(rng.uniform(-10, size, 2)),
            draw_words(rng, int(rng.integers(3, 14))),
            fill=to_rgb8(draw_colour_pair(rng)[1]),
            font=draw_font(rng, int(rng.integers(7, 16))),
        )
    return np.asarray(x, float) / 255


def render_plot(rng: Rng, size: int) -> np.ndarray:
    """Render a plot: a grid with lines, points or bars."""
    background, foreground = draw_colour_pair(rng)
    step = int(rng.integers(6, 50))

    def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        faint = to_rgb8(background + 0.3 * (foreground - background))
        for i in range(0, size, step):
            canvas.line([scale * i, 0, scale * i, scale * size], fill=faint, width=scale)
            canvas.line([0, scale * i, scale * size, scale * i], fill=faint, width=scale)
        for _ in range(int(rng.integers(1, 6))):
            fill, n = to_rgb8(draw_colour(rng)), int(rng.integers(8, 120))
            y = size / 2 + np.cumsum(rng.normal(0, rng.uniform(1, 15), n)) + rng.uniform(-60, 60)
            points = np.stack([np.linspace(0, size, n), y], 1) * scale
            kind = rng.random()
            if kind < 0.5:
                canvas.line([tuple(q) for q in points], fill=fill, width=max(1, int(scale * rng.uniform(0.6, 2.5))))
            elif kind < 0.75:
                r = scale * rng.uniform(0.6, 3)
                for q in points:
                    canvas.ellipse([*(q - r), *(q + r)], fill=fill)
            else:
                for q in points[::2]:
                    canvas.rectangle([q[0], min(q[1], scale * size), q[0] + scale * 3, scale * size], fill=fill)

    return render_supersampled(rng, size, draw, background)


# --- patterns --------------------------------------------------------------------------------------------------------


def render_grating(rng: Rng, size: int) -> np.ndarray:
    """Render sinusoidal or square gratings, also products of two."""
    u, v = warp_coordinates(rng, size, *rotated_grid(rng, size))
    period = rng.uniform(2, 16) if rng.random() < 0.7 else rng.integers(2, 9)
    wave = np.sin(2 * np.pi * u / period + rng.uniform(0, 6))
    if rng.random() < 0.3:
        wave = wave * np.sin(2 * np.pi * v / rng.uniform(2, 30))
    return colour_mask(rng, (wave > rng.uniform(-0.7, 0.7)).astype(float) if rng.random() < 0.5 else 0.5 + 0.5 * wave)


def render_moire(rng: Rng, size: int) -> np.ndarray:
    """Render superposed zone plates and circular gratings."""
    x, y = pixel_grid(size)
    mask = np.zeros((size, size))
    for _ in range(int(rng.integers(1, 4))):
        cx, cy, chirp = *rng.uniform(-size / 2, 1.5 * size, 2), rng.uniform(0.002, 1.5 / size)
        squared_radius = (x - cx) ** 2 + (y - cy) ** 2
        wave = (
            np.sin(chirp * squared_radius * np.pi)
            if rng.random() < 0.6
            else np.sin(np.sqrt(squared_radius) * 2 * np.pi / rng.uniform(2.2, 12))
        )
        mask = mask + wave if rng.random() < 0.6 else mask * wave + wave
    mask = mask / max(1e-6, np.abs(mask).max())
    return colour_mask(rng, 0.5 + 0.5 * mask if rng.random() < 0.6 else (mask > 0).astype(float))


def render_mesh(rng: Rng, size: int) -> np.ndarray:
    """Render periodic dots, squares or diamonds: perforated sheets, nets."""
    u, v = warp_coordinates(rng, size, *rotated_grid(rng, size))
    pitch_u = rng.uniform(2.5, 18)
    pitch_v = pitch_u * rng.uniform(0.7, 1.4)
    offset = (np.floor(v / pitch_v) % 2) * pitch_u / 2 * (rng.random() < 0.5)
    du, dv = (u + offset) % pitch_u / pitch_u - 0.5, v % pitch_v / pitch_v - 0.5
    kind, radius = rng.random(), rng.uniform(0.15, 0.45)
    distance = np.hypot(du, dv) if kind < 0.6 else np.maximum(abs(du), abs(dv)) if kind < 0.8 else abs(du) + abs(dv)
    edge_width = rng.uniform(0.02, 0.3) if rng.random() < 0.6 else 1e-6
    mask = np.clip((radius - distance) / edge_width + 0.5, 0, 1)
    x = colour_mask(rng, mask)
    if rng.random() < 0.3:
        x = x * (0.5 + 0.5 * smooth_field(rng, size)[..., None])
    return x


def render_ruled_lines(rng: Rng, size: int) -> np.ndarray:
    """Render thin periodic lines: graph paper, tables, fences."""
    is_axis_aligned = rng.random() < 0.6
    u, v = rotated_grid(rng, size, 1.0 if is_axis_aligned else 0.0)
    u, v = (np.floor(u), np.floor(v)) if is_axis_aligned else (u, v)
    mask = np.zeros((size, size))
    for coordinate in (u, v) if rng.random() < 0.7 else (u,):
        period = int(rng.integers(2, 33))
        width = rng.uniform(0.8, max(1.0, period / 3))
        mask = np.maximum(
            mask,
            coordinate % period < round(width)
            if is_axis_aligned
            else np.clip(width - np.abs(coordinate % period - period / 2), 0, 1),
        )
    return colour_mask(rng, mask * (1.0 if rng.random() < 0.6 else rng.uniform(0.2, 0.8)))


def render_weave(rng: Rng, size: int) -> np.ndarray:
    """Render woven fabric of one or two yarns in plain, twill and similar weaves."""
    u, v = warp_coordinates(rng, size, *rotated_grid(rng, size))
    warp_pitch, weft_pitch = rng.uniform(1.5, 9, 2)
    shift, repeat = int(rng.choice([1, 1, 2])), int(rng.choice([2, 2, 2, 3, 4]))
    is_warp_on_top = (np.floor(u / warp_pitch) + np.floor(v / weft_pitch) * shift) % repeat < 1
    mask = np.where(
        is_warp_on_top,
        np.abs(np.sin(np.pi * u / warp_pitch)),
        1 - rng.uniform(0.3, 1) * np.abs(np.sin(np.pi * v / weft_pitch)),
    )
    x = colour_mask(rng, mask)
    if rng.random() < 0.5:  # yarns of different colours
        x = x * np.where(is_warp_on_top[..., None], draw_colour(rng), draw_colour(rng))
        x = x / max(0.3, x.max())
    x = x + rng.uniform(0, 0.06) * rng.standard_normal((size, size, 1)) * (rng.random() < 0.5)
    return x * (1 - rng.uniform(0, 0.6) * smooth_field(rng, size)[..., None])


def render_plaid(rng: Rng, size: int) -> np.ndarray:
    """Render plaid: one sequence of stripes as warp and weft."""
    u, v = rotated_grid(rng, size)
    palette, count = np.array([draw_colour(rng) for _ in range(4)]), int(rng.integers(10, 60))
    stripes = rng.integers(0, 4, count).repeat(int(rng.integers(1, 6)))
    warp, weft = (palette[stripes[np.floor(coordinate).astype(int) % len(stripes)]] for coordinate in (u, v))
    twill = ((np.floor(u) + np.floor(v)) % 4 < 2)[..., None] * rng.uniform(0.5, 1) + 0.0
    return warp * twill + weft * (1 - twill)


def render_bricks(rng: Rng, size: int) -> np.ndarray:
    """Render bricks, tiles or shingles with joints."""
    u, v = rotated_grid(rng, size)
    brick_height = rng.uniform(4, 26)
    brick_width = brick_height * rng.uniform(1, 3)
    row = np.floor(v / brick_height)
    u = u + (row % 2) * brick_width / 2
    column = np.floor(u / brick_width)
    tone = rng.random(4096)[((row * 57 + column * 131) % 4096).astype(int)]
    joint = rng.uniform(0.5, 2.5)
    distance_u = np.minimum(u % brick_width, brick_width - u % brick_width)
    distance_v = np.minimum(v % brick_height, brick_height - v % brick_height)
    mask = np.clip(np.minimum(distance_u, distance_v) - joint / 2 + 0.5, 0, 1)
    base, spread = draw_colour(rng), rng.uniform(0, 0.6)
    x = base * (1 - spread * tone[..., None])
    x = x * (1 - rng.uniform(0, 0.3) * power_law_noise(rng, size, rng.uniform(0.4, 1.5))[..., None])
    return x + (draw_colour(rng) - x) * (1 - mask)[..., None]


def random_cells(rng: Rng, size: int, cell_size: float, num_values: int) -> np.ndarray:
    """Return integers below ``num_values``, constant in square cells of ``cell_size`` pixels."""
    count = int(size / cell_size) + 2
    index = ((np.arange(size) + rng.uniform(0, cell_size)) / cell_size).astype(int)
    return rng.integers(0, num_values, (count, count))[index[:, None], index[None]]


def render_mosaic(rng: Rng, size: int) -> np.ndarray:
    """Render squares of flat colours, down to single pixels."""
    num_colours = int(rng.integers(2, 9)) if rng.random() < 0.8 else 200
    cell_size = float(rng.integers(1, 17)) if rng.random() < 0.8 else rng.uniform(1.5, 12)
    palette = np.array([draw_colour(rng) for _ in range(num_colours)])
    return palette[random_cells(rng, size, cell_size, num_colours)]


def render_matrix_code(rng: Rng, size: int) -> np.ndarray:
    """Render random modules with finder patterns and quiet zones, as in QR and Data Matrix codes."""
    module_size = float(rng.integers(1, 9)) if rng.random() < 0.75 else rng.uniform(1.3, 8)
    mask = random_cells(rng, size, module_size, 2).astype(float)
    if rng.random() < 0.6:
        scale = round(module_size)
        finder = np.zeros((9, 9))
        finder[1:8, 1:8] = 1
        finder[2:7, 2:7] = 0
        finder[3:6, 3:6] = 1
        scaled_finder = np.kron(finder, np.ones((scale, scale)))
        for _ in range(int(rng.integers(1, 5))):
            y, x = (rng.integers(0, max(1, (size - len(scaled_finder)) // scale), 2) * scale).tolist()
            mask[y : y + len(scaled_finder), x : x + len(scaled_finder)] = scaled_finder[: size - y, : size - x]
    if rng.random() < 0.4:
        quiet_zone = int(rng.integers(4, size // 3))
        mask[:quiet_zone] = 0
        mask[:, :quiet_zone] = 0
    if rng.random() < 0.55:
        paper = rng.uniform(0.9, 1) * np.ones(3)
        return paper + (rng.uniform(0, 0.15) - paper) * mask[..., None]
    return colour_mask(rng, mask)


def render_checkerboard(rng: Rng, size: int) -> np.ndarray:
    """Render a checkerboard."""
    cell_size = float(rng.integers(1, 13)) if rng.random() < 0.7 else rng.uniform(1.5, 12)
    u, v = rotated_grid(rng, size, 0.7)
    return colour_mask(rng, (np.floor(u / cell_size) + np.floor(v / cell_size)) % 2)


def render_pixel_art(rng: Rng, size: int) -> np.ndarray:
    """Render another kind with few colours, enlarged by nearest-neighbour interpolation."""
    factor = int(rng.integers(2, 9))
    small = KINDS[str(rng.choice(["icons", "screen", "leaves", "blobs", "page"]))](rng, max(32, size // factor + 1))
    image = Image.fromarray((255 * np.clip(small, 0, 1)).astype(np.uint8)).quantize(int(rng.integers(3, 24)), dither=0)
    return np.asarray(image.convert("RGB"), float).repeat(factor, 0).repeat(factor, 1)[:size, :size] / 255


def render_halftone(rng: Rng, size: int) -> np.ndarray:
    """Render an amplitude-modulated halftone in one ink, or in four at their customary angles."""
    pitch, grid = rng.uniform(3, 11), pixel_grid(size)
    edge_width = rng.uniform(0.02, 0.25)

    def screen_tone(tone: np.ndarray, angle: float) -> np.ndarray:
        u, v = grid[0] * np.cos(angle) + grid[1] * np.sin(angle), -grid[0] * np.sin(angle) + grid[1] * np.cos(angle)
        level = 0.5 + 0.25 * (np.cos(2 * np.pi * u / pitch) + np.cos(2 * np.pi * v / pitch))
        return np.clip((tone - level) / edge_width + 0.5, 0, 1)

    if rng.random() < 0.6:
        return colour_mask(rng, screen_tone(continuous_tone(rng, size), rng.uniform(0, np.pi)))
    image = np.ones((size, size, 3))
    for i, angle in enumerate((0.26, 1.31, 0.0)):
        image[..., i] = 1 - rng.uniform(0.8, 1) * screen_tone(continuous_tone(rng, size), angle)
    return image * (1 - 0.9 * screen_tone(continuous_tone(rng, size) * 0.6, 0.785))[..., None]


def render_ordered_dither(rng: Rng, size: int) -> np.ndarray:
    """Render an ordered dither of one or three channels with a Bayer or random threshold matrix."""
    order = int(rng.choice([2, 4, 4, 8]))
    matrix = np.array([[0.0]])
    while len(matrix) < order:
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    matrix = matrix if rng.random() < 0.7 else rng.permutation(order * order).reshape(order, order)
    factor = int(rng.choice([1, 1, 1, 2, 3]))
    thresholds = np.tile(
        np.kron((matrix + 0.5) / matrix.size, np.ones((factor, factor))), (size // (order * factor) + 1,) * 2
    )[:size, :size]
    levels = int(rng.integers(1, 6)) if rng.random() < 0.5 else 1
    if rng.random() < 0.5:
        return colour_mask(rng, np.floor(continuous_tone(rng, size) * levels + thresholds).clip(0, levels) / levels)
    tones = np.stack([continuous_tone(rng, size) for _ in range(3)], -1)
    return np.floor(tones * levels + thresholds[..., None]).clip(0, levels) / levels


def render_error_diffusion(rng: Rng, size: int) -> np.ndarray:
    """Render an error diffusion (Floyd and Steinberg) to two colours or a small palette."""
    factor = int(rng.choice([1, 1, 1, 2]))
    small_size = size // factor + 1
    if rng.random() < 0.5:
        mask = np.asarray(
            Image.fromarray((255 * continuous_tone(rng, small_size)).astype(np.uint8)).convert("1"), float
        )
        x = colour_mask(rng, mask)
    else:
        base = KINDS[str(rng.choice(["blobs", "clouds", "gradient", "leaves"]))](rng, small_size)
        image = Image.fromarray((255 * np.clip(base, 0, 1)).astype(np.uint8))
        palette = image.quantize(int(rng.integers(3, 33)))
        x = np.asarray(image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB"), float) / 255
    return x.repeat(factor, 0).repeat(factor, 1)[:size, :size]


def render_stars(rng: Rng, size: int) -> np.ndarray:
    """Render point sources on a dark sky, sometimes with nebulae."""
    x = np.zeros((size, size, 3)) + rng.uniform(0, 0.08) * rng.uniform(0.6, 1, 3)
    if rng.random() < 0.4:
        x = x + rng.uniform(0, 0.3) * np.stack([power_law_noise(rng, size, 2)] * 3, -1) * rng.random(3)
    count = int(10 ** rng.uniform(1.3, 3.3))
    light = np.zeros_like(x)
    y0, x0 = rng.integers(0, size, (2, count))
    tint = 1 - rng.uniform(0, 0.5, (count, 3)) * (rng.random() < 0.7)
    light[y0, x0] = (10 ** rng.uniform(-1.7, 0.1, count))[:, None] * tint
    if rng.random() < 0.75:
        psf_sigma = rng.uniform(0.4, 1.4)
        light = gaussian_filter(light, (psf_sigma, psf_sigma, 0)) * 2 * np.pi * max(psf_sigma, 0.5) ** 2
    return x + light


# --- smooth and saturated colours ------------------------------------------------------------------------------------


def render_gradient(rng: Rng, size: int) -> np.ndarray:
    """Render a linear gradient of two to four colours."""
    u, _ = rotated_grid(rng, size)
    t = (u - u.min()) / np.ptp(u)
    stops = np.array(
        [draw_saturated_colour(rng) if rng.random() < 0.7 else draw_colour(rng) for _ in range(int(rng.integers(2, 5)))]
    )
    return np.stack([np.interp(t, np.linspace(0, 1, len(stops)), stops[:, i]) for i in range(3)], -1)


def render_colour_blend(rng: Rng, size: int) -> np.ndarray:
    """Render smooth saturated colours that blend into each other."""
    num_colours = int(rng.integers(3, 7))
    logits = np.stack([smooth_field(rng, size) for _ in range(num_colours)]) * rng.uniform(4, 14)
    weights = np.exp(logits - logits.max(0))
    weights = weights / weights.sum(0)
    return np.einsum("khw,kc->hwc", weights, np.array([draw_saturated_colour(rng) for _ in range(num_colours)]))


def render_clouds(rng: Rng, size: int) -> np.ndarray:
    """Render coloured power-law noise: one field through a palette, or correlated channels."""
    exponent = rng.uniform(0.9, 2.2)
    if rng.random() < 0.5:
        t, stops = power_law_noise(rng, size, exponent), np.array([draw_colour(rng) for _ in range(4)])
        return np.stack([np.interp(t, np.linspace(0, 1, 4), stops[:, i]) for i in range(3)], -1)
    shared = power_law_noise(rng, size, exponent)
    per_channel = np.stack([power_law_noise(rng, size, exponent) for _ in range(3)], -1)
    shared_fraction = rng.random()
    return shared_fraction * shared[..., None] + (1 - shared_fraction) * per_channel


def render_dead_leaves(rng: Rng, size: int) -> np.ndarray:
    """Render a dead-leaves image: occluding discs and polygons, flat, textured or blurred.

    Reference:
        Occlusion Models for Natural Images: A Statistical Study of a Scale-Invariant Dead Leaves Model, 2001; radii
        have the density r**-3.
    """
    vividness = rng.random()
    min_radius = rng.uniform(1.5, 6)

    def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        for _ in range(int(rng.integers(150, 700))):
            radius = min(size / 2, min_radius / np.sqrt(rng.uniform(1e-4, 1)))
            centre = rng.uniform(-radius / 2, size + radius / 2, 2)
            fill = to_rgb8(draw_saturated_colour(rng) if rng.random() < vividness else draw_colour(rng))
            if rng.random() < 0.6:
                radii = np.array([radius, radius * rng.uniform(0.4, 1)])
                canvas.ellipse([*(scale * (centre - radii)), *(scale * (centre + radii))], fill=fill)
            else:
                angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
                canvas.polygon(
                    [tuple(scale * (centre + radius * np.array([np.cos(a), np.sin(a)]))) for a in angles], fill=fill
                )

    x = render_supersampled(rng, size, draw, draw_colour(rng))
    if rng.random() < 0.5:
        x = x * (0.5 + 0.5 * power_law_noise(rng, size, rng.uniform(0.7, 2))[..., None])
    if rng.random() < 0.3:
        x = gaussian_filter(x, (rng.uniform(0.5, 2.5),) * 2 + (0,))
    return x


def render_flat_surface(rng: Rng, size: int) -> np.ndarray:
    """Render a nearly uniform surface such as paper, wall or sky, sometimes clipped, sometimes with text."""
    x = np.zeros((size, size, 3)) + (draw_colour(rng) if rng.random() < 0.6 else rng.choice([0.0, 1.0]))
    if rng.random() < 0.6:
        x = x + rng.uniform(-0.3, 0.3) * smooth_field(rng, size)[..., None]
    if rng.random() < 0.5:
        image = Image.new("L", (size, size), 0)
        write_paragraph(
            ImageDraw.Draw(image), rng, (20, rng.uniform(0, size), size - 20, size), int(rng.integers(8, 30)), 255
        )
        x = x + (draw_colour(rng) - x) * (np.asarray(image, float) / 255)[..., None]
    return x


# --- held out for selection ------------------------------------------------------------------------------------------


def render_herringbone(rng: Rng, size: int) -> np.ndarray:
    """Render a herringbone pattern."""
    u, v = rotated_grid(rng, size)
    strip_width, period = rng.uniform(6, 30), rng.uniform(2.5, 9)
    sign = np.where(np.floor(u / strip_width) % 2 > 0, 1, -1)
    return colour_mask(rng, 0.5 + 0.5 * np.sin(2 * np.pi * (v + sign * (u % strip_width)) / period))


def render_music(rng: Rng, size: int) -> np.ndarray:
    """Render sheet music: staves with notes."""
    background, foreground = draw_colour_pair(rng)
    staff_space = int(rng.integers(4, 9))

    def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        for top in range(5, size, 10 * staff_space):
            for i in range(5):
                canvas.line(
                    [0, scale * (top + i * staff_space), scale * size, scale * (top + i * staff_space)],
                    fill=to_rgb8(foreground),
                    width=scale,
                )
            for x in range(4, size, int(rng.integers(2 * staff_space, 5 * staff_space))):
                y = top + staff_space * int(rng.integers(0, 9)) / 2
                top_y, bottom_y, right = y - staff_space / 2, y + staff_space / 2, x + 1.3 * staff_space
                canvas.ellipse([scale * x, scale * top_y, scale * right, scale * bottom_y], fill=to_rgb8(foreground))
                stem_x, stem_end = scale * (x + 1.2 * staff_space), scale * (y - 3.5 * staff_space)
                canvas.line([stem_x, scale * y, stem_x, stem_end], fill=to_rgb8(foreground), width=scale)

    return render_supersampled(rng, size, draw, background)


def render_barcode(rng: Rng, size: int) -> np.ndarray:
    """Render a one-dimensional barcode."""
    bar_width = int(rng.integers(1, 4))
    bars = rng.integers(0, 2, size // bar_width + 1).repeat(bar_width)[:size].astype(float)
    mask = np.tile(bars, (size, 1))
    mask[::64] = 0
    return colour_mask(rng, mask if rng.random() < 0.5 else mask.T)


def render_spokes(rng: Rng, size: int) -> np.ndarray:
    """Render a Siemens star."""
    x, y = pixel_grid(size)
    cx, cy = rng.uniform(0, size, 2)
    wave = np.sin(np.arctan2(y - cy, x - cx) * int(rng.integers(8, 60)))
    return colour_mask(rng, np.clip(0.5 + 2 * wave, 0, 1))


HELD_OUT_KINDS: dict[str, Renderer] = {
    "herringbone": render_herringbone,
    "music": render_music,
    "barcode": render_barcode,
    "spokes": render_spokes,
}
KINDS: dict[str, Renderer] = {
    "page": render_page,
    "caption": render_caption,
    "screen": render_screen,
    "lines": render_line_art,
    "fibres": render_fibres,
    "icons": render_icons,
    "map": render_map,
    "plot": render_plot,
    "grating": render_grating,
    "moire": render_moire,
    "mesh": render_mesh,
    "rules": render_ruled_lines,
    "weave": render_weave,
    "plaid": render_plaid,
    "bricks": render_bricks,
    "mosaic": render_mosaic,
    "code": render_matrix_code,
    "checker": render_checkerboard,
    "pixels": render_pixel_art,
    "halftone": render_halftone,
    "ordered": render_ordered_dither,
    "diffused": render_error_diffusion,
    "stars": render_stars,
    "gradient": render_gradient,
    "blobs": render_colour_blend,
    "clouds": render_clouds,
    "leaves": render_dead_leaves,
    "plain": render_flat_surface,
}
KIND_WEIGHTS = {  # others: 1
    "page": 4.0,
    "screen": 2.0,
    "leaves": 3.0,
    "blobs": 2.0,
    "gradient": 2.0,
    "clouds": 2.0,
    "code": 1.5,
    "diffused": 1.5,
    "stars": 1.5,
    "checker": 0.5,
    "grating": 0.7,
}


def apply_capture(rng: Rng, x: np.ndarray, sharp_fraction: float = 0.55) -> np.ndarray:
    """Simulate a camera, scanner or resizer: blur or resample, then sometimes reduce the contrast.

    Args:
        rng: generator.
        x: pixels (size, size, 3), clipped to [0, 1].
        sharp_fraction: probability that an image is neither blurred nor resampled.

    Returns:
        Pixels (size, size, 3) in [0, 1].
    """
    size = len(x)
    x = np.clip(x, 0, 1)
    if rng.random() > sharp_fraction:
        if rng.random() < 0.5:
            x = gaussian_filter(x, (rng.uniform(0.35, 1.1),) * 2 + (0,))
        else:  # resample
            factor = rng.uniform(0.5, 1.6)
            resized = Image.fromarray((255 * x).round().astype(np.uint8))
            resized = resized.resize(
                (max(size // 2, int(size * factor)),) * 2, Image.Resampling(int(rng.choice([1, 2, 3])))
            )
            x = np.tile(np.asarray(resized, float) / 255, (2, 2, 1))[:size, :size]
    if rng.random() < 0.15:
        low, high = np.sort(rng.random(2))
        x = low + max(0.15, high - low) * x
    return np.clip(x, 0, 1)


def generate_image(kind: str, seed: int, size: int = 256) -> np.ndarray:
    """Return an image of a kind, determined by its seed.

    Args:
        kind: key of KINDS or HELD_OUT_KINDS.
        seed: seed of the generator, non-negative.
        size: height and width in pixels.

    Returns:
        uint8 pixels (size, size, 3).
    """
    rng = np.random.default_rng([seed, sum(kind.encode())])
    x = apply_capture(rng, (KINDS | HELD_OUT_KINDS)[kind](rng, size))
    return np.round(255 * x).astype(np.uint8)


def generate_images(
    count: int, seed: int, size: int = 256, *, kind_weights: dict[str, float] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the kind and the uint8 pixels (size, size, 3) of images of random kinds.

    Args:
        count: number of images.
        seed: seed of the sequence.
        size: height and width in pixels.
        kind_weights: relative frequency of each kind; all KINDS with KIND_WEIGHTS if None.
    """
    if kind_weights is None:
        kind_weights = {name: KIND_WEIGHTS.get(name, 1.0) for name in KINDS}
    names, weights = [*kind_weights], np.array([*kind_weights.values()])
    kinds = np.random.default_rng(seed).choice(len(names), count, p=weights / weights.sum())
    for i, k in enumerate(kinds):
        yield names[k], generate_image(names[k], seed * 1_000_003 + i, size)


def main() -> None:
    """Parse the command line and write the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="output folder")
    parser.add_argument("--count", type=int, default=420, help="number of images (default: %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="seed of all images (default: %(default)s)")
    parser.add_argument(
        "--fonts", type=Path, nargs="+", default=[], metavar="FOLDER", help="folders of further fonts (.ttf, .otf)"
    )
    parser.add_argument("--held-out", action="store_true", help="write the kinds for selection, not those for training")
    options = parser.parse_args()
    for folder in options.fonts:
        if not folder.is_dir():
            parser.error(f"--fonts {folder}: no such folder.")
    font_folders.extend(options.fonts)
    kind_weights = dict.fromkeys(HELD_OUT_KINDS, 1.0) if options.held_out else None
    options.folder.mkdir(parents=True, exist_ok=True)
    images = generate_images(options.count, options.seed, options.size, kind_weights=kind_weights)
    for i, (kind, pixels) in enumerate(images):
        Image.fromarray(pixels).save(options.folder / f"{i:04d}-{kind}.png")


if __name__ == "__main__":
    main()
