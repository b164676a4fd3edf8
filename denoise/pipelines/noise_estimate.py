"""The noise of a frame: patches -> first estimate -> residual of the conditioned network -> noise profile."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise.backends import load_network
from denoise.noise_level import estimate_sigma
from denoise.noise_profile import MAX_COARSE_RATIO, Denoise, NoiseProfile, estimate_noise_profile
from denoise.pipelines.transparency import fill_hidden
from denoise.protocols import ArrayNetwork, NetworkFacts
from denoise.random_numbers import TorchRandom
from denoise.registry import NOISE_MODEL
from denoise.signals import Image

PATCH = 96  # pixels
MAX_CANDIDATES = 64  # patches that the first estimate is made of
N_INTENSITIES, N_FLAT, N_USUAL = 3, 3, 1  # the network gets so many patches of each third of the intensities
MAX_EQUAL = 0.9  # of neighbouring pixels: more of them are clipped or drawn and tell nothing about the noise
MIN_SEPARATE, MAX_JOINT_RATIO = 1 / 255, 2.5  # of the noise of one channel by that of another, or of all together
MIN_SHARED, MIN_SHARED_RATIO = 6 / 255, 5.0  # coarse noise that channels share, also by that of all together
MIN_KEPT, MIN_EVENNESS = 0.5, 0.5  # of such noise, by its first estimate, and by intensity; structure has less
N_UNIFORM, N_BY_INTENSITY = 3, 2  # steps of `estimate_noise_profile`
MIN_COLOURS, MAX_COLOURS = 48, 256  # of palettes that may hold noise
MIN_PIXELS_PER_COLOUR = 16  # of a palette
MAX_DITHER = 4 / 255  # noise that dithering with so many colours is taken for: up to 3.2 was measured
MIN_VISIBLE = 0.5  # of the pixels of a patch
MIN_ALIVE = 4  # patches, or else those without noise are kept
MIN_PIXELS = 32 * 32  # that tell noise from texture: clean thumbnails of 16 x 16 pixels would lose 20 dB
MAX_EQUAL_EDGES = 0.5  # of neighbours at edges of flat areas; with noise of half a level they are as often equal
MIN_FLAT = 0.5  # of the pixels: pixels of enlarged noise are equal, too, but nearly all at edges

Array = NDArray[Any]
FrameNoise = tuple[NoiseProfile, ...]
"""Noise of each group of channels that a network takes together, see `channel_groups`."""


def channel_groups(channels: int) -> list[slice]:
    """Return the channels that a network takes together: the black ink of CMYK is a grey image of its own.

    Args:
        channels: 1, 3 or 4.
    """
    return [slice(0, 3), slice(3, 4)] if channels == 4 else [slice(0, channels)]


def uniform_noise(sigma: float, channels: int) -> FrameNoise:
    """Return white noise of one strength.

    Args:
        sigma: standard deviation, full scale 1.0.
        channels: of the frame: 1, 3 or 4.
    """
    return tuple(NoiseProfile.uniform(sigma, len(range(channels)[group])) for group in channel_groups(channels))


def to_network(x: Array, noise: NoiseProfile | None, facts: NetworkFacts) -> tuple[Array, Array | None]:
    """Turn images and their noise into the inputs of a network.

    Grey images are repeated for networks of three channels, and colours are put along the batch for those of one.

    Args:
        x: (batch, 1 or 3, height, width).
        noise: its noise, of as many channels; None for blind networks.
        facts: facts of the network.

    Returns:
        Images with the network's channels, and its sigma: maps, one number per image, or None.
    """
    maps = None if noise is None or facts.sigma_maps == 1 else noise.maps(x)
    images, sigma = _with_channels(x, maps, facts.channels)
    if noise is not None and maps is None:
        sigma = np.full(len(images), noise.mean_sigma, np.float32)
    return images, sigma


def tells_noise(image: Image) -> bool:
    """Tell whether a frame can show noise.

    A thumbnail has too few pixels. In more than 8 bits, flat areas up to their edges, as of label images, masks and
    drawings, hold no noise, as that would change levels; those of 8 bits may hide noise below a level.

    Args:
        image: frame.
    """
    x, visible = image.pixels, image.visible
    n_pixels = x[..., 0].size if visible is None else np.count_nonzero(visible)
    if n_pixels < MIN_PIXELS:
        return False
    if x.dtype == np.uint8:
        return True
    steps = (x[:, 1:] != x[:, :-1]).any(axis=2), (x[1:] != x[:-1]).any(axis=2)
    is_edge = np.zeros(x.shape[:2], np.bool_)
    for (a, b), step in zip(_neighbours(is_edge), steps, strict=True):
        a |= step
        b |= step
    if np.count_nonzero(is_edge if visible is None else is_edge & visible) > (1 - MIN_FLAT) * n_pixels:
        return True
    at_edges = [a | b for a, b in _neighbours(is_edge)]
    if visible is not None:
        at_edges = [pairs & a & b for pairs, (a, b) in zip(at_edges, _neighbours(visible), strict=True)]
    n_steps = sum(np.count_nonzero(step & pairs) for step, pairs in zip(steps, at_edges, strict=True))
    n_at_edges = sum(np.count_nonzero(pairs) for pairs in at_edges)
    return bool(n_steps > (1 - MAX_EQUAL_EDGES) * n_at_edges)


def _neighbours(x: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Views of the neighbours in rows, and of those in columns, of (height, width)."""
    return (x[:, 1:], x[:, :-1]), (x[1:], x[:-1])


