"""A prior over speech against what recordings lose: to noise, to clipping and to a narrow line.

python recipes/benchmarks/restore_audio.py --data DIR/speech/test --model speech-prior
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from audio import mono
from common import JsonFile, Row, Threads, bar, clock_name, report, spread, use_threads, where

LEVEL = 0.06  # rms of speech, full scale 1.0
NOISE = 0.03  # of the noisy ones: 6 dB below the speech
CLIP = 0.08
BAND_HZ = 2000.0
DIGITS = {"SNR dB": 1, "LSD dB": 1, "PESQ": 2, "s/s": 2}


def loudest(path: Path, time: int, rate: int) -> Any:
    """The loudest stretch of a recording, at ``LEVEL``. Shape: (1, 1, time)."""
    import torch

    x = torch.from_numpy(mono(path, rate))[None]
    x = torch.nn.functional.pad(x, (0, max(0, time - x.shape[1])))
    hop = time // 8
    start = hop * int(torch.nn.functional.avg_pool1d(x.square()[None], time, hop).argmax())
    piece = x[None, :, start : start + time]
    return piece * LEVEL / piece.square().mean().sqrt().clamp_min(1e-4)


def quality(x: Any, clean: Any, rate: int) -> Row:
    """Signal to error and PESQ of waveforms, and how far the logarithms of their spectra lie apart (rms)."""
    from denoise import metrics
    from denoise.dsp import stft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row: Row = {"SNR dB": float(10 * (clean.square().mean() / (x - clean).square().mean()).log10())}
        row["PESQ"] = metrics.pesq(x[0, 0], clean[0, 0], rate)
    floor = 1e-3 * clean.square().mean().sqrt() * 256**0.5  # 60 dB below the speech
    levels = [20 * (stft(s[0], 512, 256).abs() + floor).log10() for s in (x, clean)]
    return row | {"LSD dB": float((levels[0] - levels[1]).square().mean(dim=1).sqrt().mean())}


def main(
    data: Annotated[Path, typer.Option(help="A folder of clean speech.", metavar="DIR")],
    model: Annotated[
        str, typer.Option(help="A prior over recordings: a name or a .safetensors file.")
    ] = "speech-prior",
    steps: Annotated[int, typer.Option(help="Levels of noise.")] = 30,
    limit: Annotated[int, typer.Option(help="Use at most this many recordings.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Seed of noise and draws.")] = 0,
    threads: Threads = 1,
    json_file: JsonFile = None,
    record: Annotated[bool, typer.Option("--record", help="Write the figures into the card, too.")] = False,
) -> None:
    """Measure each repair, and print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    import torch

    from denoise.files.audio import AUDIO_EXTENSIONS
    from denoise.files.find import find_files
    from denoise.noise import generator_for
    from denoise.probability_path import karras_sigmas
    from denoise.registry import load, locate
    from denoise.sampling.operators import Band, Clipped
    from denoise.sampling.posterior import diffpir, drawn_clean
    from denoise.weights import record_metrics

    torch.set_num_threads(threads)
    prior, card = load(model, kind="prior", modality="audio")
    rate, time = card.sample_rate or 16_000, card.shape[1]
    files = find_files(data, (".",), AUDIO_EXTENSIONS)
    sigmas = karras_sigmas(steps, 0.001, 1.0)
    rows: list[Row] = []
    for index, path in bar(spread([*enumerate(files)], limit), "recordings"):
        clean = loudest(path, time, rate)

        def add(lost: str, way: str, x: Any, began: float, clean: Any = clean) -> None:
            seconds = (clock() - began) * rate / time  # of what was done since, before it is judged
            rows.append({"lost to": lost, "way": way} | quality(x, clean, rate) | {"s/s": seconds})

        with torch.no_grad():
            noisy = clean + NOISE * torch.randn(clean.shape, generator=generator_for(seed, index, 0))
            began = clock()
            add("noise", "none", noisy, began)
            began = clock()
            add("noise", "mean", prior(noisy, torch.full((1,), NOISE)), began)
            began = clock()
            add(
                "noise",
                "draw",
                drawn_clean(prior, noisy, NOISE, steps, generator=generator_for(seed, index, 1))[0],
                began,
            )
            clipped, band = clean.clamp(-CLIP, CLIP), Band(BAND_HZ / rate)
            for lost, y, operator in (
                ("clipping", clipped, Clipped(clipped, CLIP)),
                ("band", band.forward(clean), band),
            ):
                began = clock()
                add(lost, "none", y, began)
                began = clock()
                generator = generator_for(seed, index, 2)
                start = y + sigmas[0] * torch.randn(clean.shape, generator=generator)
                add(lost, "diffpir", diffpir(prior, y, operator, 1e-4, sigmas, start=start, generator=generator), began)
    table: list[Row] = []
    for lost, way in dict.fromkeys((row["lost to"], row["way"]) for row in rows):
        own = [row for row in rows if (row["lost to"], row["way"]) == (lost, way)]
        table.append({"lost to": lost, "way": way} | {key: float(np.mean([row[key] for row in own])) for key in DIGITS})
    protocol = (
        f"{card.name}; the loudest {time / rate:.2f} s of {min(limit, len(files))} of {len(files)} recordings of "
        f"{data.resolve().parent.name}, {rate} Hz, rms {LEVEL:g} of full scale; noise: white, {NOISE:g}; clipping: at "
        f"{CLIP:g}; band: nothing above {BAND_HZ:g} Hz; {steps} levels from 1 to 0.001; LSD: rms distance "
        f"of log spectra, 60 dB; s/s: seconds for a second, {clock_name(threads)}; seed {seed}; {where(['torch'])}"
    )
    report(table, protocol, DIGITS, json_file, {"rows": rows})
    if record:
        record_metrics(locate(model), {"repairs": {"rows": table, "protocol": protocol}})


if __name__ == "__main__":
    typer.run(main)
