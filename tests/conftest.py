"""Tiny untrained models with known outputs, so that tests do not depend on trained weights."""

from __future__ import annotations

import os
import signal

# before torch: on busy machines, spinning threads cost minutes, as do those of several processes of tests on each core
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if n_processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n_processes)))

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray

from denoise import registry
from denoise.cards import Card
from denoise.pipelines import arrays, choice
from denoise.registry import build, load
from denoise.weights import save_weights

settings.register_profile("any machine", deadline=None)  # a busy machine may be slow
settings.load_profile("any machine")

TINY_1D = {"ndim": 1, "widths": (2,), "kernels": (4,), "strides": (2,), "blocks": (1,)}
TINY_2D = {"ndim": 2, "channels": 3, "widths": (8, 12), "kernels": (3, 2), "strides": (1, 2), "blocks": (1, 1)}
SPECTRAL = {
    "n_fft": 128,
    "hop": 32,
    "net": {
        "ndim": 1,
        "channels": 195,
        "out_channels": 130,
        "widths": (16, 24),
        "kernels": (3, 4),
        "strides": (1, 2),
        "blocks": (1, 2),
        "dilation_cycle": 2,
        "norm": True,
    },
}
CAUSAL = {"widths": (4, 6, 8), "blocks": 1, "hidden": 8, "squeeze": 2, "full_hidden": 8}


@pytest.fixture(scope="session", autouse=True)
def _heed_interrupts() -> None:
    """Heed Ctrl-C, which a shell ignores for what it runs in the background; the commands of tests inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _have_no_exported_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give tests a cache of their own: `denoise audio` takes the models that the user has exported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def noisy_scene() -> Callable[[int, float], NDArray[np.float32]]:
    """``noisy_scene(side, sigma)``: smooth and textured areas and sharp edges with white noise, unclipped.

    It has shape (side, side + 60, 3) and full scale 1.0.
    """

    def generate(side: int, sigma: float) -> NDArray[np.float32]:
        rows, columns = np.indices((side, side + 60)) / 64
        luma = 0.5 + 0.2 * np.sin(columns**2 / 2) * np.cos(rows) + 0.25 * ((rows + 2 * columns) % 5 < 1)
        clean = luma[..., None] * np.array([1.0, 0.8, 0.6])
        return (clean + np.random.default_rng(0).normal(0, sigma, clean.shape)).astype(np.float32)

    return generate


class ExportedModels(dict[str, Path]):
    """Files of `denoise export` by the names of tiny or bundled models, each made when it is first asked for."""

    def __init__(self, models: dict[str, Path], folder: Path) -> None:
        super().__init__()
        self.models, self.folder = models, folder

    def __missing__(self, name: str) -> Path:
        from denoise.backends.onnx.export import to_onnx

        self[name] = path = self.folder / f"{name}.onnx"
        path.write_bytes(to_onnx(*load(self.models.get(name, name))))
        return path


@pytest.fixture(scope="session")
def exported(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> ExportedModels:
    """Exported models by name; no test may change a file."""
    return ExportedModels(models, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights files of tiny models by name.

    ``keep`` returns its input, ``mute`` returns zeros, ``swap`` exchanges two audio channels, ``mask``
    and ``blur`` are random networks that change every sample.
    """
    folder = tmp_path_factory.mktemp("models")
    paths = {}

    def add(
        name: str, architecture: str, settings: dict[str, Any], modality: Any, fill: Callable[[Any], None] | None = None
    ) -> None:
        torch.manual_seed(0)
        module = build(architecture, settings)
        if fill:
            with torch.no_grad():
                fill(module)
        rate = 16_000 if modality == "audio" else None
        facts: dict[str, Any] = {"channels": module.channels, "blind": module.blind, "description": f"to {name}"}
        card = Card(name, architecture, modality, sample_rate=rate, **facts)
        paths[name] = folder / f"{name}.safetensors"
        save_weights(paths[name], module, card, {}, dtype=torch.float32)

    def zero(module: torch.nn.Module) -> None:
        for p in module.parameters():
            p.zero_()

    def swap(module: Any) -> None:  # ReLU channels hold the positive and negative half of each input channel
        zero(module)
        module.encoder[0][0].weight[:, :, 0] = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        module.decoder[0][0].weight[:, :, 0] = torch.tensor([[0.0, 1], [0, -1], [1, 0], [-1, 0]])

    def amplify(module: Any) -> None:  # far from the identity, so that seams between windows would show
        for p in module.parameters():
            p.mul_(2.0)

    def attenuate(module: Any) -> None:  # near the identity: a posterior sample removes no more than the noise
        for p in module.parameters():
            p.mul_(0.5)

    def shift_to_grey(module: Any) -> None:  # within the range of a file
        module.decoder[-1][-1].bias.fill_(0.5)

    add("keep-audio", "conv-dae", {**TINY_1D, "channels": 1, "residual": True}, "audio", zero)
    add("mute-audio", "conv-dae", {**TINY_1D, "channels": 1}, "audio", zero)
    linear = {"ndim": 1, "channels": 2, "widths": (4,), "kernels": (1,), "strides": (1,), "blocks": (0,)}
    add("swap-audio", "conv-dae", {**linear, "activation": "relu", "bias": False}, "audio", swap)
    add("mask-audio", "spectral-dae", SPECTRAL, "audio", amplify)
    add("causal-audio", "dpcrn", CAUSAL, "audio", amplify)
    add("floor-audio", "noise-floor-dpcrn", {**CAUSAL, "floor_frames": 16}, "audio", amplify)
    add("lookahead-audio", "dpcrn", {**CAUSAL, "lookahead": 2}, "audio", amplify)
    add("flow-audio", "speech-flow", {**CAUSAL, "lookahead": 1}, "audio", amplify)
    add("keep-image", "conv-dae", {**TINY_2D, "residual": True}, "image", zero)
    add("mute-image", "conv-dae", TINY_2D, "image", zero)
    add("blur-image", "conv-dae", {**TINY_2D, "residual": True, "bias": False, "activation": "relu"}, "image")
    conditional = {"residual": True, "bias": False, "activation": "relu", "blind": False}
    add("sigma-image", "conv-dae", {**TINY_2D, **conditional}, "image", attenuate)
    centred = conditional | {"sigma_maps": 6, "centred": True, "max_change": 1.5}
    add("maps-image", "conv-dae", {**TINY_2D, **centred}, "image")
    add("grey-image", "conv-dae", {**TINY_2D, "channels": 1, "residual": True}, "image")
    add("vary-image", "conv-dae", {**TINY_2D, "latents": (2, 4)}, "image", shift_to_grey)
    add("vary-audio", "conv-dae", {**TINY_1D, "channels": 1, "latents": (3,)}, "audio", amplify)
    spectral = SPECTRAL["net"] | {"latents": (4, 6)}
    add("vary-mask-audio", "spectral-dae", {**SPECTRAL, "net": spectral}, "audio", amplify)
    add("dense-image", "dense-ae", {"shape": (3, 16, 16), "widths": (32, 8)}, "image")
    return paths


