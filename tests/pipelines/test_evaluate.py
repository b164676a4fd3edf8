"""Metrics of models that keep their input are those of the noise, and they are repeatable."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from denoise.errors import ConfigError
from denoise.files.audio import read_audio, write_audio
from denoise.files.image import read_image, write_image
from denoise.pipelines.evaluate import evaluate
from denoise.pipelines.image import ImagePipeline
from denoise.pipelines.noise_estimate import uniform_noise
from denoise.signals import Audio, AudioFormat, Image, ImageFormat

Models = dict[str, Path]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        write_image(root / f"{i}.png", [Image(pixels)], ImageFormat())
    return root


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Utterances of two seconds, harmonics of a varying pitch with an envelope of syllables; and white noise."""
    root = tmp_path_factory.mktemp("recordings")
    rng, t = np.random.default_rng(0), np.arange(32_000) / 16_000
    signals = {"noise/test/hiss": rng.standard_normal(48_000) * 0.1}
    for i in range(3):
        pitch = (120 + 30 * i) * (1 + 0.1 * np.sin(2 * np.pi * t))
        phase = 2 * np.pi * np.cumsum(pitch) / 16_000
        harmonics = sum(np.sin(k * phase) / k for k in range(1, 20))
        signals[f"speech/test/{i}"] = 0.1 * harmonics * np.clip(np.sin(2 * np.pi * 3 * t), 0, None)
    for name, x in signals.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        audio = Audio(x[None].astype(np.float32), AudioFormat(16_000, 1, "WAV", "FLOAT"))
        write_audio(root / f"{name}.wav", audio)
    return root


def test_images_below_the_window_of_ssim_are_refused(models: Models, tmp_path: Path) -> None:
    write_image(tmp_path / "dot.png", [Image(np.zeros((1, 12, 3), np.uint8))], ImageFormat())
    with pytest.raises(ConfigError, match=r"dot.png: is of 12 x 1 pixels; SSIM needs sides of 11"):
        evaluate(models["keep-image"], tmp_path)


def test_metrics_of_unchanged_images(models: Models, images: Path) -> None:
    rows, protocol = evaluate(models["keep-image"], images, levels=[10.0, 50.0])
    assert [row["sigma"] for row in rows] == [10.0, 50.0]
    for row in rows:  # float noise, unclipped: the PSNR of the input is that of its sigma
        assert row["psnr_noisy"] == pytest.approx(20 * math.log10(255 / row["sigma"]), abs=0.2)
        assert 0 <= row["psnr"] - row["psnr_noisy"] < 1.5  # the output is clipped, the input is not
        assert row["ssim"] == pytest.approx(row["ssim_noisy"], abs=0.05)
    assert "3 images" in protocol
    assert "seed 0" in protocol
    assert evaluate(models["keep-image"], images, levels=[10.0, 50.0])[0] == rows
    assert evaluate(models["keep-image"], images, levels=[10.0, 50.0], seed=1)[0] != rows
    assert "1 images" in evaluate(models["keep-image"], images, levels=[10.0], limit=1)[1]


