"""Measure priors of labelled pictures: likelihood, whether samples are what was asked for, variety, speed.

python recipes/benchmarks/priors.py --data mnist.npz --priors mnist-vae,mnist-diffusion
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import JsonFile, Row, Threads, bar, report, use_threads, where

SEED = 0  # of the one fixed draw of black and white, of the judge and of the samples


def read(path: Path, binary: bool) -> dict[str, Any]:
    """Train and test pictures, full scale 1.0, and labels; ``binary``: each pixel drawn once by its grey."""
    import torch

    with np.load(path) as archive:
        arrays = {name: torch.from_numpy(archive[name]) for name in archive}
    generator = torch.Generator().manual_seed(SEED)
    for part in ("train", "test"):
        x = arrays[f"{part}_images"][:, None].float() / 255
        drawn = (torch.rand(x.shape, generator=generator) < x).float() if binary else x
        arrays[f"{part}_images"] = drawn
    return arrays


def train_judge(data: dict[str, Any], epochs: int) -> Any:
    """A convolutional classifier that has seen real training pictures alone."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(SEED)
    side = data["train_images"].shape[-1] // 4
    judge = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * side**2, 10),
    )  # fmt: skip
    x, labels = data["train_images"], data["train_labels"].long()
    steps = epochs * len(x) // 128
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in bar([*range(steps)], "judge"):
        rows = torch.randint(len(x), (128,))
        loss = F.cross_entropy(judge(x[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval().requires_grad_(False)


def accuracy(judge: Any, x: Any, labels: Any) -> float:
    """The share of pictures that the judge takes for what they shall be."""
    import torch

    with torch.no_grad():
        found = torch.cat([judge(part).argmax(dim=1) for part in x.split(500)])
    return float((found == labels).float().mean())


def entropy_bits(judge: Any, x: Any) -> float:
    """Of the classes that the judge sees; 3.32 are all ten, equally often."""
    import torch

    with torch.no_grad():
        found = torch.cat([judge(part).argmax(dim=1) for part in x.split(500)])
    shares = torch.bincount(found, minlength=10) / len(found)
    return float(-(shares * shares.clamp_min(1e-12).log2()).sum())


def bound(model: Any, x: Any, samples: int) -> float:
    """Mean importance-weighted bound in nats."""
    import torch

    generator, parts = torch.Generator().manual_seed(SEED), []
    with torch.no_grad():
        for part in bar([*x.split(20)], "bound"):
            parts.append(model.bound(part, samples, generator))
    return float(torch.cat(parts).mean())


def nearest(made: Any, train: Any) -> Any:
    """For each picture the training picture with the least squared distance. Shape: as made."""
    import torch

    flat = train.flatten(1)
    return train[torch.cdist(made.flatten(1), flat).argmin(dim=1)]


def main(
    data: Annotated[Path, typer.Option(help="train_images, train_labels, test_images and test_labels.", metavar="NPZ")],
    priors: Annotated[str, typer.Option(help="Names or .safetensors files, comma separated.")],
    n: Annotated[int, typer.Option(help="Samples to judge, of each prior.")] = 1000,
    limit: Annotated[int, typer.Option(help="Test pictures of the bound; 0 leaves it out.")] = 10_000,
    samples: Annotated[int, typer.Option(help="Of the importance-weighted bound.")] = 500,
    epochs: Annotated[int, typer.Option(help="Of the judge.")] = 4,
    threads: Threads = 2,
    out: Annotated[Path | None, typer.Option(help="Write samples beside their nearest neighbours here.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure priors of labelled pictures, and print a table in Markdown and the protocol."""
    use_threads(threads)
    import torch

    from denoise.pipelines.prior import PriorPipeline, path_between
    from denoise.pipelines.prior_files import write_signals

    torch.set_num_threads(threads)
    grey, binary = read(data, False), read(data, True)
    judge = train_judge(grey, epochs)
    sure = accuracy(judge, grey["test_images"], grey["test_labels"])
    table: list[Row] = []
    for name in priors.split(","):
        pipeline = PriorPipeline(name, device="cpu")
        row: Row = {"prior": pipeline.card.name, "parameters": pipeline.card.parameters}
        pipeline.sample(2)
        began = time.perf_counter()
        pipeline.sample(64)
        row["s for 64"] = time.perf_counter() - began
        if pipeline.card.classes:
            each = n // len(pipeline.card.classes)
            asked = [pipeline.sample(each, label=i, seed=SEED + i) for i in bar([*range(10)], "samples")]
            wanted = torch.arange(10).repeat_interleave(each)
            row["as asked"] = accuracy(judge, torch.cat(asked), wanted)
        made = pipeline.sample(n, seed=SEED)
        row["entropy bits"] = entropy_bits(judge, made)
        has_bound = hasattr(pipeline.model, "bound") and hasattr(pipeline.model.codec, "posterior")
        row["nats"] = -bound(pipeline.model, binary["test_images"][:limit], samples) if limit and has_bound else None
        own = pipeline.log_prob(made[:200].round() if has_bound else made[:200])[0]
        ends = pipeline.encode(grey["test_images"][:100])
        middles = torch.cat([path_between(ends[[i, i + 1]], 3)[1:2] for i in range(0, 100, 2)])
        middle = pipeline.decode(middles)
        between = pipeline.log_prob(middle.round() if has_bound else middle)[0]
        row["midpoints below 1st percentile"] = float((between < own.quantile(0.01)).float().mean())
        table.append(row)
        if out:
            shown = made[:10]
            pair = torch.cat([shown, nearest(shown, grey["train_images"])])
            write_signals(out / f"{pipeline.card.name}.neighbours.png", pair, pipeline.card, columns=10, overwrite=True)
    protocol = (
        f"judge: a convolutional classifier, {epochs} epochs of the real training pictures, right on "
        f"{100 * sure:.2f} % of the {len(grey['test_images'])} test pictures; as asked: share of {n} samples, equally "
        f"many of each class, that the judge takes for the class; entropy: of its answers for {n} samples without a "
        f"class ({math.log2(10):.2f} at most); nats: importance-weighted bound, {samples} samples, mean over {limit} "
        f"test pictures whose pixels were drawn black or white once by their grey, seed {SEED}; midpoints: half way "
        f"between 50 pairs of test pictures, share whose log-likelihood is below the 1st percentile of 200 samples'; "
        f"{threads} threads, wall clock; {where(['torch', 'zuko'])}"
    )
    report(table, protocol, {"as asked": 3, "s for 64": 2}, json_file, {})


if __name__ == "__main__":
    typer.run(main)
