"""Measure what a speech model should preserve: clean speech, level, the top of the band, silence; and its speed.

python recipes/benchmarks/fidelity.py --data DIR --models speech
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from audio import ROUND_S, Mixture, noisy_speech, read_mixtures
from audio_common import FULL_BAND, Samples
from audio_measures import level_change, quality, third_octave_bands
from common import (
    JsonFile,
    Models,
    Row,
    describe_clock,
    describe_environment,
    report,
    short_name,
    show_progress,
    use_threads,
)
from numpy.typing import NDArray

CLEAN_DB = 45.0  # minimum distance between speech and noise floor of a clean recording
PAUSE_DB = 45.0  # level of pauses below the speech
SNR_DB = 5.0
QUIET_DB = -50.0
THIRDS = 1000 * 2 ** (np.arange(0, 13) / 3)  # 1 to 16 kHz


def frame_levels(x: Samples, rate: int) -> Samples:
    """Return the levels in dB of frames of 20 ms: (time,) to (frames,)."""
    n = rate // 50
    return 10 * np.log10((x[: len(x) // n * n].reshape(-1, n) ** 2).mean(axis=1) + 1e-12)


def floor_db(x: Samples, rate: int) -> float:
    """Return the distance in dB between the quietest tenth and the loudest twentieth of the frames."""
    frames = frame_levels(x, rate)
    return float(np.percentile(frames, 95) - np.percentile(frames, 10))


def third_octave_change(estimate: Samples, clean: Samples, rate: int) -> Samples:
    """Return the change of energy in dB of the third-octave bands from 1 to 16 kHz, (13,)."""
    hz = np.fft.rfftfreq(len(clean), 1 / rate)
    energy = [np.abs(np.fft.rfft(x)) ** 2 for x in (estimate, clean)]
    bands = third_octave_bands(hz, THIRDS)
    return np.array(
        [10 * np.log10((energy[0][band].sum() + 1e-12) / (energy[1][band].sum() + 1e-12)) for band in bands]
    )


def energy_above_8_khz(x: Samples, rate: int, frame_mask: NDArray[np.bool_]) -> float:
    """Return the energy above 8 kHz of the selected frames of 20 ms."""
    n = rate // 50
    frames = x[: len(x) // n * n].reshape(-1, n)[frame_mask]
    return float((np.abs(np.fft.rfft(frames * np.hanning(n)))[:, 8000 * n // rate :] ** 2).sum())


def figures(denoise: Any, mixtures: list[Mixture]) -> Iterator[tuple[str, float, str]]:
    """Yield the name and value of every figure, and the number of utterances."""

    def mean(name: str, values: list[float], worst: Any = None) -> Iterator[tuple[str, float, str]]:
        utterances = f"{len(values)} utterances"
        if values:
            yield name, float(np.mean(values)), f"mean of {utterances}"
            if worst:
                yield f"{name}, {worst.__name__}", float(worst(values)), utterances

    clean = [mixture for mixture in mixtures if floor_db(mixture.clean, mixture.rate) >= CLEAN_DB]
    rows = []
    for mixture in show_progress(clean, "clean"):
        estimate = denoise(mixture.clean, mixture.rate)
        row = quality(estimate, mixture.clean, mixture.rate, False)
        rows.append(row | {"level": level_change(estimate, mixture.clean)})
    yield from mean("clean speech: PESQ", [row["pesq"] for row in rows], min)
    yield from mean("clean speech: SI-SDR dB", [row["si_sdr"] for row in rows], min)
    yield from mean("clean speech: level dB", [row["level"] for row in rows], min)

    noisy_rows: list[Row] = []
    pauses = []
    for mixture in show_progress(mixtures, "noisy"):
        noisy, target = mixture.noisy(SNR_DB)
        gain = np.float32(10 ** (QUIET_DB / 20) / np.sqrt(np.mean(target**2)))
        loud, quiet = denoise(noisy, mixture.rate), denoise(noisy * gain, mixture.rate) / gain
        noisy_rows.append(
            {"level": level_change(loud, target)}
            | {f"loud {k}": v for k, v in quality(loud, target, mixture.rate, False).items()}
            | {f"quiet {k}": v for k, v in quality(quiet, target, mixture.rate, False).items()}
        )
        silent = frame_levels(target, mixture.rate) < np.percentile(frame_levels(target, mixture.rate), 95) - PAUSE_DB
        if mixture.rate == FULL_BAND and silent.sum() >= 10:
            energies = [energy_above_8_khz(x, mixture.rate, silent) for x in (noisy, loud)]
            if energies[0] > 1e-6 * silent.sum():
                pauses.append(10 * np.log10(energies[0] / max(energies[1], 1e-12)))
    at = f"{SNR_DB:g} dB SNR"
    yield from mean(f"{at}: level of speech dB", [row["level"] for row in noisy_rows], min)
    for key in ("pesq", "si_sdr"):
        yield from mean(f"{at}: {key}", [row[f"loud {key}"] for row in noisy_rows])
        yield from mean(f"{at}, speech at {QUIET_DB:g} dBFS: {key}", [row[f"quiet {key}"] for row in noisy_rows])
    yield from mean("noise above 8 kHz in pauses falls by dB", pauses, min)

    full_band = [mixture for mixture in clean if mixture.rate == FULL_BAND and reaches_16_khz(mixture)]
    changes = np.array(
        [
            third_octave_change(denoise(mixture.clean, mixture.rate), mixture.clean, mixture.rate)
            for mixture in full_band
        ]
    )
    for f, change in zip(THIRDS, changes.mean(axis=0) if full_band else [], strict=False):
        yield f"clean speech: third octave at {f:.0f} Hz, dB", float(change), f"mean of {len(full_band)} utterances"

    silence = denoise(np.zeros(FULL_BAND, np.float32), FULL_BAND)
    yield "digital silence: largest sample", float(np.abs(silence).max()), "1 s"
    peak = max(
        float(np.abs(denoise(np.clip(20 * mixture.noisy(SNR_DB)[0], -1, 1), mixture.rate)).max())
        for mixture in mixtures[:20]
    )
    yield "input clipped by 26 dB: largest sample", peak, "20 utterances"


def reaches_16_khz(mixture: Mixture) -> bool:
    """Return whether a recording has energy at 16 kHz."""
    spectrum = np.abs(np.fft.rfft(mixture.clean)) ** 2
    hz = np.fft.rfftfreq(len(mixture.clean), 1 / mixture.rate)
    return bool(spectrum[(hz > 14_000) & (hz < 18_000)].sum() > 1e-7 * spectrum.sum())


def stream_factor(name: str, piece: Samples, clock: Any) -> float:
    """Return the real-time factor of a stream in blocks of 10 ms."""
    from denoise import AudioStream

    stream = AudioStream(name, sample_rate=FULL_BAND, device="cpu")
    blocks = np.split(piece[: len(piece) // 480 * 480][None], len(piece) // 480, axis=1)
    for block in blocks[:100]:
        stream.push(block)
    started = clock()
    for block in blocks[100:]:
        stream.push(block)
    return float((clock() - started) * 100 / (len(blocks) - 100))


def main(
    data: Annotated[Path, typer.Option(help="Holds {speech,speech2,noise,noise2}/test.", metavar="DIR")],
    models: Models = "speech",
    limit: Annotated[int | None, typer.Option(help="Maximum number of utterances; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noises and their segments.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Measure what should not change; print a table in Markdown and the protocol."""
    clock = use_threads(1)
    from audio import system

    mixtures, mixture_protocol = read_mixtures(data, limit, seed)
    table: list[Row] = []
    for name in models.split(","):
        print(name, file=sys.stderr)
        rows = [*figures(system(name)(), mixtures)]
        factor = stream_factor(name, noisy_speech(mixtures, [SNR_DB], ROUND_S)[0], clock)
        rows.append(("stream of 10 ms blocks at 48 kHz: real-time factor", factor, describe_clock(1)))
        table += [{"model": short_name(name), "figure": figure, "value": value, "of": of} for figure, value, of in rows]
    protocol = (
        f"{mixture_protocol}; clean: floor (quietest tenth of frames of 20 ms) {CLEAN_DB:g} dB or more below the "
        f"loudest twentieth; "
        f"noisy: {SNR_DB:g} dB SNR; pauses: frames {PAUSE_DB:g} dB below the loudest twentieth of the clean speech; "
        f"scores at 16 kHz; {describe_environment(['torch', 'pesq'])}"
    )
    report(table, protocol, {"value": 3}, json_file, {})


if __name__ == "__main__":
    typer.run(main)