def test_noise_of_images_is_estimated(models: Models, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an estimate that is right, the metrics are those of the true sigma."""
    options: dict[str, Any] = {"levels": [20.0], "limit": 2}
    given, protocol = evaluate(models["sigma-image"], images, **options)
    assert "true sigma given" in protocol
    noise = {sigma: lambda *_, s=sigma: uniform_noise(s / 255, 3) for sigma in (20.0, 30.0)}
    monkeypatch.setattr(ImagePipeline, "estimate_noise", noise[20.0])
    estimated, protocol = evaluate(models["sigma-image"], images, estimates=True, **options)
    assert "noise estimated" in protocol
    assert estimated[0] == pytest.approx(given[0])
    monkeypatch.setattr(ImagePipeline, "estimate_noise", noise[30.0])
    assert evaluate(models["sigma-image"], images, estimates=True, **options)[0][0]["psnr"] != given[0]["psnr"]
    assert evaluate(models["sigma-image"], images, **options)[0] == given
    assert "blind" in evaluate(models["keep-image"], images, estimates=True, **options)[1]


@pytest.mark.parametrize("level", [-5.0, 0.0, 256.0])
def test_levels_out_of_range_are_refused(models: Models, images: Path, level: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and at most 255"):
        evaluate(models["keep-image"], images, levels=[level])


def test_metrics_of_black_images(models: Models, images: Path) -> None:
    (row,), _ = evaluate(models["mute-image"], images, levels=[10.0])
    assert row["psnr"] < row["psnr_noisy"]


@pytest.mark.parametrize("model", ["keep-audio", "causal-audio"])
def test_metrics_of_audio(models: Models, recordings: Path, model: str) -> None:
    rows, protocol = evaluate(models[model], recordings, levels=[0.0, 10.0])
    for row in rows:
        assert row["si_sdr_noisy"] == pytest.approx(row["snr_db"], abs=0.5)
        if model == "keep-audio":
            for name in ("si_sdr", "pesq", "stoi"):
                assert row[name] == pytest.approx(row[f"{name}_noisy"], abs=1e-3)
    assert rows[1]["stoi_noisy"] > rows[0]["stoi_noisy"]
    assert "3 utterances" in protocol
    assert evaluate(models[model], recordings, levels=[0.0, 10.0])[0] == rows


def test_pairs_of_images(models: Models, images: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for path in images.iterdir():  # of another format, with the same names
        pixels = read_image(path).pixels.astype(np.float32) / 255
        noisy = pixels + rng.normal(0, 25 / 255, pixels.shape).astype(np.float32)
        write_image(tmp_path / f"{path.stem}.tiff", [Image(noisy)], ImageFormat("TIFF", bits=32))
    (row,), protocol = evaluate(models["keep-image"], images, noisy=tmp_path)
    assert row["psnr_noisy"] == pytest.approx(20 * math.log10(255 / 25), abs=0.2)
    assert "noisy files of the same names" in protocol
    assert "added" not in protocol
    with pytest.raises(ConfigError, match="levels are of noise that is added"):
        evaluate(models["keep-image"], images, noisy=tmp_path, levels=[10.0])
    write_image(
        tmp_path / "1.tiff", [Image(np.zeros((40, 49, 3), np.float32))], ImageFormat("TIFF", bits=32), overwrite=True
    )
    with pytest.raises(ConfigError, match="another size"):
        evaluate(models["keep-image"], images, noisy=tmp_path)
    (tmp_path / "1.tiff").unlink()
    with pytest.raises(ConfigError, match=r"1 of 3 clean files have no noisy file here; .*1\.png"):
        evaluate(models["keep-image"], images, noisy=tmp_path)


def test_pairs_of_audio(models: Models, recordings: Path, tmp_path: Path) -> None:
    speech = recordings / "speech"
    for path in speech.rglob("*.wav"):
        audio = read_audio(path)
        added = np.random.default_rng(0).standard_normal(audio.samples.shape) * np.sqrt((audio.samples**2).mean())
        noisy_path = tmp_path / path.relative_to(speech)
        noisy_path.parent.mkdir(exist_ok=True)
        write_audio(noisy_path, Audio((audio.samples + 0.1 * added).astype(np.float32), audio.format))
    (row,), protocol = evaluate(models["keep-audio"], speech, noisy=tmp_path)
    assert row["si_sdr_noisy"] == pytest.approx(20, abs=0.5)
    assert row["pesq"] == pytest.approx(row["pesq_noisy"], abs=1e-3)
    assert "3 utterances with noisy files" in protocol
    write_audio(noisy_path, Audio(audio.samples[:, 1:], audio.format), overwrite=True)
    with pytest.raises(ConfigError, match="another length"):
        evaluate(models["keep-audio"], speech, noisy=tmp_path)


def test_empty_folder_is_refused(models: Models, tmp_path: Path) -> None:
    for model in ("keep-image", "keep-audio"):
        with pytest.raises(ConfigError, match=r"no files|no such folder"):
            evaluate(models[model], tmp_path)
