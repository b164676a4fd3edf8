"""Export of denoisers to ONNX, compared with torch before a file is written."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from denoise.backends.onnx.compare import measure_difference
from denoise.backends.onnx.runtime import FORMAT_VERSION, open_model
from denoise.backends.onnx.traced import trace
from denoise.cards import Card
from denoise.errors import ConfigError
from denoise.files.atomic import atomic_file, require_free
from denoise.registry import load

MAX_DIFFERENCE = 1e-3
"""Greatest difference from torch of any sample or pixel, full scale 1.0."""

OPSET = 20


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Args:
        name: name of the model.
        output: path of the file.
        bytes: its size.
        difference: greatest difference from torch in any sample or pixel, full scale 1.0.
    """

    name: str
    output: str
    bytes: int
    difference: float


def export(name_or_file: str | Path, target: str | Path, *, overwrite: bool = False) -> ExportReport:
    """Export a denoiser, and compare it with torch for recordings of many rates or images of many sizes.

    Args:
        name_or_file: bundled name, or path of a weights file.
        target: path of the file to write, ``.onnx``.
        overwrite: replace a file that exists.

    Returns:
        A report.

    Raises:
        ConfigError: the model cannot be exported, packages are missing, or the result differs by more than
            `MAX_DIFFERENCE`; nothing is written.
        InputError: the file exists or cannot be written.
    """
    target = Path(target)
    if target.suffix != ".onnx":
        raise ConfigError(f"{target}: expected a name that ends in .onnx.")
    require_free(target, overwrite=overwrite)
    module, card = load(name_or_file)
    model, difference = export_module(module, card)
    with atomic_file(target, overwrite=overwrite) as partial:
        partial.write_bytes(model)
    return ExportReport(card.name, str(target), len(model), difference)


def export_module(module: Any, card: Card) -> tuple[bytes, float]:
    """Export a network, and compare it with torch.

    Args:
        module: network in evaluation mode, on the CPU.
        card: its card.

    Returns:
        The ONNX model, and the greatest difference from torch, full scale 1.0.

    Raises:
        ConfigError: as in `export`.
    """
    model = to_onnx(module, card)
    difference = measure_difference(open_model(model, card.name)[0], module)
    if not difference <= MAX_DIFFERENCE:
        raise ConfigError(
            f"{card.name}: onnxruntime and torch differ by {difference:.1e}; expected at most {MAX_DIFFERENCE:g}. "
            "Nothing was written; try other versions of both."
        )
    return model, difference


@torch.no_grad()
def to_onnx(module: Any, card: Card) -> bytes:
    """Return a denoiser as an ONNX model, with its card, configuration and facts as metadata.

    Torch's exporter by tracing is used: that of programs refuses shapes that follow from values, as those of Fourier
    transforms of any length do.

    Args:
        module: network in evaluation mode, on the CPU.
        card: its card.

    Raises:
        ConfigError: the model cannot be exported, or onnx is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise ConfigError('onnx is missing. Install it: pip install "denoise-toolkit[onnx]".') from None
    traced, buffer = trace(module, card), io.BytesIO()
    varying = {
        name: {axis: f"axis{axis}" for axis, size in enumerate(shape) if isinstance(size, str)}
        for name, shape in traced.input_shapes.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: shapes that are constant, and the exporter by tracing itself
        torch.onnx.export(
            traced.graph.eval(),
            tuple(traced.inputs.values()),
            buffer,  # type: ignore[arg-type] # files are accepted, too
            dynamo=False,
            opset_version=OPSET,
            input_names=[*traced.input_shapes],
            output_names=[*traced.output_shapes],
            dynamic_axes=varying,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    shapes = traced.input_shapes | traced.output_shapes
    for value in (*model.graph.input, *model.graph.output):
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            if isinstance(size, str):
                dim.dim_param = size
            else:
                dim.dim_value = size
    metadata = {
        "format_version": FORMAT_VERSION,
        "card": asdict(card),
        "config": asdict(module.config),
        "licence": card.licence,
        **{key: asdict(facts) for key, facts in traced.facts.items()},
    }
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(model)
    serialised: bytes = model.SerializeToString()
    return serialised
