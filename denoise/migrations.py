"""Names of earlier releases in stored files, translated when a file is read.

Weights files keep the names of the release that wrote them: tensor names, configuration keys and the recipe. Recipes of
users keep old keys, too. Nothing else in the package knows an old name. To rename a module attribute, a field of a
configuration or a recipe key, add a line here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

STATE_DICT: tuple[tuple[str, str], ...] = (
    # 0.1: backbones of diffusion and flow matching (denoise.nn.unet, denoise.nn.embeddings)
    (r"(^|\.)told\.linear\.", r"\1film.linear."),
    (r"(^|\.)attention\.asked\.", r"\1attention.qkv."),
    (r"(^|\.)net\.into\.", r"\1net.stem."),
    (r"(^|\.)net\.level\.(\d+)\.", r"\1net.noise_embedding.\2."),
    (r"(^|\.)net\.shrink\.(\d+)\.", r"\1net.downsample.\2."),
    (r"(^|\.)net\.grow\.(\d+)\.", r"\1net.upsample.\2."),
    (r"(^|\.)condition\.nothing(?=$|:)", r"\1condition.null_embedding"),
    (r"(^|\.)condition\.encoder\.letters\.", r"\1condition.encoder.byte_embedding."),
    # 0.1: denoise.models.conv_dae
    (r"(^|\.)handed\.(\d+)\.", r"\1from_latents.\2."),
)
"""Regular expressions for parts of tensor names and their replacements, applied in this order to every name.

A pattern must match whole dotted components, e.g. ``(r"(^|\\.)told\\.linear\\.", r"\\1film.linear.")``."""

CONFIG: dict[str, str] = {
    "memory": "full_hidden",  # dpcrn, speech-flow
}
"""Old names of configuration fields of networks, codecs and priors, at any depth, and the new ones."""

ADDED: dict[str, dict[str, Any]] = {
    "dense-ae": {"tanh": "output"},
}
"""Fields that the configurations of an architecture lack in earlier weights files, and what they were without them."""

VALUES: dict[tuple[str, str], str] = {
    ("kind", "nice"): "realnvp",  # flow: its couplings were affine
}
"""Values of configuration fields in weights files of earlier releases, at any depth, and the current ones."""

RECIPE: dict[str, str] = {
    "image.strong": "image.high_sigma_fraction",
    "image.strongest": "image.max_sigma",
    "image.degrade.salt": "image.degrade.salt_and_pepper",
    "image.degrade.salt_share": "image.degrade.salt_and_pepper_fraction",
    "audio.rooms": "audio.simulated_rooms",
    "examples.names": "examples.class_names",
    "examples.hold_out": "examples.hold_out_every",
    "examples.binary": "examples.binarise",
    "examples.speed": "examples.speed_perturbation",
    "examples.shift_s": "examples.time_shift_s",
    "stored": "stored_dtype",
    "schedule.clip": "schedule.grad_clip",
    "audio.clip": "audio.clipping",
    "audio.codec": "audio.coding",
    "audio.bangs": "audio.impacts",
}
"""Old dotted keys of recipes and the new ones, e.g. ``"image.strong": "image.high_sigma_fraction"``.

Keys below ``model`` are configuration fields: they are translated by `CONFIG`."""

DESCRIPTIONS: dict[str, str] = {
    "Full-band speech in noise by flow matching: the mean of all answers in one step, or one of them in a few": (
        "Full-band speech in noise by flow matching: posterior mean in one step, posterior samples in a few"
    ),
    "Denoising variational autoencoder for speech in noise at 16 kHz: draws what may have been said": (
        "Denoising variational autoencoder for speech in noise at 16 kHz, with posterior samples"
    ),
    "Denoising variational autoencoder for photographs with white noise: draws what may have been there": (
        "Denoising variational autoencoder for photographs with white noise, with posterior samples"
    ),
    "A second of speech at 16 kHz: diffusion of its cosine transform, a denoiser of waveforms at any sigma": (
        "One second of speech at 16 kHz: diffusion of MDCT coefficients, a denoiser of waveforms at any sigma"
    ),
    "Photographs of flowers by class or by words, 48 x 48: diffusion of the latents of flowers-codec": (
        "Photographs of flowers by class or text, 48 x 48: diffusion of the latents of flowers-codec"
    ),
}
"""Descriptions of cards of release 0.1 and the current ones of the same weights."""


def migrate_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model card with the current description.

    Args:
        card: fields of the card as stored.

    Returns:
        A new mapping; other fields are unchanged.
    """
    migrated = dict(card)
    description = migrated.get("description")
    if isinstance(description, str):
        migrated["description"] = DESCRIPTIONS.get(description, description)
    return migrated


def migrate_tensor_name(name: str) -> str:
    """Return the current name of a tensor of a weights file.

    Args:
        name: name in the file, perhaps of an earlier release.

    Returns:
        The name in the state dict of the module.
    """
    for pattern, replacement in STATE_DICT:
        name = re.sub(pattern, replacement, name)
    return name


def migrate_config(config: Mapping[str, Any], architecture: str | None = None) -> dict[str, Any]:
    """Return a configuration with the current field names.

    Args:
        config: configuration of a network, codec or prior as stored, perhaps with nested ones.
        architecture: architecture of a weights file, whose configuration states every field that its release had.

    Returns:
        A new mapping; without an architecture, values are unchanged.
    """
    migrated = {CONFIG.get(key, key): _nested(value) for key, value in config.items()}
    return _migrate_values(ADDED.get(architecture, {}) | migrated) if architecture else migrated


def migrate_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe with the current keys.

    Args:
        recipe: nested tables as in ``recipe.toml``.

    Returns:
        A new mapping; values are unchanged.
    """
    migrated: dict[str, Any] = {}
    for path, value in _leaves(recipe):
        *tables, key = RECIPE.get(".".join(path), ".".join(path)).split(".")
        table = migrated
        for name in tables:
            table = table.setdefault(name, {})
        table[key] = value
    if isinstance(migrated.get("model"), dict):
        migrated["model"] = migrate_config(migrated["model"])
    return migrated


def _migrate_values(config: Mapping[str, Any]) -> dict[str, Any]:
    migrated: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            migrated[key] = _migrate_values(value)
        else:
            migrated[key] = VALUES.get((key, value), value) if isinstance(value, str) else value
    return migrated


def _nested(value: Any) -> Any:
    return migrate_config(value) if isinstance(value, Mapping) else value


def _leaves(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], Any]]:
    """Values of nested tables with their paths; the table of the model is one value."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value and (*path, key) != ("model",):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value
