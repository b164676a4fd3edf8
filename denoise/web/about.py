"""What the page says about the models: the cards in their weights."""

from __future__ import annotations

from typing import Any

from denoise.cards import Card, read_header
from denoise.registry import DEFAULTS, bundled, locate


def list_models() -> list[dict[str, Any]]:
    """Return the cards of the bundled models as plain values for JSON, in alphabetical order."""
    return [_describe(name, read_header(locate(name))["card"]) for name in bundled()]


def _describe(name: str, card: Card) -> dict[str, Any]:
    return {
        "name": name,
        "kind": card.kind,
        "modality": card.modality,
        "is_default": name in DEFAULTS.values(),
        "description": card.description,
        "parameters": card.parameters,
        "bytes": locate(name).stat().st_size,
        "shape": card.shape,
        "sample_rate": card.sample_rate,
        "classes": card.classes,
        "takes_text": card.text,
        "takes_sigma": card.kind == "denoiser" and card.modality == "image" and not card.blind,
        "licence": card.licence,
        "data": card.data,
        "metrics": card.metrics,
    }
