"""Make the clean sounds and the noise that the model general is trained on: music, nature, machines, hiss and hum.

    python recipes/data/music.py CLONES -o DIR [--soundfont FILE ...] [--noise FOLDER ...] [--only SET ...] [--seed N]

CLONES is a folder of git clones, bare or checked out, each named owner+name: sfzinstruments+SplendidGrandPiano,
sfzinstruments+karoryfer.weresax, sfzinstruments+body_percussion, freepats+spanish-classical-guitar,
skratchdot+philharmonia-samples, oramics+sampled, sonic-pi-net+sonic-pi, Tonejs+audio, karolpiczak+ESC-10,
redeclipse+sounds and OpenHV+OpenHV; one that is missing is left out. Each set is a folder of DIR with train/*.flac,
some with test/*.flac of sources that train lacks, and index.csv (source, licence and credit of each file, its
bandwidth and noise floor):

    music_rendered    generated scores, played by FluidSynth with General MIDI soundfonts
    music_sampled     generated scores, played with the recorded notes of the sample libraries
    music_tracks      pieces of the music of games and of loops
    sounds_real       recorded sounds of things, animals, voices and instruments whose own noise is 45 dB below them
    nature_generated  generated birds, insects, frogs, bells, beeps, engines, drops and steps
    noise_generated   generated noise: hiss, hum, whines, fans, crackle
    noise_stationary  the stationary ones of the recordings in the folders given with --noise (train/ and index.csv)

A piece that is silent, clipped or noisy is left out. The same seed gives the same files. Look at some spectrograms.
Needs numpy, scipy, soundfile, the program fluidsynth and soundfonts, in Debian the packages fluidsynth,
fluid-soundfont-gm and musescore-general-soundfont (both MIT).
"""

import argparse
import csv
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import midi
import nature
import noises
import numpy as np
import sampler
import scores
import soundfile
import sounds
from clones import Clone
from sources import SOUNDS, TRACKS

SOUNDFONTS = [
    Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
    Path("/usr/share/sounds/sf3/MuseScore_General_Full.sf3"),
]
RENDERED, SAMPLED, SAMPLED_TEST, NATURE, NATURE_TEST, NOISE = 480, 240, 24, 240, 16, 240  # pieces
SOUNDS_PER_PIECE = 3
STATIONARY = 2.0, 7.0, 27.0  # dB: the most variation of the spectrum, range of the level, and crest factor of noise
# Recordings that are stationary by these measures and yet what somebody records, and impulses on a pause.
SUBJECTS = re.compile(
    "clock|cricket|c[yi]cad|night|bird|velcro|squeak|sprinkler|drops|fire|chainsaw|nature|tent|underwater"
)
COLUMNS = ["file", "source", "licence", "credit", "seconds", "rate", "bandwidth_hz", "noise_floor_db", "gap_floor_db"]


class Piece(NamedTuple):
    """A sound of a set, (samples,), with its place and provenance."""

    name: str  # split and name, such as train/rendered-0001
    sound: np.ndarray
    rate: int
    source: str
    licence: str
    credit: str


def scale(rng: np.random.Generator, sound: np.ndarray) -> np.ndarray:
    """Return the sound with a random peak between -30 and -0.5 dBFS, mostly near the upper end."""
    return sound / np.abs(sound).max() * 10 ** (-(0.5 + min(rng.exponential(6), 29.5)) / 20)


def fade_out(rng: np.random.Generator, sound: np.ndarray, rate: int) -> np.ndarray:
    """Return the sound, in a fifth of the cases with a slow fade at the end."""
    if rng.random() < 0.2:
        samples = min(int(rng.uniform(1, 6) * rate), len(sound))
        sound[-samples:] *= np.linspace(1, 0, samples) ** rng.choice([1, 2, 3])
    return sound


def render_music(soundfonts: list[Path], seed: int) -> Iterator[Piece]:
    """Yield pieces of General MIDI instruments."""
    for index in range(RENDERED):
        rng = np.random.default_rng([seed, 1, index])
        # The first soundfont plays five of six pieces: it is uncompressed, hence faster.
        soundfont = soundfonts[0] if index % 6 < 5 else soundfonts[-1]
        seconds = float(rng.choice([8, 12, 12, 16]))
        room = None if rng.random() < 0.35 else float(rng.uniform(0.1, 0.95))
        sound, rate = midi.render(scores.compose(rng, seconds), seconds, soundfont, room)
        sound = fade_out(rng, sound, rate)
        if not sounds.is_noisy(sound, rate):
            yield Piece(f"train/rendered-{index:04d}", sound, rate, soundfont.name, "MIT", "generated score")


