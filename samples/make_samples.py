"""Synthesise the samples in this folder: a spoken sentence and an image, each clean and noisy.

    python samples/make_samples.py [FOLDER]

Nothing is recorded or photographed: a small formant synthesiser produces the sentence, a small ray tracer renders the
scene, and all noise is seeded, so that every run writes the same files. Needs numpy, soundfile and Pillow only.

Reference: Klatt, "Software for a cascade/parallel formant synthesizer", 1980 (resonators, phoneme targets).
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[np.float64]

SEED = 20260101

# --------------------------------------------------------------------------------------------------------------------
# Speech
# --------------------------------------------------------------------------------------------------------------------

SAMPLE_RATE = 48_000
SPEECH_SECONDS = 6.0
SNR_DB = 5.0


@dataclass(frozen=True)
class Phone:
    """Synthesis targets of one speech sound; ``end`` holds the final formants of a diphthong."""

    ms: float
    formants: tuple[float, float, float]
    end: tuple[float, float, float] | None = None
    voice: float = 0.0
    breath: float = 0.0  # noise through the vocal tract
    friction: float = 0.0  # turbulence noise at the constriction
    bands: tuple[tuple[float, float, float], ...] = ()  # of the friction: centre, bandwidth, gain
    nasal: float = 0.0  # frequency of the nasal zero, 0 for none


S_BANDS = ((4200, 900, 0.25), (5600, 1200, 0.8), (7600, 1800, 1.0), (10500, 3000, 0.6))
TH_BANDS = ((1400, 1500, 0.3), (5200, 3500, 0.4), (8000, 4000, 0.5))
T_BANDS = ((3600, 1200, 0.9), (4800, 1600, 1.0), (7000, 3000, 0.6))
K_BANDS = ((1900, 350, 1.0), (3300, 1200, 0.35), (5500, 3000, 0.2))
P_BANDS = ((700, 900, 0.8), (1500, 1800, 0.4), (4000, 4000, 0.2))

PHONES = {
    "_": Phone(100, (500, 1500, 2500)),
    "HH": Phone(75, (550, 1750, 2500), breath=1.0),
    "EH": Phone(90, (560, 1750, 2480), voice=1.0),
    "L": Phone(75, (340, 1000, 2750), voice=0.65),
    "OW": Phone(220, (540, 1020, 2350), (400, 800, 2300), voice=1.0),
    "DH": Phone(55, (300, 1300, 2540), voice=0.5, friction=0.05, bands=TH_BANDS),
    "IH": Phone(75, (400, 1900, 2570), voice=0.95),
    "S": Phone(110, (320, 1500, 2550), friction=0.42, bands=S_BANDS),
    "Z": Phone(80, (280, 1500, 2550), voice=0.4, friction=0.2, bands=S_BANDS),
    "AX": Phone(60, (520, 1350, 2450), voice=0.85),
    "N": Phone(75, (300, 1500, 2600), voice=0.6, nasal=1300),
    "NG": Phone(110, (280, 1950, 2700), voice=0.6, nasal=2600),
    "OY": Phone(230, (520, 860, 2400), (380, 1950, 2550), voice=1.0),
    "IY": Phone(120, (290, 2150, 2950), voice=0.95),
    "R": Phone(80, (350, 1120, 1500), voice=0.75),
    "AO": Phone(130, (580, 900, 2450), voice=1.0),
    "W": Phone(75, (300, 680, 2250), voice=0.65),
    "EY": Phone(170, (480, 1850, 2500), (330, 2150, 2700), voice=1.0),
    # Stops: closure, burst, then aspiration before voicing resumes.
    "d": Phone(50, (240, 1650, 2650), voice=0.22),
    "D!": Phone(12, (280, 1650, 2650), voice=0.4, friction=0.3, bands=T_BANDS),
    "t": Phone(65, (300, 1700, 2700)),
    "T!": Phone(14, (340, 1750, 2700), friction=0.6, bands=T_BANDS),
    "Th": Phone(42, (420, 1800, 2650), breath=0.7, friction=0.06, bands=S_BANDS),
    "k": Phone(65, (280, 1900, 2400)),
    "K!": Phone(18, (320, 1900, 2400), friction=0.65, bands=K_BANDS),
    "Kh": Phone(38, (450, 1700, 2400), breath=0.75),
    "p": Phone(70, (280, 900, 2300)),
    "P!": Phone(10, (320, 950, 2350), friction=0.45, bands=P_BANDS),
    "Ph": Phone(36, (380, 1050, 2500), breath=0.7),
}

# "Hello! This is a noisy recording. Please take the noise away." NAME:stretch
SENTENCE = """
_:4.5 HH EH L OW:1.25 _:3
DH IH:1.1 S:0.9 IH Z AX:1.1 N OY Z IY:0.8 R IH:0.8 k K! Kh AO:1.05 R:0.9 d D! IH:1.1 NG:1.2 _:4.5
p P! Ph L:0.8 IY:1.15 Z:0.9 t T! Th EY:0.95 k:0.9 K! DH AX N OY:0.95 Z AX:0.9 W:1.1 EY:1.6 _:6
"""
# Pitch in Hz at (index of the phone in SENTENCE, counted from 0).
PITCH = (
    *((0, 118), (2, 122), (4, 150), (5, 104)),
    *((7, 120), (11, 122), (13, 156), (15, 128), (21, 138), (24, 110), (26, 88)),
    *((27, 120), (32, 150), (35, 116), (37, 134), (40, 112), (43, 126), (46, 118), (47, 80), (48, 76)),
)


def smooth(x: Array, seconds: float) -> Array:
    """Average with a moving Hann window, with edge values repeated."""
    width = max(3, int(seconds * SAMPLE_RATE) | 1)
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(x, width // 2, mode="edge")
    size = 1 << (len(padded) + width).bit_length()
    spectrum = np.fft.rfft(padded, size) * np.fft.rfft(window / window.sum(), size)
    return np.fft.irfft(spectrum, size)[width - 1 : width - 1 + len(x)]


def resonator(x: Array, frequency: Array | float, bandwidth: Array | float, *, unit_peak: bool = False) -> Array:
    """Apply a two-pole resonator with time-varying frequency and bandwidth; unit gain at 0 Hz or at the peak."""
    radius = np.exp(-np.pi * np.asarray(bandwidth) / SAMPLE_RATE)
    angle = 2 * np.pi * np.asarray(frequency) / SAMPLE_RATE
    b = np.broadcast_to(2 * radius * np.cos(angle), x.shape)
    c = np.broadcast_to(-(radius**2), x.shape)
    gain = (1 - radius) * np.sqrt(1 - 2 * radius * np.cos(2 * angle) + radius**2) if unit_peak else 1 - b - c
    y1 = y2 = 0.0
    out = []
    for value, bn, cn in zip((gain * x).tolist(), b.tolist(), c.tolist(), strict=True):
        y1, y2 = value + bn * y1 + cn * y2, y1
        out.append(y1)
    return np.array(out)


def antiresonator(x: Array, frequency: Array, bandwidth: float) -> Array:
    """Apply the inverse of `resonator`: a pair of zeros with unit gain at 0 Hz."""
    radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
    b, c = 2 * radius * np.cos(2 * np.pi * frequency / SAMPLE_RATE), -(radius**2)
    padded = np.concatenate([np.zeros(2), x])
    return (padded[2:] - b * padded[1:-1] - c * padded[:-2]) / (1 - b - c)


def glottis(pitch: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the derivative of the glottal flow, and the glottal opening in [0, 1].

    Periods vary in length and amplitude as in natural voices (jitter 0.7 %, shimmer 4 %).
    """
    flow, openness = np.zeros_like(pitch), np.zeros_like(pitch)
    start = 0.0
    while start < len(pitch):
        period = SAMPLE_RATE / pitch[int(start)] * (1 + 0.007 * rng.standard_normal())
        opened = 0.58 * period
        n = np.arange(int(np.ceil(start)), min(int(np.ceil(start + opened)), len(pitch)))
        u = (n - start) / opened
        flow[n] = (2 * u - 3 * u**2) * (1 + 0.04 * rng.standard_normal())
        openness[n] = 6.75 * u**2 * (1 - u)
        start += period
    return flow, openness


