"""Measure priors of labelled images or sounds: quality and diversity of samples, speed and likelihood.

python recipes/benchmarks/generative.py --data mnist.npz --priors mnist-vae,mnist-diffusion --plot trilemma.png
python recipes/benchmarks/generative.py --data digits.npz --priors digits-audio --epochs 40
python recipes/benchmarks/generative.py --data flowers48.npz --priors flowers --epochs 25
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import (
    JsonFile,
    Row,
    Threads,
    describe_clock,
    describe_environment,
    report,
    shortest_time,
    show_progress,
    use_threads,
)

HOLD_OUT_EVERY = 10  # of archives without a test split, as in the recipes
SEED = 0  # of binarisation, classifier and samples
TIMED_SAMPLES = 64
FEATURES = 64  # of the last hidden layer of the classifier, in which sets of samples are compared
SLOW_SAMPLES = 200  # whose likelihoods midpoints are compared with
SPECTRUM_STD = 2.0  # of log spectra, roughly


def read_archive(path: Path, binary: bool) -> dict[str, Any]:
    """Read training and test signals, full scale 1.0, and their labels.

    Args:
        path: archive; one without a test split is split as in the recipes.
        binary: whether pixels are binarised once, at random by their grey level.
    """
    import torch

    with np.load(path) as archive:
        arrays = {name: torch.from_numpy(archive[name]) for name in archive if archive[name].dtype.kind != "U"}
    if "images" in arrays:
        held_out = torch.arange(len(arrays["images"])) % HOLD_OUT_EVERY == 0
        for split, rows in (("train", ~held_out), ("test", held_out)):
            arrays |= {f"{split}_images": arrays["images"][rows], f"{split}_labels": arrays["labels"][rows]}
    generator = torch.Generator().manual_seed(SEED)
    for split in ("train", "test"):
        sounds = arrays.pop(f"{split}_signals", None)
        if sounds is None:
            pixels = arrays.pop(f"{split}_images")
            x = (pixels[:, None] if pixels.ndim == 3 else pixels.movedim(-1, 1)).float() / 255
            arrays[split] = (torch.rand(x.shape, generator=generator) < x).float() if binary else x
        else:
            arrays[split] = sounds[:, None].float() / 32768
    return arrays


def to_classifier_input(x: Any) -> Any:
    """Return the input of the classifier: images unchanged, sounds as log spectra with 64 bands."""
    import torch

    if x.ndim == 4:
        return x
    from denoise.dsp import stft

    log_spectrum = (torch.nn.functional.avg_pool2d(stft(x[:, 0], 256, 128).abs()[:, None], (2, 1)) + 1e-3).log()
    return (log_spectrum - log_spectrum.mean(dim=(1, 2, 3), keepdim=True)) / SPECTRUM_STD


def train_classifier(data: dict[str, Any], epochs: int) -> Any:
    """Train a convolutional classifier on real examples, shifted by up to a sixteenth."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(SEED)
    x, labels = to_classifier_input(data["train"]), data["train_labels"].long()
    positions = (x.shape[2] // 4) * (x.shape[3] // 4)
    classifier = nn.Sequential(
        nn.Conv2d(x.shape[1], 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * positions, FEATURES), nn.ReLU(),
        nn.Linear(FEATURES, int(labels.max()) + 1),
    )  # fmt: skip
    steps = epochs * len(x) // 128
    optimizer = torch.optim.AdamW(classifier.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in show_progress([*range(steps)], "classifier"):
        rows = torch.randint(len(x), (128,))
        shifts = [int(torch.randint(-(n // 16), n // 16 + 1, ())) for n in x.shape[2:]]
        loss = F.cross_entropy(classifier(x[rows].roll(shifts, dims=(2, 3))), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return classifier.eval().requires_grad_(False)


def apply(layers: Any, x: Any) -> Any:
    """Apply layers of the classifier to signals, batch by batch."""
    import torch

    with torch.no_grad():
        return torch.cat([layers(to_classifier_input(batch)) for batch in x.split(500)])


def accuracy(classifier: Any, x: Any, labels: Any) -> float:
    """Return the fraction of examples that are classified as their label."""
    return float((apply(classifier, x).argmax(dim=1) == labels).float().mean())


def likelihood(pipeline: Any, arrays: dict[str, Any], limit: int) -> Row:
    """Return the mean of -log p of test examples, its kind and the events that it is of; None without a likelihood.

    Densities are those of pixels with uniform noise of one level, so that bits per dimension are not below those of a
    distribution of 256 levels (Theis et al., A Note on the Evaluation of Generative Models, 2015, arXiv:1511.01844).

    Args:
        pipeline: prior.
        arrays: test examples, by what their entries are: ``"continuous"``, ``"discrete"`` and ``"binary"``.
        limit: number of examples; 0 skips the likelihood.
    """
    from denoise.protocols import HasEstimatedLogProb, HasLogProb, HasLogProbBound

    columns = ("-log p, nats", "bits/dim", "likelihood", "of")
    if not (limit and isinstance(pipeline.model, HasLogProb | HasEstimatedLogProb | HasLogProbBound)):
        return dict.fromkeys(columns)
    values = pipeline.support.values
    nats, description = pipeline.log_prob(arrays[values][:limit], seed=SEED)
    kind = "estimate" if isinstance(pipeline.model, HasEstimatedLogProb) else description.partition(",")[0]
    mean = nats.double().mean()
    return dict(zip(columns, (-float(mean), float(pipeline.bits_per_dim(mean)), kind, values), strict=True))


def dequantise(x: Any) -> Any:
    """Return images of 256 levels with uniform noise of one level, in [0, 1]; sounds, of 65 536 levels, unchanged."""
    import torch

    if x.ndim < 4:
        return x
    return (255 * x + torch.rand(x.shape, generator=torch.Generator().manual_seed(SEED))) / 256


def class_accuracy(pipeline: Any, classifier: Any, n: int, guidance: float | None = None) -> float | None:
    """Return the fraction of at most ``n`` samples, equally many per class, that are classified as their class."""
    import torch

    classes = len(pipeline.card.classes)
    if not classes:
        return None
    per_class = n // classes
    labels = show_progress([*range(classes)], "samples")
    samples = [pipeline.sample(per_class, label=i, seed=SEED + i, guidance=guidance) for i in labels]
    return accuracy(classifier, torch.cat(samples), torch.arange(classes).repeat_interleave(per_class))


def count_calls(model: Any, work: Callable[[], object]) -> int:
    """Return how often the network of a prior is evaluated: the calls of its busiest layer, or an entry at a time."""
    from denoise.priors.autoregressive import Autoregressive
    from denoise.priors.autoregressive_flow import AutoregressiveFlow

    if isinstance(model, Autoregressive | AutoregressiveFlow):
        return int(model.event_shape.numel())
    calls: Counter[Any] = Counter()
    layers = {layer for layer in model.modules() if [*layer.parameters(recurse=False)]}
    hooks = [layer.register_forward_pre_hook(lambda layer, _: calls.update([layer])) for layer in layers]
    work()
    for hook in hooks:
        hook.remove()
    return max(calls.values())


def draw_trilemma(table: Sequence[Row], path: Path) -> None:
    """Draw quality against speed, with the diversity as the size of each point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    places = np.log([[row["samples/s"], row["Frechet distance"]] for row in table])
    for row, place in zip(table, places, strict=True):
        x, y = row["samples/s"], row["Frechet distance"]
        point = axis.scatter(x, y, s=20 + 500 * row["recall"] ** 2)
        others = places[(places != place).any(axis=1)]
        nearest = others[np.argmin(np.square(others - place).sum(axis=1))] if len(others) else place
        offset = (8, 10 if place[1] >= nearest[1] else -28)  # away from the nearest point
        label = f"{row['prior']}\nrecall {row['recall']:.2f}"
        axis.annotate(label, (x, y), offset, textcoords="offset points", color=point.get_facecolor()[0])
    axis.set(xscale="log", yscale="log", xlabel="samples per second", ylabel="Frechet distance (lower is better)")
    axis.margins(0.2)
    figure.savefig(path, dpi=110)


def nearest_neighbours(hidden: Any, samples: Any, train: Any) -> Any:
    """Return the training example nearest to each sample in the features of the classifier."""
    import torch

    return train[torch.cdist(apply(hidden, samples), apply(hidden, train)).argmin(dim=1)]


def unlikely_midpoints(pipeline: Any, samples: Any, ends: Any) -> float | None:
    """Return the fraction of midpoints between pairs of examples below the first percentile of samples, by likelihood.

    Pixels of binary likelihoods are rounded.
    """
    import torch

    from denoise.pipelines.latent_space import interpolate_path
    from denoise.protocols import HasEstimatedLogProb, HasLogProb, HasLogProbBound, NoiseEncoder

    model = pipeline.model
    if not (isinstance(model, NoiseEncoder) and isinstance(model, HasLogProb | HasEstimatedLogProb | HasLogProbBound)):
        return None
    noise = pipeline.encode(ends)
    middles = torch.cat([interpolate_path(noise[[i, i + 1]], 3)[1:2] for i in range(0, len(noise), 2)])
    signals = (samples[:SLOW_SAMPLES], pipeline.decode(middles))
    is_binary = model.support.values == "binary"
    of_samples, of_midpoints = (pipeline.log_prob(x.round() if is_binary else x, seed=SEED)[0] for x in signals)
    return float((of_midpoints < of_samples.quantile(0.01)).float().mean())


def default_guidance(model: Any) -> float | None:
    """Return the guidance that a prior samples with by default; None without guidance."""
    from denoise.priors.guided import GuidedPrior
    from denoise.priors.latent import LatentPrior

    prior = model.prior if isinstance(model, LatentPrior) else model
    return prior.config.guidance if isinstance(prior, GuidedPrior) else None


def main(
    data: Annotated[
        Path, typer.Option(help="train_ and test_images (or _signals), with train_ and test_labels.", metavar="NPZ")
    ],
    priors: Annotated[str, typer.Option(help="Names or .safetensors files, comma separated.")],
    n: Annotated[int, typer.Option(help="Samples per prior.")] = 1000,
    limit: Annotated[int, typer.Option(help="Test examples for the likelihood; 0 skips it.")] = 10_000,
    pairs: Annotated[int, typer.Option(help="Pairs of test examples for midpoints; 0 skips them.")] = 50,
    epochs: Annotated[int, typer.Option(help="Epochs of the classifier.")] = 4,
    threads: Threads = 2,
    out: Annotated[
        Path | None,
        typer.Option(help="Write samples with their nearest training examples to NAME/neighbours.png in this folder."),
    ] = None,
    json_file: JsonFile = None,
    plot: Annotated[Path | None, typer.Option(help="Draw quality, speed and diversity here.", metavar="PNG")] = None,
    record: Annotated[bool, typer.Option("--record", help="Also store the figures in the model cards.")] = False,
) -> None:
    """Measure priors of labelled images or sounds; print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    import torch

    from denoise.metrics import class_entropy, frechet_distance, modes_reached, precision_recall
    from denoise.pipelines.prior import PriorPipeline
    from denoise.registry import locate
    from denoise.weights import record_metrics

    torch.set_num_threads(threads)
    continuous, binary = read_archive(data, False), read_archive(data, True)
    classifier = train_classifier(continuous, epochs)
    test_accuracy = accuracy(classifier, continuous["test"], continuous["test_labels"])
    hidden = classifier[:-1]  # without the last layer
    real, real_binary, training = (
        apply(hidden, x[torch.linspace(0, len(x) - 1, min(n, len(x))).long()])
        for x in (continuous["test"], binary["test"], continuous["train"])
    )
    scale = real.var(dim=0).mean().sqrt()
    test, classes = continuous["test"], len(continuous["test_labels"].unique())
    arrays = {"continuous": dequantise(test), "discrete": test, "binary": binary["test"]}
    table: list[Row] = []
    for name in priors.split(","):
        pipeline = PriorPipeline(name, device="cpu")
        row: Row = {"prior": pipeline.card.name, "parameters": pipeline.card.parameters}
        row["minutes"] = pipeline.card.training_minutes
        row["calls"] = count_calls(pipeline.model, partial(pipeline.sample, 2))
        row["samples/s"] = TIMED_SAMPLES / shortest_time(partial(pipeline.sample, TIMED_SAMPLES), clock)
        row["guidance"] = default_guidance(pipeline.model)
        row["class accuracy"] = class_accuracy(pipeline, classifier, n)
        row["unguided"] = class_accuracy(pipeline, classifier, n, 1.0) if row["guidance"] not in (None, 1.0) else None
        generated = pipeline.sample(n, seed=SEED)
        features = apply(hidden, generated)
        of_test = real_binary if bool(((generated == 0) | (generated == 1)).all()) else real
        row["Frechet distance"] = frechet_distance(features / scale, of_test / scale)
        row["precision"], row["recall"] = precision_recall(features, of_test)
        predicted = apply(classifier, generated).argmax(dim=1)
        row["entropy bits"], row["modes"] = float(class_entropy(predicted)), int(modes_reached(predicted, classes))
        row |= likelihood(pipeline, arrays, limit)
        row["midpoints below 1st percentile"] = (
            unlikely_midpoints(pipeline, generated, test[: 2 * pairs]) if pairs else None
        )
        table.append(row)
        if out:
            shown = generated[:10]
            pair = torch.cat([shown, nearest_neighbours(hidden, shown, continuous["train"])])
            pipeline.write(out / pipeline.card.name / "neighbours.png", pair, columns=10, overwrite=True)
    likelihood_protocol = (
        f"-log p and bits/dim: mean over the first {limit} test examples; binary: images that were binarised "
        f"once at random by their grey levels, seed {SEED}; continuous: with uniform noise of one level of 256; "
    )
    protocol = (
        f"classifier: convolutional, {epochs} epochs on the real training examples, accuracy "
        f"{100 * test_accuracy:.2f} % on the {len(continuous['test'])} test examples; class accuracy: fraction of {n} "
        f"samples, equally many per class, that are classified as their class, with the default guidance; unguided: "
        f"with guidance 1; Frechet distance, precision and recall (3 neighbours): of {n} unconditional samples and "
        f"{len(real)} test examples, binarised ones for priors of binary images, in the {FEATURES} features of the "
        f"classifier's last hidden layer, of variance 1 on average; the distance of {len(training)} training examples "
        f"is {frechet_distance(training / scale, real / scale):.2f}; calls: of the network, for a "
        f"batch of samples; samples/s: of a batch of {TIMED_SAMPLES}, unconditional, the fastest of at least 3, "
        f"{describe_clock(threads)}; "
        f"entropy: of the classes predicted for these samples ({math.log2(classes):.2f} "
        f"at most); modes: classes with at least a tenth of an equal share of them; "
        f"{likelihood_protocol * bool(limit)}midpoints: between {pairs} pairs of test examples, fraction with a "
        f"log-likelihood below the 1st percentile of {SLOW_SAMPLES} samples; minutes: of training, where the file "
        f"states them, without those of a codec or teacher; "
        f"{describe_environment(['torch', 'zuko'])}"
    )
    report(table, protocol, {"class accuracy": 3, "unguided": 3, "samples/s": 1, "minutes": 0}, json_file, {})
    if plot:
        draw_trilemma(table, plot)
    if record:
        for name, row in zip(priors.split(","), table, strict=True):
            numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
            record_metrics(locate(name), {"prior": {"rows": [numbers], "protocol": protocol}})


if __name__ == "__main__":
    typer.run(main)
