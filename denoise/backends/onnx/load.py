"""Networks in onnxruntime by name or file; those of weights files are exported once, into a cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from denoise.backends.onnx.runtime import FORMAT_VERSION, Model, OnnxClassifier, OnnxNetwork, open_model, read_file
from denoise.cards import Card
from denoise.errors import ConfigError, InputError, WeightsError
from denoise.files.atomic import atomic_file
from denoise.registry import Kind, Modality, locate

SUFFIX = ".onnx"


def load_network(name_or_file: str | Path, *, modality: Modality) -> tuple[OnnxNetwork, Card]:
    """Load a denoiser.

    Args:
        name_or_file: file of `denoise export`, or a bundled name or weights file, which needs torch at its first use.
        modality: modality that it must be for.

    Returns:
        The network and its card.

    Raises:
        ConfigError: the model is unknown, cannot be exported or is for another modality, or a package is missing.
        WeightsError: the file is missing or damaged.
    """
    network, card = _load(name_or_file, "denoiser", modality)
    if not isinstance(network, OnnxNetwork) or card.modality != modality:
        raise ConfigError(f"{name_or_file} is a {card.kind} for {card.modality}; expected a denoiser for {modality}.")
    return network, card


def load_classifier(name_or_file: str | Path) -> OnnxClassifier:
    """Load a classifier of audio.

    Args:
        name_or_file: as in `load_network`.

    Raises:
        ConfigError: the model is unknown or no classifier, or a package is missing.
        WeightsError: the file is missing or damaged.
    """
    classifier, card = _load(name_or_file, "classifier", "audio")
    if not isinstance(classifier, OnnxClassifier):
        raise ConfigError(f"{name_or_file} is a {card.kind} for {card.modality}; expected a classifier for audio.")
    return classifier


def _load(name_or_file: str | Path, kind: Kind, modality: Modality) -> tuple[Model, Card]:
    if Path(name_or_file).suffix == SUFFIX:
        return open_model(read_file(Path(name_or_file)), str(name_or_file))
    weights = locate(name_or_file, kind, modality)
    cached = _cached_path(weights)
    if cached is not None:
        try:
            return open_model(read_file(cached), str(name_or_file))
        except WeightsError:
            pass  # it is not there yet, cannot be read or is damaged
    return open_model(_export(weights, cached), str(name_or_file))


def _export(weights: Path, cached: Path | None) -> bytes:
    """The model of a weights file, which is written into the cache, too."""
    try:
        from denoise.backends.onnx.export import export_module
        from denoise.registry import load
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{weights.stem}: is not in {cached.parent if cached else 'a cache'}, and its export needs {error.name}. "
            "Install it, or give a file of `denoise export`."
        ) from None
    model, _ = export_module(*load(weights))
    if cached is None:
        return model
    try:
        with atomic_file(cached, overwrite=True) as partial:
            partial.write_bytes(model)
    except InputError:
        pass  # a home that cannot be written: the next process exports again
    return model


def is_cached(name_or_file: str | Path) -> bool:
    """Return whether a model has been exported into the cache, or is an exported file itself.

    Args:
        name_or_file: as in `load_network`.
    """
    if Path(name_or_file).suffix == SUFFIX:
        return True
    try:
        cached = _cached_path(locate(name_or_file))
    except (ConfigError, WeightsError):  # whoever loads it reports the error
        return False
    return cached is not None and os.access(cached, os.R_OK)


def _cached_path(weights: Path) -> Path | None:
    """Where the export of a weights file is kept; None where there is no cache."""
    digest = hashlib.sha256(read_file(weights)).hexdigest()
    folder = cache_folder()
    return None if folder is None else folder / f"{weights.stem}-{digest[:16]}-{FORMAT_VERSION}{SUFFIX}"


def cache_folder() -> Path | None:
    """Return the folder of exported models: ``denoise/onnx`` in the user's cache, see XDG_CACHE_HOME.

    Returns:
        The folder, None if the user has no home.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "denoise" / "onnx"
    except RuntimeError:
        return None
