"""Headers of weights files: the model card, configuration and recipe, read without the tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from denoise.config import config, parse
from denoise.errors import ConfigError, WeightsError
from denoise.migrations import migrate_card, migrate_config, migrate_recipe

FORMAT_VERSION = 1
MAX_BYTES = 1 << 30
RETRY = "Download or export the weights again."


@config
class TypicalStatistics:
    """Statistics of typical examples, such as training data, which anomaly scores of a prior compare with.

    Args:
        mean: mean log-likelihood in nats, mean complexity in bytes and, of priors that denoise and whose likelihood is
            an estimate, mean logarithm of the denoising error.
        covariance: covariance of these two or three quantities, by rows.
        protocol: the examples, and the kind of their likelihoods.
        label: class or text that the likelihoods are conditional on; None is unconditional.

    Raises:
        ConfigError: the covariance is not finite, symmetric and positive definite.
    """

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    protocol: str = ""
    label: str | None = None

    def __post_init__(self) -> None:
        n, rows = len(self.mean), self.covariance
        if n not in (2, 3) or len(rows) != n or any(len(row) != n for row in rows):
            raise ConfigError(f"mean is {self.mean}, covariance {rows}; expected two or three quantities.")
        covariance = np.array(rows)
        if (covariance != covariance.T).any() and np.isfinite(covariance).all():
            raise ConfigError(f"covariance is {rows}; expected a symmetric one.")
        if not (np.isfinite(self.mean).all() and np.isfinite(covariance).all() and _is_positive_definite(covariance)):
            raise ConfigError("typical examples do not differ in what is measured; give other examples.")


def _is_positive_definite(symmetric: NDArray[np.float64]) -> bool:
    try:
        np.linalg.cholesky(symmetric)
    except np.linalg.LinAlgError:
        return False
    return True


@config
class Card:
    """Model card: what a weights file states about its model.

    Args:
        name: name of the model.
        architecture: key of `denoise.registry.ARCHITECTURES`.
        modality: ``"audio"``, ``"image"`` or ``"points"``.
        channels: channels of the signals.
        kind: ``"denoiser"``, ``"codec"``, ``"prior"`` or ``"classifier"``.
        description: one sentence for tables.
        sample_rate: sample rate in Hz of audio, else None.
        blind: whether a denoiser estimates the noise itself and takes no sigma.
        sigma: range of noise levels in training, in signal units (images).
        snr_db: range of signal-to-noise ratios in training, in dB (audio).
        size_multiple: windows that start at multiples of this are processed as in the whole signal.
        shape: (channels, *space) of the signals of a codec or prior.
        classes: names of the classes that a prior can sample, or a classifier tells apart.
        text: whether a prior can be conditioned on text.
        parameters: number of parameters.
        licence: licence of the weights.
        data: sources of the training data.
        metrics: measured figures by name, each a table of rows with its protocol.
        typical: statistics of typical examples of a prior.
        training_minutes: wall-clock time of the training, without that of a codec or of initial weights.
    """

    name: str
    architecture: str
    modality: Literal["audio", "image", "points"]
    channels: int
    kind: Literal["denoiser", "codec", "prior", "classifier"] = "denoiser"
    description: str = ""
    sample_rate: int | None = None
    blind: bool = True
    sigma: tuple[float, float] | None = None
    snr_db: tuple[float, float] | None = None
    size_multiple: int = 1
    shape: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()
    text: bool = False
    parameters: int = 0
    licence: str = "MIT"
    data: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    typical: TypicalStatistics | None = None
    training_minutes: float | None = None


def read_header(path: Path) -> dict[str, Any]:
    """Read format version, card, configuration and recipe of a weights file, without its tensors.

    Names of earlier releases are translated, see `denoise.migrations`.

    Args:
        path: weights file.

    Returns:
        ``format_version`` (int), ``card`` (`Card`), ``config`` and ``recipe`` (plain values).

    Raises:
        WeightsError: the file is missing, damaged, or not a weights file of this package.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix == ".onnx":
        raise WeightsError(f"{path}: is an exported model; expected weights. Give the name or .safetensors file of it.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{path}: larger than {MAX_BYTES >> 20} MiB; expected the weights of a small model.")
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}. Give a name of `denoise models` or a file.") from None
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a safetensors file, or damaged ({error}). {RETRY}") from None
    try:
        header = {key: json.loads(metadata[key]) for key in ("format_version", "card", "config", "recipe")}
        version = header["format_version"]
        header["card"] = parse(Card, migrate_card(header["card"]), f"{path}: card")
        header["config"] = migrate_config(header["config"], header["card"].architecture)
        header["recipe"] = migrate_recipe(header["recipe"])
    except (AttributeError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path}: has no model card of this package ({error}). Train or export it again.") from None
    if version != FORMAT_VERSION:
        raise WeightsError(f"{path}: format version {version}; this release reads {FORMAT_VERSION}. Update denoise.")
    return header


def stream_latency_s(settings: Mapping[str, Any]) -> float | None:
    """Return the latency of a streaming network in seconds, `denoise.protocols.StreamingNetwork.latency_s`.

    A frame is two hops long, and each block may wait for further frames.

    Args:
        settings: configuration in the header of a denoiser.

    Returns:
        The latency; None of a network without hops, which processes whole windows.

    >>> stream_latency_s({"hop_s": 0.01, "blocks": 4, "lookahead": 3})
    0.14
    """
    values = [settings.get(name, default) for name, default in (("hop_s", None), ("blocks", 0), ("lookahead", 0))]
    if not all(isinstance(value, int | float) for value in values):
        return None
    hop_s, blocks, lookahead = values
    return float((2 + blocks * lookahead) * hop_s)
