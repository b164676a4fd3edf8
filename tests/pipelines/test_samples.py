"""Answers that are drawn: the same in any windows, as various as told, and files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Pillow
from torch.distributions import Normal

from denoise.errors import ConfigError, InputError
from denoise.pipelines.audio import STEPS, AudioPipeline, denoise_audio
from denoise.pipelines.image import ImagePipeline
from denoise.pipelines.latent_noise import Draw
from denoise.pipelines.samples import STD_TIMES, Moments, Places, draw_audio, draw_images
from denoise.registry import WITH_SIGMA
from denoise.signals import Image

Models = dict[str, Path]
AUDIO = ["vary-audio", "vary-mask-audio", "flow-audio"]


def picture(height: int, width: int, channels: int = 3) -> Any:
    return np.random.default_rng(0).uniform(0, 1, (height, width, channels)).astype(np.float32)


def sound(channels: int, time: int) -> Any:
    return (np.random.default_rng(0).standard_normal((channels, time)) * 0.1).astype(np.float32)


def test_a_drawn_picture_is_the_same_in_any_tiles(models: Models) -> None:
    x = Image(picture(201, 177))
    pipelines = [ImagePipeline(models["vary-image"], tile=tile, precision="float32") for tile in (1000, 48, 64)]
    whole, *others = (p.frame(x, draw=5).pixels for p in pipelines)
    for other in others:
        np.testing.assert_allclose(other, whole, atol=1e-4)
    middle, again, another = (pipelines[0].frame(x, draw=seed).pixels for seed in (None, 5, 6))
    np.testing.assert_array_equal(again, whole)
    assert np.abs(whole - another).std() > 0.05
    assert np.abs(whole - middle).std() > 0.05


@pytest.mark.parametrize("name", AUDIO)
@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_a_drawn_sound_is_the_same_in_any_blocks(models: Models, name: str, rate: int) -> None:
    x = sound(2, 3 * rate)

    def drawn(block: float, *seeds: int, steps: int = STEPS) -> Any:
        pipeline = AudioPipeline(models[name], block=block)
        blocks = pipeline.stream([x[:, :7000], x[:, 7000:]], rate, draws=seeds, steps=steps)
        return np.concatenate([*blocks], axis=1)

    whole = drawn(20.0, 1, 2)
    assert whole.shape == (4, x.shape[1])
    np.testing.assert_allclose(drawn(0.5, 1, 2), whole, atol=1e-4 if rate == 16_000 else 2e-3)
    np.testing.assert_allclose(drawn(20.0, 2), whole[2:], atol=1e-6)
    once = drawn(20.0, 1, 2, steps=1)  # with each step, a network that learnt nothing forgets more of its noise
    assert np.abs(once[:2] - once[2:]).std() > 0.05 * x.std()


def test_draws_of_pictures_are_judged_alike(tmp_path: Path) -> None:
    """By samples and by single draws: what is left of the noise, and a warning where it is not as told."""
    noisy = np.random.default_rng(0).normal(128, 20, (120, 130, 3)).clip(0, 255).astype(np.uint8)
    Pillow.fromarray(noisy).save(tmp_path / "a.png")
    pipeline = ImagePipeline(WITH_SIGMA, precision="float32")
    for sigma, fits in ((20 / 255, True), (2 / 255, False)):
        how: dict[str, Any] = {"sigma": sigma, "steps": 2, "overwrite": True}
        one = pipeline.file(tmp_path / "a.png", tmp_path / "b.png", draw=0, **how)
        also = pipeline.file(tmp_path / "a.png", tmp_path / "b.png", draw=0, perception=1.0, **how)
        some = draw_images(pipeline, tmp_path / "a.png", tmp_path / "b.png", 2, **how)
        assert one.residual is not None
        assert one.residual == also.residual
        assert some.residual == pytest.approx(one.residual, rel=0.1, abs=0.05)
        assert one.warnings == also.warnings
        assert bool(one.warnings) == bool(some.warnings) == (not fits)


def test_finding_no_noise_is_told(models: Models, tmp_path: Path) -> None:
    Pillow.fromarray(np.full((1, 1, 3), 90, np.uint8)).save(tmp_path / "a.png")
    pipeline = ImagePipeline(models["told-image"])
    places = tmp_path / "a.png", tmp_path / "b.png"
    for result in (pipeline.file(*places, sigma="auto"), draw_images(pipeline, *places, 2)):
        assert "no noise was found" in result.warnings[0]
    for nothing in (0, 0.0):
        assert not pipeline.file(*places, sigma=nothing, overwrite=True).warnings


def test_latents_are_drawn_from_their_distribution() -> None:
    q = Normal(torch.full((1, 3, 100, 100), 2.0), torch.full((1, 3, 100, 100), 0.5))
    z = Draw(0, (64, 128))(1, q, 2)
    assert abs(float(z.mean()) - 2) < 4 * 0.5 / z.numel() ** 0.5
    assert abs(float(z.std()) - 0.5) < 0.01
    torch.testing.assert_close(Draw(0, (64 + 20, 128))(1, q, 2)[:, :, :-10], z[:, :, 10:])


def test_moments_are_those_of_numpy() -> None:
    x = np.random.default_rng(0).normal(100, 0.01, (7, 4, 5))
    moments = Moments()
    for part in x:
        moments.add(part)
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.std(), x.std(axis=0, ddof=1), rtol=1e-9)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
def test_files_of_pictures(models: Models, tmp_path: Path, mode: str) -> None:
    x = np.random.default_rng(1).integers(0, 255, (40, 30, len(mode)), np.uint8).squeeze()
    x = np.random.default_rng(1).integers(0, 65535, (40, 30), np.uint16) if mode == "I;16" else x
    Pillow.fromarray(x).save(tmp_path / "a.png")
    pipeline = ImagePipeline(models["vary-image"], precision="float32")
    draw_images(pipeline, tmp_path / "a.png", tmp_path / "b.denoised.png", 3, seed=4)
    names = ["a.png", "b.mean.png", "b.sample-1.png", "b.sample-2.png", "b.sample-3.png", "b.std.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    _, mean, *samples, std = (np.asarray(Pillow.open(tmp_path / name)).astype(float) for name in names)
    top, colours = (65535, ...) if mode == "I;16" else (255, (..., slice(0, 3)) if mode == "RGBA" else ...)
    light = np.stack(samples)[(slice(None), *colours) if isinstance(colours, tuple) else colours]
    inside = ((light > 0) & (light < top)).all(axis=0)  # files clip, the moments are of what was drawn
    assert inside.mean() > 0.2
    np.testing.assert_allclose(mean[colours][inside], light.mean(axis=0)[inside], atol=0.51 + 0.5)
    expected = (STD_TIMES * light.std(axis=0, ddof=1)).clip(0, top)
    np.testing.assert_allclose(std[colours][inside], expected[inside], atol=STD_TIMES)
    if mode == "RGBA":
        np.testing.assert_array_equal(samples[0][..., 3], x[..., 3])
    one = pipeline.frame(Image(x.reshape(40, 30, -1)[..., :3], x[..., 3] if mode == "RGBA" else None), draw=5)
    np.testing.assert_allclose(samples[1].reshape(40, 30, -1)[..., :3], one.pixels, atol=1)


@pytest.mark.parametrize("name", AUDIO)
def test_files_of_sounds(models: Models, tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / "a.wav", sound(2, 40_000).T, 16_000, "FLOAT")
    draw_audio(AudioPipeline(models[name]), tmp_path / "a.wav", tmp_path / "a.denoised.wav", 3, seed=4)
    names = ["a.mean.wav", "a.sample-1.wav", "a.sample-2.wav", "a.sample-3.wav", "a.std.wav", "a.wav"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    mean, *samples, std, x = (soundfile.read(tmp_path / name, dtype="float32")[0] for name in names)
    assert mean.shape == x.shape
    np.testing.assert_allclose(mean, np.mean(samples, axis=0), atol=1e-6)
    np.testing.assert_allclose(std, np.std(samples, axis=0, ddof=1), atol=1e-6)
    assert std.max() > 1e-3


def test_the_dial_of_a_recording(models: Models, tmp_path: Path) -> None:
    """The mean at 0, one answer at 1; what it takes away is told; the same through files, chunks and arrays."""
    pipeline, x = AudioPipeline(models["flow-audio"]), sound(2, 30_000)
    soundfile.write(tmp_path / "a.wav", x.T, 16_000, "FLOAT")
    answers = {}
    for share in (0.0, 0.5, 1.0):
        told = pipeline.file(tmp_path / "a.wav", tmp_path / "b.wav", perception=share, steps=3, draw=4, overwrite=True)
        answers[share] = soundfile.read(tmp_path / "b.wav", dtype="float32")[0].T
        same = denoise_audio(x, 16_000, model=models["flow-audio"], perception=share, steps=3, seed=4)
        np.testing.assert_allclose(answers[share], same, atol=1e-6)
        row = told.asdict()
        assert ("residual_by_noise" in row) == ("residual_with_answer" in row) == (share > 0)
        if share:
            assert told.residual is not None
            assert 0 < row["residual_by_noise"] < 10
            assert abs(told.residual.correlation) <= 1
    plain = denoise_audio(x, 16_000, model=models["flow-audio"])
    np.testing.assert_allclose(answers[0.0], plain, atol=1e-6)
    np.testing.assert_allclose(answers[0.5], (answers[0.0] + answers[1.0]) / 2, atol=1e-5)
    assert np.abs(answers[1.0] - plain).std() > 1e-3
    assert pipeline.file(tmp_path / "a.wav", tmp_path / "b.wav", overwrite=True).residual is None
    told = pipeline.file(tmp_path / "a.wav", tmp_path / "b.wav", perception=1.0, overwrite=True)
    assert told.residual is not None  # of seed 0
    judged: list[Any] = []
    [*pipeline.stream([x], 16_000, perception=0.0, judged=judged.append)]
    assert not judged  # the mean is one call, without a draw beside it


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        ("vary-audio", {"perception": 1.0}, "draws whole answers"),
        ("causal-audio", {"perception": 1.0}, "draws no samples"),
        ("flow-audio", {"perception": 1.5}, "expected 0"),
        ("flow-audio", {"perception": 1.0, "steps": 0}, "steps is 0"),
        ("flow-audio", {"perception": 1.0, "seed": -1}, "seed is -1"),
    ],
)
def test_dials_that_make_no_sense(models: Models, name: str, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        denoise_audio(sound(1, 100), 16_000, model=models[name], **wrong)


def test_what_cannot_be_drawn_is_told(models: Models, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="draws no samples"):
        ImagePipeline(models["blur-image"]).frame(Image(picture(8, 8)), draw=0)
    for name in ("mask-audio", "causal-audio"):
        with pytest.raises(ConfigError, match="draws no samples"):
            next(AudioPipeline(models[name]).stream([sound(1, 100)], 16_000, draws=[0]))
    with pytest.raises(ConfigError, match="at least 2"):
        Places.beside("a.png", 1)
    frames = [Pillow.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="several pictures"):
        draw_images(ImagePipeline(models["vary-image"]), tmp_path / "a.gif", tmp_path / "b.gif", 2)
