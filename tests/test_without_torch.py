"""Files, frames, pipelines, streams and commands in a process where torch cannot be imported, with stub networks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image as Pillow

from denoise.cli import COMMANDS
from denoise.protocols import StreamingNetwork
from denoise.registry import load

STUBS = '''
import sys

sys.modules["torch"] = None  # importing it raises ImportError

import numpy as np

from denoise import backends
from denoise.cards import read_header
from denoise.protocols import NetworkFacts
from denoise.registry import locate


class Half:
    """Halves windows or tiles."""

    device, precision = "cpu", "float32"

    def __init__(self, facts):
        self.facts = facts

    def denoise(self, x, sigma=None):
        assert x.dtype == np.float32
        assert self.facts.blind == (sigma is None)
        return x / 2


class HalfStream(Half):
    """Halves streams, a hop late; the state counts the samples."""

    delay = 1

    def hop(self, sample_rate):
        return sample_rate // 100

    def initial_state(self, batch, channels, sample_rate, noise_profile=None):
        return np.zeros((batch, channels, self.hop(sample_rate)), np.float32)

    def step(self, x, state):
        assert x.dtype == np.float32
        late = np.concatenate([state, x / 2], axis=2)
        n = x.shape[2]
        return late[..., :n], late[..., n:]

    def measure_noise(self, noise, *, sample_rate):
        return np.square(noise).mean(axis=(1, 2))[:, None]

    lookahead_hops = 8

    def renew(self, state, recent):
        return state

    def update_noise_floor(self, x, state):
        return x[..., -self.hop(16_000):]

    def apply_lookahead(self, state, ahead):
        return state


class Speech:
    class_names = ("speech", "music")

    def probabilities(self, x, *, sample_rate):
        return np.array([[0.9, 0.1]], np.float32)


def load_network(model, *, modality, device="auto", precision="float32", backend="auto"):
    card = read_header(locate(model, "denoiser", modality))["card"]
    if modality == "image":
        maps = 6 if card.name == "photo" else 1
        return Half(NetworkFacts(2, 3, blind=False, sigma_maps=maps, size_multiple=4, context=20)), card
    facts = NetworkFacts(1, card.channels, size_multiple=4, context=100)
    return (Half if card.name.startswith("keep") else HalfStream)(facts), card


backends.load_network, backends.load_classifier = load_network, lambda name, backend: Speech()
'''
CLI = STUBS + "from denoise.cli import main\nmain()\n"


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


def denoise(*arguments: str | Path) -> str:
    result = run(CLI, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def tone(rate: int, seconds: float = 1.5) -> NDArray[np.float32]:
    """Two channels of a tone and hiss, (time, 2)."""
    t = np.arange(round(seconds * rate)) / rate
    hiss = 0.01 * np.random.default_rng(0).standard_normal((len(t), 2))
    return (0.5 * np.sin(2 * np.pi * 440 * t)[:, None] * [1, 0.5] + hiss).astype(np.float32)


class TestAudio:
    @pytest.mark.parametrize("options", [(), ("--noise-profile", "0-0.5"), ("--channels", "separate")])
    def test_files_of_streaming_networks(self, options: tuple[str, ...], tmp_path: Path) -> None:
        x = tone(44_100)
        soundfile.write(tmp_path / "a.wav", x, 44_100, "FLOAT")
        row = json.loads(denoise("audio", tmp_path / "a.wav", "-o", tmp_path / "b.wav", "--json", *options))
        assert row["model"] == ("general" if "--noise-profile" in options else "speech")
        np.testing.assert_allclose(soundfile.read(tmp_path / "b.wav")[0], x / 2, atol=1e-6)

    def test_files_of_networks_of_one_rate(self, models: dict[str, Path], tmp_path: Path) -> None:
        x = tone(48_000)
        soundfile.write(tmp_path / "a.flac", x, 48_000, "PCM_24")
        options = ("--model", models["keep-audio"], "--block", "0.3")
        denoise("audio", tmp_path / "a.flac", "-o", tmp_path / "b.flac", *options)
        np.testing.assert_allclose(soundfile.read(tmp_path / "b.flac")[0], x / 2, atol=2e-3)

    def test_streams_and_arrays(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", tone(16_000).T)
        program = STUBS + (
            "import denoise\n"
            "x = np.load(sys.argv[1])\n"
            "stream = denoise.AudioStream(sample_rate=16_000, channels=2)\n"
            "blocks = [stream.push(x[:, i : i + 333]) for i in range(0, x.shape[1], 333)] + [stream.flush()]\n"
            "np.testing.assert_allclose(np.concatenate(blocks, axis=1), x / 2, atol=1e-6)\n"
            "np.testing.assert_allclose(denoise.denoise_audio(x, 16_000), x / 2, atol=1e-6)\n"
        )
        result = run(program, tmp_path / "a.npy")
        assert result.returncode == 0, result.stderr


class TestImages:
    @pytest.mark.parametrize(("mode", "sigma"), [("L", "25"), ("RGB", "auto"), ("RGBA", "auto"), ("CMYK", "25")])
    def test_files(self, mode: str, sigma: str, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(120, 25, (70, 90, len(mode.replace("L", "1")))).clip(0, 255).astype(np.uint8)
        suffix = "tif" if mode == "CMYK" else "png"
        Pillow.fromarray(x.squeeze(), mode).save(tmp_path / f"a.{suffix}")
        denoise("image", tmp_path / f"a.{suffix}", "-o", tmp_path / f"b.{suffix}", "--sigma", sigma)
        y: Any = np.asarray(Pillow.open(tmp_path / f"b.{suffix}")).reshape(x.shape)
        n = 3 if mode == "RGBA" else x.shape[2]
        np.testing.assert_allclose(y[..., :n], x[..., :n] / 2, atol=0.51)
        np.testing.assert_array_equal(y[..., n:], x[..., n:])

    def test_arrays(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.random.default_rng(0).random((40, 50, 3), np.float32))
        program = STUBS + (
            "import denoise\n"
            "x = np.load(sys.argv[1])\n"
            "np.testing.assert_allclose(denoise.denoise_image(x, 0.1), x / 2, atol=1e-6)\n"
            "denoise.denoise_image(x)  # with an estimate of the noise\n"
        )
        result = run(program, tmp_path / "a.npy")
        assert result.returncode == 0, result.stderr


class TestCommands:
    def test_help_of_all(self) -> None:
        program = STUBS + (
            "from denoise.cli import COMMANDS, app\n"
            "for words in ([], *([name] for name in COMMANDS)):\n"
            "    app([*words, '--help'], prog_name='denoise', standalone_mode=False)\n"
        )
        result = run(program)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("Usage: denoise") == 1 + len(COMMANDS)

    def test_info(self) -> None:
        assert "name: photo" in denoise("info", "photo")

    @pytest.mark.parametrize("name", ["speech", "speech-flow", "lookahead-audio", "floor-audio", "vae-audio"])
    def test_latency_is_that_of_the_network(self, name: str, models: dict[str, Path]) -> None:
        model = models.get(name, name)
        network, _ = load(model)
        expected = round(1000 * network.latency_s, 1) if isinstance(network, StreamingNetwork) else None
        assert (expected is None) == (name == "vae-audio")
        assert json.loads(denoise("info", model, "--json"))["card"]["latency_ms"] == expected

    def test_models(self) -> None:
        assert "speech (default)" in denoise("models")

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (("audio", "none.wav"), 1, "none.wav: cannot be opened"),
            (("image", "none.png"), 1, "none.png: no such file"),
            (("audio", "none.wav", "--model", "none"), 2, "denoiser 'none' is unknown"),
        ],
    )
    def test_errors(self, arguments: tuple[str, ...], code: int, message: str) -> None:
        result = run(CLI, *arguments)
        assert (result.returncode, result.stdout) == (code, "")
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
