"""Draw the figures in the READMEs of the priors: samples, interpolations, completions, decodings and maps.

python recipes/figures.py --data DIR mnist-vae mnist-flow digits-audio

Sounds are shown as spectrograms, 0 to 4 kHz by 0.77 s; their samples are also written as a .wav. Flowers are
interpolated between samples, because photographs would need the names of their authors.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from denoise import PriorPipeline
from denoise.files.image import write_image
from denoise.pipelines.latent_space import interpolate_path, principal_map
from denoise.pipelines.prior_files import as_images, draw_map, half_mask
from denoise.priors.latent import LatentPrior
from denoise.protocols import NoiseEncoder, StochasticCodec
from denoise.signals import ImageFormat

HERE = Path(__file__).parent
COLUMNS = 8  # of interpolations, completions and decodings
MAP_EXAMPLES = 400
STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)  # of attributes


def read_test_examples(family: str, data: Path) -> Tensor:
    """Return held-out examples, (n, channels, *space); none of flowers."""
    if family == "mnist":
        return torch.from_numpy(np.load(data / "image/mnist/mnist.npz")["test_images"])[:, None].float() / 255
    if family == "flowers":
        return torch.empty(0, 3, 48, 48)
    return torch.from_numpy(np.load(data / "audio/digits.npz")["test_signals"])[:, None].float() / 32768


def draw_samples(prior: PriorPipeline, out: Path) -> None:
    """Draw a column of samples for each class, or five rows of ten without classes."""
    classes = len(prior.card.classes)
    if not classes:
        prior.write(out / "samples.png", prior.sample(50, seed=0), columns=10, overwrite=True)
        return
    rows = 2 if prior.card.modality == "audio" else 5
    by_class = torch.stack([prior.sample(rows, label=i, seed=i) for i in range(classes)], dim=1)
    samples = by_class.flatten(0, 1)
    prior.write(out / "samples.png", samples, columns=classes, overwrite=True)
    if prior.card.modality == "audio":
        prior.write(out / "samples.wav", samples[:classes], overwrite=True)
    if prior.card.text:
        prompts = [f"a photo of {name}" for name in prior.card.classes]
        by_text = torch.stack([prior.sample(2, label=text, seed=10 + i) for i, text in enumerate(prompts)], dim=1)
        prior.write(out / "by_words.png", by_text.flatten(0, 1), columns=classes, overwrite=True)


def draw_interpolations(prior: PriorPipeline, x: Tensor, out: Path) -> None:
    """Draw three interpolations between examples, or between samples without examples."""
    ends = prior.encode(x) if len(x) else torch.cat([prior.noise(seed) for seed in range(6)])
    paths = torch.cat([interpolate_path(ends[[i, i + 1]], COLUMNS) for i in range(0, 6, 2)])
    prior.write(out / "between.png", prior.decode(paths), columns=COLUMNS, overwrite=True)


def draw_completions(prior: PriorPipeline, x: Tensor, out: Path) -> None:
    """Draw each example and seven completions of its first half."""
    mask = half_mask(prior.card)
    rows = [
        torch.cat([example, prior.complete(example, mask, COLUMNS - 1, seed=i)]) for i, example in enumerate(x.split(1))
    ]
    prior.write(out / "completed.png", torch.cat(rows), columns=COLUMNS, overwrite=True)


def draw_latent_map(prior: PriorPipeline, x: Tensor, out: Path) -> None:
    """Draw reconstructions of examples at the principal components of their latents."""
    positions, images = principal_map(prior.latents(x).flatten(1)), as_images(prior.reconstruct(x), prior.card)
    write_image(out / "map.png", [draw_map(images, positions, 720)], ImageFormat(), overwrite=True)


def draw_hues(prior: PriorPipeline, data: Path, out: Path) -> None:
    """Draw two samples for each hue, and the same samples with more and more of it."""
    sys.path.append(str(HERE / "benchmarks"))
    from attributes import HUES, split_by_hue
    from generative import read_archive

    photographs, samples = read_archive(data / "image/flowers48/flowers48.npz", binary=False)["train"], prior.sample(6)
    rows = []
    for i, hue in enumerate(HUES.values()):
        direction = prior.attribute(*split_by_hue(photographs, hue))
        for x in samples[2 * i : 2 * i + 2].split(1):
            rows += [prior.edit(x, direction, strength) for strength in STRENGTHS]
    prior.write(out / "hues.png", torch.cat(rows), columns=len(STRENGTHS), overwrite=True)


def draw_decodings(prior: PriorPipeline, x: Tensor, out: Path) -> None:
    """Draw each example and seven decodings of its latent posterior."""
    rows = [torch.cat([example, prior.decodings(example, COLUMNS - 1, seed=i)]) for i, example in enumerate(x.split(1))]
    prior.write(out / "decoded.png", torch.cat(rows), columns=COLUMNS, overwrite=True)


def main(
    priors: Annotated[list[str], typer.Argument(help="Names of recipes whose weights are bundled.", metavar="NAME...")],
    data: Annotated[Path, typer.Option(help="Root of the data folders that the recipes name.", metavar="DIR")],
    weights: Annotated[
        Path | None, typer.Option(help="Folder with NAME/NAME.safetensors, instead of the bundled weights.")
    ] = None,
) -> None:
    """Draw the figures of priors into recipes/NAME."""
    for name in priors:
        prior: Any = PriorPipeline(weights / name / f"{name}.safetensors" if weights else name, device="cpu")
        out, examples = HERE / name, read_test_examples(name.split("-")[0], data)
        has_examples = len(examples) > 0
        few = examples[np.linspace(0, len(examples) - 1, 6).astype(int)] if has_examples else examples
        draw_samples(prior, out)
        if isinstance(prior.model, NoiseEncoder):
            draw_interpolations(prior, few, out)
        if name == "flowers":
            draw_hues(prior, data, out)
        if not has_examples:
            continue
        if isinstance(prior.model, LatentPrior):
            draw_latent_map(prior, examples[:: max(1, len(examples) // MAP_EXAMPLES)], out)
            if isinstance(prior.model.codec, StochasticCodec):
                draw_decodings(prior, few[:3], out)
        if prior.card.modality == "image":
            draw_completions(prior, few[:3], out)


if __name__ == "__main__":
    typer.run(main)
