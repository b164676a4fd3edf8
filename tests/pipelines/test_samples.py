"""Posterior samples: independent of the windows, distributed as their latents, and written to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Pillow
from torch.distributions import Normal

from denoise.backends.precision import Precision
from denoise.backends.torch import NoiseFieldSampler
from denoise.errors import ConfigError, InputError
from denoise.options import AUDIO_STEPS, IMAGE_STEPS, DenoiseOptions
from denoise.pipelines.arrays import denoise_audio
from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.image import ImagePipeline
from denoise.pipelines.result import Diagnostics
from denoise.pipelines.samples import STD_SCALE, Moments, SamplePaths, write_audio_samples, write_image_samples
from denoise.registry import SIGMA_MODEL
from denoise.signals import Image

Models = dict[str, Path]
AUDIO = ["vary-audio", "vary-mask-audio", "flow-audio"]


def random_image(height: int, width: int, channels: int = 3) -> Any:
    return np.random.default_rng(0).uniform(0, 1, (height, width, channels)).astype(np.float32)


def random_audio(channels: int, time: int) -> Any:
    return (np.random.default_rng(0).standard_normal((channels, time)) * 0.1).astype(np.float32)


def test_image_sample_does_not_depend_on_the_tiles(models: Models) -> None:
    x = Image(random_image(201, 177))
    pipelines = [ImagePipeline(models["vary-image"], tile=tile, precision="float32") for tile in (1000, 48, 64)]
    whole, *others = (p.frame(x, seed=5).pixels for p in pipelines)
    for other in others:
        np.testing.assert_allclose(other, whole, atol=1e-4)
    mean, repeated, other_seed = (pipelines[0].frame(x, seed=seed).pixels for seed in (None, 5, 6))
    np.testing.assert_array_equal(repeated, whole)
    assert np.abs(whole - other_seed).std() > 0.05
    assert np.abs(whole - mean).std() > 0.05


@pytest.mark.parametrize("name", AUDIO)
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_audio_sample_does_not_depend_on_the_blocks(models: Models, name: str, rate: int) -> None:
    x = random_audio(2, 3 * rate)

    def sample(block: float, *seeds: int, steps: int = AUDIO_STEPS) -> Any:
        pipeline = AudioPipeline(models[name], block=block)
        blocks = pipeline.stream([x[:, :7000], x[:, 7000:]], rate, seeds=seeds, steps=steps)
        return np.concatenate([*blocks], axis=1)

    whole = sample(20.0, 1, 2)
    assert whole.shape == (4, x.shape[1])
    np.testing.assert_allclose(sample(0.5, 1, 2), whole, atol=1e-4 if rate == 16_000 else 2e-3)
    np.testing.assert_allclose(sample(20.0, 2), whole[2:], atol=1e-6)
    one_step = sample(20.0, 1, 2, steps=1)  # with each step, an untrained network reduces the differences
    assert np.abs(one_step[:2] - one_step[2:]).std() > 0.05 * x.std()


def test_several_samples_have_the_diagnostics_of_one(tmp_path: Path) -> None:
    """The residual, and a warning if sigma is not that of the noise."""
    noisy = np.random.default_rng(0).normal(128, 20, (120, 130, 3)).clip(0, 255).astype(np.uint8)
    Pillow.fromarray(noisy).save(tmp_path / "a.png")
    pipeline = ImagePipeline(SIGMA_MODEL, precision="float32")
    for sigma, is_true_sigma in ((20 / 255, True), (2 / 255, False)):
        paths, options = (tmp_path / "a.png", tmp_path / "b.png"), {"sigma": sigma, "steps": 2, "overwrite": True}
        single = pipeline.file(*paths, seed=0, **options)
        same = pipeline.file(*paths, seed=0, perception=1.0, **options)
        several = write_image_samples(pipeline, *paths, 2, DenoiseOptions(**options))
        assert single.residual is not None
        assert single.residual == same.residual
        assert several.residual == pytest.approx(single.residual, rel=0.1, abs=0.05)
        assert single.warnings == same.warnings
        assert bool(single.warnings) == bool(several.warnings) == (not is_true_sigma)


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("side", [1, 40])
def test_warning_if_no_noise_is_found(side: int, precision: Precision, models: Models, tmp_path: Path) -> None:
    Pillow.fromarray(np.full((side, side, 3), 90, np.uint8)).save(tmp_path / "a.png")
    pipeline = ImagePipeline(models["sigma-image"], precision=precision)
    paths, options = (tmp_path / "a.png", tmp_path / "b.png"), DenoiseOptions(steps=IMAGE_STEPS)
    for result in (pipeline.file(*paths, sigma="auto"), write_image_samples(pipeline, *paths, 2, options)):
        assert "no noise was found" in result.warnings[0]
    for zero in (0, 0.0):
        assert not pipeline.file(*paths, sigma=zero, overwrite=True).warnings


def test_latents_are_sampled_from_their_distribution() -> None:
    q = Normal(torch.full((1, 3, 100, 100), 2.0), torch.full((1, 3, 100, 100), 0.5))
    z = NoiseFieldSampler(0, (64, 128))(1, q, 2)
    assert abs(float(z.mean()) - 2) < 4 * 0.5 / z.numel() ** 0.5
    assert abs(float(z.std()) - 0.5) < 0.01
    torch.testing.assert_close(NoiseFieldSampler(0, (64 + 20, 128))(1, q, 2)[:, :, :-10], z[:, :, 10:])


def test_moments_are_those_of_numpy() -> None:
    x = np.random.default_rng(0).normal(100, 0.01, (7, 4, 5))
    moments = Moments()
    for item in x:
        moments.add(item)
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.std(), x.std(axis=0, ddof=1), rtol=1e-9)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
def test_files_of_image_samples(models: Models, tmp_path: Path, mode: str) -> None:
    x = np.random.default_rng(1).integers(0, 255, (40, 30, len(mode)), np.uint8).squeeze()
    x = np.random.default_rng(1).integers(0, 65535, (40, 30), np.uint16) if mode == "I;16" else x
    Pillow.fromarray(x).save(tmp_path / "a.png")
    pipeline = ImagePipeline(models["vary-image"], precision="float32")
    options = DenoiseOptions(steps=IMAGE_STEPS, seed=4)
    write_image_samples(pipeline, tmp_path / "a.png", tmp_path / "b.denoised.png", 3, options)
    names = ["a.png", "b.mean.png", "b.sample-1.png", "b.sample-2.png", "b.sample-3.png", "b.std.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    _, mean, *samples, std = (np.asarray(Pillow.open(tmp_path / name)).astype(float) for name in names)
    white, colours = (65535, ...) if mode == "I;16" else (255, (..., slice(0, 3)) if mode == "RGBA" else ...)
    pixels = np.stack(samples)[(slice(None), *colours) if isinstance(colours, tuple) else colours]
    is_unclipped = ((pixels > 0) & (pixels < white)).all(axis=0)  # files are clipped, the moments are not
    assert is_unclipped.mean() > 0.2
    np.testing.assert_allclose(mean[colours][is_unclipped], pixels.mean(axis=0)[is_unclipped], atol=0.51 + 0.5)
    expected = (STD_SCALE * pixels.std(axis=0, ddof=1)).clip(0, white)
    np.testing.assert_allclose(std[colours][is_unclipped], expected[is_unclipped], atol=STD_SCALE)
    if mode == "RGBA":
        np.testing.assert_array_equal(samples[0][..., 3], x[..., 3])
    second = pipeline.frame(Image(x.reshape(40, 30, -1)[..., :3], x[..., 3] if mode == "RGBA" else None), seed=5)
    np.testing.assert_allclose(samples[1].reshape(40, 30, -1)[..., :3], second.pixels, atol=1)


@pytest.mark.parametrize("name", AUDIO)
def test_files_of_audio_samples(models: Models, tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / "a.wav", random_audio(2, 40_000).T, 16_000, "FLOAT")
    options = DenoiseOptions(steps=AUDIO_STEPS, seed=4)
    write_audio_samples(AudioPipeline(models[name]), tmp_path / "a.wav", tmp_path / "a.denoised.wav", 3, options)
    names = ["a.mean.wav", "a.sample-1.wav", "a.sample-2.wav", "a.sample-3.wav", "a.std.wav", "a.wav"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    mean, *samples, std, x = (soundfile.read(tmp_path / name, dtype="float32")[0] for name in names)
    assert mean.shape == x.shape
    np.testing.assert_allclose(mean, np.mean(samples, axis=0), atol=1e-6)
    np.testing.assert_allclose(std, np.std(samples, axis=0, ddof=1), atol=1e-6)
    assert std.max() > 1e-3


def test_perception_of_audio(models: Models, tmp_path: Path) -> None:
    """The posterior mean at 0, a sample at 1 with its residual; the same for files, chunks and arrays."""
    pipeline, x = AudioPipeline(models["flow-audio"]), random_audio(2, 30_000)
    soundfile.write(tmp_path / "a.wav", x.T, 16_000, "FLOAT")
    paths, outputs = (tmp_path / "a.wav", tmp_path / "b.wav"), {}
    for perception in (0.0, 0.5, 1.0):
        result = pipeline.file(*paths, perception=perception, steps=3, seed=4, overwrite=True)
        outputs[perception] = soundfile.read(tmp_path / "b.wav", dtype="float32")[0].T
        same = denoise_audio(x, 16_000, model=models["flow-audio"], perception=perception, steps=3, seed=4)
        np.testing.assert_allclose(outputs[perception], same, atol=1e-6)
        row = result.asdict()
        assert ("residual_by_noise" in row) == ("residual_with_answer" in row) == (perception > 0)
        if perception:
            assert result.residual is not None
            assert 0 < row["residual_by_noise"] < 10
            assert abs(result.residual.correlation) <= 1
    mean = denoise_audio(x, 16_000, model=models["flow-audio"])
    np.testing.assert_allclose(outputs[0.0], mean, atol=1e-6)
    np.testing.assert_allclose(outputs[0.5], (outputs[0.0] + outputs[1.0]) / 2, atol=1e-5)
    assert np.abs(outputs[1.0] - mean).std() > 1e-3
    assert pipeline.file(*paths, overwrite=True).residual is None
    result = pipeline.file(*paths, perception=1.0, overwrite=True)
    assert result.residual is not None  # of seed 0
    run = pipeline.start(16_000, DenoiseOptions(steps=AUDIO_STEPS, perception=0.0))
    [*run.blocks([x])]
    assert run.diagnostics() == Diagnostics()  # the mean is one call, without a sample beside it


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vary-audio", {"perception": 1.0}, "does not mix posterior samples"),
        ("causal-audio", {"perception": 1.0}, "no posterior samples"),
        ("flow-audio", {"perception": 1.5}, "expected 0"),
        ("flow-audio", {"perception": 1.0, "steps": 0}, "steps is 0"),
        ("flow-audio", {"perception": 1.0, "seed": -1}, "seed is -1"),
    ],
)
def test_unsupported_options_are_refused(models: Models, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        denoise_audio(random_audio(1, 100), 16_000, model=models[name], **options)


def test_what_has_no_samples_is_refused(models: Models, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no posterior samples"):
        ImagePipeline(models["blur-image"]).frame(Image(random_image(8, 8)), seed=0)
    for name in ("mask-audio", "causal-audio"):
        with pytest.raises(ConfigError, match="no posterior samples"):
            next(AudioPipeline(models[name]).stream([random_audio(1, 100)], 16_000, seeds=[0]))
    with pytest.raises(ConfigError, match="at least 2"):
        SamplePaths.for_target("a.png", 1)
    frames = [Pillow.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    pipeline, options = ImagePipeline(models["vary-image"]), DenoiseOptions(steps=IMAGE_STEPS)
    with pytest.raises(InputError, match="several images"):
        write_image_samples(pipeline, tmp_path / "a.gif", tmp_path / "b.gif", 2, options)
