"""MIDI files of scores, and their sound by FluidSynth."""

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from scores import Event

TICKS = 960  # a second, at the 480 ticks a quarter and the tempo of 120 that a MIDI file has by default


def to_midi(events: list[Event], seconds: float) -> bytes:
    """Return a standard MIDI file of events that are sorted by time; it ends after `seconds`."""
    track, last = bytearray(), 0
    for time, message in [*events, (seconds, b"\xff\x2f\x00")]:
        tick = max(round(time * TICKS), last)
        delta, last = tick - last, tick
        groups = [delta & 127]
        while delta := delta >> 7:
            groups.insert(0, delta & 127 | 128)
        track += bytes(groups) + message
    header = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1]) + (TICKS // 2).to_bytes(2, "big")
    return header + b"MTrk" + len(track).to_bytes(4, "big") + bytes(track)


def render(events: list[Event], seconds: float, soundfont: Path, room: float | None) -> tuple[np.ndarray, int]:
    """Return the sound of a score, (samples,), and its sampling rate.

    Args:
        events: score.
        seconds: length of the result.
        soundfont: file that FluidSynth reads.
        room: size of the reverberant room, 0 to 1, or None for no reverberation.
    """
    reverb = ["-R", "0"] if room is None else ["-R", "1", "-o", f"synth.reverb.room-size={room:.2f}"]
    with tempfile.TemporaryDirectory() as folder:
        midi, wave = Path(folder, "score.mid"), Path(folder, "sound.wav")
        midi.write_bytes(to_midi(events, seconds + 1))
        options = [
            "-ni",
            "-q",
            "-r",
            "48000",
            "-g",
            "0.3",
            "-C",
            "0",
            "-O",
            "float",
            "-o",
            "synth.dynamic-sample-loading=1",
        ]
        command = ["fluidsynth", *options, *reverb, "-F", wave, soundfont, midi]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stereo, rate = soundfile.read(wave, always_2d=True)
    return stereo[: int(seconds * rate)].mean(axis=1), rate
