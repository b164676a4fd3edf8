"""The public names, which are imported when they are used."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

import denoise
from denoise import pipelines
from denoise.registry import bundled

NAMES = [
    "AudioPipeline",
    "AudioRestoreOptions",
    "AudioRestorePipeline",
    "AudioStream",
    "Batch",
    "BatchSettings",
    "ConfigError",
    "DenoiseError",
    "ImagePipeline",
    "InputError",
    "PriorPipeline",
    "Record",
    "RestoreOptions",
    "RestorePipeline",
    "Result",
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


def test_type_checkers_see_the_public_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take any name for one of the package if they saw its ``__getattr__``."""
    assert all(hasattr(denoise, name) for name in NAMES)  # imports what follows, so that it alone sees the flag
    monkeypatch.setattr("typing.TYPE_CHECKING", True)
    names = runpy.run_path(denoise.__file__)
    assert set(NAMES) <= set(names)
    assert "__getattr__" not in names


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


@pytest.mark.parametrize("model", [None, b"speech", 3, ["speech"]])
def test_models_that_are_no_names_are_refused(model: Any) -> None:
    message = re.escape(f"model is {model!r}; expected a bundled name or the path of a weights file.")
    calls: list[Any] = [denoise.load, denoise.AudioPipeline, denoise.ImagePipeline, denoise.PriorPipeline]
    calls += [lambda model: denoise.AudioStream(model, sample_rate=16_000)]
    if model is not None:  # the default
        calls += [lambda model: denoise.denoise_audio(np.zeros(3_200), 16_000, model=model)]
        calls += [lambda model: denoise.denoise_image(np.zeros((8, 8)), model=model)]
    for call in calls:
        with pytest.raises(denoise.ConfigError, match=f"^{message}$"):
            call(model)


def test_unknown_models_list_those_of_the_modality() -> None:
    for call, kind, modality in (
        (lambda: denoise.denoise_audio(np.zeros(3_200), 16_000, model="no-such"), "denoiser", "audio"),
        (lambda: denoise.denoise_image(np.zeros((8, 8)), model="no-such"), "denoiser", "image"),
        (lambda: denoise.denoise_points(np.zeros((20, 3)), model="no-such"), "prior", "points"),
    ):
        names = ", ".join(bundled(kind, modality))  # type: ignore[arg-type]
        with pytest.raises(denoise.ConfigError, match=f"'no-such' is unknown; expected one of {names} or a"):
            call()  # type: ignore[no-untyped-call]


def test_loaded_pipelines_denoise_arrays_as_their_names_do(models: dict[str, Path]) -> None:
    rng = np.random.default_rng(0)
    sound, picture = rng.normal(0, 0.1, 3_200), rng.normal(0.5, 0.1, (24, 24))
    audio, image = denoise.AudioPipeline(models["causal-audio"]), denoise.ImagePipeline("gaussian")
    np.testing.assert_array_equal(
        denoise.denoise_audio(sound, 16_000, model=audio),
        denoise.denoise_audio(sound, 16_000, model=models["causal-audio"]),
    )
    np.testing.assert_array_equal(
        denoise.denoise_image(picture, 0.1, model=image), denoise.denoise_image(picture, 0.1, model="gaussian")
    )
    wrong: Any = image
    with pytest.raises(denoise.ConfigError, match=r"model is ImagePipeline.*; expected a bundled name"):
        denoise.denoise_audio(sound, 16_000, model=wrong)
    wrong = audio
    with pytest.raises(denoise.ConfigError, match=r"model is AudioPipeline.*; expected a bundled name"):
        denoise.denoise_image(picture, model=wrong)
    with pytest.raises(denoise.ConfigError, match="device is cpu, but the model is a loaded pipeline"):
        denoise.denoise_audio(sound, 16_000, model=audio, device="cpu")
    with pytest.raises(denoise.ConfigError, match="tile is 64, but the model is a loaded pipeline"):
        denoise.denoise_image(picture, model=image, tile=64)


def test_frames_that_are_arrays_name_what_takes_them() -> None:
    wrong: Any = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(denoise.InputError, match=r"expected a denoise.signals.Image. Arrays go to denoise_image"):
        denoise.ImagePipeline("gaussian").frame(wrong)
    with pytest.raises(denoise.InputError, match=r"expected a denoise.signals.Image. Arrays go to array"):
        denoise.RestorePipeline().frame(wrong, denoise.RestoreOptions(task="denoise"))


