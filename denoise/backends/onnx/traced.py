"""What is exported of each kind of model: its graph, the names and sizes of inputs and outputs, and its facts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from denoise.backends import torch as torch_backend
from denoise.backends.onnx.graphs import ClassifierGraph, StreamGraph, WindowGraph, flatten_state
from denoise.backends.onnx.runtime import (
    DENOISED,
    FRAMES,
    NEXT_STATE,
    NOISY,
    PROBABILITIES,
    SIGMA,
    STATE,
    ClassifierFacts,
    StateTensor,
    StreamFacts,
)
from denoise.cards import Card
from denoise.errors import ConfigError
from denoise.models.audio_classifier import AudioClassifier
from denoise.models.conv_dae import ConvDAE
from denoise.models.dpcrn import DPCRN
from denoise.protocols import NetworkFacts

TRACED_HOP = 160

Shapes = dict[str, tuple[int | str, ...]]
"""Sizes by the names of inputs or outputs; those that vary have names, see `StateTensor`."""


@dataclass(frozen=True)
class Traced:
    """What is needed to export a model.

    Args:
        graph: module of tensors alone.
        inputs: example of each input, in the order of its arguments.
        input_shapes: sizes of the inputs.
        output_shapes: sizes of the outputs.
        facts: facts for the metadata, by key: `NetworkFacts`, `StreamFacts`, `ClassifierFacts`.
    """

    graph: nn.Module
    inputs: dict[str, Tensor]
    input_shapes: Shapes
    output_shapes: Shapes
    facts: dict[str, Any]


def trace(module: Any, card: Card) -> Traced:
    """Return what is needed to export a model.

    Args:
        module: denoiser or classifier in evaluation mode, on the CPU.
        card: its card.

    Raises:
        ConfigError: models of its kind are not exported.
    """
    if isinstance(module, DPCRN):
        return _trace_stream(module)
    if isinstance(module, ConvDAE):
        return _trace_windows(module)
    if isinstance(module, AudioClassifier):
        return _trace_classifier(module)
    raise ConfigError(
        f"{card.name} is a {card.kind} of architecture {card.architecture}, which is not exported; expected a denoiser "
        "of architecture dpcrn, noise-floor-dpcrn or conv-dae. See `denoise models`."
    )


def _trace_windows(module: ConvDAE) -> Traced:
    space = ("time",) if module.ndim == 1 else ("height", "width")
    example, sigma = example_windows(module, 1, (2 * module.size_multiple,) * module.ndim)
    inputs, shapes = {NOISY: example}, {NOISY: ("batch", module.channels, *space)}
    output_shapes: Shapes = {DENOISED: shapes[NOISY]}
    if sigma is not None:
        inputs[SIGMA] = sigma
        shapes[SIGMA] = ("batch", *(() if sigma.ndim == 1 else (module.sigma_maps, *space)))
    return Traced(WindowGraph(module), inputs, shapes, output_shapes, {"facts": facts_of(module)})


def _trace_stream(module: DPCRN) -> Traced:
    graph = StreamGraph(module)
    states = _state_tensors(graph)
    tensors = flatten_state(graph.initial_state(1, 1, TRACED_HOP))
    inputs = {NOISY: torch.zeros(1, 1, 2 * TRACED_HOP)} | {STATE + name: x for name, x in tensors.items()}
    shape = ("batch", "channels", "time")
    input_shapes: Shapes = {NOISY: shape} | {STATE + name: tensor.shape for name, tensor in states.items()}
    output_shapes: Shapes = {DENOISED: shape} | {NEXT_STATE + name: tensor.shape for name, tensor in states.items()}
    stream = StreamFacts(module.config.hop_s, module.delay, module.latency_s, states)
    return Traced(graph, inputs, input_shapes, output_shapes, {"facts": facts_of(module), "stream": stream})


def _trace_classifier(module: AudioClassifier) -> Traced:
    inputs = {FRAMES: torch.zeros(1, 1, 8, 512)}
    shapes: Shapes = {FRAMES: ("batch", "channels", "frames", "samples")}
    output_shapes: Shapes = {PROBABILITIES: ("batch", len(module.class_names))}
    facts = ClassifierFacts(tuple(module.class_names), module.config.frame_s)
    return Traced(ClassifierGraph(module), inputs, shapes, output_shapes, {"classifier": facts})


def facts_of(module: Any) -> NetworkFacts:
    """Return the facts of an exported network: it has one output, whatever samples the module has.

    Args:
        module: denoiser.
    """
    return replace(torch_backend.facts_of(module), has_samples=False, can_mix=False)


def example_windows(module: Any, batch: int, size: tuple[int, ...]) -> tuple[Tensor, Tensor | None]:
    """Return noisy gradients, and their sigma if a network takes one.

    Args:
        module: network of windows.
        batch: number of windows.
        size: of a window.
    """
    generator = torch.Generator().manual_seed(math.prod(size))
    clean = torch.linspace(0, 1, math.prod(size)).reshape(size).expand(batch, module.channels, *size)
    x = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    if module.blind:
        return x, None
    if module.sigma_maps == 1:
        return x, torch.linspace(0.05, 0.1, batch)
    return x, 0.05 + 0.1 * torch.rand(batch, module.sigma_maps, *size, generator=generator)


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
