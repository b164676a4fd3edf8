"""Tiny models, made here, whose answers are known: nothing depends on what a trained one has learned."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from hypothesis import settings

from denoise.registry import build
from denoise.weights import Card, save_weights

settings.register_profile("any machine", deadline=None)  # a busy one is slow, not wrong
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
CAUSAL = {"widths": (4, 6, 8), "blocks": 1, "hidden": 8, "squeeze": 2, "memory": 8}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights files by what they do.

    ``keep`` gives the input back, ``mute`` gives zeros, ``swap`` exchanges two audio channels, ``mask``
    and ``blur`` are random networks that change everything.
    """
    folder = tmp_path_factory.mktemp("models")
    made = {}

    def add(
        name: str, architecture: str, settings: dict[str, Any], modality: Any, fill: Callable[[Any], None] | None = None
    ) -> None:
        torch.manual_seed(0)
        module = build(architecture, settings)
        if fill:
            with torch.no_grad():
                fill(module)
        rate = 16_000 if modality == "audio" else None
        about: dict[str, Any] = {"channels": module.channels, "blind": module.blind, "description": f"to {name}"}
        card = Card(name, architecture, modality, sample_rate=rate, **about)
        made[name] = folder / f"{name}.safetensors"
        save_weights(made[name], module, card, {}, dtype=torch.float32)

    def zero(module: torch.nn.Module) -> None:
        for p in module.parameters():
            p.zero_()

    def swap(module: Any) -> None:  # the positive and the negative part of each channel, crossed over
        zero(module)
        module.encoder[0][0].weight[:, :, 0] = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
        module.decoder[0][0].weight[:, :, 0] = torch.tensor([[0.0, 1], [0, -1], [1, 0], [-1, 0]])

    def louder(module: Any) -> None:  # far from the identity, so that a seam would be seen
        for p in module.parameters():
            p.mul_(2.0)

    def quieter(module: Any) -> None:  # near the identity: a draw takes away no more than noise
        for p in module.parameters():
            p.mul_(0.5)

    def grey(module: Any) -> None:  # inside of what files hold
        module.decoder[-1][-1].bias.fill_(0.5)

    add("keep-audio", "conv-dae", {**TINY_1D, "channels": 1, "residual": True}, "audio", zero)
    add("mute-audio", "conv-dae", {**TINY_1D, "channels": 1}, "audio", zero)
    swapping = {"ndim": 1, "channels": 2, "widths": (4,), "kernels": (1,), "strides": (1,), "blocks": (0,)}
    add("swap-audio", "conv-dae", {**swapping, "activation": "relu", "bias": False}, "audio", swap)
    add("mask-audio", "spectral-dae", SPECTRAL, "audio", louder)
    add("causal-audio", "dpcrn", CAUSAL, "audio", louder)
    add("flow-audio", "speech-flow", {**CAUSAL, "lookahead": 1}, "audio", louder)
    add("keep-image", "conv-dae", {**TINY_2D, "residual": True}, "image", zero)
    add("mute-image", "conv-dae", TINY_2D, "image", zero)
    add("blur-image", "conv-dae", {**TINY_2D, "residual": True, "bias": False, "activation": "relu"}, "image")
    told = {"residual": True, "bias": False, "activation": "relu", "blind": False}
    add("told-image", "conv-dae", {**TINY_2D, **told}, "image", quieter)
    add("grey-image", "conv-dae", {**TINY_2D, "channels": 1, "residual": True}, "image")
    add("vary-image", "conv-dae", {**TINY_2D, "latents": (2, 4)}, "image", grey)
    add("vary-audio", "conv-dae", {**TINY_1D, "channels": 1, "latents": (3,)}, "audio", louder)
    spectral = SPECTRAL["net"] | {"latents": (4, 6)}
    add("vary-mask-audio", "spectral-dae", {**SPECTRAL, "net": spectral}, "audio", louder)
    add("dense-image", "dense-ae", {"shape": (3, 16, 16), "widths": (32, 8)}, "image")
    return made


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
