import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from denoise.config import config, override, parse, read_toml
from denoise.errors import ConfigError
from denoise.training.recipe import load_recipe

RECIPES = sorted(Path(__file__).parents[1].glob("recipes/*/recipe.toml"))


@config
class Inner:
    n: int = 1


@config
class Outer:
    inner: Inner
    names: tuple[str, ...] = ()


@config
class Flagged:
    is_on: bool
    rest: dict[str, Any]


def test_values_become_nested_frozen_dataclasses() -> None:
    assert parse(Outer, {"inner": {"n": 3}, "names": ["a", "b"]}, "here") == Outer(Inner(3), ("a", "b"))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"inner": {"m": 3}}, "inner.m"),
        ({"inner": {}, "x": 1}, "x"),
        ({}, "inner"),
        ({"inner": {"n": "no"}}, "inner.n"),
    ],
)
def test_invalid_settings_are_named(values: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=rf"^here: {named}: ") as caught:
        parse(Outer, values, "here")
    assert "\n" not in str(caught.value)


def test_overrides_are_toml_or_bare_words() -> None:
    before = {"a": {"b": 1, "c": 2}}
    out = override(before, ["a.b=[1, 2]", "a.d=word", "e.f=true", 'g="x=y"'])
    assert out == {"a": {"b": [1, 2], "c": 2, "d": "word"}, "e": {"f": True}, "g": "x=y"}
    assert before == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize("setting", ["a", "=1", "a.b.c=1"])
def test_bad_overrides(setting: str) -> None:
    with pytest.raises(ConfigError):
        override({"a": {"b": 1}}, [setting])


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match="not a TOML file"):
        read_toml(tmp_path / "bad.toml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_every_recipe_parses_and_names_its_data(path: Path) -> None:
    recipe = load_recipe(path, ["schedule.steps=7"])
    assert recipe.name == path.parent.name
    assert recipe.schedule.steps == 7
    assert recipe.sources


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"inner": 5}, "inner"),
        ({"inner": {"n": 2.5}}, "inner.n"),
        ({"inner": {"n": [1]}}, "inner.n"),
        ({"inner": {"n": None}}, "inner.n"),
        ({"inner": {}, "names": "abc"}, "names"),
        ({"inner": {}, "names": ["a", 3]}, "names.1"),
    ],
)
def test_values_of_another_type_are_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"^here: {named}: ") as caught:
        parse(Outer, values, "here")
    assert "\n" not in str(caught.value)


def test_flags_are_no_numbers() -> None:
    with pytest.raises(ConfigError, match=r"^here: inner\.n is true; expected a number\. Fix `inner\.n`\.$"):
        parse(Outer, {"inner": {"n": True}}, "here")
    assert parse(Flagged, {"is_on": True, "rest": {"is_off": False}}, "here") == Flagged(True, {"is_off": False})


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.integers(-(2**60), 2**60) | st.booleans()))
def test_overrides_are_read_as_toml(values: dict[str, int | bool]) -> None:
    lines = [f"{key}={str(value).lower()}" for key, value in values.items()]
    toml = "[section]\n" + "\n".join(lines)
    assert override({"section": {}}, [f"section.{line}" for line in lines]) == tomllib.loads(toml)


def test_later_overrides_win() -> None:
    assert override({}, ["a.b=1", "a.c=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}


@pytest.mark.parametrize("content", [b"a = ", b"[a\n", b"\xff\xfe\x00", b"a = 1\na = 2\n", b"\x00"])
def test_what_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "recipe.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"recipe\.toml: not a TOML file") as caught:
        read_toml(tmp_path / "recipe.toml")
    assert "\n" not in str(caught.value)
