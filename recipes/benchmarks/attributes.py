"""Measure attribute arithmetic in latents: colours of flowers by their hue, speakers of digits by a classifier.

python recipes/benchmarks/attributes.py flowers --data flowers48.npz
python recipes/benchmarks/attributes.py speakers --data digits.npz
"""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import JsonFile, Row, Threads, describe_environment, report, show_progress, use_threads
from generative import HOLD_OUT_EVERY, apply, read_archive, train_classifier

HUES = {"pink": 330.0, "yellow": 50.0, "green": 100.0}  # degrees
NEAR, FAR = 25.0, 60.0  # degrees from the hue: examples with the attribute, and others
CHROMA = 0.05  # least mean chroma of examples, whose hue is then visible
STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)
DIGITS = 10

app = typer.Typer()


def mean_colour(x: Any) -> tuple[Any, Any]:
    """Return hue in degrees and chroma of the mean colour of images, both (n,).

    Args:
        x: images, red, green and blue, (n, 3, height, width).
    """
    import torch

    red, green, blue = x.mean(dim=(2, 3)).T
    a, b = red - (green + blue) / 2, 3**0.5 / 2 * (green - blue)
    return torch.rad2deg(torch.atan2(b, a)) % 360, torch.hypot(a, b)


def hue_distance(x: Any, hue: float) -> Any:
    """Return the distance of the hue of images to a hue, degrees, (n,), 180 at most."""
    return ((mean_colour(x)[0] - hue + 180) % 360 - 180).abs()


def split_by_hue(x: Any, hue: float) -> tuple[Any, Any]:
    """Return the images of a hue, and those of other hues."""
    is_coloured = mean_colour(x)[1] > CHROMA
    distance = hue_distance(x, hue)
    return x[is_coloured & (distance < NEAR)], x[is_coloured & (distance > FAR)]


@app.command()
def flowers(
    data: Annotated[Path, typer.Option(help="Archive of flowers48.", metavar="NPZ")],
    prior: Annotated[str, typer.Option(help="Name or .safetensors file.")] = "flowers",
    n: Annotated[int, typer.Option(help="Held-out photographs of other hues.")] = 64,
    threads: Threads = 2,
    json_file: JsonFile = None,
) -> None:
    """Measure how the hue of held-out photographs follows the attribute, and how their shapes stay."""
    use_threads(threads)
    import torch

    from denoise.pipelines.prior import PriorPipeline

    torch.set_num_threads(threads)
    arrays, pipeline = read_archive(data, binary=False), PriorPipeline(prior, device="cpu")
    table: list[Row] = []
    for name, hue in HUES.items():
        examples, others = split_by_hue(arrays["train"], hue)
        direction = pipeline.attribute(examples, others)
        x = split_by_hue(arrays["test"], hue)[1][:n]
        shapes = pipeline.reconstruct(x).mean(dim=1).flatten(1)
        shapes = shapes - shapes.mean(dim=1, keepdim=True)
        for strength in STRENGTHS:
            y = pipeline.edit(x, direction, strength).clamp(0, 1)
            brightness = y.mean(dim=1).flatten(1)
            brightness = brightness - brightness.mean(dim=1, keepdim=True)
            row: Row = {"towards": name, "photographs": len(x), "strength": strength}
            row["hue distance"] = float(hue_distance(y, hue).mean())
            row["within 45 degrees"] = float((hue_distance(y, hue) < 45).float().mean())
            row["correlation"] = float(torch.cosine_similarity(shapes, brightness).mean())
            table.append(row)
    hues = ", ".join(f"{name} {hue:g}" for name, hue in HUES.items())
    protocol = (
        f"{pipeline.card.name}; at most {n} held-out photographs (every {HOLD_OUT_EVERY}th), whose mean colour is more "
        f"than {FAR:g} degrees from the hue ({hues}); direction: mean latents of training photographs within {NEAR:g} "
        f"degrees minus those beyond {FAR:g}, of a chroma above {CHROMA}; hue distance: mean, degrees; correlation: of "
        f"brightness with the reconstruction (strength 0), mean; {describe_environment(['torch'])}"
    )
    report(table, protocol, {"strength": 1, "hue distance": 0}, json_file, {})


@app.command()
def speakers(
    data: Annotated[Path, typer.Option(help="Archive of recipes/data/digits.py.", metavar="NPZ")],
    prior: Annotated[str, typer.Option(help="Name or .safetensors file.")] = "digits-audio",
    epochs: Annotated[int, typer.Option(help="Epochs of the classifiers.")] = 20,
    threads: Threads = 2,
    json_file: JsonFile = None,
) -> None:
    """Measure how often words of one speaker are recognised as of another, and as the same word."""
    use_threads(threads)
    import torch

    from denoise.pipelines.prior import PriorPipeline

    torch.set_num_threads(threads)
    arrays, pipeline = read_archive(data, binary=False), PriorPipeline(prior, device="cpu")
    by_speaker = train_classifier(arrays | {"train_labels": arrays["train_speakers"]}, epochs)
    by_word = train_classifier(arrays, epochs)
    names = range(int(arrays["train_speakers"].max()) + 1)
    latents = pipeline.latents(arrays["train"])
    means = torch.stack([latents[arrays["train_speakers"] == i].mean(dim=0) for i in names])
    pairs = [*permutations(names, 2)]
    rows = torch.arange(DIGITS)
    results: dict[float, list[Any]] = {strength: [] for strength in STRENGTHS}
    for i, j in show_progress(pairs, "speakers"):
        is_source = arrays["test_speakers"] == i
        words, labels = arrays["test"][is_source], arrays["test_labels"][is_source]
        first = torch.stack([(labels == digit).nonzero()[0, 0] for digit in rows])  # a recording of each word
        for strength in STRENGTHS:
            y = pipeline.edit(words[first], (means[j] - means[i])[None], strength)
            speaker, word = apply(by_speaker, y).argmax(dim=1), apply(by_word, y).argmax(dim=1)
            results[strength].append(torch.stack([speaker == j, speaker == i, word == rows]).float().mean(dim=1))
    columns = ("speaker aimed at", "own speaker", "word kept")
    table: list[Row] = [
        {"strength": strength} | dict(zip(columns, torch.stack(values).mean(dim=0).tolist(), strict=True))
        for strength, values in results.items()
    ]
    protocol = (
        f"{pipeline.card.name}; a test recording of each word for each of {len(pairs)} ordered pairs of speakers; "
        f"direction: mean latents of the training recordings of one speaker minus those of the other; convolutional "
        f"classifiers of log spectra, {epochs} epochs on real training recordings, accuracy on test recordings "
        f"{_percent(by_speaker, arrays['test'], arrays['test_speakers'])} (speakers), "
        f"{_percent(by_word, arrays['test'], arrays['test_labels'])} (words); {describe_environment(['torch'])}"
    )
    report(table, protocol, {"strength": 1}, json_file, {})


def _percent(classifier: Any, x: Any, labels: Any) -> str:
    return f"{100 * float(np.mean((apply(classifier, x).argmax(dim=1) == labels).numpy())):.1f} %"


if __name__ == "__main__":
    app()
