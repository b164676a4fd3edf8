"""Measure the estimate of the noise of images: photographs, pages, graphics, mosaics and other textures.

python recipes/benchmarks/noise_estimate.py --data DIR
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from cameras import read_crop
from common import (
    JsonFile,
    Row,
    describe_environment,
    evenly_spaced,
    print_table,
    report,
    show_progress,
    use_threads,
)
from image import PACKAGES, Pixels, from_8_bits, rms, to_8_bits
from textures import SEED, load_textures

PHOTOGRAPHS = "photographs"
GROUPS = {
    "pages": ("page", "caption", "lines", "music"),
    "graphics": ("screen", "icons", "map", "plot", "pixels"),
    "mosaics": ("mosaic", "code", "checker", "barcode"),
    "fabrics": ("weave", "plaid", "mesh", "herringbone"),
    "halftone": ("halftone", "ordered", "diffused"),
    "natural": ("clouds", "leaves", "fibres", "stars"),
    "smooth": ("gradient", "blobs", "plain"),
}
TOLERANCE = 0.2
DENOISE, CLASSICAL, SKIMAGE = "denoise", "estimate_sigma", "scikit-image"

Estimator = Callable[[Pixels], float]
"""From pixels, (height, width, 3), full scale 1.0, to a standard deviation."""


def estimators() -> dict[str, Estimator]:
    """Return the estimators by name; that of scikit-image if it is installed."""
    from denoise.noise_level import estimate_sigma
    from denoise.pipelines.image import sigma_255
    from denoise.pipelines.noise_estimate import estimate_noise, load_noise_network
    from denoise.signals import Image

    network = load_noise_network("cpu", "float32")
    found: dict[str, Estimator] = {
        DENOISE: lambda x: sigma_255(estimate_noise(Image(x), network)) / 255,
        CLASSICAL: lambda x: estimate_sigma(np.moveaxis(x, -1, 0)),
    }
    try:
        from skimage.restoration import estimate_sigma as wavelet_sigma

        found[SKIMAGE] = lambda x: float(wavelet_sigma(x, average_sigmas=True, channel_axis=-1))
    except ImportError:
        pass
    return found


def images(data: Path | None, crop: int, count: int, limit: int | None, seed: int) -> Iterator[tuple[str, str, Pixels]]:
    """Yield the group, the name and the pixels of all clean images."""
    from denoise.files.find import find_files
    from denoise.files.image import IMAGE_EXTENSIONS

    if data:
        files = find_files(data, (".",), IMAGE_EXTENSIONS)
        for path in evenly_spaced(files, limit or len(files)):
            yield PHOTOGRAPHS, path.relative_to(data).as_posix(), read_crop(path, crop)
    textures = load_textures()
    for group, kinds in GROUPS.items():
        for kind in kinds:
            for i in range(count):
                image_seed = SEED + 1000 * seed + i
                yield group, f"{kind} {image_seed}", from_8_bits(textures.generate_image(kind, image_seed, crop))


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Return a row for each group and level above 0: median of the ratio to the truth, and fraction within 20 %."""
    table: list[Row] = []
    for group, level in dict.fromkeys((row["group"], row["level"]) for row in rows if row["level"]):
        table.append({"images": group, "sigma": f"{level:g}"})
        for name in dict.fromkeys(row["estimator"] for row in rows):
            ratios = np.array([row["ratio"] for row in rows if _key(row) == (group, level, name)])
            table[-1] |= {name: float(np.median(ratios)), f"{name}, within 20 %": _fraction_within(ratios)}
    return table


def summarise_clean(rows: Sequence[Row]) -> list[Row]:
    """Return a row for each group without noise: median and greatest estimate of each estimator."""
    table: list[Row] = []
    for group in dict.fromkeys(row["group"] for row in rows):
        table.append({"no noise": group})
        for name in dict.fromkeys(row["estimator"] for row in rows):
            found = [row for row in rows if _key(row) == (group, 0.0, name)]
            if not found:
                return []
            greatest = max(found, key=lambda row: row["estimate"])
            table[-1] |= {
                f"{name}, median": float(np.median([row["estimate"] for row in found])),
                f"{name}, greatest": greatest["estimate"],
            }
            if name == DENOISE:
                table[-1] |= {"of": greatest["image"]}
    return table


def _key(row: Row) -> tuple[str, float, str]:
    return row["group"], row["level"], row["estimator"]


def _fraction_within(ratios: Any) -> str:
    return f"{100 * np.mean((ratios >= 1 - TOLERANCE) & (ratios <= 1 + TOLERANCE)):.0f} %"


def main(
    data: Annotated[Path | None, typer.Option(help="A folder of photographs without noise.", metavar="DIR")] = None,
    levels: Annotated[str, typer.Option(help="Sigma, 0 to 255, comma separated.")] = "0,2,5,10,25,50",
    clipped: Annotated[bool, typer.Option("--clipped", help="Quantise the noisy image to 8 bits.")] = False,
    crop: Annotated[int, typer.Option(help="Side of the images in pixels.", min=64)] = 384,
    count: Annotated[int, typer.Option(help="Textures of each kind.", min=1)] = 4,
    limit: Annotated[int | None, typer.Option(help="Maximum number of photographs.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the textures and of the noise.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Measure estimators of noise; print two tables in Markdown and the protocol."""
    use_threads(1)
    import torch

    from denoise.noise import gaussian, generator_for

    named = estimators()
    sigmas = [float(level) for level in levels.split(",")]
    rows: list[Row] = []
    everything = [*images(data, crop, count, limit, seed)]
    for index, (group, image, clean) in enumerate(show_progress(everything, "images")):
        for level in sigmas:
            generator = generator_for(seed, index, round(level))
            noisy = gaussian(torch.from_numpy(clean), level / 255, generator).numpy() if level else clean
            noisy = from_8_bits(to_8_bits(noisy)) if clipped else noisy
            truth = 255 * rms(noisy - clean) if clipped else level
            for name, estimate in named.items():
                value = 255 * estimate(noisy)
                ratio = value / truth if truth else None
                facts = {"group": group, "image": image, "level": level, "truth": truth, "estimator": name}
                rows.append(facts | {"estimate": value, "ratio": ratio})
    if clean_table := summarise_clean(rows):
        print_table(clean_table, {})
        print("\nEstimates where no noise was added, of 255.\n")
    n_photographs = sum(group == PHOTOGRAPHS for group, _, _ in everything)
    photographs = f"{n_photographs} photographs of {data.resolve().name}, the middle; " if data else ""
    noise = "quantised to 8 bits; truth: rms of the noise" if clipped else "in float, unclipped; truth: sigma"
    peer = f"{SKIMAGE}: skimage.restoration.estimate_sigma, mean of channels; " if SKIMAGE in named else ""
    kinds = "; ".join(f"{group}: {', '.join(names)}" for group, names in GROUPS.items())
    protocol = (
        f"{photographs}{count} images of recipes/data/textures.py of each kind ({kinds}), seeds from "
        f"{SEED + 1000 * seed}; {crop} x {crop} pixels; white Gaussian noise, {noise}, seed {seed}; median of "
        f"estimate / truth, images within 20 %; {DENOISE}: the estimate of denoise image, mean over channels and "
        f"intensities, float32; {CLASSICAL}: denoise.noise_level.estimate_sigma; "
        f"{peer}{describe_environment(PACKAGES)}"
    )
    report(summarise(rows), protocol, {}, json_file, {"rows": rows})


if __name__ == "__main__":
    typer.run(main)
