"""Recipes: inheritance, settings, and the keys of earlier releases."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from denoise.cards import read_header
from denoise.config import parse
from denoise.errors import ConfigError
from denoise.migrations import RECIPE, migrate_recipe
from denoise.registry import bundled, locate
from denoise.training.image_recipe import Conditioning, ImageData
from denoise.training.recipe import Recipe, load_recipe

GAUSSIAN = Path(__file__).parents[2] / "recipes/gaussian/recipe.toml"
# all tables of the release 0.1, with every key that has another name now
RELEASE_0_1: dict[str, Any] = {
    "name": "old",
    "architecture": "conv-dae",
    "modality": "audio",
    "objective": "denoising",
    "codec": None,
    "init": None,
    "stored": "int8",
    "description": "all keys",
    "licence": "MIT",
    "sources": ["made here"],
    "model": {"ndim": 1, "channels": 1},
    "image": {
        "folders": ["photos"],
        "patch": 64,
        "scales": [1.0, 0.5],
        "sigma": [0.0, 0.2],
        "strong": 0.1,
        "strongest": 3.0,
        "grey": 0.2,
        "saturation": [0.5, 1.1],
        "jpeg": 0.9,
        "jpeg_quality": [85, 98],
        "degrade": {"sensor": 0.3, "film": 0.1, "coarse": 0.1, "correlated": 0.1, "salt": 0.03, "salt_share": 0.2}
        | {"jpeg": 0.6, "jpeg_quality": [30, 98], "rounded": 0.5},
    },
    "audio": {"speech": ["speech"], "noise": ["noise"], "rir": ["rir"], "sample_rates": [8000], "channels": 1}
    | {"seconds": 1.0, "snr_db": [0.0, 5.0], "level_db": [-30.0, -20.0], "rooms": 40, "reverb": 0.1, "band_limit": 0.1}
    | {"clean": 0.1, "clipping": 0.1, "coding": 0.1, "impacts": 0.1, "synthetic": 0.1, "babble": 0.1}
    | {"disturbance": 0.1},
    "examples": {"files": ["a.npz"], "signals": "x", "labels": "y", "names": "z", "sample_rate": 8000, "hold_out": 10}
    | {"binary": True, "flip": True, "speed": 0.06, "shift_s": 0.02, "label_dropout": 0.15, "captions": ["a {}"]},
    "loss": {"waveform": 0.06, "perceptual": 0.1, "beta": 2.0, "free_bits": 0.1, "samples": 5, "estimator": "B"}
    | {"adversarial": 0.02},
    "schedule": {"steps": 10, "batch": 8, "optimizer": "muon", "learning_rate": 2e-3, "weight_decay": 0.1, "warmup": 5}
    | {"grad_clip": 2.0, "ema": 0.9, "seed": 1, "log_every": 2, "checkpoint_every": 3, "sample_every": 4}
    | {"keep_every": 5, "workers": 2},
}

SINCE_0_1 = {"loss.name"}
SINCE_0_1 |= {"image.textures", "image.texture_fraction", "image.further_patches", "image.sigma_mixture"}
SINCE_0_1 |= {"image.channel_order", "image.exposure"}
SINCE_0_1 |= {f"image.conditioning.{field.name}" for field in dataclasses.fields(Conditioning)}
SINCE_0_1 |= {"loss.waveform_floor_db", "loss.over_attenuation", "audio.dc_offset", "audio.drive"}
SINCE_0_1 |= {"audio.music", "audio.music_fraction", "audio.layers", "audio.silence"}
SINCE_0_1 |= {f"audio.{key}" for key in ("tones", "beeps", "broadband", "crackle", "profile", "voice_effects")}
SINCE_0_1 |= {f"image.degrade.{key}" for key in ("unequal", "uneven", "camera", "clean", "resized", "jpeg_offsets")}
SINCE_0_1 |= {"loss.reduction", "loss.denoising", "adversary", "points"}

BEFORE_0_1 = {"schedule.clip", "audio.clip", "audio.codec", "audio.bangs"}  # in weights that are older


def leaves(table: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Values of nested tables by their dotted keys."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        values |= leaves(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return values


def test_keys_of_release_0_1_are_read() -> None:
    old = leaves(RELEASE_0_1)
    assert RECIPE.keys() - old.keys() == BEFORE_0_1
    recipe = parse(Recipe, migrate_recipe(RELEASE_0_1), "old").asdict()
    new = leaves(recipe)
    for key, value in old.items():
        stored = new[RECIPE.get(key, key)]
        assert (list(stored) if isinstance(stored, tuple) else stored) == value, key
    assert new.keys() - {RECIPE.get(key, key) for key in old} == SINCE_0_1


def test_a_recipe_file_and_settings_may_use_keys_of_release_0_1(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(f'extends = "{GAUSSIAN}"\nstored = "int8"\n[image]\nstrong = 0.3\n')
    recipe = load_recipe(tmp_path / "recipe.toml", ["image.strongest=2.0", "image.degrade.salt=0.1"])
    assert recipe.image is not None
    assert recipe.image.high_sigma_fraction == 0.3
    assert recipe.image.sigma_range == (0.0, 2.0)
    assert recipe.image.degrade.salt_and_pepper == 0.1
    assert recipe.stored_dtype == "int8"


@pytest.mark.parametrize("name", bundled())
def test_the_recipes_of_bundled_weights_are_read(name: str) -> None:
    stored = read_header(locate(name))["recipe"]
    recipe = parse(Recipe, stored, name)
    assert recipe.name == name
    assert not leaves(stored).keys() & RECIPE.keys()


def test_sources_of_replaced_data_are_removed() -> None:
    replaced = load_recipe(GAUSSIAN, ['image.folders=["my/photos"]']).sources
    assert replaced == ("""not the recipe's: image.folders=["my/photos"]""",)
    assert load_recipe(GAUSSIAN, ["image.patch=64"]).sources == load_recipe(GAUSSIAN).sources != replaced
    assert load_recipe(GAUSSIAN, ['image.folders=["mine"]', 'sources=["mine: CC0"]']).sources == ("mine: CC0",)


