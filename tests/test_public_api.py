"""The public names, which are imported when they are used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import denoise
from denoise import pipelines
from denoise.registry import bundled

NAMES = [
    "AudioPipeline",
    "AudioRestoreOptions",
    "AudioRestorePipeline",
    "AudioStream",
    "BatchSettings",
    "ConfigError",
    "DenoiseError",
    "ImagePipeline",
    "InputError",
    "PriorPipeline",
    "RestoreOptions",
    "RestorePipeline",
    "WeightsError",
    "__version__",
    "bundled",
    "denoise_audio",
    "denoise_image",
    "denoise_points",
    "load",
    "open_batch",
]


def test_public_names() -> None:
    assert denoise.__all__ == NAMES
    assert dir(denoise) == NAMES
    for name in NAMES:
        assert getattr(denoise, name) is not None
    with pytest.raises(AttributeError, match="module 'denoise' has no attribute 'denoize'"):
        denoise.denoize  # noqa: B018


def test_version_is_that_of_the_package() -> None:
    assert denoise.__version__ == version("denoise-toolkit")


def test_tree_of_errors() -> None:
    for error in (denoise.InputError, denoise.ConfigError, denoise.WeightsError):
        assert issubclass(error, denoise.DenoiseError)
    assert issubclass(denoise.InputError, ValueError)
    assert issubclass(denoise.ConfigError, ValueError)
    assert not issubclass(denoise.WeightsError, ValueError)


def test_import_and_help_do_not_load_torch() -> None:
    program = """
import sys
import denoise
denoise.InputError
from denoise.cli import main
for words in (["--help"], ["audio", "--help"], ["image", "--help"], ["train", "--help"], ["evaluate", "--help"],
              ["models", "--help"], ["--version"], ["audio", "--nonsense"]):
    sys.argv = ["denoise", *words]
    try:
        main()
    except SystemExit as stop:
        assert stop.code == (2 if "--nonsense" in words else 0), (words, stop.code)
heavy = {"torch", "numpy", "PIL", "soundfile", "scipy", "lightning", "torchaudio", "torchvision"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert denoise.__version__ in done.stdout.split()


def test_load_by_weights_file(models: dict[str, Path]) -> None:
    assert isinstance(denoise.load(models["keep-audio"]), denoise.AudioPipeline)
    assert isinstance(denoise.load(models["keep-image"]), denoise.ImagePipeline)
    assert isinstance(denoise.load("mnist-vae"), denoise.PriorPipeline)
    with pytest.raises(denoise.ConfigError, match="model 'no-such' is unknown; expected one of"):
        denoise.load("no-such")
    with pytest.raises(denoise.WeightsError, match="No such file"):
        denoise.load("no-such.safetensors")


def test_types_of_load_are_those_of_the_bundled_models() -> None:
    assert set(get_args(pipelines.AudioModel)) == {*bundled("denoiser", "audio")}
    assert set(get_args(pipelines.ImageModel)) == {*bundled("denoiser", "image")}
    assert set(get_args(pipelines.PriorModel)) == {*bundled("prior")}


def test_replaced_weights_are_loaded_again(models: dict[str, Path], tmp_path: Path) -> None:
    path, noisy = tmp_path / "model.safetensors", np.full((9, 8, 3), 100, np.uint8)
    for name, value in (("keep-image", 100), ("mute-image", 0)):
        shutil.copyfile(models[name], path)
        os.utime(path, ns=(0, value))
        assert (denoise.denoise_image(noisy, model=path) == value).all()


def test_every_bundled_model_runs() -> None:
    """By name, on a short signal; length, size and dtype are kept. Classifiers denoise nothing."""
    classifiers = bundled(kind="classifier")
    for name in classifiers:
        with pytest.raises(denoise.ConfigError, match=f"{name} is a classifier for audio; expected a denoiser"):
            denoise.load(name)
    for name in set(denoise.bundled()) - {*classifiers}:
        pipeline = denoise.load(name)
        if isinstance(pipeline, denoise.PriorPipeline):
            assert pipeline.sample(1).shape == (1, *pipeline.card.shape)
        elif isinstance(pipeline, denoise.AudioPipeline):
            out = denoise.denoise_audio(np.zeros((2, 3001), np.float32), 44_100, model=name)
            assert out.shape == (2, 3001)
            assert np.isfinite(out).all()
        else:
            pixels = np.full((37, 41, 3), 128, np.uint8)
            assert denoise.denoise_image(pixels, model=name).shape == pixels.shape


def test_readmes_refer_to_existing_priors_and_images() -> None:
    root = Path(__file__).parents[1]
    pages = [root / "README.md", *root.glob("recipes/*/README.md")]
    for page in pages:
        text = page.read_text("utf-8")
        for image in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
            assert (page.parent / image).is_file(), (page, image)
        references = set(re.findall(r"denoise sample ([a-z-]+)|--prior ([a-z-]+)|--codec ([a-z-]+)", text))
        assert {name for names in references for name in names if name} <= set(denoise.bundled()), page
