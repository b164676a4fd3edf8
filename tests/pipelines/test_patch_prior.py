"""A prior of patches in the pipelines of images: any size, every task, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from denoise.cards import Card
from denoise.errors import ConfigError
from denoise.files.image import read_image, write_image
from denoise.options import DenoiseOptions, RestoreOptions
from denoise.pipelines.image import ImagePipeline
from denoise.pipelines.restore import RestorePipeline
from denoise.priors.patch_flow import PatchFlow, PatchFlowConfig
from denoise.signals import Image, ImageFormat
from denoise.weights import save_weights

SIGMA = 25 / 255


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A normal distribution of patches of 6 x 6 pixels, with the spectrum of photographs."""
    prior = PatchFlow(PatchFlowConfig(6, 3, 0))
    card = Card("patches", "patch-flow", "image", 3, kind="prior", shape=(3, 6, 6), sigma=(0.01, 0.4))
    path = tmp_path_factory.mktemp("weights") / "patches.safetensors"
    save_weights(path, prior, card, {}, torch.float32)
    return path


def scene(height: int, width: int) -> NDArray[np.float32]:
    y, x = np.mgrid[:height, :width] / 48
    shades = np.stack([0.3 + 0.2 * x, 0.5 + 0.2 * np.sin(5 * y), 0.6 - 0.1 * x * y], axis=-1)
    shades[(x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06] = (0.8, 0.7, 0.3)
    return shades.astype(np.float32)


def noisy(clean: NDArray[np.float32], sigma: float = SIGMA) -> NDArray[np.float32]:
    return clean + np.random.default_rng(0).normal(0, sigma, clean.shape).astype(np.float32)


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(-10 * np.log10(np.square(a - b).mean()))


@pytest.mark.parametrize(("height", "width", "channels"), [(33, 41, 3), (30, 7, 1), (1, 1, 3)])
def test_images_of_any_size_are_denoised(weights: Path, height: int, width: int, channels: int) -> None:
    clean = scene(height, width)[..., :channels]
    y = noisy(clean)
    denoised = ImagePipeline(weights).frame(Image(y), sigma=SIGMA).pixels
    assert denoised.shape == y.shape
    if y.size > 100:
        assert psnr(denoised, clean) > psnr(y, clean) + 4


def test_tiles_leave_no_seam(weights: Path) -> None:
    # the context and the fade need tiles of 184 pixels: three of them, and one
    y, pipelines = Image(noisy(scene(40, 300))), [ImagePipeline(weights, tile=tile) for tile in (512, 64)]
    assert pipelines[1].grid.window < 200 < 300 < pipelines[0].grid.window
    whole, tiled = (pipeline.frame(y, sigma=SIGMA).pixels for pipeline in pipelines)
    assert np.abs(whole - tiled).max() < 0.5 / 255


def test_every_task_restores(weights: Path, tmp_path: Path) -> None:
    pipeline, clean = RestorePipeline(weights), scene(48, 48)
    hole = np.zeros((48, 48), np.uint8)
    hole[10:13, 4:40] = hole[5:40, 30:32] = 255
    write_image(tmp_path / "mask.png", [Image(hole[..., None])], ImageFormat("PNG"))
    large = scene(64, 64)
    blurred = np.stack([gaussian_filter(large[..., i], 1.5) for i in range(3)], axis=-1)[8:-8, 8:-8]
    small = clean.reshape(24, 2, 24, 2, 3).mean(axis=(1, 3))
    damaged = np.where(hole[..., None] > 0, clean[hole == 0].mean(axis=0), clean).astype(np.float32)
    cases: list[tuple[Any, Any, Any, dict[str, Any]]] = [
        (damaged, damaged, clean, {"task": "inpaint", "mask": tmp_path / "mask.png"}),
        (blurred, blurred, large[8:-8, 8:-8], {"task": "deblur", "blur": 1.5, "sigma": 1 / 255}),
        (small, small.repeat(2, 0).repeat(2, 1), clean, {"task": "upscale", "factor": 2, "sigma": 0.0}),
    ]
    for measured, baseline, expected, settings in cases:
        options = RestoreOptions(**settings)
        fractions: list[float] = []
        restored = pipeline.frame(Image(measured), options, fractions.append).pixels
        if settings["task"] == "upscale":  # a normal distribution makes no edge sharper
            means = restored.reshape(24, 2, 24, 2, 3).mean(axis=(1, 3))
            assert np.abs(means - measured).mean() < 1.5 / 255
        else:
            assert psnr(restored, expected) > psnr(baseline, expected) + 0.5, settings
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1
        assert np.array_equal(pipeline.frame(Image(measured), options).pixels, restored)


def test_what_it_cannot_do_is_refused(weights: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", [Image(np.zeros((9, 9, 3), np.uint8))], ImageFormat("PNG"))
    samples = RestoreOptions(task="upscale", factor=2, samples=2)
    with pytest.raises(ConfigError, match="prior patches is of patches: it restores the most probable image"):
        RestorePipeline(weights).file(tmp_path / "a.png", tmp_path / "b.png", samples)
    with pytest.raises(ConfigError, match="model patches has one output and no posterior samples; use gaussian"):
        ImagePipeline(weights).check(DenoiseOptions(steps=5, perception=1.0, sigma=SIGMA))
    with pytest.raises(ConfigError, match=r"sigma is 0\.5; expected 0 to 0\.4"):
        ImagePipeline(weights).frame(Image(scene(9, 9)), sigma=0.5)
    assert not (tmp_path / "b.png").exists()
    assert read_image(tmp_path / "a.png").pixels.shape == (9, 9, 3)