def own_scale(image: Image) -> float:
    """Return the white of integers that use the lower bits of their type alone, as data of 12 bits in 16, or of 8.

    Args:
        image: frame.

    Returns:
        Value of white, at most that of the type.
    """
    if image.pixels.dtype != np.uint16:
        return image.full_scale
    return float(max(255, (1 << int(image.pixels.max()).bit_length()) - 1))


def estimate_noise(image: Image, network: ArrayNetwork, *, by_intensity: bool = True) -> FrameNoise:
    """Estimate the noise of a frame, whatever network denoises it.

    Args:
        image: noisy frame, full scale about 1.0 if in floats.
        network: network that tells noise from structure, see `load_noise_network`.
        by_intensity: whether the noise may depend on intensity; without, the estimate takes a third of the time.

    Returns:
        Noise profile of each group of channels, full scale 1.0.

    Reference:
        See `denoise.noise_profile.estimate_noise_profile`.
    """

    def denoise(x: Array, maps: Array) -> Array:
        y = network.denoise(*_with_channels(x, maps, network.facts.channels))
        return y.mean(axis=1, keepdims=True) if x.shape[1] < y.shape[1] else y

    candidates = cut_patches(image)
    channels = image.pixels.shape[2]
    if candidates is None:
        return uniform_noise(0.0, channels)
    n_steps = N_UNIFORM + (N_BY_INTENSITY if by_intensity else 0)
    return tuple(_estimate_group(candidates[:, group], denoise, n_steps) for group in channel_groups(channels))


def _estimate_group(candidates: Array, denoise: Denoise, n_steps: int) -> NoiseProfile:
    """Noise profile of (n, channels, height, width), channels 1 or 3."""
    channels = candidates.shape[1]
    if (candidates == candidates[..., :1, :1]).all():  # flat, as one pixel is
        return NoiseProfile.uniform(0.0, channels)
    if channels > 1 and (candidates == candidates[:, :1]).all():  # grey: the noise of all channels is the same
        profile = _estimate_group(candidates[:, :1], denoise, n_steps)
        return NoiseProfile(profile.levels.repeat(channels, axis=0), profile.sigma.repeat(channels, axis=0))
    first, shared = _first_estimates(montage(candidates))
    patches = _pick(candidates)
    estimate = partial(estimate_noise_profile, patches, denoise, n_steps=n_steps, n_uniform=N_UNIFORM)
    if _has_palette(patches):
        profile = estimate(*first, has_palette=True)
        if profile.mean_sigma > MAX_DITHER:
            return profile
    if shared is not None and n_steps > N_UNIFORM:  # else structure, which varies with intensity, is not told from it
        profile = estimate(*shared)
        fine, coarse = np.split(profile.sigma, 2)
        is_kept = np.square(coarse).mean() > MIN_KEPT**2 * np.square(shared[1]).mean()
        if is_kept and fine.min() > MIN_EVENNESS * fine.max():
            return profile
    return estimate(*first)


