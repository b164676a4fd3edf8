"""The tables of architectures; a hostile weights file is refused in one line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from denoise.cards import MAX_BYTES, Card
from denoise.errors import ConfigError, WeightsError
from denoise.registry import DEFAULTS, build, bundled, load, locate
from denoise.weights import save_weights

NET = {"ndim": 1, "channels": 1, "widths": [2], "kernels": [3], "strides": [2], "blocks": [1]}
DENSE = {"shape": [3, 4, 4], "widths": [5]}
SPECTRAL = {"n_fft": 64, "hop": 16, "net": {**NET, "channels": 99, "out_channels": 66}}


def craft(path: Path, architecture: str, settings: dict[str, Any], **header: str) -> Path:
    """Write a valid file, with raw texts in place of parts of its header."""
    module = build(architecture, settings)
    card = Card("crafted", architecture, "audio", module.channels, size_multiple=module.size_multiple)
    save_weights(path, module, card, {}, torch.float32)
    valid = {"format_version": "1", "card": json.dumps(asdict(card)), "config": json.dumps(settings), "recipe": "{}"}
    save_file(load_file(path), path, metadata=valid | header)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_valid_files_load(tmp_path: Path) -> None:
    for architecture, settings in {"conv-dae": NET, "dense-ae": DENSE, "spectral-dae": SPECTRAL}.items():
        assert load(craft(tmp_path / "valid.safetensors", architecture, settings))[1].architecture == architecture


@pytest.mark.parametrize(
    "header",
    [
        {"card": "null"},
        {"card": "[]"},
        {"card": '"text"'},
        {"card": "{"},
        {"card": '{"name": "x"}'},
        {"config": "null"},
        {"config": "[1]"},
        {"config": json.dumps({**NET, "ndim": "[" * 100})},
        {"config": '{"ndim":' + "[" * 3000 + "]" * 3000 + "}"},
        {"config": '{"ndim":' + "9" * 5000 + "}"},
        {"config": json.dumps({**NET, "widths": [10**20]})},
        {"config": json.dumps({**NET, "widths": [1 << 40]})},
        {"config": json.dumps({**NET, "widths": [-1]})},
        {"config": json.dumps({**NET, "ndim": 7})},
        {"recipe": "not json"},
        {"format_version": "2"},
        {"format_version": '"1"'},
        {"format_version": "[]"},
        {"format_version": "null"},
    ],
    ids=lambda header: str(header)[:60],
)
def test_a_hostile_header_is_refused(tmp_path: Path, header: dict[str, str]) -> None:
    refusal(craft(tmp_path / "hostile.safetensors", "conv-dae", NET, **header))


@pytest.mark.parametrize(
    ("architecture", "settings", "config"),
    [
        ("conv-dae", NET, '"ab"'),
        ("conv-dae", NET, json.dumps({**NET, "dilation_cycle": 0})),
        ("dense-ae", DENSE, json.dumps({**DENSE, "activation": "sine"})),
        ("spectral-dae", SPECTRAL, json.dumps({**SPECTRAL, "hop": 0})),
    ],
)
def test_a_hostile_config_is_refused(tmp_path: Path, architecture: str, settings: dict[str, Any], config: str) -> None:
    refusal(craft(tmp_path / "hostile.safetensors", architecture, settings, config=config))


def test_a_hostile_config_allocates_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution of 6000 channels is refused before it is allocated."""
    allocated: list[int] = []
    init = torch.nn.Conv1d.reset_parameters

    def watch(module: torch.nn.Conv1d) -> None:
        if module.weight.device.type != "meta":
            allocated.append(module.weight.numel())
        init(module)

    path = craft(tmp_path / "hostile.safetensors", "conv-dae", NET, config=json.dumps({**NET, "widths": [6000]}))
    monkeypatch.setattr(torch.nn.Conv1d, "reset_parameters", watch)
    assert "expects (6000, 1, 3)" in refusal(path)
    assert not allocated


def rewrite(path: Path, change: Any) -> Path:
    craft(path, "conv-dae", NET)
    card = Card("crafted", "conv-dae", "audio", 1, size_multiple=2)
    header = {"format_version": "1", "card": json.dumps(asdict(card)), "config": json.dumps(NET), "recipe": "{}"}
    save_file({key: change(value) for key, value in load_file(path).items()}, path, metadata=header)
    return path


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_weights_are_refused(tmp_path: Path, value: float) -> None:
    def corrupt(tensor: torch.Tensor) -> torch.Tensor:
        corrupted = tensor.clone()
        corrupted.view(-1)[-1] = value
        return corrupted

    assert "NaN or infinite" in refusal(rewrite(tmp_path / "nan.safetensors", corrupt))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64], ids=str)
def test_weights_of_unsupported_types_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    refusal(rewrite(tmp_path / "odd.safetensors", lambda tensor: tensor.to(dtype)))


def test_a_file_above_the_size_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no space on disk
    assert "larger than" in refusal(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    refusal(folder)


def test_the_defaults_are_architectures_of_their_modality() -> None:
    for modality, name in DEFAULTS.items():
        if name in bundled():
            assert load(name)[1].modality == modality


def test_unknown_names_are_refused_with_a_list_of_names(tmp_path: Path) -> None:
    for name in ("resnet", str(tmp_path), "", "../conv-dae-audio", "conv-dae-audio.pt"):
        with pytest.raises(ConfigError, match="expected one of"):
            locate(name)


def test_unknown_kinds_and_modalities_are_refused() -> None:
    wrong: Any = "denoisers"
    with pytest.raises(ConfigError, match="kind is 'denoisers'; expected denoiser, codec, prior, classifier"):
        bundled(wrong)
    with pytest.raises(ConfigError, match="modality is 'denoisers'; expected audio, image, points"):
        bundled(modality=wrong)
