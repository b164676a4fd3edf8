"""Measure how much of steady hum, tones and beeps denoisers of speech remove, alone and below speech.

python recipes/benchmarks/hum.py --data DIR --models speech,speech-best
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import soxr
import typer
from audio import AudioModels, Mixture, read_mixtures, system
from audio_common import FULL_BAND, LearnsNoise, Samples, System
from audio_measures import si_sdr, tone_energy
from audio_peers import PACKAGES, SPEECH_PEERS
from common import (
    JsonFile,
    Row,
    Threads,
    describe_environment,
    evenly_spaced,
    peers_option,
    report,
    select_systems,
    short_name,
    show_progress,
    use_threads,
)
from numpy.typing import NDArray

TONES: dict[str, tuple[float, ...]] = {  # Hz
    "100, 200, 300": (100, 200, 300),
    "120, 240, 360": (120, 240, 360),
    "60": (60,),
    "200": (200,),
    "400": (400,),
    "beeps 1000": (1000,),
}
LEVEL = 0.03  # amplitude of the first tone; the others fall as 1 / f
FLOOR = 0.0005  # rms of the white noise of a recorder, in tones alone
ADAPTATION_S = 4.0  # not measured: systems may take this long to tell a tone from a voice
SNR_DB = 10.0
LOWEST_DB = -100.0  # what is below it is silence


def tones(frequencies: Sequence[float], n: int, is_beeping: bool) -> tuple[Samples, NDArray[np.float64]]:
    """Return the sum of tones, (n,), and their sines and cosines, (n, 2 tones); beeps last half of each second."""
    t = np.arange(n) / FULL_BAND
    gate = (t % 1 < 0.5) if is_beeping else np.ones(n)
    basis = [gate * wave(2 * np.pi * f * t) for f in frequencies for wave in (np.sin, np.cos)]
    hum = gate * sum(LEVEL * frequencies[0] / f * np.sin(2 * np.pi * f * t + f) for f in frequencies)
    return hum.astype(np.float32), np.stack(basis, axis=1)


def speech_at_full_band(mixtures: Sequence[Mixture], seconds: float) -> Samples:
    """Return evenly spaced utterances of equal level, one after the other, (time,) at 48 kHz."""
    n = round(seconds * FULL_BAND)
    utterances: list[Samples] = []
    for mixture in evenly_spaced(mixtures, -(-n // (3 * FULL_BAND))):  # of 3 s in the mean
        x = soxr.resample(mixture.clean, mixture.rate, FULL_BAND)
        utterances.append(x * (0.05 / np.sqrt(np.mean(x**2))))
    joined = np.concatenate(utterances)
    return np.tile(joined, -(-n // len(joined)))[:n].astype(np.float32)


def run(start: System, signal: Samples, noise: Samples) -> Samples:
    """Denoise a signal from the initial state, given the noise alone where a system takes it."""
    denoise = start()
    if isinstance(denoise, LearnsNoise):
        denoise.learn_noise(noise, FULL_BAND)
    return denoise(signal, FULL_BAND)


def measure(start: System, kind: str, speech: Samples, floor: Samples) -> Row:
    """Return the change of the level of tones alone and below speech, and the SI-SDR of the speech."""
    hum, basis = tones(TONES[kind], len(speech), kind.startswith("beeps"))
    start_index = round(ADAPTATION_S * FULL_BAND)
    below = hum * np.float32(np.std(speech) / np.std(hum) * 10 ** (-SNR_DB / 20))

    def change(estimate: Samples, tone: Samples) -> float:
        energy = [tone_energy(x[start_index:], basis[start_index:]) for x in (estimate, tone)]
        return float(max(LOWEST_DB, 10 * np.log10(max(energy[0], 1e-20) / energy[1])))

    estimate = run(start, speech + below, below)
    return {
        "alone": change(run(start, hum + floor, hum + floor), hum),
        "below speech": change(estimate, below),
        "SI-SDR": si_sdr(estimate[start_index:], speech[start_index:]),
        "limit": change(speech, below),
    }


def main(
    data: Annotated[Path, typer.Option(help="Holds {speech,speech2,noise,noise2}/test.", metavar="DIR")],
    models: AudioModels = "speech,speech-best",
    peers: Annotated[str, peers_option(SPEECH_PEERS)] = "all",
    seconds: Annotated[float, typer.Option(help="Length of each signal.", min=8.0)] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of the white noise.")] = 0,
    threads: Threads = 1,
    json_file: JsonFile = None,
) -> None:
    """Measure the attenuation of hum, tones and beeps; print a table in Markdown and the protocol."""
    use_threads(threads)
    speech = speech_at_full_band(read_mixtures(data, None, seed)[0], seconds)
    floor = FLOOR * np.random.default_rng(seed).standard_normal(len(speech)).astype(np.float32)
    names = select_systems(models, peers, SPEECH_PEERS)
    rows: list[Row] = []
    for name in show_progress(names, "systems"):
        start = system(name)
        rows += [{"system": name, "tones": kind} | measure(start, kind, speech, floor) for kind in TONES]

    table = []
    for name in names:
        of_system = {row["tones"]: row for row in rows if row["system"] == name}
        for key in ("alone", "below speech"):
            cells = {f"{kind} Hz": round(of_system[kind][key], 1) for kind in TONES}
            sdr = float(np.mean([row["SI-SDR"] for row in of_system.values()])) if key == "below speech" else None
            table.append({"system": short_name(name), "tones": key} | cells | {"SI-SDR dB": sdr})
    limits = ", ".join(f"{row['limit']:.0f}" for row in rows[: len(TONES)])
    protocol = (
        f"change of level in dB of tones by projection on their sines and cosines, after {ADAPTATION_S:g} s of "
        f"{seconds:g} s at 48 kHz; first tone of amplitude {LEVEL:g}, others falling as 1 / f; beeps: 0.5 s of each "
        f"second; alone: with white noise of rms {FLOOR:g}; below speech: {SNR_DB:g} dB below test utterances of "
        f"equal level (whose own part in the projection is {limits} dB); SI-SDR: mean over the tones; noisered is "
        f"given the noise; seed {seed}; {threads} thread(s); {describe_environment([*PACKAGES, 'torch'])}"
    )
    digits = {f"{kind} Hz": 1 for kind in TONES} | {"SI-SDR dB": 1}
    report(table, protocol, digits, json_file, {"rows": rows})


if __name__ == "__main__":
    typer.run(main)
