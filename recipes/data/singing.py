"""Turn recordings of speech into singing, as training data of the classifier `audio-kind`.

The WORLD vocoder gives utterances the pitch and the rhythm of random melodies: vowels are held for the length of a
note, with vibrato and glides between notes, and consonants keep their length.

    pip install ".[train]" pyworld "setuptools<81"
    python recipes/data/singing.py DIR/audio/speech/train DIR/audio/speech2/train -o DIR/audio/singing/train

Reference: WORLD: A Vocoder-Based High-Quality Speech Synthesis System for Real-Time Applications, Morise, Yokomori and
Ozawa, 2016.
"""

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyworld
import soundfile
import soxr
from numpy.typing import NDArray

RATE = 16_000
FRAME_S = 0.005
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))
MIN_VOICED = 6  # frames: shorter stretches of voice keep their length and get the pitch of the note before

Floats = NDArray[np.float64]


def read(path: Path) -> Floats:
    """Read a recording as mono at `RATE`."""
    x, rate = soundfile.read(path, always_2d=True)
    mono: Floats = soxr.resample(x.mean(axis=1), rate, RATE)
    return np.ascontiguousarray(mono)


def segments(voiced: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield start and end of stretches of frames that are all voiced or all not."""
    edges = [0, *(np.flatnonzero(np.diff(voiced)) + 1).tolist(), len(voiced)]
    yield from pairwise(edges)


def melody(median_hz: float, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Yield notes without end: pitch in Hz and length in seconds, near a voice's own pitch, in steps of a scale."""
    scale, key = SCALES[rng.integers(len(SCALES))], rng.uniform(-3, 8)
    tones = np.array([12 * octave + tone for octave in (-1, 0, 1) for tone in scale]) + key
    beat, index = rng.uniform(0.25, 0.7), int(np.abs(tones).argmin())
    while True:
        index = int(np.clip(index + rng.integers(-2, 3), 0, len(tones) - 1))
        yield median_hz * 2 ** (tones[index] / 12), beat * rng.choice((0.5, 1, 1, 1, 2, 2, 3))


def sing(x: Floats, rng: np.random.Generator) -> Floats | None:
    """Return speech as singing; None if too little of it is voiced."""
    f0, times = pyworld.dio(x, RATE, frame_period=1000 * FRAME_S)
    f0 = pyworld.stonemask(x, f0, times, RATE)
    voiced = f0 > 0
    if voiced.sum() < 40:
        return None
    envelope, aperiodicity = pyworld.cheaptrick(x, f0, times, RATE), pyworld.d4c(x, f0, times, RATE)
    notes = melody(float(np.median(f0[voiced])), rng)
    pitch, _ = next(notes)
    frames, pitches = [], []
    for start, end in segments(voiced):
        if not voiced[start]:
            kept = np.arange(start, min(end, start + 60))  # pauses are at most 0.3 s
            frames.append(kept)
            pitches.append(np.zeros(len(kept)))
            continue
        pieces = [(start, end)]
        if end - start > 50 and rng.random() < 0.6:  # several notes in a long stretch
            cuts = np.linspace(start, end, rng.integers(2, 4) + 1).astype(int).tolist()
            pieces = list(pairwise(cuts))
        for first, last in pieces:
            length = last - first
            if end - start >= MIN_VOICED:
                pitch, seconds = next(notes)
                length = max(length, round(seconds / FRAME_S))
            frames.append(np.linspace(first, last - 1, length))
            pitches.append(np.full(length, pitch))
    path, pitch_path = np.concatenate(frames), np.concatenate(pitches)
    sung = pitch_path > 0
    pitch_path *= 2 ** (_vibrato(sung, rng) / 12)
    glide = np.hanning(max(3, int(rng.uniform(8, 24))))
    smooth = np.convolve(np.where(sung, np.log(np.maximum(pitch_path, 1)), 0), glide, "same")
    smooth /= np.convolve(sung.astype(float), glide, "same").clip(1e-9)
    pitch_path = np.where(sung, np.exp(smooth), 0.0)
    low = np.floor(path).astype(int)
    high, weight = np.minimum(low + 1, len(f0) - 1), (path - low)[:, None]
    mixed = np.exp((1 - weight) * np.log(envelope[low]) + weight * np.log(envelope[high]))
    nearest = np.rint(path).astype(int)
    y: Floats = pyworld.synthesize(pitch_path, mixed, aperiodicity[nearest], RATE, 1000 * FRAME_S)
    return y


def _vibrato(sung: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Return deviations of the pitch in semitones: vibrato that grows within each note, and a slow drift."""
    n = len(sung)
    age = np.arange(n) - np.maximum.accumulate(np.where(~sung, np.arange(n), 0))
    depth = rng.uniform(0.0, 0.8) * np.clip(age * FRAME_S / 0.4 - 0.3, 0, 1)
    drift = np.interp(np.arange(n), np.arange(0, n + 100, 100), rng.normal(0, 0.12, len(np.arange(0, n + 100, 100))))
    return depth * np.sin(2 * np.pi * rng.uniform(4.5, 6.8) * np.arange(n) * FRAME_S) + drift


def main() -> None:
    """Write songs of one voice each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of speech")
    parser.add_argument("-o", "--out", required=True, type=Path)
    parser.add_argument("-n", type=int, default=120, help="number of songs")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a song")
    args = parser.parse_args()
    voices: dict[str, list[Path]] = {}
    for path in sorted(path for folder in args.folders for path in folder.iterdir() if path.suffix == ".ogg"):
        voices.setdefault(path.stem.rpartition("-")[0], []).append(path)
    args.out.mkdir(parents=True, exist_ok=True)
    names = sorted(voices)
    for index in range(args.n):
        rng = np.random.default_rng(index)
        paths, song, n_tried = voices[names[rng.integers(len(names))]], np.zeros(0), 0
        while len(song) < args.seconds * RATE and (n_tried := n_tried + 1) < 40:
            phrase = sing(read(paths[rng.integers(len(paths))]), rng)
            if phrase is not None:
                song = np.concatenate(
                    [song, phrase * 0.1 / phrase.std().clip(1e-4), np.zeros(int(rng.uniform(0, 8000)))]
                )
        song = song[: round(args.seconds * RATE)]
        soundfile.write(
            args.out / f"singing-{index:03d}.ogg", song / np.abs(song).max().clip(0.9), RATE, subtype="OPUS"
        )


if __name__ == "__main__":
    main()
