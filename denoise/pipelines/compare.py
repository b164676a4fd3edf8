"""Comparison of input and output: the removed signal as a file, and images of input, output and difference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from os.path import isdir  # unlike that of Path it accepts any name, even one that is too long
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from denoise.errors import ConfigError, InputError
from denoise.files.atomic import atomic_file, is_pipe_or_device, require_free
from denoise.files.audio import AudioReader, AudioWriter
from denoise.files.image import ImageReader, apply_orientation, write_image
from denoise.files.image.panel import Column, draw_panel
from denoise.options import MAX_MEGAPIXELS
from denoise.pipelines.batch import STREAM, plan
from denoise.signals import AudioFormat, Image, ImageFormat

SHOWN_S = 60.0  # a spectrogram of more has no detail
FLOOR_DB = -90.0

WIDTH, HEIGHT = 480, 720  # maximum size of an overview in pixels
CROP = 160  # side of the crop that is enlarged; a smaller image is shown whole
CELL = 20  # step of the search for the crop in pixels
BAND = 256  # rows that are converted at a time
BACKDROP = 0.8  # behind transparent pixels: light enough for black lines, dark enough for white ones
MAX_GAIN = 32  # of the difference
CLIPPED_FRACTION = 0.01  # of the difference may exceed the range that is shown


class Views(NamedTuple):
    """An image as it is shown.

    Args:
        overview: the whole image, at most `WIDTH` x `HEIGHT`, (height, width, 1 or 3), full scale 1.0.
        crop: a section at full resolution, at most `CROP` x `CROP`.
    """

    overview: NDArray[np.float32]
    crop: NDArray[np.float32]


def check_extras(
    extras: Mapping[str, str | None],
    inputs: Sequence[str],
    out: str | None,
    extensions: Iterable[str],
    *,
    overwrite: bool = False,
) -> None:
    """Refuse, before any work, additional outputs that could not be written.

    Args:
        extras: paths of additional outputs by option (``--compare``, ``--removed``); None if the option is not given.
        inputs: as for `denoise.pipelines.batch.plan`.
        out: as for `denoise.pipelines.batch.plan`.
        extensions: as for `denoise.pipelines.batch.plan`.
        overwrite: whether existing files are replaced.

    Raises:
        ConfigError: there are several inputs or outputs, a path is taken, or a comparison is no PNG.
        InputError: a file exists.
    """
    paths = {option: path for option, path in extras.items() if path}
    if not paths:
        return
    options = " and ".join(paths)
    if len(inputs) != 1 or inputs[0] == STREAM or out == STREAM or isdir(inputs[0]):
        verb = "need" if len(paths) > 1 else "needs"
        raise ConfigError(f"{options} {verb} a single input file and output file, neither a folder nor -.")
    ((source, target),) = plan(inputs, out, extensions, overwrite=overwrite)
    taken = {Path(source).resolve(), Path(target).resolve()}
    if is_pipe_or_device(Path(source)) or is_pipe_or_device(Path(target)):
        raise ConfigError(f"{options} must read {source} and {target} again, which pipes cannot. Give files.")
    if len(taken) == 1:
        raise ConfigError(f"{target}: would replace the input, which {options} must still read. Give another -o.")
    for option, path in paths.items():
        if option == "--compare":
            _require_png(path)
            if "--removed" in extras:  # an option of audio
                _require_spectrograms()
        if Path(path).resolve() in taken:
            raise ConfigError(f"{path}: is another file of this run already. Give {option} a name of its own.")
        taken.add(Path(path).resolve())
        require_free(path, overwrite=overwrite)


def write_removed(noisy: str | Path, denoised: str | Path, target: str | Path, *, overwrite: bool = False) -> None:
    """Write the difference of two recordings as WAV, block by block; that of a lossy format includes its losses.

    Args:
        noisy: path of the input.
        denoised: path of the output, of the same length.
        target: path of the difference.
        overwrite: whether an existing target is replaced.

    Raises:
        InputError: a file cannot be read or written, or ``target`` exists.
    """
    with AudioReader(noisy) as reader:
        format = reader.format
    if format.subtype == "DOUBLE":
        subtype = "DOUBLE"
    else:
        subtype = "FLOAT" if Path(target).suffix.lower() == ".wav" else "PCM_24"
    removed_format = AudioFormat(format.sample_rate, format.channels, "WAV", subtype)
    with AudioWriter(target, removed_format, overwrite=overwrite) as writer:
        for x, y in _read_pairs(noisy, denoised):
            writer.write(x - y)


def compare_audio(noisy: str | Path, denoised: str | Path, target: str | Path, *, overwrite: bool = False) -> None:
    """Draw spectrograms of the first minute of input, output and difference, on one scale.

    The powers of the channels are averaged. Needs librosa and matplotlib.

    Args:
        noisy: path of the input.
        denoised: path of the output.
        target: path of the PNG.
        overwrite: whether an existing target is replaced.

    Raises:
        ConfigError: the extra is not installed, or the target is no PNG.
        InputError: a file cannot be read or written, or ``target`` exists.
    """
    _require_spectrograms()
    import librosa.display
    from matplotlib.figure import Figure

    _require_png(target)
    with AudioReader(noisy) as reader:
        sample_rate = reader.format.sample_rate
    pairs = _read_pairs(noisy, denoised, SHOWN_S)
    x, y = (np.concatenate(blocks, axis=1) for blocks in zip(*pairs, strict=True))
    n_fft = 2 ** round(np.log2(0.04 * sample_rate))
    powers = [np.mean(np.abs(librosa.stft(z, n_fft=n_fft)) ** 2, axis=0) for z in (x, y, x - y)]
    max_db = 10 * np.log10(max(powers[0].max(), 1e-12))
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    for axis, power, title in zip(axes, powers, ("before", "after", "removed"), strict=True):
        level_db = np.maximum(10 * np.log10(np.maximum(power, 1e-20)) - max_db, FLOOR_DB)
        mesh = librosa.display.specshow(
            level_db,
            sr=sample_rate,
            hop_length=n_fft // 4,
            x_axis="time",
            y_axis="linear",
            ax=axis,
            vmin=FLOOR_DB,
            vmax=0,
        )
        axis.set(title=title, xlabel="seconds" if title == "removed" else "", ylabel="Hz")
    figure.colorbar(mesh, ax=axes, format="%+.0f dB")
    with atomic_file(Path(target), overwrite=overwrite) as path:
        figure.savefig(path, dpi=110, format="png")


def compare_image(
    noisy: str | Path,
    denoised: str | Path,
    target: str | Path,
    *,
    overwrite: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> None:
    """Draw the first frame of input, output and difference, each with an enlarged crop.

    The crop is where the output has sharp edges beside smooth areas (see `find_crop`); it is shown at full resolution,
    while the overview of a large image is averaged down. The difference is shown around middle grey, amplified by the
    largest power of two, up to 32, at which no more than 1 % of the crop is clipped. Both images are oriented by the
    EXIF of the input, and shown in its RGB profile; transparent pixels are on light grey.

    The PNG has three columns of 480 pixels: an overview of at most 480 x 720 pixels, and a crop of at most 160 x 160
    pixels of the file, enlarged by an integer factor.

    Args:
        noisy: path of the input.
        denoised: path of the output, of the same size.
        target: path of the PNG.
        overwrite: whether an existing target is replaced.
        max_megapixels: size up to which images are read.

    Raises:
        ConfigError: the target is no PNG.
        InputError: a file cannot be read or written, is above ``max_megapixels``, the two differ in size, or
            ``target`` exists.
    """
    _require_png(target)
    with (
        ImageReader(noisy, max_megapixels=max_megapixels) as noisy_reader,
        ImageReader(denoised, max_megapixels=max_megapixels) as denoised_reader,
    ):
        if noisy_reader.size != denoised_reader.size:
            size, expected = ("{} x {}".format(*reader.size) for reader in (denoised_reader, noisy_reader))
            raise InputError(f"{denoised}: is {size} pixels; expected {expected} as {noisy}. Give two of one size.")
        # One after the other: two large images at once would need twice the memory.
        image = apply_orientation(next(iter(denoised_reader)), noisy_reader.format)
        height, width = image.pixels.shape[:2]
        scale = min(WIDTH / width, HEIGHT / height)
        scale = scale if scale < 1 else int(scale)
        rows, columns = find_crop(image)
        denoised_views = Views(_overview(image, scale), _visible_rgb(image, rows, columns))
        del image
        image = apply_orientation(next(iter(noisy_reader)), noisy_reader.format)
        noisy_views = Views(_overview(image, scale), _visible_rgb(image, rows, columns))
        del image
        info = _rgb_profile(noisy_reader.format)
    removed = Views(noisy_views.overview - denoised_views.overview, noisy_views.crop - denoised_views.crop)
    gain = _difference_gain(removed.crop)
    shown = Views(0.5 + gain * removed.overview, 0.5 + gain * removed.crop)
    crop_height, crop_width = rows.stop - rows.start, columns.stop - columns.start
    factor = WIDTH // max(crop_height, crop_width)
    sheet = draw_panel(
        [
            Column(title, _to_uint8_rgb(views.overview), _enlarge(_to_uint8_rgb(views.crop), factor))
            for title, views in (("before", noisy_views), ("after", denoised_views), (f"removed x{gain}", shown))
        ],
        WIDTH,
        box=(columns.start * scale, rows.start * scale, columns.stop * scale, rows.stop * scale),
        caption=f"Framed and enlarged x{factor}: {crop_width} x {crop_height} pixels "
        f"at {columns.start}, {rows.start} of {width} x {height}.",
    )
    write_image(target, [sheet], ImageFormat("PNG", "RGB", 8, info), overwrite=overwrite)


def write_visible(
    source: str | Path, target: str | Path, *, overwrite: bool = False, max_megapixels: float = MAX_MEGAPIXELS
) -> None:
    """Write the first frame of an image as it is seen, as a PNG of 8 bits that every viewer shows.

    It is oriented by its EXIF, and has its RGB profile; transparent pixels are on light grey.

    Args:
        source: path of the image.
        target: path of the PNG.
        overwrite: whether an existing target is replaced.
        max_megapixels: size up to which images are read.

    Raises:
        ConfigError: the target is no PNG.
        InputError: the file cannot be read or is above ``max_megapixels``, or ``target`` exists.
    """
    _require_png(target)
    with ImageReader(source, max_megapixels=max_megapixels) as reader:
        image = apply_orientation(next(iter(reader)), reader.format)
        info = _rgb_profile(reader.format)
    height, width = image.pixels.shape[:2]
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, BAND):  # of a large image, only a band is in memory as floats
        rows = slice(top, top + BAND)
        pixels[rows] = _to_uint8_rgb(_visible_rgb(image, rows, slice(None)))
    write_image(target, [Image(pixels)], ImageFormat("PNG", "RGB", 8, info), overwrite=overwrite)


def find_crop(image: Image) -> tuple[slice, slice]:
    """Find the crop of at most 160 x 160 pixels in which the gradient varies most.

    Such a crop has sharp edges beside smooth areas, where both blur and residual noise are visible. Foliage has more
    edges, and masks both. The search has steps of 20 pixels along a side of more than 160.

    Args:
        image: any frame.

    Returns:
        Rows and columns of the crop; of several equal ones, those of the upper left.
    """
    height, width = image.pixels.shape[:2]
    dy, dx = (CELL if side > CROP else side for side in (height, width))
    moments = []
    for top in range(0, height - dy + 1, dy):
        luma = _visible_rgb(image, slice(top, min(top + dy + 1, height)), slice(None)).mean(axis=2)
        gradient = np.zeros((dy, width), np.float32)
        gradient[:, :-1] = np.abs(np.diff(luma[:dy], axis=1))
        gradient[: len(luma) - 1] += np.abs(np.diff(luma, axis=0))
        cells = gradient[:, : width // dx * dx].reshape(dy, -1, dx)
        moments.append([np.mean(cells**power, axis=(0, 2), dtype=np.float64) for power in (1, 2)])
    n_cells = (CROP // CELL if height > CROP else 1, CROP // CELL if width > CROP else 1)
    means = sliding_window_view(np.array(moments), n_cells, axis=(0, 2)).mean(axis=(-2, -1))
    variances = means[:, 1] - means[:, 0] ** 2
    y, x = (int(i) for i in np.unravel_index(np.argmax(variances), variances.shape))
    return slice(y * dy, y * dy + min(CROP, height)), slice(x * dx, x * dx + min(CROP, width))


def _visible_rgb(image: Image, rows: slice, columns: slice) -> NDArray[np.float32]:
    """A section of an image without inks and alpha, (height, width, 1 or 3), full scale 1.0."""
    x = image.pixels[rows, columns].astype(np.float32) / np.float32(image.full_scale)
    if x.shape[2] == 4:
        x = (1 - x[..., :3]) * (1 - x[..., 3:])
    if image.opacity is not None:
        x = BACKDROP + (x - BACKDROP) * (image.opacity[rows, columns, None] / np.float32(image.full_scale))
    return x


def _rgb_profile(format: ImageFormat) -> dict[str, bytes]:
    """The profile of an image as the info of one in RGB: that of CMYK or grey does not fit."""
    profile = format.info.get("icc_profile", b"")
    return {"icc_profile": profile} if profile[16:20] == b"RGB " else {}


def _overview(image: Image, scale: float) -> NDArray[np.float32]:
    """The image enlarged by an integer factor, or averaged down, (height, width, 1 or 3)."""
    if scale >= 1:
        return _enlarge(_visible_rgb(image, slice(None), slice(None)), int(scale))
    height, width = image.pixels.shape[:2]
    columns = _average(lambda rows: _visible_rgb(image, rows, slice(None)), height, scale).swapaxes(0, 1)
    return _average(lambda rows: columns[rows], width, scale).swapaxes(0, 1)


def _average(read: Callable[[slice], NDArray[np.float32]], n: int, scale: float) -> NDArray[np.float32]:
    """``n`` rows, read a few at a time, averaged over areas down to ``scale`` times as many, at least one."""
    averages = []
    for start, stop in pairwise(np.linspace(0, n, max(1, round(n * scale)) + 1)):
        first, last = int(start), min(n, int(np.ceil(stop)))
        index = np.arange(first, last)
        fraction = np.minimum(index + 1, stop) - np.maximum(index, start)  # of each row in the area
        weights = (fraction / fraction.sum()).astype(np.float32)
        averages.append(np.tensordot(weights, read(slice(first, last)), axes=1))
    return np.stack(averages)


def _difference_gain(removed: NDArray[np.float32]) -> int:
    """The power of two that makes a difference visible around middle grey."""
    peak = max(float(np.quantile(np.abs(removed), 1 - CLIPPED_FRACTION)), 0.5 / MAX_GAIN)
    return max(1, 2 ** int(np.log2(0.5 / peak)))


def _enlarge(x: NDArray[Any], factor: int) -> NDArray[Any]:
    return x.repeat(factor, axis=0).repeat(factor, axis=1)


def _to_uint8_rgb(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(height, width, 1 or 3) of floats as (height, width, 3)."""
    return np.broadcast_to(np.rint(x * 255).clip(0, 255).astype(np.uint8), (*x.shape[:2], 3))


def _require_png(target: str | Path) -> None:
    if Path(target).suffix.lower() != ".png":
        raise ConfigError(f"{target}: expected a .png for a comparison. Choose such a name.")


def _require_spectrograms() -> None:
    for module in ("librosa", "matplotlib"):
        if find_spec(module) is None:
            raise ConfigError(f'{module} is missing. In the source: pip install ".[compare]".')


def _read_pairs(
    noisy: str | Path, denoised: str | Path, duration_s: float | None = None
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The same samples of two recordings, second by second, (channels, time) each."""
    with AudioReader(noisy) as a, AudioReader(denoised) as b:
        if (a.format.sample_rate, a.format.channels) != (b.format.sample_rate, b.format.channels):
            raise InputError(f"{denoised}: differs from {noisy} in sample rate or channels. Compare recordings of one.")
        while duration_s is None or duration_s > 0:
            x, y = a.read(a.format.sample_rate), b.read(a.format.sample_rate)
            n = min(x.shape[1], y.shape[1])
            if not n:
                return
            yield x[:, :n], y[:, :n]
            duration_s = None if duration_s is None else duration_s - 1
