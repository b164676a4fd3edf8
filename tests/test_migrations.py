"""Files of earlier releases: the bundled weights keep the names of the release that wrote them."""

from __future__ import annotations

import json
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from denoise.cards import Card
from denoise.config import parse
from denoise.errors import ConfigError
from denoise.migrations import (
    CONFIG,
    DESCRIPTIONS,
    RECIPE,
    STATE_DICT,
    migrate_config,
    migrate_recipe,
    migrate_tensor_name,
)
from denoise.registry import build, bundled, load, locate
from denoise.training.recipe import Recipe
from denoise.weights import save_weights


def stored(name: str) -> tuple[list[str], dict[str, Any]]:
    """Return tensor names and metadata of a bundled file, untranslated."""
    with safe_open(locate(name), framework="pt") as file:
        return [*file.keys()], {key: json.loads(value) for key, value in file.metadata().items()}


FILES = {name: stored(name) for name in bundled()}


def keys(values: Any) -> set[str]:
    """Return all keys of nested mappings."""
    if not isinstance(values, dict):
        return set()
    return set(values).union(*map(keys, values.values()))


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in STATE_DICT])
def test_every_pattern_of_tensor_names_is_used(pattern: str) -> None:
    assert any(re.search(pattern, tensor) for tensors, _ in FILES.values() for tensor in tensors)


@pytest.mark.parametrize("name", FILES)
def test_migration_is_idempotent_and_keeps_names_distinct(name: str) -> None:
    tensors, header = FILES[name]
    migrated = [migrate_tensor_name(tensor) for tensor in tensors]
    assert len({*migrated}) == len(tensors)
    assert [migrate_tensor_name(tensor) for tensor in migrated] == migrated
    config = migrate_config(header["config"])
    assert migrate_config(config) == config
    recipe = migrate_recipe(header["recipe"])
    assert migrate_recipe(recipe) == recipe


@pytest.mark.parametrize("name", FILES)
def test_the_recipe_of_every_bundled_model_parses(name: str) -> None:
    _, header = FILES[name]
    recipe = parse(Recipe, migrate_recipe(header["recipe"]), name)
    assert recipe.name == header["card"]["name"]
    assert not keys(recipe.asdict()["model"]) & CONFIG.keys()


def test_descriptions_are_those_of_bundled_models() -> None:
    assert DESCRIPTIONS.keys() <= {header["card"]["description"] for _, header in FILES.values()}
    assert {load(name)[1].description for name in FILES} >= set(DESCRIPTIONS.values())


def test_new_names_are_not_migrated_again() -> None:
    assert not CONFIG.keys() & set(CONFIG.values())
    assert not RECIPE.keys() & set(RECIPE.values())


@pytest.mark.parametrize(("old", "new"), CONFIG.items())
def test_config_fields_are_translated_at_any_depth(old: str, new: str) -> None:
    assert any(old in keys(header["config"]) for _, header in FILES.values())
    assert migrate_config({"a": 1, "b": {old: 2, "c": {old: 3}}}) == {"a": 1, "b": {new: 2, "c": {new: 3}}}
    assert migrate_recipe({"model": {old: 4}}) == {"model": {new: 4}}


@pytest.mark.parametrize(("old", "new"), RECIPE.items())
def test_recipe_keys_are_translated(old: str, new: str) -> None:
    def nest(dotted: str) -> dict[str, Any]:
        return reduce(lambda value, key: {key: value}, reversed(dotted.split(".")), 7)  # type: ignore[arg-type, return-value]

    assert migrate_recipe(nest(old)) == nest(new)
    assert migrate_recipe({"name": "x", "sources": ["a"], "empty": {}}) == {
        "name": "x",
        "sources": ["a"],
        "empty": {},
    }


def test_a_dense_autoencoder_of_release_0_1_keeps_its_tanh_at_the_output(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, net = tmp_path / "old.safetensors", build("dense-ae", {"shape": [3, 4, 4], "widths": [5]})
    save_weights(path, net, Card("old", "dense-ae", "image", 3), {}, torch.float32)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | {"config": json.dumps({"shape": [3, 4, 4], "widths": [5], "activation": "elu"})}
    save_file(load_file(path), path, metadata)
    x = 3 * torch.rand(2, 3, 4, 4)
    flat = (2 * x - 1).reshape(2, 48)
    flat = torch.tanh(net.decoder[0](net.encoder[0](flat)))
    with torch.no_grad():
        torch.testing.assert_close(load(path)[0](x), (flat.reshape(2, 3, 4, 4) + 1) / 2)


def test_a_flow_of_release_0_1_of_kind_nice_is_a_realnvp(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = {"shape": [3], "kind": "realnvp", "transforms": 2, "hidden": [4]}
    path, flow = tmp_path / "old.safetensors", build("flow", settings)
    save_weights(path, flow, Card("old", "flow", "image", 3, kind="prior", shape=(3,)), {}, torch.float32)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | {"config": metadata["config"].replace("realnvp", "nice")})
    x = torch.randn(4, 3)
    with torch.no_grad():
        torch.testing.assert_close(load(path)[0].log_prob(x), flow.log_prob(x))
    assert migrate_config({"prior": {"kind": "nice"}}, "latent-prior") == {"prior": {"kind": "realnvp"}}
    with pytest.raises(ConfigError, match="kind: Input should be"):
        build("flow", settings | {"kind": "nice"})
