"""Measure the variational bound of priors that denoise on the noise levels of one DDPM, in bits per dimension.

python recipes/benchmarks/variational_bound.py --data mnist.npz --priors mnist-ddpm.safetensors,mnist-diffusion

The first prior is a DDPM, whose levels all of them take: the bound then compares their denoisers alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from common import JsonFile, Row, Threads, describe_environment, report, show_progress, use_threads
from generative import SEED, read_archive

BATCH_SIZE = 64


def main(
    data: Annotated[Path, typer.Option(help="train_ and test_images, with train_ and test_labels.", metavar="NPZ")],
    priors: Annotated[str, typer.Option(help="Names or .safetensors files, comma separated; a DDPM first.")],
    limit: Annotated[int, typer.Option(help="Test images, evenly spaced.", min=1)] = 1000,
    samples: Annotated[int, typer.Option(help="Timesteps that are evaluated for each image.", min=1)] = 100,
    threads: Threads = 2,
    json_file: JsonFile = None,
) -> None:
    """Measure the variational bound of priors that denoise; print a table in Markdown and the protocol."""
    use_threads(threads)
    import torch

    from denoise.errors import ConfigError
    from denoise.metrics import bits_per_dim
    from denoise.pipelines.prior import PriorPipeline
    from denoise.priors.ddpm import DDPM, LEVELS
    from denoise.protocols import DenoisingPrior
    from denoise.sampling.variational_bound import variational_bound

    torch.set_num_threads(threads)
    test = read_archive(data, binary=False)["test"]
    x = test[torch.linspace(0, len(test) - 1, min(limit, len(test))).round().long()]
    names = priors.split(",")
    ddpm = PriorPipeline(names[0], device="cpu").model
    if not isinstance(ddpm, DDPM):
        raise ConfigError(f"the first prior, {names[0]}, is no DDPM; its timesteps are the levels of the bound.")
    table: list[Row] = []
    for name in names:
        pipeline = PriorPipeline(name, device="cpu")
        model = pipeline.model
        if not isinstance(model, DenoisingPrior):
            raise ConfigError(f"prior {name} ({pipeline.card.architecture}) is no denoiser; leave it out.")
        generator, nats = torch.Generator().manual_seed(SEED), []
        with torch.no_grad():
            for batch in show_progress([*x.split(BATCH_SIZE)], pipeline.card.name):
                bound = variational_bound(
                    model,
                    batch,
                    ddpm.sigmas,
                    mean=ddpm.data_mean,
                    std=ddpm.data_std,
                    samples=samples,
                    interval=ddpm.config.interval,
                    levels=LEVELS,
                    generator=generator,
                )
                nats.append(bound)
        bits = bits_per_dim(torch.cat(nats), x[0].numel(), 1)
        error = float(bits.std()) / len(bits) ** 0.5
        table.append({"prior": pipeline.card.name, "bits/dim": float(bits.mean()), "standard error": error})
    protocol = (
        f"variational bound of 256 grey levels on the {ddpm.config.timesteps} noise levels of {names[0]} "
        f"({ddpm.config.schedule}), {min(samples, ddpm.config.timesteps - 1)} of them for each of {len(x)} test "
        f"images, the same noise for every prior, unconditional, seed {SEED}; {describe_environment(['torch'])}"
    )
    report(table, protocol, {"bits/dim": 3, "standard error": 3}, json_file, {})


if __name__ == "__main__":
    typer.run(main)