def speech(rng: np.random.Generator) -> Array:
    """Return the sentence as one channel in [-1, 1], (samples,)."""
    names = [token.partition(":") for token in SENTENCE.split()]
    phones = [PHONES[name] for name, _, _ in names]
    seconds = np.array([p.ms / 1000 * float(s or 1) for p, (_, _, s) in zip(phones, names, strict=True)])
    seconds[[0, -1]] += (SPEECH_SECONDS - seconds.sum()) * np.array([0.4, 0.6])
    ends = np.cumsum(seconds)
    starts = ends - seconds
    time = np.arange(int(SPEECH_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    index = np.minimum(np.searchsorted(ends, time, side="right"), len(phones) - 1)

    def track(values: list[float], seconds: float) -> Array:
        return smooth(np.array(values)[index], seconds)

    voice, breath = (track([getattr(p, name) for p in phones], 0.024) for name in ("voice", "breath"))
    nasal = track([p.nasal > 0 for p in phones], 0.02)
    zero = 270 + (track([p.nasal for p in phones], 0.02) / np.maximum(nasal, 1e-3) * 0.35 - 100) * nasal
    knots = np.stack([starts + 0.28 * seconds, ends - 0.28 * seconds], 1).ravel()
    formants = []
    for k in range(3):
        targets = np.array([[p.formants[k], (p.end or p.formants)[k]] for p in phones]).ravel()
        formants.append(smooth(np.interp(time, knots, targets), 0.03))
    pitch_times = [(starts[i] + ends[i]) / 2 for i, _ in PITCH]
    pitch = smooth(np.interp(time, pitch_times, [hz for _, hz in PITCH]), 0.12)
    for rate, depth in ((12.7, 0.005), (7.1, 0.006), (4.7, 0.008)):
        pitch = pitch * (1 + depth * np.sin(2 * np.pi * rate * time + rng.uniform(0, 6)))

    flow, openness = glottis(pitch, rng)
    hiss = rng.standard_normal(len(time))
    source = resonator(voice * flow, 0.0, 8000.0) + hiss * (0.02 * voice * openness + 0.05 * breath)

    # Vocal tract: the nasal pole and zero cancel outside nasals; formants above the third are constant.
    x = antiresonator(resonator(source, 270.0, 100.0), zero, 100.0)
    for frequency, bandwidth in zip(formants, (70 + 60 * breath + 40 * nasal, 90 + 40 * nasal, 140), strict=True):
        x = resonator(x, frequency, bandwidth)
    for n, frequency in enumerate((3400, 4300, 5400, 6500, 7600, 8700, 9900, 11200)):
        x = resonator(x, float(frequency), 200.0 + 90 * n)
    x /= np.abs(x).max()

    # Friction: one parallel filter bank for every set of bands.
    for bands in {p.bands: None for p in phones if p.bands}:
        amount = track([p.friction if p.bands == bands else 0.0 for p in phones], 0.012)
        noise = sum(g * resonator(hiss * amount, float(f), float(bw), unit_peak=True) for f, bw, g in bands)
        x += 0.5 * noise * (1 - 0.5 * voice * (1 - openness))

    # Reverberation of a small room.
    tail = np.arange(int(0.3 * SAMPLE_RATE)) / SAMPLE_RATE
    room = smooth(rng.standard_normal(len(tail)), 0.0002) * np.exp(-tail / 0.045) * (tail > 0.004)
    room *= 0.3 / np.sqrt((room**2).sum())
    room[0] = 1.0
    size = 1 << (len(x) + len(room)).bit_length()
    x = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(room, size), size)[: len(x)]
    x = x - smooth(x, 0.03)  # remove rumble
    edge = np.clip(np.minimum(time, SPEECH_SECONDS - time) / 0.02, 0, 1)
    return x / np.abs(x).max() * edge


def coloured(n: int, shape: Callable[[Array], Array], rng: np.random.Generator) -> Array:
    """Return Gaussian noise of unit power whose amplitude spectrum is ``shape(hz)``."""
    spectrum = np.fft.rfft(rng.standard_normal(n)) * shape(np.fft.rfftfreq(n, 1 / SAMPLE_RATE))
    x = np.fft.irfft(spectrum, n)
    return x / x.std()


def room_noise(n: int, rng: np.random.Generator) -> Array:
    """Return a mixture of hiss, mains hum, wind and rain with unit power, (samples,)."""
    time = np.arange(n) / SAMPLE_RATE
    hiss = coloured(n, lambda f: np.maximum(f, 60.0) ** -0.6, rng)
    hum = sum(a * np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6)) for k, a in HUM)
    gust = smooth(np.interp(time, np.arange(8) * 0.9, rng.uniform(0.15, 1.5, 8)), 0.6)
    wind = gust * coloured(n, lambda f: 1 / (1 + (f / 180) ** 2) * (f > 25), rng)
    drops = np.zeros(n)
    positions = rng.integers(0, n, 2600)
    drops[positions] = rng.standard_normal(2600) * rng.pareto(2.5, 2600)
    rain = resonator(drops, 3800.0, 2500.0) + 0.6 * resonator(drops, 7500.0, 4000.0)
    rain = smooth(np.interp(time, np.arange(8) * 0.9, rng.uniform(0.3, 1.2, 8)), 0.6) * rain / rain.std()
    noise = hiss + 0.55 * hum + 0.75 * wind + 0.55 * rain
    return noise / noise.std()


