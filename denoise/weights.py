"""Weights files: tensors, configuration and model card in one ``.safetensors`` file. Nothing is unpickled."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.config import config, parse
from denoise.errors import ConfigError, WeightsError
from denoise.migrations import migrate_card, migrate_config, migrate_recipe, migrate_tensor_name

FORMAT_VERSION = 1
MAX_BYTES = 1 << 30
MAX_BUFFER_BYTES = 1 << 28  # of buffers that follow from the configuration and are not in the file
SCALE_SUFFIX = ":scale"  # names the scales of the rows of an int8 tensor
FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
RETRY = "Download or export the weights again."


@config
class TypicalStatistics:
    """Statistics of typical examples, such as training data, which anomaly scores of a prior compare with.

    Args:
        mean: mean log-likelihood in nats and mean complexity in bytes.
        covariance: covariance of both, two rows of two.
        protocol: the examples, and the kind of their likelihoods.
        label: class or text that the likelihoods are conditional on; None is unconditional.

    Raises:
        ConfigError: the covariance is not finite, symmetric and positive definite.
    """

    mean: tuple[float, float]
    covariance: tuple[tuple[float, float], tuple[float, float]]
    protocol: str = ""
    label: str | None = None

    def __post_init__(self) -> None:
        (nats, mixed), (mixed_below, size) = self.covariance
        if mixed != mixed_below:
            raise ConfigError(f"covariance is {self.covariance}; expected a symmetric one.")
        if not (all(map(math.isfinite, (*self.mean, nats, mixed, size))) and nats > 0 and nats * size > mixed**2):
            raise ConfigError("typical examples do not differ in likelihood and complexity; give other examples.")


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


def save_weights(
    path: str | Path, module: nn.Module, card: Card, recipe: dict[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    """Write a module with its configuration, recipe and card.

    Only floating-point tensors are stored. Masks and permutations follow from the configuration.

    Args:
        path: file to write.
        module: network, codec or prior with a ``config``.
        card: model card.
        recipe: the recipe of the training, as plain values.
        dtype: type of the stored floats. With ``torch.int8``, tensors of two axes or more are quantised with one
            scale for each row, and the other tensors are stored as float16.
    """
    from safetensors.torch import save

    floats = {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    tensors: dict[str, Tensor] = {}
    for name, tensor in floats.items():
        if dtype == torch.int8 and tensor.ndim > 1:
            tensors[name], tensors[name + SCALE_SUFFIX] = _quantise_rows(tensor.cpu())
        else:
            tensors[name] = tensor.to(torch.float16 if dtype == torch.int8 else dtype).contiguous().cpu()
    header = {
        "format_version": FORMAT_VERSION,
        "card": asdict(card),
        "config": asdict(module.config),  # type: ignore[call-overload]
        "recipe": recipe,
    }
    # written by Python, not by safetensors, whose files only their owner can read
    Path(path).write_bytes(save(tensors, {key: json.dumps(value) for key, value in header.items()}))


def record_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Add measured figures to the card of a weights file. The tensors keep every bit.

    Args:
        path: weights file.
        metrics: tables by name; a table of the same name is replaced.

    Raises:
        WeightsError: the file is not a weights file of this package.
    """
    card = read_header(path)["card"]
    _replace_card(path, replace(card, metrics={**card.metrics, **metrics}))


def record_typical(path: Path, typical: TypicalStatistics) -> None:
    """Store statistics of typical examples in the card of a weights file. The tensors keep every bit.

    Args:
        path: weights file of a prior.
        typical: statistics; those of before are replaced.

    Raises:
        WeightsError: the file is not a weights file of this package.
    """
    _replace_card(path, replace(read_header(path)["card"], typical=typical))


def _replace_card(path: Path, card: Card) -> None:
    from safetensors.torch import load_file, save

    header = read_header(path) | {"card": asdict(card)}
    partial = path.with_suffix(".partial")
    partial.write_bytes(save(load_file(path), {key: json.dumps(value) for key, value in header.items()}))
    partial.replace(path)


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

    try:
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{path}: larger than {MAX_BYTES >> 20} MiB; expected the weights of a small model.")
        with safe_open(path, framework="pt") as file:
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