def play_samples(clones: Path, seed: int) -> Iterator[Piece]:
    """Yield pieces of recorded notes, each instrument in turn alone or with others."""
    folders = {i.repository: clones / i.repository.replace("/", "+") for i in sampler.INSTRUMENTS}
    with ExitStack() as stack:
        readers = {
            repository: stack.enter_context(closing(Clone(folder)))
            for repository, folder in folders.items()
            if folder.is_dir()
        }
        for split, count in (("train", SAMPLED), ("test", SAMPLED_TEST)):
            instruments = [
                i for i in sampler.INSTRUMENTS if i.held_out == (split == "test") and i.repository in readers
            ]
            players = [sampler.Sampler(instrument, readers[instrument.repository]) for instrument in instruments]
            for index in range(count if players else 0):
                rng = np.random.default_rng([seed, 2, split == "test", index])
                others = rng.choice(len(players), int(rng.choice([0, 0, 1, 2])), replace=False)
                band = [players[index % len(players)], *(players[k] for k in others)]
                seconds = float(rng.choice([8, 12, 12, 16]))
                sound = fade_out(rng, sampler.play(rng, band, seconds), sampler.RATE)
                used = [player.instrument for player in band]
                provenance = zip(*((i.repository, i.licence, i.credit) for i in used), strict=True)
                facts = [" + ".join(sorted(set(values))) for values in provenance]
                if not sound.any() or sounds.is_noisy(sound, sampler.RATE):
                    continue
                yield Piece(f"{split}/sampled-{index:04d}-{used[0].name}", sound, sampler.RATE, *facts)