HUM = ((1, 1.0), (2, 0.5), (3, 0.45), (5, 0.25), (7, 0.15), (9, 0.1), (12, 0.06))


def make_speech(folder: Path) -> None:
    """Write the clean and the noisy sentence."""
    clean = speech(np.random.default_rng(SEED))
    noise = room_noise(len(clean), np.random.default_rng(SEED + 1)) * clean.std() * 10 ** (-SNR_DB / 20)
    level = 0.9 / np.abs(clean + noise).max()
    for name, samples in (("speech.clean.wav", clean), ("speech.wav", clean + noise)):
        soundfile.write(folder / name, samples * level, SAMPLE_RATE, subtype="PCM_16")


# --------------------------------------------------------------------------------------------------------------------
# Image
# --------------------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 640, 480
RAYS = 4  # per pixel along each axis
READ_NOISE, SHOT_NOISE = 16 / 255, 0.0055  # standard deviation at zero intensity; variance per unit of intensity
WALL_Z, WALL_WIDTH, WALL_HEIGHT = 4.0, 8.0, 2.55
EYE = np.array([0.25, 1.35, -3.6])
TARGET = np.array([0.02, 0.93, 2.0])
SUN = np.array([-0.55, 0.72, -0.62]) / np.linalg.norm([-0.55, 0.72, -0.62])
ZOOM = 0.66  # height of the image at distance 1
SUN_SIZE = 0.07  # tangent of the sun's angular radius; shadows soften with distance


