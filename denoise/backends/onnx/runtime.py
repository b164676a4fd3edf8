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

from denoise.cards import MAX_BYTES, Card
from denoise.config import parse
from denoise.errors import ConfigError, WeightsError
from denoise.lookahead import lower_to_following
from denoise.protocols import NetworkFacts
from denoise.signals import check_noise_profile

FORMAT_VERSION = 2  # of graphs and metadata: exported files of another one are refused, or exported again
DEFAULT_RATE = 48_000  # of whole signals that `denoise` of a streaming network takes, as in torch
NOISY, SIGMA, DENOISED = "noisy", "sigma", "denoised"
FRAMES, PROBABILITIES = "frames", "probabilities"
STATE, NEXT_STATE = "state.", "next_state."  # prefixes of the inputs and outputs that hold the state
HISTORY = "history"  # tensor of the state: the last hop
FEATURES = "features."  # prefix of those of the recurrences and convolutions, which begin as zeros
LEVEL = "level."  # prefix of those of the running level, likewise
NOISE_PROFILE, SUM_OF_POWERS, RECENT_POWERS = "floor.profile", "floor.total", "floor.recent"  # of a `NoiseFloorDPCRN`
NOISE_FLOOR = (HISTORY, SUM_OF_POWERS, "floor.weight", RECENT_POWERS, "floor.silent")
"""Tensors that a noise floor is computed from."""

FRAMES_AT_ONCE = 64  # of noise, so that the memory does not grow with its length

Array = NDArray[Any]
State = dict[str, Array]


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


@dataclass(frozen=True)
class ClassifierFacts:
    """What is needed to apply a classifier.

    Args:
        class_names: names of the classes.
        frame_s: seconds of a frame, whose samples are a multiple of 16.
    """

    class_names: tuple[str, ...]
    frame_s: float


class OnnxNetwork:
    """A `denoise.protocols.ArrayNetwork` of an exported file.

    Args:
        session: session of onnxruntime.
        facts: facts of the network.
    """

    device, precision = "cpu", "float32"

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
        y, *tensors = self.session.run([DENOISED, *(NEXT_STATE + name for name in state)], self._inputs(x, state))
        return y, dict(zip(state, tensors, strict=True))

    def _inputs(self, x: Array, state: State) -> dict[str, Array]:
        return {NOISY: np.ascontiguousarray(x)} | {STATE + name: tensor for name, tensor in state.items()}

    def denoise(self, x: Array, sigma: Array | None = None) -> Array:
        """Denoise whole signals of 48 kHz; see `denoise.protocols.ArrayNetwork`."""
        hop, time = self.hop(DEFAULT_RATE), x.shape[-1]
        lag = self.delay * hop
        padded = np.pad(x, ((0, 0), (0, 0), (0, lag + -time % hop)))
        state = self.initial_state(x.shape[0], x.shape[1], DEFAULT_RATE)
        return self.step(padded, state)[0][..., lag : lag + time]


