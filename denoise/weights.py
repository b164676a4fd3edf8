"""Weights files: tensors, configuration and model card in one ``.safetensors`` file. Nothing is unpickled."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from denoise.cards import FORMAT_VERSION, RETRY, Card, TypicalStatistics, read_header
from denoise.errors import WeightsError
from denoise.migrations import migrate_tensor_name

MAX_BUFFER_BYTES = 1 << 28  # of buffers that follow from the configuration and are not in the file
SCALE_SUFFIX = ":scale"  # names the scales of the rows of an int8 tensor
FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