class Noise:
    """Smooth random fields of any dimension, roughly in [-1, 1], from one seeded table."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.table = rng.uniform(-1, 1, 4096)
        self.order = rng.permutation(4096)

    def __call__(self, *position: Array) -> Array:
        """Return value noise: random numbers on the integer grid, interpolated smoothly."""
        cells = [np.floor(x).astype(np.int64) for x in position]
        fades = [(x - c) ** 2 * (3 - 2 * (x - c)) for x, c in zip(position, cells, strict=True)]
        total = np.zeros(np.broadcast(*position).shape)
        for corner in range(1 << len(position)):
            key, weight = np.int64(0), 1.0
            for axis, (cell, fade) in enumerate(zip(cells, fades, strict=True)):
                far = corner >> axis & 1
                key = self.order[(key + cell + far) & 4095]
                weight = weight * (fade if far else 1 - fade)
            total += weight * self.table[key]
        return total

    def octaves(self, *position: Array, n: int = 5, gain: float = 0.5) -> Array:
        """Return a sum of octaves of noise with decreasing amplitude."""
        return sum(gain**k * self(*(x * 2.03**k + 17 * k for x in position)) for k in range(n)) * (1 - gain)


def mix(a: Array | tuple[float, ...], b: Array | tuple[float, ...], t: Array) -> Array:
    """Interpolate colours from ``a`` at ``t`` = 0 to ``b`` at ``t`` = 1, (..., 3)."""
    t = np.clip(t, 0, 1)[..., None]
    return np.asarray(a) * (1 - t) + np.asarray(b) * t


def step(low: float, high: float, x: Array) -> Array:
    """Return a smooth step from 0 below ``low`` to 1 above ``high``."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def bilinear(texture: Array, u: Array, v: Array) -> Array:
    """Sample a texture at ``u`` (right) and ``v`` (down) in [0, 1], with edges repeated."""
    height, width = texture.shape[:2]
    x, y = np.clip(u * width - 0.5, 0, width - 1.001), np.clip(v * height - 0.5, 0, height - 1.001)
    i, j = x.astype(int), y.astype(int)
    fx, fy = (x - i)[..., None], (y - j)[..., None]
    top = texture[j, i] * (1 - fx) + texture[j, i + 1] * fx
    return top * (1 - fy) + (texture[j + 1, i] * (1 - fx) + texture[j + 1, i + 1] * fx) * fy


def bricks(x: Array, y: Array, noise: Noise) -> tuple[Array, Array]:
    """Return colour (h, w, 3) and height (h, w) of a brick wall."""
    wobble = 0.006 * noise.octaves(x * 9, y * 9, n=3)
    row = np.floor((y + wobble) / 0.15)
    along = (x + wobble) / 0.42 + 0.5 * (row % 2)
    column = np.floor(along)
    fx, fy = (along - column) * 0.42, (y + wobble) - row * 0.15
    edge = np.minimum(np.minimum(fx, 0.42 - fx), np.minimum(fy, 0.15 - fy)) + 0.004 * noise.octaves(x * 50, y * 50, n=3)
    body = step(0.006, 0.014, edge)
    tone = noise(column * 3.7 + 0.5, row * 5.3 + 0.5)
    grain = noise.octaves(x * 40, y * 40, n=5, gain=0.7)
    brick = mix((0.42, 0.15, 0.09), (0.62, 0.30, 0.19), 0.5 + 0.6 * tone)
    brick = mix(brick, (0.72, 0.55, 0.42), 0.6 * step(0.1, 0.8, noise.octaves(x * 5, y * 5)))
    brick = mix(brick, (0.16, 0.09, 0.07), 0.8 * step(0.15, 0.6, noise.octaves(x * 16 + 40, y * 16)))
    colour = mix(
        np.asarray((0.55, 0.52, 0.47)) * (1 + 0.25 * grain[..., None]), brick * (1 + 0.35 * grain[..., None]), body
    )
    return np.clip(colour, 0, 1), body * (1 + 0.2 * tone) + 0.25 * grain


