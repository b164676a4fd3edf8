"""``denoise points``, and the commands of priors with point clouds, on small random priors."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from denoise.cards import Card
from denoise.files.image import read_image
from denoise.files.points import read_points, write_points
from denoise.registry import build
from denoise.weights import save_weights
from tests.cli.conftest import Command

NET = {"kind": "set", "widths": [16], "blocks": 1, "embedding": 8, "inducing": 4}


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    module = build("diffusion", {"shape": [3, 32], "sigma_data": 0.25, "classes": 2, "net": NET})
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    path = tmp_path / "tiny.safetensors"
    card = Card("tiny", "diffusion", "points", 3, kind="prior", shape=(3, 32), classes=("torus", "box"))
    save_weights(path, module, card, {}, torch.float32)
    return path


def coloured(path: Path, n: int = 50) -> bytes:
    """Write a PLY of big-endian byte order with colours and a face, and return its bytes."""
    text = f"ply\nformat binary_big_endian 1.0\nelement vertex {n}\n"
    text += "".join(f"property float {axis}\n" for axis in "xyz") + "property uchar red\n"
    text += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    points = np.random.default_rng(0).normal(size=(n, 3))
    body = b"".join(struct.pack(">3fB", *p, i) for i, p in enumerate(points)) + struct.pack(">B3i", 3, 0, 1, 2)
    path.write_bytes(text.encode() + body)
    return text.encode() + body


def test_a_file_keeps_everything_but_its_coordinates(command: Command, prior: Path, tmp_path: Path) -> None:
    data = coloured(tmp_path / "in.ply")
    done = command("points", "in.ply", "--model", prior, "--sigma", 0.02, "--json")
    assert (done.code, done.err) == (0, "")
    assert done.rows[0]["noise_before_sigma_percent"] == 2.0
    assert done.rows[0]["points_per_s"] > 0
    written = (tmp_path / "in.denoised.ply").read_bytes()
    moved = read_points(tmp_path / "in.denoised.ply").points
    assert not np.allclose(moved, read_points(tmp_path / "in.ply").points, atol=1e-3)
    start = data.index(b"end_header\n") + 11
    assert written[:start] == data[:start]
    for row in range(50):
        assert written[start + 13 * row + 12] == data[start + 13 * row + 12]
    assert written[start + 13 * 50 :] == data[start + 13 * 50 :]
    piped = command("points", "-", "-o", "-", "--model", prior, "--sigma", 0.02, stdin=data)
    assert piped.out == written
    assert "points/s" in command("points", "in.ply", "-o", "b.ply", "--model", prior).out.decode()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["in.ply", "--sigma", "much"], "expected auto or a fraction"),
        (["in.ply", "--sigma", "3"], "sigma is 3; expected 0 to 0.25"),
        (["in.ply", "-o", "out.xyz"], "in.ply is PLY; expected a name that ends in .ply"),
        (["none.ply"], "none.ply: No such file"),
        (["one.xyz"], "one.xyz: 1 point; expected at least 16"),
        (["in.ply", "--model", "mnist-flow"], "expected a prior for points"),
    ],
)
def test_invalid_calls_are_one_line(
    command: Command, prior: Path, tmp_path: Path, words: list[str], reason: str
) -> None:
    coloured(tmp_path / "in.ply")
    (tmp_path / "one.xyz").write_text("1 2 3\n")
    done = command("points", *([] if "--model" in words else ["--model", prior]), *words)
    assert done.code in (1, 2)
    assert reason in done.err
    assert done.err.count("\n") == 1


def test_priors_of_points_sample_interpolate_complete_and_score(command: Command, prior: Path, tmp_path: Path) -> None:
    words = ["sample", prior, "-n", 1, "--class", "box", "--steps", 3]
    assert command(*words, "-o", "shape.ply").code == 0
    assert command(*words, "-o", "shape.xyz").code == 0
    a, b = (read_points(tmp_path / name).points for name in ("shape.ply", "shape.xyz"))
    assert a.shape == (32, 3)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert command("sample", prior, "-n", 4, "--steps", 2, "-o", "shapes.ply").code == 0
    assert read_points(tmp_path / "shapes.ply").points.shape == (128, 3)
    assert command("sample", prior, "-n", 4, "--steps", 2, "-o", "shapes.png").code == 0
    assert read_image(tmp_path / "shapes.png").pixels.shape == (386, 386, 1)
    assert "its classes are torus, box" in command("sample", prior, "--class", "cone", "-o", "c.ply").err
    write_points(tmp_path / "a.ply", np.random.default_rng(0).normal(size=(40, 3)))
    ends = ["a.ply", 2, "--prior", prior, "-n", 3, "--steps", 2]
    assert command("interpolate", *ends, "-o", "path.gif").code == 0
    assert command("complete", "a.ply", "--mask", "half", "--prior", prior, "-n", 2, "--steps", 2, "-o", "f").code == 0
    upper = read_points(tmp_path / "f/0.ply").points
    np.testing.assert_allclose(upper[:16], read_points(tmp_path / "f/1.ply").points[:16], atol=1e-6)
    assert upper[:16, 2].min() >= upper[16:, 2].min()
    (row,) = command("score", "a.ply", "--prior", prior, "--json").rows
    assert np.isfinite(row["nats"])
    assert "has no codec" in command("embed", tmp_path, "--codec", prior, "-o", "m.png").err
    assert "expected half" in command("complete", "a.ply", "--mask", "m.png", "--prior", prior, "-o", "x.ply").err
