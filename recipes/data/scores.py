"""Generated scores: random but musical, as MIDI events.

A score is a list of events, each a time in seconds and a MIDI message. `compose` writes one for a random style (solo,
ensemble, band, drums, pads, chorale, sparse notes), key, scale and tempo.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SCALES = [
    [0, 2, 4, 5, 7, 9, 11], [0, 2, 3, 5, 7, 8, 10], [0, 2, 3, 5, 7, 8, 11], [0, 2, 3, 5, 7, 9, 10],
    [0, 1, 3, 5, 7, 8, 10], [0, 2, 4, 6, 7, 9, 11], [0, 2, 4, 7, 9], [0, 3, 5, 6, 7, 10], [0, 2, 4, 6, 8, 10],
]  # fmt: skip
# The families of General MIDI, eight programs each: lowest and highest key, and whether their notes sustain.
FAMILIES = [
    (26, 100, False), (55, 96, False), (36, 88, True), (40, 80, False), (28, 52, False), (38, 86, True),
    (38, 84, True), (36, 76, True), (44, 84, True), (58, 96, True), (40, 90, True), (36, 84, True),
    (40, 88, True), (45, 82, False), (45, 84, False),
]  # fmt: skip
NOISY = {118, 119}  # a synthesised noise drum and a reversed cymbal; those from 120 on are sound effects
KITS = [0, 8, 16, 24, 25, 32, 40, 48]
DRUMS = 9  # channel of the percussion

Event = tuple[float, bytes]


class Harmony(NamedTuple):
    """Key, scale and chords of a piece."""

    key: int
    scale: list[int]
    chords: list[int]  # scale degree of the root, one chord after the other
    chord_seconds: float
    beat: float  # seconds

    def pitch(self, degree: int) -> int:
        """Return the MIDI key of a scale degree, counted from key 0 on."""
        octave, step = divmod(degree, len(self.scale))
        return self.key + 12 * octave + self.scale[step]

    def chord_at(self, time: float) -> int:
        """Return the root degree at a time in seconds."""
        return self.chords[int(time / self.chord_seconds) % len(self.chords)]

    def chord_tones(self, time: float, low: int, high: int) -> list[int]:
        """Return the MIDI keys of the triad at a time within a range of keys."""
        classes = {self.pitch(self.chord_at(time) + third) % 12 for third in (0, 2, 4)}
        return [key for key in range(low, high + 1) if key % 12 in classes]


class Part(NamedTuple):
    """A channel, the lowest and highest key of its instrument, and its loudness."""

    channel: int
    range: tuple[int, int]
    velocity: int

    def note(self, start: float, seconds: float, key: int, velocity: float) -> list[Event]:
        """Return the two events of a note."""
        value = int(np.clip(velocity, 8, 127))
        on, off = bytes([0x90 | self.channel, key, value]), bytes([0x80 | self.channel, key, 0])
        return [(start, on), (start + max(seconds, 0.03), off)]


def melody(rng: np.random.Generator, part: Part, harmony: Harmony, seconds: float) -> list[Event]:
    """Phrases of a wandering line with rests, accents and an articulation of its own."""
    low, high = part.range
    centre = int(rng.integers(low + 6, high - 6))
    degrees = [d for d in range(0, 80) if low <= harmony.pitch(d) <= high]
    position = int(np.argmin([abs(harmony.pitch(d) - centre) for d in degrees]))
    unit = harmony.beat * rng.choice([0.25, 0.5, 0.5, 1.0])
    lengths = rng.choice([1, 1, 2, 2, 3, 4, 6], size=8) * unit
    articulation, rests, accents = rng.uniform(0.3, 1.05), rng.uniform(0, 0.3), rng.uniform(2, 18)
    events, time, index = [], rng.choice([0, harmony.beat, 0.3]), 0
    while time < seconds:
        length = lengths[index % len(lengths)]
        if rng.random() < rests:
            time += length * rng.choice([1, 2])
        swell = 12 * np.sin(2 * np.pi * time / (8 * harmony.beat))
        key = harmony.pitch(degrees[position])
        if rng.random() < 0.05:  # trill
            upper = harmony.pitch(degrees[min(position + 1, len(degrees) - 1)])
            for k in range(int(length / 0.09)):
                events += part.note(time + 0.09 * k, 0.085, [key, upper][k % 2], part.velocity + swell)
        else:
            events += part.note(time, length * articulation, key, part.velocity + swell + rng.normal(0, accents))
        leap = int(rng.choice([-4, -2, -1, -1, 1, 1, 2, 4])) - int(
            np.sign(position - len(degrees) // 2) * (rng.random() < 0.2)
        )
        position = int(np.clip(position + leap, 0, len(degrees) - 1))
        time, index = time + length, index + 1
    return events


def chords(rng: np.random.Generator, part: Part, harmony: Harmony, seconds: float) -> list[Event]:
    """Block or strummed chords in a repeated rhythm."""
    low, high = part.range
    low = int(rng.integers(low, max(low + 1, high - 24)))
    rhythm = rng.choice([0.5, 1, 1, 2, 4], size=4) * harmony.beat
    strum, articulation, size = rng.choice([0, 0.01, 0.03]), rng.uniform(0.2, 1), int(rng.integers(2, 6))
    events, time, index = [], 0.0, 0
    while time < seconds:
        tones = harmony.chord_tones(time, low, low + 24)
        first = int(rng.integers(0, max(1, len(tones) - size)))
        for k, key in enumerate(tones[first : first + size]):
            velocity = part.velocity + rng.normal(0, 6)
            events += part.note(time + strum * k, rhythm[index % 4] * articulation, min(key, high), velocity)
        time, index = time + rhythm[index % 4], index + 1
    return events


def arpeggio(rng: np.random.Generator, part: Part, harmony: Harmony, seconds: float) -> list[Event]:
    """Chord tones one by one, up, down or in a random order that repeats."""
    low, high = part.range
    low = int(rng.integers(low, max(low + 1, high - 30)))
    step, articulation = harmony.beat / rng.choice([2, 3, 4, 6]), rng.uniform(0.4, 3)
    order = rng.permutation(int(rng.integers(3, 9)))
    if rng.random() < 0.6:
        order = np.sort(order)
    events = []
    for k in range(int(seconds / step)):
        tones = harmony.chord_tones(k * step, low, high)
        key = tones[int(order[k % len(order)]) % len(tones)]
        events += part.note(k * step, step * articulation, key, part.velocity + 10 * (k % 4 == 0) + rng.normal(0, 4))
    return events


def pad(rng: np.random.Generator, part: Part, harmony: Harmony, seconds: float) -> list[Event]:
    """Sustained chords or drones that overlap."""
    low, high = part.range
    voices, overlap, drone = int(rng.integers(1, 5)), rng.uniform(0, 0.4), rng.random() < 0.25
    length = seconds if drone else harmony.chord_seconds
    low = int(rng.integers(low, max(low + 1, high - 24)))
    events = []
    for k in range(int(np.ceil(seconds / length))):
        tones = harmony.chord_tones(k * length, low, low + 24)
        for key in rng.choice(tones, min(voices, len(tones)), replace=False):
            events += part.note(k * length, length + overlap, min(int(key), high), part.velocity + rng.normal(0, 4))
    return events


def bass(rng: np.random.Generator, part: Part, harmony: Harmony, seconds: float) -> list[Event]:
    """Roots, fifths and octaves on a pattern of beats."""
    low = part.range[0]
    pattern, step = rng.choice([0, 0, 0, 4, 7], size=8), harmony.beat * rng.choice([0.5, 1, 2])
    articulation, skips = rng.uniform(0.4, 1), rng.uniform(0, 0.4)
    events = []
    for k in range(int(seconds / step)):
        root = low + (harmony.pitch(harmony.chord_at(k * step)) - low) % 12
        fifth = {0: 0, 4: 7, 7: 12}[int(pattern[k % 8])]
        if rng.random() >= skips:
            events += part.note(k * step, step * articulation, root + fifth, part.velocity + rng.normal(0, 6))
    return events


def drums(rng: np.random.Generator, part: Part, harmony: Harmony, seconds: float) -> list[Event]:
    """A pattern of sixteen steps for some instruments of the kit, with variations."""
    step, hits = harmony.beat / 4, []
    backbone = {36: [0, 8], 38: [4, 12], 42: list(range(0, 16, 2))} if rng.random() < 0.6 else {}
    for key in rng.choice(range(35, 82), int(rng.integers(1, 5)), replace=False):
        backbone[int(key)] = list(rng.choice(16, int(rng.integers(1, 7)), replace=False))
    for k in range(int(seconds / step)):
        for key, steps in backbone.items():
            if (k % 16 in steps) != (rng.random() < 0.06):
                hits += part.note(k * step, 0.1, key, part.velocity + 12 * (k % 4 == 0) + rng.normal(0, 10))
    return hits


def chorale(rng: np.random.Generator, part: Part, harmony: Harmony, seconds: float) -> list[Event]:
    """Four voices that move to the nearest tones of each chord."""
    low, high = part.range
    voices = [low + (high - low) * k // 5 for k in range(1, 5)]
    length, breath = harmony.beat * rng.choice([1, 2, 4]), rng.uniform(0.85, 1.0)
    events = []
    for k in range(int(seconds / length) + 1):
        tones = harmony.chord_tones(k * length, low, high)
        for voice, key in enumerate(voices):
            near = sorted(tones, key=lambda tone, key=key: abs(tone - key))[: int(rng.integers(1, 4))]
            voices[voice] = int(near[-1])
            events += part.note(k * length, length * breath, voices[voice], part.velocity + rng.normal(0, 4))
    return events


def sparse(rng: np.random.Generator, part: Part, harmony: Harmony, seconds: float) -> list[Event]:
    """Single notes or chords that ring, with silence between them."""
    low, high = part.range
    events, time = [], rng.uniform(0, 1)
    while time < seconds:
        length = rng.choice([0.2, 1, 3])
        for key in rng.choice(harmony.chord_tones(time, low, high), int(rng.choice([1, 1, 2, 3]))):
            events += part.note(time, length, int(key), part.velocity + rng.normal(0, 15))
        time += length + rng.exponential(1.5)
    return events


Role = Callable[[np.random.Generator, Part, Harmony, float], list[Event]]
PLUCKED, SUSTAINED = (
    [8 * f + k for f, (*_, s) in enumerate(FAMILIES) if s is kind for k in range(8)] for kind in (False, True)
)
ANY = [program for program in range(8 * len(FAMILIES)) if program not in NOISY]
BASSES, CHOIRS, ORGANS = [*range(32, 40), 43, 58], [48, 49, 50, 52, 53, 54, 19, 61], [16, 17, 18, 19, 20, 21]
# Styles: weight, and for each part its role and the programs to choose from.
STYLES: list[tuple[float, list[tuple[Role, list[int]]]]] = [
    (0.16, [(melody, ANY)]),
    (0.08, [(arpeggio, PLUCKED)]),
    (0.06, [(chords, PLUCKED)]),
    (0.06, [(melody, SUSTAINED), (chords, [*range(0, 8), *range(24, 32), 46])]),
    (0.06, [(melody, SUSTAINED), (arpeggio, PLUCKED)]),
    (0.10, [(melody, ANY), (chords, ANY), (bass, BASSES)]),
    (0.08, [(melody, ANY), (arpeggio, ANY), (pad, SUSTAINED), (bass, BASSES)]),
    (0.09, [(melody, ANY), (chords, ANY), (bass, BASSES), (drums, KITS)]),
    (0.05, [(bass, BASSES), (drums, KITS), (pad, SUSTAINED)]),
    (0.05, [(drums, KITS)]),
    (0.06, [(pad, SUSTAINED)]),
    (0.05, [(pad, SUSTAINED), (melody, ANY)]),
    (0.05, [(chorale, CHOIRS)]),
    (0.03, [(chorale, ORGANS)]),
    (0.03, [(chorale, SUSTAINED), (melody, SUSTAINED)]),
    (0.05, [(sparse, ANY)]),
    (0.02, [(sparse, PLUCKED), (sparse, SUSTAINED)]),
]  # fmt: skip


def express(rng: np.random.Generator, channel: int, tuning: float, seconds: float) -> list[Event]:
    """Return vibrato and glides (pitch bend), swells (expression) and the send to the reverberation of a channel.

    Args:
        rng: source of random numbers.
        channel: MIDI channel.
        tuning: offset of the whole piece in semitones, within -0.5 to 0.5.
        seconds: length of the piece.
    """
    time = np.arange(0, seconds, 0.02)
    bend = np.full_like(time, tuning)
    if rng.random() < 0.5:  # vibrato, whose depth comes and goes
        depth = rng.uniform(0.05, 0.4) * np.clip(
            np.sin(2 * np.pi * time / rng.uniform(1.5, 5) + rng.uniform(0, 6)), 0, 1
        )
        bend += depth * np.sin(2 * np.pi * rng.uniform(4, 7.5) * time)
    if rng.random() < 0.15:  # glides
        for start in rng.uniform(0, seconds, int(seconds / 2)):
            bend += rng.uniform(-1.2, 0.4) * np.clip(1 - (time - start) / 0.15, 0, 1) * (time >= start)
    loudness = np.full_like(time, 110.0)
    if rng.random() < 0.4:
        knots = np.arange(0, seconds + 2, rng.uniform(0.7, 3))
        loudness = np.interp(time, knots, rng.uniform(35, 127, len(knots)))
    bends = np.clip(np.round(8192 + bend * 4096), 0, 16383).astype(int)
    events = [(float(t), bytes([0xE0 | channel, b & 127, b >> 7])) for t, b in zip(time, bends, strict=True)]
    events += [(float(t), bytes([0xB0 | channel, 11, int(v)])) for t, v in zip(time[::3], loudness[::3], strict=True)]
    events += [(0.0, bytes([0xB0 | channel, 91, int(rng.integers(0, 128))]))]
    if rng.random() < 0.2:
        events += [(0.0, bytes([0xB0 | channel, 64, 127]))]  # the pedal stays down
    return events


def choose_harmony(rng: np.random.Generator) -> Harmony:
    """Return a random key, scale, tempo and sequence of chords."""
    scale = SCALES[int(rng.choice(len(SCALES), p=[0.25, 0.2, 0.1, 0.1, 0.05, 0.05, 0.15, 0.05, 0.05]))]
    beat = float(np.exp(rng.uniform(np.log(0.3), np.log(1.4))))
    chord_seconds = beat * int(rng.choice([2, 3, 4, 4, 6, 8]))
    roots = [0, *(int(r) for r in rng.choice([0, 1, 2, 3, 3, 4, 4, 5], size=7))]
    return Harmony(int(rng.integers(0, 12)), scale, roots, chord_seconds, beat)


def compose(rng: np.random.Generator, seconds: float) -> list[Event]:
    """Return a random score for instruments of General MIDI, sorted by time.

    Args:
        rng: source of random numbers.
        seconds: length; the last notes may ring longer.
    """
    harmony = choose_harmony(rng)
    weights = np.array([weight for weight, _ in STYLES])
    parts = STYLES[int(rng.choice(len(STYLES), p=weights / weights.sum()))][1]
    tuning = float(rng.uniform(-0.5, 0.5)) if rng.random() < 0.6 else 0.0
    events: list[Event] = []
    for index, (role, programs) in enumerate(parts):
        channel = DRUMS if role is drums else index
        program = int(rng.choice(programs))
        part = Part(channel, FAMILIES[program // 8][:2], int(rng.integers(35, 115)))
        events += [(0.0, bytes([0xC0 | channel, program])), *express(rng, channel, tuning, seconds)]
        events += role(rng, part, harmony, seconds)
    return arrange(rng, events, seconds)


def arrange(rng: np.random.Generator, events: list[Event], seconds: float) -> list[Event]:
    """Return the events sorted by time, in a quarter of the pieces with a general pause."""
    if rng.random() < 0.25:
        start, length = rng.uniform(1, seconds - 2), rng.uniform(0.5, 3)
        events = [e for e in events if not (start < e[0] < start + length and e[1][0] >> 4 == 9)]
    # At the same time a note ends before the next begins, and controls come first.
    return sorted(events, key=lambda event: (event[0], event[1][0] >> 4 == 9))