def leaf(
    draw: ImageDraw.ImageDraw,
    depth: ImageDraw.ImageDraw,
    centre: Array,
    size: float,
    turn: float,
    rng: np.random.Generator,
) -> None:
    """Draw one five-lobed ivy leaf with its veins, and its height into the depth map."""
    angles = np.linspace(-np.pi, np.pi, 61)
    radius = 0.45 + 0.35 * np.abs(np.cos(2.5 * angles)) ** 1.5 * (1.1 - 0.3 * np.abs(angles) / np.pi)
    outline = np.stack([np.cos(angles + turn), np.sin(angles + turn)], 1) * radius[:, None] * size + centre
    tint = rng.uniform(0, 1)
    base = np.array([44, 78, 34]) * (1 - tint) + np.array([122, 142, 66]) * tint
    if rng.uniform() < 0.06:
        base = np.array([158, 92, 48])
    draw.polygon([tuple(p) for p in outline + size * np.array([0.16, 0.24])], fill=(26, 22, 18))
    draw.polygon([tuple(p) for p in outline], fill=tuple(int(c) for c in base))
    half = outline[angles >= 0]
    draw.polygon([tuple(p) for p in half], fill=tuple(int(c * 0.84) for c in base))
    for lobe in (0, 2.5, -2.5, 1.25, -1.25):
        tip = centre + 0.66 * size * np.array([np.cos(turn + lobe), np.sin(turn + lobe)])
        draw.line(
            [tuple(centre), tuple(tip)],
            fill=tuple(int(min(255, c * 1.3 + 24)) for c in base),
            width=max(1, int(size / 22)),
        )
    depth.polygon([tuple(p) for p in outline], fill=int(rng.integers(150, 256)))


def poster(width: int, height: int) -> Image.Image:
    """Draw a poster with large and small letters, lines and a fine test pattern."""
    sheet = Image.new("RGB", (width, height), (236, 228, 208))
    draw = ImageDraw.Draw(sheet)
    u = width / 100

    def write(x: float, y: float, text: str, size: float, fill: tuple[int, int, int]) -> None:
        draw.text((x * u, y * u), text, font=ImageFont.load_default(size * u), fill=fill)

    draw.rectangle((0, 0, 100 * u, 27 * u), fill=(30, 62, 96))
    write(8, 3, "denoise", 21, (244, 226, 170))
    write(8, 31, "LIGHT & SOUND", 10.5, (150, 40, 30))
    lines = (
        "Every picture is a little",
        "bit of light and a little bit",
        "of chance. Keep the first;",
        "let the other one go.",
    )
    for i, line in enumerate(lines):
        write(8, 47 + 9 * i, line, 6.9, (44, 40, 38))
    for i in range(40):
        x = (8 + 84 * (i / 40) ** 1.4) * u
        draw.line((x, 88 * u, x, 100 * u), fill=(30, 30, 30), width=max(1, int((0.4 + i / 55) * u)))
    for i in range(7):
        draw.rectangle(((8 + 12 * i) * u, 104 * u, (20 + 12 * i) * u, 114 * u), fill=SWATCHES[i])
    for i in range(14):
        r = (14 - i) * 0.75 * u
        box = (80 * u - r, 125 * u - r, 80 * u + r, 125 * u + r)
        draw.ellipse(box, fill=(30, 62, 96) if i % 2 == 0 else (236, 228, 208))
    write(8, 116.5, "No. 640 x 480", 8.5, (44, 40, 38))
    write(8, 125, "sigma 16 ... 25", 6.5, (120, 110, 100))
    return sheet


SWATCHES = (
    (200, 60, 40),
    (226, 150, 50),
    (232, 206, 90),
    (110, 150, 80),
    (60, 130, 150),
    (60, 70, 130),
    (120, 60, 110),
)


def wall_texture() -> tuple[Array, Array]:
    """Return linear colour (h, w, 3) and slope (h, w, 2) of the wall with poster and ivy."""
    scale = 400  # texels per metre
    width, height = int(WALL_WIDTH * scale), int(WALL_HEIGHT * scale)
    x, y = np.meshgrid((np.arange(width) + 0.5) / scale, (np.arange(height) + 0.5) / scale)
    noise = Noise(SEED + 10)
    colour, relief = bricks(x, y, noise)
    relief *= 2.2
    cap = y < 0.11  # the coping stones
    stone = np.asarray((0.58, 0.55, 0.5)) * (1 + 0.35 * noise.octaves(x * 30, y * 30, n=5, gain=0.7)[..., None])
    stone *= 1 - 0.6 * (np.abs((x % 0.8) - 0.4) > 0.394)[..., None]
    colour[cap], relief[cap] = stone[cap], (0.6 * noise.octaves(x * 25, y * 25))[cap]
    colour *= (1 - 0.55 * step(0.2, 0.11, y) * (y >= 0.11))[..., None]

    picture = Image.fromarray((255 * np.clip(colour, 0, 1) ** (1 / 2.2)).astype(np.uint8))
    px, py, pw, ph = int(4.45 * scale), int(0.30 * scale), int(1.16 * scale), int(1.56 * scale)
    frame = int(0.035 * scale)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((px - frame + 12, py - frame + 14, px + pw + frame + 12, py + ph + frame + 14), fill=(34, 22, 17))
    draw.rectangle((px - frame, py - frame, px + pw + frame, py + ph + frame), fill=(58, 42, 30))
    draw.line((px - frame, py - frame, px + pw + frame, py - frame), fill=(140, 112, 84), width=3)
    draw.line((px - frame, py - frame, px - frame, py + ph + frame), fill=(120, 96, 72), width=3)
    picture.paste(poster(pw, ph), (px, py))
    relief[py - frame : py + ph + frame, px - frame : px + pw + frame] = 0.5

    rng = np.random.default_rng(SEED + 11)
    cover = Image.new("L", picture.size)
    depth = ImageDraw.Draw(cover)
    for _ in range(3200):  # ivy, densest at the top left corner
        centre = np.array([0.6 + 3.6 * rng.beta(1.0, 1.5), 0.1 + WALL_HEIGHT * rng.beta(0.95, 1.9)])
        if noise.octaves(centre[:1] * 2.2, centre[1:] * 2.2)[0] < 0.12 - 0.16 * centre[1] - 0.16 * (centre[0] - 2.2):
            leaf(draw, depth, centre * scale, scale * rng.uniform(0.05, 0.115), rng.uniform(0.6, 2.5), rng)
    leaves = np.asarray(cover, np.float64) / 255
    relief = np.where(leaves > 0, 1.5 * leaves, relief)
    slope = np.stack(np.gradient(relief), -1)[..., ::-1]
    return (np.asarray(picture, np.float64) / 255) ** 2.2, np.clip(slope, -0.6, 0.6)


