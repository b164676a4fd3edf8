"""Laws of the scripts that make the training data of music, nature and noise (recipes/data)."""

import csv
import subprocess
from pathlib import Path

import midi
import music
import nature
import noises
import numpy as np
import pytest
import sampler
import scores
import soundfile
import sounds
import sources
import speech

RATE = 48000


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def white(rng: np.random.Generator, seconds: float = 6) -> np.ndarray:
    return 0.1 * rng.standard_normal(int(seconds * RATE))


def harmonics(seconds: float = 6) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return 0.1 * np.sum([np.sin(2 * np.pi * 440 * k * time) / k for k in range(1, 20)], axis=0)


@pytest.mark.parametrize("seed", range(20))
def test_every_note_of_a_score_ends_and_is_playable(seed: int) -> None:
    events = scores.compose(np.random.default_rng(seed), 10.0)
    times = [time for time, _ in events]
    sounding: dict[tuple[int, int], int] = {}
    assert times == sorted(times)
    for time, message in events:
        assert time >= 0
        assert all(byte < 128 for byte in message[1:])
        if message[0] >> 4 == 9:
            sounding[message[0] & 15, message[1]] = message[2]
            assert 8 <= message[2] <= 127
        elif message[0] >> 4 == 8:
            sounding.pop((message[0] & 15, message[1]), None)
    assert not sounding


def test_a_seed_gives_one_score() -> None:
    first, same, other = (scores.compose(np.random.default_rng(seed), 8.0) for seed in (5, 5, 6))
    assert first == same
    assert first != other


@pytest.mark.parametrize("role", [scores.melody, scores.chords, scores.arpeggio, scores.pad, scores.chorale])
def test_notes_are_in_the_scale_and_the_range(role: scores.Role, rng: np.random.Generator) -> None:
    harmony = scores.Harmony(2, [0, 2, 4, 5, 7, 9, 11], [0, 3, 4, 5], 2.0, 0.5)
    events = role(rng, scores.Part(0, (40, 88), 80), harmony, 20.0)
    keys = {message[1] for _, message in events}
    assert {key % 12 for key in keys} <= {2, 4, 6, 7, 9, 11, 1}  # D major
    assert min(keys) >= 40
    assert max(keys) <= 88


def test_midi_file_of_one_note() -> None:
    file = midi.to_midi([(0.0, b"\x90\x3c\x40"), (1.0, b"\x80\x3c\x00")], 1.0)
    # Format 0, one track, 480 ticks a quarter; a second at the default tempo is 960 ticks, 0x87 0x40.
    track = bytes.fromhex("00 903c40 8740 803c00 00 ff2f00")
    header = bytes.fromhex("4d546864 00000006 0000 0001 01e0 4d54726b") + len(track).to_bytes(4, "big")
    assert file == header + track


def test_noise_floor_of_noise_and_tones(rng: np.random.Generator) -> None:
    noise, tones = white(rng), harmonics()
    weak = tones + noise / noise.std() * tones.std() * 0.01
    assert sounds.noise_floor(noise, RATE) == pytest.approx(0, abs=0.5)
    assert sounds.noise_floor(weak, RATE) == pytest.approx(-40, abs=1.5)
    assert sounds.noise_floor(tones, RATE) < -70


def test_stationarity(rng: np.random.Generator) -> None:
    noise = white(rng)
    swelling = noise * np.linspace(0.2, 1, len(noise))
    moving = np.concatenate([np.convolve(noise, [0.5, 0.5], "same"), np.convolve(noise, [0.5, -0.5], "same")])
    assert sounds.nonstationarity(noise, RATE) < 0.5
    assert sounds.is_stationary(noise, RATE, *music.STATIONARY)
    assert not sounds.is_stationary(swelling, RATE, *music.STATIONARY)
    assert sounds.nonstationarity(moving, RATE) > 2
    assert not sounds.is_stationary(nature.compose(rng, 6.0, RATE), RATE, *music.STATIONARY)