def check_tensors(path: Path, module: nn.Module) -> None:
    """Compare the names and shapes of the tensors in a file with a module, without reading the tensors.

    The module may be on the meta device: a hostile configuration is then refused before memory is allocated for it.

    Args:
        path: weights file.
        module: module that the configuration of the file describes.

    Raises:
        WeightsError: a tensor is missing, unexpected or of another shape; the message names it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if not name.endswith(SCALE_SUFFIX)]  # noqa: SIM118 - not a dict
            stored = {migrate_tensor_name(name): tuple(file.get_slice(name).get_shape()) for name in names}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: damaged ({error}). {RETRY}") from None
    state = module.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.is_floating_point()}
    _require_equal_names(path, expected.keys() - stored.keys(), stored.keys() - state.keys())
    for name, shape in stored.items():
        expected_shape = tuple(state[name].shape)
        if shape != expected_shape:
            raise WeightsError(
                f"{path}: tensor {name} has shape {shape}; the configuration expects {expected_shape}. {RETRY}"
            )
    derived = sum(b.numel() * b.element_size() for name, b in module.named_buffers() if name not in stored)
    if derived > MAX_BUFFER_BYTES:
        raise WeightsError(f"{path}: the configuration asks for buffers of {derived >> 20} MiB. {RETRY}")


def load_tensors(path: Path, module: nn.Module, *, partial: bool = False) -> None:
    """Load the tensors of a weights file into a module, as float32.

    Args:
        path: weights file.
        module: module whose floating-point state is replaced; masks and permutations stay as they were built.
        partial: accept a module that differs from the file, to continue training in a larger network. Modules that
            the file lacks keep their state, tensors that the module lacks are ignored, and convolutions with another
            number of channels are padded with zeros or cut.

    Raises:
        WeightsError: names, shapes, types or values do not fit, or the module has state on the meta device that the
            file does not hold; the message names it.
    """
    tensors = {migrate_tensor_name(name): tensor for name, tensor in _read_tensors(path).items()}
    state = module.state_dict()
    required = {name for name, tensor in state.items() if tensor.is_floating_point()}
    if partial:
        tensors = {name: _fit_channels(tensor, state[name]) for name, tensor in tensors.items() if name in state}
        if not tensors:
            raise WeightsError(f"{path}: shares no tensor with the network. Give weights of a similar architecture.")
    else:
        _require_equal_names(path, required - tensors.keys(), tensors.keys() - state.keys())
    kept = {name: tensor for name, tensor in state.items() if name not in tensors}
    try:
        module.load_state_dict(kept | tensors, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: tensors do not fit the configuration ({reason}). {RETRY}") from None
    unset = [name for name, x in [*module.named_parameters(), *module.named_buffers()] if x.is_meta]
    if unset:
        raise WeightsError(f"{path}: has no values for {', '.join(unset)}. Build the module on a real device first.")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Finite float32 tensors by their names in the file, int8 ones dequantised."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: damaged ({error}). {RETRY}") from None
    scales = {name: tensors.pop(name) for name in [*tensors] if name.endswith(SCALE_SUFFIX)}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.int8:
            scale = scales.get(name + SCALE_SUFFIX)
            if scale is None or scale.shape != (len(tensor), *[1] * (tensor.ndim - 1)):
                raise WeightsError(f"{path}: tensor {name} is int8 without fitting scales. {RETRY}")
            tensors[name] = tensor * scale
        elif tensor.dtype not in FLOAT_DTYPES:
            raise WeightsError(f"{path}: tensor {name} is {tensor.dtype}; expected floats or scaled int8. {RETRY}")
        if not torch.isfinite(tensors[name]).all():
            raise WeightsError(f"{path}: tensor {name} holds NaN or infinite values. {RETRY}")
    return {name: tensor.float() for name, tensor in tensors.items()}


def _require_equal_names(path: Path, missing: set[str], unexpected: set[str]) -> None:
    for problem, names in (("lacks", missing), ("has unexpected", unexpected)):
        if names:
            count = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise WeightsError(f"{path}: {problem} tensor {min(names)}{count}. {RETRY}")


def _quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise (rows, *columns) to int8 with one float32 scale for each row, (rows, 1, ...)."""
    scale = x.float().flatten(1).abs().amax(dim=1).clamp_min(1e-30) / 127
    scale = scale.reshape(-1, *[1] * (x.ndim - 1))
    return (x.float() / scale).round().to(torch.int8).contiguous(), scale


def _fit_channels(weight: Tensor, current: Tensor) -> Tensor:
    """Fit a convolution's weight or bias to another number of channels: pad with zeros, or cut input channels."""
    if weight.ndim == 2:
        return weight
    new_outputs = max(0, current.shape[0] - weight.shape[0])
    if weight.ndim == 1:
        return F.pad(weight, [0, new_outputs])
    new_inputs = max(0, current.shape[1] - weight.shape[1])
    return F.pad(weight[:, : current.shape[1]], [0, 0] * (weight.ndim - 2) + [0, new_inputs, 0, new_outputs])