def planks(x: Array, z: Array, noise: Noise) -> tuple[Array, Array]:
    """Return colour (n, 3) and gloss (n,) of the wooden floor."""
    board = np.floor(x / 0.34)
    across = x / 0.34 - board
    length = z / 2.3 + noise(board * 7.7 + 0.5, board * 0 + 0.5)
    tone = noise(board * 3.1 + 0.5, np.floor(length) * 5.7 + 0.5)
    rings = 6 * noise.octaves(x * 2.4 + board * 31, z * 0.35 + tone * 9, n=3) + across * 1.5
    grain = 0.5 + 0.5 * np.sin(14 * rings)
    fibre = noise.octaves(x * 90, z * 3 + board * 13, n=4, gain=0.7)
    colour = mix((0.30, 0.165, 0.075), (0.56, 0.36, 0.19), 0.55 + 0.35 * tone + 0.3 * (grain - 0.5) + 0.55 * fibre)
    gap = np.minimum(np.minimum(across, 1 - across) * 0.34, np.abs(length - np.round(length)) * 2.3)
    gap = step(0.002, 0.008, gap)
    return colour * (0.15 + 0.85 * gap)[:, None], gap * (0.6 + 0.4 * fibre)


@dataclass(frozen=True)
class Sphere:
    """A ball on the floor; ``paint`` maps local coordinates in [-1, 1] to its colour."""

    centre: tuple[float, float, float]
    radius: float
    paint: Callable[[Array, Array, Array], Array]
    reflectance: float  # at normal incidence
    shine: float  # exponent of the highlight


BALL_NOISE = Noise(SEED + 20)


def marble(x: Array, y: Array, z: Array) -> Array:
    """Return the colour of white stone with dark veins."""
    vein = np.abs(BALL_NOISE.octaves(x * 1.7, y * 1.7, z * 1.7, n=6, gain=0.6) + 0.12 * np.sin(3 * x + 2 * y))
    cloud = BALL_NOISE.octaves(x * 3 + 9, y * 3, z * 3, n=5)
    return mix(
        mix((0.13, 0.16, 0.16), (0.80, 0.79, 0.74), step(0.0, 0.09, vein)),
        (0.42, 0.52, 0.48),
        0.9 * step(-0.1, 0.7, cloud),
    )


def wood(x: Array, y: Array, z: Array) -> Array:
    """Return the colour of turned wood, with rings round a tilted axis."""
    u, v = 0.9 * x - 0.4 * y, 0.5 * y + z
    radius = np.hypot(u, v) + 0.10 * BALL_NOISE.octaves(x * 2, y * 2, z * 2, n=3)
    ring = (radius * 11) % 1.0
    fibre = BALL_NOISE.octaves(u * 30, v * 30, (x + y) * 4, n=3, gain=0.7)
    return mix((0.60, 0.36, 0.15), (0.30, 0.13, 0.045), ring**2 + 0.35 * fibre)


def glaze(x: Array, y: Array, z: Array) -> Array:
    """Return the colour of blue and cream pottery with bands of a fine pattern."""
    longitude, latitude = np.arctan2(z, x) / np.pi, np.arcsin(np.clip(y, -1, 1)) / np.pi * 2
    band = np.floor(latitude * 5 + 0.5)
    a, b = longitude * 24 + 0.5 * band, (latitude * 5 + 0.5 - band) * 2 - 1
    petal = np.hypot((a % 1 - 0.5) * 2, b)
    inked = step(0.06, 0.0, np.abs(petal - 0.7) - 0.09) + step(0.3, 0.24, petal) + step(0.86, 0.9, np.abs(b))
    speckle = BALL_NOISE.octaves(x * 22, y * 22, z * 22, n=3)
    return mix((0.78, 0.73, 0.60), (0.035, 0.11, 0.34), inked) * (1 + 0.15 * speckle[..., None])


