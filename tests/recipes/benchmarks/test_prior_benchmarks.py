"""The benchmarks of priors: what they measure, on functions whose figures are known."""

from __future__ import annotations

import importlib
from itertools import count
from pathlib import Path
from typing import Any

import autoregressive
import common
import generative
import inverses
import numpy as np
import points
import pytest
import torch

from denoise.priors.pixelcnn import PixelCNN, PixelCNNConfig
from denoise.registry import build

SCRIPTS = sorted(path.stem for path in Path(points.__file__).parent.glob("*.py"))
NET = {"kind": "mlp", "widths": [8], "blocks": 1, "embedding": 8}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_importable(name: str) -> None:
    assert importlib.import_module(name).__doc__


class KnownPipeline:
    """Denoises by a known function; the noise that it is told, or estimates, is recorded in units of the cloud."""

    def __init__(self, fraction_left: float, clean: Any) -> None:
        self.fraction_left, self.clean, self.sigmas = fraction_left, clean, []

    def denoise(self, noisy: Any, sigma: float | None = None) -> tuple[Any, float]:
        sigma = 0.03 if sigma is None else sigma
        self.sigmas.append(sigma * float(np.linalg.norm(np.ptp(noisy, axis=0))))
        return self.clean + self.fraction_left * (noisy - self.clean), sigma


@pytest.mark.parametrize(("fraction_left", "ratio"), [(1.0, 1.0), (0.0, 0.0)])
def test_distances_of_point_clouds(fraction_left: float, ratio: float) -> None:
    from denoise.training.shapes import sample_shape

    clean = sample_shape("torus", 100, torch.Generator().manual_seed(0)).double()
    pipeline: Any = KnownPipeline(fraction_left, clean.numpy())
    row, clouds = points.measure_shape(pipeline, "torus", 0.02, 1, 100)
    for column in ("squared", "squared, blind", "plain", "plain, blind"):
        assert row[column] == pytest.approx(ratio, abs=1e-9)
    diagonal = points.diagonal(clean)
    assert pipeline.sigmas[0] == pytest.approx(0.02 * diagonal)  # noise in units of the clean cloud
    assert row["estimate, %"] == pytest.approx(100 * pipeline.sigmas[1] / diagonal)
    assert float((clouds[1] - clouds[0]).std()) == pytest.approx(0.02 * diagonal, rel=0.1)


def test_the_plain_distance_is_that_of_a_loop() -> None:
    a, b = torch.randn(2, 3, 5), torch.randn(2, 3, 7)
    for i, value in enumerate(points.plain_distance(a, b).tolist()):
        distances = [[float((p - q).norm()) for q in b[i].T] for p in a[i].T]
        expected = np.mean([min(row) for row in distances]) + np.mean([min(c) for c in zip(*distances, strict=True)])
        assert value == pytest.approx(expected, rel=1e-5)


def test_seconds_of_the_naive_loop_are_those_of_all_entries() -> None:
    prior = PixelCNN(PixelCNNConfig((1, 6, 7), "bernoulli", features=4, dilations=(1,))).requires_grad_(False)
    ticks = count()
    row = autoregressive.time_scans(prior, 2, lambda: next(ticks))  # each measurement takes one tick
    assert row == {"cached, s": 1, "naive, s": 42 / 4, "ratio": 42 / 4}


def test_the_shortest_time_is_that_of_the_fastest_call() -> None:
    durations = iter([9.0, 0.05, 0.02, 0.04, 0.03, 0.07, 1.0])
    now = 0.0

    def work() -> None:
        nonlocal now
        now += next(durations)

    assert common.shortest_time(work, lambda: now) == pytest.approx(0.02)
    assert next(durations) == 1.0  # five calls of 0.2 s in total are timed, after the first one


def test_calls_are_those_of_the_network_of_the_prior() -> None:
    codec = {"architecture": "vae", "shape": [1, 8, 8], "latent": 3, "body": {"kind": "dense", "widths": [64]}}
    diffusion = {"architecture": "diffusion", "shape": [3], "net": NET}
    latent: Any = build("latent-prior", {"codec": codec, "prior": diffusion})
    nfe = 0

    def count_evaluations(*_: Any) -> None:
        nonlocal nfe
        nfe += 1

    latent.prior.net.register_forward_pre_hook(count_evaluations)
    assert generative.count_calls(latent, lambda: latent.sample(2)) == nfe > 5
    pixels = PixelCNN(PixelCNNConfig((1, 6, 7), "bernoulli", features=4, dilations=(1,)))
    assert generative.count_calls(pixels, lambda: None) == 42
    network = {"architecture": "pixelcnn", "shape": [1, 6, 7], "features": 4, "dilations": [1]}
    assert generative.count_calls(build("autoregressive-flow", {"network": network}), lambda: None) == 42


def test_archives_are_split_and_scaled_as_in_the_recipes(tmp_path: Path) -> None:
    images, labels = np.arange(25 * 4, dtype=np.uint8).reshape(25, 2, 2), np.arange(25)
    np.savez(tmp_path / "a.npz", images=images, labels=labels, names=np.array(["x"]))
    arrays = generative.read_archive(tmp_path / "a.npz", binary=False)
    assert arrays["test_labels"].tolist() == [0, 10, 20]
    assert arrays["train"].shape == (22, 1, 2, 2)
    np.testing.assert_allclose(arrays["test"][1, 0], images[10] / 255, rtol=1e-6)
    colours = np.full((20, 3, 2, 3), 255, np.uint8)
    np.savez(tmp_path / "b.npz", images=colours, labels=labels[:20])
    binary = generative.read_archive(tmp_path / "b.npz", binary=True)
    assert binary["train"].shape == (18, 3, 3, 2)
    assert (binary["train"] == 1).all()
    sounds = np.array([[16384, -32768]], np.int16)
    np.savez(tmp_path / "c.npz", train_signals=sounds, test_signals=sounds, train_labels=[0], test_labels=[0])
    assert generative.read_archive(tmp_path / "c.npz", binary=False)["test"].tolist() == [[[0.5, -1.0]]]


class InexactFlow:
    """A flow whose inverse is off by a known error at one entry."""

    def encode_noise(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    def decode_noise(self, noise: torch.Tensor) -> torch.Tensor:
        x = noise / 2
        x[-1, 0, 1] += 0.25
        return x


def test_the_error_of_an_inverse_is_the_largest_one() -> None:
    row = inverses.measure(InexactFlow(), torch.zeros(3, 1, 2))
    assert (row["entries"], row["max error"]) == (2, "2.5e-01")
