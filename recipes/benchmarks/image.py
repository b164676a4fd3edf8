"""Compare denoisers of images on the same noisy pixels: quality, speed and memory.

    python recipes/benchmarks/image.py --data DIR

Imports of torch are local, so that the measured peak memory of a peer does not include it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import (
    JsonFile,
    Models,
    Row,
    Threads,
    describe_clock,
    describe_environment,
    evenly_spaced,
    peak_mib,
    peers_option,
    report,
    select_systems,
    short_name,
    show_progress,
    use_threads,
)
from numpy.typing import NDArray

from denoise.colour import LUMA_601

REFERENCE = "bm3d"
AUTO = ":auto"
PACKAGES = ["bm3d", "opencv-python-headless", "scikit-image", "PyWavelets", "torch"]
# of sigma, or of the rms of the noise, where JPEG or demosaicking has made the noise coloured
MULTIPLES = (0.6, 0.8, 1.0, 1.2, 1.4, 1.8)

Pixels = NDArray[np.float32]  # (height, width, 1 or 3), full scale 1.0
# Noisy image and sigma to denoised image, of any float dtype; the axis of a single channel may be dropped.
Denoise = Callable[[Pixels, float], Any]


class Noise(StrEnum):
    """Degradation of a clean image."""

    GAUSSIAN = "gaussian"
    JPEG75 = "jpeg75"
    RAW = "raw"


@dataclass(frozen=True)
class System:
    """A denoiser and the noise levels that it is given.

    Args:
        denoise: the denoiser.
        multiples: factors of the true sigma that are tried; the result nearest to the clean image counts.
        blind: whether the denoiser is given no sigma.
    """

    denoise: Denoise
    multiples: tuple[float, ...] = (1.0,)
    blind: bool = False

    def sigma_multiples(self, noise: Noise) -> list[float]:
        """Return the multiples of sigma that are tried."""
        if noise is Noise.GAUSSIAN or self.blind:
            return [*self.multiples]
        return sorted({round(a * b, 3) for a in self.multiples for b in MULTIPLES})

    def describe_input(self, noise: Noise) -> str:
        """Describe what the system is given about the noise."""
        n = len(self.sigma_multiples(noise))
        return "nothing" if self.blind else "sigma" if n == 1 else f"best of {n}"


# The systems, each a function of the number of threads


def bm3d(threads: int) -> System:
    """BM3D with the default profile of the package; CBM3D with block matching on luminance for colour."""
    from bm3d import BM3DProfile, bm3d, bm3d_rgb

    profile = BM3DProfile()
    profile.num_threads = threads

    def denoise(noisy: Pixels, sigma: float) -> Any:
        run = bm3d_rgb if noisy.shape[2] == 3 else bm3d
        return run(noisy, sigma, profile)

    return System(denoise)


def opencv_nlm(threads: int) -> System:
    """Non-local means of OpenCV with the recommended windows; 8 bits only; the manual gives no rule for h."""
    import cv2

    cv2.setNumThreads(threads)

    def denoise(noisy: Pixels, sigma: float) -> Any:
        x, h = to_8_bits(noisy), 255 * sigma
        if x.shape[2] == 1:
            y = cv2.fastNlMeansDenoising(x, h=h)
        else:  # expects BGR
            y = cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(x[..., ::-1]), h=h, hColor=h)[..., ::-1]
        return y / np.float32(255)

    return System(denoise, multiples=(0.5, 0.6, 0.7, 0.85, 1.0))


def skimage_nlm(threads: int) -> System:
    """Non-local means of scikit-image with the settings of its gallery: fast mode, h = 0.6 sigma."""
    from skimage.restoration import denoise_nl_means

    def denoise(noisy: Pixels, sigma: float) -> Any:
        windows = {"patch_size": 5, "patch_distance": 6}
        return denoise_nl_means(noisy, **windows, h=0.6 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1)

    return System(denoise)


def skimage_wavelet(threads: int, max_shifts: int) -> System:
    """BayesShrink of scikit-image, in YCbCr for colour, averaged over shifts as in its gallery."""
    from skimage.restoration import cycle_spin, denoise_wavelet

    def denoise(noisy: Pixels, sigma: float) -> Any:
        settings = {"sigma": sigma, "convert2ycbcr": noisy.shape[2] == 3, "channel_axis": -1}
        # more workers need dask
        return cycle_spin(noisy, denoise_wavelet, max_shifts, func_kw=settings, workers=1, channel_axis=-1)

    return System(denoise)


def skimage_tv(threads: int) -> System:
    """Total variation by Chambolle's algorithm; the manual gives no rule for the weight."""
    from skimage.restoration import denoise_tv_chambolle

    return System(partial(denoise_tv_chambolle, channel_axis=-1), multiples=(0.4, 0.55, 0.7, 0.85, 1.0))


