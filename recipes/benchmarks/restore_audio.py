"""Restore speech: samplers of a prior on excerpts of its length, and `denoise audio --task` on recordings.

python recipes/benchmarks/restore_audio.py --data DIR/speech/test --model speech-prior
python recipes/benchmarks/restore_audio.py --data DIR/speech/test --noise DIR/noise/test --music DIR/music --pipeline
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
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


PIPELINE_DIGITS = {"SI-SDR dB": 1, "SDR dB": 1, "PESQ": 2, "LSD dB": 1, "s/s": 2}
SNR_DB = 5.0  # of noisy recordings
SDR_DB = 7.0  # of clipped ones
GAPS_MS, GAPS = (10, 20, 50), 2  # lengths of gaps, and gaps of each length in a recording
NARROW_HZ, WIDE_RATE = 8000, 16_000
LP_ORDER = 512


def sdr(x: Any, clean: Any) -> float:
    """Return the signal-to-distortion ratio in dB."""
    return float(10 * np.log10(np.square(clean).sum() / max(float(np.square(x - clean).sum()), 1e-12)))


def clip_to_sdr(x: Any, sdr_db: float) -> float:
    """Return the level at which clipping leaves a signal-to-distortion ratio, by bisection."""
    low, high = 1e-4, float(np.abs(x).max())
    for _ in range(40):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if sdr(x.clip(-middle, middle), x) > sdr_db else (middle, high)
    return middle


def filter_by_minimum_statistics(noisy: Any) -> Any:
    """Filter by Wiener's rule with the minima of the smoothed power over 1 s as the noise (after Martin, 2001)."""
    import torch
    from torch.nn import functional as F

    from denoise.dsp import istft, power, stft
    from denoise.sampling.coloured_noise import wiener

    x = F.pad(torch.from_numpy(noisy)[None], (0, -len(noisy) % 256))
    spectrum = stft(x, 512, 256)
    smooth = F.avg_pool1d(power(spectrum), 7, 1, 3, count_include_pad=False)
    minima = -F.max_pool1d(-smooth, 63, 1, 31)
    return istft(wiener(spectrum, 1.5 * minima + 1e-10), 512, 256)[0, : len(noisy)].numpy()


def burg(x: Any, order: int) -> Any:
    """Return the prediction error filter of Burg's method (1975), (order + 1,)."""
    a = np.eye(1, order + 1)[0]
    forward, backward = x[1:], x[:-1]
    for i in range(1, order + 1):
        k = -2 * (forward @ backward) / max(forward @ forward + backward @ backward, 1e-20)
        a[: i + 1] += k * a[: i + 1][::-1]
        forward, backward = (forward + k * backward)[1:], (backward + k * forward)[:-1]
    return a


def predict_from_both_sides(x: Any, start: int, end: int) -> Any:
    """Fill a gap by linear prediction (Burg) from both sides and fade from one into the other (Etter, 1996)."""

    def extrapolate(side: Any) -> Any:
        coefficients = -burg(side, LP_ORDER)[:0:-1]
        y = np.concatenate([side[-LP_ORDER:], np.zeros(end - start)])
        for i in range(end - start):
            y[LP_ORDER + i] = coefficients @ y[i : LP_ORDER + i]
        return y[LP_ORDER:]

    fade = np.cos(np.pi / 2 * (np.arange(end - start) + 0.5) / (end - start)) ** 2
    filled, context = x.astype(np.float64), 4 * LP_ORDER
    before, after = filled[max(0, start - context) : start], filled[end : end + context][::-1].copy()
    filled[start:end] = fade * extrapolate(before) + (1 - fade) * extrapolate(after)[::-1]
    return filled.astype(x.dtype)


def log_spectral_distance(x: Any, clean: Any) -> float:
    """Return the rms distance of log spectra in dB, within 60 dB of the speech."""
    import torch

    from denoise.dsp import stft

    signals = [torch.from_numpy(np.pad(each, (0, -len(each) % 256)))[None] for each in (x, clean)]
    floor = 1e-3 * float(np.sqrt(np.square(clean).mean())) * 256**0.5
    levels_db = [20 * (stft(each, 512, 256).abs() + floor).log10() for each in signals]
    return float((levels_db[0] - levels_db[1]).square().mean(dim=1).sqrt().mean())


