"""``denoise export``."""

from __future__ import annotations

import json
from pathlib import Path

from denoise.backends.onnx.export import MAX_DIFFERENCE
from tests.cli.conftest import Command


def test_a_file_is_exported_and_errors_are_one_line(command: Command, models: dict[str, Path]) -> None:
    done = command("export", models["blur-image"], "--format", "onnx", "-o", "blur.onnx")
    assert (done.code, done.err) == (0, "")
    assert b"blur.onnx: 0.0 MiB; differs from torch by at most " in done.out
    done = command("export", models["blur-image"], "--json", "-o", "blur.onnx", "--overwrite")
    assert done.rows[0]["difference"] < MAX_DIFFERENCE
    for words, message in (
        (("blur.onnx",), "blur.onnx: exists already"),
        (("blur.pt",), "blur.pt: expected a name that ends in .onnx"),
        (("blur.onnx", "--format", "tflite"), "--format is 'tflite'; expected onnx"),
    ):
        done = command("export", models["blur-image"], "-o", *words)
        assert done.code == 2
        assert message in done.err


def test_info_shows_the_card_of_an_exported_file(command: Command, models: dict[str, Path]) -> None:
    for name in ("causal-audio", "blur-image"):
        assert command("export", models[name]).code == 0  # writes NAME.onnx
        exported, stored = (json.loads(command("info", file, "--json").out) for file in (f"{name}.onnx", models[name]))
        assert (exported["card"], exported["config"]) == (stored["card"] | exported["card"], stored["config"])
        assert exported["facts"]["ndim"] == (1 if name == "causal-audio" else 2)
        done = command("info", f"{name}.onnx")
        assert f"architecture: {exported['card']['architecture']}".encode() in done.out
    assert command("info", "causal-audio.onnx").out == command("info", models["causal-audio"]).out
    assert "missing.onnx: No such file" in command("info", "missing.onnx").err
