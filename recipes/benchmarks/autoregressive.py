"""Measure cached sampling of autoregressive priors against the naive loop.

python recipes/benchmarks/autoregressive.py
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from common import Threads, use_threads

HERE = Path(__file__).parent.parent
FRACTION = 0.1  # of the entries, which the naive loop is timed for


def main(
    priors: Annotated[
        str, typer.Option(help="Names of recipes, comma separated; their networks are untrained.")
    ] = "mnist-pixelcnn,mnist-pixelrnn,mnist-row-lstm",
    n: Annotated[int, typer.Option(help="Samples at a time.")] = 1,
    threads: Threads = 1,
) -> None:
    """Print a table in Markdown: seconds of all entries of a sample, cached and naive, and their ratio.

    The naive loop is timed for the first tenth of the entries; each takes the same time.
    """
    use_threads(threads)
    import torch

    from denoise.priors.autoregressive import Autoregressive
    from denoise.registry import build
    from denoise.training.recipe import load_recipe

    torch.set_num_threads(threads)
    print("| prior | cached, s | naive, s | ratio |\n|---|---|---|---|")
    for name in priors.split(","):
        recipe = load_recipe(HERE / name / "recipe.toml")
        prior = build(recipe.architecture, recipe.model).eval()
        entries = prior.event_shape.numel()
        few = round(FRACTION * entries)
        x = torch.zeros(n, *prior.event_shape)
        with torch.no_grad():
            started = time.process_time()
            for _ in prior.scan(x, [None] * n):
                pass
            cached = time.process_time() - started
            started = time.process_time()
            for _ in zip(range(few), Autoregressive.scan(prior, x, [None] * n), strict=False):
                pass
            naive = (time.process_time() - started) * entries / few
        print(f"| {name} | {cached:.2f} | {naive:.1f} | {naive / cached:.0f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
