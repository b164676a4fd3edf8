"""Compare denoisers of music and sounds of nature in hiss and hum, and without noise.

    python recipes/benchmarks/general_audio.py --data DIR --models general

Peers with settings get the best of several on each piece and noise, by SI-SDR against the clean piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from audio import AudioModels, DenoiseModel, Mixture, read_mono, system
from audio_common import FULL_BAND, Denoise, LearnsNoise, Samples, System
from audio_measures import level_change, log_spectral_distance, si_sdr, third_octave_loss
from audio_peers import PACKAGES, Afftdn, NoiseRed, NoiseReduce, NoiseReduceProfile
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

if TYPE_CHECKING:
    from torch import Generator

KINDS = ("music", "nature", "sounds")
PROFILE_S = 2.0  # noise alone, given to the peers that take a profile
SILENT_DB = -60.0  # third octaves count while louder than the noise and white noise of this level below the piece

# settings of each peer; with several, the best one on each piece and noise counts
PEERS: dict[str, list[System]] = {
    "noisereduce": [partial(NoiseReduce, stationary=False)],
    "noisereduce-stationary": [partial(NoiseReduce, stationary=True)],
    "noisereduce-stationary-best": [
        partial(NoiseReduceProfile, n_std_thresh_stationary=threshold, prop_decrease=decrease)
        for threshold in (0.5, 1.5, 2.5)
        for decrease in (0.25, 0.5, 0.75, 1.0)
    ],
    "afftdn-best": [
        partial(Afftdn, f"nf={floor}:nr={reduction}") for floor in range(-75, -19, 5) for reduction in (12, 24, 48)
    ],
    "noisered-best": [partial(NoiseRed, amount) for amount in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)],
}


class DenoiseModelProfile(DenoiseModel):
    """A model of `denoise` that is given the noise alone."""

    def learn_noise(self, noise: Samples, rate: int) -> None:
        self.options["noise_profile"] = self.pipeline.measure_noise(noise[None], rate)


def model_systems(name: str) -> dict[str, Sequence[System]]:
    """Return a model by its name, and once more with a noise profile if it takes one."""
    from denoise.protocols import ArrayNoiseProfileNetwork

    start = system(name)
    denoise = start()
    systems = {name: [start]}
    if isinstance(denoise, DenoiseModel) and isinstance(denoise.pipeline.network, ArrayNoiseProfileNetwork):
        systems[f"{name}, noise given"] = [partial(DenoiseModelProfile, denoise.pipeline)]
    return systems


@dataclass(frozen=True)
class Condition:
    """A piece in noise of one kind and SNR; ``name`` is the column of the table."""

    name: str
    noisy: Samples
    clean: Samples
    profile: Samples  # of the same noise, another segment


def read_pieces(data: Path, limit: int | None, seconds: float) -> dict[str, Samples]:
    """Return the middle of each test piece that is not silent there, (time,) at 48 kHz, by file."""
    from denoise.files.audio import AUDIO_EXTENSIONS
    from denoise.files.find import find_files

    folders = sorted(path for kind in KINDS for path in data.glob(f"{kind}*/test"))
    if not folders:
        raise typer.BadParameter(f"{data}: expected folders such as music/test or nature/test in it.")
    n = round(seconds * FULL_BAND)
    pieces = {}
    for folder in folders:
        paths = find_files(data, [str(folder.relative_to(data))], AUDIO_EXTENSIONS)
        for path in evenly_spaced(paths, limit or len(paths)):
            x = read_mono(path, FULL_BAND)
            start = max(0, (len(x) - n) // 2)
            if np.std(x[start : start + n]) > 1e-4:
                pieces[path.relative_to(data).as_posix()] = x[start : start + n]
    return pieces


def make_noise(kind: str, n: int, generator: Generator) -> Samples:
    """Return hiss (power spectrum 1 / f ** 0 to 1) or hum of `denoise.noise`, (n,) at 48 kHz."""
    import torch

    from denoise import noise

    if kind == "hum":
        return noise.hum(n, FULL_BAND, generator).numpy()
    exponent = float(noise.uniform(0.0, 1.0, 1, generator))
    return noise.colour(torch.randn(n, generator=generator), exponent, FULL_BAND).numpy()


def conditions(clean: Samples, name: str, index: int, snrs: Sequence[float], seed: int) -> Iterator[Condition]:
    """Yield a piece in hiss and in hum of each SNR, and last without noise, with the profile of the faintest hiss."""
    from denoise.noise import generator_for

    generator = generator_for(seed, index)
    n_profile = round(PROFILE_S * FULL_BAND)
    for kind in ("hum", "hiss"):
        noise = make_noise(kind, n_profile + len(clean), generator)
        mixture = Mixture(name, FULL_BAND, clean, noise[n_profile:])
        for snr in sorted(snrs):
            noisy, target = mixture.noisy(snr)
            gain = np.std(noisy - target) / np.std(mixture.noise)
            condition = Condition(f"{kind} {snr:g} dB", noisy, target, noise[:n_profile] * gain)
            yield condition
    yield Condition("none", target, target, condition.profile)


def denoise_piece(start: System, condition: Condition) -> Samples:
    """Denoise one piece from the initial state, after the noise alone where a system takes it."""
    denoise: Denoise = start()
    if isinstance(denoise, LearnsNoise):
        denoise.learn_noise(condition.profile, FULL_BAND)
    return denoise(condition.noisy, FULL_BAND)


def measure(estimate: Samples, condition: Condition, rng: np.random.Generator) -> Row:
    """Return the figures of one denoised piece."""
    clean = condition.clean
    floor = rng.standard_normal(len(clean)).astype(np.float32) * np.std(clean) * 10 ** (SILENT_DB / 20)
    noise = condition.noisy - clean + floor
    return {
        "SI-SDR": si_sdr(estimate, clean),
        "LSD": log_spectral_distance(estimate, clean),
        "worst third octave": float(np.fmax.reduce(third_octave_loss(estimate, clean, noise, FULL_BAND))),
        "level": level_change(estimate, clean),
    }


def measure_piece(
    systems: Mapping[str, Sequence[System]], clean: Samples, name: str, index: int, snrs: Sequence[float], seed: int
) -> Iterator[Row]:
    """Yield one row per system and condition."""
    best: dict[str, int] = {}
    for condition in conditions(clean, name, index, snrs, seed):
        for system_name, settings in systems.items():
            # without noise no setting would be best: that of the faintest hiss, the condition before, stays
            tried = [best[system_name]] if condition.name == "none" else range(len(settings))
            estimates = {i: denoise_piece(settings[i], condition) for i in tried}
            best[system_name] = max(estimates, key=lambda i: si_sdr(estimates[i], condition.clean))
            row = measure(estimates[best[system_name]], condition, np.random.default_rng(seed))
            yield {"system": system_name, "file": name, "noise": condition.name, "setting": best[system_name]} | row


def table_of(rows: Sequence[Row], systems: Sequence[str]) -> list[Row]:
    """Return the medians over the pieces and, in brackets, the worst piece: one row per measure and system."""
    columns = list(dict.fromkeys(row["noise"] for row in rows))
    worst = {"SI-SDR": min, "LSD": max, "worst third octave": max, "level": lambda values: max(values, key=abs)}
    titles = {"SI-SDR": "SI-SDR, dB", "LSD": "log-spectral distance, dB", "level": "level, dB"}
    titles["worst third octave"] = "loss of the worst third octave, dB"

    def cell(key: str, name: str, column: str) -> str:
        values = [row[key] for row in rows if row["system"] == name and row["noise"] == column]
        values = [value for value in values if not np.isnan(value)]  # of pieces with a band above the noise
        return f"{np.median(values):z.1f} ({worst[key](values):z.1f})" if values else "-"

    return [
        {"measure": title, "system": short_name(name)} | {column: cell(key, name, column) for column in columns}
        for key, title in titles.items()
        for name in systems
    ]


def main(
    data: Annotated[Path, typer.Option(help="Holds {music*,nature*,sounds*}/test.", metavar="DIR")],
    models: AudioModels = "general",
    peers: Annotated[str, peers_option(PEERS)] = "all",
    snr: Annotated[str, typer.Option(help="dB, comma separated.")] = "5,15,25",
    limit: Annotated[int | None, typer.Option(help="Maximum number of pieces of each folder.", min=1)] = None,
    seconds: Annotated[float, typer.Option(help="Seconds from the middle of each piece.", min=2.0)] = 10.0,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    threads: Threads = 1,
    json_file: JsonFile = None,
) -> None:
    """Compare models with other denoisers on music and nature; print a table in Markdown and the protocol."""
    use_threads(threads)
    snrs = [float(level) for level in snr.split(",")]
    known = {name: settings[0] for name, settings in PEERS.items()}
    systems: dict[str, Sequence[System]] = {"noisy": [lambda: lambda x, rate: x]}
    for name in select_systems(models, peers, known):
        systems |= {name: PEERS[name]} if name in PEERS else model_systems(name)

    pieces = read_pieces(data, limit, seconds)
    rows: list[Row] = []
    for index, (name, clean) in enumerate(show_progress([*pieces.items()], "pieces")):
        rows += measure_piece(systems, clean, name, index, snrs, seed)
    tried = ", ".join(f"{name} of {len(settings)}" for name, settings in systems.items() if len(settings) > 1)
    protocol = (
        f"{len(pieces)} pieces, {seconds:g} s from the middle of each, mono, 48 kHz; hiss (power spectrum 1 / f**0 to "
        f"1 / f**1) and hum of denoise.noise, seed {seed}, SNR over the whole piece, attenuated where the mixture "
        f"would exceed full scale; medians over the pieces, in brackets the worst; best settings on each piece and "
        f"noise, by SI-SDR against the clean piece: {tried or 'none'}; without noise, setting and profile are those of "
        f"the faintest hiss; noise profile: {PROFILE_S:g} s of the same noise alone; third octaves of 79 Hz to 16 kHz "
        f"while louder than the noise and white noise {-SILENT_DB:g} dB below the piece together; "
        f"{threads} thread(s); {describe_environment([*PACKAGES, 'torch'])}"
    )
    report(table_of(rows, [*systems]), protocol, {}, json_file, {"rows": rows})


if __name__ == "__main__":
    typer.run(main)
