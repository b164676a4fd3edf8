"""Exported files in a process where torch cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from denoise.backends.onnx.export import to_onnx
from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.image import ImagePipeline
from denoise.registry import load


def run(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command where torch, in the processes that it starts, too, is a module that cannot be imported."""
    (folder / "blocked").mkdir()
    (folder / "blocked/torch.py").write_text("raise ModuleNotFoundError('blocked', name='torch')")
    path = os.pathsep.join([str(folder / "blocked"), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, "-W", "error", "-m", "denoise", *map(str, words)]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": path}
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(("words", "options"), [
    ((), {}),
    (("--noise-profile", "0.2-0.9"), {"noise_profile": (0.2, 0.9)}),
])  # fmt: skip
def test_audio(words: tuple[str, ...], options: dict[str, Any], models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(to_onnx(*load(models["floor-audio"])))
    x = 0.1 * np.random.default_rng(0).normal(size=(30_000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "in.wav", x, 22_050, "FLOAT")
    done = run(tmp_path, "audio", "in.wav", "-o", "out.wav", "--model", "tiny.onnx", *words)
    assert done.returncode == 0, done.stderr
    AudioPipeline(models["floor-audio"]).file(tmp_path / "in.wav", tmp_path / "torch.wav", **options)
    denoised, expected = (soundfile.read(tmp_path / name, dtype="float32")[0] for name in ("out.wav", "torch.wav"))
    assert np.abs(denoised - expected).max() <= 1e-5


def test_workers_of_a_batch(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(to_onnx(*load(models["floor-audio"])))
    (tmp_path / "in").mkdir()
    x = 0.1 * np.random.default_rng(0).normal(size=30_000)
    soundfile.write(tmp_path / "in/a.wav", x, 22_050, "FLOAT")
    done = run(tmp_path, "batch", "in", "out", "--audio", "--model", "tiny.onnx", "--workers", "1", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    AudioPipeline(models["floor-audio"]).file(tmp_path / "in/a.wav", tmp_path / "torch.wav")
    denoised, expected = (soundfile.read(tmp_path / name, dtype="float32")[0] for name in ("out/a.wav", "torch.wav"))
    assert np.abs(denoised - expected).max() <= 1e-5


def test_images(tmp_path: Path) -> None:
    (tmp_path / "photo.onnx").write_bytes(to_onnx(*load("photo")))
    pixels = np.random.default_rng(0).normal(120, 20, (64, 80, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    done = run(tmp_path, "image", "in.png", "-o", "out.png", "--model", "photo.onnx")
    assert done.returncode == 0, done.stderr
    ImagePipeline("photo", precision="float32").file(tmp_path / "in.png", tmp_path / "torch.png")
    denoised, expected = (np.asarray(Image.open(tmp_path / name), int) for name in ("out.png", "torch.png"))
    assert np.abs(denoised - expected).max() <= 1


@pytest.mark.parametrize("words", [("--backend", "onnx"), ("--backend", "onnx", "--model", "speech-best")])
def test_what_has_not_been_exported_is_refused_in_one_line(words: tuple[str, ...], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", np.full(1000, 0.1), 16_000)
    done = run(tmp_path, "audio", "in.wav", *words)
    assert done.returncode == 2
    name = words[-1] if "--model" in words else "speech"
    assert done.stderr.startswith(f"denoise: {name}: is not in {tmp_path / 'cache/denoise/onnx'}, and its export needs")
    assert done.stderr.count("\n") == 1
