"""Exported networks in onnxruntime: arrays in, arrays out, without torch."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from denoise.config import parse
from denoise.errors import ConfigError, WeightsError

FORMAT_VERSION = 1
MAX_BYTES = 1 << 30
NOISY, SIGMA, DENOISED = "noisy", "sigma", "denoised"
STATE, NEXT_STATE = "state.", "next_state."  # prefixes of the inputs and outputs that hold the state

Array = NDArray[Any]
State = dict[str, Array]


@dataclass(frozen=True)
class NetworkFacts:
    """What a pipeline needs to know of a network to apply it to windows or tiles.

    Args:
        ndim: dimensions of space: 1 for audio, 2 for images.
        channels: channels of input and output.
        blind: whether it estimates the noise level itself; sigma is then refused, else required.
        sigma_maps: channels of sigma: 1 for one number, ``2 * channels`` for the maps of a `denoise.noise_profile`.
        size_multiple: total stride: windows must start at multiples of it to give the same output as the whole signal.
        context: receptive field to each side in samples or pixels; None for all of the past.
        window: only size that it accepts, None for any size.
    """

    ndim: int
    channels: int
    blind: bool = True
    sigma_maps: int = 1
    size_multiple: int = 1
    context: int | None = None
    window: int | None = None


@dataclass(frozen=True)
class StateTensor:
    """A tensor of the state of a streaming network before the first sample.

    Args:
        shape: sizes, or sums and multiples of ``batch``, ``channels`` and ``hop``, such as ``"48*batch"``.
        value: of all elements.
    """

    shape: tuple[int | str, ...]
    value: float = 0.0

    def create(self, **sizes: int) -> Array:
        """Return the tensor for ``batch`` signals of ``channels`` channels and a hop of ``hop`` samples."""
        return np.full([resolve_size(size, sizes) for size in self.shape], self.value, np.float32)


@dataclass(frozen=True)
class StreamFacts:
    """What a loop over the step of a streaming network needs to know.

    Args:
        hop_s: seconds of one hop.
        delay: hops by which the output lags behind the input.
        latency_s: seconds between the arrival of a sample and its output, without the time of computation.
        states: tensors of the state by name, see `StateTensor`.
    """

    hop_s: float
    delay: int
    latency_s: float
    states: dict[str, StateTensor] = field(default_factory=dict)


class OnnxNetwork:
    """A `denoise.protocols.ArrayNetwork` of an exported file.

    Args:
        session: session of onnxruntime.
        facts: facts of the network.
    """

    def __init__(self, session: Any, facts: NetworkFacts) -> None:
        self.session, self.facts = session, facts

    def denoise(self, x: Array, sigma: Array | None = None) -> Array:
        """Denoise signals; see `denoise.protocols.ArrayNetwork`."""
        y: Array = self.session.run([DENOISED], {NOISY: x} if sigma is None else {NOISY: x, SIGMA: sigma})[0]
        return y


class OnnxStreamingNetwork(OnnxNetwork):
    """A `denoise.protocols.ArrayStreamingNetwork` of an exported file.

    Args:
        session: session of onnxruntime.
        facts: facts of the network.
        stream: facts of its step.
    """

    def __init__(self, session: Any, facts: NetworkFacts, stream: StreamFacts) -> None:
        super().__init__(session, facts)
        self.stream, self.delay = stream, stream.delay

    def hop(self, sample_rate: int) -> int:
        """Return the number of samples of one hop at ``sample_rate`` Hz."""
        return max(1, round(self.stream.hop_s * sample_rate))

    def initial_state(self, batch: int, channels: int, sample_rate: int) -> State:
        """Return the state before the first sample; see `denoise.protocols.ArrayStreamingNetwork`."""
        sizes = {"batch": batch, "channels": channels, "hop": self.hop(sample_rate)}
        return {name: tensor.create(**sizes) for name, tensor in self.stream.states.items()}

    def step(self, x: Array, state: State) -> tuple[Array, State]:
        """Denoise the next hops of a stream; see `denoise.protocols.ArrayStreamingNetwork`."""
        inputs = {NOISY: np.ascontiguousarray(x)} | {STATE + name: tensor for name, tensor in state.items()}
        y, *tensors = self.session.run([DENOISED, *(NEXT_STATE + name for name in state)], inputs)
        return y, dict(zip(state, tensors, strict=True))

    def denoise(self, x: Array, sigma: Array | None = None) -> Array:
        """Refuse: a signal of unknown rate cannot be denoised."""
        raise NotImplementedError("streaming networks are applied by `step`")


def open_network(model: bytes, where: str) -> tuple[OnnxNetwork, dict[str, Any]]:
    """Open an exported network.

    Args:
        model: content of the file.
        where: its name, for messages.

    Returns:
        The network, and its card as plain values.

    Raises:
        ConfigError: onnxruntime is not installed.
        WeightsError: the model is damaged, or not of this package.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ConfigError('onnxruntime is missing. Install it: pip install "denoise-toolkit[onnx]".') from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone, which are raised, too
    options.intra_op_num_threads = count_threads()
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no other base
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{where}: not an ONNX model, or damaged ({reason}). Export it again.") from None
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        version, card = json.loads(metadata["format_version"]), json.loads(metadata["card"])
        facts = parse(NetworkFacts, json.loads(metadata["facts"]), f"{where}: facts")
        stream = metadata.get("stream")
        stream_facts = stream and parse(StreamFacts, json.loads(stream), f"{where}: stream")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"{where}: has no metadata of this package ({error}). Export a model with `denoise export`."
        ) from None
    if version != FORMAT_VERSION:
        raise WeightsError(f"{where}: format version {version}; this release reads {FORMAT_VERSION}. Update denoise.")
    if stream_facts:
        return OnnxStreamingNetwork(session, facts, stream_facts), card
    return OnnxNetwork(session, facts), card


def read_file(path: Path) -> bytes:
    """Read the file of an exported network.

    Args:
        path: the file.

    Raises:
        WeightsError: it cannot be read, or is larger than models of this package.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(f"{path}: larger than {MAX_BYTES >> 20} MiB; expected a small model.")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}. Give a file of `denoise export`.") from None


def count_threads() -> int:
    """Return the threads for a network: OMP_NUM_THREADS, as for torch, or one for each core that may be used."""
    requested = os.environ.get("OMP_NUM_THREADS", "")
    if requested.isdecimal() and int(requested):
        return int(requested)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_size(size: int | str, sizes: dict[str, int]) -> int:
    """Return the size that an expression of `StateTensor` stands for.

    Args:
        size: the expression.
        sizes: ``batch``, ``channels`` and ``hop``.

    >>> resolve_size("48*batch", {"batch": 2}), resolve_size("hop+1", {"hop": 768}), resolve_size(64, {})
    (96, 769, 64)
    """
    if isinstance(size, int):
        return size
    match = re.fullmatch(r"(?:(\d+)\*)?(\w+?)(?:\+(\d+))?", size)
    if match is None or match[2] not in sizes:
        raise WeightsError(f"a tensor of the state has size {size!r}; expected a multiple of {', '.join(sizes)}.")
    return int(match[1] or 1) * sizes[match[2]] + int(match[3] or 0)
