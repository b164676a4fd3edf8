"""Measure priors of labelled pictures or sounds: likelihood, whether samples are what was asked for, variety, speed.

python recipes/benchmarks/priors.py --data mnist.npz --priors mnist-vae,mnist-diffusion
python recipes/benchmarks/priors.py --data digits.npz --priors digits-audio --epochs 40
python recipes/benchmarks/priors.py --data flowers48.npz --priors flowers --epochs 25
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from common import JsonFile, Row, Threads, bar, report, use_threads, where

HOLD_OUT = 10  # of an archive that is not parted, every tenth
SEED = 0  # of the one fixed draw of black and white, of the judge and of the samples
FEW = 200  # samples whose likelihood takes long


def read(path: Path, binary: bool) -> dict[str, Any]:
    """Train and test signals, full scale 1.0, and labels; ``binary``: each pixel drawn once by its grey.

    Of an archive that is not parted, every tenth is a test, as recipes hold them out.
    """
    import torch

    with np.load(path) as archive:
        arrays = {name: torch.from_numpy(archive[name]) for name in archive if archive[name].dtype.kind != "U"}
    if "images" in arrays:
        held_out = torch.arange(len(arrays["images"])) % HOLD_OUT == 0
        for part, rows in (("train", ~held_out), ("test", held_out)):
            arrays |= {f"{part}_images": arrays["images"][rows], f"{part}_labels": arrays["labels"][rows]}
    generator = torch.Generator().manual_seed(SEED)
    for part in ("train", "test"):
        sounds = arrays.pop(f"{part}_signals", None)
        if sounds is None:
            pixels = arrays.pop(f"{part}_images")
            x = (pixels[:, None] if pixels.ndim == 3 else pixels.movedim(-1, 1)).float() / 255
            arrays[part] = (torch.rand(x.shape, generator=generator) < x).float() if binary else x
        else:
            arrays[part] = sounds[:, None].float() / 32768
    return arrays


def seen(x: Any) -> Any:
    """What a judge looks at: pictures as they are, of sounds the logarithm of their spectra, 64 bands."""
    import torch

    if x.ndim == 4:
        return x
    from denoise.dsp import stft

    level = (torch.nn.functional.avg_pool2d(stft(x[:, 0], 256, 128).abs()[:, None], (2, 1)) + 1e-3).log()
    return (level - level.mean(dim=(1, 2, 3), keepdim=True)) / torch.tensor(2.0)


def train_judge(data: dict[str, Any], epochs: int) -> Any:
    """A convolutional classifier that has seen real training examples alone, moved by up to a sixteenth."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(SEED)
    x, labels = seen(data["train"]), data["train_labels"].long()
    places = (x.shape[2] // 4) * (x.shape[3] // 4)
    judge = nn.Sequential(
        nn.Conv2d(x.shape[1], 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * places, int(labels.max()) + 1),
    )  # fmt: skip
    steps = epochs * len(x) // 128
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in bar([*range(steps)], "judge"):
        rows = torch.randint(len(x), (128,))
        moves = [int(torch.randint(-(n // 16), n // 16 + 1, ())) for n in x.shape[2:]]
        loss = F.cross_entropy(judge(x[rows].roll(moves, dims=(2, 3))), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval().requires_grad_(False)


def accuracy(judge: Any, x: Any, labels: Any) -> float:
    """The share of examples that the judge takes for what they shall be."""
    import torch

    with torch.no_grad():
        found = torch.cat([judge(seen(part)).argmax(dim=1) for part in x.split(500)])
    return float((found == labels).float().mean())


def entropy_bits(judge: Any, x: Any) -> float:
    """Of the classes that the judge sees; 3.32 are ten of them, equally often."""
    import torch

    with torch.no_grad():
        found = torch.cat([judge(seen(part)).argmax(dim=1) for part in x.split(500)])
    shares = torch.bincount(found) / len(found)
    return float(-(shares * shares.clamp_min(1e-12).log2()).sum())


def bound(model: Any, x: Any, samples: int) -> float:
    """Mean importance-weighted bound in nats."""
    import torch

    generator, parts = torch.Generator().manual_seed(SEED), []
    with torch.no_grad():
        for part in bar([*x.split(20)], "bound"):
            parts.append(model.bound(part, samples, generator))
    return float(torch.cat(parts).mean())


def as_asked(pipeline: Any, judge: Any, n: int, guidance: float | None = None) -> float | None:
    """The share of ``n`` samples, equally many of each class, that the judge takes for the class asked for."""
    import torch

    classes = len(pipeline.card.classes)
    if not classes:
        return None
    each = n // classes
    labels = bar([*range(classes)], "samples")
    made = [pipeline.sample(each, label=i, seed=SEED + i, guidance=guidance) for i in labels]
    return accuracy(judge, torch.cat(made), torch.arange(classes).repeat_interleave(each))


def nearest(made: Any, train: Any) -> Any:
    """For each example that of the training that looks most like it. Shape: as made."""
    import torch

    return train[torch.cdist(seen(made).flatten(1), seen(train).flatten(1)).argmin(dim=1)]


def of_black_and_white(model: Any) -> bool:
    """Whether a prior has a bound of the likelihood of pictures in black and white."""
    codec: Any = getattr(model, "codec", None)
    return hasattr(codec, "posterior") and getattr(codec.config, "likelihood", "") == "bernoulli"


def unlikely_midpoints(pipeline: Any, made: Any, ends: Any) -> float | None:
    """Half way between pairs of real examples: the share less likely than the first percentile of samples.

    Likelihoods are of the latents, for a prior over those, and of pictures in black and white for a bound.
    """
    import torch

    from denoise.pipelines.prior import path_between
    from denoise.priors.latent import estimated

    model = pipeline.model
    inner = getattr(model, "prior", model)
    noise = pipeline.encode(ends)
    middles = torch.cat([path_between(noise[[i, i + 1]], 3)[1:2] for i in range(0, len(noise), 2)])
    middle = pipeline.decode(middles)
    if of_black_and_white(model):
        own, between = (pipeline.log_prob(x.round())[0] for x in (made[:FEW], middle))
    else:
        if not hasattr(inner, "log_prob"):
            return None
        made = made[:FEW] if estimated(inner) else made
        own, between = (_log_prob(inner, pipeline.latents(x) if inner is not model else x) for x in (made, middle))
    return float((between < own.quantile(0.01)).float().mean())


def _log_prob(prior: Any, x: Any) -> Any:
    import torch

    from denoise.priors.latent import estimated

    return prior.log_prob(x, **({"generator": torch.Generator().manual_seed(SEED)} if estimated(prior) else {}))


def main(
    data: Annotated[
        Path, typer.Option(help="train_ and test_images (or _signals), with train_ and test_labels.", metavar="NPZ")
    ],
    priors: Annotated[str, typer.Option(help="Names or .safetensors files, comma separated.")],
    n: Annotated[int, typer.Option(help="Samples to judge, of each prior.")] = 1000,
    limit: Annotated[int, typer.Option(help="Test pictures of the bound; 0 leaves it out.")] = 10_000,
    samples: Annotated[int, typer.Option(help="Of the importance-weighted bound.")] = 500,
    epochs: Annotated[int, typer.Option(help="Of the judge.")] = 4,
    threads: Threads = 2,
    out: Annotated[
        Path | None, typer.Option(help="Write samples above their nearest neighbours into NAME/neighbours.png here.")
    ] = None,
    json_file: JsonFile = None,
    record: Annotated[bool, typer.Option("--record", help="Write the figures into the cards, too.")] = False,
) -> None:
    """Measure priors of labelled pictures or sounds, and print a table in Markdown and the protocol."""
    use_threads(threads)
    import torch

    from denoise.pipelines.prior import PriorPipeline
    from denoise.registry import locate
    from denoise.weights import record_metrics

    torch.set_num_threads(threads)
    grey, binary = read(data, False), read(data, True)
    judge = train_judge(grey, epochs)
    sure = accuracy(judge, grey["test"], grey["test_labels"])
    table: list[Row] = []
    for name in priors.split(","):
        pipeline = PriorPipeline(name, device="cpu")
        row: Row = {"prior": pipeline.card.name, "parameters": pipeline.card.parameters}
        pipeline.sample(2)
        began = time.perf_counter()
        pipeline.sample(64)
        row["s for 64"] = time.perf_counter() - began
        row["guidance"] = getattr(getattr(pipeline.model, "prior", pipeline.model), "guidance", None)
        row["as asked"] = as_asked(pipeline, judge, n)
        row["unguided"] = as_asked(pipeline, judge, n, 1.0) if row["guidance"] not in (None, 1.0) else None
        made = pipeline.sample(n, seed=SEED)
        row["entropy bits"] = entropy_bits(judge, made)
        bounded = limit and of_black_and_white(pipeline.model)
        row["nats"] = -bound(pipeline.model, binary["test"][:limit], samples) if bounded else None
        row["midpoints below 1st percentile"] = unlikely_midpoints(pipeline, made, grey["test"][:100])
        table.append(row)
        if out:
            shown = made[:10]
            pair = torch.cat([shown, nearest(shown, grey["train"])])
            pipeline.write(out / pipeline.card.name / "neighbours.png", pair, columns=10, overwrite=True)
    classes = len(grey["test_labels"].unique())
    bounds = (
        f"nats: bound of -log p, importance-weighted, {samples} samples, mean over {limit} test pictures whose pixels "
        f"were drawn black or white once by their grey, seed {SEED}; "
    )
    protocol = (
        f"judge: a convolutional classifier, {epochs} epochs of the real training examples, right on "
        f"{100 * sure:.2f} % of the {len(grey['test'])} test examples; as asked: share of {n} samples, equally "
        f"many of each class, that the judge takes for the class, guided as by default; unguided: with guidance 1; "
        f"entropy: of its answers for {n} samples without a class ({math.log2(classes):.2f} at most); "
        f"{bounds * bool(limit)}midpoints: half way between 50 pairs of test "
        f"examples, share whose log-likelihood is below the 1st percentile of these samples' ({FEW} of "
        f"them for a bound or an estimate); {threads} threads, "
        f"wall clock; {where(['torch', 'zuko'])}"
    )
    report(table, protocol, {"as asked": 3, "unguided": 3, "s for 64": 2}, json_file, {})
    if record:
        for name, row in zip(priors.split(","), table, strict=True):
            numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
            record_metrics(locate(name), {"prior": {"rows": [numbers], "protocol": protocol}})


if __name__ == "__main__":
    typer.run(main)
