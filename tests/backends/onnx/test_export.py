"""Exported denoisers: a loop over onnxruntime alone returns what torch does, whatever lengths, rates and sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from denoise import registry
from denoise.backends.onnx import export as exporting
from denoise.backends.onnx.export import export, to_onnx
from denoise.cards import read_header
from denoise.errors import ConfigError, InputError
from denoise.registry import load

Open = Callable[[str], Any]


@pytest.fixture(scope="module")
def open_exported(exported: dict[str, Path]) -> Open:
    """``open_exported(name)`` is a session of onnxruntime with a tiny or bundled model."""
    sessions: dict[str, Any] = {}

    def open_(name: str) -> Any:
        if name not in sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            sessions[name] = onnxruntime.InferenceSession(exported[name], options)
        return sessions[name]

    return open_


def denoise_stream(session: Any, x: np.ndarray, hop: int, n_hops: list[int]) -> np.ndarray:
    """A loop as any program would write it, from the names, shapes and metadata in the file."""
    stream = json.loads(session.get_modelmeta().custom_metadata_map["stream"])
    sizes = {"batch": x.shape[0], "channels": x.shape[1], "hop": hop}
    state = {
        f"state.{name}": np.full([eval(str(size), sizes) for size in tensor["shape"]], tensor["value"], np.float32)
        for name, tensor in stream["states"].items()
    }
    names = [output.name for output in session.get_outputs()]
    blocks, start = [], 0
    for n in n_hops:
        block = x[..., start : start + n * hop]
        outputs = dict(zip(names, session.run(names, {"noisy": block, **state}), strict=True))
        blocks.append(outputs.pop("denoised"))
        state = {name.replace("next_state.", "state."): tensor for name, tensor in outputs.items()}
        start += n * hop
    return np.concatenate(blocks, axis=-1)[..., stream["delay"] * hop :]


def voice(rate: int, batch: int, channels: int, n: int) -> np.ndarray:
    """Tones that come and go, in noise."""
    time = np.arange(n) / rate
    tones = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 16)) * (3 * time % 1)
    noise = np.random.default_rng(0).normal(size=(batch, channels, n))
    return (0.1 * tones + 0.02 * noise).astype(np.float32)


@pytest.mark.parametrize(("rate", "batch", "channels"), [(48_000, 1, 1), (44_100, 2, 2), (8000, 1, 3), (96_000, 1, 2)])
@pytest.mark.parametrize("name", ["causal-audio", "floor-audio", "lookahead-audio", "speech"])
def test_a_loop_over_steps_is_the_network(
    name: str, rate: int, batch: int, channels: int, open_exported: Open, models: dict[str, Path]
) -> None:
    module, _ = load(models.get(name, name))
    hop, steps = module.hop(rate), [1, 1, 1, 7, 1, 30, 2]
    x = voice(rate, batch, channels, sum(steps) * hop)
    denoised = denoise_stream(open_exported(name), x, hop, steps)
    with torch.no_grad():
        expected = module(torch.from_numpy(x), sample_rate=rate).numpy()[..., : denoised.shape[-1]]
    assert np.abs(expected).max() > 0.01
    assert np.abs(denoised - expected).max() <= 1e-5


@pytest.mark.parametrize("name", ["keep-audio", "vary-audio", "blur-image", "sigma-image", "vary-image", "maps-image"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 16), (37, 50)])
def test_windows_of_any_size(name: str, size: tuple[int, int], open_exported: Open, models: dict[str, Path]) -> None:
    module, _ = load(models[name])
    size = size[: module.ndim]
    rng = np.random.default_rng(0)
    inputs = {"noisy": rng.random((2, module.channels, *size), np.float32)}
    if not module.blind:
        maps = () if module.sigma_maps == 1 else (module.sigma_maps, *size)
        inputs["sigma"] = 0.2 * rng.random((2, *maps), np.float32)
    (denoised,) = open_exported(name).run(None, inputs)
    with torch.no_grad():
        expected = module(*map(torch.from_numpy, inputs.values())).numpy()
    assert denoised.shape == expected.shape
    assert np.abs(denoised - expected).max() <= 1e-5


@pytest.mark.parametrize("name", ["photo", "gaussian"])
def test_bundled_denoisers_of_images(name: str, open_exported: Open) -> None:
    module, _ = load(name)
    x = torch.rand(1, 3, 50, 33, generator=torch.Generator().manual_seed(0))
    sigma = torch.full((1,), 0.1) if module.sigma_maps == 1 else torch.full((1, 6, 50, 33), 0.1)
    (denoised,) = open_exported(name).run(None, {"noisy": x.numpy(), "sigma": sigma.numpy()})
    with torch.no_grad():
        expected = module(x, sigma).numpy()
    assert np.abs(denoised - x.numpy()).max() > 0.01
    assert np.abs(denoised - expected).max() <= 1e-4


@pytest.mark.parametrize(("rate", "channels", "n"), [(48_000, 1, 96_000), (44_100, 2, 30_000), (8000, 1, 100)])
def test_the_classifier_is_that_of_torch(rate: int, channels: int, n: int, open_exported: Open) -> None:
    module, _ = load("audio-kind")
    session = open_exported("audio-kind")
    facts = json.loads(session.get_modelmeta().custom_metadata_map["classifier"])
    assert tuple(facts["class_names"]) == module.class_names
    x = voice(rate, 2, channels, n)
    length = 16 * round(facts["frame_s"] * rate / 16)
    frames = np.pad(x, ((0, 0), (0, 0), (0, max(0, length - n))))
    frames = frames[..., : frames.shape[-1] // length * length].reshape(2, channels, -1, length)
    (probabilities,) = session.run(None, {"frames": frames})
    with torch.no_grad():
        expected = module(torch.from_numpy(x), sample_rate=rate).softmax(dim=1).numpy()
    assert np.abs(probabilities - expected).max() <= 1e-4


def test_the_file_holds_the_card_and_what_a_runner_needs(open_exported: Open, models: dict[str, Path]) -> None:
    module, card = load("speech")
    session = open_exported("speech")
    metadata = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    header = read_header(registry.locate("speech"))
    assert metadata["card"] == json.loads(json.dumps(asdict(header["card"])))
    assert metadata["config"] == json.loads(json.dumps(asdict(module.config)))
    assert metadata["licence"] == card.licence
    stream = metadata["stream"]
    assert (stream["hop_s"], stream["delay"], stream["latency_s"]) == (0.016, 1, 0.032)
    assert stream["states"]["history"] == {"shape": ["batch", "channels", "hop"], "value": 0.0}
    assert stream["states"]["features.blocks.0.along.hidden"]["shape"] == [1, "48*batch", 64]
    assert {name: tensor["value"] for name, tensor in stream["states"].items() if tensor["value"]} == {
        "floor.recent": pytest.approx(1e20)
    }
    shapes = {each.name: each.shape for each in (*session.get_inputs(), *session.get_outputs())}
    assert shapes.pop("noisy") == shapes.pop("denoised") == ["batch", "channels", "time"]
    for name, tensor in stream["states"].items():
        assert shapes.pop(f"state.{name}") == shapes.pop(f"next_state.{name}") == tensor["shape"]
    assert not shapes
    facts = json.loads(open_exported("maps-image").get_modelmeta().custom_metadata_map["facts"])
    assert (facts["ndim"], facts["channels"], facts["blind"], facts["sigma_maps"]) == (2, 3, False, 6)
    assert facts["size_multiple"] == load(models["maps-image"])[0].size_multiple


def test_the_report_states_the_difference_of_the_file(models: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    report = export(models["floor-audio"], path)
    assert 0 < report.difference < 1e-5
    assert (report.name, report.output, report.bytes) == ("floor-audio", str(path), path.stat().st_size)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    with pytest.raises(InputError, match=r"tiny.onnx: exists already. Give --overwrite"):
        export(models["blur-image"], path)


@pytest.mark.parametrize("name", ["causal-audio", "blur-image"])
def test_a_graph_that_differs_is_not_written(
    name: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_other_weights(module: Any, card: Any) -> bytes:
        other, _ = load(models[name])
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.1)
        return to_onnx(other, card)

    monkeypatch.setattr(exporting, "to_onnx", export_other_weights)
    with pytest.raises(ConfigError, match=rf"{name}: onnxruntime and torch differ by .*; expected at most 0.001"):
        export(models[name], tmp_path / "tiny.onnx")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["vae-audio", "speech-flow", "flowers", "shapes"])
def test_what_cannot_be_exported_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{name} is a .* which is not exported; expected a denoiser") as caught:
        export(name, tmp_path / "other.onnx")
    assert "\n" not in str(caught.value)
    assert not [*tmp_path.iterdir()]