def test_first_calls_of_several_threads_import_torch_once() -> None:
    code = """
import threading, numpy as np, denoise
errors = []
def call(name, *args):
    try:
        getattr(denoise, name)(*args)
    except BaseException as error:
        errors.append(repr(error))
calls = 3 * [("denoise_audio", np.zeros(4800), 48_000), ("denoise_image", np.zeros((16, 16)))]
threads = [threading.Thread(target=call, args=each) for each in calls]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
raise SystemExit("; ".join(errors))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == "\n"


def test_pipelines_show_model_and_device(models: dict[str, Path]) -> None:
    assert (
        repr(denoise.AudioPipeline(models["keep-audio"], device="cpu")) == "AudioPipeline('keep-audio', device='cpu')"
    )
    assert (
        repr(denoise.ImagePipeline(models["keep-image"], device="cpu")) == "ImagePipeline('keep-image', device='cpu')"
    )
    assert repr(denoise.PriorPipeline("mnist-gan", device="cpu")) == "PriorPipeline('mnist-gan', device='cpu')"
    assert repr(denoise.AudioPipeline(device="cpu")) == "AudioPipeline('auto', device='cpu')"


def test_devices_of_torch_are_taken(models: dict[str, Path]) -> None:
    cpu, x = torch.device("cpu"), np.random.default_rng(0).normal(0, 0.1, 3_200)
    expected = denoise.denoise_audio(x, 16_000, model=models["causal-audio"], device="cpu")
    np.testing.assert_array_equal(denoise.denoise_audio(x, 16_000, model=models["causal-audio"], device=cpu), expected)
    assert str(denoise.PriorPipeline("mnist-gan", device=cpu).device) == "cpu"
    with pytest.raises(denoise.ConfigError, match="device 'meta' is not available here"):
        denoise.load("mnist-gan", device=torch.device("meta"))


def test_files_and_bytes_of_another_type_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    wrong: Any = None
    for name in ("keep-audio", "keep-image"):
        pipeline: Any = denoise.load(models[name])
        with pytest.raises(denoise.InputError, match="source is None; expected a path or a binary file"):
            pipeline.file(wrong, tmp_path / "out.wav")
        with pytest.raises(denoise.InputError, match="target is 3; expected a path or a binary file"):
            pipeline.file(tmp_path / "in.wav", 3)
        with pytest.raises(denoise.InputError, match=r"data is 'name\.wav'; expected the bytes of a file"):
            pipeline.bytes("name.wav")


def test_files_that_are_not_open_for_bytes_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "in.wav"
    path.write_bytes(b"RIFF")
    pipelines: list[Any] = [denoise.load(models["keep-audio"]), denoise.load(models["keep-image"])]
    for pipeline in pipelines:
        with path.open() as text, path.open("rb") as binary, (tmp_path / "out.wav").open("wb") as written:
            with pytest.raises(denoise.InputError, match=r"source is <_io.TextIO.*binary file. Open it with mode 'rb'"):
                pipeline.file(text, tmp_path / "a.wav")
            with pytest.raises(
                denoise.InputError, match=r"source is .* expected a binary file. Open it with mode 'rb'"
            ):
                pipeline.file(written, tmp_path / "a.wav")
            with pytest.raises(
                denoise.InputError, match=r"target is .* expected a binary file. Open it with mode 'wb'"
            ):
                pipeline.file(path, binary)
        with pytest.raises(denoise.InputError, match=r"source is .* which is closed"):
            pipeline.file(binary, tmp_path / "a.wav")
        assert not (tmp_path / "a.wav").exists()


def test_tensors_that_are_views_are_taken_by_their_values(models: dict[str, Path]) -> None:
    x = torch.randn(1, 3_200, generator=torch.Generator().manual_seed(0))
    expected = denoise.denoise_audio(x, 16_000, model=models["causal-audio"])
    negative = torch.complex(torch.zeros_like(x), -x).conj().imag  # with the negative bit
    assert negative.is_neg()
    torch.testing.assert_close(denoise.denoise_audio(negative, 16_000, model=models["causal-audio"]), expected)
    conjugate: Any = torch.complex(x, x).conj()
    with pytest.raises(denoise.InputError, match="samples are complex64"):
        denoise.denoise_audio(conjugate, 16_000, model=models["causal-audio"])


def test_options_of_arrays_of_another_type_are_refused(models: dict[str, Path]) -> None:
    x, flat, model = np.zeros(3_200), np.full((8, 8), 100, np.uint8), models["flow-audio"]
    wrong: Any
    for wrong in ("x", 1.5, -1):
        with pytest.raises(denoise.ConfigError, match="seed is"):
            denoise.denoise_audio(x, 16_000, model=model, perception=0.5, steps=1, seed=wrong)
        with pytest.raises(denoise.ConfigError, match="seed is"):
            denoise.denoise_image(flat, model=models["sigma-image"], perception=0.5, steps=1, seed=wrong)
    zero, none = (denoise.denoise_audio(x, 16_000, model=model, perception=0.5, steps=1, seed=s) for s in (0, None))
    np.testing.assert_array_equal(zero, none)
    wrong = 3.5
    with pytest.raises(denoise.ConfigError, match=r"tile is 3\.5; expected a whole number"):
        denoise.denoise_image(flat, model=models["keep-image"], tile=wrong)
    wrong = "x"
    with pytest.raises(denoise.ConfigError, match="sigma is 'x'; expected a number"):
        denoise.denoise_points(np.random.default_rng(0).normal(size=(64, 3)), wrong)


def test_types_of_load_are_those_of_the_bundled_models() -> None:
    assert set(get_args(pipelines.AudioModel)) == {*bundled("denoiser", "audio")}
    assert set(get_args(pipelines.ImageModel)) == {*bundled("denoiser", "image")}
    assert set(get_args(pipelines.PriorModel)) == {*bundled("prior")}
    assert set(get_args(pipelines.ClassifierModel)) == {*bundled("classifier")}


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
