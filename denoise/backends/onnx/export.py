"""Export of denoisers to ONNX, compared with torch before a file is written."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from denoise.backends.onnx.graphs import StreamGraph, WindowGraph, flatten_state
from denoise.backends.onnx.runtime import (
    DENOISED,
    FORMAT_VERSION,
    NEXT_STATE,
    NOISY,
    SIGMA,
    STATE,
    OnnxNetwork,
    OnnxStreamingNetwork,
    StateTensor,
    StreamFacts,
    open_network,
)
from denoise.cards import Card
from denoise.errors import ConfigError
from denoise.files.atomic import atomic_file, require_free
from denoise.models.conv_dae import ConvDAE
from denoise.models.dpcrn import DPCRN
from denoise.protocols import NetworkFacts
from denoise.registry import load

MAX_DIFFERENCE = 1e-3
"""Greatest difference from torch of any sample or pixel, full scale 1.0."""

OPSET = 20
TRACED_HOP = 160
SIZES = {1: ((1,), (7,), (1000,), (20_000,)), 2: ((1, 1), (7, 3), (64, 48), (97, 130), (512, 384))}
STREAMS = ((48_000, 1, 1, 10.0), (44_100, 2, 1, 1.0), (16_000, 1, 2, 1.0), (8000, 1, 1, 1.0), (96_000, 1, 1, 0.5))
"""Sample rate in Hz, channels, batch and seconds of the signals that a streaming network is compared for."""
HOPS = (1, 1, 1, 7, 64)  # of the steps, in turn


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Args:
        name: name of the model.
        output: path of the file.
        bytes: its size.
        difference: greatest difference from torch of any sample or pixel, full scale 1.0.
    """

    name: str
    output: str
    bytes: int
    difference: float


