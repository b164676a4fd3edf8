"""Measure our image models beside other denoisers on the same noisy pixels: quality, speed and memory.

    python recipes/benchmarks/image.py --data DIR

What needs torch is imported where it is used: the peak memory of a peer must not hold ours.
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
    bar,
    clock_name,
    peak_mib,
    peers_option,
    report,
    short,
    spread,
    take_part,
    use_threads,
    where,
)
from numpy.typing import NDArray

REFERENCE = "bm3d"
AUTO = ":auto"
PACKAGES = ["bm3d", "opencv-python-headless", "scikit-image", "PyWavelets", "torch"]
LUMA = (0.299, 0.587, 0.114)  # Rec. 601, what most files hold as grey
# of sigma, or of the noise's rms: what JPEG or demosaicking left of the noise is not white
MULTIPLES = (0.6, 0.8, 1.0, 1.2, 1.4, 1.8)

Pixels = NDArray[np.float32]  # (height, width, 1 or 3), full scale 1.0
# Noisy and a sigma to denoised, of any float type; one channel may lose its axis.
Denoise = Callable[[Pixels, float], Any]


class Noise(StrEnum):
    """What is done to a clean image."""

    GAUSSIAN = "gaussian"
    JPEG75 = "jpeg75"
    RAW = "raw"


@dataclass(frozen=True)
class System:
    """A denoiser, and how it learns the noise level.

    It is told ``multiples`` of the true sigma, and the one whose result is nearest to the clean image
    counts. A ``blind`` one does not look at it.
    """

    denoise: Denoise
    multiples: tuple[float, ...] = (1.0,)
    blind: bool = False

    def tried(self, noise: Noise) -> list[float]:
        """The multiples of sigma that it is told."""
        if noise is Noise.GAUSSIAN or self.blind:
            return [*self.multiples]
        return sorted({round(k * after, 3) for k in self.multiples for after in MULTIPLES})

    def told(self, noise: Noise) -> str:
        """What it is told, in words."""
        n = len(self.tried(noise))
        return "nothing" if self.blind else "sigma" if n == 1 else f"best of {n}"


# The systems, each made for a number of threads


def bm3d(threads: int) -> System:
    """BM3D of the package's default profile; colours as CBM3D, blocks matched by their luminance."""
    from bm3d import BM3DProfile, bm3d, bm3d_rgb

    profile = BM3DProfile()
    profile.num_threads = threads

    def denoise(noisy: Pixels, sigma: float) -> Any:
        run = bm3d_rgb if noisy.shape[2] == 3 else bm3d
        return run(noisy, sigma, profile)

    return System(denoise)


def opencv_nlm(threads: int) -> System:
    """Non-local means of OpenCV with its recommended windows; it takes 8 bits, and its manual gives no rule for h."""
    import cv2

    cv2.setNumThreads(threads)

    def denoise(noisy: Pixels, sigma: float) -> Any:
        x, h = to_8_bits(noisy), 255 * sigma
        if x.shape[2] == 1:
            y = cv2.fastNlMeansDenoising(x, h=h)
        else:  # which takes the colours the other way round
            y = cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(x[..., ::-1]), h=h, hColor=h)[..., ::-1]
        return y / np.float32(255)

    return System(denoise, multiples=(0.5, 0.6, 0.7, 0.85, 1.0))


def skimage_nlm(threads: int) -> System:
    """Non-local means of scikit-image as its gallery tunes it: fast mode, sigma given, h of 0.6 sigma."""
    from skimage.restoration import denoise_nl_means

    def denoise(noisy: Pixels, sigma: float) -> Any:
        windows = {"patch_size": 5, "patch_distance": 6}
        return denoise_nl_means(noisy, **windows, h=0.6 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1)

    return System(denoise)


def skimage_wavelet(threads: int, max_shifts: int) -> System:
    """BayesShrink of scikit-image, in YCbCr if there are colours; means over shifts, as its gallery advises."""
    from skimage.restoration import cycle_spin, denoise_wavelet

    def denoise(noisy: Pixels, sigma: float) -> Any:
        settings = {"sigma": sigma, "convert2ycbcr": noisy.shape[2] == 3, "channel_axis": -1}
        # several workers would need dask
        return cycle_spin(noisy, denoise_wavelet, max_shifts, func_kw=settings, workers=1, channel_axis=-1)

    return System(denoise)


def skimage_tv(threads: int) -> System:
    """Total variation by Chambolle's algorithm; the manual gives no rule for the weight."""
    from skimage.restoration import denoise_tv_chambolle

    return System(partial(denoise_tv_chambolle, channel_axis=-1), multiples=(0.4, 0.55, 0.7, 0.85, 1.0))