def denoise_model(threads: int, model: str, is_8_bit: bool = False) -> System:
    """A model of `denoise`; with the suffix ``:auto``, the noise is estimated.

    It is called with floats, or, if ``is_8_bit``, with 8-bit images as of files.
    """
    from denoise import ImagePipeline
    from denoise.signals import Image

    pipeline = ImagePipeline(model.removesuffix(AUTO), device="cpu")
    blind = pipeline.card.blind or model.endswith(AUTO)

    def denoise(noisy: Pixels, sigma: float) -> Any:
        image = Image(to_8_bits(noisy) if is_8_bit else noisy)
        pixels = pipeline.frame(image, sigma=None if blind else sigma).pixels
        return from_8_bits(pixels) if is_8_bit else pixels

    return System(denoise, blind=blind)


PEERS: dict[str, Callable[[int], System]] = {
    REFERENCE: bm3d,
    "opencv-nlm": opencv_nlm,
    "skimage-nlm": skimage_nlm,
    "skimage-wavelet": partial(skimage_wavelet, max_shifts=0),
    "skimage-wavelet-spin": partial(skimage_wavelet, max_shifts=3),
    "skimage-tv": skimage_tv,
}


def system(name: str, threads: int, is_8_bit: bool = False) -> System:
    """Return a peer by its name, or a model by its name or file, optionally with ``:auto``."""
    return PEERS[name](threads) if name in PEERS else denoise_model(threads, name, is_8_bit)


# The pixels


def read_clean(path: Path, grey: bool, saturation: float = 1.0) -> Pixels:
    """Return the pixels of an image file without alpha, or their luma in 8 bits.

    Args:
        path: image file.
        grey: whether to return the luma.
        saturation: factor of the distance of colours from grey; other than 1, the image has 8 bits.

    Raises:
        typer.BadParameter: the image is CMYK.
    """
    from denoise.files.image import read_image

    image = read_image(path)
    x = image.pixels.astype(np.float32) / np.float32(image.full_scale)
    if x.shape[2] == 4:
        raise typer.BadParameter(f"{path} is CMYK; expected RGB or grey. Leave it out of --data.")
    if x.shape[2] == 1 or not (grey or saturation != 1):
        return x
    luma = (x @ LUMA_601)[..., None]
    return from_8_bits(to_8_bits(luma if grey else luma + saturation * (x - luma)))


def degrade(clean: Pixels, sigma: float, generator: Any, noise: Noise, clipped: bool) -> Pixels:
    """Add white Gaussian noise or simulated sensor noise, then quantise or compress as selected."""
    import torch

    from denoise.noise import gaussian

    if noise is Noise.RAW:
        from denoise.training.degrade import sensor

        pixels = torch.from_numpy(clean).permute(2, 0, 1)[None]
        developed = sensor(pixels.expand(-1, 3, -1, -1), torch.zeros(1), generator)[0].permute(1, 2, 0).numpy()
        return from_8_bits(to_8_bits(developed if clean.shape[2] == 3 else developed @ np.float32(LUMA_601)[:, None]))
    noisy = gaussian(torch.from_numpy(clean), sigma, generator).numpy()
    if noise is Noise.JPEG75:
        from denoise.training.degrade import jpeg

        return from_8_bits(jpeg(torch.from_numpy(to_8_bits(noisy)).permute(2, 0, 1), 75).permute(1, 2, 0).numpy())
    return from_8_bits(to_8_bits(noisy)) if clipped else noisy


