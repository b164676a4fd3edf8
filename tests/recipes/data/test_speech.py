"""The lists of speech, noise and rooms, and their collection from a clone."""

import csv
import io
import re
import subprocess
import sys
import tomllib
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
import speech
import speech_sources
from clones import Clone
from licences import find_licence

ROOT = Path(__file__).parents[3]
SOURCES = speech_sources.load_sources(ROOT / "recipes/data/speech.toml")


def wav(x: np.ndarray, rate: int) -> bytes:
    """Return a WAV file with 16 bits."""
    file = io.BytesIO()
    soundfile.write(file, x, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def word(seconds: float, seed: int, floor: float = 1e-5) -> bytes:
    """Return noise with pauses around it at 16 kHz, as a word in a quiet room."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([np.zeros(8000), 0.1 * rng.standard_normal(round(seconds * 16_000)), np.zeros(8000)])
    return wav(x + floor * rng.standard_normal(len(x)), 16_000)


def commit(folder: Path, files: dict[str, bytes]) -> Path:
    """Commit files to a new repository and return its folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "data"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize(
    ("line", "licence"),
    [
        ("| rain.ogg | someone | **CC0 1.0** |", "CC0"),
        ("License: Creative Commons Attribution 3.0 Unported.", "CC BY 3.0"),
        ("Creative Commons Attribution-ShareAlike 3.0 Unported", "CC BY-SA 3.0"),
        ("CC BY-SA 4.0", "CC BY-SA 4.0"),
        ("in the public domain", "public domain"),
        ("CC BY-NC 4.0", None),
        ("Creative Commons Attribution-NonCommercial 4.0", None),
        ("GPL 3", None),
    ],
)
def test_licences_are_told_from_text(line: str, licence: str | None) -> None:
    assert find_licence(line) == licence


def test_a_credit_is_the_line_that_names_the_file() -> None:
    text = "| Sound | Author |\n| [Heavy rain](u) | b | CC BY\n| [Rain](u) | c | CC0 1.0\nx/hail-1.wav by d: CC0\n"
    assert speech_sources.find_credit(text, "sounds/rain.ogg") == "| [Rain](u) | c | CC0 1.0"
    assert speech_sources.find_credit(text, "sounds/heavy_rain.ogg") == "| [Heavy rain](u) | b | CC BY"
    assert speech_sources.find_credit(text, "x/hail-1.wav") == "x/hail-1.wav by d: CC0"
    assert speech_sources.find_credit(text, "sounds/wind.ogg") == ""


def test_the_folders_of_the_recipe_are_those_that_are_collected() -> None:
    audio = tomllib.loads((ROOT / "recipes/speech/recipe.toml").read_text())["audio"]
    for kind, key in (("speech", "speech"), ("noise", "noise"), ("room", "rir")):
        collected = {source.folder for source in SOURCES if source.kind == kind}
        assert {Path(folder).parts[1] for folder in audio[key]} == collected


def test_every_source_has_a_licence_that_permits_training() -> None:
    for source in SOURCES:
        if source.licence not in ("MIT", "Apache-2.0"):
            assert source.credits or find_licence(source.licence), source


def test_the_test_speakers_are_those_of_the_first_release() -> None:
    children = next(source for source in SOURCES if source.repository == "jimbozhang/speechocean762")
    assert len(children.test.split("|")) == 25
    arabic = next(source for source in SOURCES if "arabic" in source.repository)
    paths = [f"dataset/yes/000000{speaker:02}_NO_01.wav" for speaker in range(1, 31)]
    assert [i + 1 for i, path in enumerate(paths) if re.search(arabic.test, path)] == [10, 14, 28]


def test_candidates_have_speakers_splits_and_licences(tmp_path: Path) -> None:
    files = {"a/1-x.ogg": b"1", "a/2-x.ogg": b"2", "a/3-x.ogg": b"3", "a/4-bad.ogg": b"4", "b/5-x.ogg": b"5"}
    credits = b"1-x.ogg by p, CC0\n2-x.ogg by q, CC BY 4.0\n3-x.ogg by r, CC BY-NC 4.0\n4-bad.ogg, CC0\n5-x.ogg, CC0\n"
    folder = commit(tmp_path / "o+n", {**files, "CREDITS": credits})
    source = speech_sources.Source(
        "noise",
        "noise",
        "o/n",
        r"\w/(?P<speaker>\d)-.*\.ogg",
        credits="CREDITS",
        exclude="bad",
        test="/2",
        validation="b/",
    )
    with closing(Clone(folder)) as clone:
        found = [(c.path, c.speaker, c.split, c.licence) for c in speech_sources.find_candidates(clone, source)]
    assert found == [
        ("a/1-x.ogg", "1", "train", "CC0"),
        ("a/2-x.ogg", "2", "test", "CC BY 4.0"),
        ("b/5-x.ogg", "5", "validation", "CC0"),
    ]


def test_speech_is_joined_by_speaker_and_limited_and_noisy_speech_is_left_out(tmp_path: Path) -> None:
    files = {f"{speaker}/{i}.wav": word(1.0, i) for i, speaker in enumerate("aaaaaabb")}
    folder = commit(tmp_path / "o+n", {**files, "a/9.wav": word(1.0, 9, floor=0.01)})
    source = speech_sources.Source(
        "speech", "speech", "o/n", r"(?P<speaker>\w)/\d\.wav", licence="CC0", minutes=5.7 / 60
    )
    counts: Counter[str] = Counter()
    with closing(Clone(folder)) as clone:
        pieces = list(speech.collect_speech(clone, source, list(speech_sources.find_candidates(clone, source)), counts))
    assert counts["noisy"] == 1
    assert counts["beyond the minutes"] == 2  # of six words of 1.4 s; four fit
    assert [(piece.sources[0].speaker, len(piece.sources)) for piece in pieces] == [("a", 3), ("a", 1), ("b", 2)]
    assert pieces[0].rate == 16_000
    assert len(pieces[0].samples) == pytest.approx(3 * 1.4 * 16_000, rel=0.03)


def test_the_minutes_of_a_speaker_hold_over_all_rates(tmp_path: Path) -> None:
    rng, x = np.random.default_rng(5), np.zeros(3 * 44_100)
    x[44_100:88_200] = 0.1 * rng.standard_normal(44_100)
    wide = wav(x, 44_100)
    files = {f"a/{i}.wav": word(1.0, i) for i in range(4)} | {"a/wide.wav": wide}
    source = speech_sources.Source(
        "speech", "speech", "o/n", r"(?P<speaker>\w)/\w+\.wav", licence="CC0", minutes=4.5 / 60
    )
    with closing(Clone(commit(tmp_path / "o+n", files))) as clone:
        pieces = list(
            speech.collect_speech(clone, source, list(speech_sources.find_candidates(clone, source)), Counter())
        )
    assert {piece.rate for piece in pieces} == {16_000, 44_100}
    assert sum(len(piece.samples) / piece.rate for piece in pieces) <= 4.5


def test_names_that_a_number_makes_equal_are_told_apart(tmp_path: Path) -> None:
    files = {name: bytes([i]) for i, name in enumerate(["a/water.ogg", "b/water.ogg", "b/water-2.ogg"])}
    with closing(Clone(commit(tmp_path / "o+n", files))) as clone:
        names: set[str] = set()
        for path in clone.files:
            candidate = speech_sources.Candidate(path, "", "train", "CC0", "")
            piece = speech.Piece(np.zeros(800), 8000, (candidate,), 0.0, 0.0)
            speech.write(piece, clone, tmp_path, names)
    assert len(list(tmp_path.glob("train/*.flac"))) == 3


def test_the_script_writes_folders_and_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = wav(0.1 * np.random.default_rng(4).standard_normal(16_000), 16_000)
    commit(
        tmp_path / "clones/o+n",
        {"s/a.wav": word(2, 1), "s/b.wav": word(2, 2), "n/rain.wav": noise, "n/copy.wav": noise},
    )
    (tmp_path / "sources.toml").write_text(
        "[[speech]]\nfolder = 'speech'\nrepository = 'o/n'\nfiles = 's/.*'\nlicence = 'CC0 1.0'\ntest = 'b.wav'\n"
        "[[noise]]\nfolder = 'noise'\nrepository = 'o/n'\nfiles = 'n/.*'\nlicence = 'CC BY 4.0'\ncredit = 'someone'\n"
        "[[noise]]\nfolder = 'noise'\nrepository = 'p/q'\nfiles = '.*'\nlicence = 'CC0 1.0'\n"
    )
    arguments = [str(tmp_path / "clones"), "-o", str(tmp_path / "audio"), "--sources", str(tmp_path / "sources.toml")]
    monkeypatch.setattr(sys, "argv", ["speech.py", *arguments])
    speech.main()
    with open(tmp_path / "audio/speech/index.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["source"], row["licence"]) for row in rows] == [
        ("train/n-a.flac", "s/a.wav", "CC0 1.0"),
        ("test/n-b.flac", "s/b.wav", "CC0 1.0"),
    ]
    info = soundfile.info(tmp_path / "audio/speech/train/n-a.flac")
    assert (info.samplerate, info.subtype) == (16_000, "PCM_16")
    assert info.duration == pytest.approx(float(rows[0]["seconds"]), abs=1e-3)
    assert [path.name for path in (tmp_path / "audio/noise/train").iterdir()] == ["n-copy.flac"]  # equal contents once