def chrome(x: Array, y: Array, z: Array) -> Array:
    """Return the dark base colour of chrome."""
    return np.full((*x.shape, 3), 0.04)


def moss(x: Array, y: Array, z: Array) -> Array:
    """Return the colour of moss."""
    tuft = BALL_NOISE.octaves(x * 16, y * 16, z * 16, n=4, gain=0.75)
    return mix((0.05, 0.09, 0.02), (0.42, 0.50, 0.13), 0.45 + 0.9 * tuft)


SPHERES = (
    Sphere((-1.05, 0.62, 1.7), 0.62, marble, 0.05, 160),
    Sphere((0.10, 0.42, 0.75), 0.42, glaze, 0.06, 300),
    Sphere((1.36, 0.50, 1.55), 0.50, chrome, 0.82, 900),
    Sphere((-0.62, 0.25, 0.15), 0.25, wood, 0.03, 60),
    Sphere((0.88, 0.20, 0.30), 0.20, moss, 0.0, 5),
    Sphere((-0.15, 0.30, 2.5), 0.30, wood, 0.03, 60),
)


def sky(direction: Array) -> Array:
    """Return the colour of the sky with clouds and the glow of the sun, (n, 3)."""
    up = np.clip(direction[:, 1], 0, 1)
    colour = mix((0.80, 0.84, 0.86), (0.16, 0.36, 0.72), np.sqrt(up) * 1.15)
    reach = 1.0 / np.maximum(up + 0.12, 0.05)
    cloud = CLOUDS.octaves(direction[:, 0] * reach * 1.6 + 3, direction[:, 2] * reach * 1.6 + 5, n=6, gain=0.55)
    colour = mix(colour, (0.95, 0.93, 0.90), 0.9 * step(0.0, 0.42, cloud))
    sun = np.clip(direction @ SUN, 0, 1)
    return colour + (np.array([1.0, 0.9, 0.7]) * (6 * step(0.9965, 0.999, sun) + 0.35 * sun**60)[:, None])


CLOUDS = Noise(SEED + 30)
FLOOR_NOISE = Noise(SEED + 31)


