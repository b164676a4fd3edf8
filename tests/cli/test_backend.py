"""``--backend``: exported files, the cache of exported models, and what only torch can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from denoise import backends
from denoise.backends import torch as torch_backend
from denoise.pipelines.audio import AudioPipeline
from tests.backends.onnx.test_audio import recording
from tests.cli.conftest import Command


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "denoise" / "onnx"


def test_the_command_takes_a_file_or_exports_into_the_cache_once(
    command: Command, models: dict[str, Path], exported: dict[str, Path], cache: Path
) -> None:
    soundfile.write("in.wav", recording(22_050, 2).T, 22_050, subtype="FLOAT")
    for words in (
        ("--model", models["floor-audio"]),
        ("--model", exported["floor-audio"]),
        ("--model", models["floor-audio"], "--backend", "onnx"),
    ):
        done = command("audio", "in.wav", "--overwrite", "-o", f"{len(words)}.wav", *words)
        assert (done.code, done.err) == (0, "")
        assert len([*cache.glob("*")]) == len(words) // 4
    expected, denoised = (soundfile.read(f"{n}.wav")[0] for n in (2, 4))
    assert np.abs(denoised - expected).max() <= 1e-5
    (model,) = cache.glob("floor-audio-*.onnx")
    written = model.stat().st_mtime_ns
    AudioPipeline(models["floor-audio"], backend="onnx")
    assert model.stat().st_mtime_ns == written
    AudioPipeline(models["causal-audio"], backend="onnx")  # other weights
    assert len([*cache.glob("*")]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backend", "onnx", "--perception", 0.5), "--perception needs --backend torch; leave it out"),
        (("--backend", "onnx", "--samples", 2), "--samples needs --backend torch; leave it out"),
        (("--backend", "onnx", "--task", "declip"), "--backend is not for --task declip"),
        (("--backend", "onnx", "--model", "speech-flow"), "speech-flow is a denoiser of architecture speech-flow"),
        (("--backend", "onnx", "--device", "cuda"), "device is 'cuda'; backend onnx runs on the cpu"),
        (("--backend", "tflite"), "backend is 'tflite'; expected auto, torch, onnx"),
        (("--model", "missing.onnx"), "missing.onnx: No such file or directory"),
        (("--model", "in.onnx"), "in.onnx: not an ONNX model, or damaged"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_line(
    words: tuple[Any, ...], message: str, command: Command, cache: Path
) -> None:
    soundfile.write("in.wav", recording(16_000, 1).T, 16_000)
    Path("in.onnx").write_bytes(b"no model" * 100)
    done = command("audio", "in.wav", *words)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not Path("in.denoised.wav").exists()


def test_exported_models_are_the_default_for_audio_unless_torch_is_needed(
    command: Command, models: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write("in.wav", recording(16_000, 1).T, 16_000)
    line = ("audio", "in.wav", "--overwrite", "--model", models["floor-audio"], "--device", "cpu")
    loads = []
    load_with_torch = torch_backend.load_network
    monkeypatch.setattr(torch_backend, "load_network", lambda *a, **k: loads.append(a) or load_with_torch(*a, **k))
    for words, n_loads in (
        ((), 1),  # not exported yet
        (("--backend", "onnx"), 1),
        ((), 1),
        (("--backend", "torch"), 2),
        (("--noise-profile", "0-1"), 2),
    ):
        done = command(*line, *words)
        assert (done.code, done.err) == (0, "")
        assert len(loads) == n_loads
    with monkeypatch.context() as patch:
        patch.setattr("denoise.backends.find_spec", lambda name: None)  # onnxruntime is not installed
        assert command(*line).code == 0
    assert len(loads) == 3


def test_images_take_a_file_or_the_cache(command: Command, models: dict[str, Path], cache: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save("in.png")
    done = command("export", models["blur-image"])
    assert done.code == 0
    for out, words in (
        ("torch.png", (models["blur-image"],)),
        ("file.png", ("blur-image.onnx",)),
        ("cache.png", (models["blur-image"], "--backend", "onnx")),
    ):
        done = command("image", "in.png", "-o", out, "--json", "--model", *words)
        assert (done.code, done.err) == (0, "")
    assert {path.name.rsplit("-", 2)[0] for path in cache.glob("*")} == {"blur-image", "photo"}  # estimates the noise
    denoised = {name: np.asarray(Image.open(name), int) for name in ("torch.png", "file.png", "cache.png")}
    assert (denoised["torch.png"] != pixels).any()
    assert np.abs(denoised["torch.png"] - denoised["file.png"]).max() <= 1
    np.testing.assert_array_equal(denoised["file.png"], denoised["cache.png"])
    for words, message in (
        (("--perception", 0.5), "--perception needs --backend torch; leave it out"),
        (("--samples", 2), "--samples needs --backend torch; leave it out"),
        (("--task", "dejpeg"), "--backend is not for --task dejpeg; leave it out"),
        (("--prior", "patch-flow"), "--backend is not for --prior; leave it out"),
    ):
        done = command("image", "in.png", "--backend", "onnx", *words)
        assert (done.code, done.err) == (2, f"denoise: {message}.\n")


def test_a_damaged_export_is_made_again(command: Command, models: dict[str, Path], cache: Path) -> None:
    soundfile.write("in.wav", recording(16_000, 1).T, 16_000)
    line = ("audio", "in.wav", "--overwrite", "--model", models["floor-audio"], "--backend", "onnx")
    assert command(*line).code == 0
    (model,) = cache.glob("*.onnx")
    whole = model.read_bytes()
    model.write_bytes(whole[:5000])
    done = command(*line)
    assert (done.code, done.err) == (0, "")
    assert len(model.read_bytes()) == len(whole)


def test_without_a_home_nothing_is_kept(
    command: Command, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    soundfile.write("in.wav", recording(16_000, 1).T, 16_000)
    for words in ((), ("--backend", "onnx")):
        done = command("audio", "in.wav", "--overwrite", "--model", models["floor-audio"], *words)
        assert (done.code, done.err) == (0, "")


def test_exported_models_are_no_weights(command: Command, exported: dict[str, Path]) -> None:
    file = exported["floor-audio"]
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save("in.png")
    soundfile.write("in.wav", recording(16_000, 1).T, 16_000)
    for words, message in (
        (("image", "in.png", "--prior", file), "is an exported model, which torch does not run; use backend onnx"),
        (("audio", "in.wav", "--prior", file), "is an exported model; expected weights"),
        (("export", file, "-o", "again.onnx"), "is an exported model; expected weights"),
    ):
        done = command(*words)
        assert done.code in (1, 2)
        assert message in done.err
        assert done.err.count("\n") == 1


def test_a_gpu_keeps_torch(
    models: dict[str, Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AudioPipeline(models["floor-audio"], backend="onnx")
    driver = tmp_path / "driver"
    monkeypatch.setattr(backends, "GPU_DRIVERS", (str(driver),))
    assert backends.prefer_exported([models["floor-audio"]], "cpu") == "onnx"
    driver.touch()
    assert backends.prefer_exported([models["floor-audio"]], "auto") == "auto"
    assert backends.prefer_exported([models["floor-audio"]], "cpu") == "onnx"
