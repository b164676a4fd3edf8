"""Compare denoisers of speech on the same mixtures: quality, delay, speed and memory.

    python recipes/benchmarks/audio.py --data DIR --models speech,DIR/gtcrn_simple.onnx

Imports of torch are local, so that the measured peak memory of a peer does not include it.
"""

from __future__ import annotations

import itertools
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soxr
import typer
from audio_common import FULL_BAND, WIDE_BAND, LearnsNoise, Samples, System
from audio_measures import measure_delay, quality
from audio_networks import StreamingNetwork
from audio_peers import PACKAGES, REFERENCE, SPEECH_PEERS
from common import (
    JsonFile,
    Row,
    Threads,
    describe_clock,
    describe_environment,
    evenly_spaced,
    peak_mib,
    peers_option,
    report,
    select_systems,
    short_name,
    show_progress,
    use_threads,
)

ROUND_S = 60.0  # seconds of audio per system and round
ALL_PACKAGES = [*PACKAGES, "speechmos", "pesq", "pystoi", "torch"]

AudioModels = Annotated[
    str, typer.Option(help="Names, .safetensors files, or .onnx files of GTCRN or UL-UNAS; comma separated.")
]


# The systems


class DenoiseModel:
    """A model of `denoise`: its posterior mean, or a posterior sample with ``steps`` and ``perception``."""

    def __init__(self, pipeline: Any, steps: str = "", perception: str = "1") -> None:
        self.pipeline = pipeline
        self.options: dict[str, Any] = {}
        if steps:
            self.options = {"seeds": [0], "steps": int(steps), "perception": float(perception)}

    def __call__(self, samples: Samples, rate: int) -> Samples:
        return np.concatenate([*self.pipeline.stream([samples[None]], rate, live=False, **self.options)], axis=1)[0]


def system(name: str) -> System:
    """Return a peer by its name, or a model by its name or file; NAME:5:0.3 sets 5 steps and a perception of 0.3."""
    if name in SPEECH_PEERS:
        return SPEECH_PEERS[name]
    if name.endswith(".onnx"):
        return partial(StreamingNetwork, Path(name))
    from denoise import AudioPipeline

    model, *sampling = name.split(":")
    if len(sampling) > 2 or not all(re.fullmatch(r"\d+(\.\d+)?", value) for value in sampling):
        raise typer.BadParameter(f"{name}: expected NAME, NAME:STEPS or NAME:STEPS:PERCEPTION.")
    return partial(DenoiseModel, AudioPipeline(model, device="cpu"), *sampling)


def needs_torch(name: str) -> bool:
    """Return whether a system is a model of `denoise`."""
    return name not in SPEECH_PEERS and not name.endswith(".onnx")


# The mixtures


@dataclass(frozen=True)
class Mixture:
    """An utterance and a segment of noise, both (time,) at ``rate`` Hz."""

    name: str
    rate: int
    clean: Samples
    noise: Samples

    def noisy(self, snr_db: float) -> tuple[Samples, Samples]:
        """Return the mixture and its clean speech, both attenuated where the mixture would exceed full scale."""
        import torch

        from denoise.noise import scale_to_snr

        noise = scale_to_snr(torch.from_numpy(self.clean), torch.from_numpy(self.noise), snr_db).numpy()
        peak = np.abs(self.clean + noise).max()
        scale = np.float32(min(1.0, 0.99 / peak))
        return (self.clean + noise) * scale, self.clean * scale