def export(name_or_file: str | Path, target: str | Path, *, overwrite: bool = False) -> ExportReport:
    """Export a denoiser, and compare it with torch for signals of many lengths or images of many sizes.

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
    difference = measure_difference(open_network(model, card.name)[0], module)
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
    if isinstance(module, DPCRN):
        graph, inputs, shapes = _stream_graph(module)
    elif isinstance(module, ConvDAE):
        graph, inputs, shapes = _window_graph(module)
    else:
        raise ConfigError(
            f"{card.name} is a {card.kind} of architecture {card.architecture}, which is not exported; expected a "
            "denoiser of architecture dpcrn, noise-floor-dpcrn or conv-dae. See `denoise models`."
        )
    outputs = [DENOISED, *(NEXT_STATE + name.removeprefix(STATE) for name in inputs if name.startswith(STATE))]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: shapes that are constant, and the exporter by tracing itself
        torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            buffer,  # type: ignore[arg-type] # files are accepted, too
            dynamo=False,
            opset_version=OPSET,
            input_names=[*inputs],
            output_names=outputs,
            dynamic_axes={
                name: {i: f"axis{i}" for i, size in enumerate(shapes[name]) if isinstance(size, str)} for name in inputs
            },
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    for value in (*model.graph.input, *model.graph.output):
        shape = shapes[NOISY if value.name == DENOISED else value.name.replace(NEXT_STATE, STATE)]
        for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            if isinstance(size, str):
                dim.dim_param = size
            else:
                dim.dim_value = size
    metadata = {
        "format_version": FORMAT_VERSION,
        "card": asdict(card),
        "config": asdict(module.config),
        "facts": asdict(facts_of(module)),
        "licence": card.licence,
    }
    if isinstance(graph, StreamGraph):
        metadata["stream"] = asdict(_stream_facts(graph, module))
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(model)
    serialised: bytes = model.SerializeToString()
    return serialised


def facts_of(module: Any) -> NetworkFacts:
    """Return the facts of an exported network: it has one output, whatever samples the module has."""
    return NetworkFacts(
        ndim=module.ndim,
        channels=module.channels,
        blind=module.blind,
        sigma_maps=module.sigma_maps,
        size_multiple=module.size_multiple,
        context=module.context,
        window=module.window,
    )


Traced = tuple[nn.Module, dict[str, Tensor], dict[str, tuple[int | str, ...]]]
"""A graph, its inputs by name, and their shapes, with names for the sizes that vary."""


def _window_graph(module: ConvDAE) -> Traced:
    space = ("time",) if module.ndim == 1 else ("height", "width")
    example, sigma = _window_inputs(module, 1, (2 * module.size_multiple,) * module.ndim)
    inputs, shapes = {NOISY: example}, {NOISY: ("batch", module.channels, *space)}
    if sigma is not None:
        inputs[SIGMA] = sigma
        shapes[SIGMA] = ("batch", *(() if sigma.ndim == 1 else (module.sigma_maps, *space)))
    return WindowGraph(module), inputs, shapes


def _stream_graph(module: DPCRN) -> Traced:
    graph = StreamGraph(module)
    tensors = flatten_state(graph.initial_state(1, 1, TRACED_HOP))
    inputs = {NOISY: torch.zeros(1, 1, 2 * TRACED_HOP)} | {STATE + name: x for name, x in tensors.items()}
    shapes = {STATE + name: tensor.shape for name, tensor in _state_tensors(graph).items()}
    return graph, inputs, {NOISY: ("batch", "channels", "time")} | shapes


def _stream_facts(graph: StreamGraph, module: DPCRN) -> StreamFacts:
    return StreamFacts(module.config.hop_s, module.delay, module.latency_s, _state_tensors(graph))


def _state_tensors(graph: StreamGraph) -> dict[str, StateTensor]:
    """The state before the first sample, with the sizes that vary as expressions: found by varying each."""
    sizes = {"batch": 1, "channels": 1, "hop": TRACED_HOP}
    larger = {name: flatten_state(graph.initial_state(**(sizes | {name: n + 1}))) for name, n in sizes.items()}
    tensors = {}
    for name, x in flatten_state(graph.initial_state(**sizes)).items():
        shape: list[int | str] = [*x.shape]
        for axis, size in enumerate(x.shape):
            for symbol, n in sizes.items():
                if factor := larger[symbol][name].shape[axis] - size:
                    offset = size - factor * n
                    shape[axis] = (f"{factor}*" if factor > 1 else "") + symbol + (f"+{offset}" if offset else "")
        tensors[name] = StateTensor(tuple(shape), float(x.flatten()[0]))
    return tensors


@torch.inference_mode()
def measure_difference(network: OnnxNetwork, module: Any) -> float:
    """Return the greatest difference of an exported network from torch, over many lengths, rates or sizes.

    Args:
        network: the exported network.
        module: the network of torch.
    """
    pairs = (
        _stream_pairs(network, module) if isinstance(network, OnnxStreamingNetwork) else _window_pairs(network, module)
    )
    return float(np.max([np.abs(a - b).max() for a, b in pairs]))  # NaN if any is


def _window_pairs(network: OnnxNetwork, module: Any) -> Iterator[tuple[Any, Any]]:
    """Outputs of both for windows of noisy gradients."""
    for batch, size in enumerate(SIZES[module.ndim], start=1):
        x, sigma = _window_inputs(module, 1 + batch % 2, size)
        denoised = network.denoise(x.numpy(), None if sigma is None else sigma.numpy())
        yield denoised, module(x, sigma).numpy()


def _window_inputs(module: Any, batch: int, size: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(math.prod(size))
    clean = torch.linspace(0, 1, math.prod(size)).reshape(size).expand(batch, module.channels, *size)
    x = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    if module.blind:
        return x, None
    if module.sigma_maps == 1:
        return x, torch.linspace(0.05, 0.1, batch)
    return x, 0.05 + 0.1 * torch.rand(batch, module.sigma_maps, *size, generator=generator)


def _stream_pairs(network: OnnxStreamingNetwork, module: Any) -> Iterator[tuple[Any, Any]]:
    """Outputs of both for the steps of streams: tones that come and go, in noise."""
    for rate, channels, batch, seconds in STREAMS:
        hop = module.hop(rate)
        time = torch.arange(round(seconds * rate / hop) * hop) / rate
        voice = sum(torch.sin(2 * math.pi * 150 * n * time) / n for n in range(1, 16)) * (3 * time).frac()
        noise = torch.randn(batch, channels, len(time), generator=torch.Generator().manual_seed(rate))
        x = 0.1 * voice + 0.02 * noise
        state, torch_state = network.initial_state(batch, channels, rate), module.initial_state(batch, channels, rate)
        start, n = 0, 0
        while start < len(time):
            block = x[..., start : start + HOPS[n % len(HOPS)] * hop]
            denoised, state = network.step(block.numpy(), state)
            expected, torch_state = module.step(block, torch_state)
            yield denoised, expected.numpy()
            start, n = start + block.shape[-1], n + 1
