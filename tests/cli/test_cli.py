"""The command line: exit codes, one line per error, clean standard output."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Pillow
from typer.main import get_command

import denoise
from denoise import options
from denoise.cli import app
from denoise.colour import LUMA_601
from denoise.errors import describe_unexpected, is_out_of_memory
from denoise.pipelines.audio import AudioPipeline
from denoise.pipelines.image import ImagePipeline
from denoise.registry import bundled
from tests.cli.conftest import Command

Models = dict[str, Path]

RECIPE = """
name = "tiny"
architecture = "conv-dae"
modality = "image"
[model]
ndim = 2
channels = 3
widths = [4]
kernels = [3]
strides = [1]
blocks = [1]
[image]
folders = ["."]
[schedule]
steps = 1
"""


def write_audio(path: Path, seconds: float = 0.5, rate: int = 16_000, channels: int = 1) -> bytes:
    x = np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels))
    soundfile.write(path, x, rate, "PCM_16")
    return path.read_bytes()


def open_image(source: Any) -> Any:
    with Pillow.open(source) as image:
        image.load()
        return image


def write_image(path: Path, side: int = 20) -> bytes:
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)).save(path)
    return path.read_bytes()


class TestFiles:
    def test_the_default_output_is_beside_the_input(self, command: Command, models: Models, tmp_path: Path) -> None:
        write_audio(tmp_path / "a.wav")
        done = command("audio", "a.wav", "--model", models["keep-audio"])
        assert done.code == 0
        assert done.out.decode().startswith("a.denoised.wav  0.")
        assert re.search(r" x real time, noise (-[\d.]+) -> \1 dBFS\n$", done.out.decode())
        assert done.err == ""
        assert sorted(os.listdir()) == ["a.denoised.wav", "a.wav"]
        assert (soundfile.read("a.wav")[0] == soundfile.read("a.denoised.wav")[0]).all()

    def test_a_folder_tree_with_json(self, command: Command, models: Models, tmp_path: Path) -> None:
        (tmp_path / "in" / "deep").mkdir(parents=True)
        write_image(tmp_path / "in" / "a.png")
        write_image(tmp_path / "in" / "deep" / "b.jpg")
        done = command("image", "in", "-o", "out", "--json", "--model", models["keep-image"], "--tile", 64)
        assert (done.code, done.err) == (0, "")
        assert [row["output"] for row in done.rows] == ["out/a.png", "out/deep/b.jpg"]
        assert set(done.rows[0]) == {
            "input",
            "output",
            "seconds",
            "megapixels_per_s",
            "noise_before_sigma_255",
            "noise_after_sigma_255",
            "model",
            "model_reason",
            "precision",
            "warnings",
        }
        assert done.rows[0]["model_reason"] == "given"
        assert open_image("out/deep/b.jpg").size == (20, 20)

    def test_a_file_that_fails_does_not_stop_the_others(self, command: Command, models: Models, tmp_path: Path) -> None:
        for name in ("a", "c"):
            write_audio(tmp_path / f"{name}.wav")
        (tmp_path / "b.wav").write_text("not audio")
        done = command("audio", "a.wav", "b.wav", "missing.wav", "c.wav", "--model", models["keep-audio"])
        assert done.code == 1
        assert Path("a.denoised.wav").exists()
        assert Path("c.denoised.wav").exists()
        assert not Path("b.denoised.wav").exists()
        lines = done.err.splitlines()
        assert len(lines) == 2
        assert lines[0].startswith("denoise: b.wav: cannot be read as audio")
        assert lines[1].startswith("denoise: missing.wav: cannot be opened (No such file")
        as_json = command("audio", "a.wav", "b.wav", "--json", "--overwrite", "--model", models["keep-audio"])
        assert as_json.code == 1
        assert [(row["input"], row["output"]) for row in as_json.rows] == [("a.wav", "a.denoised.wav"), ("b.wav", None)]
        assert "cannot be read as audio" in as_json.rows[1]["error"]

    def test_existing_outputs(self, command: Command, models: Models, tmp_path: Path) -> None:
        write_audio(tmp_path / "a.wav")
        (tmp_path / "b.wav").write_text("mine")
        refused = command("audio", "a.wav", "-o", "b.wav", "--model", models["keep-audio"])
        assert refused.code == 1
        assert refused.err == "denoise: b.wav: exists already. Give --overwrite (overwrite=True) to replace it.\n"
        assert Path("b.wav").read_text() == "mine"
        assert command("audio", "a.wav", "-o", "b.wav", "--overwrite", "--model", models["keep-audio"]).code == 0
        assert soundfile.info("b.wav").frames == 8000
        assert command("audio", "a.wav", "-o", "a.wav", "--overwrite", "--model", models["mute-audio"]).code == 0
        assert not soundfile.read("a.wav")[0].any()

    def test_warnings_are_printed(self, command: Command, models: Models, tmp_path: Path) -> None:
        data = write_audio(tmp_path / "a.wav")
        size = data.index(b"data") + 4
        (tmp_path / "a.wav").write_bytes(data[:size] + struct.pack("<I", 1 << 30) + data[size + 4 :])
        done = command("audio", "a.wav", "--json", "--model", models["keep-audio"])
        assert done.code == 0
        assert done.err.startswith("denoise: warning: a.wav: the header declares 1,073,741,824 bytes of data")
        assert len(done.rows[0]["warnings"]) == 1

    def test_names_that_look_like_markup_on_a_terminal(
        self, command: Command, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")  # the progress bar is drawn on terminals
        (tmp_path / "a[").mkdir()
        write_audio(tmp_path / "a[" / "b].wav")
        done = command("audio", "a[/b].wav", "--model", models["keep-audio"])
        assert done.code == 0
        assert Path("a[/b].denoised.wav").exists()
        assert "a[/b].wav" in done.err

    def test_strength_is_passed_on(self, command: Command, models: Models, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png")
        write_audio(tmp_path / "a.wav")
        command("image", "a.png", "-o", "b.png", "--strength", 0, "--model", models["mute-image"])
        command("audio", "a.wav", "-o", "b.wav", "--strength", 0.5, "--model", models["mute-audio"])
        assert (np.asarray(open_image("a.png")) == np.asarray(open_image("b.png"))).all()
        x, y = (soundfile.read(name)[0] for name in ("a.wav", "b.wav"))
        np.testing.assert_allclose(2 * y, x, rtol=0, atol=2 / 32768)

    def test_the_limit_on_megapixels(self, command: Command, models: Models, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png", 40)
        done = command("image", "a.png", "--max-megapixels", 0.001, "--model", models["keep-image"])
        assert done.code == 1
        assert "megapixels" in done.err


class TestImageStrengths:
    @pytest.fixture
    def before(self, tmp_path: Path) -> Any:
        write_image(tmp_path / "a.png", side=40)
        return np.asarray(open_image(tmp_path / "a.png")).astype(float)

    @staticmethod
    def run(command: Command, *words: Any) -> Any:
        done = command("image", "a.png", "-o", "b.png", "--overwrite", *words)
        assert (done.code, done.err) == (0, "")
        return np.asarray(open_image("b.png")).astype(float)

    def test_luminance_and_colour(self, command: Command, models: Models, before: Any) -> None:
        model = ("--model", models["mute-image"])
        np.testing.assert_array_equal(self.run(command, *model, "--luminance", 0, "--colour", 0), before)
        np.testing.assert_array_equal(self.run(command, *model), 0)
        half = self.run(command, *model, "--luminance", 0.5, "--colour", 0.5)
        np.testing.assert_allclose(half, before / 2, atol=0.51)
        grey = self.run(command, *model, "--luminance", 0)  # clipped only at black
        np.testing.assert_allclose(np.ptp(grey, axis=2), 0, atol=1)
        np.testing.assert_allclose(grey @ LUMA_601, before @ LUMA_601, atol=1)

    def test_sigma_and_detail_of_the_default_model(self, command: Command, before: Any) -> None:
        x = before.astype(np.uint8)
        y = self.run(command, "--sigma", 25)
        np.testing.assert_array_equal(y, denoise.denoise_image(x, 25))
        detailed = self.run(command, "--sigma", 25, "--detail", 1)
        np.testing.assert_array_equal(detailed, denoise.denoise_image(x, 25, detail=1))
        assert np.abs(detailed - before).mean() < np.abs(y - before).mean()


class TestManyFiles:
    def test_an_interrupted_run_is_resumed(self, command: Command, models: Models, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        for name in "abc":
            write_audio(tmp_path / "in" / f"{name}.wav")
        words = ("audio", "in", "-o", "out", "--model", models["keep-audio"], "--json")
        assert command(*words).code == 0
        os.remove("out/b.wav")
        before = os.stat("out/a.wav").st_mtime_ns
        done = command(*words, "--skip-existing")
        assert (done.code, done.err) == (0, "")
        assert [row.get("skipped", False) for row in done.rows] == [True, False, True]
        assert os.stat("out/a.wav").st_mtime_ns == before
        assert sorted(os.listdir("out")) == ["a.wav", "b.wav", "c.wav"]
        assert "exclude each other" in command(*words, "--skip-existing", "--overwrite").err

    def test_skipped_kinds_of_files_are_listed(self, command: Command, models: Models, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        write_audio(tmp_path / "in" / "a.wav")
        for name in ("b.mid", "c.mid", "d.XM", ".hidden.txt", "a.denoised.m4a"):
            (tmp_path / "in" / name).touch()
        done = command("audio", "in", "-o", "out", "--model", models["keep-audio"])
        assert (done.code, done.err) == (0, "denoise: files are skipped: .mid 2, .xm 1, outputs of earlier runs 1\n")

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (
                RuntimeError("DefaultCPUAllocator: can't allocate memory:\n you tried"),
                "Out of memory. Reduce --block, --tile",
            ),
            (MemoryError(), "Out of memory. Reduce --block, --tile"),
            (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero. This is a bug in denoise"),
        ],
    )
    def test_an_unexpected_error_does_not_stop_the_others(
        self,
        command: Command,
        models: Models,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
        message: str,
    ) -> None:
        write_audio(tmp_path / "a.wav")
        write_audio(tmp_path / "b.wav")
        original, calls = AudioPipeline.start, []

        def start(*words: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == 1:
                raise error
            return original(*words, **options)

        monkeypatch.setattr(AudioPipeline, "start", start)
        done = command("audio", "a.wav", "b.wav", "--model", models["keep-audio"])
        assert done.code == 1
        assert done.err.startswith("denoise: a.wav: ")
        assert message in done.err
        assert done.err.count("\n") == 1
        assert sorted(os.listdir()) == ["a.wav", "b.denoised.wav", "b.wav"]

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (ZeroDivisionError("by zero"), "denoise: ZeroDivisionError: by zero. This is a bug in denoise"),
            (OSError("libgomp.so.1: cannot open shared object file"), "denoise: libgomp.so.1: cannot open shared"),
        ],
    )
    def test_an_unexpected_error_is_one_line(
        self, command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
    ) -> None:
        def broken(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr("denoise.cards.read_header", broken)
        done = command("models")
        assert done.code == 1
        assert done.err.startswith(message)
        assert done.err.count("\n") == 1


class TestExtraOutputs:
    def test_the_removed_signal_is_the_difference(self, command: Command, models: Models, tmp_path: Path) -> None:
        write_audio(tmp_path / "a.wav", channels=2)
        done = command(
            "audio", "a.wav", "--model", models["mute-audio"], "--removed", "removed.wav", "--strength", 0.25
        )
        assert (done.code, done.err) == (0, "")
        before, after, removed = (soundfile.read(name)[0] for name in ("a.wav", "a.denoised.wav", "removed.wav"))
        np.testing.assert_allclose(removed, before - after, atol=1e-7)
        np.testing.assert_allclose(after, 0.75 * before, atol=1e-4)

    def test_the_attenuation_limit(self, command: Command, models: Models, tmp_path: Path) -> None:
        write_audio(tmp_path / "a.wav")
        command("audio", "a.wav", "--model", models["mute-audio"], "--attenuation-limit", 20)
        before, after = soundfile.read("a.wav")[0], soundfile.read("a.denoised.wav")[0]
        np.testing.assert_allclose(after, 0.1 * before, atol=1e-4)
        assert "expected 0 or more" in command("audio", "a.wav", "--attenuation-limit", -1, "--overwrite").err

    def test_the_comparison_of_audio(self, command: Command, models: Models, tmp_path: Path) -> None:
        write_audio(tmp_path / "a.wav", seconds=1.5, rate=44_100, channels=2)
        words = ("audio", "a.wav", "--model", models["mute-audio"], "--compare", "see.png")
        assert command(*words).code == 0
        figure = np.asarray(open_image("see.png").convert("RGB"))
        assert figure.shape[0] > 500
        third = figure.shape[0] // 3
        assert figure[third : 2 * third].mean() < 0.7 * figure[:third].mean()  # the spectrogram of silence is dark
        repeated = command(*words)
        assert (repeated.code, repeated.err.count("\n")) == (2, 1)
        assert "see.png: exists already" in repeated.err
        assert "a single input file" in command("audio", "a.wav", "b.wav", "--compare", "other.png").err

    def test_a_missing_package_of_the_comparison_is_reported_first(
        self, command: Command, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_audio(tmp_path / "a.wav")
        monkeypatch.setattr("denoise.pipelines.compare.find_spec", lambda name: None)
        done = command("audio", "a.wav", "--model", models["keep-audio"], "--compare", "b.png")
        assert done.code == 2
        assert "librosa is missing" in done.err
        assert os.listdir() == ["a.wav"]

    def test_the_comparison_of_images(self, command: Command, models: Models, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png", 40)
        words = ("image", "a.png", "--model", models["mute-image"], "--compare", "see.png", "--strength", 0.5)
        done = command(*words)
        assert (done.code, done.err) == (0, "")
        assert sorted(os.listdir()) == ["a.denoised.png", "a.png", "see.png"]
        panel = np.asarray(open_image("see.png"))
        size = 480
        before, after = (panel[62 : 62 + size, left : left + size].astype(int) for left in (24, 24 + size + 16))
        assert (before[6::12, 6::12] == np.asarray(open_image("a.png"))).all()
        assert (after[6::12, 6::12] == np.asarray(open_image("a.denoised.png"))).all()
        repeated = command(*words)
        assert (repeated.code, repeated.err) == (
            2,
            "denoise: see.png: exists already. Give --overwrite (overwrite=True) to replace it.\n",
        )
        assert command(*words, "--overwrite").code == 0
        refused = command(*words, "--overwrite", "--max-megapixels", 0.001)
        assert (refused.code, refused.err.count("\n")) == (1, 1)

    @pytest.mark.parametrize("kind", ["audio", "image"])
    def test_invalid_comparisons_are_refused_before_any_work(
        self, command: Command, models: Models, tmp_path: Path, kind: str
    ) -> None:
        (tmp_path / "in").mkdir()
        for name in ("a", "b", "in/c"):
            write_audio(tmp_path / f"{name}.wav") if kind == "audio" else write_image(tmp_path / f"{name}.png")
        end = "wav" if kind == "audio" else "png"
        before = sorted(tmp_path.rglob("*"))
        one_file = "--compare needs a single input file and output file, neither a folder nor -."
        for words, message in (
            (["a", "b", "--compare", "see.png"], one_file),
            (["in/", "--compare", "see.png"], one_file),
            (["-", "--compare", "see.png"], one_file),
            (["a", "-o", "-", "--compare", "see.png"], one_file),
            (["a", "--compare", "see.jpg"], "see.jpg: expected a .png for a comparison. Choose such a name."),
            (["a", "--compare", "see"], "see: expected a .png for a comparison"),
            (["a", "-o", "a", "--overwrite", "--compare", "see.png"], f"a.{end}: would replace the input"),
            (["a", "-o", ".", "--overwrite", "--compare", "see.png"], f"a.{end}: would replace the input"),
            (["a", "-o", "see.png", "--compare", "./see.png"], "./see.png: is another file of this run already"),
            (["a", "--compare", "x" * 300 + ".png"], "x.png"),
        ):
            full = [f"{word}.{end}" if word in ("a", "b") else word for word in words]
            done = command(kind, *full, "--model", models[f"keep-{kind}"])
            assert message in done.err
            assert done.err.count("\n") == 1
            assert done.code == (1 if "x.png" in message else 2)
            if "x.png" not in message:
                assert sorted(tmp_path.rglob("*")) == before

    def test_no_output_replaces_an_input(self, command: Command, models: Models, tmp_path: Path) -> None:
        data = write_image(tmp_path / "a.png")
        done = command("image", "a.png", "--overwrite", "--compare", "a.png", "--model", models["keep-image"])
        assert (done.code, done.out) == (2, b"")
        assert "a.png: is another file of this run already. Give --compare a name of its own." in done.err
        assert (tmp_path / "a.png").read_bytes() == data
        write_audio(tmp_path / "b.wav")
        both = ("audio", "b.wav", "--model", models["keep-audio"], "--compare", "c.png", "--removed")
        assert "Give --removed a name of its own." in command(*both, "c.png").err
        assert "--compare and --removed need a single input file" in command(*both, "d.wav", "a.wav").err

    @pytest.mark.parametrize(("kind", "end"), [("audio", ".wav"), ("image", ".png")])
    def test_posterior_samples_are_files_beside_each_other(
        self, command: Command, models: Models, tmp_path: Path, kind: str, end: str
    ) -> None:
        (write_audio if kind == "audio" else write_image)(tmp_path / f"a{end}")
        words = [kind, f"a{end}", "--model", models[f"vary-{kind}"], "--samples", 2, "--seed", 7]
        done = command(*words, "--json")
        assert done.code == 0
        names = {f"a.{suffix}{end}" for suffix in ("sample-1", "sample-2", "mean", "std")}
        row = json.loads(done.out)
        assert {Path(file).name for file in row["files"]} == names
        assert Path(row["output"]).name == f"a.mean{end}"
        assert {p.name for p in tmp_path.iterdir()} == names | {f"a{end}"}
        before = (tmp_path / f"a.sample-2{end}").read_bytes()
        assert before != (tmp_path / f"a.sample-1{end}").read_bytes()
        refused = command(*words)
        assert (refused.code, refused.err.count("exists already")) == (1, 1)
        assert command(*words, "--overwrite").code == 0
        assert (tmp_path / f"a.sample-2{end}").read_bytes() == before  # the seed alone decides
        assert command(kind, ".", "--model", models[f"keep-{kind}"]).code == 0  # our own outputs are no inputs
        assert len([*tmp_path.iterdir()]) == 6
        for conflicting in (["--skip-existing"], ["-o", "-"], ["--compare", "x.png"]):
            assert command(*words, *conflicting).code == 2
        words[1] = f"a.sample-1{end}"  # whose first sample would replace it
        refused = command(*words, "-o", f"a{end}", "--overwrite")
        assert (refused.code, refused.err.count("is the input itself")) == (1, 1)
        assert command(kind, "-", "--model", models[f"vary-{kind}"], "--samples", 2, stdin=before).code == 2

    def test_perception_of_audio(self, command: Command, models: Models, tmp_path: Path) -> None:
        write_audio(tmp_path / "a.wav")
        words = ["audio", "a.wav", "--model", models["flow-audio"], "--overwrite", "--json"]
        outputs, rows = {}, {}
        for perception, seed in ((0, 1), (1, 1), (1, 2)):
            done = command(*words, "--perception", perception, "--seed", seed, "--steps", 2)
            assert (done.code, done.err) == (0, "")
            rows[perception] = json.loads(done.out)
            outputs[perception, seed] = (tmp_path / "a.denoised.wav").read_bytes()
        assert command(*words).code == 0
        assert outputs[0, 1] == (tmp_path / "a.denoised.wav").read_bytes()  # the posterior mean
        assert len({*outputs.values()}) == 3
        refused = command(*words, "--perception", 0, "--samples", 2)
        assert (refused.code, "--perception 0 needs a single output" in refused.err) == (2, True)
        assert {"residual_by_noise", "residual_with_answer"} <= rows[1].keys() - rows[0].keys()

    def test_metadata_that_cannot_be_carried_are_a_warning(
        self, command: Command, models: Models, tmp_path: Path
    ) -> None:
        data = write_audio(tmp_path / "a.wav") + b"bext" + struct.pack("<I", 602) + bytes(602)
        (tmp_path / "a.wav").write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
        done = command("audio", "a.wav", "-o", "b.flac", "--json", "--model", models["keep-audio"])
        message = "b.flac: FLAC cannot hold all of the input; without bext."
        assert (done.code, done.err) == (0, f"denoise: warning: {message}\n")
        assert done.rows[0]["warnings"] == [message]
        done = command("audio", "a.wav", "-o", "b.wav", "--json", "--model", models["keep-audio"])
        assert (done.code, done.err) == (0, "")
        assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


class TestStreams:
    def test_wav_from_stdin_to_stdout(self, command: Command, models: Models, tmp_path: Path) -> None:
        data = write_audio(tmp_path / "a.wav", channels=2)
        done = command("audio", "-", "-o", "-", "--json", "--model", models["keep-audio"], stdin=data)
        assert done.code == 0
        with wave.open(io.BytesIO(done.out)) as file, wave.open("a.wav") as before:
            assert file.getparams()[:3] == before.getparams()[:3]
            assert file.readframes(100_000) == before.readframes(100_000)
        row = json.loads(done.err)  # standard output holds audio only, so JSON goes to standard error
        assert (row["input"], row["output"]) == ("standard input", "-")

    def test_png_from_stdin_to_stdout(self, command: Command, models: Models, tmp_path: Path) -> None:
        data = write_image(tmp_path / "a.png")
        done = command("image", "-", "-o", "-", "--model", models["keep-image"], stdin=data)
        assert (done.code, done.err) == (0, "")
        output = open_image(io.BytesIO(done.out))
        assert output.format == "PNG"
        assert (np.asarray(output) == np.asarray(open_image("a.png"))).all()

    def test_raw_pcm_to_stdout_and_to_a_file(self, command: Command, models: Models, tmp_path: Path) -> None:
        data = np.random.default_rng(0).integers(-9000, 9000, 20_000, np.int16).tobytes()
        raw = ["--rate", 16000, "--channels", 2, "--format", "s16le", "--model", models["keep-audio"]]
        done = command("audio", "-", *raw, stdin=data)
        assert (done.code, done.out, done.err) == (0, data, "")
        assert command("audio", "-", "-o", "a.wav", *raw, stdin=data).code == 0
        with wave.open("a.wav") as file:
            assert file.getparams()[:4] == (2, 2, 16_000, 10_000)
            assert file.readframes(10_000) == data

    def test_a_file_to_standard_output(self, command: Command, models: Models, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.flac", np.zeros(900), 16_000)
        done = command("audio", "a.flac", "-o", "-", "--model", models["keep-audio"])
        assert soundfile.info(io.BytesIO(done.out)).format == "FLAC"

    @pytest.mark.parametrize("kind", ["audio", "image"])
    def test_empty_or_invalid_stdin(self, command: Command, models: Models, kind: str) -> None:
        for data in (b"", b"nonsense" * 99):
            done = command(kind, "-", "-o", "-", "--json", "--model", models[f"keep-{kind}"], stdin=data)
            assert done.code == 1
            assert done.out == b""
            message, row = done.err.splitlines()
            assert message.startswith("denoise: standard input: ")
            assert json.loads(row)["output"] is None


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["audio", "a.wav", "--strength", "1.5"], "strength is 1.5; expected 0"),
            (["audio", "a.wav", "--strength", "nan"], "strength is nan"),
            (["image", "a.png", "--strength", "-1"], "strength is -1"),
            (["audio", "a.wav", "--block", "0"], "block is 0 s"),
            (["audio", "a.wav", "--block", "inf"], "block is inf s"),
            (["image", "a.png", "--tile", "0"], "tile is 0 pixels"),
            (["image", "a.png", "--sigma", "loud"], "sigma is 'loud'; expected auto or a number"),
            (["image", "a.png", "--sigma", "25"], "keep-image is blind"),
            (["image", "a.png", "--detail", "0.5"], "keep-image is blind: it takes no detail"),
            (["image", "a.png", "--detail", "2"], "detail is 2; expected 0 to 1"),
            (["image", "a.png", "--luminance", "1.5"], "luminance is 1.5; expected 0 to 1"),
            (["image", "a.png", "--colour", "nan"], "colour is nan; expected 0 to 1"),
            (["image", "a.png", "--samples", "3"], "keep-image has one output and no posterior samples"),
            (["audio", "a.wav", "--samples", "3"], "keep-audio has one output and no posterior samples"),
            (["audio", "a.wav", "--perception", "1"], "keep-audio has one output and no posterior samples"),
            (["audio", "a.wav", "--steps", "0"], "steps is 0; expected at least 1"),
            (["audio", "a.wav", "--steps", "50"], "--steps needs --perception or --samples; leave it out"),
            (["audio", "a.wav", "--model", "speech", "--seed", "0"], "--seed needs --perception or --samples"),
            (["image", "a.png", "--steps", "20"], "--steps needs --perception or --samples"),
            (["image", "a.png", "--seed", "5"], "--seed needs --perception or --samples"),
            (["audio", "a.wav", "--seed", "-1"], "--seed is -1; expected 0 to"),
            (["image", "a.png", "--seed", "-1"], "--seed is -1; expected 0 to"),
            (["image", "a.png", "--seed", "9" * 20], "expected 0 to"),
            (["image", "a.png", "--max-megapixels", "nan"], "max_megapixels is nan; expected a number above 0"),
            (["image", "a.png", "b.png", "-o", "c.png"], "c.png: is one file, and there are several inputs"),
            (["audio", "empty", "-o", "all.wav"], "all.wav: is one file"),
            (["audio", "a.wav", "--device", "tpu"], "device 'tpu' is not available"),
            (["audio", "a.wav", "b.wav", "-o", "-"], "-o - takes one input"),
            (["audio", "a.wav", "-o", "./a.wav"], "is an input itself"),
            (["audio", "a.wav", "a.wav"], "would both be written"),
            (["audio", "-", "--rate", "8000"], "raw PCM needs all three"),
            (["audio", "a.wav", "--rate", "8000", "--channels", "1", "--format", "u8"], "give - as INPUT"),
            (["audio", "-", "--rate", "8000", "--channels", "0", "--format", "u8"], "0 channels; expected 1 to 8"),
            (["audio", "-", "--rate", "0", "--channels", "1", "--format", "u8"], "sample rate is 0 Hz"),
            (["audio", "-", "--rate", "8000", "--channels", "1", "--format", "mp3"], "raw format is 'mp3'"),
            (["audio", "-", "--rate", "8000", "--channels", "1", "--format", ""], "raw format is ''"),
            (["audio", "empty"], "no file in it that can be denoised"),
            (["audio", "a" * 300 + ".wav"], "a.wav"),
        ],
    )
    def test_an_error_is_one_line_with_exit_code_2(
        self, command: Command, models: Models, words: list[str], message: str, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        done = command(*words, "--model", models[f"keep-{words[0]}"])
        assert done.code == (1 if len(words[1]) > 300 else 2)
        assert done.out == b""
        assert done.err.startswith("denoise: ")
        assert done.err.count("\n") == 1
        assert message in done.err
        assert os.listdir() == ["empty"]

    @pytest.mark.parametrize(
        "words", [["audio"], ["nonsense"], ["audio", "a.wav", "--nonsense"], ["audio", "a.wav", "--rate", "fast"], []]
    )
    def test_usage_errors(self, command: Command, words: list[str]) -> None:
        assert command(*words).code == 2

    def test_invalid_models(self, command: Command, models: Models, tmp_path: Path) -> None:
        good = models["keep-audio"].read_bytes()
        files = {
            "text.safetensors": b"no weights",
            "empty.safetensors": b"",
            "cut.safetensors": good[:-100],
            "header.safetensors": struct.pack("<Q", 1 << 60) + good[8:],
            "other.safetensors": good.replace(b"conv-dae", b"conv-dog"),
            "pickle.safetensors": b"\x80\x04cos\nsystem\n",
            "late.safetensors": good.replace(b'"format_version":"1"', b'"format_version":"9"'),
        }
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            assert data != good
        for name in [*files, "nowhere.safetensors", "no-such-name", str(models["keep-image"])]:
            for words in (["audio", "a.wav", "--model", name], ["info", name]):
                if words[0] == "info" and name in (str(models["keep-image"]), "cut.safetensors", "other.safetensors"):
                    continue  # their headers are valid
                done = command(*words)
                assert (done.code, done.out) == (2, b""), (words, done)
                assert done.err.startswith("denoise: ")
                assert done.err.count("\n") == 1
                assert name in done.err


class TestEvaluateAndTrain:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["evaluate", "{model}", "--data", ".", "--levels", "abc"], "--levels is 'abc'"),
            (["evaluate", "{model}", "--data", "."], "holds no files of a known kind"),
            (["train", "recipe.toml", "--data", ".", "--device", "tpu"], "device 'tpu' is not available"),
            (["train", "recipe.toml", "--data", ".", "--set", "image.patch=0"], "patch is 0"),
            (
                ["train", "recipe.toml", "--data", ".", "--set", "image.patch=6", "--set", "image.degrade.jpeg=0.5"],
                "patch is 6; expected at least 8",
            ),
            (["train", "recipe.toml", "--data", ".", "--set", "model.channels=2"], "photographs have 1 (grey) or 3"),
            (["train", "recipe.toml", "--data", ".", "--set", "name=a/b"], "leave slashes out"),
            (["train", "recipe.toml", "--data", ".", "--set", "steps=5"], "steps: no such setting"),
            (["train", "recipe.toml", "--data", ".", "-o", "/proc/nope"], "/proc/nope"),
        ],
    )
    def test_an_error_is_one_line(
        self, command: Command, models: Models, tmp_path: Path, words: list[str], message: str
    ) -> None:
        (tmp_path / "recipe.toml").write_text(RECIPE)
        done = command(*(word.format(model=models["keep-image"]) for word in words))
        assert done.code in (1, 2)
        assert message in done.err
        assert len([line for line in done.err.splitlines() if line.startswith("denoise: ")]) == 1

    @pytest.mark.parametrize("words", [["--limit", "0"], ["--precision", "64x"]])
    def test_usage_errors(self, command: Command, words: list[str]) -> None:
        kind = ["evaluate", "x"] if words[0] == "--limit" else ["train", "x"]
        assert command(*kind, "--data", ".", *words).code == 2

    def test_metrics_are_recorded_in_the_card(self, command: Command, models: Models, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png")
        weights = tmp_path / "own.safetensors"
        weights.write_bytes(models["keep-image"].read_bytes())
        done = command("evaluate", weights, "--data", ".", "--levels", "25", "--record", "mine", "--json")
        assert (done.code, done.err) == (0, "")
        measured = json.loads(done.out)
        card = json.loads(command("info", weights, "--json").out)["card"]
        assert card["metrics"]["mine"] == {key: measured[key] for key in ("rows", "protocol")}

    def test_pairs_of_clean_and_noisy_files(self, command: Command, models: Models, tmp_path: Path) -> None:
        for folder in ("clean", "noisy"):
            (tmp_path / folder).mkdir()
            write_image(tmp_path / folder / "a.png")
        done = command("evaluate", models["keep-image"], "--data", "clean", "--noisy", "noisy", "--json")
        assert done.code == 0
        (row,) = json.loads(done.out)["rows"]
        assert row["ssim_noisy"] == 1
        assert "sigma" not in row
        table = command("evaluate", models["keep-image"], "--data", "clean", "--noisy", "noisy").out.decode()
        assert "noisy files" in table
        assert command("evaluate", models["keep-image"], "--data", "clean", "--noisy", "none").code == 2

    def test_estimated_noise(self, command: Command, models: Models, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png")
        words = ("evaluate", models["sigma-image"], "--data", ".", "--levels", "25", "--json")
        given, estimated = (json.loads(command(*words, *more).out) for more in ((), ("--estimate",)))
        assert "true sigma given" in given["protocol"]
        assert "noise estimated" in estimated["protocol"]
        assert given["rows"][0]["psnr_noisy"] == estimated["rows"][0]["psnr_noisy"]
        assert given["rows"][0]["psnr"] != estimated["rows"][0]["psnr"]

    def test_a_missing_package_of_the_metrics_is_reported(
        self, command: Command, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_image(tmp_path / "a.png")
        monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
        done = command("evaluate", models["keep-image"], "--data", ".")
        assert done.code == 2
        assert 'pip install ".[metrics]"' in done.err


class TestModels:
    def test_the_list(self, command: Command) -> None:
        done = command("models")
        assert done.code == 0
        text = done.out.decode()
        assert all(name in text for name in denoise.bundled())
        assert len(text.splitlines()) == 1 + len(denoise.bundled())

    def test_the_list_in_json(self, command: Command) -> None:
        rows = command("models", "--json").rows
        assert [row["name"] for row in rows] != []
        assert {row["name"] for row in rows} == set(denoise.bundled())
        assert {row["chosen_by"] for row in rows if "chosen_by" in row} == {"default", "--perception"}

    @pytest.mark.parametrize("name", bundled())
    def test_every_bundled_model_has_metrics(self, command: Command, name: str) -> None:
        done = command("info", name)
        assert (done.code, done.err) == (0, "")
        assert f"name: {name}\n" in done.out.decode()
        assert "\nmetrics:\n" in done.out.decode()

    def test_the_card(self, command: Command, models: Models) -> None:
        done = command("info", models["mask-audio"])
        assert done.code == 0
        lines = done.out.decode().splitlines()
        assert "architecture: spectral-dae" in lines
        assert "sample_rate: 16000" in lines
        header = json.loads(command("info", models["mask-audio"], "--json").out)
        assert header["card"]["name"] == "mask-audio"
        assert header["config"]["n_fft"] == 128

    def test_the_version(self, command: Command) -> None:
        assert command("--version").out.decode().strip() == denoise.__version__


class TestProcesses:
    """Behaviour that needs a process of its own: pipes, signals and exit codes."""

    def run(self, *words: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "denoise", *map(str, words)]
        return subprocess.run(command, capture_output=True, check=False, timeout=60, **options)

    def test_pipes_on_both_sides(self, models: Models, tmp_path: Path) -> None:
        data = write_audio(tmp_path / "a.wav", seconds=3)
        done = self.run("audio", "-", "-o", "-", "--block", 0.5, "--model", models["keep-audio"], input=data)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout[-96_000:] == data[-96_000:]

    def test_a_reader_that_closes_the_pipe(self, models: Models, tmp_path: Path) -> None:
        write_audio(tmp_path / "a.wav", seconds=20)
        line = f"{sys.executable} -m denoise audio a.wav -o - --block 1 --model {models['keep-audio']} | head -c 10"
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, check=False, timeout=60)
        assert done.stdout == (tmp_path / "a.wav").read_bytes()[:10]
        assert done.stderr == b""

    @pytest.mark.parametrize(
        ("words", "redirection", "expected"),
        [
            ("a.wav -o b.wav", ">&-", (0, b"")),
            ("a.wav -o b.wav", "<&- >&- 2>&-", (0, b"")),
            ("- -o b.wav", "<&-", (1, b"denoise: standard input is closed. Open it, or give a file in place of -.\n")),
            ("a.wav -o -", ">&-", (1, b"denoise: standard output is closed. Open it, or give a file in place of -.\n")),
        ],
    )
    def test_closed_descriptors(
        self, words: str, redirection: str, expected: tuple[int, bytes], models: Models, tmp_path: Path
    ) -> None:
        data = write_audio(tmp_path / "a.wav")
        line = f"{sys.executable} -m denoise audio {words} --model {models['keep-audio']} {redirection}"
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == expected
        if expected[0] == 0:
            assert (tmp_path / "b.wav").read_bytes() == data

    def test_errors_do_not_enter_the_output_if_standard_error_is_closed(self, models: Models, tmp_path: Path) -> None:
        line = f"{sys.executable} -m denoise audio nowhere.wav -o - --model {models['keep-audio']} 2>&-"
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (1, b"")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    def test_a_full_disk_behind_standard_output(self, models: Models, tmp_path: Path) -> None:
        write_audio(tmp_path / "a.wav")
        write_image(tmp_path / "a.png")
        for kind, name in (("audio", "a.wav"), ("image", "a.png")):
            line = f"{sys.executable} -m denoise {kind} {name} -o - --model {models[f'keep-{kind}']} > /dev/full"
            done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, check=False, timeout=60)
            assert done.returncode == 1, done.stderr
            assert done.stderr.startswith(b"denoise: ")
            assert done.stderr.count(b"\n") == 1, done.stderr
            assert b"No space left" in done.stderr

    def test_file_names_that_are_not_utf8(self, models: Models, tmp_path: Path) -> None:
        name = b"caf\xe9.wav"
        write_audio(tmp_path / "a.wav")
        try:
            os.rename(os.fsencode(tmp_path / "a.wav"), os.fsencode(tmp_path) + b"/" + name)
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
        done = self.run("audio", os.fsdecode(name), "--model", models["keep-audio"], cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"caf\xe9.denoised.wav" in os.listdir(os.fsencode(tmp_path))

    @pytest.mark.skipif(os.name == "nt", reason="no signals")
    def test_sigterm_leaves_no_unfinished_files(self, models: Models, tmp_path: Path) -> None:
        source, output = tmp_path / "long.wav", tmp_path / "out" / "out.wav"
        soundfile.write(source, np.zeros(20_000_000, np.int16), 16_000)
        output.parent.mkdir()
        command = [sys.executable, "-m", "denoise", "audio", str(source), "-o", str(output)]
        with subprocess.Popen([*command, "--model", str(models["causal-audio"])]) as process:
            while not list(output.parent.iterdir()):
                assert process.poll() is None
                time.sleep(0.02)
            process.terminate()
            assert process.wait(timeout=60) == 143
        assert not list(output.parent.iterdir())

    @pytest.mark.skipif(os.name == "nt", reason="no signals")
    @pytest.mark.parametrize(("number", "stopped"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "SystemExit")])
    def test_signals_are_not_lost_while_libsndfile_reads(self, number: str, stopped: str, tmp_path: Path) -> None:
        write_audio(tmp_path / "a.wav")
        program = f"""