def _first_estimates(mosaic: Array) -> tuple[tuple[Array, Array], tuple[Array, Array] | None]:
    """First estimates for the noise of (channels, height, width), fine and coarse: one, or one for each channel.

    The joint estimate, which tells noise from structure best, is that of the weakest combination of channels. It is
    wrong where channels share their noise, as those of toned photographs, or differ far in it. Where they may share
    noise that is correlated, as grain of film, which structure resembles, those of the channels are the second result.
    """

    def estimate(x: Array) -> tuple[float, float]:
        return estimate_sigma(x), 2 * estimate_sigma(_halve(x)) if min(x.shape[1:]) > 1 else 0.0

    joint = np.array(estimate(mosaic))
    if len(mosaic) == 1:
        return (joint[:1], joint[1:]), None
    separate = np.array([estimate(channel[None]) for channel in mosaic])
    fine = separate[:, 0]
    greatest, least = float(fine.max()), max(float(min(fine.min(), joint[0])), MIN_SEPARATE)
    is_white = separate[fine.argmax(), 1] <= MAX_COARSE_RATIO * greatest  # structure is seldom as strong in means
    by_channel = separate[:, 0], separate[:, 1]
    if is_white and greatest > MAX_JOINT_RATIO * least:
        return by_channel, None
    is_shared = by_channel[1].min() > max(MIN_SHARED, MIN_SHARED_RATIO * float(joint[1]))
    return (joint[:1], joint[1:]), by_channel if is_shared else None


