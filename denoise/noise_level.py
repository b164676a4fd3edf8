"""How much white noise is in a picture: a sigma for the models that take one, and for the report."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

PATCHES = 40_000
CALMEST = 0.05  # share of the patches that is listened to
FINE = 0.75  # share of the components in which calm patches hold noise alone
COARSE = 0.58  # detail of the colours between pixels by that between squares of them: with less, no white noise
LIGHT = (0.299, 0.587, 0.114)  # Rec. 601
GREY = 0.9  # share of the patches without colour by which a picture is grey, whatever is stamped on it
COLOURS = (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081)
CLIPPED = 1e-4  # share of pixels at black or white that tells of clipping


def estimate_sigma(x: Tensor, full_scale: float = 1.0, seen: Tensor | None = None) -> float:
    """Estimate the standard deviation of white noise in an image, also where black and white clip it.

    Patches that are black or white all over tell nothing, nor do those with pixels that are not ``seen``.

    Where colours were kept at half the resolution, as JPEG does, or pictures are grey, only the light tells; what is
    found is then the white noise that left as much in the light.

    Patches are turned into their principal components. Noise is in all of them alike and scenes in few,
    so that the weakest ones of the patches that are calmest in the others hold noise alone; the largest
    set of them whose mean is its median is taken.

    Shape:
        x: (channels, height, width); seen: (height, width), bool; returns the units of x, 0 for pictures too
            small to tell.
    Reference:
        An Efficient Statistical Method for Image Noise Level Estimation, Chen et al., 2015 (the set);
        Single-Image Noise Level Estimation for Blind Denoising, Liu et al., 2013 (calm patches).
    """
    light = len(x) == 3 and min(x.shape[1:]) > 3 and _colours_are_coarse(_patches(x, 4, seen))
    channels = 1 if light else len(x)
    side = 5 if channels > 1 else 7  # channels are alike, and tell noise from scene as more pixels do
    while side > 1 and math.prod(max(0, n - side + 1) for n in x.shape[1:]) < 4 * channels * side**2:
        side -= 1
    if side < 2:
        return 0.0
    enough = 2 * channels * side**2
    patches = _patches(x, side, seen) / full_scale
    bounded = bool(patches.min() >= 0 and patches.max() <= 1) if len(patches) else True
    # in a channel: there the noise is clipped away
    lost = ((patches <= 0) | (patches >= 1)).all(dim=2) & bounded
    if light:
        grey = (patches == patches[:, :1]).flatten(1).all(dim=1).float().mean() > GREY
        full_scale /= 1.0 if grey else math.hypot(*LIGHT)  # of white noise, the light has less than each colour
        patches = torch.einsum("ncp,c->np", patches, patches.new_tensor(LIGHT))[:, None]
        lost = lost.all(dim=1, keepdim=True)
    patches = patches[~lost.any(dim=1)] if (~lost.any(dim=1)).sum() >= enough else patches[~lost.all(dim=1)]
    if len(patches) < enough:
        return 0.0
    means = patches.mean(dim=2)
    sigma = _spread(patches)
    if bounded and ((patches <= 0) | (patches >= 1)).float().mean() > CLIPPED:
        distance = torch.minimum(means, 1 - means).amin(dim=1)  # to black and white
        for _ in range(10):
            inner = distance >= min(2.5 * sigma, float(distance.quantile(0.6)))
            kept = clipped_variance(means[inner].clamp(0, 1), sigma + 1e-4).mean()
            last, sigma = sigma, _spread(patches[inner]) / float(kept.clamp_min(0.05)) ** 0.5
            if abs(last - sigma) <= 0.002 * sigma:
                break
    return sigma * full_scale


def _colours_are_coarse(patches: Tensor) -> bool:
    """Whether the colours differ far less between pixels than between squares of four. Shape: (patches, 3, 16)."""
    if not len(patches):
        return False
    pixels = patches.unflatten(2, (4, 4))
    fine, wide = (_diagonal(x) for x in (pixels[..., :2, :2] / 2, F.avg_pool2d(pixels, 2)))  # of white noise, alike
    least = 1e-6 * patches.abs().max()  # grey has colours by rounding alone
    colours = patches.new_tensor(COLOURS)
    return all((fine @ w).abs().median() <= COARSE * (wide @ w).abs().median() + least for w in colours)


def _diagonal(x: Tensor) -> Tensor:
    """The finest detail of squares of two by two."""
    return x[..., 0, 0] - x[..., 0, 1] - x[..., 1, 0] + x[..., 1, 1]


def clipped_variance(mean: Tensor, sigma: float) -> Tensor:
    """The share of its variance that Gaussian noise keeps when it is clipped to [0, 1]. Shape: mean any, kept."""
    normal = torch.distributions.Normal(0.0, 1.0)
    a, b = -mean / sigma, (1 - mean) / sigma
    at_a, at_b = normal.log_prob(a).exp(), normal.log_prob(b).exp()
    inside, white = normal.cdf(b) - normal.cdf(a), 1 - normal.cdf(b)
    first = mean * inside + sigma * (at_a - at_b) + white
    second = (mean**2 + sigma**2) * inside + 2 * mean * sigma * (at_a - at_b) + sigma**2 * (a * at_a - b * at_b) + white
    return (second - first**2) / sigma**2


def _patches(x: Tensor, side: int, seen: Tensor | None) -> Tensor:
    """Patches of all places, or of so many drawn ones. Shape: (patches, channels, side * side), float32."""
    rows, columns = (n - side + 1 for n in x.shape[1:])
    at = torch.arange(rows * columns)
    if len(at) > PATCHES:
        at = torch.randint(len(at), (PATCHES,), generator=torch.Generator().manual_seed(0))
    if seen is not None:
        whole = seen.unfold(0, side, 1).unfold(1, side, 1)[at // columns, at % columns]
        at = at[whole.flatten(1).all(dim=1)]
    windows = x.unfold(1, side, 1).unfold(2, side, 1)
    return windows[:, at // columns, at % columns].transpose(0, 1).flatten(2).float()


def _spread(patches: Tensor) -> float:
    """The standard deviation of what is noise in them. Shape: (patches, channels, pixels)."""
    flat = patches.flatten(1)
    flat = flat - flat.mean(dim=0)
    _, components = torch.linalg.eigh((flat.T @ flat).double() / len(flat))  # the weakest first
    energies = (flat @ components.float()).square()
    fine = round(FINE * energies.shape[1])
    light = energies.shape[1] - patches.shape[1]  # the strongest are the light and the colour of a patch
    calm = energies[:, fine:light].sum(dim=1).argsort()[: max(500, round(CALMEST * len(flat)))]
    levels = energies[calm, :fine].double().mean(dim=0).sort().values
    for n in range(fine, 1, -1):
        mean = levels[:n].mean()
        if (levels[:n] > mean).sum() >= (levels[:n] < mean).sum():
            return math.sqrt(mean)
    return math.sqrt(levels[0])