def cut_tracks(clones: Path) -> Iterator[Piece]:
    """Yield up to eight pieces of 12 s of each track, or a shorter track whole."""
    for source in TRACKS:
        for split, path, sound, rate in source.find(clones):
            length = min(12 * rate, len(sound))
            count = int(np.clip(len(sound) // length, 1, 8))
            stem = re.sub("[^a-z0-9]+", "-", Path(path).stem.lower())
            for k, start in enumerate(np.linspace(0, len(sound) - length, count).astype(int)):
                name = f"{split}/{source.repository.split('/')[0].lower()}-{stem}-{k}"
                piece = sound[start : start + length]
                if length >= 3 * rate:
                    yield Piece(name, piece, rate, f"{source.repository} {path}", source.licence, source.credit)


def collect_sounds(clones: Path, seed: int) -> Iterator[Piece]:
    """Yield pieces of 10 s, each of up to three recorded sounds that repeat between silences."""
    for source in SOUNDS:
        pools: dict[str, list[tuple[str, np.ndarray]]] = {"train": [], "test": []}
        for split, path, recording, rate in source.find(clones):
            if rate == sampler.RATE and sounds.has_low_floor(recording, rate):
                sound = sampler.trim_note(recording / np.abs(recording).max(), rate, lowest=40.0)
                if len(sound) <= 2 * rate or sounds.noise_floor(sound, rate) <= source.highest_floor:
                    pools[split].append((path, sound[: 8 * rate]))
        for split, pool in pools.items():
            rng = np.random.default_rng([seed, 4, split == "test", zlib.crc32(source.repository.encode())])
            order = rng.permutation(len(pool))
            for index in range(len(pool) // SOUNDS_PER_PIECE):
                chosen = [pool[k] for k in order[index * SOUNDS_PER_PIECE : (index + 1) * SOUNDS_PER_PIECE]]
                sound, used = arrange_sounds(rng, [recording for _, recording in chosen], 10.0)
                origin = f"{source.repository} {', '.join(chosen[k][0] for k in used)}"
                name = f"{split}/{source.repository.split('/')[0].lower()}-{index:04d}"
                yield Piece(name, sound, sampler.RATE, origin, source.licence, source.credit)


def arrange_sounds(
    rng: np.random.Generator, recordings: list[np.ndarray], seconds: float
) -> tuple[np.ndarray, list[int]]:
    """Return recordings one after the other with silences between them, and the sorted indices of those that occur.

    Every recording comes once, as far as there is time, then they come in any order.
    """
    sound, start, order = np.zeros(int(seconds * sampler.RATE)), int(rng.uniform(0, 0.5) * sampler.RATE), []
    while start < len(sound):
        order.append(len(order) if len(order) < len(recordings) else int(rng.integers(0, len(recordings))))
        part = recordings[order[-1]][: len(sound) - start] * 10 ** (-rng.uniform(0, 15) / 20)
        sound[start : start + len(part)] += part
        start += int(len(part) * rng.uniform(0.7, 1)) + int((0.02 + rng.exponential(0.6)) * sampler.RATE)
    return sound, sorted(set(order))


def generate_nature(seed: int) -> Iterator[Piece]:
    """Yield generated scenes of creatures and machines."""
    for split, count in (("train", NATURE), ("test", NATURE_TEST)):
        for index in range(count):
            rng = np.random.default_rng([seed, 5, split == "test", index])
            sound = nature.compose(rng, float(rng.choice([8, 10, 12])), 48000)
            yield Piece(f"{split}/generated-{index:04d}", sound, 48000, "recipes/data/nature.py", "generated", "")


def generate_noise(seed: int) -> Iterator[Piece]:
    """Yield generated stationary noise."""
    for index in range(NOISE):
        sound = noises.compose(np.random.default_rng([seed, 6, index]), 10.0, 48000)
        yield Piece(f"train/generated-{index:04d}", sound, 48000, "recipes/data/noises.py", "generated", "")


def choose_noise(folders: list[Path]) -> Iterator[Piece]:
    """Yield the stationary noises among the training files of folders that recipes/data/speech.py has made."""
    for folder in folders:
        with open(folder / "index.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
        for row in sorted(rows, key=lambda row: row["file"]):
            sound, rate = soundfile.read(folder / row["file"], always_2d=True)
            mono, is_subject = sound.mean(axis=1), SUBJECTS.search(row["source"].lower())
            if len(mono) < 3 * rate or is_subject or not sounds.is_stationary(mono, rate, *STATIONARY):
                continue
            name = Path(row["file"]).with_suffix("").as_posix()
            yield Piece(name, mono, rate, f"{row['repository']} {row['source']}", row["licence"], row["credit"])


def write_set(folder: Path, pieces: Iterator[Piece], rng: np.random.Generator, is_noise: bool) -> None:
    """Write a set: its usable pieces at random levels, and their index.

    Args:
        folder: folder of the set; it gets train/, test/ and index.csv.
        pieces: pieces of the set.
        rng: source of the levels.
        is_noise: whether the pieces are noise, which are all scaled to -20 dBFS.
    """
    (folder / "train").mkdir(parents=True, exist_ok=True)
    (folder / "test").mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    with open(folder / "index.csv", "w", newline="", buffering=1) as file:
        index = csv.writer(file)
        index.writerow(COLUMNS)
        for piece in pieces:
            reason = "" if is_noise else sounds.find_fault(piece.sound)
            counts[reason or piece.name.split("/")[0]] += 1
            if reason:
                continue
            if is_noise:
                sound = piece.sound * min(0.1 / piece.sound.std(), 0.99 / np.abs(piece.sound).max())
            else:
                sound = scale(rng, piece.sound)
            soundfile.write(folder / f"{piece.name}.flac", sound, piece.rate, subtype="PCM_16")
            measures = f"{sounds.noise_floor(sound, piece.rate):.1f}", f"{sounds.gap_floor(sound, piece.rate):.1f}"
            facts = f"{len(sound) / piece.rate:.2f}", piece.rate, round(sounds.bandwidth(sound, piece.rate)), *measures
            index.writerow([f"{piece.name}.flac", piece.source, piece.licence, piece.credit, *facts])
    print(folder.name, dict(counts), flush=True)


def main() -> None:
    """Parse the command line and write the sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", type=Path, metavar="CLONES", help="folder of the clones")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the sets")
    parser.add_argument(
        "--soundfont", type=Path, nargs="+", default=SOUNDFONTS, metavar="FILE", help="the first plays most pieces"
    )
    parser.add_argument("--noise", type=Path, nargs="*", default=[], metavar="FOLDER", help="folders of recorded noise")
    parser.add_argument("--only", nargs="+", metavar="SET", help="sets to make (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sets = {
        "nature_generated": generate_nature(options.seed),
        "noise_generated": generate_noise(options.seed),
        "noise_stationary": choose_noise(options.noise),
        "music_tracks": cut_tracks(options.clones),
        "sounds_real": collect_sounds(options.clones, options.seed),
        "music_sampled": play_samples(options.clones, options.seed),
        "music_rendered": render_music(options.soundfont, options.seed),
    }
    chosen = options.only or list(sets)
    if unknown := set(chosen) - set(sets):
        parser.error(f"--only {' '.join(sorted(unknown))}: there is no such set; choose from {', '.join(sets)}")
    if "music_rendered" in chosen:
        if not shutil.which("fluidsynth"):
            parser.error("music_rendered needs the program fluidsynth; install it or name other sets with --only")
        for path in options.soundfont:
            if not path.is_file():
                parser.error(f"{path}: no such soundfont; install it or give another with --soundfont")
    for name in chosen:
        rng = np.random.default_rng([options.seed, zlib.crc32(name.encode())])
        write_set(options.output / name, sets[name], rng, name.startswith("noise"))


if __name__ == "__main__":
    main()