def _has_palette(patches: Array) -> bool:
    """Tell whether patches, (n, channels, height, width), have as few colours as a palette, but more than drawings."""
    if patches.shape[1] == 1:
        return False
    pixels = np.rint(255 * np.moveaxis(patches, 1, -1).reshape(-1, patches.shape[1])).astype(np.int64)
    n_colours = len(np.unique(pixels @ 256 ** np.arange(patches.shape[1])))
    return MIN_COLOURS <= n_colours <= min(MAX_COLOURS, len(pixels) // MIN_PIXELS_PER_COLOUR)


def cut_patches(image: Image) -> Array | None:
    """Cut patches from all over a frame.

    Args:
        image: frame.

    Returns:
        At most `MAX_CANDIDATES`, (n, channels, height, width), full scale 1.0; None if no pixel is visible.
    """
    top, left, height, width = _content(image)
    sides = min(PATCH, height), min(PATCH, width)
    starts = [(top + i, left + j) for i in _starts(height, sides[0]) for j in _starts(width, sides[1])]
    if len(starts) > MAX_CANDIDATES:
        starts = [starts[i] for i in TorchRandom(0).permutation(len(starts))]
    patches: list[Array] = []
    partial: list[tuple[float, Array]] = []  # mostly hidden: they count where there is nothing better
    for i, j in starts:
        box = (slice(i, i + sides[0]), slice(j, j + sides[1]))
        x = np.moveaxis(Image(image.pixels[box]).as_float().pixels, -1, 0)
        if image.visible is not None:
            visible = image.visible[box]
            if not visible.any():
                continue
            x, visible_fraction = fill_hidden(x, visible), float(visible.mean())
            if visible_fraction < MIN_VISIBLE:
                partial.append((visible_fraction, x))
                continue
        patches.append(x)
        if len(patches) == MAX_CANDIDATES:
            break
    if not patches:
        patches = [x for _, x in sorted(partial, key=lambda pair: -pair[0])[:MIN_ALIVE]]
    return np.stack(patches) if patches else None


def _content(image: Image) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is neither hidden nor a black bar, as of films, or of the whole frame."""
    pixels, visible = image.pixels, image.visible
    rows = _extent(pixels, visible)
    columns = _extent(pixels.swapaxes(0, 1), None if visible is None else visible.T)
    if rows is None or columns is None:
        return 0, 0, *pixels.shape[:2]
    return rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0]


def _extent(lines: Array, visible: Array | None) -> tuple[int, int] | None:
    """The first line of pixels that is neither hidden nor black, and the one behind the last; None if all are."""

    def has_content(i: int) -> bool:
        return bool(lines[i].any() and (visible is None or visible[i].any()))

    first = next(filter(has_content, range(len(lines))), None)  # in most images the first of all: no other is read
    last = next(filter(has_content, reversed(range(len(lines)))), None)
    return None if first is None or last is None else (first, last + 1)


def _starts(size: int, side: int) -> list[int]:
    """Begin of windows that cover an axis."""
    n = -(-size // side)
    return [round(i * (size - side) / max(1, n - 1)) for i in range(n)]


def montage(patches: Array) -> Array:
    """Return patches side by side.

    Args:
        patches: (n, channels, height, width).

    Returns:
        (channels, rows * height, columns * width), as nearly square as they allow.
    """
    columns = max(1, round(len(patches) ** 0.5))
    rows = len(patches) // columns
    _, channels, height, width = patches.shape
    grid = patches[: rows * columns].reshape(rows, columns, channels, height, width)
    return grid.transpose(2, 0, 3, 1, 4).reshape(channels, rows * height, columns * width)


def _halve(x: Array) -> Array:
    """Means of blocks of 2 x 2 pixels, (channels, height // 2, width // 2)."""
    channels, height, width = x.shape
    blocks = x[:, : height // 2 * 2, : width // 2 * 2].reshape(channels, height // 2, 2, width // 2, 2)
    return blocks.mean(axis=(2, 4))


def _pick(patches: Array) -> Array:
    """The patches that tell most about the noise: smooth ones and usual ones of all intensities."""
    grey = patches.mean(axis=1)
    if len(patches) <= N_INTENSITIES * (N_FLAT + N_USUAL) or min(grey.shape[1:]) < 2:
        return patches
    equal = (patches[..., 1:] == patches[..., :-1]).mean(axis=(1, 2, 3))
    alive = np.flatnonzero(equal < MAX_EQUAL)
    alive = alive if len(alive) >= MIN_ALIVE else np.arange(len(patches))
    detail = grey[:, 1:, 1:] - grey[:, 1:, :-1] - grey[:, :-1, 1:] + grey[:, :-1, :-1]
    roughness = np.abs(detail).mean(axis=(1, 2))
    by_intensity = alive[grey.mean(axis=(1, 2))[alive].argsort()]
    ranked = [part[roughness[part].argsort()] for part in np.array_split(by_intensity, N_INTENSITIES)]
    flat = [part[i] for i in range(N_FLAT) for part in ranked if len(part) > i]
    usual = [part[len(part) // 2] for part in ranked if len(part) > 2 * N_FLAT]
    return patches[np.stack([*flat, *usual])]


def _with_channels(x: Array, maps: Array | None, channels: int) -> tuple[Array, Array | None]:
    """Images (batch, 1 or 3, height, width) and maps of twice as many channels, for a network of 1 or 3 channels."""
    if x.shape[1] == channels:
        return x, maps
    if x.shape[1] == 1:
        return x.repeat(channels, axis=1), None if maps is None else maps.repeat(channels, axis=1)
    if maps is not None:
        maps = np.swapaxes(maps.reshape(len(x), 2, *x.shape[1:]), 1, 2).reshape(-1, 2, *x.shape[2:])
    return x.reshape(-1, 1, *x.shape[2:]), maps


@cache
def load_noise_network(device: str, precision: str, backend: str = "auto") -> ArrayNetwork:
    """Load the network of `estimate_noise`, once.

    Args:
        device: as of `denoise.pipelines.image.ImagePipeline`.
        precision: as of `denoise.pipelines.image.ImagePipeline`.
        backend: as of `denoise.pipelines.image.ImagePipeline`.
    """
    return load_network(NOISE_MODEL, modality="image", device=device, precision=precision, backend=backend)[0]
