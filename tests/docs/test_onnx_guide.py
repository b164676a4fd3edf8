"""The loop in the guide to ONNX is the network."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from denoise.backends.onnx.export import to_onnx
from denoise.pipelines.audio import AudioPipeline
from denoise.registry import load

GUIDE = Path(__file__).parents[2] / "docs/how-to/onnx.md"
MAX_DIFFERENCE = 1.1 / 32_768  # floats are cut to 16 bits


def test_the_loop_of_the_guide(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("speech.onnx").write_bytes(to_onnx(*load(models["lookahead-audio"])))
    soundfile.write("talk.wav", 0.1 * np.random.default_rng(0).normal(size=(9999, 2)), 22_050)
    (loop,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(loop, str(GUIDE), "exec"), {})
    pipeline = AudioPipeline(models["lookahead-audio"], backend="torch")
    noisy, _ = soundfile.read("talk.wav", dtype="float32")
    expected = np.concatenate([*pipeline.stream([noisy.T], 22_050)], axis=1)
    assert np.abs(expected).max() > 0.01
    denoised, _ = soundfile.read("clean.wav", dtype="float32")
    assert np.abs(denoised.T - expected).max() <= MAX_DIFFERENCE