def read_mixtures(data: Path, limit: int | None, seed: int) -> tuple[list[Mixture], str]:
    """Pair each utterance with a random segment of noise, as `denoise evaluate` does, and describe the protocol."""
    import torch

    from denoise.files.audio import AUDIO_EXTENSIONS, AudioReader
    from denoise.files.find import find_files
    from denoise.noise import generator_for

    def find_audio(*names: str) -> list[Path]:
        return find_files(data, [name for name in names if (data / name).is_dir()] or names, AUDIO_EXTENSIONS)

    speech, noises = find_audio("speech/test", "speech2/test"), find_audio("noise/test", "noise2/test")
    speech = evenly_spaced(speech, limit or len(speech))
    read = lru_cache(read_mono)
    mixtures = []
    for index, path in enumerate(speech):
        with AudioReader(path) as reader:
            rate = FULL_BAND if reader.format.sample_rate >= 44_100 else WIDE_BAND
        clean = read_mono(path, rate)
        generator = generator_for(seed, index)
        clip = read(noises[int(torch.randint(len(noises), (), generator=generator))], rate)
        clip = np.tile(clip, -(-len(clean) // len(clip)))
        start = int(torch.randint(len(clip) - len(clean) + 1, (), generator=generator))
        segment = clip[start : start + len(clean)]
        if np.sqrt(np.mean(segment**2)) >= 1e-4:
            mixtures.append(Mixture(path.relative_to(data).as_posix(), rate, clean, segment))
    n_wide_band = sum(mixture.rate == WIDE_BAND for mixture in mixtures)
    return mixtures, (
        f"{len(mixtures)} utterances ({len(mixtures) - n_wide_band} mixed at 48 kHz, {n_wide_band} at 16 kHz; "
        f"{len(speech) - len(mixtures)} "
        f"with silent noise left out), each with one random segment of one of {len(noises)} noises, SNR over the "
        f"whole utterance, attenuated where the mixture would exceed full scale, seed {seed}"
    )


def read_mono(path: Path, rate: int) -> Samples:
    """Return the mean of the channels of an audio file at a sample rate, (time,)."""
    import torch

    from denoise.dsp import resample
    from denoise.files.audio import read_audio

    audio = read_audio(path)
    x = torch.from_numpy(audio.samples.mean(axis=0, keepdims=True).astype(np.float32))
    return resample(x, audio.format.sample_rate, rate)[0].numpy()


# Time and memory


def noisy_speech(mixtures: Sequence[Mixture], snrs: Sequence[float], seconds: float) -> list[Samples]:
    """Return at least three pieces of noisy speech at 48 kHz, ``seconds`` in total, of full band where available."""

    def utterances() -> Iterator[Samples]:
        full_band = [mixture for mixture in mixtures if mixture.rate == FULL_BAND] or mixtures
        for mixture, snr in itertools.cycle(itertools.product(full_band, snrs)):
            yield soxr.resample(mixture.noisy(snr)[0], mixture.rate, FULL_BAND)

    rounds = max(3, round(seconds / ROUND_S))
    n = -(-round(seconds * FULL_BAND) // rounds)
    pieces, total = [], 0
    for utterance in utterances():
        pieces.append(utterance)
        total += len(utterance)
        if total >= rounds * n:
            break
    return np.split(np.concatenate(pieces)[: rounds * n], rounds)


def real_time_factors(
    systems: Mapping[str, System], pieces: Sequence[Samples], clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return processing time by duration, for each system one value per piece.

    The systems take turns, so that other load on the machine affects all of them.
    """
    factors: dict[str, list[float]] = {name: [] for name in systems}
    for start in systems.values():
        start()(pieces[0][:FULL_BAND], FULL_BAND)  # warm-up, not timed
    for piece in pieces:
        for name, start in systems.items():
            denoise = start()
            started = clock()
            denoise(piece, FULL_BAND)
            factors[name].append((clock() - started) * FULL_BAND / len(piece))
    return factors


def denoise_once(name: str, piece: Samples) -> None:
    """Load a system and denoise one piece; its peak memory is measured in a fresh process."""
    system(name)()(piece, FULL_BAND)


# The report


def main(
    data: Annotated[Path, typer.Option(help="Holds {speech,speech2,noise,noise2}/test.", metavar="DIR")],
    models: AudioModels = "speech",
    peers: Annotated[str, peers_option(SPEECH_PEERS)] = "all",
    snr: Annotated[str, typer.Option(help="dB, comma separated.")] = "-5,0,5,10,15",
    limit: Annotated[int | None, typer.Option(help="Maximum number of utterances.", min=1)] = None,
    dnsmos_limit: Annotated[
        int | None, typer.Option(help="Maximum number of utterances scored by DNSMOS.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the mixtures.")] = 0,
    threads: Threads = 1,
    speed_minutes: Annotated[float, typer.Option(help="Minutes of audio for timing each system.", min=0.05)] = 5.0,
    json_file: JsonFile = None,
) -> None:
    """Compare models with other denoisers; print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    snrs = [float(level) for level in snr.split(",")]
    systems: dict[str, System] = {name: system(name) for name in select_systems(models, peers, SPEECH_PEERS)}

    mixtures, mixture_protocol = read_mixtures(data, limit, seed)
    examples = {mixture.rate: mixture for mixture in mixtures}.values()
    delays = {
        name: max((measure_delay(start(), mixture.clean, mixture.rate) for mixture in examples), key=abs)
        for name, start in systems.items()
    }
    for name, delay in delays.items():
        if delay:
            print(f"{name} has a delay of {delay} samples: its SI-SDR and STOI are invalid.", file=sys.stderr)

    pieces = noisy_speech(mixtures, snrs, 60 * speed_minutes)
    factors = real_time_factors(systems, pieces, clock)
    peaks_mib = {name: peak_mib(denoise_once, name, pieces[0], torch=needs_torch(name)) for name in systems}

    rows: list[Row] = []
    # DNSMOS takes most of the time: each utterance is scored at one SNR, so that all of them are
    dnsmos_utterances = evenly_spaced(mixtures, dnsmos_limit or len(mixtures))
    with_dnsmos = {(mixture.name, level) for mixture, level in zip(dnsmos_utterances, itertools.cycle(snrs))}
    for mixture, level in show_progress([*itertools.product(mixtures, snrs)], "quality"):
        noisy, clean = mixture.noisy(level)
        for name, start in {"noisy": lambda: lambda x, rate: x, **systems}.items():
            denoise = start()
            if isinstance(denoise, LearnsNoise):
                denoise.learn_noise(noisy - clean, mixture.rate)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # peers and metrics warn about very short speech
                row = quality(denoise(noisy, mixture.rate), clean, mixture.rate, (mixture.name, level) in with_dnsmos)
            rows.append({"system": name, "file": mixture.name, "snr_db": level} | row)

    table = [_table_row(name, rows, snrs, delays, factors, peaks_mib) for name in ("noisy", *systems)]
    protocol = (
        f"{mixture_protocol}; scores at 16 kHz, means over utterances and SNRs, DNSMOS (OVRL, SIG, BAK) of "
        f"{len(with_dnsmos)} utterances, each at one SNR in turn; "
        f"delay: of clean speech, in samples; RTF (real-time factor): median of {len(pieces)} rounds of "
        f"{len(pieces[0]) / FULL_BAND:g} s of noisy speech at 48 kHz, the systems in turn, loading excluded, "
        f"{describe_clock(threads)}; ratio: median over the rounds; "
        f"MiB: peak of a process that loads the system and denoises one round; {describe_environment(ALL_PACKAGES)}"
    )
    digits = {"STOI": 3, "RTF": 4, "MiB": 0}
    report(table, protocol, digits, json_file, {"rows": rows, "real_time_factors": factors})


def _table_row(
    name: str,
    rows: Sequence[Row],
    snrs: Sequence[float],
    delays: Mapping[str, int],
    factors: Mapping[str, Sequence[float]],
    peaks_mib: Mapping[str, float | None],
) -> Row:
    """Return the table row of one system; None stands for figures that were not measured."""
    system_rows = [row for row in rows if row["system"] == name]

    def mean(key: str, level: float | None = None) -> float | None:
        values = [row[key] for row in system_rows if key in row and level in (None, row["snr_db"])]
        return float(np.mean(values)) if values else None

    table_row: Row = {"system": short_name(name), "delay": delays.get(name)}
    titles = {"pesq": "PESQ", "stoi": "STOI", "si_sdr": "SI-SDR dB", "ovrl": "OVRL", "sig": "SIG", "bak": "BAK"}
    table_row |= {title: mean(key) for key, title in titles.items()}
    table_row |= {f"PESQ {level:g} dB": mean("pesq", level) for level in snrs}
    system_factors, reference = factors.get(name), factors.get(REFERENCE)
    table_row["RTF"] = float(np.median(system_factors)) if system_factors else None
    has_both = system_factors and reference
    table_row["ratio to DeepFilterNet 3"] = float(np.median(np.divide(system_factors, reference))) if has_both else None
    return table_row | {"MiB": peaks_mib.get(name)}


if __name__ == "__main__":
    typer.run(main)
