"""What a speech model leaves as it was: clean speech, level, the top of the band, silence; and how fast it streams.

python recipes/benchmarks/fidelity.py --data DIR --models speech
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from audio import FULL_BAND, ROUND_S, Mix, Samples, noisy_speech, quality, read_mixes
from common import JsonFile, Models, Row, bar, clock_name, report, short, use_threads, where

CLEAN_DB = 45.0  # so far below speech the floor of a clean recording lies
PAUSE_DB = 45.0  # and so far below it speech is silent
SNR_DB = 5.0
QUIET_DB = -50.0
THIRDS = 1000 * 2 ** (np.arange(0, 13) / 3)  # 1 to 16 kHz


def levels(x: Samples, rate: int) -> Samples:
    """Levels in dB of frames of 20 ms. Shape: (time,) to (frames,)."""
    n = rate // 50
    return 10 * np.log10((x[: len(x) // n * n].reshape(-1, n) ** 2).mean(axis=1) + 1e-12)


def floor_db(x: Samples, rate: int) -> float:
    """How far the quietest tenth lies below the loudest twentieth."""
    frames = levels(x, rate)
    return float(np.percentile(frames, 95) - np.percentile(frames, 10))


def level_change(after: Samples, before: Samples) -> float:
    """Decibels by which the part of ``after`` that is ``before`` is louder."""
    return float(20 * np.log10(max(1e-6, after @ before / (before @ before))))


def thirds_change(after: Samples, before: Samples, rate: int) -> Samples:
    """Change of energy in dB of the third-octave bands from 1 to 16 kHz. Shape: (13,)."""
    hz = np.fft.rfftfreq(len(before), 1 / rate)
    energy = [np.abs(np.fft.rfft(x)) ** 2 for x in (after, before)]
    parts = [(hz >= f * 2 ** (-1 / 6)) & (hz < f * 2 ** (1 / 6)) for f in THIRDS]
    return np.array([10 * np.log10((energy[0][p].sum() + 1e-12) / (energy[1][p].sum() + 1e-12)) for p in parts])


def above_8_khz(x: Samples, rate: int, where: Samples) -> float:
    """Energy above 8 kHz of the frames of 20 ms that are chosen."""
    n = rate // 50
    frames = x[: len(x) // n * n].reshape(-1, n)[where]
    return float((np.abs(np.fft.rfft(frames * np.hanning(n)))[:, 8000 * n // rate :] ** 2).sum())


def figures(denoise: Any, mixes: list[Mix]) -> Iterator[tuple[str, float, str]]:
    """Every figure: its name, its value, and of how many utterances it is."""

    def mean(name: str, values: list[float], worst: Any = None) -> Iterator[tuple[str, float, str]]:
        how = f"{len(values)} utterances"
        if values:
            yield name, float(np.mean(values)), f"mean of {how}"
            if worst:
                yield f"{name}, {worst.__name__}", float(worst(values)), how

    clean = [mix for mix in mixes if floor_db(mix.clean, mix.rate) >= CLEAN_DB]
    rows = []
    for mix in bar(clean, "clean"):
        after = denoise(mix.clean, mix.rate)
        rows.append(quality(after, mix.clean, mix.rate, False) | {"level": level_change(after, mix.clean)})
    yield from mean("clean speech: PESQ", [row["pesq"] for row in rows], min)
    yield from mean("clean speech: SI-SDR dB", [row["si_sdr"] for row in rows], min)
    yield from mean("clean speech: level dB", [row["level"] for row in rows], min)

    noisy_rows: list[Row] = []
    pauses = []
    for mix in bar(mixes, "noisy"):
        noisy, target = mix.noisy(SNR_DB)
        gain = np.float32(10 ** (QUIET_DB / 20) / np.sqrt(np.mean(target**2)))
        loud, quiet = denoise(noisy, mix.rate), denoise(noisy * gain, mix.rate) / gain
        noisy_rows.append(
            {"level": level_change(loud, target)}
            | {f"loud {k}": v for k, v in quality(loud, target, mix.rate, False).items()}
            | {f"quiet {k}": v for k, v in quality(quiet, target, mix.rate, False).items()}
        )
        silent = levels(target, mix.rate) < np.percentile(levels(target, mix.rate), 95) - PAUSE_DB
        if mix.rate == FULL_BAND and silent.sum() >= 10:
            energies = [above_8_khz(x, mix.rate, silent) for x in (noisy, loud)]
            if energies[0] > 1e-6 * silent.sum():
                pauses.append(10 * np.log10(energies[0] / max(energies[1], 1e-12)))
    at = f"{SNR_DB:g} dB SNR"
    yield from mean(f"{at}: level of speech dB", [row["level"] for row in noisy_rows], min)
    for key in ("pesq", "si_sdr"):
        yield from mean(f"{at}: {key}", [row[f"loud {key}"] for row in noisy_rows])
        yield from mean(f"{at}, speech at {QUIET_DB:g} dBFS: {key}", [row[f"quiet {key}"] for row in noisy_rows])
    yield from mean("noise above 8 kHz in pauses falls by dB", pauses, min)

    wide = [mix for mix in clean if mix.rate == FULL_BAND and thirds_reach(mix)]
    bands = np.array([thirds_change(denoise(mix.clean, mix.rate), mix.clean, mix.rate) for mix in wide])
    for f, change in zip(THIRDS, bands.mean(axis=0) if len(wide) else [], strict=False):
        yield f"clean speech: third octave at {f:.0f} Hz, dB", float(change), f"mean of {len(wide)} utterances"

    silence = denoise(np.zeros(FULL_BAND, np.float32), FULL_BAND)
    yield "digital silence: largest sample", float(np.abs(silence).max()), "1 s"
    loudest = max(
        float(np.abs(denoise(np.clip(20 * mix.noisy(SNR_DB)[0], -1, 1), mix.rate)).max()) for mix in mixes[:20]
    )
    yield "input clipped by 26 dB: largest sample", loudest, "20 utterances"


def thirds_reach(mix: Mix) -> bool:
    """Whether a recording has anything at 16 kHz to lose."""
    spectrum = np.abs(np.fft.rfft(mix.clean)) ** 2
    hz = np.fft.rfftfreq(len(mix.clean), 1 / mix.rate)
    return bool(spectrum[(hz > 14_000) & (hz < 18_000)].sum() > 1e-7 * spectrum.sum())


def stream_factor(name: str, piece: Samples, clock: Any) -> float:
    """Seconds per second of sound in blocks of 10 ms."""
    from denoise import AudioStream

    stream = AudioStream(name, sample_rate=FULL_BAND, device="cpu")
    blocks = np.split(piece[: len(piece) // 480 * 480][None], len(piece) // 480, axis=1)
    for block in blocks[:100]:
        stream.push(block)
    began = clock()
    for block in blocks[100:]:
        stream.push(block)
    return float((clock() - began) * 100 / (len(blocks) - 100))


def main(
    data: Annotated[Path, typer.Option(help="Holds {speech,speech2,noise,noise2}/test.", metavar="DIR")],
    models: Models = "speech",
    limit: Annotated[int | None, typer.Option(help="Utterances, spread over all of them; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the noises and their segments.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Measure what must not change, and print a table in Markdown and the protocol."""
    clock = use_threads(1)
    from audio import system

    mixes, how = read_mixes(data, limit, seed)
    table: list[Row] = []
    for name in models.split(","):
        print(name, file=sys.stderr)
        rows = [*figures(system(name)(), mixes)]
        factor = stream_factor(name, noisy_speech(mixes, [SNR_DB], ROUND_S)[0], clock)
        rows.append(("stream of 10 ms blocks at 48 kHz: real-time factor", factor, clock_name(1)))
        table += [{"model": short(name), "figure": what, "value": value, "of": of} for what, value, of in rows]
    protocol = (
        f"{how}; clean: floor (quietest tenth of frames of 20 ms) {CLEAN_DB:g} dB or more below the loudest twentieth; "
        f"noisy: {SNR_DB:g} dB SNR; pauses: frames {PAUSE_DB:g} dB below the loudest twentieth of the clean speech; "
        f"scores at 16 kHz; {where(['torch', 'pesq'])}"
    )
    report(table, protocol, {"value": 3}, json_file, {})


if __name__ == "__main__":
    typer.run(main)
