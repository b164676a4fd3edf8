"""Weights: one ``.safetensors`` file holds the tensors, the configuration and a card. Nothing is unpickled."""

from __future__ import annotations

import json
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.config import config, parse
from denoise.errors import WeightsError
from denoise.migrations import migrate_config, migrate_recipe, migrate_tensor_name

FORMAT_VERSION = 1
MAX_BYTES = 1 << 30
SCALE = ":scale"  # of the rows of a tensor in 8 bits, beside it


@config
class Card:
    """What a weights file says of itself.

    ``sample_rate`` (Hz) is None for images; ``sigma`` the trained range of noise in signal units (images)
    and ``snr_db`` that of audio; ``metrics`` what was measured, each with how it was measured. Codecs and
    priors have the ``shape`` of their signals, (channels, *space); ``classes`` are what a prior can be asked
    for by name, ``text`` says whether by other words, too.
    """

    name: str
    architecture: str
    modality: Literal["audio", "image"]
    channels: int
    kind: Literal["denoiser", "codec", "prior"] = "denoiser"
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


def save_weights(
    path: str | Path, module: nn.Module, card: Card, recipe: dict[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    """Write ``module`` with its configuration, recipe and card; floats are stored as ``dtype``.

    As int8, all of two axes or more has a scale for each row, and the rest, which is small, is float16. Masks and
    orders, which are no floats, follow from the configuration and are not stored.
    """
    from safetensors.torch import save

    floats = {k: v for k, v in module.state_dict().items() if v.is_floating_point()}
    tensors: dict[str, Tensor] = {}
    for name, v in floats.items():
        if dtype == torch.int8 and v.ndim > 1:
            tensors[name], tensors[name + SCALE] = _rounded(v.cpu())
        else:
            tensors[name] = v.to(torch.float16 if dtype == torch.int8 else dtype).contiguous().cpu()
    header = {
        "format_version": FORMAT_VERSION,
        "card": asdict(card),
        "config": asdict(module.config),  # type: ignore[call-overload]
        "recipe": recipe,
    }
    # written by Python, not by safetensors: its files are readable by their owner alone
    Path(path).write_bytes(save(tensors, {key: json.dumps(value) for key, value in header.items()}))


def record_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Write measured figures into the card of a weights file; the tensors stay bit by bit.

    Raises:
        WeightsError: the file is no weights file of this package.
    """
    from safetensors.torch import load_file, save

    header = read_header(path)
    card = asdict(header["card"])
    card["metrics"] = {**card["metrics"], **metrics}
    partial = path.with_suffix(".partial")
    partial.write_bytes(save(load_file(path), {k: json.dumps(v) for k, v in (header | {"card": card}).items()}))
    partial.replace(path)


def read_header(path: Path) -> dict[str, Any]:
    """Read format version, card, configuration and recipe of a weights file, not its tensors.

    Raises:
        WeightsError: the file is missing, damaged, or no weights of this package.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{path}: larger than {MAX_BYTES >> 20} MiB; expected a small denoiser's weights.")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}. Give a name of `denoise models` or a file.") from None
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a safetensors file or damaged ({error}). Get it again.") from None
    try:
        header = {key: json.loads(metadata[key]) for key in ("format_version", "card", "config", "recipe")}
        version = header["format_version"]
        header["card"] = parse(Card, header["card"], f"{path}: card")
        header["config"] = migrate_config(header["config"])
        header["recipe"] = migrate_recipe(header["recipe"])
    except (AttributeError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path}: carries no card of this package ({error}). Train or export it again.") from None
    if version != FORMAT_VERSION:
        raise WeightsError(f"{path}: format version {version}; this release reads {FORMAT_VERSION}. Update denoise.")
    return header


def load_tensors(path: Path, module: nn.Module, *, grown: bool = False) -> None:
    """Fill ``module`` with the tensors of a weights file, as float32.

    What a ``grown`` module has beyond the file (more blocks, another prior) stays as it is, and what the file has
    beyond the module is left out; of convolutions, what they hear beyond (sigma) counts for nothing at first, what
    they no longer hear is left out, and what they say beyond is 0.

    Raises:
        WeightsError: names, shapes or values do not fit the module.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = {migrate_tensor_name(name): tensor for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: damaged ({error}). Get it again.") from None
    scales = {k: tensors.pop(k) for k in [*tensors] if k.endswith(SCALE)}
    try:
        tensors = {k: _restored(v, scales[k + SCALE]) if v.dtype == torch.int8 else v for k, v in tensors.items()}
    except (KeyError, ValueError):
        raise WeightsError(f"{path}: holds int8 tensors without fitting scales. Get it again.") from None
    kinds = {t.dtype for t in tensors.values()} - {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    if kinds:
        raise WeightsError(f"{path}: holds tensors of {kinds.pop()}; expected floats or scaled int8. Export it again.")
    if not all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point()):
        raise WeightsError(f"{path}: holds NaN or infinite weights. Get it again.")
    try:
        own = {k: v for k, v in module.state_dict().items() if grown or not v.is_floating_point()}
        found = {k: _hearing(v.float(), own.get(k)) for k, v in tensors.items() if k in own or not grown}
        if not found:
            raise WeightsError(f"{path}: has no tensor in common with the network. Give weights of one like it.")
        module.load_state_dict(own | found, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: tensors do not fit the configuration ({reason}). Get it again.") from None


def _rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """Integers of 8 bits and the scale of each row, float32, that make nearly ``x``.

    Shape:
        x: (rows, *columns); returns the same and (rows, 1, ...).
    """
    scale = x.float().flatten(1).abs().amax(dim=1).clamp_min(1e-30) / 127
    scale = scale.reshape(-1, *[1] * (x.ndim - 1))
    return (x.float() / scale).round().to(torch.int8).contiguous(), scale


def _restored(x: Tensor, scale: Tensor) -> Tensor:
    """The floats that `_rounded` was given, nearly."""
    if scale.shape != (len(x), *[1] * (x.ndim - 1)):
        raise ValueError(f"scales are {tuple(scale.shape)} for {tuple(x.shape)}.")
    return x * scale


def _hearing(weight: Tensor, own: Tensor | None) -> Tensor:
    """A convolution's weight or bias for other channels: deaf to more of them, the first of fewer, more give 0."""
    if own is None or weight.ndim == 2:
        return weight
    said = max(0, own.shape[0] - weight.shape[0])
    if weight.ndim == 1:
        return F.pad(weight, [0, said])
    heard = max(0, own.shape[1] - weight.shape[1])
    return F.pad(weight[:, : own.shape[1]], [0, 0] * (weight.ndim - 2) + [0, heard, 0, said])