def run_pipeline(
    data: Path,
    noise: Path | None,
    music: Path | None,
    model: str,
    limit: int,
    seconds: float,
    seed: int,
    clock: Any,
    tasks: set[str],
) -> list[Row]:
    """Measure each task of `denoise audio` on recordings at 16 kHz, beside methods without a model."""
    import soxr
    import torch
    from pesq import NoUtterancesError

    from denoise import AudioPipeline, AudioRestoreOptions, AudioRestorePipeline, metrics
    from denoise.files.audio import AUDIO_EXTENSIONS
    from denoise.files.find import find_files
    from denoise.noise import generator_for, scale_to_snr

    rate, rows = WIDE_RATE, []
    by_prior, classical, network = AudioRestorePipeline(model), AudioRestorePipeline(), AudioPipeline("speech")

    def excerpts(folder: Path, n: int) -> Iterator[tuple[int, Any]]:
        for index, path in show_progress(
            evenly_spaced([*enumerate(find_files(folder, (".",), AUDIO_EXTENSIONS))], n), folder.name
        ):
            x = read_mono(path, rate)[: round(seconds * rate)]
            if len(x) >= rate and np.sqrt(np.square(x).mean()) > 1e-3:
                yield index, x

    def add(task: str, method: str, work: Callable[[], Any], clean: Any, region: Any = slice(None)) -> None:
        started = clock()
        x = work()
        row: Row = {"task": task, "method": method, "s/s": (clock() - started) * rate / len(clean)}
        estimate, reference = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(clean)
        row["SI-SDR dB"] = float(metrics.si_sdr(estimate[None], reference[None]))
        row["SDR dB"], row["LSD dB"] = sdr(x[region], clean[region]), log_spectral_distance(x, clean)
        row["PESQ"] = np.nan
        if region == slice(None):  # gaps are too short for it
            with warnings.catch_warnings(), suppress(NoUtterancesError):
                warnings.simplefilter("ignore")
                row["PESQ"] = metrics.pesq(estimate, reference, rate)
        rows.append(row)

    def restored(pipeline: Any, x: Any, sample_rate: int = rate, **options: Any) -> Callable[[], Any]:
        return lambda: pipeline.array(x[None], sample_rate, AudioRestoreOptions(seed=seed, **options)).reshape(
            -1, len(x) * rate // sample_rate
        )[0]

    if noise is not None and "noise" in tasks:
        noises = find_files(noise, (".",), AUDIO_EXTENSIONS)
        for index, clean in excerpts(data, limit):
            generator = generator_for(seed, index)
            clip = read_mono(noises[int(torch.randint(len(noises), (), generator=generator))], rate)
            clip = np.tile(clip, -(-len(clean) // len(clip)))[: len(clean)]
            if np.sqrt(np.square(clip).mean()) < 1e-4:
                continue
            noisy = clean + scale_to_snr(torch.from_numpy(clean), torch.from_numpy(clip), SNR_DB).numpy()
            task = f"noise at {SNR_DB:g} dB"
            add(task, "-", lambda x=noisy: x, clean)
            add(task, "minimum statistics", lambda x=noisy: filter_by_minimum_statistics(x), clean)
            add(task, "prior", restored(by_prior, noisy), clean)
            add(
                task,
                "network `speech`",
                lambda x=noisy: np.concatenate([*network.stream([x[None]], rate)], axis=1)[0],
                clean,
            )
    few = max(1, limit // 2)
    for _, clean in excerpts(data, few) if "clipping" in tasks else ():
        level = clip_to_sdr(clean, SDR_DB)
        clipped = clean.clip(-level, level)
        task = f"clipping at {SDR_DB:g} dB"
        add(task, "-", lambda x=clipped: x, clean)
        add(task, "A-SPADE", restored(classical, clipped, task="declip"), clean)
        add(task, "prior, 10 steps", restored(by_prior, clipped, task="declip", steps=10), clean)
    for _, clean in excerpts(data, few) if "band" in tasks else ():
        even = clean[: len(clean) // 2 * 2]
        narrow = soxr.resample(even, rate, NARROW_HZ)
        plain = soxr.resample(narrow, NARROW_HZ, rate)
        task = f"{NARROW_HZ} Hz"
        add(task, "-", lambda x=plain: x, even)
        add(task, "prior", restored(by_prior, narrow, NARROW_HZ, task="extend", band=3800.0), even)
    for kind, folder in (("speech", data), ("music", music)):
        if folder is None or "gaps" not in tasks:
            continue
        for index, clean in excerpts(folder, few):
            for milliseconds in GAPS_MS:
                n, rng = round(milliseconds * rate / 1000), np.random.default_rng([seed, index])
                loud = np.convolve(np.square(clean), np.ones(n) / n, "same") > 0.3 * np.square(clean).mean()
                places = [i for i in rng.permutation(len(clean)) if 4096 < i < len(clean) - 4096 and loud[i]][:GAPS]
                for place in places:
                    start, region = place - n // 2, slice(place - n // 2, place - n // 2 + n)
                    damaged = clean.copy()
                    damaged[region] = 0
                    gaps = ((start / rate, (start + n) / rate),)
                    task = f"{kind}, gap of {milliseconds} ms"
                    add(
                        task,
                        "linear prediction",
                        lambda x=damaged, a=start, b=start + n: predict_from_both_sides(x, a, b),
                        clean,
                        region,
                    )
                    add(task, "autoregressive", restored(classical, damaged, task="inpaint", gaps=gaps), clean, region)
                    if kind == "speech":
                        add(
                            task,
                            "prior, 10 steps",
                            restored(by_prior, damaged, task="inpaint", gaps=gaps, steps=10),
                            clean,
                            region,
                        )
    return rows


def average(rows: list[Row], keys: tuple[str, str], figures: Iterable[str]) -> list[Row]:
    """Return the mean figures of the rows that share their keys."""
    table: list[Row] = []
    for values in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        group = [row for row in rows if tuple(row[key] for key in keys) == values]
        table.append(
            dict(zip(keys, values, strict=True))
            | {k: _mean([row[k] for row in group]) for k in figures}
            | {"n": len(group)}
        )
    return table


def _mean(values: list[Any]) -> float:
    """Return the mean of the values that could be measured, NaN without any."""
    measured = [value for value in values if not np.isnan(value)]
    return float(np.mean(measured)) if measured else float("nan")


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
    tasks: Annotated[str, typer.Option(help="Parts of --pipeline to measure.")] = "noise,clipping,band,gaps",
    noise: Annotated[Path | None, typer.Option(help="A folder of noise, with --pipeline.", metavar="DIR")] = None,
    music: Annotated[Path | None, typer.Option(help="A folder of music, with --pipeline.", metavar="DIR")] = None,
    pipeline: Annotated[
        bool, typer.Option("--pipeline", help="Measure the tasks of `denoise audio` on recordings at 16 kHz.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="Length of a recording, with --pipeline.")] = 3.0,
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
    if pipeline:
        table = average(
            run_pipeline(data, noise, music, model, limit, seconds, seed, clock, {*tasks.split(",")}),
            ("task", "method"),
            PIPELINE_DIGITS,
        )
        protocol = (
            f"{model}; the first {seconds:g} s of {limit} recordings of {data.resolve().parent.name} at {WIDE_RATE} Hz "
            f"(noise), and of {max(1, limit // 2)} (clipping, {NARROW_HZ} Hz, {GAPS} gaps of each length); SDR of a "
            f"gap: in it alone; LSD: rms distance of log spectra, 60 dB; s/s: real-time factor, "
            f"{describe_clock(threads)}; seed {seed}; {describe_environment(['torch'])}"
        )
        report(table, protocol, PIPELINE_DIGITS | {"n": 0}, json_file, {"rows": table})
        return
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
    table = average(rows, ("degradation", "method"), DIGITS)
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
