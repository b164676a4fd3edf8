"""Measure how exactly trained flows are inverted: the largest error of f^-1(f(x)) over test examples, in float32.

python recipes/benchmarks/inverses.py --data mnist.npz --priors mnist-flow,mnist-autoregressive-flow.safetensors
python recipes/benchmarks/inverses.py --data digits.npz --priors digits-audio-flow
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from common import JsonFile, Row, Threads, describe_environment, report, use_threads
from generative import read_archive

BATCH_SIZE = 50


def measure(flow: Any, x: Any) -> Row:
    """Return the errors of an inverse.

    Args:
        flow: a prior that encodes noise and decodes it.
        x: what it takes, (n, *event_shape).
    """
    import torch

    noise = torch.cat([flow.encode_noise(batch) for batch in x.split(BATCH_SIZE)])
    decoded = torch.cat([flow.decode_noise(batch) for batch in noise.split(BATCH_SIZE)])
    error = (decoded - x).abs()
    return {"entries": x[0].numel(), "std of x": float(x.std()), "max error": f"{float(error.max()):.1e}"}


def main(
    data: Annotated[Path, typer.Option(help="Archive with test signals; see generative.py.", metavar="NPZ")],
    priors: Annotated[str, typer.Option(help="Names or .safetensors files, comma separated.")],
    limit: Annotated[int, typer.Option(help="Test examples, evenly spaced.", min=1)] = 200,
    threads: Threads = 2,
    json_file: JsonFile = None,
) -> None:
    """Measure the inverses of flows; print a table in Markdown and the protocol."""
    use_threads(threads)
    import torch

    from denoise.errors import ConfigError
    from denoise.pipelines.prior import PriorPipeline
    from denoise.priors.latent import LatentPrior
    from denoise.protocols import HasLogProb, HasLogProbBound, NoiseEncoder

    torch.set_num_threads(threads)
    test = read_archive(data, binary=False)["test"]
    signals = test[torch.linspace(0, len(test) - 1, min(limit, len(test))).round().long()]
    table: list[Row] = []
    for name in priors.split(","):
        pipeline = PriorPipeline(name, device="cpu")
        model, x = pipeline.model, signals
        if isinstance(model, LatentPrior):
            with torch.no_grad():
                model, x = model.prior, torch.cat([model.codec.encode(batch) for batch in x.split(BATCH_SIZE)])
        if not (isinstance(model, NoiseEncoder) and isinstance(model, HasLogProb | HasLogProbBound)):
            raise ConfigError(f"prior {name} ({pipeline.card.architecture}) is no flow; leave it out.")
        table.append(
            {"prior": pipeline.card.name, "of": "latents" if x is not signals else "signals"} | measure(model, x)
        )
    protocol = (
        f"largest |f^-1(f(x)) - x| over all entries of {len(signals)} test examples, unconditional, float32; "
        f"{describe_environment(['torch', 'zuko'])}"
    )
    report(table, protocol, {"std of x": 3}, json_file, {})


if __name__ == "__main__":
    typer.run(main)