def to_8_bits(x: NDArray[Any]) -> NDArray[np.uint8]:
    """Quantise pixels of full scale 1.0 to 8 bits."""
    return np.rint(255 * x).clip(0, 255).astype(np.uint8)


def from_8_bits(x: NDArray[np.uint8]) -> Pixels:
    """Convert 8-bit pixels to full scale 1.0."""
    return x / np.float32(255)


# The measures


def rms(x: Pixels) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(x))))


def quality(estimate: NDArray[Any], clean: Pixels) -> Row:
    """Return PSNR and SSIM."""
    import torch

    from denoise import metrics

    y, x = (torch.from_numpy(a.astype(np.float32)).permute(2, 0, 1)[None] for a in (estimate, clean))
    return {"psnr": float(metrics.psnr(y, x)), "ssim": float(metrics.ssim(y, x))}


def measure(
    system: System, noisy: Pixels, clean: Pixels, sigma: float, noise: Noise, clock: Callable[[], float]
) -> Row:
    """Return quality and seconds per megapixel of one call, at the multiple of sigma with the best PSNR."""
    rows: list[Row] = []
    for multiple in system.sigma_multiples(noise):
        started = clock()
        denoised = system.denoise(noisy, multiple * sigma)
        seconds = clock() - started
        row = {"multiple": multiple, "s_per_megapixel": seconds * 1e6 / noisy[..., 0].size}
        rows.append(row | quality(denoised.reshape(clean.shape).clip(0, 1), clean))  # as image files clip it
    return max(rows, key=lambda row: row["psnr"])


def denoise_once(name: str, threads: int, noisy: Pixels, sigma: float) -> None:
    """Load a system and denoise one image; its peak memory is measured in a fresh process."""
    system(name, threads).denoise(noisy, sigma)


# The report


