"""Compare denoisers on photographs of simulated cameras: processed sensor noise, 8 bits, JPEG; and on clean JPEG.

    python recipes/benchmarks/cameras.py --data DIR

The second table states how far the output is from a camera JPEG without noise, which should stay as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    describe_environment,
    evenly_spaced,
    peers_option,
    print_table,
    report,
    select_systems,
    short_name,
    show_progress,
    use_threads,
)
from image import PACKAGES, PEERS, Noise, Pixels, from_8_bits, measure, quality, read_clean, rms, system, to_8_bits
from textures import MAX_PSNR, limit_psnr

QUALITIES = (75, 80, 85, 90, 95)  # of JPEG
MIN_RMS = 0.7 / 255  # of the noise of a photograph; weaker noise is drawn again
MAX_DRAWS = 20


class Camera(StrEnum):
    """How a noisy photograph is made; the names are those of denoise.training.degrade."""

    SENSOR = "sensor"
    CAMERA = "camera"
    SENSOR_JPEG = "sensor, JPEG"
    CAMERA_JPEG = "camera, JPEG"


def read_crop(path: Path, side: int | None) -> Pixels:
    """Return the middle of a photograph in colour."""
    x = read_clean(path, grey=False)
    x = x.repeat(3, axis=2) if x.shape[2] == 1 else x
    if side is None:
        return x
    top, left = (max(0, (n - side) // 2) for n in x.shape[:2])
    return np.ascontiguousarray(x[top : top + side, left : left + side])


def photograph(clean: Pixels, camera: Camera, generator: Any) -> Pixels:
    """Return a photograph with the noise of a random ISO, in 8 bits, or as JPEG of random quality.

    Args:
        clean: (height, width, 3), full scale 1.0.
        camera: kind.
        generator: source of randomness.
    """
    import torch

    from denoise.training.degrade import KINDS

    x = torch.from_numpy(clean).permute(2, 0, 1)[None]
    add_noise = KINDS[camera.split(",")[0]]
    for _ in range(MAX_DRAWS):
        noisy = add_noise(x, torch.zeros(1), generator)[0].permute(1, 2, 0).numpy().clip(0, 1)
        if rms(noisy - clean) >= MIN_RMS:
            break
    if camera in (Camera.SENSOR, Camera.CAMERA):
        return from_8_bits(to_8_bits(noisy))
    quality = int(torch.randint(QUALITIES[0], QUALITIES[-1] + 1, (), generator=generator))
    return compress(noisy, quality)


def compress(x: Pixels, quality: int) -> Pixels:
    """Return an image as JPEG with chroma of half the resolution, as most cameras write it."""
    import torch

    from denoise.training.degrade import jpeg

    return from_8_bits(jpeg(torch.from_numpy(to_8_bits(x)).permute(2, 0, 1), quality).permute(1, 2, 0).numpy())


def clean_rows(systems: dict[str, Any], clean: Pixels) -> Iterator[Row]:
    """Yield how far the output of each blind system is from a JPEG without added noise."""
    for jpeg_quality in QUALITIES:
        stored = compress(clean, jpeg_quality)
        before = limit_psnr(quality(stored, clean))["psnr"]
        for name, each in systems.items():
            if each.blind:
                output = each.denoise(stored, 0.0).clip(0, 1)
                yield {
                    "quality": jpeg_quality,
                    "system": name,
                    "distance": limit_psnr(quality(output, stored))["psnr"],
                    "changed": bool((output != stored).any()),
                    "gain": limit_psnr(quality(output, clean))["psnr"] - before,
                }


def summarise(rows: Sequence[Row], given: dict[str, str | None]) -> list[Row]:
    """Return a row for each camera and system."""
    table: list[Row] = []
    for camera in dict.fromkeys(row["camera"] for row in rows):
        for name in given:
            selected = [row for row in rows if (row["camera"], row["system"]) == (camera, name)]
            gains = [row["gain"] for row in selected]
            table.append({"camera": camera, "system": short_name(name), "given": given[name]})
            table[-1] |= {title: float(np.mean([row[title.lower()] for row in selected])) for title in ("PSNR", "SSIM")}
            table[-1] |= {"gain": float(np.mean(gains)), "worst gain": float(np.min(gains))}
            table[-1] |= {"worse than input": f"{sum(gain < 0 for gain in gains)} of {len(gains)}"}
    return table


def summarise_clean(rows: Sequence[Row]) -> list[Row]:
    """Return a row for each quality of JPEG and blind system."""
    table: list[Row] = []
    for jpeg_quality, name in dict.fromkeys((row["quality"], row["system"]) for row in rows):
        selected = [row for row in rows if (row["quality"], row["system"]) == (jpeg_quality, name)]
        distances = [row["distance"] for row in selected]
        table.append(
            {
                "clean JPEG": jpeg_quality,
                "system": short_name(name),
                "output to input, dB": float(np.mean(distances)),
                "worst": float(np.min(distances)),
                "changed": f"{sum(row['changed'] for row in selected)} of {len(selected)}",
                "gain to original": float(np.mean([row["gain"] for row in selected])),
            }
        )
    return table


def main(
    data: Annotated[Path, typer.Option(help="A folder of photographs without noise.", metavar="DIR")],
    models: Models = "photo:auto,gaussian",
    peers: Annotated[str, peers_option(PEERS)] = "bm3d,opencv-nlm",
    crop: Annotated[int | None, typer.Option(help="Side of the middle that is used; all by default.", min=64)] = None,
    draws: Annotated[int, typer.Option(help="Cameras of each kind for each photograph.", min=1)] = 2,
    limit: Annotated[int | None, typer.Option(help="Maximum number of images.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the cameras and their noise.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Compare models with other denoisers on simulated cameras; print two tables in Markdown and the protocol."""
    clock = use_threads(1)
    from denoise.files.find import find_files
    from denoise.files.image import IMAGE_EXTENSIONS
    from denoise.noise import generator_for

    names = select_systems(models, peers, {name: partial(make, 1) for name, make in PEERS.items()})
    systems = {name: system(name, 1, is_8_bit=True) for name in names}
    files = find_files(data, (".",), IMAGE_EXTENSIONS)
    selected = evenly_spaced([*enumerate(files)], limit or len(files))
    rows: list[Row] = []
    jpeg_rows: list[Row] = []
    for index, path in show_progress(selected, "images"):
        clean, file = read_crop(path, crop), path.relative_to(data).as_posix()
        jpeg_rows += [{"file": file} | row for row in clean_rows(systems, clean)]
        for number, camera in enumerate(Camera):
            for draw in range(draws):
                noisy = photograph(clean, camera, generator_for(seed, index, 100 * number + draw))
                facts = {"file": file, "camera": str(camera), "draw": draw, "rms": rms(noisy - clean)}
                before = quality(noisy, clean)
                rows.append(facts | {"system": "input", "gain": 0.0} | before)
                for name, each in systems.items():
                    row = measure(each, noisy, clean, facts["rms"], Noise.RAW, clock)
                    rows.append(facts | {"system": name, "gain": row["psnr"] - before["psnr"]} | row)
    given = {"input": None} | {name: each.describe_input(Noise.RAW) for name, each in systems.items()}
    if jpeg_rows:
        print_table(summarise_clean(jpeg_rows), {})
        print()
    protocol = (
        f"{len(selected)} of {len(files)} images of {data.resolve().name}"
        f"{f', the middle {crop} x {crop} pixels' if crop else ''}, {draws} draws of each camera, seed {seed}; sensor: "
        f"denoise.noise.sensor of a random ISO; camera: cameras of many kinds (denoise.training.degrade.camera: any "
        f"exposure, row noise, noise reduction, sharpening); noise with an rms below {255 * MIN_RMS:g} of 255 is drawn "
        f"again; quantised to 8 bits, or JPEG of quality {QUALITIES[0]} to {QUALITIES[-1]} (4:2:0); models called with "
        f"8-bit images; given: what a system is told about the noise (best of n: n multiples of the rms of the noise, "
        f"the best PSNR against the clean image counts); output clipped; PSNR and SSIM: means over images; clean JPEG: "
        f"the same photographs without noise, PSNR of the output by the input, at most {MAX_PSNR:g} dB; "
        f"{describe_environment(PACKAGES)}"
    )
    report(summarise(rows, given), protocol, {"SSIM": 3}, json_file, {"rows": rows, "clean": jpeg_rows})


if __name__ == "__main__":
    typer.run(main)
