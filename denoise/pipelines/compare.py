"""What was done to a file: the part that was taken away, and pictures of before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from os.path import exists, isdir  # unlike those of Path they answer for any name, even one that is too long
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from denoise.errors import ConfigError, InputError
from denoise.files.atomic import atomic_file
from denoise.files.audio import AudioReader, AudioWriter
from denoise.files.image import ImageReader, apply_orientation, write_image
from denoise.files.image.panel import Column, draw_panel
from denoise.pipelines.batch import STREAM, plan
from denoise.signals import AudioFormat, Image, ImageFormat

SHOWN_S = 60.0  # a longer recording would be a smear
FLOOR_DB = -90.0

WIDTH, HEIGHT = 480, 720  # of the largest whole picture that is shown, in pixels
PART = 160  # side of the part that is shown enlarged; a smaller picture is its own part
CELL = 20  # the part is looked for in steps of this many pixels
BACKDROP = 0.8  # behind transparent pixels: light enough for black lines, dark enough for white ones
MAX_FACTOR = 32
CLIPPED = 0.01  # of what was removed may be too strong to be shown


def check_extras(
    extras: Mapping[str, str | None],
    inputs: Sequence[str],
    out: str | None,
    extensions: Iterable[str],
    *,
    overwrite: bool = False,
) -> None:
    """Refuse, before any work, what is to be written beside the one output and could not be.

    ``extras`` are names of files by option (``--compare``, ``--removed``), None for one that was not given;
    the others are as for `denoise.pipelines.batch.plan`.

    Raises:
        ConfigError: not one input file and one output file, a name that is taken, a comparison that is no PNG.
    """
    given = {option: name for option, name in extras.items() if name}
    if not given:
        return
    options = " and ".join(given)
    if len(inputs) != 1 or inputs[0] == STREAM or out == STREAM or isdir(inputs[0]):
        look = "look" if len(given) > 1 else "looks"
        raise ConfigError(f"{options} {look} at one file: give one, neither a folder nor -.")
    ((source, target),) = plan(inputs, out, extensions, overwrite=overwrite)
    taken = {Path(source).resolve(), Path(target).resolve()}
    if len(taken) == 1:
        raise ConfigError(f"{target}: would replace the input, which {options} must still see. Give another -o.")
    for option, name in given.items():
        if option == "--compare":
            _require_png(name)
            if "--removed" in extras:  # of sounds
                _require_spectrograms()
        if (place := Path(name).resolve()) in taken:
            raise ConfigError(f"{name}: is another file of this run already. Give {option} a name of its own.")
        taken.add(place)
        if exists(name) and not overwrite:
            raise ConfigError(f"{name}: exists already. Give --overwrite to replace it.")


def write_removed(before: str | Path, after: str | Path, target: str | Path, *, overwrite: bool = False) -> None:
    """Write the difference of two recordings of one length, block by block; a lossy format's own changes are in it.

    Raises:
        InputError: a file cannot be read or written, or ``target`` exists.
    """
    with AudioReader(before) as reader:
        format = reader.format
    kind = "DOUBLE" if format.subtype == "DOUBLE" else "FLOAT" if Path(target).suffix.lower() == ".wav" else "PCM_24"
    with AudioWriter(target, AudioFormat(format.sample_rate, format.channels, "WAV", kind), overwrite=overwrite) as out:
        for x, y in _pairs(before, after):
            out.write(x - y)


def compare_audio(before: str | Path, after: str | Path, target: str | Path, *, overwrite: bool = False) -> None:
    """Draw the spectrograms of the first minute before, after and of what was removed, on one scale.

    Channels are averaged in power. Needs librosa and matplotlib.

    Raises:
        ConfigError: the extra is not installed, or the target is no PNG.
        InputError: a file cannot be read or written, or ``target`` exists.
    """
    _require_spectrograms()
    import librosa.display
    from matplotlib.figure import Figure

    _require_png(target)
    with AudioReader(before) as reader:
        rate = reader.format.sample_rate
    x, y = (np.concatenate(parts, axis=1) for parts in zip(*_pairs(before, after, SHOWN_S), strict=True))
    n_fft = 2 ** round(np.log2(0.04 * rate))
    powers = [np.mean(np.abs(librosa.stft(z, n_fft=n_fft)) ** 2, axis=0) for z in (x, y, x - y)]
    top = 10 * np.log10(max(powers[0].max(), 1e-12))
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    for axis, power, title in zip(axes, powers, ("before", "after", "removed"), strict=True):
        decibels = np.maximum(10 * np.log10(np.maximum(power, 1e-20)) - top, FLOOR_DB)
        drawn = librosa.display.specshow(
            decibels, sr=rate, hop_length=n_fft // 4, x_axis="time", y_axis="linear", ax=axis, vmin=FLOOR_DB, vmax=0
        )
        axis.set(title=title, xlabel="seconds" if title == "removed" else "", ylabel="Hz")
    figure.colorbar(drawn, ax=axes, format="%+.0f dB")
    with atomic_file(Path(target), overwrite=overwrite) as place:
        figure.savefig(place, dpi=110, format="png")


def compare_image(
    before: str | Path, after: str | Path, target: str | Path, *, overwrite: bool = False, max_megapixels: float = 200
) -> None:
    """Draw the first frame before, after and what was removed of it, with a part of each enlarged beneath.

    The part is where ``after`` has sharp edges beside calm areas (see `find_part`); it is cut at full
    resolution, while a large whole is averaged down. What was removed stands around middle grey, times
    the largest power of two, up to 32, at which no more than 1 % of the part is clipped. Both pictures are
    turned upright as the EXIF of ``before`` says, and shown in its RGB profile; transparent pixels lie on
    light grey.

    Shape:
        the picture: three columns of 480 pixels; a whole in at most 480 x 720 of them; a part of at most 160 x 160
        pixels of the file, enlarged by a whole number.

    Raises:
        ConfigError: the target is no PNG.
        InputError: a file cannot be read or written, is above ``max_megapixels``, the two differ in size, or
            ``target`` exists.
    """
    _require_png(target)
    with (
        ImageReader(before, max_megapixels=max_megapixels) as noisy,
        ImageReader(after, max_megapixels=max_megapixels) as clean,
    ):
        if noisy.size != clean.size:
            came, expected = ("{} x {}".format(*reader.size) for reader in (clean, noisy))
            raise InputError(f"{after}: is {came} pixels; expected {expected} as {before}. Give two of one size.")
        # One after the other: two large pictures at once would need twice the memory.
        image = apply_orientation(next(iter(clean)), noisy.format)
        height, width = image.pixels.shape[:2]
        scale = min(WIDTH / width, HEIGHT / height)
        scale = scale if scale < 1 else int(scale)
        rows, columns = find_part(image)
        clean_views = _whole(image, scale), _light(image, rows, columns)
        del image
        image = apply_orientation(next(iter(noisy)), noisy.format)
        noisy_views = _whole(image, scale), _light(image, rows, columns)
        del image
        profile = noisy.format.info.get("icc_profile", b"")
    removed = [x - y for x, y in zip(noisy_views, clean_views, strict=True)]
    factor = _factor(removed[1])
    shown = {"before": noisy_views, "after": clean_views, f"removed x{factor}": [0.5 + factor * d for d in removed]}
    tall, wide = rows.stop - rows.start, columns.stop - columns.start
    enlarged = WIDTH // max(tall, wide)
    sheet = draw_panel(
        [Column(title, _bytes(whole), _enlarge(_bytes(part), enlarged)) for title, (whole, part) in shown.items()],
        WIDTH,
        box=(columns.start * scale, rows.start * scale, columns.stop * scale, rows.stop * scale),
        caption=f"Framed and enlarged x{enlarged}: {wide} x {tall} pixels "
        f"at {columns.start}, {rows.start} of {width} x {height}.",
    )
    info = {"icc_profile": profile} if profile[16:20] == b"RGB " else {}  # one of inks or greys would not fit
    write_image(target, [sheet], ImageFormat("PNG", "RGB", 8, info), overwrite=overwrite)


def find_part(image: Image) -> tuple[slice, slice]:
    """Rows and columns of the part of at most 160 x 160 pixels with the most structure to look at.

    It is the one in which the gradient of the light varies most: of sharp edges beside calm areas, where
    both blur and noise that was left are seen. Foliage has more edges, and hides both. The upper left one
    of equals; looked for in steps of 20 pixels along a side of more than 160.
    """
    height, width = image.pixels.shape[:2]
    dy, dx = (CELL if side > PART else side for side in (height, width))
    sums = []
    for top in range(0, height - dy + 1, dy):
        light = _light(image, slice(top, min(top + dy + 1, height)), slice(None)).mean(axis=2)
        gradient = np.zeros((dy, width), np.float32)
        gradient[:, :-1] = np.abs(np.diff(light[:dy], axis=1))
        gradient[: len(light) - 1] += np.abs(np.diff(light, axis=0))
        cells = gradient[:, : width // dx * dx].reshape(dy, -1, dx)
        sums.append([np.mean(cells**power, axis=(0, 2), dtype=np.float64) for power in (1, 2)])
    size = (PART // CELL if height > PART else 1, PART // CELL if width > PART else 1)
    means = sliding_window_view(np.array(sums), size, axis=(0, 2)).mean(axis=(-2, -1))
    variances = means[:, 1] - means[:, 0] ** 2
    y, x = (int(i) for i in np.unravel_index(np.argmax(variances), variances.shape))
    return slice(y * dy, y * dy + min(PART, height)), slice(x * dx, x * dx + min(PART, width))


def _light(image: Image, rows: slice, columns: slice) -> NDArray[np.float32]:
    """A part of an image as it is seen: without inks and alpha, full scale 1.0. Shape: (height, width, 1 or 3)."""
    x = image.pixels[rows, columns].astype(np.float32) / np.float32(image.full_scale)
    if x.shape[2] == 4:
        x = (1 - x[..., :3]) * (1 - x[..., 3:])
    if image.alpha is not None:
        x = BACKDROP + (x - BACKDROP) * (image.alpha[rows, columns, None] / np.float32(image.full_scale))
    return x


def _whole(image: Image, scale: float) -> NDArray[np.float32]:
    """The image enlarged by a whole number, or averaged down. Shape: (height, width, 1 or 3)."""
    if scale >= 1:
        return _enlarge(_light(image, slice(None), slice(None)), int(scale))
    height, width = image.pixels.shape[:2]
    tall = _average(lambda rows: _light(image, rows, slice(None)), height, scale).swapaxes(0, 1)
    return _average(lambda rows: tall[rows], width, scale).swapaxes(0, 1)


def _average(read: Callable[[slice], NDArray[np.float32]], n: int, scale: float) -> NDArray[np.float32]:
    """``n`` rows, read a few at a time, averaged over areas down to ``scale`` times as many, at least one."""
    out = []
    for start, stop in pairwise(np.linspace(0, n, max(1, round(n * scale)) + 1)):
        first, last = int(start), min(n, int(np.ceil(stop)))
        index = np.arange(first, last)
        share = np.minimum(index + 1, stop) - np.maximum(index, start)  # of each row that lies in the area
        out.append(np.tensordot((share / share.sum()).astype(np.float32), read(slice(first, last)), axes=1))
    return np.stack(out)


def _factor(removed: NDArray[np.float32]) -> int:
    """The power of two that makes what was removed well seen around middle grey."""
    reach = max(float(np.quantile(np.abs(removed), 1 - CLIPPED)), 0.5 / MAX_FACTOR)
    return max(1, 2 ** int(np.log2(0.5 / reach)))


def _enlarge(x: NDArray[Any], times: int) -> NDArray[Any]:
    return x.repeat(times, axis=0).repeat(times, axis=1)


def _bytes(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Light as bytes of RGB."""
    return np.broadcast_to(np.rint(x * 255).clip(0, 255).astype(np.uint8), (*x.shape[:2], 3))


def _require_png(target: str | Path) -> None:
    if Path(target).suffix.lower() != ".png":
        raise ConfigError(f"{target}: a comparison is drawn as .png; choose such a name.")


def _require_spectrograms() -> None:
    for name in ("librosa", "matplotlib"):
        if find_spec(name) is None:
            raise ConfigError(f'{name} is missing. In the source: pip install ".[compare]".')


def _pairs(
    before: str | Path, after: str | Path, seconds: float | None = None
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The same samples of two recordings, second by second. Shape: (channels, time) each."""
    with AudioReader(before) as a, AudioReader(after) as b:
        if (a.format.sample_rate, a.format.channels) != (b.format.sample_rate, b.format.channels):
            raise InputError(f"{after}: differs from {before} in sample rate or channels; nothing to compare.")
        rate = a.format.sample_rate
        while seconds is None or seconds > 0:
            x, y = a.read(rate), b.read(rate)
            n = min(x.shape[1], y.shape[1])
            if not n:
                return
            yield x[:, :n], y[:, :n]
            seconds = None if seconds is None else seconds - 1