@pytest.fixture
def pipe() -> Iterator[Callable[..., BinaryIO]]:
    """``pipe(data)`` is the reading end of a real pipe that another thread fills with ``data``."""
    with ExitStack() as stack:

        def make(data: bytes, step: int = 1001) -> BinaryIO:
            reading, writing = os.pipe()

            def feed() -> None:
                with suppress(BrokenPipeError), os.fdopen(writing, "wb", buffering=0) as file:
                    for start in range(0, len(data), step):
                        file.write(data[start : start + step])

            thread = threading.Thread(target=feed)
            stack.callback(thread.join)
            thread.start()
            return stack.enter_context(os.fdopen(reading, "rb"))

        yield make


class LevelClassifier:
    """A classifier that takes peaks above 0.5 for speech, above 0.2 for music, and the rest for sounds."""

    class_names = ("speech", "music", "sounds")

    def __init__(self, backend: str = "auto") -> None:
        pass

    def probabilities(self, x: NDArray[Any], *, sample_rate: int) -> NDArray[Any]:
        peak = np.abs(x).max(axis=(1, 2))
        index = np.where(peak > 0.5, 0, np.where(peak > 0.2, 1, 2))
        return np.asarray(torch.softmax(9.0 * torch.eye(3), dim=1))[index]


@pytest.fixture
def general(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of bundled models: two tiny networks as ``speech`` and ``general``, chosen by `LevelClassifier`."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    for name, stored in (("speech", "causal-audio"), ("general", "flow-audio")):
        module, card = registry.load(models[stored])
        save_weights(folder / f"{name}.safetensors", module, replace(card, name=name), {}, torch.float32)
    monkeypatch.setattr(registry, "PRETRAINED", folder)
    monkeypatch.setattr(choice, "audio_classifier", LevelClassifier)
    arrays._audio_pipeline.cache_clear()
    yield folder
    arrays._audio_pipeline.cache_clear()
