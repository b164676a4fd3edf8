"""Measure cached sampling of autoregressive priors against the naive loop.

python recipes/benchmarks/autoregressive.py
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from common import JsonFile, Row, Threads, describe_clock, describe_environment, report, use_threads

HERE = Path(__file__).parent.parent
FRACTION = 0.1  # of the entries, which the naive loop is timed for


def main(
    priors: Annotated[
        str, typer.Option(help="Names of recipes, comma separated; their networks are untrained.")
    ] = "mnist-pixelcnn,mnist-pixelrnn,mnist-row-lstm",
    n: Annotated[int, typer.Option("-n", help="Samples at a time.", min=1)] = 1,
    threads: Threads = 1,
    json_file: JsonFile = None,
) -> None:
    """Print seconds of all entries of a sample, cached and naive, and their ratio."""
    clock = use_threads(threads)
    import torch

    from denoise.registry import build
    from denoise.training.recipe import load_recipe

    torch.set_num_threads(threads)
    table = []
    for name in priors.split(","):
        recipe = load_recipe(HERE / name / "recipe.toml")
        prior = build(recipe.architecture, recipe.model).eval().requires_grad_(False)
        table.append({"prior": name, **time_scans(prior, n, clock)})
    protocol = (
        f"untrained networks of the recipes, {n} sample(s) at a time; each scan after a first row that is not "
        f"timed; naive: the first {FRACTION:.0%} of the entries, each of which takes the same time; "
        f"{describe_clock(threads)}; {describe_environment(['torch'])}"
    )
    report(table, protocol, {"naive, s": 1, "ratio": 0}, json_file, {})


def time_scans(prior: Any, n: int, clock: Callable[[], float]) -> Row:
    """Return the seconds of cached and naive sampling of all entries, without the choice of the levels.

    Args:
        prior: autoregressive prior.
        n: samples at a time.
        clock: clock in seconds.
    """
    import torch

    from denoise.priors.autoregressive import Autoregressive

    x, entries = torch.zeros(n, *prior.event_shape), prior.event_shape.numel()
    n_timed = max(1, round(FRACTION * entries))

    def seconds(scan: Callable[..., Any], count: int) -> float:
        started = clock()
        deque(islice(scan(x, [None] * n), count), maxlen=0)
        return clock() - started

    def naive(*arguments: Any) -> Any:
        return Autoregressive.scan(prior, *arguments)

    seconds(prior.scan, prior.event_shape[-1])
    seconds(naive, 1)
    cached, all_naive = seconds(prior.scan, entries), seconds(naive, n_timed) * entries / n_timed
    return {"cached, s": cached, "naive, s": all_naive, "ratio": all_naive / cached}


if __name__ == "__main__":
    typer.run(main)
