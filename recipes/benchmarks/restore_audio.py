"""Restore speech with a prior: denoising, declipping and bandwidth extension.

python recipes/benchmarks/restore_audio.py --data DIR/speech/test --model speech-prior
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from audio import read_mono
from common import (
    JsonFile,
    Row,
    Threads,
    describe_clock,
    describe_environment,
    evenly_spaced,
    report,
    show_progress,
    use_threads,
)

LEVEL = 0.06  # rms of the speech, full scale 1.0
NOISE = 0.03  # rms of the noise, 6 dB below the speech
CLIP = 0.08  # level of clipping
BAND_HZ = 2000.0
DIGITS = {"SNR dB": 1, "LSD dB": 1, "PESQ": 2, "s/s": 2}


def read_loudest(path: Path, time: int, rate: int) -> Any:
    """Return the loudest excerpt of a recording, scaled to ``LEVEL``, (1, 1, time)."""
    import torch

    x = torch.from_numpy(read_mono(path, rate))[None]
    x = torch.nn.functional.pad(x, (0, max(0, time - x.shape[1])))
    hop = time // 8
    start = hop * int(torch.nn.functional.avg_pool1d(x.square()[None], time, hop).argmax())
    excerpt = x[None, :, start : start + time]
    return excerpt * LEVEL / excerpt.square().mean().sqrt().clamp_min(1e-4)


def quality(x: Any, clean: Any, rate: int) -> Row:
    """Return signal-to-error ratio, PESQ and log-spectral distance (rms)."""
    from denoise import metrics
    from denoise.dsp import stft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row: Row = {"SNR dB": float(10 * (clean.square().mean() / (x - clean).square().mean()).log10())}
        row["PESQ"] = metrics.pesq(x[0, 0], clean[0, 0], rate)
    floor = 1e-3 * clean.square().mean().sqrt() * 256**0.5  # 60 dB below the speech
    levels_db = [20 * (stft(s[0], 512, 256).abs() + floor).log10() for s in (x, clean)]
    return row | {"LSD dB": float((levels_db[0] - levels_db[1]).square().mean(dim=1).sqrt().mean())}


def main(
    data: Annotated[Path, typer.Option(help="A folder of clean speech.", metavar="DIR")],
    model: Annotated[str, typer.Option(help="Name or .safetensors file of a prior of audio.")] = "speech-prior",
    steps: Annotated[int, typer.Option(help="Noise levels of the sampler.")] = 30,
    limit: Annotated[int, typer.Option(help="Maximum number of recordings.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the noise and the samplers.")] = 0,
    threads: Threads = 1,
    json_file: JsonFile = None,
    record: Annotated[bool, typer.Option("--record", help="Also store the figures in the model card.")] = False,
) -> None:
    """Measure each restoration; print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    import torch

    from denoise.files.audio import AUDIO_EXTENSIONS
    from denoise.files.find import find_files
    from denoise.noise import generator_for
    from denoise.probability_path import karras_sigmas
    from denoise.registry import load, locate
    from denoise.sampling.operators import Clipping, LowPass
    from denoise.sampling.posterior import diffpir, sample_posterior
    from denoise.weights import record_metrics

    torch.set_num_threads(threads)
    prior, card = load(model, kind="prior", modality="audio")
    rate, time = card.sample_rate or 16_000, card.shape[1]
    files = find_files(data, (".",), AUDIO_EXTENSIONS)
    sigmas = karras_sigmas(steps, 0.001, 1.0)
    rows: list[Row] = []
    for index, path in show_progress(evenly_spaced([*enumerate(files)], limit), "recordings"):
        clean = read_loudest(path, time, rate)

        def add(problem: str, method: str, x: Any, started: float, clean: Any = clean) -> None:
            seconds = (clock() - started) * rate / time  # before the metrics are computed
            rows.append({"degradation": problem, "method": method} | quality(x, clean, rate) | {"s/s": seconds})

        with torch.no_grad():
            noisy = clean + NOISE * torch.randn(clean.shape, generator=generator_for(seed, index, 0))
            started = clock()
            add("noise", "none", noisy, started)
            started = clock()
            add("noise", "mean", prior(noisy, torch.full((1,), NOISE)), started)
            started = clock()
            add(
                "noise",
                "sample",
                sample_posterior(prior, noisy, NOISE, steps, generator=generator_for(seed, index, 1))[0],
                started,
            )
            clipped, band = clean.clamp(-CLIP, CLIP), LowPass(BAND_HZ / rate)
            for problem, y, operator in (
                ("clipping", clipped, Clipping(clipped, CLIP)),
                ("band", band.forward(clean), band),
            ):
                started = clock()
                add(problem, "none", y, started)
                started = clock()
                generator = generator_for(seed, index, 2)
                start = y + sigmas[0] * torch.randn(clean.shape, generator=generator)
                add(
                    problem,
                    "diffpir",
                    diffpir(prior, y, operator, 1e-4, sigmas, start=start, generator=generator),
                    started,
                )
    table: list[Row] = []
    for problem, method in dict.fromkeys((row["degradation"], row["method"]) for row in rows):
        group = [row for row in rows if (row["degradation"], row["method"]) == (problem, method)]
        table.append(
            {"degradation": problem, "method": method}
            | {key: float(np.mean([row[key] for row in group])) for key in DIGITS}
        )
    protocol = (
        f"{card.name}; the loudest {time / rate:.2f} s of {min(limit, len(files))} of {len(files)} recordings of "
        f"{data.resolve().parent.name}, {rate} Hz, rms {LEVEL:g} of full scale; noise: white, {NOISE:g}; clipping: at "
        f"{CLIP:g}; band: low-pass at {BAND_HZ:g} Hz; {steps} levels from 1 to 0.001; LSD: rms distance "
        f"of log spectra, 60 dB; s/s: real-time factor, {describe_clock(threads)}; seed {seed}; "
        f"{describe_environment(['torch'])}"
    )
    report(table, protocol, DIGITS, json_file, {"rows": rows})
    if record:
        record_metrics(locate(model), {"restoration": {"rows": table, "protocol": protocol}})


if __name__ == "__main__":
    typer.run(main)