def ours(threads: int, model: str) -> System:
    """A model of `denoise`, with an estimate of sigma after ``:auto``; torch has been given its threads."""
    from denoise import ImagePipeline
    from denoise.signals import Image

    pipeline = ImagePipeline(model.removesuffix(AUTO), device="cpu")
    blind = pipeline.card.blind or model.endswith(AUTO)

    def denoise(noisy: Pixels, sigma: float) -> Any:
        return pipeline.frame(Image(noisy), sigma=None if blind else sigma).pixels

    return System(denoise, blind=blind)


PEERS: dict[str, Callable[[int], System]] = {
    REFERENCE: bm3d,
    "opencv-nlm": opencv_nlm,
    "skimage-nlm": skimage_nlm,
    "skimage-wavelet": partial(skimage_wavelet, max_shifts=0),
    "skimage-wavelet-spin": partial(skimage_wavelet, max_shifts=3),
    "skimage-tv": skimage_tv,
}


def system(name: str, threads: int) -> System:
    """A peer by its name, else one of our models by its name or file, perhaps with ``:auto``."""
    return PEERS[name](threads) if name in PEERS else ours(threads, name)


# The pixels


def read_clean(path: Path, grey: bool) -> Pixels:
    """The colours of an image file, or their luma in 8 bits; transparency is left out.

    Raises:
        typer.BadParameter: it holds four inks.
    """
    from denoise.files.image import read_image

    image = read_image(path)
    x = image.pixels.astype(np.float32) / np.float32(image.full_scale)
    if x.shape[2] == 4:
        raise typer.BadParameter(f"{path} is CMYK; expected RGB or grey. Leave it out of --data.")
    return from_8_bits(to_8_bits(x @ LUMA)[..., None]) if grey and x.shape[2] == 3 else x


def degrade(clean: Pixels, sigma: float, generator: Any, noise: Noise, clipped: bool) -> Pixels:
    """Add white Gaussian noise, or that of a sensor (of any sigma), then do what a camera's file does to it."""
    import torch

    from denoise.noise import gaussian

    if noise is Noise.RAW:
        from denoise.training.degrade import sensor

        light = torch.from_numpy(clean).permute(2, 0, 1)[None]
        developed = sensor(light.expand(-1, 3, -1, -1), torch.zeros(1), generator)[0].permute(1, 2, 0).numpy()
        return from_8_bits(to_8_bits(developed if clean.shape[2] == 3 else developed @ np.float32(LUMA)[:, None]))
    noisy = gaussian(torch.from_numpy(clean), sigma, generator).numpy()
    if noise is Noise.JPEG75:
        from denoise.training.degrade import jpeg

        return from_8_bits(jpeg(torch.from_numpy(to_8_bits(noisy)).permute(2, 0, 1), 75).permute(1, 2, 0).numpy())
    return from_8_bits(to_8_bits(noisy)) if clipped else noisy


def to_8_bits(x: NDArray[Any]) -> NDArray[np.uint8]:
    """Round and clip light of full scale 1.0 to the integers of a file."""
    return np.rint(255 * x).clip(0, 255).astype(np.uint8)


def from_8_bits(x: NDArray[np.uint8]) -> Pixels:
    """The integers of a file as light of full scale 1.0."""
    return x / np.float32(255)


# The measures


def rms(x: Pixels) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(x))))


def quality(estimate: NDArray[Any], clean: Pixels) -> Row:
    """PSNR and SSIM."""
    import torch

    from denoise import metrics

    y, x = (torch.from_numpy(a.astype(np.float32)).permute(2, 0, 1)[None] for a in (estimate, clean))
    return {"psnr": float(metrics.psnr(y, x)), "ssim": float(metrics.ssim(y, x))}


def measure(
    system: System, noisy: Pixels, clean: Pixels, sigma: float, noise: Noise, clock: Callable[[], float]
) -> Row:
    """Quality, and seconds per megapixel of one call, with the multiple of sigma that gives the best PSNR."""
    rows: list[Row] = []
    for multiple in system.tried(noise):
        began = clock()
        denoised = system.denoise(noisy, multiple * sigma)
        seconds = clock() - began
        row = {"multiple": multiple, "s_per_megapixel": seconds * 1e6 / noisy[..., 0].size}
        rows.append(row | quality(denoised.reshape(clean.shape).clip(0, 1), clean))  # as every file clips it
    return max(rows, key=lambda row: row["psnr"])


def denoise_once(name: str, threads: int, noisy: Pixels, sigma: float) -> None:
    """What a fresh process does whose memory is measured."""
    system(name, threads).denoise(noisy, sigma)


# The report


