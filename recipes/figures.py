"""The pictures in the READMEs of priors: samples by class, ways between held-out examples, a map, gaps filled in.

python recipes/figures.py --data DIR mnist-vae mnist-flow digits-audio

Pictures of sounds are spectrograms, 0 to 4 kHz upwards and 0.77 s to the right; of the samples there is a .wav, too.
Photographs have authors to be named: ways between flowers are between samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from denoise import PriorPipeline
from denoise.files.image import write_image
from denoise.pipelines.prior import path_between, principal_map
from denoise.pipelines.prior_files import as_pictures, half_known, map_of
from denoise.signals import ImageFormat

HERE = Path(__file__).parent
STEPS = 8  # of a way
ON_A_MAP = 400


def held_out(family: str, data: Path) -> Tensor:
    """Examples that no prior has seen, none of flowers. Shape: (n, channels, *space)."""
    if family == "mnist":
        return torch.from_numpy(np.load(data / "image/mnist/mnist.npz")["test_images"])[:, None].float() / 255
    if family == "flowers":
        return torch.empty(0, 3, 48, 48)
    return torch.from_numpy(np.load(data / "audio/digits.npz")["test_signals"])[:, None].float() / 32768


def samples(prior: PriorPipeline, out: Path) -> None:
    """A column for each class, or five rows of ten; of words, five."""
    classes = len(prior.card.classes)
    if not classes:
        prior.write(out / "samples.png", prior.sample(50, seed=0), columns=10, overwrite=True)
        return
    rows = 2 if prior.card.modality == "audio" else 5
    by_class = torch.stack([prior.sample(rows, label=i, seed=i) for i in range(classes)], dim=1)
    made = by_class.flatten(0, 1)
    prior.write(out / "samples.png", made, columns=classes, overwrite=True)
    if prior.card.modality == "audio":
        prior.write(out / "samples.wav", made[:classes], overwrite=True)
    if prior.card.text:
        words = [f"a photo of {name}" for name in prior.card.classes]
        told = torch.stack([prior.sample(2, label=text, seed=10 + i) for i, text in enumerate(words)], dim=1)
        prior.write(out / "by_words.png", told.flatten(0, 1), columns=classes, overwrite=True)


def between(prior: PriorPipeline, x: Tensor, out: Path) -> None:
    """Three ways from one example to another, or from sample to sample."""
    ends = prior.encode(x) if len(x) else torch.cat([prior.noise(seed) for seed in range(6)])
    ways = torch.cat([path_between(ends[[i, i + 1]], STEPS) for i in range(0, 6, 2)])
    prior.write(out / "between.png", prior.decode(ways), columns=STEPS, overwrite=True)


def known_in_part(prior: PriorPipeline, x: Tensor, out: Path) -> None:
    """The first half of each example is kept, and the second drawn seven times; the whole example stands first."""
    mask = half_known(prior.card)
    rows = [torch.cat([one, prior.complete(one, mask, STEPS - 1, seed=i)]) for i, one in enumerate(x.split(1))]
    prior.write(out / "completed.png", torch.cat(rows), columns=STEPS, overwrite=True)


def on_a_map(prior: PriorPipeline, x: Tensor, out: Path) -> None:
    """Where the codec puts examples, and as what it remembers them."""
    places, shown = principal_map(prior.latents(x).flatten(1)), as_pictures(prior.reconstruct(x), prior.card)
    write_image(out / "map.png", [map_of(shown, places, 720)], ImageFormat(), overwrite=True)


def readings(prior: PriorPipeline, x: Tensor, out: Path) -> None:
    """Each example, and seven decodings of what the codec keeps of it."""
    rows = [torch.cat([one, prior.decodings(one, STEPS - 1, seed=i)]) for i, one in enumerate(x.split(1))]
    prior.write(out / "decoded.png", torch.cat(rows), columns=STEPS, overwrite=True)


def main(
    priors: Annotated[list[str], typer.Argument(help="Names of recipes whose weights are bundled.", metavar="NAME...")],
    data: Annotated[Path, typer.Option(help="The folder that the recipes read.", metavar="DIR")],
    weights: Annotated[Path | None, typer.Option(help="NAME/NAME.safetensors here, not the bundled ones.")] = None,
) -> None:
    """Draw the pictures of some priors into recipes/NAME."""
    for name in priors:
        prior: Any = PriorPipeline(weights / name / f"{name}.safetensors" if weights else name, device="cpu")
        out, x = HERE / name, held_out(name.split("-")[0], data)
        few = x[np.linspace(0, len(x) - 1, 6).astype(int)] if len(x) else x
        samples(prior, out)
        between(prior, few, out)
        if not len(x):
            continue
        if hasattr(prior.model, "codec"):
            on_a_map(prior, x[:: max(1, len(x) // ON_A_MAP)], out)
        if hasattr(getattr(prior.model, "codec", None), "draw"):
            readings(prior, few[:3], out)
        if prior.card.modality == "image":
            known_in_part(prior, few[:3], out)


if __name__ == "__main__":
    typer.run(main)
