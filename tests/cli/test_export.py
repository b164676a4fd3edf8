"""``denoise export``."""

from __future__ import annotations

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