class OnnxNoiseProfileNetwork(OnnxStreamingNetwork):
    """A `denoise.protocols.ArrayNoiseProfileNetwork` of an exported file; its arguments are those of its base."""

    def measure_noise(self, noise: Array, *, sample_rate: int) -> Array:
        """Return the noise profile of recordings; see `denoise.protocols.ArrayNoiseProfileNetwork`.

        Frames are steps of signals of their own, after which the sum of the powers that the state holds is that of the
        one frame. The rest of the network is not computed.
        """
        hop, (batch, channels, time) = self.hop(sample_rate), noise.shape
        n = max(1, time // hop - 1)  # whole frames, without the padding before the first one
        padded = np.pad(noise, ((0, 0), (0, 0), (0, max(0, (n + 1) * hop - time))))
        hops = padded[..., : (n + 1) * hop].reshape(batch, channels, n + 1, hop).swapaxes(1, 2)
        first, second = (x.reshape(-1, channels, hop) for x in (hops[:, :-1], hops[:, 1:]))
        powers: list[Array] = []
        for start in range(0, len(first), FRAMES_AT_ONCE):
            x = second[start : start + FRAMES_AT_ONCE]
            state = self.initial_state(len(x), channels, sample_rate)
            state[HISTORY] = np.ascontiguousarray(first[start : start + FRAMES_AT_ONCE])
            powers += self.session.run([NEXT_STATE + SUM_OF_POWERS], self._inputs(x, state), _run_options())
        profile: Array = np.concatenate(powers).reshape(batch, n, -1).mean(axis=1)
        return profile

    def initial_state(self, batch: int, channels: int, sample_rate: int, noise_profile: Array | None = None) -> State:
        """Return the state before the first sample; see `denoise.protocols.ArrayNoiseProfileNetwork`."""
        state = super().initial_state(batch, channels, sample_rate)
        if noise_profile is not None:
            shape = state[NOISE_PROFILE].shape
            check_noise_profile(noise_profile.shape, *shape)
            state[NOISE_PROFILE] = np.broadcast_to(noise_profile, shape).astype(np.float32)
        return state

    @property
    def lookahead_hops(self) -> int:
        """Hops whose noise floor the state holds."""
        return int(self.stream.states[RECENT_POWERS].shape[1]) + 1

    def renew(self, state: State, recent: Array | None) -> State:
        """Return a state whose recurrences begin anew; see `denoise.protocols.ArrayNoiseProfileNetwork`."""
        prefixes = FEATURES if recent is not None else (FEATURES, LEVEL)
        zeros = {name: np.zeros_like(x) for name, x in state.items() if name.startswith(prefixes)}
        if recent is None:
            return state | zeros
        _, begun = self.step(recent, state | zeros)
        return state | {name: begun[name] for name in zeros}

    def update_noise_floor(self, x: Array, state: State) -> State:
        """Return the state after the next hops; see `denoise.protocols.ArrayNoiseProfileNetwork`.

        The rest of the network is not computed.
        """
        names = [NEXT_STATE + name for name in NOISE_FLOOR]
        floor = dict(zip(NOISE_FLOOR, self.session.run(names, self._inputs(x, state), _run_options()), strict=True))
        return state | floor

    def apply_lookahead(self, state: State, ahead: State) -> State:
        """Return a state that knows what follows; see `denoise.protocols.ArrayNoiseProfileNetwork`."""
        return state | {RECENT_POWERS: lower_to_following(state[RECENT_POWERS], ahead[RECENT_POWERS])}


class OnnxClassifier:
    """A `denoise.protocols.ArrayClassifier` of an exported file.

    Args:
        session: session of onnxruntime.
        facts: facts of the classifier.
    """

    def __init__(self, session: Any, facts: ClassifierFacts) -> None:
        self.session, self.class_names, self.frame_s = session, facts.class_names, facts.frame_s

    def probabilities(self, x: Array, *, sample_rate: int) -> Array:
        """Classify recordings; see `denoise.protocols.ArrayClassifier`."""
        n = 16 * max(1, round(self.frame_s * sample_rate / 16))
        padded = np.pad(x, ((0, 0), (0, 0), (0, max(0, n - x.shape[-1]))))
        frames = padded[..., : padded.shape[-1] // n * n].reshape(*x.shape[:2], -1, n)
        probabilities: Array = self.session.run([PROBABILITIES], {FRAMES: frames})[0]
        return probabilities


Model = OnnxNetwork | OnnxStreamingNetwork | OnnxClassifier


def open_model(model: bytes, where: str) -> tuple[Model, Card]:
    """Open an exported model.

    Args:
        model: content of the file.
        where: its name, for messages.

    Returns:
        The denoiser or classifier, and its card.

    Raises:
        ConfigError: onnxruntime is not installed.
        WeightsError: the model is damaged, or not of this package.
    """
    session = _open_session(model, where)
    header = _parse_metadata(session, where)
    if header["classifier"] is not None:
        return OnnxClassifier(session, header["classifier"]), header["card"]
    if header["stream"] is not None:
        kind = OnnxNoiseProfileNetwork if NOISE_PROFILE in header["stream"].states else OnnxStreamingNetwork
        return kind(session, header["facts"], header["stream"]), header["card"]
    return OnnxNetwork(session, header["facts"]), header["card"]


def read_header(path: Path) -> dict[str, Any]:
    """Read the metadata of an exported file.

    Args:
        path: the file.

    Returns:
        ``format_version`` (int), ``card`` (`Card`), ``config`` (plain values), and None or ``facts`` (`NetworkFacts`),
        ``stream`` (`StreamFacts`) and ``classifier`` (`ClassifierFacts`).

    Raises:
        ConfigError: onnxruntime is not installed.
        WeightsError: the file is missing, damaged, or not of this package.
    """
    return _parse_metadata(_open_session(read_file(path), str(path)), str(path))


def _run_options() -> Any:
    """Options of a run that computes only what the requested outputs need."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    return options


def _open_session(model: bytes, where: str) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # which the import starts: nothing leaves the machine
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ConfigError(f"{where}: needs onnxruntime. Install it: pip install onnxruntime.") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, too
    options.intra_op_num_threads = count_threads()
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no other base
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{where}: not an ONNX model, or damaged ({reason}). Export it again.") from None


def _parse_metadata(session: Any, where: str) -> dict[str, Any]:
    stored = session.get_modelmeta().custom_metadata_map
    try:
        header = {key: json.loads(stored[key]) for key in ("format_version", "card", "config")}
        header["card"] = parse(Card, header["card"], f"{where}: card")
        for key, kind in FACTS.items():
            header[key] = parse(kind, json.loads(stored[key]), f"{where}: {key}") if key in stored else None
        if header["card"].kind != "classifier" and header["facts"] is None:
            raise KeyError("facts")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{where}: has no metadata of this package ({error}). Use `denoise export`.") from None
    version = header["format_version"]
    if version != FORMAT_VERSION:
        raise WeightsError(f"{where}: format version {version}; this release reads {FORMAT_VERSION}. Export it again.")
    return header


FACTS: dict[str, type[Any]] = {"facts": NetworkFacts, "stream": StreamFacts, "classifier": ClassifierFacts}


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
