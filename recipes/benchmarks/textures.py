"""Compare denoisers of images on rendered textures, which denoisers take for noise: text, codes, halftone, fabrics.

    python recipes/benchmarks/textures.py

The images are those of `recipes/data/textures.py`, with seeds of their own. Kinds that photo is trained on and kinds
that are held out are reported apart.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import typer
from common import (
    JsonFile,
    Models,
    Row,
    describe_environment,
    peers_option,
    print_table,
    report,
    select_systems,
    short_name,
    show_progress,
    use_threads,
)
from image import PACKAGES, PEERS, Noise, Pixels, System, from_8_bits, measure, quality, rms, system, to_8_bits

MAX_PSNR = 60.0  # dB; an error of less than half a step of 8 bits counts as that
SEED = 20_000_000  # added to the seed; those of training images are far below
SHOT_NOISE = 1e-7, 0.3  # variance of shot noise at full scale, between which it is adjusted to the level
TRAINED, HELD_OUT = "trained", "held out"


class Kind(StrEnum):
    """Noise that is added."""

    WHITE = "white"
    SENSOR = "sensor"


def load_textures() -> ModuleType:
    """Return the module recipes/data/textures.py."""
    spec = spec_from_file_location("denoise_textures", Path(__file__).parents[1] / "data/textures.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def add_noise(clean: Pixels, kind: Kind, sigma: float, seed: int) -> Pixels:
    """Add noise of a root mean square of about ``sigma`` and quantise to 8 bits.

    Sensor noise is shot and read noise of one ISO, demosaicked and rendered; it is adjusted to the level, within its
    range.

    Args:
        clean: (height, width, 3), full scale 1.0.
        kind: noise.
        sigma: standard deviation, full scale 1.0.
        seed: seed of the noise.
    """
    import torch

    from denoise import noise

    if not sigma:
        return clean
    x = torch.from_numpy(clean).permute(2, 0, 1)[None]

    def render(log_shot: float) -> Pixels:
        generator = torch.Generator().manual_seed(seed)
        shot, read = math.exp(log_shot), math.exp((2.18 * log_shot + 1.2) / 2)
        noisy = noise.sensor(x, torch.tensor([shot]), torch.tensor([read]), generator)
        return from_8_bits(to_8_bits(noisy[0].permute(1, 2, 0).numpy()))

    if kind is Kind.WHITE:
        noisy = noise.gaussian(x, sigma, torch.Generator().manual_seed(seed))[0].permute(1, 2, 0).numpy()
        return from_8_bits(to_8_bits(noisy))
    low, high = (math.log(shot) for shot in SHOT_NOISE)
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if rms(render(middle) - clean) < sigma else (low, middle)
    return render((low + high) / 2)


def limit_psnr(row: Row) -> Row:
    """Limit the PSNR of a row, which is infinite for equal images."""
    return row | {"psnr": min(row["psnr"], MAX_PSNR)}


def score(
    systems: dict[str, System], noisy: Pixels, clean: Pixels, kind: Kind, sigma: float, clock: Callable[[], float]
) -> dict[str, Row]:
    """Return quality and gain of the input and of every system that can be given this noise."""
    before = limit_psnr(quality(noisy, clean))
    rows = {"input": before | {"gain": 0.0, "given": None}}
    noise = Noise.GAUSSIAN if kind is Kind.WHITE else Noise.RAW
    true_sigma = sigma if kind is Kind.WHITE else rms(noisy - clean)
    for name, each in systems.items():
        if not (true_sigma or each.blind):
            continue  # with the true sigma, 0, nothing is changed
        row = limit_psnr(measure(each, noisy, clean, true_sigma, noise, clock))
        rows[name] = row | {"gain": row["psnr"] - before["psnr"], "given": each.describe_input(noise)}
    return rows


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Return a row for each noise, level and system: PSNR of trained and held-out kinds, and the worst kind."""
    table: list[Row] = []
    for noise, level, name in dict.fromkeys((row["noise"], row["level"], row["system"]) for row in rows):
        selected = [row for row in rows if (row["noise"], row["level"], row["system"]) == (noise, level, name)]
        gains = gains_by_kind(selected)
        worst = min(gains, key=lambda kind: gains[kind])
        table.append(
            {"noise": noise, "level": f"{level:g}", "system": short_name(name), "given": selected[0]["given"]}
            | {f"{group}, dB": mean(selected, "psnr", group) for group in (TRAINED, HELD_OUT)}
            | {f"gain, {group}": mean(selected, "gain", group) for group in (TRAINED, HELD_OUT)}
            | {"worst kind": worst if name != "input" else None, "its gain": gains[worst] if name != "input" else None}
        )
    return table


