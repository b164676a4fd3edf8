"""Files of the signals that priors generate and take."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from denoise.cards import Card
from denoise.colour import luma
from denoise.dsp import resample, stft
from denoise.errors import ConfigError, InputError
from denoise.files.atomic import require_free
from denoise.files.audio import AUDIO_EXTENSIONS, read_audio, write_audio
from denoise.files.image import IMAGE_EXTENSIONS, read_displayed, write_image
from denoise.files.points import POINT_EXTENSIONS, read_points, write_points
from denoise.pipelines.point_clouds import normalise_points
from denoise.rendering import render_points
from denoise.sampling.inpainting import coarse_mask
from denoise.signals import Audio, AudioFormat, Image, ImageFormat

PAUSE_S = 0.25  # between the signals of one .wav
FADE_S = 0.005
GIF_MS = 60  # per frame
HOLD_MS = 1000  # of the samples of a trajectory
WINDOW_S = 0.032  # of spectrograms
INPUT_EXTENSIONS = {"audio": AUDIO_EXTENSIONS, "image": IMAGE_EXTENSIONS, "points": POINT_EXTENSIONS}
EXTENSIONS = {"audio": (".wav", ".png"), "image": (".png", ".gif"), "points": (".ply", ".xyz", ".png", ".gif")}
SPACING = 2.0  # of clouds that stand side by side
FLOOR_DB = -60.0  # relative to the maximum of a spectrogram; below it is black


def read_signal(
    path: str | Path, card: Card, point_std: float = 1.0, *, report: Callable[[str], None] | None = None
) -> Tensor:
    """Read a file of any size as a signal of a model's shape.

    Images are turned upright by their EXIF orientation, cropped at the centre to the model's proportions, resized, and
    converted to grey (luma of BT.601) or colour; transparent pixels are composited on black. Audio is mixed down to
    mono, resampled to the model's rate, and truncated or zero-padded at the end. Of points, a random subset is centred,
    scaled and sorted from top to bottom.

    Args:
        path: image, audio file or point cloud.
        card: card of the model.
        point_std: standard deviation of the coordinates of a cloud, as the model takes them.
        report: called with what an image or audio file loses, in words that do not depend on the file.

    Returns:
        Signal, (1, *card.shape).

    Raises:
        ConfigError: the model has no shape.
        InputError: the file cannot be read, or a cloud has too few points, or none that differ.
    """
    shape = _shape(card)
    if card.modality == "points":
        return _read_points(path, card, shape[-1], point_std)
    x, losses = _read_audio(path, card, shape[-1]) if card.modality == "audio" else _read_image(path, shape)
    if losses and report:
        report(f"{' and '.join(losses)}, as {card.name} takes them.")
    return x


def _read_audio(path: str | Path, card: Card, time: int) -> tuple[Tensor, list[str]]:
    """Return an audio file as a signal, and what it has lost."""
    audio = read_audio(Path(path))
    x = torch.from_numpy(audio.samples.mean(axis=0, keepdims=True).astype(np.float32))
    rate = card.sample_rate or audio.format.sample_rate
    x = resample(x, audio.format.sample_rate, rate)
    losses = [f"recordings are cut after {time / rate:.3g} s"] if x.shape[1] > time else []
    x = x[:, :time]
    return F.pad(x, (0, time - x.shape[1]))[None], losses


def _read_image(path: str | Path, shape: Sequence[int]) -> tuple[Tensor, list[str]]:
    """Return an image as a signal, and what it has lost."""
    x, losses = _read_pixels(path), []
    channels, *size = shape
    if len(x) > channels and bool((x != x[:1]).any()):
        losses.append("colours are left out")
    if [*x.shape[1:]] != size:
        losses.append(f"images are resized to {size[1]} x {size[0]} pixels")
    if len(x) != channels:
        x = (luma(x)[:1] if len(x) == 3 else x).expand(channels, -1, -1)
    x = _crop(x, shape)[None]
    if [*x.shape[2:]] != size:
        x = F.interpolate(x, size, mode="bicubic", antialias=True)
    return x.clamp(0, 1), losses


def _read_pixels(path: str | Path) -> Tensor:
    """Return the grey levels or colours of an image on black, (1 or 3, height, width), full scale 1.0."""
    image = read_displayed(Path(path)).as_float()
    x = torch.from_numpy(image.pixels).permute(2, 0, 1)
    if len(x) == 4:
        raise InputError(f"{path}: is in CMYK; expected grey or RGB. Convert it first.")
    return x if image.opacity is None else x * torch.from_numpy(image.opacity)


def _crop(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the centre of an image, (channels, height, width), of the proportions of a model's shape."""
    scale = min(n / side for n, side in zip(x.shape[1:], shape[1:], strict=True))
    crop = [max(1, min(n, round(side * scale))) for n, side in zip(x.shape[1:], shape[1:], strict=True)]
    top, left = ((n - side) // 2 for n, side in zip(x.shape[1:], crop, strict=True))
    return x[:, top : top + crop[0], left : left + crop[1]]


def _read_points(path: str | Path, card: Card, n: int, std: float) -> Tensor:
    points = read_points(path).points
    if len(points) < n:
        raise InputError(f"{path}: holds {len(points):,} points; prior {card.name} takes {n:,}. Give a denser cloud.")
    points = points[np.random.default_rng(0).permutation(len(points))[:n]]
    try:
        points = normalise_points(points[np.argsort(-points[:, 2], kind="stable")]).points
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return torch.from_numpy((std * points).astype(np.float32)).T[None].contiguous()


def write_signals(
    out: str | Path, signals: Tensor, card: Card, *, columns: int | None = None, overwrite: bool = False
) -> list[Path]:
    """Write signals into one picture (.png), animation (.gif), audio file (.wav) or cloud (.ply, .xyz), or a folder.

    A picture of audio shows spectrograms. The signals of a .wav are separated by pauses; those of a cloud stand side by
    side.

    Args:
        out: file or folder.
        signals: signals, (n, *card.shape).
        card: card of the model.
        columns: columns of the grid of a .png; by default about as many as rows.
        overwrite: whether files may be replaced.

    Returns:
        Paths of the files.

    Raises:
        ConfigError: the extension does not fit the signals.
        InputError: a file exists or cannot be written.
    """
    path, paths = Path(out), output_paths(out, len(signals), card, overwrite=overwrite)
    suffix = path.suffix.lower()
    if not suffix:
        for signal, target in zip(signals, paths, strict=True):
            write_signals(target, signal[None], card, columns=1, overwrite=overwrite)
        return paths
    if suffix in POINT_EXTENSIONS:
        write_points(path, _side_by_side(signals, columns).double().numpy(), overwrite=overwrite)
    elif suffix == ".wav":
        _write_wav(path, signals, card, overwrite)
    elif suffix == ".gif":
        _write_gif(path, as_images(signals, card), [GIF_MS] * len(signals), overwrite)
    else:
        images = as_images(signals, card)
        sheet = _to_image(make_grid(images, columns))
        write_image(path, [sheet], ImageFormat("PNG", _mode(images)), overwrite=overwrite)
    return paths


def output_paths(out: str | Path, n: int, card: Card, *, overwrite: bool = False) -> list[Path]:
    """Return the paths that `write_signals` will create, so that a problem is reported before the signals are computed.

    Args:
        out: file or folder.
        n: number of signals.
        card: card of the model.
        overwrite: whether files may be replaced.

    Raises:
        ConfigError: the extension does not fit the signals.
        InputError: a file exists.
    """
    path = Path(out)
    extensions = EXTENSIONS[card.modality]
    if path.suffix and path.suffix.lower() not in extensions:
        raise ConfigError(
            f"{out}: prior {card.name} generates {card.modality}; expected {' or '.join(extensions)}, or a folder."
        )
    digits = len(str(n - 1))
    paths = [path] if path.suffix else [path / f"{i:0{digits}d}{extensions[0]}" for i in range(n)]
    for target in paths:
        require_free(target, overwrite=overwrite)
    return paths


def trajectory_path(out: str | Path, *, overwrite: bool = False) -> Path:
    """Return the path that `write_trajectory` will write, so that a problem is reported before it is computed.

    Args:
        out: file.
        overwrite: whether it may be replaced.

    Raises:
        ConfigError: the extension is not .png or .gif.
        InputError: the file exists.
    """
    path = Path(out)
    if path.suffix.lower() not in (".png", ".gif"):
        raise ConfigError(f"{out}: a trajectory is a strip or an animation; expected .png or .gif.")
    require_free(path, overwrite=overwrite)
    return path


def write_trajectory(out: str | Path, trajectory: Tensor, card: Card, *, overwrite: bool = False) -> Path:
    """Write signals on the way to noise and back, audio as spectrograms.

    Args:
        out: file: a .png has a row for each signal, a .gif is an animation of all of them in a grid.
        trajectory: signals, (frames, n, *card.shape).
        card: card of the model.
        overwrite: whether the file may be replaced.

    Returns:
        Path of the file.

    Raises:
        ConfigError: the extension is not .png or .gif.
        InputError: the file exists or cannot be written.
    """
    path, frames = trajectory_path(out, overwrite=overwrite), len(trajectory)
    images = torch.stack([as_images(signals, card) for signals in trajectory])
    if path.suffix.lower() == ".gif":
        grids = torch.stack([make_grid(each) for each in images])
        _write_gif(path, grids, [HOLD_MS, *[GIF_MS] * (frames - 2), HOLD_MS], overwrite)
    else:
        rows = images.transpose(0, 1).flatten(0, 1)
        sheet = _to_image(make_grid(rows, frames))
        write_image(path, [sheet], ImageFormat("PNG", _mode(rows)), overwrite=overwrite)
    return path


def read_mask(path: str | Path, image: str | Path, card: Card) -> Tensor:
    """Read the mask of an image.

    Args:
        path: file of the mask, white where pixels are missing, of the same size as the image; each is turned upright by
            its own EXIF orientation. A pixel of a smaller model is missing where any part of it or of a neighbour is.
        image: file of the image.
        card: card of the model.

    Returns:
        1 where entries are observed, 0 where they are missing, (1, *card.shape).

    Raises:
        InputError: a file cannot be read, or the sizes differ.
    """
    sizes = [read_displayed(Path(file)).pixels.shape[:2] for file in (path, image)]
    if sizes[0] != sizes[1]:
        (h, w), (height, width) = sizes
        raise InputError(f"{path}: is {w} x {h} pixels, {image} {width} x {height}. Give a mask of the same size.")
    shape = _shape(card)
    is_observed = (_crop(_read_pixels(path), shape).mean(dim=0)[None, None] < 0.5).float()
    observed = coarse_mask(is_observed, tuple(shape[1:]))
    if observed.shape != is_observed.shape:  # the kernel that resizes the image mixes neighbours
        observed = 1 - F.max_pool2d(1 - observed, 3, 1, 1)
    return observed.expand(1, *shape).contiguous()


def half_mask(card: Card) -> Tensor:
    """Return a mask whose upper half (of images, points) or first half (of audio) is observed, (1, *card.shape)."""
    mask = torch.ones(1, *_shape(card), dtype=torch.float32, device="cpu")
    axis = -2 if card.modality == "image" else -1  # `read_signal` sorts points from top to bottom
    half = mask.shape[axis] // 2
    mask.narrow(axis, mask.shape[axis] - half, half).zero_()
    return mask


def as_images(signals: Tensor, card: Card) -> Tensor:
    """Return images as they are, points in a view, and audio as spectrograms in decibels, normalised to their maxima.

    Args:
        signals: signals, (n, *card.shape).
        card: card of the model.

    Returns:
        Images, (n, channels, height, width); of spectrograms with low frequencies at the bottom.
    """
    if card.modality == "image":
        return signals
    if card.modality == "points":
        return render_points(signals)
    n_fft = 1 << round(math.log2(WINDOW_S * (card.sample_rate or 16_000)))
    x = F.pad(signals.mean(dim=1), (0, -signals.shape[2] % (n_fft // 4)))
    power = stft(x, n_fft, n_fft // 4).abs().square().flip(1)[:, None]
    level_db = 10 * (power / power.amax(dim=(2, 3), keepdim=True).clamp_min(1e-12)).clamp_min(1e-12).log10()
    return (1 - level_db / FLOOR_DB).clamp(0, 1)


def make_grid(images: Tensor, columns: int | None = None, gap: int = 2) -> Tensor:
    """Arrange images in rows.

    Args:
        images: images, (n, channels, height, width).
        columns: number of columns; by default about as many as rows.
        gap: pixels of grey between the images.

    Returns:
        One image, (channels, height, width).
    """
    n, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = -(-n // columns)
    if n == 1:
        return images[0]
    sheet = images.new_full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 0.5)
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def draw_map(images: Tensor, coordinates: Tensor, size: int) -> Image:
    """Draw images as thumbnails at their coordinates, on white; later images cover earlier ones.

    Args:
        images: images, (n, channels, height, width).
        coordinates: positions from left to right and from bottom to top, (n, 2), 0 to 1.
        size: side of the map in pixels.

    Returns:
        Map of (size, size, 3) pixels.
    """
    longest = max(images.shape[2:])
    side = max(8, min(longest, size // 12))  # of the longer edge of a thumbnail
    shape = [max(1, round(n * side / longest)) for n in images.shape[2:]]
    thumbnails = F.interpolate(images, shape, mode="bicubic", antialias=True) if side != longest else images
    sheet = images.new_ones(3, size, size)
    free = [size - n for n in shape]
    for thumbnail, (across, up) in zip(thumbnails, coordinates.tolist(), strict=True):
        top, left = round((1 - up) * free[0]), round(across * free[1])
        sheet[:, top : top + shape[0], left : left + shape[1]] = thumbnail
    return _to_image(sheet)


def _side_by_side(signals: Tensor, columns: int | None) -> Tensor:
    """Join clouds, (n, 3, points), into one, (n * points, 3), in rows along x and y."""
    columns = columns or math.ceil(math.sqrt(len(signals)))
    cells = signals.new_tensor([(i % columns, -(i // columns), 0) for i in range(len(signals))])
    return (signals + SPACING * cells[:, :, None]).transpose(1, 2).flatten(0, 1)


def _write_wav(path: Path, signals: Tensor, card: Card, overwrite: bool) -> None:
    rate = card.sample_rate or 16_000
    pause = signals.new_zeros(signals.shape[1], round(PAUSE_S * rate))
    n = max(1, min(round(FADE_S * rate), signals.shape[2] // 2))
    ramp = torch.linspace(0, 1, n, dtype=signals.dtype, device=signals.device)
    faded = signals.clone()
    faded[..., :n] *= ramp
    faded[..., -n:] *= ramp.flip(0)
    pieces = [piece for signal in faded for piece in (signal, pause)][:-1]
    joined = torch.cat(pieces, dim=1)
    joined = joined / joined.abs().max().clamp_min(1.0)  # never clipped
    write_audio(path, Audio(joined.numpy(), AudioFormat(rate, len(joined), "WAV", "PCM_16")), overwrite=overwrite)


def _write_gif(path: Path, images: Tensor, durations_ms: Sequence[int], overwrite: bool) -> None:
    """Write an animation of images, (frames, channels, height, width), without end."""
    info = {"frames": [{"duration": duration} for duration in durations_ms], "loop": 0}
    write_image(path, [*map(_to_image, images)], ImageFormat("GIF", _mode(images), info=info), overwrite=overwrite)


def _to_image(x: Tensor) -> Image:
    """Convert (channels, height, width) in [0, 1] to 8 bits."""
    pixels = np.rint(x.float().clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    return Image(np.ascontiguousarray(pixels))


def _mode(images: Tensor) -> str:
    return "L" if images.shape[1] == 1 else "RGB"


def _shape(card: Card) -> tuple[int, ...]:
    if card.shape is None:
        raise ConfigError(f"model {card.name} has no shape; expected a codec or a prior.")
    return card.shape
