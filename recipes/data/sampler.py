"""Play generated scores with recorded notes: one file a note, as sample libraries have them.

`INSTRUMENTS` names the files by patterns, with their licences. Each note is trimmed to its sound, so that neither the
room of the recording nor the noise of its preamplifier is heard in a pause.
"""

import io
import re
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import scores
import soundfile
from clones import Clone
from scipy.signal import butter, resample_poly, sosfilt

RATE = 44100  # sampling rate of nearly all of the recordings
NAMES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
LOWEST = 20.0  # hertz: rumble of the room is below
QUIET = -45.0  # dB relative to the loudest frame: where a note begins
END = -60.0  # where it ends, or at the noise of the recording
STRETCH = 3  # semitones that a recording may be transposed


class Instrument(NamedTuple):
    """Recorded notes of one instrument.

    `files` has the groups `note` (letter, sharp or flat) and `octave`; an instrument without them is percussion, each
    file of which gets a key of its own. A held-out instrument appears in test pieces only.
    """

    name: str
    repository: str
    files: str
    licence: str
    credit: str
    sustained: bool = False
    held_out: bool = False


def philharmonia(folder: str, held_out: bool = False, sustained: bool = True) -> Instrument:
    """Return an instrument of the Philharmonia Orchestra's samples."""
    lengths, dynamics = "(05|1|15|long|very-long)", "(piano|mezzo-forte|forte|fortissimo)"
    files = rf"audio/{folder}/[a-z-]+_(?P<note>[A-G]s?)(?P<octave>\d)_{lengths}_{dynamics}_(normal|arco-normal)\.mp3"
    name = folder.replace(" ", "-")
    credit = "Philharmonia Orchestra"
    return Instrument(name, "skratchdot/philharmonia-samples", files, "CC BY-SA 3.0", credit, sustained, held_out)


INSTRUMENTS = [
    Instrument(
        "piano", "sfzinstruments/SplendidGrandPiano",
        r"Samples/(PP|Mp|Mf|MF|FF) (?P<note>[A-G]#?)(?P<octave>-?\d)\.flac",
        "public domain", "Akai, kinwie",
    ),
    Instrument(
        "alto-saxophone", "sfzinstruments/karoryfer.weresax",
        r"Samples/alto/(?P<note>[a-g]b?)(?P<octave>\d)_[pf]_rr\d_cnd\.wav",
        "CC0 1.0", "Karoryfer", True,
    ),
    Instrument("body", "sfzinstruments/body_percussion", r"Samples/body/.*\.wav", "CC0 1.0", "body_percussion"),
    Instrument(
        "classical-guitar", "freepats/spanish-classical-guitar", r"samples/(?P<note>[A-G]#?)(?P<octave>\d)\.flac",
        "CC0 1.0", "freepats", held_out=True,
    ),
    Instrument(
        "pearl-drums", "oramics/sampled",
        r"DRUMS/pearl-master-studio/samples/.*\.wav", "CC BY 3.0", "enoe", held_out=True,
    ),
    Instrument("drum-machine", "oramics/sampled", r"DM/(LM-2|TR-505)/samples/.*\.wav", "public domain", "oramics"),
    Instrument(
        "hits", "sonic-pi-net/sonic-pi",
        r"etc/samples/(bd|bass|drum|elec|hat|perc|sn|tabla|ride|glitch_perc)_[a-z0-9_]*\.flac",
        "CC0 1.0", "etc/samples/README.md",
    ),
    Instrument(
        "percussion", "skratchdot/philharmonia-samples", r"audio/percussion/[^/]*/.*_(025|05|1|15|long)_.*\.mp3",
        "CC BY-SA 3.0", "Philharmonia Orchestra",
    ),
    Instrument(
        "voices", "Tonejs/audio",
        r"berklee/(fe)?malevoices?_(aa|oo)2?_(?P<note>[A-Gc][#b]?)(?P<octave>\d)\.mp3", "CC BY 3.0",
        "Berklee College of Music, One Laptop per Child", True,
    ),
    *(philharmonia(folder) for folder in (
        "bass clarinet", "bassoon", "cello", "clarinet", "contrabassoon", "double bass", "flute", "oboe", "saxophone",
        "trombone",
    )),
    *(philharmonia(folder, held_out=True) for folder in ("cor anglais", "french horn")),
    philharmonia("banjo", sustained=False),
    philharmonia("guitar", sustained=False),
    philharmonia("mandolin", held_out=True, sustained=False),
]  # fmt: skip


