"""Export of trained weights with their model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from denoise.cards import Card
from denoise.protocols import Classifier, Network, PatchPrior, Prior
from denoise.registry import kind_of
from denoise.training.recipe import Recipe
from denoise.weights import save_weights


def export(path: Path, recipe: Recipe, module: Any, class_names: tuple[str, ...] = (), minutes: float = 0.0) -> None:
    """Write a weights file.

    Args:
        path: file to write.
        recipe: recipe of the training, which is stored without the paths of other files.
        module: network, codec, prior or classifier.
        class_names: names of the classes that a prior can be conditioned on.
        minutes: duration of the training.
    """
    if isinstance(module, Network):
        facts: dict[str, Any] = {"channels": module.channels, "blind": module.blind}
        facts |= {"size_multiple": module.size_multiple, "snr_db": recipe.audio.snr_db if recipe.audio else None}
    elif isinstance(module, Classifier):
        facts = {"channels": module.channels, "classes": module.class_names}
    else:
        shape = tuple(module.event_shape)
        facts = {"channels": shape[0], "shape": shape, "classes": class_names}
        facts |= {"text": isinstance(module, Prior) and module.text}
    takes_noise = isinstance(module, Network | PatchPrior)  # of the data; codecs and other priors take clean patches
    card = Card(
        name=recipe.name,
        architecture="latent-prior" if recipe.codec else recipe.architecture,
        modality=recipe.modality,
        kind=kind_of(module),
        description=recipe.description,
        sample_rate=recipe.sample_rate,
        sigma=recipe.image.sigma_range if recipe.image and takes_noise else None,
        parameters=sum(p.numel() for p in module.parameters()),
        licence=recipe.licence,
        data=recipe.sources,
        training_minutes=round(minutes, 2),
        **facts,
    )
    stored = recipe.asdict()
    stored |= {key: Path(stored[key]).stem for key in ("init", "codec") if stored[key]}
    save_weights(path, module, card, stored, getattr(torch, recipe.stored_dtype))
