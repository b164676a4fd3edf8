"""Configurations: TOML and ``key=value`` overrides parsed into frozen dataclasses; unknown keys are refused."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from denoise.errors import ConfigError

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def config(cls: type[T]) -> type[T]:
    """Turn a class into a frozen dataclass that refuses unknown keys when it is parsed."""
    cls.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return dataclass(frozen=True)(cls)


def parse(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Parse plain values into a configuration.

    Args:
        kind: class made by `config`.
        values: fields by name, nested tables as mappings.
        where: prefix of error messages.

    Raises:
        ConfigError: a key is unknown or missing, or a value does not fit; the message names ``where`` and the key.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        parsed = TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        unknown = first["type"] in ("unexpected_keyword_argument", "extra_forbidden")
        reason = "no such setting" if unknown else first["msg"].removeprefix("Value error, ").rstrip(".")
        if not key:  # the class refuses its values together, and says which
            raise ConfigError(f"{where}: {reason}.") from None
        raise ConfigError(f"{where}: {key}: {reason}. Fix `{key}`.") from None
    _refuse_flags(values, parsed, where)
    return parsed


def _refuse_flags(values: Mapping[str, Any], parsed: object, where: str, section: str = "") -> None:
    """Refuse true and false in place of numbers, for which pydantic takes them as for 1 and 0."""
    for name, value in values.items():
        field = getattr(parsed, name)
        if isinstance(value, Mapping) and is_dataclass(field):
            _refuse_flags(value, field, where, f"{section}{name}.")
        elif isinstance(value, bool) and type(field) in (int, float):
            key = f"{section}{name}"
            raise ConfigError(f"{where}: {key} is {str(value).lower()}; expected a number. Fix `{key}`.")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: file to read, UTF-8.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}. Give the path of a recipe.toml.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error}). Fix the line named.") from None


def override(values: dict[str, Any], settings: Iterable[str], example: str = "schedule.steps=2000") -> dict[str, Any]:
    """Override nested values with ``section.key=value`` settings.

    Args:
        values: nested tables; they are not changed.
        settings: overrides in order; values are written as in TOML, and bare words are strings.
        example: a setting, for error messages.

    Returns:
        A new mapping.

    Raises:
        ConfigError: a setting has no ``=``, or its section is a value.

    >>> override({"schedule": {"steps": 10}}, ["schedule.steps=20", "name=b"])
    {'schedule': {'steps': 20}, 'name': 'b'}
    """
    overridden: dict[str, Any] = {
        key: dict(value) if isinstance(value, dict) else value for key, value in values.items()
    }
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {setting}: expected a name and a value, as in {example}.")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            value = text  # a bare word is a string, so that shells need no double quotes
        *sections, last = key.split(".")
        table = overridden
        for section in sections:
            inner = table.get(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {setting}: {section} is a value, not a section.")
            table[section] = dict(inner)
            table = table[section]
        table[last] = value
    return overridden
