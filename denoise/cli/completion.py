"""Shell completion of options and of bundled model names, without torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import shorten
from typing import Any

from typer.core import TyperCommand, TyperGroup

import denoise
from denoise.options import BACKENDS, DEVICES

DESCRIPTION_WIDTH = 60  # characters; typer breaks longer ones into several lines, which shells read as candidates


class Command(TyperCommand):
    """A command whose completions are described in plain text."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return the completions of an incomplete word."""
        return _describe_plainly(super().shell_complete(ctx, incomplete))


class Group(TyperGroup):
    """A group of commands whose completions are described in plain text."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return the completions of an incomplete word."""
        return _describe_plainly(super().shell_complete(ctx, incomplete))


def _describe_plainly(items: list[Any]) -> list[Any]:
    for item in items:
        item.help = _plain_description(item.help or "")
    return items


def _plain_description(text: str) -> str:
    """Shorten and escape a description: typer parses it as rich markup for zsh and fish."""
    from rich.markup import escape

    return escape(shorten(text, DESCRIPTION_WIDTH, placeholder=" ..."))


def model_names(
    kind: str | None = None, modality: str | None = None, *, can_restore: bool = False
) -> Callable[[str], list[tuple[str, str]]]:
    """Return a completer of the names of bundled models.

    Args:
        kind: ``"denoiser"``, ``"prior"`` or ``"codec"``; None for any.
        modality: ``"audio"``, ``"image"`` or ``"points"``; None for any.
        can_restore: whether to list what ``--prior`` takes for the modality only.
    """

    def complete(incomplete: str) -> list[tuple[str, str]]:
        from denoise.registry import RESTORERS

        return [
            (card["name"], _plain_description(card["description"]))
            for card in _bundled_cards()
            if card["name"].startswith(incomplete)
            and kind in (None, card["kind"])
            and modality in (None, card["modality"])
            and (not can_restore or card["name"] in RESTORERS[card["modality"]])
        ]

    return complete


def complete_device(incomplete: str) -> list[str]:
    """Return the device names that begin with ``incomplete``."""
    return [name for name in DEVICES if name.startswith(incomplete)]


def complete_backend(incomplete: str) -> list[str]:
    """Return the names of backends that begin with ``incomplete``."""
    return [name for name in BACKENDS if name.startswith(incomplete)]


def _bundled_cards() -> Iterator[dict[str, Any]]:
    """Yield the model cards in the headers of the bundled weights; `denoise.weights` would import torch."""
    for path in sorted((Path(denoise.__file__).parent / "pretrained").glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        yield json.loads(header["__metadata__"]["card"])
