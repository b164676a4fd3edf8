"""Laws of weights files, over every architecture of the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from denoise.cards import Card
from denoise.errors import WeightsError
from denoise.registry import ARCHITECTURES, CLASSIFIERS, NETWORKS, PRIORS, build, load
from denoise.weights import load_tensors, save_weights

DPCRN = {"widths": [4, 6, 8], "blocks": 1, "hidden": 8, "squeeze": 2, "lookahead": 1}
VAE = {"shape": [1, 8, 8], "latent": 4}
SPECTRA = {"architecture": "vae", "shape": [9, 16], "latent": 4}
NET = {"kind": "unet", "widths": [8, 16], "blocks": 1, "embedding": 8}
SMALL: dict[str, dict[str, Any]] = {
    "conv-dae": {"ndim": 2, "channels": 3, "widths": [4], "kernels": [3], "strides": [1], "blocks": [1]},
    "dense-ae": {"shape": [3, 4, 4], "widths": [5]},
    "dpcrn": DPCRN,
    "noise-floor-dpcrn": DPCRN | {"floor_frames": 16},
    "speech-flow": DPCRN,
    "spectral-dae": {
        "n_fft": 64,
        "hop": 16,
        "net": {
            "ndim": 1,
            "channels": 99,
            "out_channels": 66,
            "widths": [2],
            "kernels": [3],
            "strides": [2],
            "blocks": [1],
        },
    },
    "audio-classifier": {"class_names": ["a", "b"], "bands": 8, "widths": [2, 3]},
    "ae": VAE,
    "vae": VAE,
    "aae": VAE | {"posterior": "universal", "critic": [8]},
    "mdct": {"time": 64, "bins": 8},
    "spectral-codec": {"time": 64, "codec": SPECTRA, "n_fft": 16, "hop": 4},
    "autoregressive-flow": {
        "network": {"architecture": "pixelcnn", "shape": [3, 4, 4], "features": 6, "dilations": [1, 2], "classes": 2}
    },
    "consistency-model": {"denoiser": {"architecture": "diffusion", "shape": [1, 8, 8], "net": NET, "classes": 2}},
    "patch-flow": {"side": 4, "transforms": 2, "hidden": [8]},
    "multiscale-flow": {"shape": [1, 8, 8], "steps": 2, "width": 8, "blocks": 1, "classes": 2},
    "ddgan": {"shape": [1, 8, 8], "net": NET, "latent": 3, "classes": 2},
    "ddpm": {"shape": [1, 8, 8], "net": NET, "classes": 2},
    "diffusion": {"shape": [1, 8, 8], "net": NET, "profile": [2.0, 0.5], "classes": 2, "text": True},
    "flow-matching": {"shape": [1, 8, 8], "net": NET, "classes": 2},
    "gan": {"shape": [4], "latent": 2, "classes": 2},
    "pixelcnn": {"shape": [3, 4, 4], "features": 6, "dilations": [1, 2], "classes": 2},
    "pixelrnn": {"shape": [1, 4, 4], "features": 4, "hidden": 2, "layers": 2, "classes": 2},
    "flow": {"shape": [4], "kind": "nsf", "hidden": [8], "classes": 2},
    "latent-prior": {
        "codec": {"architecture": "mdct", "time": 64, "bins": 8},
        "prior": {"architecture": "diffusion", "shape": [1, 8, 8], "net": NET},
    },
}


def save(folder: Path, architecture: str) -> tuple[Path, nn.Module]:
    """Write a random module of an architecture, every parameter changed from its initial value."""
    torch.manual_seed(0)
    module = build(architecture, SMALL[architecture])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape))
    kind = "denoiser" if architecture in NETWORKS else "prior" if architecture in PRIORS else "codec"
    kind = "classifier" if architecture in CLASSIFIERS else kind
    channels = module.event_shape[0] if kind in ("codec", "prior") else module.channels
    blind = module.blind if kind == "denoiser" else True
    path = folder / f"{architecture}.safetensors"
    card = Card(architecture, architecture, "image", channels, kind=kind, blind=blind)
    save_weights(path, module, card, {}, torch.float32)
    return path, module


def test_every_architecture_has_a_small_configuration() -> None:
    assert SMALL.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_load_restores_every_parameter_and_buffer(architecture: str, tmp_path: Path) -> None:
    path, module = save(tmp_path, architecture)
    loaded, _ = load(path)
    state = dict([*module.named_parameters(), *module.named_buffers()])
    loaded_state = dict([*loaded.named_parameters(), *loaded.named_buffers()])
    assert loaded_state.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(loaded_state[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "mdct"])  # which has no parameters
def test_a_missing_tensor_is_named(architecture: str, tmp_path: Path) -> None:
    path, _ = save(tmp_path, architecture)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    for name in tensors:
        save_file({key: value for key, value in tensors.items() if key != name}, path, metadata=metadata)
        with pytest.raises(WeightsError, match=f"lacks tensor {name}"):
            load(path)
    save_file(tensors | {"unexpected": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(WeightsError, match="unexpected"):
        load(path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loading_on_the_meta_device_names_buffers_without_values(architecture: str, tmp_path: Path) -> None:
    path, module = save(tmp_path, architecture)
    with torch.device("meta"):
        shapes = build(architecture, SMALL[architecture])
    unset = [name for name, buffer in shapes.named_buffers() if buffer.is_meta and name not in load_file(path)]
    if unset:
        with pytest.raises(WeightsError) as error:
            load_tensors(path, shapes)
        assert all(name in str(error.value) for name in unset)
    else:
        load_tensors(path, shapes)
        for name, parameter in module.named_parameters():
            assert torch.equal(dict(shapes.named_parameters())[name], parameter)
