"""Images through pipelines: onnxruntime against torch, and what only torch can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from denoise.errors import ConfigError
from denoise.options import DenoiseOptions
from denoise.pipelines.image import ImagePipeline
from denoise.pipelines.noise_estimate import load_noise_network
from denoise.signals import Image

MAX_DIFFERENCE = 1e-4  # a tenth of what the exporter allows
NAMES = ["photo", "gaussian", "vae-image", "blur-image", "sigma-image", "maps-image", "grey-image"]


def scene(height: int, width: int, channels: int) -> NDArray[np.float32]:
    """Smooth and textured areas with noise of standard deviation 0.08."""
    rows, columns = np.indices((height, width)) / 32
    luma = 0.5 + 0.2 * np.sin(columns**2 / 2) * np.cos(rows) + 0.2 * ((rows + 2 * columns) % 5 < 1)
    clean = luma[..., None] * np.array([1.0, 0.8, 0.6])[:channels]
    return (clean + np.random.default_rng(0).normal(0, 0.08, clean.shape)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("size", "channels", "tile", "options"),
    [((97, 130), 3, None, {}), ((150, 90), 3, 100, {"strength": 0.7, "colour": 0.5}), ((40, 33), 1, None, {})],
)
def test_pipelines_agree_with_torch(
    name: str,
    size: tuple[int, int],
    channels: int,
    tile: int | None,
    options: dict[str, Any],
    exported: dict[str, Path],
    models: dict[str, Path],
) -> None:
    image = Image(scene(*size, channels))
    torch_pipeline = ImagePipeline(models.get(name, name), tile=tile, precision="float32", backend="torch")
    if not torch_pipeline.card.blind:
        options = {"sigma": 0.08} | options
    denoised = ImagePipeline(exported[name], tile=tile).frame(image, **options).pixels
    expected = torch_pipeline.frame(image, **options).pixels
    assert np.abs(expected - image.pixels).max() > 0.01
    assert np.abs(denoised - expected).max() <= MAX_DIFFERENCE


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_the_noise_is_estimated_as_with_torch(dtype: Any, exported: dict[str, Path]) -> None:
    image = Image(scene(200, 260, 3))
    image = image if dtype == np.float32 else Image((255 * image.pixels.clip(0, 1)).round().astype(np.uint8))
    pipelines = ImagePipeline(exported["photo"]), ImagePipeline("photo", precision="float32", backend="torch")
    load_noise_network.cache_clear()
    profiles = [pipeline.estimate_noise(image) for pipeline in pipelines]
    assert profiles[0][0].mean_sigma == pytest.approx(profiles[1][0].mean_sigma, abs=1e-4)
    denoised, expected = (pipeline.frame(image).pixels.astype(float) for pipeline in pipelines)
    assert np.abs(denoised - expected).max() <= (1e-3 if dtype == np.float32 else 1)  # 1 of 255 by rounding


def test_a_file_is_denoised_and_the_report_states_the_precision(exported: dict[str, Path], tmp_path: Path) -> None:
    from PIL import Image as PillowImage

    pixels = (255 * scene(64, 80, 3).clip(0, 1)).round().astype(np.uint8)
    PillowImage.fromarray(pixels).save(tmp_path / "in.png")
    result = ImagePipeline(exported["photo"]).file(tmp_path / "in.png", tmp_path / "out.png")
    ImagePipeline("photo", precision="float32").file(tmp_path / "in.png", tmp_path / "torch.png")
    assert result.precision == "float32"
    denoised, expected = (np.asarray(PillowImage.open(tmp_path / name), int) for name in ("out.png", "torch.png"))
    assert np.abs(denoised - expected).max() <= 1
    assert np.mean(denoised != expected) < 0.01


def test_what_it_cannot_do_is_refused(exported: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"keep-audio.onnx is a denoiser for audio; expected a denoiser for image"):
        ImagePipeline(exported["keep-audio"])
    with pytest.raises(ConfigError, match="precision is 'int8'; backend onnx computes in float32"):
        ImagePipeline(exported["photo"], precision="int8")
    with pytest.raises(ConfigError, match="model gaussian has one output and no posterior samples; use its weights"):
        ImagePipeline(exported["gaussian"]).check(DenoiseOptions(steps=2, perception=1.0))
    with pytest.raises(
        ConfigError, match="mnist-diffusion is a prior of architecture diffusion, which is not exported"
    ):
        ImagePipeline("mnist-diffusion", backend="onnx")
    with pytest.raises(ConfigError, match="sigma is 20; expected 0 to"):
        ImagePipeline(exported["gaussian"]).check(DenoiseOptions(steps=2, sigma=20.0))