def test_extends_merges_recipes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/recipe.toml").write_text(GAUSSIAN.read_text())
    (tmp_path / "b/recipe.toml").write_text(
        'extends = "../a/recipe.toml"\nname = "b"\n[image]\npatch = 64\n[image.degrade]\nfilm = 0.5\n'
    )
    a, b = (load_recipe(tmp_path / name / "recipe.toml", ["schedule.seed=3"]) for name in "ab")
    assert (b.name, b.image.patch, b.image.degrade.film) == ("b", 64, 0.5)  # type: ignore[union-attr]
    assert b.image.folders == a.image.folders  # type: ignore[union-attr]
    assert (b.schedule, b.model, b.sources) == (a.schedule, a.model, a.sources)
    (tmp_path / "a/recipe.toml").write_text('extends = "../b/recipe.toml"\n')
    with pytest.raises(ConfigError, match="extends itself"):
        load_recipe(tmp_path / "b/recipe.toml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"texture_fraction": 0.3}, "texture_fraction"),
        ({"textures": ["t"]}, "texture_fraction"),
        ({"further_patches": [0]}, "further_patches"),
        ({"exposure": 1.5}, "exposure"),
        ({"conditioning": {"uniform": 0.7, "local": 0.7}}, "uniform and local"),
        ({"conditioning": {"max_error": -1.0}}, "max_error"),
        ({"sigma_mixture": [{"fraction": 0.5, "sigma": [0.0, 1.0], "logarithmic": True}]}, "above 0 if logarithmic"),
        ({"sigma_mixture": [{"fraction": 0.6, "sigma": [0.0, 1.0]}] * 2}, "sum of at most 1"),
        ({"sigma_mixture": [{"fraction": 0.6, "sigma": [0.0, 1.0]}], "high_sigma_fraction": 0.1}, "no high_sigma"),
        ({"degrade": {"jpeg": {"rain": 0.5}}}, "rain"),
        ({"degrade": {"jpeg": 0.5, "jpeg_offsets": 16}, "further_patches": [12]}, "at least 16"),
    ],
)
def test_image_settings_that_contradict_each_other_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(ImageData, {"folders": ["photos"]} | values, "test")


def test_the_range_of_sigma_includes_that_of_the_mixture() -> None:
    mixture = [{"fraction": 0.2, "sigma": [0.3, 1.2], "logarithmic": True}]
    data = parse(ImageData, {"folders": ["a"], "sigma": [0.1, 0.2], "sigma_mixture": mixture}, "test")
    assert data.sigma_range == (0.1, 1.2)
