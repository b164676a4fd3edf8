"""Measure how well scores of a prior tell anomalous images from digits: log-likelihood alone, typicality, complexity.

python recipes/benchmarks/anomaly.py --data mnist.npz --priors mnist-vae,mnist-flow
python recipes/benchmarks/anomaly.py --data mnist.npz --priors mnist-vae --split train   # to choose between scores
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from common import JsonFile, Row, Threads, describe_environment, report, show_progress, use_threads

SEED = 0  # of the choice of images, their noise and the likelihoods
SIGMA = 0.2  # of noisy digits, before clipping


def make_anomalies(digits: Any, generator: Any) -> dict[str, Any]:
    """Return images that are no digits, by their kind.

    Args:
        digits: images, (n, 1, height, width), full scale 1.0.
        generator: source of permutations and noise.
    """
    import torch

    n, _, height, width = digits.shape
    half = digits.clone()
    half[:, :, height // 2 :] = 0
    orders = torch.rand(n, height * width, generator=generator).argsort(dim=1)  # another one for each image
    noise = SIGMA * torch.randn(digits.shape, generator=generator)
    return {
        "blank": torch.zeros_like(digits),
        "half": half,
        "inverted": 1 - digits,
        "shuffled": digits.flatten(1).gather(1, orders).reshape(digits.shape),
        "noisy": (digits + noise).clamp(0, 1),
    }


def make_scores(nats: Any, x: Any, errors: Any) -> dict[str, Callable[[Any, Any, Any], Any]]:
    """Return scores as functions of log-likelihoods, images and denoising errors, by their name.

    Args:
        nats: log-likelihoods of training images, (n,).
        x: these images.
        errors: their denoising errors, (n,); None of a prior whose anomaly scores have none.
    """
    from denoise.pipelines.typicality import anomaly_scores, complexity, typical_statistics

    typical = typical_statistics(nats, x)
    scores: dict[str, Callable[[Any, Any, Any], Any]] = {
        "-log p": lambda nats, x, errors: -nats,
        "typicality": lambda nats, x, errors: (nats - typical.mean[0]).abs(),
        "-log p - complexity": lambda nats, x, errors: -nats - 8 * math.log(2) * complexity(x),
    }
    if errors is None:
        return scores | {"anomaly": lambda nats, x, errors: anomaly_scores(nats, x, typical)}
    with_errors = typical_statistics(nats, x, errors=errors)
    return scores | {
        "denoising error": lambda nats, x, errors: errors,
        "log p and complexity": lambda nats, x, errors: anomaly_scores(nats, x, typical),
        "anomaly": lambda nats, x, errors: anomaly_scores(nats, x, with_errors, errors=errors),
    }


def choose(images: Any, n: int, generator: Any) -> Any:
    """Return ``n`` images at random, (n, 1, height, width), full scale 1.0."""
    import torch

    rows = torch.randperm(len(images), generator=generator)[:n]
    return torch.from_numpy(images)[rows][:, None].float() / 255


def main(
    data: Annotated[Path, typer.Option(help="train_images and test_images.", metavar="NPZ")],
    priors: Annotated[str, typer.Option(help="Names or .safetensors files, comma separated.")],
    n: Annotated[int, typer.Option(help="Digits, and images of each kind of anomaly but the blank one.")] = 500,
    typical: Annotated[int, typer.Option(help="Training digits for the statistics.")] = 500,
    split: Annotated[
        Literal["train", "test"], typer.Option(help="Digits to measure: other training digits, or test digits.")
    ] = "test",
    threads: Threads = 2,
    json_file: JsonFile = None,
    record: Annotated[bool, typer.Option("--record", help="Also store the statistics in the weights.")] = False,
) -> None:
    """Measure scores of priors of digits; print a table in Markdown and the protocol."""
    use_threads(threads)
    import torch

    from denoise.metrics import auroc
    from denoise.pipelines.prior import PriorPipeline
    from denoise.pipelines.typicality import typical_statistics
    from denoise.registry import locate
    from denoise.weights import record_typical

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(SEED)
    with np.load(data) as archive:
        train, test = archive["train_images"], archive["test_images"]
    examples = choose(train, typical + 2 * n, generator)
    reference, *others = examples.split([typical, n, n])
    digits, sources = others if split == "train" else choose(test, 2 * n, generator).split(n)
    anomalies = make_anomalies(sources, generator)
    anomalies["blank"] = anomalies["blank"][:1]  # all alike
    table: list[Row] = []
    for name in priors.split(","):
        pipeline = PriorPipeline(name, device="cpu")
        sets = {"typical": reference, "digits": digits, **anomalies}
        log_prob = {kind: pipeline.log_prob(x, seed=SEED) for kind, x in show_progress([*sets.items()], name)}
        nats = {kind: values for kind, (values, _) in log_prob.items()}
        errors = {kind: pipeline.denoising_errors(x) for kind, x in sets.items()}
        for score, function in make_scores(nats["typical"], reference, errors["typical"]).items():
            of_digits = function(nats["digits"], digits, errors["digits"])
            areas = {kind: auroc(of_digits, function(nats[kind], x, errors[kind])) for kind, x in anomalies.items()}
            table.append({"prior": pipeline.card.name, "score": score, **areas, "least": min(areas.values())})
        if record:
            kind = log_prob["typical"][1]
            protocol = f"{typical} training images; {kind}"
            statistics = typical_statistics(nats["typical"], reference, protocol, errors=errors["typical"])
            record_typical(locate(name), statistics)
    protocol = (
        f"AUROC of {n} digits of the {split} images against {n} images of each kind, made of other {split} images: one "
        f"blank image; the lower half blank; inverted; the pixels of each image in another random order; with white "
        f"noise of {SIGMA} of full scale, clipped. Higher scores should be anomalous. Statistics of {typical} training "
        f"images; seed {SEED}; {describe_environment(['torch', 'zuko'])}"
    )
    report(table, protocol, dict.fromkeys([*anomalies, "least"], 3), json_file, {})


if __name__ == "__main__":
    typer.run(main)
