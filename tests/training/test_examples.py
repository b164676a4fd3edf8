"""Codecs and priors learn: the lecture's autoencoder of small digits, and every objective in a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from denoise.config import parse
from denoise.errors import ConfigError
from denoise.noise import generator_for
from denoise.registry import build, load
from denoise.training.examples import LabelledExamples
from denoise.training.loop import open_data, train
from denoise.training.recipe import Examples, Recipe

SCHEDULE = {"steps": 30, "batch": 32, "learning_rate": 3e-3, "warmup": 5, "log_every": 10, "ema": 0.9}
DIGITS = {"files": ["digits.npz"], "signals": "images", "labels": "labels", "hold_out": 5}
DENSE = {"kind": "dense", "widths": [32], "activation": "elu"}
NORMAL = {"architecture": "flow", "kind": "normal"}
# the lecture's: 64 pixels, 32 hidden units, 8 latents
LECTURE = {
    "codec": {"architecture": "vae", "shape": [1, 8, 8], "latent": 8, "likelihood": "bernoulli", "body": DENSE},
    "prior": {**NORMAL, "shape": [8]},
}
NET = {"kind": "mlp", "widths": [64], "blocks": 2, "embedding": 32}
UNET = {"kind": "unet", "widths": [8, 16], "blocks": 1, "embedding": 32}
PRIORS: dict[str, dict[str, Any]] = {
    "elbo": {"architecture": "latent-prior", "model": LECTURE},
    "adversarial": {
        "architecture": "latent-prior",
        "model": {
            "codec": {"architecture": "aae", "shape": [1, 8, 8], "latent": 4, "body": DENSE},
            "prior": {**NORMAL, "shape": [4]},
        },
    },
    "diffusion": {
        "architecture": "diffusion",
        "model": {"shape": [1, 8, 8], "net": UNET, "mean": 0.3, "sigma_data": 0.37, "classes": 10},
    },
    "flow-matching": {
        "architecture": "flow-matching",
        "model": {"shape": [1, 8, 8], "net": NET, "mean": 0.3, "sigma_data": 0.37, "classes": 10, "text": True}
        | {"coupling": "optimal-transport"},
    },
    "likelihood": {"architecture": "flow", "model": {"shape": [1, 8, 8], "kind": "maf", "hidden": [32], "classes": 10}},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    found = load_digits()
    images = np.rint(found.images * 255 / 16).astype(np.uint8)
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    np.savez(root / "digits.npz", images=images, labels=found.target, names=names)
    t = np.arange(64) / 8000
    tones = np.stack([np.sin(2 * np.pi * f * t) for f in np.linspace(200, 2000, 50)])
    np.savez(root / "tones.npz", signals=(tones * 20_000).astype(np.int16))
    return root


def recipe(objective: str, **changes: Any) -> Recipe:
    values = {"name": "tiny", "modality": "image", "objective": objective, "schedule": SCHEDULE, "examples": DIGITS}
    return parse(Recipe, values | PRIORS.get(objective, {}) | {"sources": ["made here"]} | changes, "test")


def run(recipe: Recipe, data: Path, out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    train(recipe, data, out, device="cpu", precision="32-true", report=rows.append)
    return rows


def test_the_lectures_autoencoder_of_digits(data: Path, tmp_path: Path) -> None:
    schedule = SCHEDULE | {"steps": 400, "batch": 64, "learning_rate": 5e-3}
    rows = run(recipe("elbo", schedule=schedule), data, tmp_path)
    assert rows[-1]["r2"] > 0.5
    assert rows[-1]["nats"] < rows[0]["nats"] - 10
    model, card = load(tmp_path / "tiny.safetensors")
    assert (card.kind, card.shape, card.classes, card.architecture) == ("prior", (1, 8, 8), (), "latent-prior")
    held = torch.from_numpy(load_digits().images[::5] / 16).float()[:, None]  # never seen
    fresh = build("latent-prior", LECTURE)
    bounds = [m.bound(held, 50, torch.Generator().manual_seed(0)).mean() for m in (fresh, model)]
    assert bounds[1] > bounds[0] + 10
    drawn = model.sample(256, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (256, 1, 8, 8)
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert (drawn.mean(dim=0) - held.mean(dim=0)).abs().mean() < 0.1
    assert len([*(tmp_path / "samples").iterdir()]) == 1


@pytest.mark.parametrize("objective", [name for name in PRIORS if name != "elbo"])
def test_every_objective_makes_a_prior_that_loads_and_samples(objective: str, data: Path, tmp_path: Path) -> None:
    rows = run(recipe(objective), data, tmp_path)
    assert rows[-1]["loss"] < rows[0]["loss"]
    model, card = load(tmp_path / "tiny.safetensors")
    asked = bool(PRIORS[objective]["model"].get("classes"))
    assert card.kind == "prior"
    assert len(card.classes) == (10 if asked else 0)
    assert card.text == (objective == "flow-matching")
    for label in (None, 3, "a nine") if card.text else (None, 3) if asked else (None,):
        x = model.sample(2, label=label, generator=torch.Generator().manual_seed(0))
        assert x.shape == (2, 1, 8, 8)
        assert torch.isfinite(x).all()


def test_what_losses_draw_comes_again_after_a_resumption(data: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(row: dict[str, Any]) -> None:
        if row["step"] == 15:
            raise KilledError

    def go(name: str, **options: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        schedule = SCHEDULE | {"steps": 20, "log_every": 5, "checkpoint_every": 10}
        report = options.pop("report", rows.append)
        made = recipe("elbo", schedule=schedule)
        train(made, data, tmp_path / name, device="cpu", precision="32-true", report=report, **options)
        return rows

    whole = go("whole")
    with pytest.raises(KilledError):
        go("cut", report=kill)
    assert [row["loss"] for row in go("cut", resume=True)] == [row["loss"] for row in whole[2:]]


def test_a_prior_learns_what_a_codec_remembers(data: Path, tmp_path: Path) -> None:
    codec = {"shape": [1, 8, 8], "latent": 3, "body": {"kind": "conv", "widths": [8, 16], "spatial": True}}
    run(recipe("reconstruction", architecture="ae", model=codec), data, tmp_path / "codec")
    path = tmp_path / "codec/tiny.safetensors"
    before, card = load(path)
    assert (card.kind, card.channels, card.shape) == ("codec", 1, (1, 8, 8))
    prior = {"shape": [3, 4, 4], "net": UNET, "sigma_data": 1.0, "classes": 10}
    made = recipe("diffusion", architecture="diffusion", model=prior, codec=str(path))
    run(made, data, tmp_path / "prior")
    model, card = load(tmp_path / "prior/tiny.safetensors")
    assert (card.kind, card.architecture, card.shape) == ("prior", "latent-prior", (1, 8, 8))
    for name, p in before.named_parameters():
        torch.testing.assert_close(model.codec.get_parameter(name), p, atol=1e-3, rtol=1e-3)  # it learnt no more
    x = model.sample(2, label=1, steps=3, generator=torch.Generator().manual_seed(0))
    assert x.shape == (2, 1, 8, 8)
    with pytest.raises(ConfigError, match="latents are"):
        run(
            recipe("diffusion", architecture="diffusion", model=prior | {"shape": [3, 8, 8]}, codec=str(path)),
            data,
            tmp_path / "x",
        )


def test_a_prior_takes_over_the_codec_of_another(data: Path, tmp_path: Path) -> None:
    """Of sounds, by their spectra: the codec learns beside a normal prior, then a better one learns its latents."""
    tones = {"files": ["tones.npz"], "sample_rate": 8000}
    inner = {"architecture": "vae", "shape": [9, 16], "latent": 2}
    inner |= {"body": {"kind": "conv", "widths": [8, 8], "spatial": True}}
    codec = {"architecture": "spectral-codec", "time": 64, "n_fft": 16, "hop": 4, "iterations": 5, "codec": inner}
    model = {"codec": codec, "prior": {**NORMAL, "shape": [2, 8]}}
    run(recipe("elbo", modality="audio", examples=tones, model=model), data, tmp_path / "codec")
    path = tmp_path / "codec/tiny.safetensors"
    net = {"shape": [2, 8], "net": UNET}
    run(recipe("flow-matching", modality="audio", examples=tones, model=net, codec=str(path)), data, tmp_path / "prior")
    model_, card = load(tmp_path / "prior/tiny.safetensors")
    assert (card.kind, card.shape, card.sample_rate) == ("prior", (1, 64), 8000)
    assert model_.sample(2, steps=2, generator=torch.Generator().manual_seed(0)).shape == (2, 1, 64)
    run(recipe("flow-matching"), data, tmp_path / "none")
    with pytest.raises(ConfigError, match="without a codec"):
        run(recipe("flow-matching", codec=str(tmp_path / "none/tiny.safetensors")), data, tmp_path / "x")


def test_sounds_are_examples_too(data: Path, tmp_path: Path) -> None:
    tones = {"files": ["tones.npz"], "sample_rate": 8000}
    net = {"shape": [1, 64], "net": UNET, "sigma_data": 0.4}
    run(recipe("flow-matching", modality="audio", examples=tones, model=net), data, tmp_path)
    _, card = load(tmp_path / "tiny.safetensors")
    assert (card.modality, card.sample_rate, card.shape) == ("audio", 8000, (1, 64))
    assert [path.suffix for path in (tmp_path / "samples").iterdir()] == [".wav"]
    with pytest.raises(ConfigError, match="sample_rate"):
        recipe("flow-matching", modality="audio", examples={"files": ["tones.npz"]}, model=net)


def test_labels_are_told_or_not_and_in_words(data: Path) -> None:
    words = DIGITS | {"names": "names", "captions": ["a {}", "the digit {}"], "label_dropout": 0.25}
    batch = open_data(recipe("flow-matching", examples=words), data).batch(4000, generator_for(0, 0))
    assert batch.labels is not None
    kinds = {kind: sum(isinstance(label, kind) for label in batch.labels) / 4000 for kind in (int, str, type(None))}
    assert kinds[type(None)] == pytest.approx(0.25, abs=0.03)
    assert kinds[int] == pytest.approx(kinds[str], abs=0.05)
    assert "the digit seven" in batch.labels
    held = load_digits().images[::5]
    seen = {x.numpy().round(3).tobytes() for x in batch.clean[:, 0] * 16}
    assert not seen & {np.float32(x).round(3).tobytes() for x in held[:50]}


def test_binary_pixels_are_drawn_by_their_grey(data: Path) -> None:
    source = open_data(recipe("elbo", examples=DIGITS | {"binary": True}), data)
    grey = open_data(recipe("elbo"), data)
    drawn = torch.cat([source.batch(1000, generator_for(0, step)).clean for step in range(4)])
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    expected = (grey.signals.float() / 255).mean(dim=0)
    torch.testing.assert_close(drawn.mean(dim=0), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("examples", "reason"),
    [
        ({"files": ["none.npz"]}, "cannot be read"),
        ({"files": ["digits.npz"]}, "no signals"),
        (DIGITS | {"labels": "classes"}, "no classes"),
        (DIGITS | {"files": ["digits.npz", "tones.npz"]}, "no images"),
    ],
)
def test_what_is_not_there_is_told(examples: dict[str, Any], reason: str, data: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        open_data(recipe("elbo", examples=examples), data)


def test_a_network_is_told_what_it_knows(data: Path) -> None:
    worded = recipe("flow-matching", examples=DIGITS | {"names": "names", "captions": ["a {}"], "label_dropout": 0.0})
    labels = open_data(worded, data, classes=0, text=True).batch(200, generator_for(0, 0)).labels
    assert labels is not None
    assert all(isinstance(label, str) for label in labels)
    with pytest.raises(ConfigError, match="holds 10 classes; the network knows 9"):
        open_data(worded, data, classes=9)
    with pytest.raises(ConfigError, match="are words"):
        open_data(worded, data, classes=10, text=False)


def test_sounds_are_replayed_at_other_speeds_and_moments(tmp_path: Path) -> None:
    t = np.arange(8000) / 8000
    word = np.sin(2 * np.pi * 500 * t) * np.exp(-(((t - 0.5) / 0.1) ** 2))
    np.savez(tmp_path / "tone.npz", signals=np.round(word * 20_000).astype(np.int16)[None])
    how = {"files": ["tone.npz"], "sample_rate": 8000, "speed": 0.2, "shift_s": 0.05}
    batch = LabelledExamples(parse(Examples, how, "test"), tmp_path).batch(64, generator_for(0, 0)).clean[:, 0]
    assert batch.shape == (64, 8000)
    hz = torch.fft.rfft(batch, dim=1).abs().argmax(dim=1) * 1.0
    assert 400 <= hz.min() < 450
    assert 560 < hz.max() <= 625.5
    power = batch.square()
    middles = (power * torch.arange(8000)).sum(dim=1) / power.sum(dim=1) / 8000
    assert 0.449 <= middles.min() < 0.46
    assert 0.54 < middles.max() <= 0.551
    assert torch.corrcoef(torch.stack([hz, middles]))[0, 1].abs() < 0.4  # drawn apart


@pytest.mark.parametrize("wrong", [{"speed": 0.1}, {"speed": 0.6, "sample_rate": 8000}, {"shift_s": -1.0}])
def test_pictures_are_not_replayed(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="speed"):
        parse(Examples, {"files": ["a.npz"]} | wrong, "test")
