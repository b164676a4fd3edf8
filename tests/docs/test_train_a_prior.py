"""The guide from a folder to a prior: its scripts, recipes and commands are run in their order, with fewer steps."""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from denoise import cli
from denoise.files.audio import write_audio
from denoise.registry import load
from denoise.signals import Audio, AudioFormat

PAGE = Path(__file__).parents[2] / "docs/how-to/train-a-prior.md"
SHORT = ["--set", "schedule.steps=2", "--set", "schedule.batch=2", "--set", "schedule.warmup=1", "--device", "cpu"]


def write_folders(root: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        for kind in ("photos", "sounds"):
            (root / kind / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (40, 50 + i, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"photos/{name}/{i}.png")
            samples = rng.uniform(-0.5, 0.5, (2, 300 + 100 * i)).astype(np.float32)
            write_audio(root / f"sounds/{name}/{i}.wav", Audio(samples, AudioFormat(16000, 2, "WAV", "FLOAT")))


@pytest.mark.parametrize("name", ["photos", "sounds"])
def test_the_guide_leads_from_a_folder_to_a_prior(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```(python|toml|sh)\n(.*?)```", text, re.DOTALL) if name in block[1]]
    assert [language for language, _ in blocks] == ["python", "toml", "sh"]
    script, recipe, commands = (code for _, code in blocks)
    if name == "sounds":  # 8000 samples take minutes
        script, recipe = script.replace("8000, 8000", "8000, 64"), recipe.replace("[1, 8000]", "[1, 64]")
    exec(compile(script, str(PAGE), "exec"), {})
    with np.load(f"data/{name}.npz") as archive:
        assert archive["signals"].shape == ((12, 32, 32, 3) if name == "photos" else (12, 64))
        assert archive["labels"].tolist() == [0] * 6 + [1] * 6
    (tmp_path / f"{name}.toml").write_text(recipe)
    for command in commands.splitlines():
        words = [str(found) for word in shlex.split(command) for found in (sorted(Path().glob(word)) or [word])]
        monkeypatch.setattr(sys, "argv", words + SHORT * (words[1] == "train"))
        with suppress(SystemExit):  # failures print no results
            cli.main()
        if words[1] == "train":
            assert "warning" not in capsys.readouterr().err
    printed = capsys.readouterr()
    assert all(f"{each}.{'png' if name == 'photos' else 'wav'}" in printed.out for each in range(6))  # scored
    assert load(tmp_path / f"runs/{name}/{name}.safetensors")[1].classes == ("cats", "dogs")
    assert [*tmp_path.glob("samples.*")]