def shade(origin: Array, direction: Array, wall: tuple[Array, Array], bounces: int) -> Array:
    """Trace rays and return their radiance in linear RGB, (n, 3)."""
    n = len(direction)
    nearest, hit = np.full(n, np.inf), np.full(n, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        for number, sphere in enumerate(SPHERES):
            offset = origin - np.array(sphere.centre)
            b = (offset * direction).sum(1)
            root = b**2 - (offset**2).sum(1) + sphere.radius**2
            t = -b - np.sqrt(np.maximum(root, 0))
            closer = (root > 0) & (t > 1e-4) & (t < nearest)
            nearest[closer], hit[closer] = t[closer], number
        floor = -origin[:, 1] / direction[:, 1]
        closer = (floor > 1e-4) & (floor < nearest)
        nearest[closer], hit[closer] = floor[closer], 100
        ahead = (WALL_Z - origin[:, 2]) / direction[:, 2]
        height = origin[:, 1] + ahead * direction[:, 1]
        closer = (ahead > 1e-4) & (ahead < nearest) & (height < WALL_HEIGHT) & (height > 0)
        nearest[closer], hit[closer] = ahead[closer], 101

    colour = sky(direction)
    solid = np.flatnonzero(hit >= 0)
    if not len(solid):
        return colour
    kind, view = hit[solid], direction[solid]
    point = origin[solid] + nearest[solid, None] * view
    normal, albedo = np.zeros_like(point), np.zeros_like(point)
    mirror, shine, gloss = np.zeros(len(solid)), np.ones(len(solid)), np.ones(len(solid))
    for number, sphere in enumerate(SPHERES):
        is_hit = kind == number
        normal[is_hit] = (point[is_hit] - np.array(sphere.centre)) / sphere.radius
        albedo[is_hit] = sphere.paint(*normal[is_hit].T)
        mirror[is_hit], shine[is_hit] = sphere.reflectance, sphere.shine
        if sphere.paint is moss:
            x, y, z = normal[is_hit].T * 16
            bump = np.stack([BALL_NOISE.octaves(x + 7 * k, y, z + 7 * k, n=4, gain=0.75) for k in range(3)], 1)
            normal[is_hit] += 0.9 * bump
    is_hit = kind == 100
    normal[is_hit] = (0, 1, 0)
    albedo[is_hit], gloss[is_hit] = planks(point[is_hit, 0], point[is_hit, 2], FLOOR_NOISE)
    mirror[is_hit], shine[is_hit] = 0.025, 30
    is_hit = kind == 101
    u, v = point[is_hit, 0] / WALL_WIDTH + 0.5, 1 - point[is_hit, 1] / WALL_HEIGHT
    albedo[is_hit] = bilinear(wall[0], u, v)
    slope = bilinear(wall[1], u, v)
    normal[is_hit] = np.stack([-slope[:, 0], slope[:, 1], -np.ones(is_hit.sum())], 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)

    # Every sphere occludes part of the sun (soft shadow) and of the sky (ambient occlusion), in closed form.
    lit, open_sky = np.ones(len(solid)), np.ones(len(solid))
    for number, sphere in enumerate(SPHERES):
        offset = np.array(sphere.centre) - point
        along = offset @ SUN
        apart = np.sqrt(np.maximum((offset**2).sum(1) - along**2, 0))
        spread = SUN_SIZE * np.maximum(along, 0) + 1e-3
        shadow = 1 - step(-1, 1, (apart - sphere.radius) / spread)
        lit *= 1 - np.where((along > 0) & (kind != number), shadow, 0)
        distance = np.linalg.norm(offset, axis=1)
        facing = np.clip((offset * normal).sum(1) / distance, 0, 1)
        open_sky *= 1 - np.where(kind != number, facing * np.minimum(sphere.radius / distance, 1) ** 2, 0)
    on_ball = kind < 100
    open_sky *= np.where(on_ball, 0.55 + 0.45 * normal[:, 1], 1)
    open_sky *= np.where(kind == 100, 0.45 + 0.55 * step(0.0, 1.3, WALL_Z - point[:, 2]), 1)
    open_sky *= np.where(kind == 101, 0.45 + 0.55 * step(-0.1, 1.0, point[:, 1]), 1)

    facing = np.clip(normal @ SUN, 0, 1) * lit
    warm = np.clip(-normal[:, 1], 0, 1) * 0.5 + 0.12  # light reflected by the wooden floor
    light = (
        np.outer(facing, (2.15, 1.95, 1.62))
        + np.outer(open_sky, (0.34, 0.42, 0.55))
        + np.outer(warm, (0.32, 0.22, 0.13))
    )
    result = albedo * light
    middle = SUN - view
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    spark = np.clip((normal * middle).sum(1), 0, 1) ** shine * facing * (mirror > 0) * gloss
    result += np.outer(spark, (1.0, 0.93, 0.8)) * (0.12 + 0.02 * np.sqrt(shine))[:, None]
    towards = np.clip(-(normal * view).sum(1), 0, 1)
    reflectance = np.where(mirror > 0, mirror + (1 - mirror) * (1 - towards) ** 5 * 0.8, 0) * np.clip(gloss, 0, 1)
    bright = np.flatnonzero(reflectance > 0.004)
    if bounces and len(bright):
        reflected = view[bright] + 2 * towards[bright, None] * normal[bright]
        reflection = shade(point[bright] + 1e-3 * normal[bright], reflected, wall, bounces - 1)
        weight = reflectance[bright, None]
        result[bright] = result[bright] * (1 - weight) + reflection * weight
    colour[solid] = result
    return colour


def render() -> Array:
    """Return the rendered scene with gamma encoding, (height, width, 3), in [0, 1]."""
    wall = wall_texture()
    forward = (TARGET - EYE) / np.linalg.norm(TARGET - EYE)
    right = np.cross((0, 1, 0), forward)
    right /= np.linalg.norm(right)
    up = np.cross(forward, right)
    rng = np.random.default_rng(SEED + 40)
    picture = np.zeros((HEIGHT, WIDTH, 3))
    rows = 24
    for top in range(0, HEIGHT, rows):
        y, x = np.mgrid[top * RAYS : (top + rows) * RAYS, 0 : WIDTH * RAYS]
        jitter = rng.uniform(0, 1, (2, *x.shape))
        sx = ((x + jitter[0]) / RAYS - WIDTH / 2) / HEIGHT * ZOOM
        sy = (HEIGHT / 2 - (y + jitter[1]) / RAYS) / HEIGHT * ZOOM
        rays = (forward + sx[..., None] * right + sy[..., None] * up).reshape(-1, 3)
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        light = shade(np.broadcast_to(EYE, rays.shape), rays, wall, bounces=2)
        light = np.minimum(light, 3.0)  # avoids aliasing at small highlights
        picture[top : top + rows] = light.reshape(rows, RAYS, WIDTH, RAYS, 3).mean((1, 3))
    ys, xs = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    exposed = picture * (0.56 - 0.08 * (xs**2 + ys**2))[..., None]
    filmic = exposed * (2.51 * exposed + 0.03) / (exposed * (2.43 * exposed + 0.59) + 0.14)  # Narkowicz's curve, 2015
    return np.clip(filmic, 0, 1) ** (1 / 2.2)


def make_photo(folder: Path) -> None:
    """Write the clean and the noisy image."""
    clean = np.round(render() * 255) / 255
    rng = np.random.default_rng(SEED + 41)
    noisy = clean + rng.standard_normal(clean.shape) * np.sqrt(READ_NOISE**2 + SHOT_NOISE * clean)
    for name, pixels in (("photo.clean.png", clean), ("photo.png", noisy)):
        Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)).save(folder / name, optimize=True)


if __name__ == "__main__":
    destination = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    destination.mkdir(parents=True, exist_ok=True)
    make_speech(destination)
    make_photo(destination)
