"""Settings: TOML and ``key=value`` overrides into frozen dataclasses, unknown keys refused."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from denoise.errors import ConfigError

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def config(cls: type[T]) -> type[T]:
    """Make a frozen dataclass of settings that refuses unknown keys when it is parsed."""
    cls.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return dataclass(frozen=True)(cls)


def parse(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Turn plain values into the dataclass ``kind``.

    Raises:
        ConfigError: a key is unknown or missing, or a value does not fit; the message names ``where``.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or kind.__name__
        unknown = first["type"] in ("unexpected_keyword_argument", "extra_forbidden")
        reason = "no such setting" if unknown else first["msg"].removeprefix("Value error, ").rstrip(".")
        raise ConfigError(f"{where}: {key}: {reason}. Mend this setting.") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}. Give the path of a recipe.toml.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error}). Mend it there.") from None


def override(values: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Put ``section.key=value`` settings, whose values are written as in TOML, over nested ``values``.

    >>> override({"schedule": {"steps": 10}}, ["schedule.steps=20", "name=b"])
    {'schedule': {'steps': 20}, 'name': 'b'}

    Raises:
        ConfigError: a setting has no ``=`` or reaches into something that is no section.
    """
    out: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {setting}: expected key=value, for instance schedule.steps=2000.")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            value = text  # a bare word is a string, so that shells need no double quotes
        *sections, last = key.split(".")
        place = out
        for section in sections:
            inner = place.get(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {setting}: {section} is a value, not a section.")
            place[section] = dict(inner)
            place = place[section]
        place[last] = value
    return out