def test_stationary_noise_is_chosen_from_what_the_collection_of_speech_writes(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    sounds_of = {"train/a.flac": "002 - Rain/1.ogg", "train/b.flac": "Night/2.ogg", "test/c.flac": "003 - Rain/3.ogg"}
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with open(tmp_path / "index.csv", "w", newline="") as file:
        index = csv.DictWriter(file, speech.COLUMNS, restval="-")
        index.writeheader()
        for name, source in sounds_of.items():
            soundfile.write(tmp_path / name, white(rng), RATE)
            index.writerow({"file": name, "split": name.split("/")[0], "source": source, "licence": "CC0"})
    (piece,) = music.choose_noise([tmp_path])
    assert (piece.name, piece.source, piece.licence) == ("train/a", "- 002 - Rain/1.ogg", "CC0")


def test_bandwidth_is_that_of_the_source(rng: np.random.Generator) -> None:
    spectrum = np.fft.rfft(white(rng))
    spectrum[np.fft.rfftfreq(6 * RATE, 1 / RATE) > 7000] = 0
    assert sounds.bandwidth(np.fft.irfft(spectrum), RATE) == pytest.approx(7000, abs=400)


def test_low_floor_is_heard_in_pauses_only(rng: np.random.Generator) -> None:
    gate = np.repeat([1.0, 0, 1, 0], RATE)
    hiss = white(rng, 4) * 0.01
    assert sounds.has_low_floor(gate * white(rng, 4) + 0.1 * hiss, RATE)
    assert not sounds.has_low_floor(gate * white(rng, 4) + hiss, RATE)
    assert not sounds.has_low_floor(gate * white(rng, 4), RATE)  # digital silence tells nothing


def test_faults(rng: np.random.Generator) -> None:
    assert sounds.find_fault(harmonics()) == ""
    assert sounds.find_fault(harmonics() * 1e-3) == "silent"
    assert sounds.find_fault(np.clip(10 * harmonics(), -1, 1)) == "clipped"
    assert sounds.is_noisy(white(rng), RATE)
    assert not sounds.is_noisy(harmonics(), RATE)


@pytest.mark.parametrize(("note", "octave", "key"), [("C", 4, 60), ("As", 3, 58), ("db", 2, 37), ("A", 4, 69)])
def test_key_of_a_note(note: str, octave: int, key: int) -> None:
    assert sampler.Sampler.to_key(note, octave) == key


def test_trimmed_note_has_no_noise_around_it(rng: np.random.Generator) -> None:
    note = np.concatenate([np.zeros(RATE // 2), harmonics(1), np.zeros(2 * RATE)]) / 0.3
    recording = note + 2e-4 * rng.standard_normal(len(note))
    trimmed = sampler.trim_note(recording, RATE)
    assert len(trimmed) == pytest.approx(RATE, abs=0.1 * RATE)
    assert trimmed[0] == 0
    assert abs(trimmed[-1]) < 1e-6


def test_transposed_tone(rng: np.random.Generator) -> None:
    time = np.arange(RATE) / RATE
    higher = sampler.transpose(np.sin(2 * np.pi * 440 * time), 3)
    peak = np.abs(np.fft.rfft(higher * np.hanning(len(higher)))).argmax() * RATE / len(higher)
    assert peak == pytest.approx(440 * 2 ** (3 / 12), rel=0.003)


def test_nature_is_silent_between_calls() -> None:
    scenes = [nature.compose(np.random.default_rng(seed), 8.0, RATE) for seed in range(8)]
    assert all(np.isfinite(scene).all() and np.abs(scene).max() > 0 for scene in scenes)
    assert np.median([sounds.gap_floor(scene, RATE) for scene in scenes]) < -50


@pytest.mark.parametrize("seed", range(4))
def test_hum_is_at_multiples_of_the_mains(seed: int) -> None:
    wave = noises.hum(np.random.default_rng(seed), 4 * RATE, RATE)
    peak = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))).argmax() / 4
    assert min(peak % 50, -peak % 50, peak % 60, -peak % 60) < 0.02 * peak
    assert wave.std() == pytest.approx(1)


def test_generated_noise_is_stationary() -> None:
    values = [sounds.nonstationarity(noises.compose(np.random.default_rng(seed), 8.0, RATE), RATE) for seed in range(8)]
    assert np.median(values) < 2


def test_arranged_sounds_come_once_each(rng: np.random.Generator) -> None:
    recordings = [np.full(sampler.RATE // 4, value) for value in (1.0, 2.0, 3.0)]
    sound, used = music.arrange_sounds(rng, recordings, 10.0)
    assert used == [0, 1, 2]
    assert len(sound) == 10 * sampler.RATE
    assert (sound == 0).mean() > 0.2


def test_set_of_a_clone(tmp_path: Path, rng: np.random.Generator) -> None:
    clone = tmp_path / "someone+sounds"
    clone.mkdir()
    for name, sound in (("a", white(rng)), ("b", harmonics()), ("c", np.zeros(RATE))):
        soundfile.write(clone / f"{name}.wav", sound, RATE)
    git = ["git", "-C", str(clone), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "sounds"]):
        subprocess.run([*git, *command], check=True)
    source = sources.Source("someone/sounds", r".*\.wav", "CC0 1.0", "someone", "b.*")
    pieces = [
        music.Piece(f"{split}/{path[0]}", x, rate, path, "CC0 1.0", "x")
        for split, path, x, rate in source.find(tmp_path)
    ]
    assert [piece.name for piece in pieces] == ["train/a", "test/b", "train/c"]
    music.write_set(tmp_path / "set", iter(pieces), rng, is_noise=False)
    assert sorted(str(path.relative_to(tmp_path / "set")) for path in (tmp_path / "set").rglob("*.flac")) == [
        "test/b.flac", "train/a.flac",
    ]  # fmt: skip
    with open(tmp_path / "set/index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["licence"], row["rate"]) for row in rows] == [
        ("train/a.flac", "CC0 1.0", "48000"),
        ("test/b.flac", "CC0 1.0", "48000"),
    ]
    peak = np.abs(soundfile.read(tmp_path / "set/test/b.flac")[0]).max()
    assert 10 ** (-30 / 20) < peak < 1


def test_missing_clones_give_no_pieces(tmp_path: Path) -> None:
    assert not list(music.cut_tracks(tmp_path))
    assert not list(music.collect_sounds(tmp_path, 0))


def test_pieces_depend_on_the_seed_alone() -> None:
    first, again, other = (next(music.generate_noise(seed)).sound for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unknown_set_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["music.py", str(tmp_path), "-o", str(tmp_path), "--only", "jazz"])
    with pytest.raises(SystemExit):
        music.main()
    assert "jazz: there is no such set" in capsys.readouterr().err


def test_takes_of_one_thing_are_on_one_side() -> None:
    names = [thing + kind for thing in ("bell", "cup", "dog", "egg", "fan") for kind in ("", "-old", "-big", "-red")]
    source = sources.Source("someone/sounds", ".*", "CC0 1.0", "someone")
    takes = ["", "1", "2a", "_3", "_4b"]
    splits = [{source.choose_split(f"{name}{take}.mp3") for take in takes} for name in names]
    assert all(len(split) == 1 for split in splits)
    assert set.union(*splits) == {"train", "test"}
