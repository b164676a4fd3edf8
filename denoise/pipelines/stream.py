"""Live audio: samples in, denoised samples out, a fixed latency later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from denoise.errors import ConfigError, InputError
from denoise.pipelines.device import pick_device
from denoise.pipelines.latent_noise import check_dial
from denoise.pipelines.result import limited_strength
from denoise.protocols import DrawnNetwork, FlowNetwork, StreamingNetwork
from denoise.registry import DEFAULTS, load
from denoise.sampling.consistency import Consistency
from denoise.signals import AudioFormat, require_finite_samples

STEPS = 5  # calls of the network for a draw


class AudioStream:
    """Denoise audio as it comes, in blocks of any length.

    All outputs of `push` and `flush` joined are as long as all inputs and aligned with them; what `push` gives
    back is ``latency`` samples or less behind what it has taken. The two channels of a stereo signal share one
    mask, so that its image stays; the channels of any other number are denoised each for itself. ``model`` is
    a name, a file, a loaded network or an `AudioPipeline`. ``perception``, ``steps`` and ``seed`` are those of
    `denoise_audio`; with ``speech-flow`` the latency grows by 0.2 s with each step.

    >>> stream = AudioStream("speech", sample_rate=48_000, channels=1)  # doctest: +SKIP
    >>> clean = [stream.push(block) for block in blocks] + [stream.flush()]  # doctest: +SKIP

    Raises:
        ConfigError: the model is unknown, or is none that carries a state (`denoise info` tells).
    """

    def __init__(
        self,
        model: str | Path | StreamingNetwork | Any = DEFAULTS["audio"],
        *,
        sample_rate: int,
        channels: int = 1,
        strength: float = 1.0,
        attenuation_limit: float | None = None,
        perception: float | None = None,
        steps: int = STEPS,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        strength = limited_strength(strength, attenuation_limit)
        AudioFormat(sample_rate, channels)  # checks both
        if isinstance(model, (str, Path)):
            network, _ = load(model, kind="denoiser", modality="audio")
            network = network.to(pick_device(device))
        else:
            network = getattr(model, "model", model)
        if not isinstance(network, StreamingNetwork):
            raise ConfigError(
                f"model {_name(model)} needs whole windows and cannot stream; give a causal one, such as speech."
            )
        check_dial(network, _name(model), None, perception, steps, goes=isinstance(network, FlowNetwork))
        if perception and isinstance(network, FlowNetwork):
            network = network.drawn(seed, steps, perception)
        self.network, self.sample_rate, self.channels, self.strength = network, sample_rate, channels, strength
        self._device = next(network.parameters()).device
        self._hop = network.hop(sample_rate)
        self._rows = 1 if channels == 2 else channels
        self._state = network.start(self._rows, channels // self._rows, sample_rate)
        self._waiting = np.zeros((channels, 0), np.float32)  # samples that fill no hop yet
        self._dry = np.zeros((channels, 0), np.float32)  # samples whose denoised twins are still inside
        self._ahead = network.delay * self._hop  # what the network gives first lies before the first sample
        self._late = np.zeros((channels, self.latency), np.float32)  # what `process` owes
        self._flushed = False

    @property
    def latency(self) -> int:
        """Samples from a sample's arrival to its leaving, at most."""
        return (1 + self.network.delay) * self._hop

    def push(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Take the next samples and give back what is ready, perhaps nothing.

        Shape:
            samples: (channels, any time), float32 or float64; returns (channels, time ready).
        Raises:
            InputError: shape, type or values do not fit, or the stream has ended; the stream is as before.
        """
        x: Any = np.asarray(samples)
        if self._flushed:
            raise InputError("the stream has been flushed; make a new AudioStream for the next recording.")
        if x.ndim != 2 or x.shape[0] != self.channels:
            raise InputError(f"samples have shape {x.shape}; expected ({self.channels}, time).")
        if x.dtype not in (np.float32, np.float64):
            raise InputError(f"samples are {x.dtype}; expected float32 or float64.")
        require_finite_samples(x)
        self._dry = np.concatenate([self._dry, x], axis=1)
        self._waiting = np.concatenate([self._waiting, x.astype(np.float32)], axis=1)
        n = self._waiting.shape[1] // self._hop * self._hop
        block, self._waiting = self._waiting[:, :n], self._waiting[:, n:]
        return self._give(self._run(block))

    def flush(self) -> NDArray[Any]:
        """End the stream and give back what is still inside. Shape: (channels, at most `latency`)."""
        if self._flushed:
            raise InputError("the stream has been flushed already.")
        self._flushed = True
        rest = self._waiting
        fill = -rest.shape[1] % self._hop + self.network.delay * self._hop
        return self._give(self._run(np.pad(rest, ((0, 0), (0, fill)))))

    def process(self, samples: NDArray[Any]) -> NDArray[Any]:
        """As `push`, but give back as many samples as come, always ``latency`` late: for a sound card's callback.

        What comes first is ``latency`` samples of silence. A stream is used by `process`, or by `push` and `flush`.

        Shape:
            samples: (channels, any time), float32 or float64; returns the same shape and type.
        """
        ready = np.concatenate([self._late, self.push(samples)], axis=1)
        n = samples.shape[1]
        out, self._late = ready[:, :n], ready[:, n:]
        return out.astype(samples.dtype, copy=False)

    def judged(self) -> tuple[Consistency, float] | None:
        """Of a drawn answer so far, how far what it takes away is noise, and the share of it that was doubted."""
        if not isinstance(self.network, DrawnNetwork):
            return None
        level, correlation, doubted = self.network.judged(self._state)
        return Consistency(level, correlation), doubted

    @torch.inference_mode()
    def _run(self, block: NDArray[Any]) -> NDArray[Any]:
        """Whole hops through the network. Shape: (channels, n * hop)."""
        if not block.shape[1]:
            return block
        x = torch.from_numpy(np.ascontiguousarray(block)).reshape(self._rows, -1, block.shape[1])
        y, self._state = self.network.stream(x.to(self._device), self._state)
        out = y.cpu().numpy().reshape(len(block), -1)
        skipped = min(self._ahead, out.shape[1])
        self._ahead -= skipped
        return out[:, skipped:]

    def _give(self, wet: NDArray[Any]) -> NDArray[Any]:
        """Mix with the samples of the same time, in their own precision."""
        n = min(wet.shape[1], self._dry.shape[1])  # the flush gives more than there is
        dry, self._dry = self._dry[:, :n], self._dry[:, n:]
        return dry + np.asarray(self.strength, dry.dtype) * (wet[:, :n].astype(dry.dtype) - dry)


def _name(model: Any) -> str:
    return str(model) if isinstance(model, str | Path) else type(getattr(model, "model", model)).__name__