import io, signal, time, soundfile
from denoise.cli.interrupt import stop_on_signals
class File(io.BytesIO):
    is_first = True
    def readinto(self, buffer):
        if self.is_first:
            self.is_first = False
            signal.raise_signal(signal.{number})
        return super().readinto(buffer)
stop_on_signals()
try:
    soundfile.SoundFile(File(open("a.wav", "rb").read()))
    time.sleep(10)
except BaseException as error:
    print(type(error).__name__)
"""
        result = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (result.stdout, result.stderr) == (f"{stopped}\n", "")

    @pytest.mark.skipif(os.name == "nt", reason="no signals")
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_recording_that_is_interrupted_is_kept(self, models: Models, tmp_path: Path, number: int) -> None:
        output = tmp_path / "out.wav"
        words = ["audio", "-", "-o", str(output), "--model", str(models["causal-audio"])]
        raw = ["--rate", "16000", "--channels", "1", "--format", "s16le"]
        with subprocess.Popen([sys.executable, "-m", "denoise", *words, *raw], stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(bytes(64_000))
            process.stdin.flush()
            while not (files := list(tmp_path.iterdir())) or files[0].stat().st_size < 32_000:
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(number)
            assert process.wait(timeout=60) == 0
        assert [output] == list(tmp_path.iterdir())
        assert 16_000 <= soundfile.info(output).frames <= 32_000

    def test_the_declared_length_of_a_pipe_is_kept(self, models: Models, tmp_path: Path) -> None:
        data = write_audio(tmp_path / "a.wav")
        done = self.run("audio", "-", "-o", "-", "--model", models["keep-audio"], input=data)
        assert done.stdout[:8] == data[:8]
        with wave.open(io.BytesIO(done.stdout)) as file:
            assert file.getnframes() == 8_000

    def test_output_is_written_before_the_pipe_ends(self, models: Models) -> None:
        """Half a second is written; with the pipe still open, all but the latency can be read."""
        words = ["--model", str(models["causal-audio"]), "--rate", "16000", "--channels", "1", "--format", "s16le"]
        command = [sys.executable, "-m", "denoise", "audio", "-", "-o", "-", *words]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            x = np.random.default_rng(0).integers(-3000, 3000, 16_000, np.int16)
            has_read_early = threading.Event()

            def feed(pipe: IO[bytes]) -> None:  # in a thread of its own: a pipe may hold as little as one page
                with pipe:
                    pipe.write(x[:8_000].tobytes())
                    pipe.flush()
                    has_read_early.wait()
                    pipe.write(x[8_000:].tobytes())

            with ThreadPoolExecutor() as pool:
                task = pool.submit(feed, process.stdin)
                early = process.stdout.read(2 * (8_000 - 512))  # blocks for ever if nothing is written
                has_read_early.set()
                late = process.stdout.read()
                task.result()
        assert len(early + late) == 32_000
        offline = denoise.denoise_audio(x, 16_000, model=models["causal-audio"])
        np.testing.assert_allclose(np.frombuffer(early + late, np.int16), offline, atol=1)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("alloc_cpu.cpp:81] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
)
def test_failed_allocations_are_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("allocate", [np.empty, torch.empty])
def test_real_allocations_that_fail_are_recognised(allocate: Callable[[int], Any]) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        allocate(1 << 55)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("required rank 4 tensor to use channels_last memory format"),
        RuntimeError("unable to open shared memory object </torch_1>"),
        ValueError("DPCRN: memory is 0; expected at least 1"),
        KeyError("memory"),
    ],
)
def test_other_errors_about_memory_are_not_failed_allocations(error: Exception) -> None:
    assert not is_out_of_memory(error)
    assert str(error.args[0]) in describe_unexpected(error)


def test_the_defaults_of_the_options_are_those_of_the_library() -> None:
    audio, image = (get_command(app).commands[name].params for name in ("audio", "image"))  # type: ignore[attr-defined]
    defaults = [{param.name: param.default for param in params} for params in (audio, image)]
    assert (defaults[0]["steps"], defaults[1]["steps"]) == (options.AUDIO_STEPS, options.IMAGE_STEPS)
    assert (defaults[0]["block"], defaults[1]["max_megapixels"]) == (options.BLOCK_S, options.MAX_MEGAPIXELS)
    pipelines = (AudioPipeline, ImagePipeline)
    files = [inspect.signature(pipeline.file).parameters for pipeline in pipelines]
    assert [parameters["steps"].default for parameters in files] == [options.AUDIO_STEPS, options.IMAGE_STEPS]
    assert files[1]["max_megapixels"].default == options.MAX_MEGAPIXELS
    assert inspect.signature(AudioPipeline).parameters["block"].default == options.BLOCK_S
