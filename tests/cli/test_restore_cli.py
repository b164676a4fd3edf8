"""``denoise image --prior`` and ``--task``: outputs, and one line per error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from denoise.errors import ConfigError
from denoise.options import RestoreOptions
from denoise.pipelines.restore import RestorePipeline
from denoise.pipelines.restore_audio import AudioRestorePipeline
from denoise.registry import Modality, bundled
from tests.cli.conftest import Command


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    y, x = np.mgrid[:24, :32]
    pixels = np.stack([5 * x, 9 * y, 3 * (x + y)], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    mask = np.zeros((24, 32), np.uint8)
    mask[10:12, 4:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path / "photo.png"


def test_inpainting_writes_one_file_and_a_line_of_json(command: Command, photo: Path, tmp_path: Path) -> None:
    result = command(
        "image", str(photo), "--task", "inpaint", "--mask", str(tmp_path / "mask.png"), "--steps", "3", "--json"
    )
    assert result.code == 0, result.err
    (report,) = result.rows
    assert Path(report["output"]).name == "photo.denoised.png"
    with Image.open(photo) as before, Image.open(report["output"]) as after:
        changed = (np.asarray(before) != np.asarray(after)).any(axis=2)
    assert changed[10:12, 4:20].any()
    changed[10:12, 4:20] = False
    assert not changed.any()


def test_a_prior_without_a_task_denoises(command: Command, photo: Path, tmp_path: Path) -> None:
    arguments = ("image", str(photo), "--sigma", "10", "-o")
    outputs = [tmp_path / "a.png", tmp_path / "b.png"]
    assert command(*arguments, str(outputs[0]), "--prior", "gaussian").code == 0
    assert command(*arguments, str(outputs[1]), "--model", "gaussian").code == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


@pytest.mark.parametrize("prior", ["mnist-vae", "patch-flow"])
def test_the_command_and_python_remove_noise_alike(command: Command, tmp_path: Path, prior: str) -> None:
    noisy = np.random.default_rng(0).normal(90, 25, (36, 40)).clip(0, 255).astype(np.uint8)
    noisy[8:30, 12:15] = 255
    Image.fromarray(noisy).save(tmp_path / "a.png")
    steps = ("--steps", "5") if prior == "mnist-vae" else ()
    arguments = ("image", str(tmp_path / "a.png"), "--prior", prior, "--sigma", "25", *steps)
    result = command(*arguments, "--json", "-o", str(tmp_path / "b.png"))
    assert result.code == 0, result.err
    options = RestoreOptions(task="denoise", sigma=25 / 255, steps=5 if steps else None)
    RestorePipeline(prior).file(tmp_path / "a.png", tmp_path / "c.png", options)
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    if steps:
        assert command(*arguments, "--seed", "1", "-o", str(tmp_path / "d.png")).code == 0
        assert (tmp_path / "d.png").read_bytes() != (tmp_path / "c.png").read_bytes()


@pytest.mark.parametrize("prior", ["mnist-vae", "mnist-diffusion"])
def test_a_digit_is_inpainted_by_priors_with_and_without_latents(command: Command, tmp_path: Path, prior: str) -> None:
    digit, mask = np.zeros((28, 28), np.uint8), np.zeros((28, 28), np.uint8)
    digit[5:23, 12:15] = 255
    mask[12:15] = 255
    for name, pixels in (("digit", digit), ("mask", mask)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    arguments = ("image", str(tmp_path / "digit.png"), "--prior", prior, "--mask", str(tmp_path / "mask.png"))
    result = command(*arguments, "--task", "inpaint", "--steps", "20", "-o", str(tmp_path / "out.png"))
    assert result.code == 0, result.err
    with Image.open(tmp_path / "out.png") as image:
        pixels = np.asarray(image)
    assert pixels[12:15, 12:15].mean() > 150  # the stroke goes on
    assert pixels[12:15, :8].mean() < 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "inpaint"), "--task inpaint needs --mask FILE; give it"),
        (("--task", "deblur"), "--task deblur needs --blur PIXELS or --kernel FILE; give it"),
        (("--task", "declip", "--limit", "0.7"), "limit is 0.7; expected 2.55 to 255"),
        (("--task", "declip", "--limit", "300"), "limit is 300; expected 2.55 to 255"),
        (("--task", "declip", "--sigma", "5"), "sigma is not for the task declip"),
        (("--mask", "mask.png"), "--mask needs --task inpaint"),
        (("--task", "upscale", "--factor", "2", "--strength", "0.5"), "--strength is not for --task upscale"),
        (("--task", "upscale", "--factor", "2", "--model", "gaussian"), "--model is not for --task upscale"),
        (("--prior", "gaussian", "--model", "photo"), "both --model and --prior are given"),
        (("--task", "upscale", "--factor", "2", "--samples", "1"), "samples is 1; expected 0, or at least 2"),
        (("--task", "deblur", "--blur", "1", "--prior", "digits-audio"), "digits-audio is a prior for audio"),
        (("--task", "deblur", "--blur", "1", "--prior", "flowers"), "prior flowers is no denoiser"),
        (("--prior", "gaussian", "--strength", "0.5"), "--strength is not for --prior; leave it out"),
        (("--prior", "gaussian", "--perception", "0.5"), "--perception is not for --prior; leave it out"),
        (("--prior", "gaussian", "--steps", "5"), "removes noise in one call, which takes no steps"),
        (("--prior", "patch-flow", "--sigma", "120"), "the range of model patch-flow"),
        (("--prior", "gaussian", "--mask", "mask.png"), "--mask needs --task inpaint"),
        (("--model", "mnist-vae"), "prior mnist-vae finds the most probable latents"),
        (("--quality", "30"), "--quality needs --task dejpeg"),
        (("--limit", "200"), "--limit needs --task declip"),
        (("--task", "sharpen"), "task is 'sharpen'"),
    ],
)
def test_errors_are_one_line(command: Command, photo: Path, arguments: tuple[str, ...], message: str) -> None:
    result = command("image", str(photo), *arguments)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_an_image_that_is_no_jpeg_needs_a_quality(command: Command, photo: Path) -> None:
    result = command("image", str(photo), "--task", "dejpeg", "--steps", "2")
    assert result.code == 1
    assert "photo.png: the image is no JPEG file of grey or YCbCr" in result.err
    assert result.err.count("\n") == 1
    assert command("image", str(photo), "--task", "dejpeg", "--steps", "2", "--quality", "30").code == 0


@pytest.mark.parametrize(("modality", "pipeline"), [("image", RestorePipeline), ("audio", AudioRestorePipeline)])
def test_an_unknown_prior_lists_those_that_restore(
    command: Command, modality: Modality, pipeline: Any, tmp_path: Path
) -> None:
    def is_taken(name: str) -> bool:
        try:
            pipeline(name, device="cpu")
        except ConfigError:
            return False
        return True

    expected = ", ".join(filter(is_taken, bundled(None, modality)))
    message = f"prior 'nothing' is unknown; expected one of {expected} or a .safetensors file."
    (tmp_path / "a.png").touch()
    (tmp_path / "a.wav").touch()
    for call in ([modality, "a.png"], ["batch", f"--{modality}", str(tmp_path), str(tmp_path / "clean")]):
        result = command(*call, "--prior", "nothing")
        assert (result.code, result.err) == (2, f"denoise: {message}\n")
    with pytest.raises(ConfigError) as caught:
        pipeline("nothing")
    assert str(caught.value) == message
