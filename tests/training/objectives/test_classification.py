"""The objective of classifiers: it learns what differs between classes, and refuses recipes that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from denoise.config import parse
from denoise.errors import ConfigError
from denoise.files.audio import write_audio
from denoise.registry import build, load
from denoise.signals import Audio, AudioFormat
from denoise.training.loop import train
from denoise.training.objectives import make_objective
from denoise.training.objectives.classification import ClassMixes
from denoise.training.recipe import Recipe, load_recipe

TONES = {
    "speech": ["tones"],
    "noise": ["hiss"],
    "sample_rates": [8000, 16000],
    "snr_db": [10.0, 30.0],
    "synthetic": 0.0,
}
VALUES: dict[str, Any] = {
    "name": "tiny-classifier",
    "architecture": "audio-classifier",
    "modality": "audio",
    "objective": "classification",
    "model": {"class_names": ["tones", "hiss"], "bands": 8, "widths": [4, 8], "window_s": 0.5},
    "classes": {"tones": TONES, "hiss": TONES | {"speech": ["hiss"]}},
    "schedule": {"steps": 40, "batch": 16, "learning_rate": 1e-2, "warmup": 5, "log_every": 5},
    "sources": ["made here"],
}


def recipe(**changes: Any) -> Recipe:
    return parse(Recipe, VALUES | changes, "test")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng, rate = np.random.default_rng(0), 16_000
    t = np.arange(2 * rate) / rate
    for i in range(3):
        for name, x in (("tones", np.sin(2 * np.pi * 220 * (i + 1) * t)), ("hiss", rng.standard_normal(2 * rate))):
            (tmp_path / name).mkdir(exist_ok=True)
            audio = Audio((0.1 * x).astype(np.float32)[None], AudioFormat(rate, 1, "WAV", "PCM_16"))
            write_audio(tmp_path / name / f"{i}.wav", audio)
    return tmp_path


def test_a_classifier_learns_its_classes(data: Path, tmp_path: Path) -> None:
    path = train(recipe(), data, tmp_path / "run", device="cpu", precision="32-true")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["accuracy"] == 1.0
    assert rows[-1]["loss"] < 0.3 < rows[0]["loss"]
    module, card = load(path, kind="classifier")
    assert (card.kind, card.classes, card.sample_rate, card.channels) == ("classifier", ("tones", "hiss"), 16_000, 1)
    t = torch.arange(16_000) / 16_000
    logits = module(torch.sin(2 * np.pi * 300 * t)[None, None], sample_rate=16_000)
    assert logits.argmax() == 0
    header, *counts = (tmp_path / "run/samples/step-000040.csv").read_text().splitlines()
    assert header == "true,tones,hiss"
    assert sum(int(n) for row in counts for n in row.split(",")[1:]) == 256


def test_batches_depend_on_the_generator_alone(data: Path) -> None:
    mixes = ClassMixes(recipe().classes, data, 0.5)
    first, second = (mixes.batch(8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.noisy, second.noisy)
    assert first.labels == second.labels
    assert set(mixes.batch(64, torch.Generator().manual_seed(1)).labels or ()) == {0, 1}
    assert first.noisy.shape[-1] == 0.5 * (first.sample_rate or 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": {"hiss": TONES, "tones": TONES}}, r"class_names are \['tones', 'hiss'\], \[classes\] has"),
        ({"classes": {"tones": TONES, "hiss": TONES | {"sample_rates": [8000]}}}, "different sample_rates"),
        ({"architecture": "mdct", "model": {"time": 64, "bins": 8}}, "mdct is no classifier"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    made = recipe(**changes)
    with pytest.raises(ConfigError, match=message):
        make_objective(made).validate(build(made.architecture, made.model))


def test_an_override_of_the_data_replaces_the_sources() -> None:
    changed = load_recipe(Path("recipes/audio-kind/recipe.toml"), ['classes.speech.noise=["mine"]'])
    assert changed.sources == ('not the recipe\'s: classes.speech.noise=["mine"]',)
    assert load_recipe(Path("recipes/audio-kind/recipe.toml"), ["schedule.steps=5"]).sources != changed.sources