def mean(rows: Sequence[Row], key: str, group: str) -> float | None:
    """Return the mean over the images of a group of kinds; every kind has as many."""
    values = [row[key] for row in rows if row["group"] == group]
    return float(np.mean(values)) if values else None


def gains_by_kind(rows: Sequence[Row]) -> dict[str, float]:
    """Return the mean gain of each kind in dB."""
    kinds = dict.fromkeys(row["kind"] for row in rows)
    return {kind: float(np.mean([row["gain"] for row in rows if row["kind"] == kind])) for kind in kinds}


def by_kind(rows: Sequence[Row], name: str) -> list[Row]:
    """Return a row for each kind with the mean gain of a system by noise and level, and the worst image."""
    selected = [row for row in rows if row["system"] == name]
    columns = dict.fromkeys((row["noise"], row["level"]) for row in selected)
    gains = {key: gains_by_kind([row for row in selected if (row["noise"], row["level"]) == key]) for key in columns}
    table = []
    for kind, group in dict.fromkeys((row["kind"], row["group"]) for row in selected):
        worst = min((row for row in selected if row["kind"] == kind), key=lambda row: row["gain"])
        table.append(
            {"kind": kind, "group": group}
            | {f"{noise} {level:g}": by_kind[kind] for (noise, level), by_kind in gains.items()}
            | {"worst image": worst["gain"], "at": f"{worst['noise']} {worst['level']:g}, seed {worst['seed']}"}
        )
    return table


def main(
    models: Models = "photo:auto,gaussian",
    peers: Annotated[str, peers_option(PEERS)] = "bm3d,opencv-nlm",
    kinds: Annotated[str, typer.Option(help="all, or some kinds, comma separated.")] = "all",
    levels: Annotated[str, typer.Option(help="Levels of the noise, 0 to 255, comma separated.")] = "0,2,5,10",
    count: Annotated[int, typer.Option(help="Images of each kind.", min=1)] = 4,
    size: Annotated[int, typer.Option(help="Height and width in pixels.", min=64)] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the images and of the noise.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Compare models with other denoisers on textures; print two tables in Markdown and the protocol."""
    clock = use_threads(1)
    textures = load_textures()
    groups = dict.fromkeys(textures.KINDS, TRAINED) | dict.fromkeys(textures.HELD_OUT_KINDS, HELD_OUT)
    selected = [*groups] if kinds == "all" else kinds.split(",")
    if unknown := set(selected) - set(groups):
        raise typer.BadParameter(f"kind {', '.join(unknown)} is unknown; expected some of {', '.join(groups)}.")
    names = select_systems(models, peers, {name: partial(make, 1) for name, make in PEERS.items()})
    systems = {name: system(name, 1, is_8_bit=True) for name in names}
    noises = [
        (kind, float(level)) for kind in Kind for level in levels.split(",") if kind is Kind.WHITE or float(level)
    ]
    rows: list[Row] = []
    for kind in show_progress(selected, "kinds"):
        for i in range(count):
            image_seed = SEED + 1000 * seed + i
            clean = from_8_bits(textures.generate_image(kind, image_seed, size))
            for noise, level in noises:
                facts: dict[str, Any] = {"kind": kind, "group": groups[kind], "seed": image_seed}
                noisy = add_noise(clean, noise, level / 255, image_seed)
                scores = score(systems, noisy, clean, noise, level / 255, clock)
                facts |= {"noise": str(noise) if level else "none", "level": level}
                rows += [facts | {"system": name} | row for name, row in scores.items()]
    print_table(by_kind(rows, names[0]), {})
    print(f"\nGain of {short_name(names[0])} by kind and noise in dB, means over images.\n")
    protocol = (
        f"images of recipes/data/textures.py (fonts: {len(textures.font_files())} files), {count} of each kind, "
        f"{size} x {size} pixels, seeds {SEED + 1000 * seed} to {SEED + 1000 * seed + count - 1} of image and noise; "
        f"trained: kinds that photo is trained on, with other seeds; held out: {', '.join(textures.HELD_OUT_KINDS)}; "
        f"white: Gaussian of sigma = level / 255; sensor: denoise.noise.sensor of the ISO with rms = level / 255; all "
        f"quantised to 8 bits, models called with 8-bit images; given: what a system is told about the noise (best of "
        f"n: n multiples of the rms, the best PSNR against the clean image counts); output clipped, PSNR at most "
        f"{MAX_PSNR:g} dB; dB: mean over images; worst kind: least mean gain of a kind; "
        f"{describe_environment(PACKAGES)}"
    )
    report(summarise(rows), protocol, {}, json_file, {"rows": rows})


if __name__ == "__main__":
    typer.run(main)