def main(
    data: Annotated[Path, typer.Option(help="A folder of clean images.", metavar="DIR")],
    models: Models = "photo:auto,photo,gaussian,gaussian:auto",
    peers: Annotated[str, peers_option(PEERS)] = "all",
    noise: Annotated[Noise, typer.Option(help="jpeg75: Gaussian, then JPEG; raw: simulated sensor.")] = Noise.GAUSSIAN,
    sigma: Annotated[str, typer.Option(help="Levels of Gaussian noise, 0 to 255, comma separated.")] = "15,25,50",
    clipped: Annotated[bool, typer.Option("--clipped", help="Quantise the noisy image to 8 bits.")] = False,
    grey: Annotated[bool, typer.Option("--grey", help="Convert images to luma.")] = False,
    saturation: Annotated[float, typer.Option(help="Factor of the distance of colours from grey.", min=0)] = 1.0,
    limit: Annotated[int | None, typer.Option(help="Maximum number of images.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    threads: Threads = 1,
    json_file: JsonFile = None,
) -> None:
    """Compare models with other denoisers; print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    from denoise.files.find import find_files
    from denoise.files.image import IMAGE_EXTENSIONS
    from denoise.noise import generator_for

    if noise is Noise.RAW:
        sigma = "0"  # the noise level is random
    names = select_systems(models, peers, {name: partial(make, threads) for name, make in PEERS.items()})
    systems = {name: system(name, threads) for name in names}
    levels = [float(level) for level in sigma.split(",")]
    files = find_files(data, (".",), IMAGE_EXTENSIONS)
    selected = evenly_spaced([*enumerate(files)], limit or len(files))

    def noisy_image(index: int, clean: Pixels, level: float) -> Pixels:
        """Add noise with the generator of `denoise evaluate`, which does not depend on the limit."""
        return degrade(clean, level / 255, generator_for(seed, index, round(level)), noise, clipped)

    index, path = selected[0]
    example = noisy_image(index, read_clean(path, grey, saturation), levels[0])
    example_sigma = (levels[0] or 25) / 255
    for each in systems.values():
        each.denoise(example, example_sigma)  # warm-up, not timed
    rows: list[Row] = []
    for index, path in show_progress(selected, "images"):
        clean = read_clean(path, grey, saturation)
        for level in levels:
            noisy = noisy_image(index, clean, level)
            facts = {"file": path.relative_to(data).as_posix(), "sigma": level}
            rows.append(facts | {"system": "noisy"} | quality(noisy, clean))
            true_sigma = rms(noisy - clean) if noise is Noise.RAW else level / 255
            for name, each in systems.items():
                rows.append(facts | {"system": name} | measure(each, noisy, clean, true_sigma, noise, clock))
    peaks_mib = {
        name: peak_mib(denoise_once, name, threads, example, example_sigma, torch=name not in PEERS) for name in systems
    }

    given = {"noisy": None} | {name: each.describe_input(noise) for name, each in systems.items()}
    table = [
        _table_row(name, [row for row in rows if row["sigma"] == level], given[name], peaks_mib)
        for level in levels
        for name in given
    ]
    kind = (
        "grey (Rec. 601 luma)" if grey else "in colour" + (f", saturation x {saturation:g}" if saturation != 1 else "")
    )
    storage = {
        Noise.GAUSSIAN: "quantised to 8 bits" if clipped else "in float, unclipped",
        Noise.JPEG75: "quantised to 8 bits and stored as JPEG of quality 75 (4:2:0)",
        Noise.RAW: "quantised to 8 bits",
    }[noise]
    added = "white Gaussian noise of sigma / 255"
    if noise is Noise.RAW:
        added = "simulated sensor noise (denoise.noise.sensor, random shot noise of 1e-4 to 1.2e-2; rms is given)"
    protocol = (
        f"{len(selected)} of {len(files)} images of {data.resolve().name}, {kind}; {added}, "
        f"{storage}, seed {seed}, the same pixels for every system (opencv-nlm: quantised to 8 bits); "
        f"given: what a system is given about the noise; best of n: n multiples of sigma are tried on each image, the "
        f"best PSNR against the clean image counts, which favours the system; "
        f"output clipped, PSNR and SSIM: means over images; s/MP: median over images of one call's seconds per "
        f"megapixel, the systems in turn on each image, loading excluded, {describe_clock(threads)}; ratio: median "
        f"over images; MiB: peak of a process that loads the system and denoises one image of "
        f"{example.shape[1]} x {example.shape[0]} once; {describe_environment(PACKAGES)}"
    )
    report(table, protocol, {"SSIM": 3, "s/MP": 3, f"ratio to {REFERENCE}": 3, "MiB": 0}, json_file, {"rows": rows})


def _table_row(name: str, rows: Sequence[Row], given: str | None, peaks_mib: Mapping[str, float | None]) -> Row:
    """Return the table row of one system at one sigma; None stands for figures that were not measured."""
    system_rows, reference_rows = ([row for row in rows if row["system"] == system] for system in (name, REFERENCE))
    table_row: Row = {
        "sigma": f"{system_rows[0]['sigma']:g}" if system_rows[0]["sigma"] else "random",
        "system": short_name(name),
        "given": given,
    }
    table_row |= {title: float(np.mean([row[title.lower()] for row in system_rows])) for title in ("PSNR", "SSIM")}
    times, reference_times = (
        [row["s_per_megapixel"] for row in group if name != "noisy"] for group in (system_rows, reference_rows)
    )
    table_row["s/MP"] = float(np.median(times)) if times else None
    table_row[f"ratio to {REFERENCE}"] = (
        float(np.median(np.divide(times, reference_times))) if times and reference_times else None
    )
    return table_row | {"MiB": peaks_mib.get(name)}


if __name__ == "__main__":
    typer.run(main)