def trim_note(sound: np.ndarray, rate: int, lowest: float = LOWEST) -> np.ndarray:
    """Return a note without what precedes and follows it and without what is below the frequency `lowest`, in hertz.

    It is faded in within 2 ms and out within 80 ms. The end is where the level falls for good below 60 dB under the
    loudest frame, or near the floor of the recording.
    """
    sound = sosfilt(butter(4, lowest, "highpass", fs=rate, output="sos"), sound)
    size = rate // 100
    frames = sound[: len(sound) // size * size].reshape(-1, size)
    levels = 10 * np.log10((frames**2).mean(axis=1) + 1e-12)
    loud = np.flatnonzero(levels > levels.max() + QUIET)
    floor = max(levels.max() + END, np.percentile(levels, 3) + 6 if len(levels) > 100 else -np.inf)
    last = np.flatnonzero(levels > min(floor, levels.max() - 20))[-1] + 1
    begin = max(0, loud[0] - 1) * size
    note = sound[begin : min(len(sound), last * size)].copy()
    fade_in, fade_out = min(rate // 500, len(note)), min(rate * 8 // 100, len(note))
    note[:fade_in] *= np.linspace(0, 1, fade_in)
    note[-fade_out:] *= np.cos(np.linspace(0, np.pi / 2, fade_out)) ** 2
    return note


def transpose(sound: np.ndarray, semitones: float) -> np.ndarray:
    """Return the sound at another pitch and speed."""
    ratio = Fraction(2 ** (-semitones / 12)).limit_denominator(240)
    return resample_poly(sound, ratio.numerator, ratio.denominator) if ratio != 1 else sound


class Sampler:
    """Plays the notes of an instrument, which it reads when they are first needed."""

    def __init__(self, instrument: Instrument, clone: Clone) -> None:
        self.instrument, self.clone = instrument, clone
        self.paths: dict[int, list[str]] = {}
        self.is_percussion = "?P<note>" not in instrument.files
        self.notes: dict[str, np.ndarray | None] = {}
        matches = [(path, match) for path in sorted(clone.files) if (match := re.fullmatch(instrument.files, path))]
        for index, (path, match) in enumerate(matches):
            key = index if self.is_percussion else self.to_key(match["note"], int(match["octave"]))
            self.paths.setdefault(key, []).append(path)

    @staticmethod
    def to_key(note: str, octave: int) -> int:
        """Return the MIDI key of a note such as C#4, Cs4 or db4 (middle C is C4, key 60)."""
        accidental = {"": 0, "#": 1, "s": 1, "b": -1}[note[1:]]
        return 12 * (octave + 1) + NAMES[note[0].upper()] + accidental

    def read(self, path: str, key: int) -> np.ndarray | None:
        """Return the trimmed recording of a key at full scale, or None if it cannot be read or is of no use."""
        if path not in self.notes:
            self.notes[path] = None
            try:
                stereo, rate = soundfile.read(io.BytesIO(self.clone.read(path) or b""), always_2d=True)
            except soundfile.LibsndfileError:  # a few of the files have no content or are damaged
                return None
            sound = stereo.mean(axis=1)
            peak = np.abs(sound).max() if len(sound) > rate // 20 else 0.0
            if peak > 0.003:
                lowest = LOWEST if self.is_percussion else 0.6 * 440 * 2 ** ((key - 69) / 12)
                note = trim_note(sound / peak, rate, lowest)
                if rate != RATE:
                    ratio = Fraction(RATE, rate)
                    note = resample_poly(note, ratio.numerator, ratio.denominator)
                self.notes[path] = note
        return self.notes[path]

    def note(self, rng: np.random.Generator, key: int, seconds: float, velocity: int) -> np.ndarray | None:
        """Return one note: the nearest recording, transposed by few semitones, released after `seconds`."""
        keys = np.array(sorted(self.paths))
        nearest = int(keys[np.abs(keys - key).argmin()])
        if abs(nearest - key) > STRETCH:
            return None
        sound = self.read(str(rng.choice(self.paths[nearest])), nearest)
        if sound is None:
            return None
        sound = transpose(sound, key - nearest)
        end = int((seconds + 0.02) * RATE)
        if end < len(sound) and not self.is_percussion:
            release = min(int(rng.uniform(0.05, 0.25) * RATE), len(sound) - end)
            sound = sound[: end + release].copy()
            sound[end:] *= np.cos(np.linspace(0, np.pi / 2, release)) ** 2
        return sound * (velocity / 127) ** 1.7


def write_part(
    rng: np.random.Generator, player: Sampler, channel: int, harmony: scores.Harmony, seconds: float
) -> list[scores.Event]:
    """Return the score of one instrument in a role that suits it."""
    keys, velocity = sorted(player.paths), int(rng.integers(50, 115))
    if player.is_percussion:
        pattern = scores.drums(rng, scores.Part(channel, (0, 127), velocity), harmony, seconds)
        chosen = rng.choice(keys, min(len(keys), int(rng.integers(2, 7))), replace=False)
        # The keys of General MIDI's percussion stand for files of this instrument.
        return [(time, bytes([m[0], int(chosen[m[1] % len(chosen)]), m[2]])) for time, m in pattern]
    if player.instrument.sustained:
        role = rng.choice(np.array([scores.melody, scores.pad, scores.sparse]), p=[0.7, 0.2, 0.1])
    else:
        role = rng.choice(
            np.array([scores.melody, scores.chords, scores.arpeggio, scores.sparse]), p=[0.25, 0.3, 0.35, 0.1]
        )
    return role(rng, scores.Part(channel, (max(keys[0], 0), keys[-1]), velocity), harmony, seconds)


def play(rng: np.random.Generator, players: list[Sampler], seconds: float) -> np.ndarray:
    """Return a generated piece for some instruments, (samples,) at `RATE`.

    Args:
        rng: source of random numbers.
        players: instruments.
        seconds: length of the piece.
    """
    harmony = scores.choose_harmony(rng)
    events = [e for channel, player in enumerate(players) for e in write_part(rng, player, channel, harmony, seconds)]
    sound = np.zeros(int(seconds * RATE))
    started: dict[tuple[int, int], tuple[float, int]] = {}
    for time, message in scores.arrange(rng, events, seconds):
        status, channel, key = message[0] >> 4, message[0] & 15, message[1]
        if status == 9:
            started[channel, key] = time, message[2]
        elif (channel, key) in started:
            start, velocity = started.pop((channel, key))
            note = players[channel].note(rng, key, time - start, velocity)
            first = int(start * RATE)
            if note is not None and first < len(sound):
                note = note[: len(sound) - first]
                sound[first : first + len(note)] += note
    return sound