def main(
    data: Annotated[Path, typer.Option(help="A folder of clean images.", metavar="DIR")],
    models: Models = "photo,gaussian,gaussian:auto",
    peers: Annotated[str, peers_option(PEERS)] = "all",
    noise: Annotated[Noise, typer.Option(help="jpeg75: Gaussian, then JPEG; raw: a sensor's.")] = Noise.GAUSSIAN,
    sigma: Annotated[str, typer.Option(help="Of the Gaussian noise, 0 to 255, comma separated.")] = "15,25,50",
    clipped: Annotated[bool, typer.Option("--clipped", help="Round and clip the noisy image to 8 bits.")] = False,
    grey: Annotated[bool, typer.Option("--grey", help="Measure on the luma.")] = False,
    limit: Annotated[int | None, typer.Option(help="Use at most this many images.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    threads: Threads = 1,
    json_file: JsonFile = None,
) -> None:
    """Measure our models beside other denoisers, and print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    from denoise.files.find import find_files
    from denoise.files.image import IMAGE_EXTENSIONS
    from denoise.noise import generator_for

    if noise is Noise.RAW:
        sigma = "0"  # the noise is drawn, not told
    names = take_part(models, peers, {name: partial(make, threads) for name, make in PEERS.items()})
    systems = {name: system(name, threads) for name in names}
    levels = [float(level) for level in sigma.split(",")]
    files = find_files(data, (".",), IMAGE_EXTENSIONS)
    chosen = spread([*enumerate(files)], limit or len(files))

    def noisy_image(index: int, clean: Pixels, level: float) -> Pixels:
        """The noise of an image is its own, whatever the limit, and that of `denoise evaluate`."""
        return degrade(clean, level / 255, generator_for(seed, index, round(level)), noise, clipped)

    index, path = chosen[0]
    example = noisy_image(index, read_clean(path, grey), levels[0])
    usual = (levels[0] or 25) / 255
    for each in systems.values():
        each.denoise(example, usual)  # what is done once is not timed
    rows: list[Row] = []
    for index, path in bar(chosen, "images"):
        clean = read_clean(path, grey)
        for level in levels:
            noisy = noisy_image(index, clean, level)
            about = {"file": path.relative_to(data).as_posix(), "sigma": level}
            rows.append(about | {"system": "noisy"} | quality(noisy, clean))
            true = rms(noisy - clean) if noise is Noise.RAW else level / 255
            for name, each in systems.items():
                rows.append(about | {"system": name} | measure(each, noisy, clean, true, noise, clock))
    memory = {name: peak_mib(denoise_once, name, threads, example, usual, torch=name not in PEERS) for name in systems}

    told = {"noisy": None} | {name: each.told(noise) for name, each in systems.items()}
    table = [
        _line(name, [row for row in rows if row["sigma"] == level], told[name], memory)
        for level in levels
        for name in told
    ]
    kind = "grey (Rec. 601 luma)" if grey else "in colour"
    made = {
        Noise.GAUSSIAN: "rounded and clipped to 8 bits" if clipped else "in float, unclipped",
        Noise.JPEG75: "rounded and clipped to 8 bits and stored as JPEG of quality 75 (4:2:0)",
        Noise.RAW: "rounded and clipped to 8 bits",
    }[noise]
    added = "white Gaussian noise of sigma / 255"
    if noise is Noise.RAW:
        added = "noise of a sensor, developed (denoise.noise.sensor, shot noise of 1e-4 to 1.2e-2 drawn; rms is told)"
    protocol = (
        f"{len(chosen)} of {len(files)} images of {data.resolve().name}, {kind}; {added}, "
        f"{made}, seed {seed}, the same pixels for every system (opencv-nlm: rounded and clipped to 8 bits); "
        f"told: what a system learns of the noise; best of n: n multiples of sigma are tried on each image and that of "
        f"the best PSNR against the clean image counts, which favours the system; "
        f"output clipped, PSNR and SSIM: means over images; s/MP: median over images of one call's seconds per "
        f"megapixel, the systems in turn on each image, loading left out, {clock_name(threads)}; ratio: median over "
        f"images; MiB: peak of a process that loads the system and denoises one image of "
        f"{example.shape[1]} x {example.shape[0]} once; {where(PACKAGES)}"
    )
    report(table, protocol, {"SSIM": 3, "s/MP": 3, f"ratio to {REFERENCE}": 3, "MiB": 0}, json_file, {"rows": rows})


def _line(name: str, rows: Sequence[Row], told: str | None, memory: Mapping[str, float | None]) -> Row:
    """One system's line of the table at one sigma; None stands for what was not measured."""
    own, reference = ([row for row in rows if row["system"] == system] for system in (name, REFERENCE))
    line: Row = {
        "sigma": f"{own[0]['sigma']:g}" if own[0]["sigma"] else "drawn",
        "system": short(name),
        "told": told,
    }
    line |= {title: float(np.mean([row[title.lower()] for row in own])) for title in ("PSNR", "SSIM")}
    times, others = ([row["s_per_megapixel"] for row in some if name != "noisy"] for some in (own, reference))
    line["s/MP"] = float(np.median(times)) if times else None
    line[f"ratio to {REFERENCE}"] = float(np.median(np.divide(times, others))) if times and others else None
    return line | {"MiB": memory.get(name)}


if __name__ == "__main__":
    typer.run(main)
